//! The log in etcd's shape: one JSON object a line, or tab-separated text for people.
//!
//! ```text
//! tracing event --> level, origin --> sampler --> encoder (json | console) --> every output
//! ```
//!
//! How an event becomes a line:
//! - its message is `msg`, its other fields follow in their order, with the names they have;
//! - field `level` with "fatal" or "panic" raises an error event to etcd's levels above error;
//! - a target that somebody wrote out (`target: "raft"`) becomes `logger`;
//! - `caller` is the file below the crate (`server/run.rs:12`);
//! - a debug-formatted list of strings stays a JSON list.
//!
//! Events of other crates are written from warn on only. Spans are not used. Unlike etcd, errors
//! carry no stack trace.

mod encode;
mod output;
mod rotate;
mod sample;
mod subscriber;

pub use output::{Output, OutputError};
pub use rotate::Rotation;
pub use subscriber::{LogSubscriber, Options};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// Time, level, caller and message separated by tabs, fields as JSON at the end.
    Console,
}

/// How much a line matters; zap's levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For people who look for a fault.
    Debug,
    /// What happens.
    Info,
    /// What may be wrong.
    Warn,
    /// What failed.
    Error,
    /// What must not be.
    Panic,
    /// The last line before the process ends.
    Fatal,
}

impl Level {
    /// The level of that name, in whatever case.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "debug" => Self::Debug,
            "info" | "" => Self::Info,
            "warn" | "warning" => Self::Warn,
            "error" => Self::Error,
            "dpanic" | "panic" => Self::Panic,
            "fatal" => Self::Fatal,
            _ => return None,
        })
    }

    /// Its name in a JSON line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Panic => "panic",
            Self::Fatal => "fatal",
        }
    }
}
