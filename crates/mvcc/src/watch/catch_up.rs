//! Bringing unsynced watchers up to date.
//!
//! ```text
//! begin (hub locked)   the watcher first in line, and those ready within a stretch after it
//!        │
//! read (no lock)       one scan for all of them: each takes whole revisions while its stream has room
//!        │
//! finish (hub locked)  answers to the outboxes; who read to the end also gets what was notified
//!                      meanwhile (the tail) and is synced; the others go back in line or wait for room
//! ```
//! A round is bounded by its [`Budget`]; the hub is locked only for its ends, for a time that grows with
//! the watchers of the round and not with what they read. A watcher that had a turn goes to the end of
//! the line; one whose turn brought nothing because others of its stream took the room keeps its place
//! and its first event's revision: next time it comes before them, and reading begins at that event.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::History;
use super::event::{self, Event};
use super::hub::{Hub, Inner};
use super::index::Index;
use super::outbox::{EVENT_BYTES, Events, Item, Wakes};
use super::slab::Id;
use super::watcher::{Cursor, State, Wants};
use crate::record::{Record, RecordsError, Revision};

/// Brings unsynced watchers up to date, a bounded round at a time. There is one for each hub.
#[derive(Debug)]
pub struct CatchUp {
    hub: Hub,
}

/// Where a round stops. It always reads at least one whole revision.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Watchers that read together.
    pub watchers: usize,
    /// Records looked at.
    pub records: usize,
    /// Bytes of the records that somebody watches.
    pub bytes: usize,
    /// Bytes given to all streams together; each gets its share, but no less than `SHARE_MIN`. It bounds
    /// how long the threads of the streams are busy with one round.
    pub sent: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { watchers: 512, records: 10_000, bytes: 4 << 20, sent: 2 << 20 }
    }
}

/// What a round came to.
#[derive(Debug)]
pub struct Round {
    /// Some watcher was served.
    pub worked: bool,
    /// There is more to do right now.
    pub more: bool,
    /// Streams that have something to send.
    pub wakes: Wakes,
}

/// Bytes that a stream may be given in a round at least, however many there are: less would be mostly headers.
const SHARE_MIN: usize = 4 << 10;

/// Revisions that one answer holds at most while catching up, as in etcd.
const REVISIONS_PER_ANSWER: usize = 1000;

/// Records that are kept of what is notified during a round.
const TAIL_RECORDS: usize = 4096;

impl CatchUp {
    pub(super) const fn new(hub: Hub) -> Self {
        Self { hub }
    }

    /// One round, if there is something to do.
    ///
    /// # Errors
    /// [`RecordsError`] when the store cannot be read; the watchers stay where they were.
    pub fn run(&mut self, history: &dyn History, budget: &Budget) -> Result<Round, RecordsError> {
        let begun = self.hub.lock().begin_round(budget);
        let Some(mut reading) = begun else {
            return Ok(Round { worked: false, more: false, wakes: Wakes::default() });
        };
        let read = reading.read(history, budget);
        // Read after the scan: had anything it wanted been removed, this stands above where it began.
        let floor = history.compact_revision();
        let mut wakes = Wakes::default();
        let mut inner = self.hub.lock();
        if let Err(error) = read {
            inner.abandon_round(reading);
            return Err(error);
        }
        inner.raise_floor(floor, &mut wakes);
        inner.finish_round(reading, history, &mut wakes)?;
        Ok(Round { worked: true, more: !inner.ready.is_empty(), wakes })
    }

    /// Blocks until there is something to do; false: the hub is closed.
    pub fn wait(&self) -> bool {
        self.hub.wait_for_work()
    }
}

/// What is notified while a round reads, for those who will have read up to there.
#[derive(Debug, Default)]
pub(super) struct Tail {
    records: Vec<(Revision, Record)>,
    /// From this revision on it was not kept.
    lost_from: Option<i64>,
}

impl Tail {
    /// One revision.
    pub(super) fn push(&mut self, revision: &[(Revision, Record)]) {
        let Some((first, _)) = revision.first() else { return };
        if self.lost_from.is_none() && self.records.len() + revision.len() <= TAIL_RECORDS {
            self.records.extend_from_slice(revision);
        } else {
            self.lose_from(first.main);
        }
    }

    pub(super) fn lose_from(&mut self, revision: i64) {
        self.lost_from.get_or_insert(revision);
    }
}

/// A round at work.
#[derive(Debug)]
struct Reading {
    members: Vec<Member>,
    /// Which members watch a key.
    index: Index<usize>,
    /// For each stream, the bytes that may still be added.
    rooms: Vec<usize>,
    from: i64,
    /// The hub's revision when the round began.
    current: i64,
    /// First revision that was not read.
    until: i64,
    /// What somebody watches.
    records: Vec<(Revision, Record)>,
}

/// A watcher in a round.
#[derive(Debug)]
struct Member {
    id: Id,
    cursor: Cursor,
    wants: Wants,
    room: usize,
    /// The revision it is taking.
    taking: i64,
    /// Its stream was full at this revision; it does not take it nor later ones.
    stopped: Option<i64>,
    /// Its events, by their place among the records.
    taken: Vec<usize>,
    answers: Vec<Vec<Bytes>>,
}

impl Inner {
    fn begin_round(&mut self, budget: &Budget) -> Option<Reading> {
        let (first, from) = self.ready.first_in_line()?;
        let stretch = i64::try_from(budget.records).unwrap_or(i64::MAX);
        let until = from.saturating_add(stretch.max(1));
        let near = self.ready.within(from..until).filter(|id| *id != first);
        let ids: Vec<Id> =
            std::iter::once(first).chain(near).take(budget.watchers.max(1)).collect();
        let mut rooms = Vec::new();
        let mut room_of = FxHashMap::default();
        let mut reading = Reading {
            members: Vec::with_capacity(ids.len()),
            index: Index::new(),
            rooms: Vec::new(),
            from,
            current: self.current,
            until: self.current + 1,
            records: Vec::new(),
        };
        for id in ids {
            let watcher = self.watchers.get_mut(id).expect("a ready watcher exists");
            let State::Ready(cursor) = watcher.state else { unreachable!("it stands in line") };
            self.ready.remove(id, cursor);
            watcher.state = State::Reading(cursor);
            let room = *room_of.entry(watcher.stream).or_insert_with(|| {
                rooms.push(watcher.outbox.room().max(1));
                rooms.len() - 1
            });
            reading.index.insert(&watcher.span, reading.members.len());
            reading.members.push(Member::new(id, cursor, watcher.wants, room));
        }
        let share = (budget.sent / rooms.len()).max(SHARE_MIN);
        reading.rooms = rooms.into_iter().map(|room| room.min(share)).collect();
        self.tail = Some(Tail::default());
        Some(reading)
    }

    /// The store failed: everybody stands where they stood.
    fn abandon_round(&mut self, reading: Reading) {
        self.tail = None;
        for member in reading.members {
            if self.is_reading(member.id) {
                self.queue(member.id, member.cursor);
            }
        }
    }

    fn finish_round(
        &mut self,
        mut reading: Reading,
        history: &dyn History,
        wakes: &mut Wakes,
    ) -> Result<(), RecordsError> {
        let tail = self.tail.take().expect("a round has a tail");
        let mut behind = Vec::new();
        let mut level = vec![None; reading.members.len()];
        for (place, member) in reading.members.iter_mut().enumerate() {
            // Canceled meanwhile, by its client or by a compaction.
            if !self.is_reading(member.id) {
                continue;
            }
            let served = !member.answers.is_empty();
            self.deliver(member, reading.current, wakes);
            let next = member.reached(reading.until);
            if next > reading.current {
                level[place] = Some(member.id);
            } else {
                let starved = !served && (member.stopped.is_some() || next == member.cursor.next);
                let turn = if starved { member.cursor.turn } else { self.ready.new_turn() };
                behind.push((member.id, Cursor { next, turn }));
            }
        }
        self.deliver_tail(&tail, &reading.index, &mut level, history, wakes)?;
        for id in level.into_iter().flatten() {
            match tail.lost_from {
                Some(next) => behind.push((id, Cursor { next, turn: self.ready.new_turn() })),
                None => self.enter_synced(id),
            }
        }
        for (id, cursor) in behind {
            self.queue(id, cursor);
        }
        Ok(())
    }

    /// Answers that were read go out even if the stream has filled up meanwhile: otherwise watchers that
    /// are in sync could keep this one from ever moving on.
    fn deliver(&mut self, member: &mut Member, revision: i64, wakes: &mut Wakes) {
        let watcher = self.watchers.get_mut(member.id).expect("a reading watcher exists");
        for events in member.answers.drain(..) {
            let item = Item::Events {
                watch_id: watcher.watch_id,
                revision,
                fragment: watcher.wants.fragment,
                events: Events::Many(Arc::new(events)),
            };
            watcher.outbox.push(item, wakes);
            watcher.hushed = true;
        }
    }

    /// Offers what was notified during the round to the members named in `level`, and takes those out
    /// whose stream is full.
    fn deliver_tail(
        &mut self,
        tail: &Tail,
        index: &Index<usize>,
        level: &mut [Option<Id>],
        history: &dyn History,
        wakes: &mut Wakes,
    ) -> Result<(), RecordsError> {
        for revision in tail.records.chunk_by(|a, b| a.0.main == b.0.main) {
            let mut events: Vec<Event<'_>> =
                revision.iter().map(|(revision, record)| Event::new(*revision, record)).collect();
            self.concerned.gather(&events, &mut self.watchers, |key, visit| {
                index
                    .visit(key, &mut |place: usize| level[place].into_iter().for_each(&mut *visit));
            });
            let mut slow = Vec::new();
            self.concerned.hand_out(&mut events, &mut self.watchers, history, &mut slow, wakes)?;
            for id in slow {
                level
                    .iter_mut()
                    .filter(|place| **place == Some(id))
                    .for_each(|place| *place = None);
                let turn = self.ready.new_turn();
                self.park_at(id, Cursor { next: revision[0].0.main, turn });
            }
        }
        Ok(())
    }

    fn is_reading(&self, id: Id) -> bool {
        self.watchers.get(id).is_some_and(|watcher| matches!(watcher.state, State::Reading(_)))
    }
}

impl Reading {
    fn read(&mut self, history: &dyn History, budget: &Budget) -> Result<(), RecordsError> {
        let mut rooms = self.rooms.clone();
        self.scan(history, budget)?;
        let mut events: Vec<Event<'_>> =
            self.records.iter().map(|(revision, record)| Event::new(*revision, record)).collect();
        for member in &mut self.members {
            member.make_answers(&mut events, &mut rooms[member.room], history)?;
        }
        Ok(())
    }

    /// Collects the records that somebody takes. Values before them are looked up later, since the
    /// history may hold a lock while it visits.
    fn scan(&mut self, history: &dyn History, budget: &Budget) -> Result<(), RecordsError> {
        let mut seen = 0;
        let mut bytes = 0;
        let mut main = self.from;
        let mut moving = self.members.len();
        let (from, end) = (self.from, self.current + 1);
        history.scan(from, end, &mut |revision, record| {
            if revision.main != main {
                if seen > 0 && (seen >= budget.records || bytes >= budget.bytes) {
                    self.until = revision.main;
                    return ControlFlow::Break(());
                }
                main = revision.main;
            }
            seen += 1;
            if self.take(revision, &record, &mut moving) {
                bytes += record.bytes.len();
                self.records.push((revision, record));
            }
            if moving == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    }

    /// Gives a record to the members that want it; false if there is none. `moving` counts those that
    /// are not stopped.
    fn take(&mut self, revision: Revision, record: &Record, moving: &mut usize) -> bool {
        // A restore leaves a record without a key at the revision that it was told to go on from. It is no change.
        if record.bytes.is_empty() {
            return false;
        }
        let Self { index, members, rooms, records, .. } = self;
        let mut wanted = false;
        index.visit(event::key_of(&record.bytes), &mut |place: usize| {
            let member = &mut members[place];
            if member.takes(revision.main, record, &mut rooms[member.room], moving) {
                member.taken.push(records.len());
                wanted = true;
            }
        });
        wanted
    }
}

impl Member {
    const fn new(id: Id, cursor: Cursor, wants: Wants, room: usize) -> Self {
        Self {
            id,
            cursor,
            wants,
            room,
            taking: 0,
            stopped: None,
            taken: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Whether it takes this record. It decides at its first record of a revision, for all of them.
    fn takes(&mut self, main: i64, record: &Record, room: &mut usize, moving: &mut usize) -> bool {
        let concerned = main >= self.cursor.next && self.wants.takes(record.tombstone);
        if self.stopped.is_some() || !concerned {
            return false;
        }
        if main != self.taking && *room == 0 {
            self.stopped = Some(main);
            *moving -= 1;
            return false;
        }
        self.taking = main;
        *room = room.saturating_sub(EVENT_BYTES + record.bytes.len());
        true
    }

    /// The first revision it was not offered, after a round that read to before `until`: a budget may end
    /// that before it came to where this member stands.
    fn reached(&self, until: i64) -> i64 {
        self.stopped.unwrap_or(until).max(self.cursor.next)
    }

    /// Makes answers of what it took, as far as its stream has room for the events as they are: values
    /// before a change can be much larger than the change.
    fn make_answers(
        &mut self,
        events: &mut [Event<'_>],
        room: &mut usize,
        history: &dyn History,
    ) -> Result<(), RecordsError> {
        let mut revisions = 0;
        let mut last = 0;
        for place in self.taken.drain(..) {
            let event = &mut events[place];
            if event.revision.main != last {
                if *room == 0 {
                    self.stopped = Some(event.revision.main);
                    break;
                }
                if revisions % REVISIONS_PER_ANSWER == 0 {
                    self.answers.push(Vec::new());
                }
                revisions += 1;
                last = event.revision.main;
            }
            let answer = self.answers.last_mut().expect("begun with its first revision");
            let event = event.encoded(self.wants.prev_kv, history)?;
            *room = room.saturating_sub(EVENT_BYTES + event.len());
            answer.push(event);
        }
        Ok(())
    }
}
