//! raft-rs logs through slog; its lines go on as tracing events of target `raft`.

use slog::{Drain, Level, Logger, Never, OwnedKVList, Record};

/// Lines begin with the member's id, as etcd's do; raft-rs's own fields say the same again and are left out.
struct ToTracing {
    id: u64,
}

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        let (id, message) = (self.id, record.msg());
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", "{id:x} {message}"),
            Level::Warning => tracing::warn!(target: "raft", "{id:x} {message}"),
            Level::Info => tracing::info!(target: "raft", "{id:x} {message}"),
            Level::Debug | Level::Trace => tracing::debug!(target: "raft", "{id:x} {message}"),
        }
        Ok(())
    }
}

/// A logger of member `id`.
pub(crate) fn logger(id: u64) -> Logger {
    Logger::root(ToTracing { id }, slog::o!())
}
