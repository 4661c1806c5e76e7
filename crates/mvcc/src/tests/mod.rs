//! The store against a model that keeps every revision it ever had.

mod checks;
mod fake;
mod fuzz;
mod model;
mod replay;
mod requests;
mod specs;
mod transcripts;
