//! What the API refuses.
