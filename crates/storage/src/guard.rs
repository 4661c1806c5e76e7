//! Turns every way redb can fail into one [`Error`] with the path in it.
//!
//! redb trusts its pages: a damaged one may make it panic. While a call into redb runs, the thread
//! carries the path of the file; a panic is caught here when panics unwind, and where they abort
//! (release), the panic hook of the program asks [`panic_line`] for the line to print.

use std::{
    any::Any,
    cell::Cell,
    collections::BTreeSet,
    io,
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind},
    sync::{Mutex, OnceLock, PoisonError},
};

use crate::error::{Error, Result};

thread_local! {
    static INSIDE: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// The line for the operator when `panic` came out of a call into the database file on this thread,
/// or none when it came from elsewhere.
///
/// For the panic hook of a program built with `panic = "abort"`: print the line and exit.
pub fn panic_line(panic: &PanicHookInfo<'_>) -> Option<String> {
    let file = INSIDE.get()?;
    Some(panicked(file, panic.payload()).to_string())
}

fn panicked(file: &str, payload: &(dyn Any + Send)) -> Error {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    // One line, whatever an assertion printed.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    Error::Damaged { file: file.to_owned(), what: format!("redb gave up: {text}") }
}

/// One file as the errors see it: its path and its first failure.
#[derive(Debug)]
pub(crate) struct Guard {
    file: &'static str,
    first: OnceLock<String>,
}

impl Guard {
    pub(crate) fn new(file: &str) -> Self {
        Self { file: interned(file), first: OnceLock::new() }
    }

    pub(crate) fn file(&self) -> String {
        self.file.to_owned()
    }

    /// Runs `call`, which goes into redb, and makes a panic in it an error.
    pub(crate) fn run<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = INSIDE.replace(Some(self.file));
        let result = catch_unwind(AssertUnwindSafe(call));
        INSIDE.set(before);
        result.unwrap_or_else(|payload| Err(self.noted(panicked(self.file, payload.as_ref()))))
    }

    pub(crate) fn damaged(&self, what: impl Into<String>) -> Error {
        self.noted(Error::Damaged { file: self.file(), what: what.into() })
    }

    pub(crate) fn io(&self, action: &'static str, source: io::Error) -> Error {
        if is_full(&source) {
            return self.noted(Error::NoSpace { file: self.file(), usable: false });
        }
        self.noted(Error::Io { file: self.file(), action, source })
    }

    /// Refuses when anything failed before: what is not understood is not written to.
    pub(crate) fn check(&self) -> Result<()> {
        if self.first.get().is_some() { Err(self.stopped()) } else { Ok(()) }
    }

    fn stopped(&self) -> Error {
        let first = self.first.get().map_or("redb refuses to go on", String::as_str).to_owned();
        Error::Stopped { file: self.file(), first }
    }

    /// The [`Error`] for one of redb's.
    pub(crate) fn redb(&self, action: &'static str, error: impl Into<redb::Error>) -> Error {
        let file = self.file();
        match error.into() {
            redb::Error::DatabaseAlreadyOpen => Error::InUse { file },
            redb::Error::Io(source) if source.kind() == io::ErrorKind::InvalidData => {
                self.damaged(source.to_string())
            }
            redb::Error::Io(source) => self.io(action, source),
            redb::Error::PreviousIo
            | redb::Error::DatabaseClosed
            | redb::Error::LockPoisoned(_) => {
                let first = self.first.get().map_or("a read failed", String::as_str).to_owned();
                Error::Stopped { file, first }
            }
            redb::Error::UpgradeRequired(version) => Error::Foreign {
                file,
                what: format!("its redb format version {version} is not one this build reads"),
            },
            redb::Error::Corrupted(what) => self.damaged(what),
            other => self.damaged(other.to_string()),
        }
    }

    fn noted(&self, error: Error) -> Error {
        self.first.get_or_init(|| error.to_string());
        error
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Paths live as long as the process, each once, so that a thread can carry one for free.
fn interned(file: &str) -> &'static str {
    static FILES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = files.get(file) {
        return known;
    }
    let leaked: &'static str = Box::leak(file.to_owned().into_boxed_str());
    files.insert(leaked);
    leaked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_inside_becomes_one_line_with_the_path() {
        let guard = Guard::new("some/db");
        let error = guard.run::<()>(|| panic!("two\n  lines")).unwrap_err();
        let line = "database file some/db is damaged: redb gave up: two lines";
        assert_eq!(error.to_string(), line);
        let later = guard.redb("write", redb::Error::PreviousIo);
        assert!(later.to_string().contains(line), "{later}");
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let guard = Guard::new("some/db");
        let full = redb::Error::Io(io::ErrorKind::StorageFull.into());
        assert!(guard.redb("write", full).is_no_space());
        let other = redb::Error::Io(io::ErrorKind::PermissionDenied.into());
        assert!(!guard.redb("write", other).is_no_space());
    }
}
