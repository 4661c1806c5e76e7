//! A log file that is set aside when it has grown.
//!
//! `etcd.log` becomes `etcd-2026-11-23T04-38-24.748.log` beside it, and a new one is begun. What is
//! set aside goes when it is too old or there are too many.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::encode::Timestamp;

/// When the file is set aside and what stays of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Size above which a new file is begun. Default 100 MiB.
    pub max_bytes: u64,
    /// Files older than this are deleted; none = none is too old.
    pub max_age: Option<Duration>,
    /// So many old files stay; none = all.
    pub max_backups: Option<usize>,
}

#[derive(Deserialize)]
#[serde(default)]
struct Json {
    maxsize: i64,
    maxage: i64,
    maxbackups: i64,
    localtime: bool,
    compress: bool,
}

impl Default for Json {
    fn default() -> Self {
        Self { maxsize: 100, maxage: 0, maxbackups: 0, localtime: false, compress: false }
    }
}

impl Rotation {
    /// What `--log-rotation-config-json` says.
    ///
    /// # Errors
    /// A sentence for what is no JSON, has wrong types, or is not supported yet.
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        let json: Json = serde_json::from_str(json).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => format!("invalid log rotation config: {error}"),
            _ => format!("improperly formatted log rotation config: {error}"),
        })?;
        if json.localtime || json.compress {
            return Err(
                "log rotation with localtime or compress is not supported by this version \
                        of etched yet"
                    .into(),
            );
        }
        let positive = |number: i64| u64::try_from(number).ok().filter(|number| *number > 0);
        Ok(Self {
            max_bytes: positive(json.maxsize).unwrap_or(100) << 20,
            max_age: positive(json.maxage).map(|days| Duration::from_secs(days * 24 * 3600)),
            max_backups: positive(json.maxbackups).and_then(|count| usize::try_from(count).ok()),
        })
    }
}

pub(super) struct RotatingFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    size: u64,
}

impl RotatingFile {
    pub(super) fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), rotation, file, size })
    }

    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + line.len() as u64 > self.rotation.max_bytes {
            self.rotate(SystemTime::now())?;
        }
        self.size += line.len() as u64;
        self.file.write_all(line)
    }

    fn rotate(&mut self, now: SystemTime) -> io::Result<()> {
        let (prefix, extension) = self.name_parts();
        let aside = format!("{prefix}{}{extension}", Timestamp::of(now).in_file_name());
        fs::rename(&self.path, self.path.with_file_name(aside))?;
        self.file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        self.size = 0;
        self.remove_old(now)
    }

    fn remove_old(&self, now: SystemTime) -> io::Result<()> {
        let (prefix, extension) = self.name_parts();
        let directory = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut aside: Vec<PathBuf> = fs::read_dir(directory)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let time =
                    name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(&extension));
                time.is_some_and(Timestamp::is_in_file_name)
            })
            .collect();
        // The names carry the time: the newest comes first.
        aside.sort_by(|left, right| right.cmp(left));
        for (number, path) in aside.iter().enumerate() {
            let too_many = self.rotation.max_backups.is_some_and(|max| number >= max);
            let age =
                || now.duration_since(fs::metadata(path)?.modified()?).map_err(io::Error::other);
            let too_old = self.rotation.max_age.is_some_and(|max| age().is_ok_and(|age| age > max));
            if too_many || too_old {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// What stands before and after the time in the name of a file set aside.
    fn name_parts(&self) -> (String, String) {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let extension = self.path.extension().map(|text| format!(".{}", text.to_string_lossy()));
        (format!("{stem}-"), extension.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_grown_file_is_set_aside_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("etched.log");
        let rotation = Rotation { max_bytes: 10, max_age: None, max_backups: Some(2) };
        let mut file = RotatingFile::open(&path, rotation).unwrap();
        file.write(b"12345678\n").unwrap();
        for second in [1, 2, 3] {
            file.rotate(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
            file.write(b"x\n").unwrap();
        }
        assert_eq!(
            names(directory.path()),
            [
                "etched-1970-01-01T00-00-02.000.log",
                "etched-1970-01-01T00-00-03.000.log",
                "etched.log"
            ]
        );
    }

    #[test]
    fn a_line_that_would_pass_the_limit_begins_a_new_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let rotation = Rotation { max_bytes: 10, max_age: None, max_backups: None };
        let mut file = RotatingFile::open(&path, rotation).unwrap();
        for _ in 0..3 {
            file.write(b"1234\n").unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), b"1234\n");
        assert_eq!(names(directory.path()).len(), 2);
    }

    #[test]
    fn the_settings_are_read_as_etcd_reads_them() {
        let default = Rotation { max_bytes: 100 << 20, max_age: None, max_backups: None };
        assert_eq!(Rotation::parse("{}"), Ok(default));
        let week = Some(Duration::from_secs(7 * 24 * 3600));
        assert_eq!(
            Rotation::parse(r#"{"maxsize": 1, "maxage": 7, "maxbackups": 3}"#),
            Ok(Rotation { max_bytes: 1 << 20, max_age: week, max_backups: Some(3) })
        );
        let refused = |json| Rotation::parse(json).unwrap_err();
        assert!(refused("{x").starts_with("improperly formatted log rotation config: "));
        assert!(refused(r#"{"maxsize":"x"}"#).starts_with("invalid log rotation config: "));
        assert!(refused(r#"{"compress":true}"#).contains("not supported"));
    }
}
