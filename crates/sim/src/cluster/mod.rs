//! Clusters in one thread: real members over fake disks, a fake network and a fake clock.
//!
//! ```text
//! seed ──> faults, clients ──> Host (Node, Writer, SimDisk, Store) ──messages──> Network ──> Host
//!                                └──> Checks: one leader a term, equal state at equal index, no stale read
//! ```
//! A run is a sequence of steps of [`STEP`](host::STEP). In each, messages arrive, disks write, clients ask and something may break:
//! members crash between any two operations of their disk, sleep and wake up, disks hang, the network parts in every
//! shape, members come and go. Then all is mended, and the cluster must get on: it elects, it writes, and all members
//! come to the same state. One seed gives one run.
//!
//! What is lost: a write that was acknowledged and is missing shows as another state at its index, or as a state that
//! never comes that far. A read is stale when its index is below what an earlier answer had shown.

mod checks;
mod host;
mod network;
mod store;

use std::time::Duration;

use etched_consensus::{ConfChange, ConfChangeKind};

pub use checks::Outcome;
use host::{Host, TICK_STEPS, World};
use network::{Network, Weather};
use store::Write;

use crate::Rng;

/// Steps with faults.
const ROUGH_STEPS: u64 = 900;
/// Steps that a mended cluster may take until all is well.
const CALM_STEPS: u64 = 1500;
/// Most voters and learners.
const MEMBERS_MAX: usize = 7;

/// A cluster and what is done to it.
#[derive(Debug)]
pub struct Cluster {
    hosts: Vec<Host>,
    world: World,
    founders: Vec<u64>,
    next_id: u64,
    writes: u64,
    rough: Rough,
}

/// Chances of things, in 1,000 a step.
#[derive(Debug, Clone, Copy)]
struct Rough {
    write: u64,
    read: u64,
    crash: u64,
    sleep: u64,
    stall: u64,
    part: u64,
    member: u64,
    transfer: u64,
    checkpoint: u64,
}

impl Rough {
    fn draw(rng: &mut Rng) -> Self {
        let mut upto = |most: u64| if rng.chance(30) { 0 } else { rng.below(most + 1) };
        Self {
            write: 50 + upto(400),
            read: 50 + upto(200),
            crash: upto(12),
            sleep: upto(10),
            stall: upto(4),
            part: upto(12),
            member: upto(15),
            transfer: upto(10),
            checkpoint: 5 + upto(40),
        }
    }
}

/// Runs the cluster of `seed` through its faults and until it is well again.
///
/// # Panics
/// If anything does not hold that must.
pub fn run(seed: u64) -> Outcome {
    let named = Named(seed);
    let mut cluster = Cluster::new(seed);
    cluster.rough();
    cluster.calm();
    drop(named);
    cluster.world.checks.outcome
}

/// Says which seed it was.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the cluster of ETCHED_SEED={} failed; that seed alone replays it", self.0);
        }
    }
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let size = [1, 2, 3, 3, 3, 3, 4, 5][rng.below(8) as usize];
        let founders: Vec<u64> = (1..=size).collect();
        let weather = Weather {
            loss: [0, 1, 5, 20][rng.below(4) as usize],
            twice: [0, 5, 20][rng.below(3) as usize],
            delay: [1, 3, 10][rng.below(3) as usize],
            late: [0, 5, 20][rng.below(3) as usize],
        };
        let network = Network::new(weather);
        let rough = Rough::draw(&mut rng);
        let disk_delay = [0, 2, 8, 30][rng.below(4) as usize];
        let checks = checks::Checks::default();
        let catch_up_entries = [0, 10, 50, 5000][rng.below(4) as usize];
        let mut world = World { seed, rng, network, checks, step: 0, disk_delay, catch_up_entries };
        let mut hosts: Vec<Host> = founders.iter().map(|id| Host::new(*id, &founders)).collect();
        hosts.iter_mut().for_each(|host| host.start(&mut world));
        Self { hosts, world, next_id: size + 1, founders, writes: 0, rough }
    }

    fn rough(&mut self) {
        for _ in 0..ROUGH_STEPS {
            self.something_breaks();
            self.clients();
            self.step();
        }
    }

    /// All that is broken is mended, and the cluster must get on.
    fn calm(&mut self) {
        self.world.network.heal();
        self.world.network.weather = Weather { delay: 1, ..Weather::default() };
        self.world.disk_delay = 1;
        for host in &mut self.hosts {
            host.sleeps_until = 0;
            host.disk_stalls_until = 0;
        }
        let until = self.world.step + CALM_STEPS;
        while !self.is_well() {
            let hosts = || self.hosts.iter().map(Host::summary).collect::<Vec<_>>();
            assert!(self.world.step < until, "the mended cluster does not get on: {:#?}", hosts());
            for host in &mut self.hosts {
                if host.up.is_none() && !host.is_removed {
                    host.start(&mut self.world);
                }
            }
            if self.world.step.is_multiple_of(20) {
                self.write();
                self.read();
            }
            self.step();
        }
    }

    /// Whether all members stand where the last one stands, and what was seen is there.
    fn is_well(&self) -> bool {
        let leader = self.hosts.iter().filter_map(|host| host.up.as_ref());
        let Some(leader) = leader.filter(|up| up.node.is_leader()).max_by_key(|up| up.node.term())
        else {
            return false;
        };
        let state = &leader.store;
        let members = self.hosts.iter().filter(|host| state.is_member(host.id));
        let mut stands = members.map(|host| host.up.as_ref().map_or(0, |up| up.store.index));
        state.index >= self.world.checks.seen
            && leader.node.committed_in_term()
            && leader.node.last_index() == state.index
            && stands.all(|index| index == state.index)
    }

    fn step(&mut self) {
        self.world.step += 1;
        let step = self.world.step;
        for letter in self.world.network.arrived(step) {
            let Some(host) = self.hosts.iter_mut().find(|host| host.id == letter.message.to())
            else {
                continue;
            };
            if host.up.is_some() && host.sleeps_until > step {
                self.world.network.put_off(letter, host.sleeps_until);
            } else {
                host.receive(letter, &mut self.world);
            }
        }
        for host in &mut self.hosts {
            if !host.is_awake(step) {
                continue;
            }
            if (step + host.id).is_multiple_of(TICK_STEPS) {
                host.tick(step);
            }
            host.work(&mut self.world);
        }
    }

    fn chance(&mut self, in_1000: u64) -> bool {
        self.world.rng.below(1000) < in_1000
    }

    fn any_host(&mut self) -> usize {
        self.world.rng.below(self.hosts.len() as u64) as usize
    }

    fn something_breaks(&mut self) {
        let (rough, step) = (self.rough, self.world.step);
        if self.chance(rough.crash) {
            let at = self.any_host();
            if self.hosts[at].up.is_some() {
                if self.world.rng.chance(50) {
                    self.hosts[at].crash(&mut self.world);
                } else {
                    self.hosts[at].crash_soon(&mut self.world.rng);
                }
            }
        }
        if self.chance(30) {
            let at = self.any_host();
            let host = &mut self.hosts[at];
            if host.up.is_none() && !host.is_removed {
                if self.world.rng.chance(10) {
                    host.crash_soon(&mut self.world.rng);
                }
                host.start(&mut self.world);
            }
        }
        if self.chance(rough.sleep) {
            let at = self.any_host();
            self.hosts[at].sleeps_until = step + self.world.rng.below(150);
        }
        if self.chance(rough.stall) {
            let at = self.any_host();
            self.hosts[at].disk_stalls_until = step + 20 + self.world.rng.below(400);
        }
        if self.chance(rough.part) {
            let ids: Vec<u64> = self.hosts.iter().map(|host| host.id).collect();
            if self.world.rng.chance(50) {
                self.world.network.heal();
            } else {
                self.world.network.part(&ids, &mut self.world.rng);
            }
        }
        if self.chance(rough.checkpoint) {
            let at = self.any_host();
            self.hosts[at].checkpoint(step);
        }
    }

    fn clients(&mut self) {
        let rough = self.rough;
        if self.chance(rough.write) {
            self.write();
        }
        if self.chance(rough.read) {
            self.read();
        }
        if self.chance(rough.member) {
            self.change_member();
        }
        if self.chance(rough.transfer) {
            let (at, to) = (self.any_host(), self.any_host());
            let to = self.hosts[to].id;
            if self.hosts[at].is_awake(self.world.step)
                && let Some(up) = &mut self.hosts[at].up
            {
                up.node.transfer_leader(to);
            }
        }
    }

    /// A few writes in one batch, at any member.
    fn write(&mut self) {
        let (at, count) = (self.any_host(), 1 + self.world.rng.below(4));
        let key = self.world.rng.below(16) as u8;
        let ids = self.writes + 1..=self.writes + count;
        self.writes += count;
        let host = &mut self.hosts[at];
        if !host.is_awake(self.world.step) {
            return;
        }
        let Some(up) = &mut host.up else { return };
        let batch = ids.clone().map(|id| Write { id, key }.encode());
        if up.node.propose(batch).expect("raft takes it or not") {
            up.writes.extend(ids.map(|id| (id, ())));
        }
    }

    fn read(&mut self) {
        let at = self.any_host();
        let host = &mut self.hosts[at];
        if !host.is_awake(self.world.step) {
            return;
        }
        let Some(up) = &mut host.up else { return };
        if let Some(id) = up.node.read_index() {
            up.reads.insert(id, self.world.checks.seen);
        }
    }

    /// Any change, sensible or not, proposed at any member.
    fn change_member(&mut self) {
        let (at, about) = (self.any_host(), self.any_host());
        let kind = match self.world.rng.below(6) {
            0 | 1 => ConfChangeKind::AddLearnerNode,
            2 | 3 => ConfChangeKind::AddNode,
            4 => ConfChangeKind::RemoveNode,
            _ => ConfChangeKind::UpdateNode,
        };
        let adds = matches!(kind, ConfChangeKind::AddNode | ConfChangeKind::AddLearnerNode);
        let members = self.hosts.iter().filter(|host| !host.is_removed).count();
        let is_new = adds && members < MEMBERS_MAX && self.world.rng.chance(60);
        let node_id = if is_new { self.next_id } else { self.hosts[about].id };
        let change = ConfChange { id: 0, kind, node_id, context: bytes::Bytes::from_static(b"{}") };
        let host = &mut self.hosts[at];
        let Some(up) = host.up.as_mut().filter(|_| host.sleeps_until <= self.world.step) else {
            return;
        };
        if up.node.propose_conf_change(&change).expect("raft takes it or not") && is_new {
            // It waits to hear from the cluster, whatever becomes of the change.
            self.next_id += 1;
            let mut joining = Host::new(node_id, &self.founders);
            joining.start(&mut self.world);
            self.hosts.push(joining);
        }
    }
}

/// The time that a run stands for, faults only.
pub const RUN_TIME: Duration = Duration::from_millis(ROUGH_STEPS * 20);
