//! The file that a defragmentation replaced, on its way out.
//!
//! A file system that hands freed room back to the disk at once (as with the mount option `discard`) keeps the disk
//! busy with it, and a file of some hundred megabytes that is closed for the last time holds up every sync of
//! the log that long. So it is held open here and cut shorter piece by piece.
//!
//! Invariant: it is cut only when nobody can read it any more: redb here has let go of it, and the lock keeps out a
//! process that opened it while it had its name still. It has none now, so after a crash it is gone.

use std::sync::{Weak, atomic::AtomicBool};

use crate::medium::Held;

/// What is left of a replaced file. Dropped before its end it goes at once, as soon as its last reader has gone.
#[derive(Debug)]
pub struct Retired {
    /// None when there is nothing to give back.
    file: Option<Box<dyn Held>>,
    /// What lives as long as the redb handle on it.
    readers: Weak<AtomicBool>,
    locked: bool,
}

impl Retired {
    pub(crate) const fn new(file: Option<Box<dyn Held>>, readers: Weak<AtomicBool>) -> Self {
        Self { file, readers, locked: false }
    }

    /// Whether somebody still reads it.
    pub fn is_read(&self) -> bool {
        self.readers.strong_count() > 0
    }

    /// Gives about `bytes` back; false when nothing is left, or nothing can be done. Nothing happens
    /// while it [is read](Self::is_read).
    pub fn shrink(&mut self, bytes: u64) -> bool {
        let Some(file) = &self.file else { return false };
        if self.is_read() {
            return true;
        }
        // A file with a name left is not cut.
        let may_be_cut = || file.try_lock().unwrap_or(false) && !file.has_a_name().unwrap_or(true);
        if !std::mem::replace(&mut self.locked, true) && !may_be_cut() {
            self.file = None;
            return false;
        }
        let length = file.length().unwrap_or(0).saturating_sub(bytes);
        // What fails costs calm only: the room comes back with the last close.
        let more = length > 0 && file.cut(length).is_ok();
        if !more {
            self.file = None;
        }
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, Storage};

    #[test]
    fn a_replaced_file_that_somebody_linked_keeps_its_bytes() {
        let folder = tempfile::tempdir().expect("a folder");
        let (name, link) = (folder.path().join("db"), folder.path().join("kept"));
        let (storage, _) = Storage::open(&name, Options::default()).unwrap();
        std::fs::hard_link(&name, &link).unwrap();
        let before = std::fs::metadata(&link).unwrap().len();
        let mut copy = storage.begin_defragment().unwrap();
        while copy.step(1 << 20).unwrap() {}
        let mut old = copy.finish(|| true).unwrap();
        assert!(!old.is_read() && !old.shrink(4096));
        assert_eq!(std::fs::metadata(&link).unwrap().len(), before);
    }

    #[test]
    fn a_replaced_file_is_cut_to_nothing_once_its_last_reader_has_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (storage, _) = Storage::open(&folder.path().join("db"), Options::default()).unwrap();
        let reader = storage.view();
        let mut copy = storage.begin_defragment().unwrap();
        while copy.step(1 << 20).unwrap() {}
        let mut old = copy.finish(|| true).unwrap();
        let length = |old: &Retired| old.file.as_ref().map(|file| file.length().unwrap());
        let before = length(&old).expect("a file");
        assert!(old.is_read() && old.shrink(4096));
        assert_eq!(length(&old), Some(before));
        drop(reader);
        assert!(old.shrink(4096));
        assert_eq!(length(&old), Some(before - 4096));
        assert!(!old.shrink(before));
        assert!(!old.shrink(before));
    }
}
