//! The `tracing` subscriber that writes the lines.

use std::sync::Mutex;
use std::time::{Instant, SystemTime};

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::encode::{self, Summary, Timestamp};
use super::output::{Output, OutputError, Sink};
use super::rotate::Rotation;
use super::sample::Sampler;
use super::{Format, Level};

/// What a log is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Least level that is written.
    pub level: Level,
    /// How lines look.
    pub format: Format,
    /// Where they go; nowhere when empty.
    pub outputs: Vec<Output>,
    /// Rotation of the files among the outputs.
    pub rotation: Option<Rotation>,
}

/// Writes every event that passes level, origin and sampling to every output.
pub struct LogSubscriber {
    level: Level,
    format: Format,
    sinks: Mutex<Vec<Sink>>,
    sampler: Sampler,
    start: Instant,
}

impl LogSubscriber {
    /// Opens the outputs.
    ///
    /// # Errors
    /// [`OutputError`] when one cannot be opened.
    pub fn open(options: &Options) -> Result<Self, OutputError> {
        let open = |output| Sink::open(output, options.rotation);
        let sinks = options.outputs.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            level: options.level,
            format: options.format,
            sinks: Mutex::new(sinks),
            sampler: Sampler::new(),
            start: Instant::now(),
        })
    }
}

impl Subscriber for LogSubscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        if !metadata.is_event() || *metadata.level() > tracing::Level::DEBUG {
            return false;
        }
        // An error event may turn out to be fatal.
        let level = match Level::of(metadata) {
            Level::Error => Level::Fatal,
            level => level,
        };
        let ours = metadata.module_path().is_some_and(|path| path.starts_with("etched"));
        level >= self.level && (ours || level >= Level::Warn)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.level {
            Level::Debug => LevelFilter::DEBUG,
            Level::Info => LevelFilter::INFO,
            Level::Warn => LevelFilter::WARN,
            Level::Error | Level::Panic | Level::Fatal => LevelFilter::ERROR,
        })
    }

    fn event(&self, event: &Event<'_>) {
        let mut summary = Summary::default();
        event.record(&mut summary);
        let level = summary.level.unwrap_or_else(|| Level::of(event.metadata()));
        let admitted = self.sampler.admits(level, &summary.message, self.start.elapsed());
        if level < self.level || !admitted {
            return;
        }
        let time = Timestamp::of(SystemTime::now());
        let line = encode::line(self.format, time, &summary, event);
        let mut sinks = self.sinks.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for sink in sinks.iter_mut() {
            sink.write(line.as_bytes());
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
