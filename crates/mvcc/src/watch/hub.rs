//! The hub's state and what apply tells it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustc_hash::FxHashMap;

use etched_proto::etcdserverpb::WatchResponse;

use super::History;
use super::catch_up::{CatchUp, Tail};
use super::event::Event;
use super::hand_out::Concerned;
use super::index::Index;
use super::outbox::{Item, Limits, Outbox, Wakes};
use super::slab::{Id, Slab};
use super::stream::Stream;
use super::watcher::{Cursor, Ready, State, Watcher};
use crate::record::{Record, RecordsError, Revision};

/// All watch streams of a server. A handle: clones share one hub.
#[derive(Debug, Clone)]
pub struct Hub {
    pub(super) shared: Arc<Shared>,
}

/// Figures for the metrics, as etcd names them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Open streams.
    pub streams: usize,
    /// Open watchers, also those canceled by compaction until their client cancels them.
    pub watchers: usize,
    /// Watchers that are not in sync.
    pub slow_watchers: usize,
    /// Events that wait in outboxes.
    pub pending_events: usize,
    /// Events taken from outboxes since the start.
    pub events_total: u64,
}

#[derive(Debug)]
pub(super) struct Shared {
    inner: Mutex<Inner>,
    signal: Mutex<Signal>,
    signaled: Condvar,
}

/// What the catch-up thread waits for.
#[derive(Debug, Default)]
struct Signal {
    work: bool,
    closed: bool,
}

/// Everything behind the hub's lock.
#[derive(Debug)]
pub(super) struct Inner {
    /// The last revision notified.
    pub(super) current: i64,
    /// The last compacted revision.
    pub(super) compacted: i64,
    pub(super) watchers: Slab<Watcher>,
    pub(super) streams: Slab<StreamState>,
    pub(super) synced: Index<Id>,
    pub(super) ready: Ready,
    /// What was notified since the catch-up round at work began; none between rounds.
    pub(super) tail: Option<Tail>,
    pub(super) concerned: Concerned,
    pub(super) closed: bool,
    events_of_closed: u64,
}

/// What the hub knows of a stream.
#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) outbox: Arc<Outbox>,
    /// By watch id.
    pub(super) watchers: BTreeMap<i64, Id>,
    /// The next id to try for a watcher that brings none.
    pub(super) next_watch_id: i64,
    /// Watchers that wait for room.
    pub(super) parked: FxHashMap<Id, Cursor>,
}

impl Hub {
    /// A hub for a store at revision `current` whose last compacted revision is `compacted` (0 or less:
    /// none), with the one who brings unsynced watchers up to date.
    pub fn new(current: i64, compacted: i64) -> (Self, CatchUp) {
        let inner = Inner {
            current,
            compacted,
            watchers: Slab::new(),
            streams: Slab::new(),
            synced: Index::new(),
            ready: Ready::default(),
            tail: None,
            concerned: Concerned::default(),
            closed: false,
            events_of_closed: 0,
        };
        let shared =
            Shared { inner: Mutex::new(inner), signal: Mutex::default(), signaled: Condvar::new() };
        let hub = Self { shared: Arc::new(shared) };
        (hub.clone(), CatchUp::new(hub))
    }

    /// Opens a stream without watchers; on a closed hub it is closed from the start.
    pub fn open_stream(&self, limits: Limits) -> Stream {
        let outbox = Arc::new(Outbox::new(limits));
        let mut inner = self.lock();
        if inner.closed {
            outbox.close(&mut Wakes::default());
        }
        let id = inner.streams.insert(StreamState {
            outbox: Arc::clone(&outbox),
            watchers: BTreeMap::new(),
            next_watch_id: 0,
            parked: FxHashMap::default(),
        });
        Stream::new(self.clone(), id, outbox)
    }

    /// Tells of applied changes: whole revisions, in order, each above [`Hub::current_revision`].
    ///
    /// Call it once the store shows them and before their requests are answered, and before
    /// [`Hub::compacted`] of a later log entry. `history` is asked for the values before the changes,
    /// and only of those that somebody in sync watches with `prev_kv`.
    ///
    /// # Errors
    /// [`RecordsError`] when such a value cannot be read: the process must then stop.
    ///
    /// # Panics
    /// When a revision is not above the current one: events would be lost or doubled.
    pub fn notify(
        &self,
        records: &[(Revision, Record)],
        history: &dyn History,
    ) -> Result<Wakes, RecordsError> {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        for revision in records.chunk_by(|a, b| a.0.main == b.0.main) {
            inner.publish(revision, history, &mut wakes)?;
        }
        Ok(wakes)
    }

    /// Tells of a compaction at `revision`: unsynced watchers that want something older are canceled.
    pub fn compacted(&self, revision: i64) -> Wakes {
        let mut wakes = Wakes::default();
        self.lock().raise_floor(revision, &mut wakes);
        wakes
    }

    /// Tells that the store was replaced by a snapshot at revision `current`, compacted at `compacted`.
    ///
    /// Watchers go on where they were: what lies between comes from the new store, and those to whom it
    /// cannot show all of it are canceled as compacted.
    pub fn restored(&self, current: i64, compacted: i64) -> Wakes {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        inner.skip_to(current);
        inner.raise_floor(compacted, &mut wakes);
        self.signal_if_ready(&inner);
        wakes
    }

    /// Ends all streams and the catch-up: streams opened later are closed at once.
    pub fn close(&self) {
        let mut wakes = Wakes::default();
        {
            let mut inner = self.lock();
            inner.closed = true;
            for (_, stream) in inner.streams.iter() {
                stream.outbox.close(&mut wakes);
            }
        }
        self.shared.signal.lock().closed = true;
        self.shared.signaled.notify_all();
        wakes.wake_all();
    }

    /// The last revision notified.
    pub fn current_revision(&self) -> i64 {
        self.lock().current
    }

    /// Figures for the metrics; it looks at every watcher.
    pub fn counters(&self) -> Counters {
        let inner = self.lock();
        let is_slow = |watcher: &Watcher| watcher.state.cursor().is_some();
        let mut counters = Counters {
            streams: inner.streams.len(),
            watchers: inner.watchers.len(),
            slow_watchers: inner.watchers.iter().filter(|(_, watcher)| is_slow(watcher)).count(),
            pending_events: 0,
            events_total: inner.events_of_closed,
        };
        for (_, stream) in inner.streams.iter() {
            let (pending, taken) = stream.outbox.event_counts();
            counters.pending_events += pending;
            counters.events_total += taken;
        }
        counters
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock()
    }

    /// Lets the catch-up know that it can do something.
    pub(super) fn signal_if_ready(&self, inner: &Inner) {
        if !inner.ready.is_empty() {
            self.shared.signal.lock().work = true;
            self.shared.signaled.notify_one();
        }
    }

    /// Blocks until there is something to catch up with; false: the hub is closed.
    pub(super) fn wait_for_work(&self) -> bool {
        let mut signal = self.shared.signal.lock();
        while !signal.work && !signal.closed {
            self.shared.signaled.wait(&mut signal);
        }
        signal.work = false;
        !signal.closed
    }
}

impl Inner {
    /// One revision: offers it to the synced watchers of its keys, those who cannot take it get slow.
    fn publish(
        &mut self,
        records: &[(Revision, Record)],
        history: &dyn History,
        wakes: &mut Wakes,
    ) -> Result<(), RecordsError> {
        let Some((Revision { main, .. }, _)) = records.first() else { return Ok(()) };
        assert!(*main > self.current, "revision {main} notified after {}", self.current);
        if let Some(tail) = &mut self.tail {
            tail.push(records);
        }
        let mut events: Vec<Event<'_>> =
            records.iter().map(|(revision, record)| Event::new(*revision, record)).collect();
        let synced = &self.synced;
        self.concerned.gather(&events, &mut self.watchers, |key, visit| synced.visit(key, visit));
        let mut slow = Vec::new();
        self.concerned.hand_out(&mut events, &mut self.watchers, history, &mut slow, wakes)?;
        for id in slow {
            self.leave_synced(id);
            self.park(id, *main);
        }
        self.current = *main;
        Ok(())
    }

    /// Makes a watcher synced: from now on it is found by its keys.
    pub(super) fn enter_synced(&mut self, id: Id) {
        let watcher = self.watchers.get_mut(id).expect("a watcher to be synced exists");
        watcher.state = State::Synced;
        watcher.place = self.synced.insert(&watcher.span, id);
    }

    fn leave_synced(&mut self, id: Id) {
        let watcher = self.watchers.get(id).expect("a synced watcher exists");
        let place = watcher.place;
        if let Some(moved) = self.synced.remove(&watcher.span, place) {
            self.watchers.get_mut(moved).expect("a synced watcher exists").place = place;
        }
    }

    /// Makes a watcher wait for room in its stream, which has been asked to tell.
    fn park(&mut self, id: Id, next: i64) {
        let turn = self.ready.new_turn();
        self.park_at(id, Cursor { next, turn });
    }

    pub(super) fn park_at(&mut self, id: Id, cursor: Cursor) {
        let watcher = self.watchers.get_mut(id).expect("a watcher to be parked exists");
        watcher.state = State::Parked(cursor);
        if let Some(stream) = self.streams.get_mut(watcher.stream) {
            stream.parked.insert(id, cursor);
        }
    }

    /// Puts an unsynced watcher where it belongs: in line, or to the parked ones of a full stream.
    pub(super) fn queue(&mut self, id: Id, cursor: Cursor) {
        let watcher = self.watchers.get_mut(id).expect("a watcher to be queued exists");
        if watcher.outbox.full_until_told() {
            return self.park_at(id, cursor);
        }
        watcher.state = State::Ready(cursor);
        self.ready.insert(id, cursor);
    }

    /// A stream has room again: its parked watchers may be served.
    pub(super) fn unpark(&mut self, stream: Id) {
        let Some(stream) = self.streams.get_mut(stream) else { return };
        for (id, cursor) in std::mem::take(&mut stream.parked) {
            let watcher = self.watchers.get_mut(id).expect("a parked watcher exists");
            watcher.state = State::Ready(cursor);
            self.ready.insert(id, cursor);
        }
    }

    /// Tells a watcher that what it wants next is compacted. It keeps its id.
    pub(super) fn cancel_compacted(&mut self, id: Id, wakes: &mut Wakes) {
        self.unplace(id);
        let watcher = self.watchers.get_mut(id).expect("a watcher to be canceled exists");
        watcher.state = State::Compacted;
        let head = WatchResponse {
            watch_id: watcher.watch_id,
            canceled: true,
            compact_revision: self.compacted,
            ..WatchResponse::default()
        };
        watcher.outbox.push(Item::Control(0, Box::new(head)), wakes);
    }

    /// Forgets a watcher.
    pub(super) fn remove_watcher(&mut self, id: Id) {
        self.unplace(id);
        self.watchers.remove(id);
    }

    /// Forgets a stream and its watchers.
    pub(super) fn remove_stream(&mut self, id: Id) {
        let Some(stream) = self.streams.get(id) else { return };
        self.events_of_closed += stream.outbox.event_counts().1;
        let watchers: Vec<Id> = stream.watchers.values().copied().collect();
        for watcher in watchers {
            self.remove_watcher(watcher);
        }
        self.streams.remove(id);
    }

    /// Takes a watcher out of whichever list its state puts it in.
    fn unplace(&mut self, id: Id) {
        let Some(watcher) = self.watchers.get(id) else { return };
        match watcher.state {
            State::Synced => self.leave_synced(id),
            State::Ready(cursor) => self.ready.remove(id, cursor),
            State::Parked(_) => {
                if let Some(stream) = self.streams.get_mut(watcher.stream) {
                    stream.parked.remove(&id);
                }
            }
            State::Reading(_) | State::Compacted => {}
        }
    }

    pub(super) fn raise_floor(&mut self, revision: i64, wakes: &mut Wakes) {
        if revision <= self.compacted {
            return;
        }
        self.compacted = revision;
        let below = |watcher: &Watcher| watcher.state.cursor().is_some_and(|at| at.next < revision);
        let late: Vec<Id> =
            self.watchers.iter().filter(|(_, watcher)| below(watcher)).map(|(id, _)| id).collect();
        for id in late {
            self.cancel_compacted(id, wakes);
        }
    }

    /// The store jumped to revision `current`: synced watchers have to read what lies between.
    fn skip_to(&mut self, current: i64) {
        let next = self.current + 1;
        if current < next {
            return;
        }
        if let Some(tail) = &mut self.tail {
            tail.lose_from(next);
        }
        self.current = current;
        let behind = |watcher: &Watcher| watcher.state == State::Synced && watcher.start <= current;
        let behind: Vec<Id> =
            self.watchers.iter().filter(|(_, watcher)| behind(watcher)).map(|(id, _)| id).collect();
        for id in behind {
            self.leave_synced(id);
            let start = self.watchers.get(id).map_or(0, |watcher| watcher.start);
            let turn = self.ready.new_turn();
            self.queue(id, Cursor { next: next.max(start), turn });
        }
    }
}
