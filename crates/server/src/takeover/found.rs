//! What a data directory of etcd's holds, found out without changing a byte.
//!
//! ```text
//! log ──newest valid mark──> members there ──entries up to the database's index──> members, term ──┐
//! database ── index, term, version, members ───────────────────────────────────────── the same? <──┘
//! ```
//! Index, term and members come from the log, as etcd itself has it (3.7.1); the database says only how far it is.
//! Both must tell of one history, or whatever is made of them could be of none.

use std::io;
use std::path::Path;

use etched_bolt::etcd::{self, meta};
use etched_bolt::{Bucket, Database, Source};
use etched_consensus::conf_state_after;
use etched_proto::etcdserverpb::Metadata;
use etched_proto::raftpb::ConfState;
use etched_storage::Applied;
use etched_wal::disk::{Disk, DiskFile};
use etched_wal::{Contents, Entry, EntryKind, SnapshotMark};
use prost::Message as _;

use super::Reason;
use crate::apply::Applier;
use crate::boot::Paths;
use crate::cluster::Member;

/// Minor versions of etcd 3 whose directories are known.
const MINORS: std::ops::RangeInclusive<u64> = 5..=7;

/// A data directory of etcd's that can be taken over.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Version of the schema, `3.7`; 3.5 also for what has none yet. None of a database without anything in it.
    pub version: Option<String>,
    /// Id of the member.
    pub member_id: u64,
    /// Id of its cluster.
    pub cluster_id: u64,
    /// Index that the database stands at.
    pub index: u64,
    /// Term of the entry there.
    pub term: u64,
    /// Entries of the log behind it.
    pub waiting: u64,
    /// Bytes of the database, free pages included.
    pub database_bytes: u64,
    /// Members at that index; None before the first.
    pub(crate) conf_state: Option<ConfState>,
}

impl Found {
    /// Name that the database is kept under, unless another one has it already.
    pub fn kept_name(&self) -> String {
        let version = self.version.as_ref().map(|version| format!("-{version}"));
        format!("db.etcd{}", version.unwrap_or_default())
    }

    pub(crate) const fn applied(&self) -> Applied {
        Applied { index: self.index, term: self.term }
    }
}

/// A file of a disk, as the reader of databases wants it.
#[derive(Debug)]
pub(crate) struct OnDisk<F>(pub(crate) F);

impl<F: DiskFile> Source for OnDisk<F> {
    fn length(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let read = self.0.read_at(offset, buffer)?;
        if read < buffer.len() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// Looks at the log and at what the database says of itself.
///
/// # Errors
/// [`Reason`]: what stands in the way of taking it over.
pub(super) fn examine<D: Disk, S: Source>(
    disk: &D,
    paths: &Paths,
    database: &Database<S>,
) -> Result<Found, Reason> {
    let said = Said::read(database)?;
    if !etched_wal::exists(disk, &paths.wal)? {
        return Err(Reason::NoLog { dir: paths.wal.clone() });
    }
    let mark = newest_mark(disk, &paths.wal, said.index)?;
    let log = etched_wal::read(disk, &paths.wal, &mark)?;
    let (member_id, cluster_id) = ids(&log)?;
    let term = term_at(&said, &mark, &log)?;
    let (before, behind) = log.entries.split_at((said.index - mark.index) as usize);
    let start = mark.conf_state.unwrap_or_default();
    let conf_state = conf_state_after(&start, before)?;
    if said.index > 0 {
        compare(&conf_state, &said.members)?;
        alone(member_id, &conf_state)?;
    }
    alone(member_id, &conf_state_after(&conf_state, behind)?)?;
    check_requests(behind)?;
    Ok(Found {
        version: said.version,
        member_id,
        cluster_id,
        index: said.index,
        term,
        waiting: behind.len() as u64,
        database_bytes: database.size(),
        conf_state: Some(conf_state).filter(|_| said.index > 0),
    })
}

/// What the database says of itself.
struct Said {
    index: u64,
    term: u64,
    version: Option<String>,
    members: ConfState,
}

impl Said {
    fn read<S: Source>(database: &Database<S>) -> Result<Self, Reason> {
        let rows = database.root().bucket(etcd::META.as_bytes())?;
        let rows = rows.ok_or(Reason::NoMeta)?;
        let index = number(&rows, meta::CONSISTENT_INDEX)?;
        let term = number(&rows, meta::TERM)?;
        let version = rows.get(meta::STORAGE_VERSION.as_bytes())?;
        let version = match version.map(|text| String::from_utf8_lossy(&text).into_owned()) {
            Some(version) => Some(known(&version).ok_or(Reason::Version { version })?),
            // A schema without a name is that of 3.5, when it has what 3.5 added.
            None if term > 0 => Some("3.5".to_owned()),
            None if index > 0 => return Err(Reason::TooOld),
            None => None,
        };
        Ok(Self { index, term, version, members: members(database)? })
    }
}

/// Major and minor of a version that is known.
fn known(version: &str) -> Option<String> {
    let mut parts = version.split('.');
    let minor = parts.next().filter(|major| *major == "3").and(parts.next())?;
    MINORS.contains(&minor.parse().ok()?).then(|| format!("3.{minor}"))
}

fn number<S: Source>(rows: &Bucket<'_, S>, name: &'static str) -> Result<u64, Reason> {
    let Some(bytes) = rows.get(name.as_bytes())? else { return Ok(0) };
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| Reason::MetaRow { name })
}

/// Voters and learners by the database's own bucket, ascending.
fn members<S: Source>(database: &Database<S>) -> Result<ConfState, Reason> {
    let mut state = ConfState::default();
    let Some(bucket) = database.root().bucket(etcd::MEMBERS.as_bytes())? else { return Ok(state) };
    let mut rows = bucket.entries()?;
    while let Some(row) = rows.next()? {
        let member: Member = serde_json::from_slice(row.value).map_err(Reason::Member)?;
        let list = if member.is_learner { &mut state.learners } else { &mut state.voters };
        list.push(member.id);
    }
    state.voters.sort_unstable();
    state.learners.sort_unstable();
    Ok(state)
}

/// The mark that etcd would start at.
fn newest_mark<D: Disk>(disk: &D, dir: &Path, database: u64) -> Result<SnapshotMark, Reason> {
    let marks = etched_wal::valid_snapshots(disk, dir)?;
    let mark = marks.into_iter().next_back().ok_or(Reason::NoMark)?;
    if mark.index > database {
        return Err(Reason::Behind { database, mark: mark.index });
    }
    if mark.index > 0 && mark.conf_state.is_none() {
        return Err(Reason::TooOld);
    }
    Ok(mark)
}

/// Ids of the member and of its cluster.
fn ids(log: &Contents) -> Result<(u64, u64), Reason> {
    let metadata = Metadata::decode(log.metadata.clone()).map_err(|_| Reason::Metadata)?;
    Ok((metadata.node_id.unwrap_or_default(), metadata.cluster_id.unwrap_or_default()))
}

/// Term at the database's index, by the log; the database must say the same.
fn term_at(said: &Said, mark: &SnapshotMark, log: &Contents) -> Result<u64, Reason> {
    let Said { index, term: database, .. } = *said;
    let last = mark.index + log.entries.len() as u64;
    let term = match index - mark.index {
        0 => mark.term,
        _ if index > last => return Err(Reason::Ahead { database: index, last }),
        place => log.entries[place as usize - 1].term,
    };
    if index > 0 && term != database {
        return Err(Reason::Term { index, log: term, database });
    }
    Ok(term)
}

/// etcd 3.5 kept members twice, and there are directories where one of them has members that were removed.
fn compare(log: &ConfState, database: &ConfState) -> Result<(), Reason> {
    if log.voters == database.voters && log.learners == database.learners {
        return Ok(());
    }
    Err(Reason::Disagree { log: Ids::of(log), database: Ids::of(database) })
}

fn alone(own: u64, members: &ConfState) -> Result<(), Reason> {
    // Before the first entry there is nobody.
    if members.voters == [own] && members.learners.is_empty() || *members == ConfState::default() {
        return Ok(());
    }
    let ids = Ids::of(members);
    if members.voters.contains(&own) {
        Err(Reason::SeveralMembers { ids })
    } else {
        Err(Reason::NoMember { own, ids })
    }
}

/// What waits in the log must be known here: that it is not must not come out when it is applied.
fn check_requests(entries: &[Entry]) -> Result<(), Reason> {
    let normal = entries.iter().filter(|entry| entry.kind == EntryKind::Normal);
    for entry in normal {
        Applier::decode(entry).map_err(|fatal| Reason::Entry(fatal.to_string()))?;
    }
    Ok(())
}

/// Ids of members for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids(Vec<u64>);

impl Ids {
    fn of(members: &ConfState) -> Self {
        Self(members.voters.iter().chain(&members.learners).copied().collect())
    }
}

impl std::fmt::Display for Ids {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("none");
        }
        let ids: Vec<String> = self.0.iter().map(|id| format!("{id:x}")).collect();
        formatter.write_str(&ids.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_are_known_are_those_of_three_releases() {
        for (version, name) in
            [("3.5.0", Some("3.5")), ("3.7.0", Some("3.7")), ("3.6", Some("3.6"))]
        {
            assert_eq!(known(version).as_deref(), name);
        }
        for version in ["3.4.0", "3.8.0", "4.6.0", "", "3", "3.x"] {
            assert_eq!(known(version), None, "{version}");
        }
    }

    #[test]
    fn members_must_be_the_same_on_both_sides_and_this_one_alone() {
        let state = |voters: &[u64]| ConfState { voters: voters.to_vec(), ..ConfState::default() };
        assert!(compare(&state(&[1]), &state(&[1])).is_ok());
        let error = compare(&state(&[1]), &state(&[1, 0x2f])).expect_err("another member");
        assert!(error.to_string().contains("1, 2f"), "{error}");
        assert!(alone(1, &state(&[1])).is_ok() && alone(1, &state(&[])).is_ok());
        assert!(matches!(alone(1, &state(&[1, 2])), Err(Reason::SeveralMembers { .. })));
        assert!(matches!(alone(3, &state(&[1])), Err(Reason::NoMember { .. })));
    }
}
