//! raft-rs logs through slog; its lines go on as tracing events of target `raft`.

use std::fmt::Write as _;

use slog::{Drain, KV as _, Level, Logger, Never, OwnedKVList, Record, Serializer};

struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        let mut line = Line(record.msg().to_string());
        // A value that fails to format leaves a shorter line; there is nobody to tell.
        let _ = record.kv().serialize(record, &mut line);
        let _ = values.serialize(record, &mut line);
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", "{}", line.0),
            Level::Warning => tracing::warn!(target: "raft", "{}", line.0),
            Level::Info => tracing::info!(target: "raft", "{}", line.0),
            Level::Debug | Level::Trace => tracing::debug!(target: "raft", "{}", line.0),
        }
        Ok(())
    }
}

struct Line(String);

impl Serializer for Line {
    fn emit_arguments(&mut self, key: slog::Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, " {key}={value}").map_err(slog::Error::from)
    }
}

/// A logger whose lines carry the member's id in etcd's hex form.
pub(crate) fn logger(id: u64) -> Logger {
    Logger::root(ToTracing, slog::o!("id" => format!("{id:x}")))
}
