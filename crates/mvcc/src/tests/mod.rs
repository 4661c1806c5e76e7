//! The store against a model that keeps every revision it ever had.
