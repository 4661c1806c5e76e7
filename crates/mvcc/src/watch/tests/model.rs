//! Random interleavings against a model that knows the full history.
//!
//! Each seed drives one hub: transactions, compactions, snapshots, creations, cancels, progress, partial
//! drains and catch-up rounds with tiny limits; what else happens in the middle of a round is drawn too.
//! Every answer is checked when its client reads it: events are exactly the next matching ones, whole
//! revisions, once; progress vouches only for what was read before it. In the end everybody has
//! everything. A failure names its seed; `run(seed)` replays it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use parking_lot::Mutex;

use etched_proto::etcdserverpb::WatchCreateRequest;
use etched_proto::mvccpb::Event;

use super::past::Change;
use super::*;
use crate::record::{Record, RecordsError, Revision};
use crate::watch::History;

const SEEDS: u64 = 2_000;
const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

#[test]
fn every_watcher_gets_its_events_once_in_order_whatever_the_interleaving() {
    let mut totals = Totals::default();
    for seed in 0..SEEDS {
        totals.add(run(seed));
    }
    // The seeds reach what they are meant to reach.
    let Totals { events, caught_up, fragments, progress, compacted } = totals;
    assert!(events > 100_000 && caught_up > 10_000, "{totals:?}");
    assert!(fragments > 1_000 && progress > 1_000 && compacted > 1_000, "{totals:?}");
}

#[derive(Debug, Default, Clone, Copy)]
struct Totals {
    events: usize,
    caught_up: usize,
    fragments: usize,
    progress: usize,
    compacted: usize,
}

impl Totals {
    fn add(&mut self, other: Self) {
        self.events += other.events;
        self.caught_up += other.caught_up;
        self.fragments += other.fragments;
        self.progress += other.progress;
        self.compacted += other.compacted;
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed >> 33) as usize) % bound
    }

    fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

fn run(seed: u64) -> Totals {
    let (hub, mut catch_up) = Hub::new(1, 0);
    let apply = Apply { past: Arc::new(Past::new()), hub };
    let world = Mutex::new(World::new(apply.clone(), seed));
    let history = Interleaved { apply, world: &world };
    for _ in 0..120 {
        world.lock().step();
        if world.lock().random.one_in(4) {
            let budget = world.lock().budget();
            catch_up.run(&history, &budget).expect("readable").wakes.wake_all();
        }
    }
    let mut world = world.into_inner();
    for _ in 0..100_000 {
        let budget = world.budget();
        let round = catch_up.run(&*world.apply.past, &budget).expect("readable");
        let read: usize = (0..world.clients.len()).map(|client| world.drain(client, 4_000)).sum();
        if read == 0 && !round.worked {
            world.check_end();
            return world.totals;
        }
    }
    panic!("seed {seed}: the hub never comes to rest");
}

/// A history that lets the world move on before and after each scan.
struct Interleaved<'a> {
    apply: Apply,
    world: &'a Mutex<World>,
}

impl Interleaved<'_> {
    fn let_it_move(&self) {
        let mut world = self.world.lock();
        for _ in 0..world.random.below(4) {
            world.step();
        }
    }
}

impl History for Interleaved<'_> {
    fn compact_revision(&self) -> i64 {
        self.apply.past.compact_revision()
    }

    fn scan(
        &self,
        from: i64,
        until: i64,
        visit: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
    ) -> Result<(), RecordsError> {
        self.let_it_move();
        self.apply.past.scan(from, until, visit)?;
        self.let_it_move();
        Ok(())
    }

    fn kv_at(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, RecordsError> {
        self.apply.past.kv_at(key, revision)
    }
}

struct World {
    apply: Apply,
    random: Random,
    seed: u64,
    clients: Vec<Client>,
    totals: Totals,
}

/// A stream with what its client knows.
struct Client {
    stream: Stream,
    fragment_bytes: usize,
    /// Answers to creations and cancels that are still to come, in order.
    expected: Vec<(i64, Expected)>,
    watchers: BTreeMap<i64, Watched>,
}

#[derive(Debug)]
enum Expected {
    Created(Box<Watched>),
    Canceled,
}

/// A watcher as its client sees it.
#[derive(Debug)]
struct Watched {
    request: WatchCreateRequest,
    /// First revision it must not have missed.
    begin: i64,
    /// Last revision of which it has the events.
    seen: i64,
    /// Revision of its last answer.
    header: i64,
    /// Fragments of an answer whose end is still to come.
    partial: Vec<Event>,
    compacted: bool,
}

impl World {
    fn new(apply: Apply, seed: u64) -> Self {
        let mut world = Self {
            apply,
            random: Random(seed),
            seed,
            clients: Vec::new(),
            totals: Totals::default(),
        };
        for _ in 0..1 + world.random.below(3) {
            world.open();
        }
        world
    }

    fn step(&mut self) {
        let client = self.random.below(self.clients.len());
        match self.random.below(20) {
            0..=6 => self.write(),
            7..=8 => self.create(client),
            9..=13 => {
                let bytes = self.random.below(1_000);
                self.drain(client, bytes);
            }
            14 => self.cancel(client),
            15 => self.clients[client].stream.progress(),
            16 => self.clients[client].stream.progress_tick(),
            17 if self.random.one_in(3) => self.compact(),
            18 if self.random.one_in(4) => self.restore(),
            19 if self.random.one_in(6) => {
                self.clients.swap_remove(client);
                self.open();
            }
            _ => {}
        }
    }

    fn budget(&mut self) -> Budget {
        let random = &mut self.random;
        let records = 1 + random.pick(&[1, 5, 1_000]);
        let (bytes, sent) = (random.pick(&[1, 100, 10_000]), random.pick(&[1, 10_000, 1 << 20]));
        Budget { watchers: 1 + random.below(8), records, bytes, sent }
    }

    fn open(&mut self) {
        let outbox_bytes = self.random.pick(&[1, 300, 1_000, 100_000]);
        let fragment_bytes = self.random.pick(&[1, 60, 200]);
        let limits = Limits { outbox_bytes, fragment_bytes, group: 0 };
        let stream = self.apply.hub.open_stream(limits);
        let (expected, watchers) = (Vec::new(), BTreeMap::new());
        self.clients.push(Client { stream, fragment_bytes, expected, watchers });
    }

    fn transaction(&mut self) -> Vec<Op> {
        let count = self.random.pick(&[1, 1, 1, 2, 5]);
        let (mut put, mut deleted) = (Vec::new(), Vec::new());
        let mut ops = Vec::new();
        for _ in 0..count {
            let key = self.random.pick(&KEYS);
            if put.contains(&key) || self.random.one_in(3) {
                if !deleted.contains(&key) {
                    deleted.push(key);
                    ops.push(Op::Delete(key.into()));
                }
            } else {
                put.push(key);
                let value = "v".repeat(self.random.pick(&[0, 5, 50]));
                ops.push(Op::Put(key.into(), format!("{}{value}", self.apply.past.current())));
            }
        }
        ops
    }

    fn write(&mut self) {
        let mut batch = Vec::new();
        for _ in 0..self.random.pick(&[1, 1, 2, 4]) {
            let ops = self.transaction();
            batch.extend(self.apply.past.commit(&ops));
        }
        self.apply.hub.notify(&batch, &*self.apply.past).expect("readable").wake_all();
    }

    fn compact(&mut self) {
        let (current, floor) = (self.apply.past.current(), self.apply.past.compact_revision());
        if current > floor {
            let above = 1 + self.random.below((current - floor) as usize);
            self.apply.compact(floor + above as i64);
        }
    }

    /// The store jumps ahead, as when a snapshot arrives.
    fn restore(&mut self) {
        for _ in 0..self.random.below(6) {
            let ops = self.transaction();
            self.apply.past.commit(&ops);
        }
        let (current, floor) = (self.apply.past.current(), self.apply.past.compact_revision());
        self.apply.hub.restored(current, floor).wake_all();
    }

    fn create(&mut self, client: usize) {
        let current = self.apply.hub.current_revision();
        let random = &mut self.random;
        let key = random.pick(&KEYS);
        let end = random.pick(&["", "", "\0", "c", "e", "z"]);
        let start = match random.below(4) {
            0 => 0,
            1 => current + 1 + random.below(4) as i64,
            _ => 1 + random.below(current as usize) as i64,
        };
        let request = WatchCreateRequest {
            filters: random.pick(&[&[][..], &[], &[0], &[1]]).to_vec(),
            prev_kv: random.one_in(2),
            progress_notify: random.one_in(2),
            fragment: random.one_in(2),
            ..from(start, watch_range(key, end))
        };
        let client = &mut self.clients[client];
        if let Ok(watch_id) = client.stream.create(&request) {
            let begin = if start == 0 { current + 1 } else { start };
            let (seen, header) = (begin - 1, current);
            let watched =
                Watched { request, begin, seen, header, partial: vec![], compacted: false };
            client.expected.push((watch_id, Expected::Created(Box::new(watched))));
        } else {
            assert!(!end.is_empty() && end != "\0" && end <= key, "refused without a reason");
            client.expected.push((-1, Expected::Canceled));
        }
    }

    fn cancel(&mut self, client: usize) {
        let watch_id = self.random.below(6) as i64;
        let client = &mut self.clients[client];
        if client.stream.cancel(watch_id) {
            client.expected.push((watch_id, Expected::Canceled));
        }
    }

    /// Reads some answers and checks them; returns how many.
    fn drain(&mut self, client: usize, max_bytes: usize) -> usize {
        let cx = Context::from_waker(Waker::noop());
        let mut replies = Vec::new();
        let _ = self.clients[client].stream.poll_replies(&cx, &HEADER, max_bytes, &mut replies);
        if replies.is_empty() {
            return 0;
        }
        let past = &self.apply.past;
        let check = Check {
            changes: past.changes(),
            floor: past.compact_revision(),
            current: self.apply.hub.current_revision(),
            seed: self.seed,
        };
        for reply in &replies {
            let decode = |event: &Bytes| Event::decode(event.clone()).expect("an event");
            let events = reply.events.iter().map(decode).collect();
            let response = WatchResponse { events, ..reply.head.clone() };
            self.clients[client].answer(response, &check, &mut self.totals);
        }
        replies.len()
    }

    /// Nothing is left to do: everybody has everything, and progress is told.
    fn check_end(&mut self) {
        let changes = self.apply.past.changes();
        let current = self.apply.past.current();
        for client in &self.clients {
            assert!(client.expected.is_empty(), "seed {}: unanswered", self.seed);
            for watched in client.watchers.values().filter(|watched| !watched.compacted) {
                let missing = watched.matching(&changes, current);
                assert!(missing.is_empty(), "seed {}: {watched:?} misses {missing:?}", self.seed);
            }
            let told =
                |watched: &Watched| !watched.compacted && watched.request.start_revision <= current;
            let all = !client.watchers.is_empty() && client.watchers.values().all(told);
            client.stream.progress();
            let answers = lines(&client.stream);
            let expected = if all { vec![format!("-1@{current}")] } else { vec![] };
            assert_eq!(answers, expected, "seed {}", self.seed);
        }
        let counters = self.apply.hub.counters();
        assert_eq!((counters.slow_watchers, counters.pending_events), (0, 0), "seed {}", self.seed);
    }
}

/// What answers are held against.
struct Check {
    changes: Vec<Arc<Change>>,
    floor: i64,
    current: i64,
    seed: u64,
}

impl Client {
    fn answer(&mut self, response: WatchResponse, check: &Check, totals: &mut Totals) {
        let seed = check.seed;
        let id = response.watch_id;
        let revision = response.header.as_ref().expect("a header").revision;
        assert!(revision <= check.current, "seed {seed}: {response:?}");
        if response.canceled && response.compact_revision != 0 {
            totals.compacted += 1;
            let watched = self.watchers.get_mut(&id).expect("created before");
            assert_eq!((revision, watched.partial.len()), (0, 0));
            assert!(watched.next() < response.compact_revision, "seed {seed}: {watched:?}");
            watched.compacted = true;
        } else if response.created || response.canceled {
            let (expected_id, expected) = self.expected.remove(0);
            assert_eq!(id, expected_id, "seed {seed}");
            match expected {
                Expected::Created(watched) => {
                    assert_eq!(revision, watched.header, "seed {seed}");
                    assert!(self.watchers.insert(id, *watched).is_none(), "seed {seed}");
                }
                Expected::Canceled => drop(self.watchers.remove(&id)),
            }
        } else if response.events.is_empty() {
            totals.progress += 1;
            self.progress(id, revision, check);
        } else {
            let limit = self.fragment_bytes;
            let split = response.events.len() > 1 && response.encoded_len() >= limit;
            let watched = self.watchers.get_mut(&id).expect("created and not canceled");
            assert!(!split || !watched.request.fragment, "seed {seed}: larger than a fragment");
            watched.events(response, revision, check, totals);
        }
    }

    fn progress(&mut self, id: i64, revision: i64, check: &Check) {
        assert!(!self.watchers.is_empty(), "seed {}: progress of nobody", check.seed);
        for (watch_id, watched) in &mut self.watchers {
            if id == -1 || id == *watch_id {
                assert!(id == -1 || watched.request.progress_notify);
                assert!(!watched.compacted && watched.partial.is_empty());
                assert!(revision >= watched.request.start_revision, "seed {}", check.seed);
                assert!(revision >= watched.header, "seed {}", check.seed);
                let missing = watched.matching(&check.changes, revision);
                assert!(missing.is_empty(), "seed {}: too early for {missing:?}", check.seed);
                watched.seen = watched.seen.max(revision);
                watched.header = revision;
            }
        }
    }
}

impl Watched {
    const fn next(&self) -> i64 {
        if self.seen + 1 > self.begin { self.seen + 1 } else { self.begin }
    }

    fn events(&mut self, response: WatchResponse, header: i64, check: &Check, totals: &mut Totals) {
        let seed = check.seed;
        assert!(!self.compacted, "seed {seed}: events after the end");
        assert!(header >= self.header, "seed {seed}: the header goes back");
        self.partial.extend(response.events);
        if response.fragment {
            assert!(self.request.fragment);
            totals.fragments += 1;
            return;
        }
        let events = std::mem::take(&mut self.partial);
        let mod_revision = |event: &Event| event.kv.as_ref().expect("kv").mod_revision;
        let last = events.last().map(mod_revision).expect("events");
        assert!(last <= header, "seed {seed}");
        let mut rest = events.iter();
        for change in self.matching(&check.changes, last) {
            let expected = self.event_of(change);
            let without_prev = Event { prev_kv: None, ..expected.clone() };
            let prev_gone = change.revision.main <= check.floor;
            match rest.as_slice().first() {
                Some(event) if *event == expected || prev_gone && *event == without_prev => {
                    rest.next();
                }
                // Superseded within a revision that was compacted before it was read.
                _ if change.pruned => {}
                event => panic!("seed {seed}: {event:?} instead of {expected:?} for {self:?}"),
            }
        }
        assert_eq!(rest.as_slice(), [], "seed {seed}: not wanted, or a second time");
        totals.events += events.len();
        totals.caught_up += usize::from(mod_revision(&events[0]) < last);
        self.seen = last;
        self.header = header;
    }

    /// What it wants after what it has seen, up to a revision.
    fn matching<'a>(&self, changes: &'a [Arc<Change>], upto: i64) -> Vec<&'a Change> {
        let next = self.next();
        let wanted = |change: &&Change| {
            let revision = change.revision.main;
            revision >= next && revision <= upto && self.holds(&change.key) && self.takes(change)
        };
        let begin = changes.partition_point(|change| change.revision.main < next);
        changes[begin..].iter().map(|change| &**change).filter(wanted).collect()
    }

    fn holds(&self, key: &str) -> bool {
        let end = &self.request.range_end[..];
        match end {
            b"" => self.request.key == key.as_bytes(),
            b"\0" => self.request.key <= *key.as_bytes(),
            _ => self.request.key <= *key.as_bytes() && key.as_bytes() < end,
        }
    }

    fn takes(&self, change: &Change) -> bool {
        !self.request.filters.contains(&i32::from(change.kv.is_none()))
    }

    fn event_of(&self, change: &Change) -> Event {
        let main = change.revision.main;
        let bare = mvccpb::KeyValue {
            key: change.key.clone().into(),
            mod_revision: main,
            ..mvccpb::KeyValue::default()
        };
        let is_create = change.kv.as_ref().is_some_and(|kv| kv.create_revision == main);
        let prev = change.prev.clone().filter(|_| self.request.prev_kv && !is_create);
        let delete = i32::from(change.kv.is_none());
        Event { r#type: delete, kv: Some(change.kv.clone().unwrap_or(bare)), prev_kv: prev }
    }
}
