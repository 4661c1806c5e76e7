//! A value out of files, made again when they change.
//!
//! Asked at each handshake: a look at size, times and inode of each file costs a microsecond, and no thread or
//! notification has to be trusted. Two changes in quick succession may leave the same times, so files are read at
//! each look until they cannot change unseen any more, [`FRESH`] after they were first seen as they are at most. What was
//! read is remembered from then on whether it was good or not: a broken file is not parsed at each handshake for ever.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::Error;

/// Time in which two changes of a file may leave the same time stamp, generously.
const FRESH: Duration = Duration::from_secs(2);
/// Pause after a file that is there could not be read; it may have been the reading that failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A value and the files it came from.
pub(crate) struct Watched<T> {
    paths: Vec<PathBuf>,
    seen: Vec<Stamp>,
    /// When they were first seen as they are.
    since: Instant,
    again: Again,
    /// The last failure, so that it is told once.
    failure: Option<String>,
    value: T,
}

/// When to read files again whose stamps are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// At the next look: they may have changed without a trace.
    AtOnce,
    /// Not before.
    After(Instant),
    /// Never: equal stamps mean equal content.
    WhenChanged,
}

/// A point in time, by both clocks: files carry the one that may be set, waiting goes by the other.
#[derive(Debug, Clone, Copy)]
struct Moment {
    clock: SystemTime,
    passed: Instant,
}

impl Moment {
    fn now() -> Self {
        Self { clock: SystemTime::now(), passed: Instant::now() }
    }
}

/// What tells a file from what it was; None when it is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp(Option<Seen>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    place: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    /// Last change of content or inode: no copy carries it along. Ahead of the clock where that was set back, and on a
    /// file server whose own clock is ahead: then the time since it was first seen decides.
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Self {
        let meta = std::fs::metadata(path).ok();
        Self(meta.map(|meta| Seen {
            place: (meta.dev(), meta.ino()),
            bytes: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }))
    }

    /// Whether another change would show, because the clock has gone on since the last one.
    fn is_old(&self, clock: SystemTime) -> bool {
        let Some(seen) = &self.0 else { return true };
        let now = clock.duration_since(UNIX_EPOCH).unwrap_or_default();
        let age = i64::try_from(now.as_secs()).unwrap_or(i64::MAX).saturating_sub(seen.changed.0);
        // Whole seconds: one more, for what was cut off.
        u64::try_from(age).is_ok_and(|age| age > FRESH.as_secs())
    }
}

impl<T: PartialEq> Watched<T> {
    /// Reads the files for the first time.
    pub(crate) fn new(
        paths: &[&Path],
        load: impl FnOnce() -> Result<T, Error>,
    ) -> Result<Self, Error> {
        Self::new_at(paths, load, Moment::now())
    }

    fn new_at(
        paths: &[&Path],
        load: impl FnOnce() -> Result<T, Error>,
        now: Moment,
    ) -> Result<Self, Error> {
        let mut watched = Watched::unread(paths, (), now);
        watched.seen = watched.look();
        watched.again = watched.when_read(now);
        Ok(watched.with(load()?))
    }

    /// A value to begin with, for files that are still to be read.
    pub(crate) fn starting_with(value: T, paths: &[&Path]) -> Self {
        Watched::unread(paths, (), Moment::now()).with(value)
    }

    pub(crate) fn value(&self) -> &T {
        &self.value
    }

    /// Reads the files again when they changed; true when the value is another one now.
    ///
    /// Files that cannot be used leave the value as it was and are reported once.
    pub(crate) fn refresh(&mut self, load: impl FnOnce() -> Result<T, Error>) -> bool {
        self.refresh_at(load, Moment::now())
    }

    fn refresh_at(&mut self, load: impl FnOnce() -> Result<T, Error>, now: Moment) -> bool {
        // Taken before the files are read: a change meanwhile shows the next time.
        let seen = self.look();
        if seen != self.seen {
            (self.seen, self.since, self.again) = (seen, now.passed, Again::AtOnce);
        }
        match self.again {
            Again::AtOnce => {}
            Again::After(time) if now.passed >= time => {}
            Again::After(_) | Again::WhenChanged => return false,
        }
        let loaded = load();
        self.again = match &loaded {
            Err(Error::File { .. }) => Again::After(now.passed + RETRY_INTERVAL),
            _ => self.when_read(now),
        };
        self.take(loaded)
    }

    fn take(&mut self, loaded: Result<T, Error>) -> bool {
        match loaded {
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
}

impl<T> Watched<T> {
    fn unread(paths: &[&Path], value: T, now: Moment) -> Self {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        Self {
            paths,
            seen: Vec::new(),
            since: now.passed,
            again: Again::AtOnce,
            failure: None,
            value,
        }
    }

    fn with<U>(self, value: U) -> Watched<U> {
        let Self { paths, seen, since, again, failure, .. } = self;
        Watched { paths, seen, since, again, failure, value }
    }

    fn look(&self) -> Vec<Stamp> {
        self.paths.iter().map(|path| Stamp::of(path)).collect()
    }

    /// When to read again what is read now.
    fn when_read(&self, now: Moment) -> Again {
        let seen_for = now.passed.saturating_duration_since(self.since);
        let settled = seen_for > FRESH || self.seen.iter().all(|stamp| stamp.is_old(now.clock));
        if settled { Again::WhenChanged } else { Again::AtOnce }
    }

    fn names(&self) -> String {
        self.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    }
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

    /// So long after now, by both clocks.
    fn later(seconds: u64) -> Moment {
        let (now, passed) = (Moment::now(), Duration::from_secs(seconds));
        Moment { clock: now.clock + passed, passed: now.passed + passed }
    }

    fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, content).unwrap();
        (folder, path)
    }

    fn date(path: &Path, time: SystemTime) {
        std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    fn never<T>() -> Result<T, Error> {
        unreachable!("nothing changed")
    }

    #[test]
    fn an_old_file_is_read_once() {
        let (_folder, path) = file("one");
        let mut watched = Watched::new_at(&[&path], || text(&path), later(60)).unwrap();
        assert!(!watched.refresh_at(never, later(60)));
    }

    #[test]
    fn a_file_of_today_is_read_until_another_change_would_show() {
        let (_folder, path) = file("one");
        date(&path, SystemTime::now() - Duration::from_secs(60));
        let mut watched = Watched::new(&[&path], || text(&path)).unwrap();
        let mut reads = 0;
        for seconds in [0, 1, 10, 10, 20] {
            watched.refresh_at(
                || {
                    reads += 1;
                    text(&path)
                },
                later(seconds),
            );
        }
        assert_eq!(reads, 3, "a copy may have an old date and be changed again in the same moment");
    }

    #[test]
    fn a_file_from_the_future_is_not_read_for_ever() {
        let (_folder, path) = file("one");
        date(&path, SystemTime::now() + Duration::from_secs(1 << 20));
        let mut watched = Watched::new(&[&path], || text(&path)).unwrap();
        watched.refresh_at(|| text(&path), later(10));
        assert!(!watched.refresh_at(never, later(11)));
        std::fs::write(&path, "another").unwrap();
        assert!(watched.refresh_at(|| text(&path), later(12)));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_make_files_new_for_ever() {
        let (_folder, path) = file("one");
        let back = |seconds| {
            let moment = later(seconds);
            Moment { clock: moment.clock - Duration::from_secs(1 << 20), ..moment }
        };
        let mut watched = Watched::new_at(&[&path], || text(&path), back(0)).unwrap();
        watched.refresh_at(|| text(&path), back(10));
        assert!(!watched.refresh_at(never, back(11)));
    }

    #[test]
    fn a_broken_file_is_parsed_once_until_it_changes() {
        let (_folder, path) = file("one");
        let mut watched = Watched::new(&[&path], || text(&path)).unwrap();
        std::fs::write(&path, "broken").unwrap();
        assert!(!watched.refresh_at(|| text(&path), later(10)));
        assert!(!watched.refresh_at(never, later(11)));
        std::fs::write(&path, "three").unwrap();
        assert!(watched.refresh_at(|| text(&path), later(12)));
    }

    #[test]
    fn a_file_that_could_not_be_read_is_tried_again_after_a_pause() {
        let (_folder, path) = file("one");
        let mut watched = Watched::new(&[&path], || text(&path)).unwrap();
        std::fs::write(&path, "another").unwrap();
        let refused = || {
            let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
            Err(Error::File { path: path.clone(), source })
        };
        let (first, soon) = (later(10), later(10));
        assert!(!watched.refresh_at(refused, first));
        assert!(!watched.refresh_at(never, Moment { passed: first.passed, ..soon }));
        assert!(watched.refresh_at(|| text(&path), later(12)));
    }
}
