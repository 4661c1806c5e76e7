//! A value out of files, made again when they change.
//!
//! Asked at each handshake: a look at size, time and inode of each file costs a microsecond, and no thread or
//! notification has to be trusted. Files that changed within [`FRESH`] of being read may change again without a
//! trace in their times, so they are read again until they are older.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::Error;

/// Time in which two changes of a file may leave the same time stamp, generously.
const FRESH: Duration = Duration::from_secs(2);

/// A value and the files it came from.
pub(crate) struct Watched<T> {
    paths: Vec<PathBuf>,
    seen: Vec<Stamp>,
    /// The files were old when they were read: equal stamps mean equal content.
    settled: bool,
    /// The last failure, so that it is told once.
    failure: Option<String>,
    value: T,
}

/// What tells a file from what it was; None when it is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp(Option<(u64, u64, u64, i64, i64, i64, i64)>);

impl<T: PartialEq> Watched<T> {
    /// Reads the files for the first time.
    pub(crate) fn new(
        paths: &[&Path],
        load: impl FnOnce() -> Result<T, Error>,
    ) -> Result<Self, Error> {
        let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
        let (seen, settled) = look(&paths);
        Ok(Self { value: load()?, paths, seen, settled, failure: None })
    }

    pub(crate) fn value(&self) -> &T {
        &self.value
    }

    /// Reads the files again when they changed; true when the value is another one now.
    ///
    /// Files that cannot be used leave the value as it was and are reported once.
    pub(crate) fn refresh(&mut self, load: impl FnOnce() -> Result<T, Error>) -> bool {
        let (seen, settled) = look(&self.paths);
        if self.settled && seen == self.seen {
            return false;
        }
        // Taken before the files are read: a change meanwhile shows the next time.
        (self.seen, self.settled) = (seen, settled);
        match load() {
            Ok(value) => {
                self.failure = None;
                let changed = value != self.value;
                if changed {
                    tracing::info!(files = self.names(), "reloaded TLS files");
                    self.value = value;
                }
                changed
            }
            Err(error) => {
                // What failed may have been the reading: the next handshake tries again.
                self.settled = false;
                let error = error.to_string();
                if self.failure.as_ref() != Some(&error) {
                    tracing::error!(
                        files = self.names(),
                        error,
                        "failed to reload TLS files; what was read before stays in force"
                    );
                    self.failure = Some(error);
                }
                false
            }
        }
    }

    fn names(&self) -> String {
        self.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    }
}

/// The files' stamps, and whether none of them is fresh.
fn look(paths: &[PathBuf]) -> (Vec<Stamp>, bool) {
    let now = SystemTime::now();
    let mut settled = true;
    let stamps = paths.iter().map(|path| {
        let Ok(meta) = std::fs::metadata(path) else { return Stamp(None) };
        let age = meta.modified().ok().and_then(|time| now.duration_since(time).ok());
        settled &= age.is_some_and(|age| age > FRESH);
        let changed = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
        let (modified, modified_nanos, status, status_nanos) = changed;
        let place = (meta.dev(), meta.ino(), meta.len());
        Stamp(Some((place.0, place.1, place.2, modified, modified_nanos, status, status_nanos)))
    });
    let stamps = stamps.collect();
    (stamps, settled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &Path) -> Result<String, Error> {
        let text = String::from_utf8(crate::files::read(path)?).unwrap_or_default();
        match text.as_str() {
            "broken" => Err(Error::Malformed),
            _ => Ok(text),
        }
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let mut watched = Watched::new(&[&path], || text(&path)).unwrap();
        assert!(!watched.refresh(|| text(&path)));
        std::fs::write(&path, "two").unwrap();
        assert!(watched.refresh(|| text(&path)));
        std::fs::write(&path, "broken").unwrap();
        assert!(!watched.refresh(|| text(&path)));
        assert_eq!(watched.value(), "two");
        std::fs::remove_file(&path).unwrap();
        assert!(!watched.refresh(|| text(&path)));
        assert_eq!(watched.value(), "two");
        std::fs::write(&path, "three").unwrap();
        assert!(watched.refresh(|| text(&path)));
    }

    #[test]
    fn an_old_file_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
        let mut watched = Watched::new(&[&path], || text(&path)).unwrap();
        assert!(!watched.refresh(|| unreachable!("nothing changed")));
    }
}
