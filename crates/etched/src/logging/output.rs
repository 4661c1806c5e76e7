//! Where lines go.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::rotate::{RotatingFile, Rotation};
use crate::go_values::{io_reason, quote};

/// One place that every line goes to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file; lines are appended.
    File(PathBuf),
}

/// A place cannot be written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputError(pub(crate) String);

impl fmt::Display for OutputError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for OutputError {}

impl Output {
    /// The places that `--log-outputs` names; sorted, each once.
    ///
    /// `/dev/null` among them silences all others, as in etcd.
    ///
    /// # Errors
    /// [`OutputError`] for "default" beside others, the journal, and schemes other than `file`.
    pub(crate) fn parse_list(names: &[String]) -> Result<Vec<Self>, OutputError> {
        if names.len() > 1 && names.iter().any(|name| name == "default") {
            let words = "multi logoutput for \"default\" is not supported yet";
            return Err(OutputError(words.into()));
        }
        if names.iter().any(|name| name == "/dev/null") {
            return Ok(Vec::new());
        }
        let mut outputs =
            names.iter().map(|name| Self::parse(name)).collect::<Result<Vec<_>, _>>()?;
        outputs.sort();
        outputs.dedup();
        Ok(if names.is_empty() { vec![Self::Stderr] } else { outputs })
    }

    fn parse(name: &str) -> Result<Self, OutputError> {
        match name {
            "default" | "stderr" => return Ok(Self::Stderr),
            "stdout" => return Ok(Self::Stdout),
            "systemd/journal" => {
                return Err(OutputError(
                    "--log-outputs=systemd/journal is not supported by this version of etched \
                     yet; under systemd, stderr ends up in the journal too"
                        .into(),
                ));
            }
            _ => {}
        }
        match name.split_once("://") {
            None => Ok(Self::File(PathBuf::from(name))),
            Some(("file", path)) if path.starts_with('/') => Ok(Self::File(PathBuf::from(path))),
            Some((scheme, _)) => {
                let reason = format!("no sink found for scheme {}", quote(scheme));
                Err(OutputError(format!("open sink {}: {reason}", quote(name))))
            }
        }
    }
}

/// An [`Output`] that is open.
pub(super) enum Sink {
    Stderr,
    Stdout,
    File(File),
    Rotating(RotatingFile),
}

impl Sink {
    pub(super) fn open(output: &Output, rotation: Option<Rotation>) -> Result<Self, OutputError> {
        match (output, rotation) {
            (Output::Stderr, _) => Ok(Self::Stderr),
            (Output::Stdout, _) => Ok(Self::Stdout),
            (Output::File(path), None) => append_to(path).map(Self::File),
            (Output::File(path), Some(rotation)) => RotatingFile::open(path, rotation)
                .map(Self::Rotating)
                .map_err(|error| sink_error(path, &error)),
        }
    }

    /// Writes a whole line; a place that fails loses the line, there is nowhere to complain.
    pub(super) fn write(&mut self, line: &[u8]) {
        let _ = match self {
            Self::Stderr => io::stderr().write_all(line),
            Self::Stdout => io::stdout().write_all(line).and_then(|()| io::stdout().flush()),
            Self::File(file) => file.write_all(line),
            Self::Rotating(file) => file.write(line),
        };
    }
}

fn append_to(path: &Path) -> Result<File, OutputError> {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.map_err(|error| sink_error(path, &error))
}

fn sink_error(path: &Path, error: &io::Error) -> OutputError {
    let (path, reason) = (path.display().to_string(), io_reason(error));
    OutputError(format!("open sink {}: open {path}: {reason}", quote(&path)))
}
