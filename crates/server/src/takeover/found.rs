//! What a data directory of etcd's holds, found out without changing a byte.
//!
//! ```text
//! database ── index, members there, versions ──> and behind all entries of the log that wait ──> this one there?
//! log ──newest valid mark──> entries up to that index ──> term ──> the database's?
//!                                               └───────> members ──> the database's?
//! ```
//! The database says how far it is and who the members are there, as for etcd 3.7.1 itself; the log says the term and
//! what comes behind. Both must tell of one history, or whatever is made of them could be of none. Only etcd 3.5 goes by
//! the members that the log tells of, so only there two answers are a reason to refuse.

use std::io;
use std::path::Path;

use bytes::Bytes;
use etched_bolt::etcd::{self, meta};
use etched_bolt::{Bucket, Database, Source};
use etched_proto::etcdserverpb::Metadata;
use etched_proto::raftpb::ConfState;
use etched_storage::{Applied, Table};
use etched_wal::disk::{Disk, DiskFile};
use etched_wal::{Contents, Entry, EntryKind, SnapshotMark};
use prost::Message as _;

use super::{Reason, check_rows};
use crate::apply::Applier;
use crate::boot::Paths;
use crate::cluster::{Cluster, Member};
use crate::membership;
use crate::request::{Decoded, Request};
use crate::versions::{self, Version};

/// Minor versions of etcd 3 whose directories are known.
const MINORS: std::ops::RangeInclusive<u64> = 5..=7;

/// What etcd takes for `--max-learners` where nothing is said; a directory does not tell.
const LEARNERS_MAX: usize = 1;

/// The version that keeps members twice.
const OLD: &str = "3.5";

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
    check_rows(|table| table_rows(database, table))?;
    if !etched_wal::exists(disk, &paths.wal)? {
        return Err(Reason::NoLog { dir: paths.wal.clone() });
    }
    let mark = newest_mark(disk, &paths.wal, said.index)?;
    let log = etched_wal::read(disk, &paths.wal, &mark, said.index)?;
    let (member_id, cluster_id) = ids(&log)?;
    let term = term_at(&said, &mark, &log)?;
    check_commit(&mark, &log)?;
    let (before, behind) = log.entries.split_at((said.index - mark.index) as usize);
    let at_index = Ids::of(&said.cluster);
    compare(&said, &Ids::of(&members_by_log(&mark, before, &said.cluster)?))?;
    if said.index > 0 {
        is_member(member_id, &at_index)?;
    }
    let mut cluster = said.cluster;
    membership::follow(&mut cluster, behind, LEARNERS_MAX)?;
    if said.index > 0 || !behind.is_empty() {
        is_member(member_id, &Ids::of(&cluster))?;
    }
    check_requests(behind)?;
    Ok(Found {
        version: said.version,
        member_id,
        cluster_id,
        index: said.index,
        term,
        waiting: behind.len() as u64,
        database_bytes: database.size(),
        conf_state: (said.index > 0).then(|| at_index.conf_state()),
    })
}

/// What the database says of itself.
struct Said {
    index: u64,
    term: u64,
    version: Option<String>,
    cluster: Cluster,
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
            None if term > 0 => Some(OLD.to_owned()),
            None if index > 0 => return Err(Reason::TooOld),
            None => None,
        };
        let cluster = Cluster::restore(|table| table_rows(database, table))?;
        Version::parse(&cluster.version)
            .map_or(Ok(()), versions::part_of)
            .map_err(|error| Reason::Rows(error.to_string()))?;
        Ok(Self { index, term, version, cluster })
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

/// Keys and values of the bucket that a table has its rows from; none without that bucket.
fn table_rows<S: Source>(
    database: &Database<S>,
    table: Table,
) -> Result<Vec<(Bytes, Bytes)>, Reason> {
    let mut found = Vec::new();
    let Some(bucket) = database.root().bucket(table.name().as_bytes())? else { return Ok(found) };
    let mut rows = bucket.entries()?;
    while let Some(row) = rows.next()? {
        found.push((Bytes::copy_from_slice(row.key), Bytes::copy_from_slice(row.value)));
    }
    Ok(found)
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

/// etcd refuses to start on a log that ends before what it calls committed.
fn check_commit(mark: &SnapshotMark, log: &Contents) -> Result<(), Reason> {
    let (commit, last) = (log.hard_state.commit, mark.index + log.entries.len() as u64);
    if commit > last { Err(Reason::Commit { commit, last }) } else { Ok(()) }
}

/// The members behind `entries`, which follow the mark, as the log alone tells of them.
///
/// URLs decide too which changes count, and a mark has none: `known` has those there are.
fn members_by_log(
    mark: &SnapshotMark,
    entries: &[Entry],
    known: &Cluster,
) -> Result<Cluster, Reason> {
    let state = mark.conf_state.clone().unwrap_or_default();
    let mut cluster = Cluster::default();
    for (ids, is_learner) in [(state.voters, false), (state.learners, true)] {
        cluster.members.extend(ids.into_iter().map(|id| {
            let peer_urls = known.members.get(&id).map(|member| member.peer_urls.clone());
            let peer_urls = peer_urls.unwrap_or_default();
            (id, Member { id, peer_urls, is_learner, ..Member::default() })
        }));
    }
    membership::follow(&mut cluster, entries, LEARNERS_MAX)?;
    Ok(cluster)
}

/// etcd 3.5 keeps members twice, and there are directories where one of both has members that were removed. Later ones
/// go by the database.
fn compare(said: &Said, log: &Ids) -> Result<(), Reason> {
    let database = Ids::of(&said.cluster);
    if *log == database {
        return Ok(());
    }
    if said.version.as_deref() == Some(OLD) {
        return Err(Reason::Disagree { log: log.clone(), database });
    }
    tracing::warn!(
        %log,
        %database,
        "members by the write-ahead log are not those of the database, which count"
    );
    Ok(())
}

fn is_member(own: u64, ids: &Ids) -> Result<(), Reason> {
    if ids.0.iter().any(|(id, _)| *id == own) {
        return Ok(());
    }
    Err(Reason::NoMember { own, ids: ids.clone() })
}

/// What waits in the log must be known here: that it is not must not come out when it is applied.
fn check_requests(entries: &[Entry]) -> Result<(), Reason> {
    let normal = entries.iter().filter(|entry| entry.kind == EntryKind::Normal);
    for entry in normal {
        let version = Applier::with_decoded(entry, |decoded| match decoded {
            Some(Decoded { request: Some(Request::ClusterVersionSet(set)), .. }) => {
                Ok(Some(set.ver))
            }
            _ => Ok(None),
        });
        if let Some(version) = version.map_err(|fatal| Reason::Entry(fatal.to_string()))? {
            let index = entry.index;
            versions::accept(&version)
                .map_err(|reason| Reason::Entry(format!("entry {index} of the log: {reason}")))?;
        }
    }
    Ok(())
}

/// Members for a message: their ids, and whether they learn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids(Vec<(u64, bool)>);

impl Ids {
    fn of(cluster: &Cluster) -> Self {
        Self(cluster.members.values().map(|member| (member.id, member.is_learner)).collect())
    }

    fn conf_state(&self) -> ConfState {
        let these = |learn| {
            let these = self.0.iter().filter(move |(_, learns)| *learns == learn);
            these.map(|(id, _)| *id).collect()
        };
        ConfState { voters: these(false), learners: these(true), ..ConfState::default() }
    }
}

impl std::fmt::Display for Ids {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("none");
        }
        let ids = self.0.iter().map(|(id, learns)| {
            let what = if *learns { " (learner)" } else { "" };
            format!("{id:x}{what}")
        });
        formatter.write_str(&ids.collect::<Vec<_>>().join(", "))
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

    fn said(version: &str, members: &[(u64, bool)]) -> Said {
        let mut cluster = Cluster::default();
        for (id, is_learner) in members.iter().copied() {
            cluster.members.insert(id, Member { id, is_learner, ..Member::default() });
        }
        Said { index: 9, term: 2, version: Some(version.to_owned()), cluster }
    }

    #[test]
    fn two_answers_who_the_members_are_matter_only_to_etcd_3_5() {
        let (one, more) = (Ids(vec![(1, false)]), Ids(vec![(1, false), (0x2f, true)]));
        assert!(compare(&said("3.5", &one.0), &one).is_ok());
        let error = compare(&said("3.5", &more.0), &one).expect_err("another member");
        assert!(error.to_string().contains("1, 2f (learner)"), "{error}");
        let voter = compare(&said("3.5", &[(1, false), (0x2f, false)]), &more);
        assert!(matches!(voter, Err(Reason::Disagree { .. })), "not promoted in one of both");
        for version in ["3.6", "3.7"] {
            assert!(compare(&said(version, &more.0), &one).is_ok());
        }
    }

    #[test]
    fn a_member_must_be_one_of_its_cluster() {
        let is_member = |members: &[(u64, bool)]| is_member(1, &Ids(members.to_vec()));
        for one in [&[(1, false)][..], &[(1, true), (2, false)]] {
            assert!(is_member(one).is_ok(), "{one:?}");
        }
        for none in [&[(3, false)][..], &[]] {
            assert!(matches!(is_member(none), Err(Reason::NoMember { .. })), "{none:?}");
        }
    }

    #[test]
    fn members_are_counted_from_the_mark_on_without_the_changes_that_were_refused() {
        use etched_consensus::{ConfChange, ConfChangeKind};
        let conf_state = ConfState { voters: vec![1], learners: vec![2], ..ConfState::default() };
        let mark = SnapshotMark { index: 5, term: 1, conf_state: Some(conf_state) };
        let mut known = said("3.5", &[(1, false)]).cluster;
        let own = known.members.get_mut(&1).expect("it is there");
        own.peer_urls = vec!["http://1".to_owned()];
        let entry = |index, kind, node_id, context: &'static str| {
            let context = Bytes::from_static(context.as_bytes());
            let change = ConfChange { id: 0, kind, node_id, context };
            Entry { term: 1, index, kind: EntryKind::ConfChange, data: change.encode() }
        };
        let entries = [
            entry(6, ConfChangeKind::AddNode, 3, r#"{"id":3,"peerURLs":["http://1"]}"#),
            entry(7, ConfChangeKind::RemoveNode, 4, ""),
            entry(8, ConfChangeKind::RemoveNode, 2, ""),
        ];
        let behind = |count| {
            let cluster = members_by_log(&mark, &entries[..count], &known).expect("it reads");
            Ids::of(&cluster).0
        };
        assert_eq!(behind(2), [(1, false), (2, true)]);
        assert_eq!(behind(3), [(1, false)]);
    }
}
