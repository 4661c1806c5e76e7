//! The store against a model that keeps every revision it ever had.

mod checks;
mod fake;
mod model;
mod replay;
mod requests;
mod specs;
mod transcripts;
