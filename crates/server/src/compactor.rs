//! Compaction by itself: `--auto-compaction-mode` and `--auto-compaction-retention`.
//!
//! [`Schedule`] decides, from the moments and revisions it is given; the task around it waits and proposes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etched_proto::etcdserverpb::CompactionRequest;
use prost::Message;
use tokio::sync::watch;

use crate::auth::Nobody;
use crate::config::AutoCompaction;
use crate::error::Error;
use crate::request::Field;
use crate::shared::Shared;

/// Longest time between two compactions of periodic mode.
const HOUR: Duration = Duration::from_secs(3600);
/// Time between two compactions of revision mode.
const REVISION_INTERVAL: Duration = Duration::from_secs(300);

/// When which revision is due.
#[derive(Debug)]
pub(crate) enum Schedule {
    /// Keep so much time.
    Periodic {
        period: Duration,
        /// One sample per check, the oldest first, `period` apart from the newest.
        samples: VecDeque<i64>,
        last: Instant,
        /// The first compaction waits for a whole period.
        first: bool,
        compacted: i64,
    },
    /// Keep so many revisions.
    Revision { keep: i64, compacted: i64 },
}

impl Schedule {
    /// None when nothing is compacted by itself.
    pub(crate) fn new(mode: AutoCompaction, now: Instant) -> Option<Self> {
        match mode {
            AutoCompaction::Off => None,
            AutoCompaction::Periodic(period) => Some(Self::Periodic {
                period,
                samples: VecDeque::new(),
                last: now,
                first: true,
                compacted: 0,
            }),
            AutoCompaction::Revision(keep) => Some(Self::Revision { keep, compacted: 0 }),
        }
    }

    /// Time between two calls of [`Self::due`].
    pub(crate) fn interval(&self) -> Duration {
        match self {
            Self::Periodic { period, .. } => (*period).min(HOUR) / 10,
            Self::Revision { .. } => REVISION_INTERVAL,
        }
    }

    /// Notes the current revision; to be called once at the start and after each interval.
    pub(crate) fn note(&mut self, revision: i64) {
        let interval = self.interval();
        if let Self::Periodic { period, samples, .. } = self {
            samples.push_back(revision);
            let kept = (period.as_nanos() / interval.as_nanos().max(1)) as usize + 1;
            while samples.len() > kept {
                samples.pop_front();
            }
        }
    }

    /// The revision to compact at now, if any.
    pub(crate) fn due(&self, now: Instant, revision: i64) -> Option<i64> {
        match self {
            Self::Periodic { period, samples, last, first, compacted } => {
                let wait = if *first { *period } else { (*period).min(HOUR) };
                let oldest = *samples.front()?;
                (now.duration_since(*last) >= wait && oldest != *compacted).then_some(oldest)
            }
            Self::Revision { keep, compacted } => {
                let target = revision - keep;
                (target > 0 && target != *compacted).then_some(target)
            }
        }
    }

    /// The compaction at `revision` is done, by this or by somebody else.
    pub(crate) fn done(&mut self, now: Instant, revision: i64) {
        match self {
            Self::Periodic { last, first, compacted, .. } => {
                (*last, *first, *compacted) = (now, false, revision);
            }
            Self::Revision { compacted, .. } => *compacted = revision,
        }
    }
}

/// Compacts until the server ends.
pub(crate) async fn run(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let Some(mut schedule) = Schedule::new(shared.config.auto_compaction, Instant::now()) else {
        return;
    };
    loop {
        schedule.note(shared.reader.current_revision());
        tokio::select! {
            () = tokio::time::sleep(schedule.interval()) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if !shared.is_leader() {
            continue;
        }
        let now = Instant::now();
        let Some(revision) = schedule.due(now, shared.reader.current_revision()) else {
            continue;
        };
        tracing::info!(revision, "starting auto compaction");
        let request = CompactionRequest { revision, physical: false }.encode_to_vec();
        let result = match shared.propose(Nobody, Field::Compaction, &request).await {
            Ok(outcome) => outcome.result.map(|_| ()),
            Err(error) => Err(error),
        };
        match result {
            Ok(()) | Err(Error::Compacted) => {
                schedule.done(now, revision);
                tracing::info!(revision, "completed auto compaction");
            }
            Err(error) => {
                tracing::warn!(revision, error = error.status().1, "failed auto compaction");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn periodic(period: Duration, now: Instant) -> Schedule {
        Schedule::new(AutoCompaction::Periodic(period), now).expect("a mode")
    }

    #[test]
    fn periodic_mode_keeps_a_whole_period_and_waits_for_the_first() {
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let mut schedule = periodic(10 * minute, start);
        assert_eq!(schedule.interval(), minute);
        for tick in 0..10 {
            schedule.note(i64::from(tick) * 100 + 1);
            if tick < 9 {
                let now = start + minute * (tick + 1);
                assert_eq!(schedule.due(now, 5000), None, "minute {}", tick + 1);
            }
        }
        let now = start + 10 * minute;
        assert_eq!(schedule.due(now, 5000), Some(1), "the revision of ten minutes ago");
        schedule.done(now, 1);
        schedule.note(1001);
        assert_eq!(schedule.due(now + minute, 5000), None);
    }

    #[test]
    fn a_long_period_is_compacted_hourly_after_the_first_time() {
        let start = Instant::now();
        let mut schedule = periodic(10 * HOUR, start);
        assert_eq!(schedule.interval(), HOUR / 10);
        (1..=101).for_each(|sample| schedule.note(sample));
        assert_eq!(schedule.due(start + 9 * HOUR, 500), None);
        assert_eq!(schedule.due(start + 10 * HOUR, 500), Some(1));
        schedule.done(start + 10 * HOUR, 1);
        (102..=111).for_each(|sample| schedule.note(sample));
        assert_eq!(schedule.due(start + 11 * HOUR, 500), Some(11));
    }

    #[test]
    fn revision_mode_keeps_so_many_revisions() {
        let mut schedule =
            Schedule::new(AutoCompaction::Revision(1000), Instant::now()).expect("a mode");
        assert_eq!(schedule.due(Instant::now(), 900), None);
        assert_eq!(schedule.due(Instant::now(), 1500), Some(500));
        schedule.done(Instant::now(), 500);
        assert_eq!(schedule.due(Instant::now(), 1500), None);
    }
}
