//! A fake disk for tests, which keeps files in memory and loses what a power cut may lose, and clusters of real
//! members on such disks.
//!
//! ```text
//! code under test ──> etched_wal::disk::{Disk, DiskFile} ──> SimDisk ──> crash_after, restart(Loss)
//! ```
//! One seed gives one run: there is no clock and no ambient randomness in here.
//!
//! The model, and where it is harsher or milder than a real disk:
//! - A sector of 512 bytes is written whole or not at all; those of unsynced writes survive a power cut
//!   each by itself, in no order. What survives is the newest version, never one in between.
//! - Names survive in the order they were changed, up to some point (a journal), and independently of
//!   the contents: a file may be there and empty. Renames stay inside one directory.
//! - A failed sync loses the data for good, as on Linux: a later success does not bring it back.

pub mod cluster;
mod disk;
mod file;
mod rng;
mod tree;

pub use disk::{Loss, SimDisk, SimFile};
pub use rng::Rng;
