//! A few members without disks: an append is on disk when the test says so.

#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are outside the lint's own exception")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use etched_consensus::{
    Append, ConfChange, Config, Entry, EntryKind, Node, Output, ReadState, SoftState, Start,
};
use etched_proto::raftpb::{ConfState, Message, MessageType};

pub(crate) const ELECTION_TICKS: usize = 5;

/// One member and what came out of it.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) node: Node,
    /// Appends that the disk has not finished.
    pub(crate) appends: Vec<Append>,
    /// Its disk answers at once.
    pub(crate) disk_works: bool,
    pub(crate) applied: Vec<Entry>,
    pub(crate) reads: Vec<ReadState>,
    pub(crate) soft_states: Vec<SoftState>,
    pub(crate) wanted: Vec<u64>,
    /// Indexes of snapshots that took the place of the state.
    pub(crate) installed: Vec<u64>,
    /// The state is not brought up to a snapshot until the test says so.
    pub(crate) holds_install: bool,
}

pub(crate) fn config(id: u64) -> Config {
    Config {
        id,
        election_ticks: ELECTION_TICKS,
        pre_vote: true,
        catch_up_entries: 5,
        boot: 100 + id,
        seed: Some(7),
    }
}

impl Member {
    pub(crate) fn new(id: u64, voters: &[u64], learners: &[u64]) -> Self {
        let start = Start {
            hard_state: Default::default(),
            mark: (0, 0),
            entries: Vec::new(),
            conf_state: ConfState {
                voters: voters.to_vec(),
                learners: learners.to_vec(),
                ..ConfState::default()
            },
            applied: 0,
        };
        Self {
            node: Node::new(&config(id), start).unwrap(),
            appends: Vec::new(),
            disk_works: true,
            applied: Vec::new(),
            reads: Vec::new(),
            soft_states: Vec::new(),
            wanted: Vec::new(),
            installed: Vec::new(),
            holds_install: false,
        }
    }

    /// Everything that follows, without the disk's answer where the disk does not work.
    pub(crate) fn drain(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            let output = self.node.advance();
            let more = self.take(output, &mut messages);
            if !more {
                return messages;
            }
        }
    }

    fn take(&mut self, output: Output, messages: &mut Vec<Message>) -> bool {
        let more = output.append.is_some() || !output.committed.is_empty();
        messages.extend(output.messages);
        self.soft_states.extend(output.soft_state);
        self.reads.extend(output.read_states);
        self.wanted.extend(output.snapshots_wanted);
        if let Some(mark) = output.snapshot {
            self.installed.push(mark.index);
            if !self.holds_install {
                self.node.applied(mark.index);
            }
        }
        self.appends.extend(output.append);
        if self.disk_works {
            self.persist();
        }
        for entry in &output.committed {
            if entry.kind == EntryKind::ConfChange {
                let change = ConfChange::decode(entry.data.clone()).unwrap();
                self.node.apply_conf_change(&change).unwrap();
            }
        }
        if let Some(last) = output.committed.last() {
            self.node.applied(last.index);
        }
        self.applied.extend(output.committed);
        more
    }

    /// The disk has written all it was given.
    pub(crate) fn persist(&mut self) {
        if let Some(last) = self.appends.drain(..).next_back() {
            self.node.persisted(last.number);
        }
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        let texts = self.applied.iter().filter(|entry| entry.kind == EntryKind::Normal);
        let texts = texts.map(|entry| String::from_utf8_lossy(&entry.data).into_owned());
        texts.filter(|text| !text.is_empty()).collect()
    }
}

/// Members and what is under way between them.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) members: BTreeMap<u64, Member>,
    pub(crate) wire: VecDeque<Message>,
    /// Nothing comes from or to these.
    pub(crate) cut: BTreeSet<u64>,
    /// Messages that were kept back.
    pub(crate) held: Vec<Message>,
    pub(crate) now: Duration,
}

impl Group {
    pub(crate) fn new(voters: &[u64]) -> Self {
        let members = voters.iter().map(|id| (*id, Member::new(*id, voters, &[]))).collect();
        Self { members, ..Self::default() }
    }

    pub(crate) fn at(&mut self, id: u64) -> &mut Member {
        self.members.get_mut(&id).unwrap()
    }

    /// A group that `id` leads, with its term committed everywhere.
    pub(crate) fn led_by(id: u64, voters: &[u64]) -> Self {
        let mut group = Self::new(voters);
        group.at(id).node.campaign().unwrap();
        group.run();
        assert!(group.at(id).node.is_leader());
        group
    }

    pub(crate) fn run(&mut self) {
        self.run_holding(|_| false);
    }

    /// Until nothing is under way; messages for which `holds` says so are kept in `held`.
    pub(crate) fn run_holding(&mut self, holds: impl Fn(&Message) -> bool) {
        loop {
            for member in self.members.values_mut() {
                self.wire.extend(member.drain());
            }
            let Some(message) = self.wire.pop_front() else { return };
            if self.cut.contains(&message.from()) || self.cut.contains(&message.to()) {
                continue;
            }
            if holds(&message) {
                self.held.push(message);
            } else if let Some(member) = self.members.get_mut(&message.to()) {
                let _ = member.node.step(message);
            }
        }
    }

    pub(crate) fn tick(&mut self, id: u64) {
        self.now += Duration::from_millis(100);
        let now = self.now;
        self.at(id).node.tick(now);
    }

    /// Ticks these until one of them leads.
    pub(crate) fn elect(&mut self, ids: &[u64]) -> u64 {
        for _ in 0..20 * ELECTION_TICKS {
            for id in ids {
                self.tick(*id);
            }
            self.run();
            if let Some(id) = ids.iter().find(|id| self.members[*id].node.is_leader()) {
                return *id;
            }
        }
        panic!("nobody leads");
    }

    pub(crate) fn propose(&mut self, id: u64, text: &str) -> bool {
        let data = Bytes::copy_from_slice(text.as_bytes());
        self.at(id).node.propose([data]).unwrap()
    }
}

pub(crate) fn of_type(messages: &[Message], kind: MessageType) -> Vec<Message> {
    messages.iter().filter(|message| message.r#type() == kind).cloned().collect()
}
