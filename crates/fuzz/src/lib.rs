//! Drives decoders with damaged input: what every byte that comes from outside may look like.
//!
//! ```text
//! seeds of the test ──┐
//! corpus/<target>/* ──┼─> pool ──mutate──> input ──> check(input): a panic, too much memory, too long?
//!                     │                                │
//!                     └────── new kind of outcome <────┘ joins the pool
//! ```
//! A target is an ordinary test whose name begins with `fuzzed_`, so every gate runs it for a moment; `cargo xtask
//! fuzz` runs the same tests for longer. The seed is printed and taken from `ETCHED_SEED`: it and the code alone
//! decide which inputs come. An input that failed is written below `target/fuzz`; mended, it is moved into the
//! crate's `corpus`, which is tried first in each run.
//!
//! There is no view into which code an input reached, which would need another toolchain. What stands in for it
//! is what the check says became of the input ([`outcome`], [`shape`]): an input with a new outcome is kept and
//! mutated further.
//!
//! [`heap`] counts allocations by thread, for these and for other tests. Knows nothing of the rest.

pub mod heap;
mod mutate;
mod rng;
mod target;

pub use target::{Target, outcome, shape};
