//! Messages as JSON, the way etcd's gateway takes and gives them.
//!
//! ```text
//! bytes of a client ──Scanner──> one JSON value ──decode──> the message as it is on the wire
//! the message on the wire, in pieces if it is large ──Encoder──> JSON
//! ```
//! Both directions are driven by the [`crate::schema`] and go over the wire's form, never over the generated types:
//! a new message needs nothing here. What is accepted, what is refused and in which words is Go's protojson with
//! unknown fields discarded; what is written has the names of the `.proto` files, no zero values, and 64-bit
//! numbers as strings.
//!
//! Depth is bounded on both sides, and the decoder's memory by its input's. How long a text may be is for whoever
//! reads it to say.

mod base64;
mod decode;
mod encode;
mod error;
mod scan;
#[cfg(test)]
mod tests;
mod token;

pub use decode::decode;
pub use encode::{Encoder, Escape, Malformed, push_string};
pub use error::{Error, Problem};
pub use scan::Scanner;

/// Messages inside each other that are decoded or written. Only transactions nest, two messages a level; a server
/// refuses them earlier.
const NESTING_MAX: usize = 600;
