//! One watcher: what it asked for and how far it got.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::index::Span;
use super::outbox::Outbox;
use super::slab::Id;

/// A watch as its stream created it.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) stream: Id,
    pub(super) watch_id: i64,
    pub(super) outbox: Arc<Outbox>,
    pub(super) span: Span,
    /// The start revision of the request; 0 for "from now".
    pub(super) start: i64,
    pub(super) wants: Wants,
    pub(super) state: State,
    /// Its place among the synced watchers of its span.
    pub(super) place: usize,
    /// Its place among those concerned by the revision at hand; checked before use.
    pub(super) mark: usize,
    /// The next progress tick passes it by: an event has just told it the revision.
    pub(super) hushed: bool,
}

/// The options of a watch.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wants {
    pub(super) no_puts: bool,
    pub(super) no_deletes: bool,
    pub(super) prev_kv: bool,
    pub(super) progress: bool,
    pub(super) fragment: bool,
}

impl Wants {
    pub(super) const fn takes(self, delete: bool) -> bool {
        if delete { !self.no_deletes } else { !self.no_puts }
    }
}

/// How far a watcher got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It was offered everything up to the hub's revision and stands in the index.
    Synced,
    /// Its stream has room; catching up may take it.
    Ready(Cursor),
    /// Its stream is full.
    Parked(Cursor),
    /// A catch-up round is reading for it.
    Reading(Cursor),
    /// What it wanted next is compacted and it was told so; its id stays taken until it is canceled.
    Compacted,
}

/// Where an unsynced watcher stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The first revision it was not offered.
    pub(super) next: i64,
    /// Its place in the line: it grows with each turn it had, and stays when a turn brought it nothing.
    pub(super) turn: u64,
}

impl State {
    pub(super) const fn cursor(self) -> Option<Cursor> {
        match self {
            Self::Ready(cursor) | Self::Parked(cursor) | Self::Reading(cursor) => Some(cursor),
            Self::Synced | Self::Compacted => None,
        }
    }
}

/// Unsynced watchers that can be served now, by turn and by position.
#[derive(Debug, Default)]
pub(super) struct Ready {
    by_turn: BTreeMap<(u64, Id), i64>,
    by_next: BTreeSet<(i64, Id)>,
    turns: u64,
}

impl Ready {
    /// A place at the end of the line.
    pub(super) const fn new_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    pub(super) fn insert(&mut self, id: Id, cursor: Cursor) {
        self.by_turn.insert((cursor.turn, id), cursor.next);
        self.by_next.insert((cursor.next, id));
    }

    pub(super) fn remove(&mut self, id: Id, cursor: Cursor) {
        self.by_turn.remove(&(cursor.turn, id));
        self.by_next.remove(&(cursor.next, id));
    }

    /// Where the one stands who waits longest.
    pub(super) fn first_in_line(&self) -> Option<(Id, i64)> {
        self.by_turn.first_key_value().map(|((_, id), next)| (*id, *next))
    }

    /// Those who stand in a stretch of history, in its order.
    pub(super) fn within(&self, revisions: Range<i64>) -> impl Iterator<Item = Id> {
        let bounds = (revisions.start, Id::MIN)..(revisions.end, Id::MIN);
        self.by_next.range(bounds).map(|(_, id)| *id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_turn.is_empty()
    }
}
