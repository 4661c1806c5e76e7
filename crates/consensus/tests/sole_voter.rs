//! One voter over its log: what is committed survives every crash, and nothing else comes out.

use std::path::Path;

use bytes::Bytes;
use etched_consensus::{Config, Entry, Error, Output, Role, Start, Writer};
use etched_proto::raftpb::ConfState;
use etched_sim::{Loss, SimDisk};
use etched_wal::{Options, SnapshotMark, Wal};

const ID: u64 = 7;

fn config() -> Config {
    Config { id: ID, election_ticks: 10, pre_vote: true, catch_up_entries: 5, boot: 1, seed: None }
}

fn conf_state() -> ConfState {
    ConfState { voters: vec![ID], ..ConfState::default() }
}

fn dir() -> &'static Path {
    Path::new("/data/member/wal")
}

fn options() -> Options {
    Options { segment_bytes: 4096, ..Options::default() }
}

/// A lone member with its log.
struct Node {
    node: etched_consensus::Node,
    writer: Writer<SimDisk>,
}

impl Node {
    fn advance(&mut self) -> Result<Output, Error> {
        self.node.advance_inline(&mut self.writer)
    }
}

/// Opens the log, or makes it, with a store that stands at `applied`.
fn open(disk: &SimDisk, applied: &SnapshotMark) -> Result<Node, Error> {
    let (wal, hard_state, entries) = if etched_wal::exists(disk, dir())? {
        let (wal, found) = Wal::open(disk.clone(), dir(), applied, &options())?;
        (wal, found.hard_state, found.entries)
    } else {
        let wal = Wal::create(disk.clone(), dir(), b"metadata", &options())?;
        (wal, Default::default(), Vec::new())
    };
    let start = Start {
        hard_state,
        mark: (applied.index, applied.term),
        entries,
        conf_state: conf_state(),
        applied: applied.index,
    };
    let writer = Writer::new(wal, start.hard_state);
    Ok(Node { node: etched_consensus::Node::new(&config(), start)?, writer })
}

/// Becomes leader and gives what came out on the way.
fn lead(node: &mut Node) -> Result<Vec<Entry>, Error> {
    let mut committed = take(node)?;
    node.node.campaign()?;
    committed.extend(take(node)?);
    Ok(committed)
}

fn take(node: &mut Node) -> Result<Vec<Entry>, Error> {
    let output = node.advance()?;
    if let Some(last) = output.committed.last() {
        node.node.applied(last.index);
    }
    Ok(output.committed)
}

fn propose(node: &mut Node, texts: &[&str]) -> Result<Vec<Entry>, Error> {
    let batch = texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes()));
    assert!(node.node.propose(batch)?, "a leader takes proposals");
    take(node)
}

fn texts(entries: &[Entry]) -> Vec<String> {
    let text = |entry: &Entry| String::from_utf8_lossy(&entry.data).into_owned();
    entries.iter().map(text).filter(|text| !text.is_empty()).collect()
}

#[test]
fn a_sole_voter_leads_after_its_vote_and_may_answer_reads_after_its_first_entry() {
    let mut node = open(&SimDisk::new(), &SnapshotMark::default()).expect("a fresh log");
    assert!(!node.node.sole_leader());
    node.node.campaign().expect("nobody else votes");
    let output = node.advance().expect("the disk works");
    assert_eq!(output.soft_state.map(|state| (state.leader, state.role)), Some((ID, Role::Leader)));
    assert_eq!(output.committed.len(), 1, "the empty entry of the term");
    assert!(node.node.sole_leader());
}

#[test]
fn a_batch_is_committed_with_one_sync() {
    let disk = SimDisk::new();
    let mut node = open(&disk, &SnapshotMark::default()).expect("a fresh log");
    lead(&mut node).expect("the disk works");
    let before = disk.operations();
    let committed = propose(&mut node, &["a", "b", "c"]).expect("the disk works");
    assert_eq!(texts(&committed), ["a", "b", "c"]);
    assert_eq!(disk.operations() - before, 2, "one write and one sync");
}

#[test]
fn a_node_that_does_not_lead_takes_no_proposal() {
    let mut node = open(&SimDisk::new(), &SnapshotMark::default()).expect("a fresh log");
    assert!(!node.node.propose([Bytes::from_static(b"a")]).expect("no fault"));
}

#[test]
fn a_crash_at_any_operation_loses_nothing_that_was_committed_and_invents_nothing() {
    for crash_at in 0..120 {
        for loss in [Loss::Unsynced, Loss::Torn(crash_at)] {
            run_until_crash(crash_at, loss);
        }
    }
}

fn run_until_crash(crash_at: u64, loss: Loss) {
    let disk = SimDisk::new();
    disk.crash_after(crash_at);
    let (mut proposed, mut answered) = (Vec::new(), Vec::new());
    let _ = (|| -> Result<(), Error> {
        let mut node = open(&disk, &SnapshotMark::default())?;
        lead(&mut node)?;
        for round in 0..100 {
            let text = format!("{round:03}{}", "x".repeat(100));
            proposed.push(text.clone());
            answered.extend(texts(&propose(&mut node, &[&text])?));
        }
        Ok(())
    })();
    disk.restart(loss);
    let mut node =
        open(&disk, &SnapshotMark::default()).expect("what a crash leaves can be opened");
    let found = texts(&lead(&mut node).expect("the disk works again"));
    assert!(found.len() >= answered.len(), "crash at {crash_at}: an answered entry is lost");
    assert_eq!(found, proposed[..found.len()], "crash at {crash_at}: not what was proposed");
    let after = propose(&mut node, &["after"]).expect("the disk works again");
    assert_eq!(texts(&after), ["after"]);
}

#[test]
fn a_checkpoint_shortens_the_log_and_the_rest_is_replayed() {
    let disk = SimDisk::new();
    let mut node = open(&disk, &SnapshotMark::default()).expect("a fresh log");
    lead(&mut node).expect("the disk works");
    let long = "x".repeat(1000);
    let mut last = Entry::default();
    for _ in 0..20 {
        last = propose(&mut node, &[&long]).expect("the disk works").remove(0);
    }
    let mark = SnapshotMark { index: last.index, term: last.term, conf_state: Some(conf_state()) };
    node.writer.sync_commit(mark.index).expect("the disk works");
    node.writer.checkpointed(&mark).expect("the disk works");
    propose(&mut node, &["behind the checkpoint"]).expect("the disk works");
    drop(node);
    disk.restart(Loss::Unsynced);
    let mut node = open(&disk, &mark).expect("the log goes back to the checkpoint");
    assert_eq!(texts(&lead(&mut node).expect("the disk works")), ["behind the checkpoint"]);
    drop(node);
    disk.restart(Loss::Unsynced);
    let gone = open(&disk, &SnapshotMark::default()).err();
    assert!(matches!(gone, Some(Error::Wal(_))), "the beginning of the log is gone: {gone:?}");
}

#[test]
fn a_store_ahead_of_its_log_is_refused() {
    let start = Start {
        hard_state: Default::default(),
        mark: (0, 0),
        entries: Vec::new(),
        conf_state: conf_state(),
        applied: 5,
    };
    let refused = etched_consensus::Node::new(&config(), start).err();
    assert!(matches!(refused, Some(Error::StoreAheadOfLog { applied: 5, last: 0 })));
}

/// A commit index alone is not synced; raft-rs ends the process when it is told of more than is committed.
#[test]
fn a_store_ahead_of_the_synced_commit_index_counts_as_committed() {
    let entry = |index| Entry { term: 1, index, ..Entry::default() };
    let start = Start {
        hard_state: etched_wal::HardState { term: 1, vote: ID, commit: 1 },
        mark: (0, 0),
        entries: (1..=5).map(entry).collect(),
        conf_state: conf_state(),
        applied: 4,
    };
    let node = etched_consensus::Node::new(&config(), start).expect("the log has the entries");
    assert_eq!(node.commit(), 4);
}
