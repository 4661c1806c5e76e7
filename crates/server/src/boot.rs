//! From a data directory to a running member: first start, restart, replay.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use etched_bolt::etcd;
use etched_consensus::{ConfChange, ConfChangeKind, Config as RaftConfig, Node, Start, Writer};
use etched_lease::Lessor;
use etched_mvcc::watch::{CatchUp, Hub};
use etched_mvcc::{Attachment, CompactState, Revision, Store};
use etched_proto::etcdserverpb::Metadata;
use etched_proto::raftpb::ConfState;
use etched_storage::{Applied, Boot, Storage, Table};
use etched_wal::disk::Disk;
use etched_wal::{Contents, Entry, EntryKind, HardState, SnapshotMark, Wal};
use parking_lot::{Mutex, RwLock};
use prost::Message;

use crate::StartError;
use crate::apply::Applier;
use crate::auth::{Auth, Tokens};
use crate::cluster::{Cluster, Member};
use crate::config::Config;
use crate::engine::Engine;
use crate::flush::Flusher;
use crate::id::{self, IdGenerator};
use crate::inbox::Inbox;
use crate::lane::Lane;
use crate::membership;
use crate::metrics::{About, Metrics};
use crate::shared::{Progress, Shared};
use crate::versions::{self, Version};
use crate::wakes::WakeLanes;

/// Name of the store's file: etcd's own, so that etcd started here by mistake refuses it instead of beginning
/// an empty store of its own.
const STORE_FILE: &str = "db";

/// A member that is about to run: its parts, each for a thread of its own.
pub(crate) struct Booted<D: Disk> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) engine: Engine<D>,
    /// None once its thread runs.
    pub(crate) flusher: Option<Flusher>,
    pub(crate) catch_up: CatchUp,
}

/// Where things lie below the data directory.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub(crate) member: PathBuf,
    pub(crate) wal: PathBuf,
    pub(crate) store: PathBuf,
}

impl Paths {
    pub(crate) fn of(config: &Config) -> Self {
        Self::below(&config.data_dir, config.wal_dir.clone())
    }

    pub(crate) fn below(data_dir: &Path, wal_dir: Option<PathBuf>) -> Self {
        Self::inside(data_dir.join("member"), wal_dir)
    }

    /// In a folder that stands for `member`.
    pub(crate) fn inside(member: PathBuf, wal_dir: Option<PathBuf>) -> Self {
        let wal = wal_dir.unwrap_or_else(|| member.join("wal"));
        let store = member.join("snap").join(STORE_FILE);
        Self { member, wal, store }
    }
}

/// Opens or makes the data directory's contents and puts the member together.
///
/// # Errors
/// [`StartError`]: one line that says what stands in the way.
pub(crate) fn boot<D: Disk>(
    config: Config,
    disk: D,
    storage: (Storage, Boot),
    tokens: Tokens,
    lanes: usize,
) -> Result<Booted<D>, StartError> {
    let paths = Paths::of(&config);
    let (storage, found) = storage;
    let storage = Arc::new(storage);
    // Both read everything they have, and neither needs the other.
    let (log, opened) = std::thread::scope(|scope| {
        let opened = scope.spawn(|| Opened::read(&config, &storage));
        let log = open_log(&config, disk, &paths, &found);
        (log, opened.join().expect("a damaged file is an error, not a panic"))
    });
    // The log's error first: it says more of what happened to the folder.
    let log = log?;
    let Opened { store, attachments, unswept, cluster, version, mut lessor, mut users } = opened?;
    refuse_others(&log, cluster.clone())?;
    let first_rows = users.begin();
    for attachment in attachments {
        // A record may name a lease that is gone: then it hangs on none.
        let _ = lessor.attach(&attachment.key, attachment.lease);
    }
    let reader = store.reader();
    let (hub, catch_up) = Hub::new(reader.current_revision(), reader.compact_revision());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let shared = Arc::new(Shared {
        member_id: log.member_id,
        cluster_id: log.cluster_id,
        reader,
        hub: Arc::new(hub),
        lessor: Mutex::new(lessor),
        auth: Auth::new(tokens, &config.auth, users),
        cluster: RwLock::new(cluster),
        storage,
        flush: crate::flush::FlushQueue::new(config.commit_bytes),
        large: crate::api::LargeAnswers::default(),
        serving: tokio::sync::watch::Sender::new(true),
        snapshots: Arc::new(tokio::sync::Semaphore::new(crate::api::SNAPSHOTS_MAX)),
        places: crate::api::Places::default(),
        inbox: Inbox::new(),
        lanes: (0..lanes).map(|_| Arc::new(Lane::new())).collect(),
        wakes: WakeLanes::new(lanes),
        progress: Progress::default(),
        metrics: Metrics::new(&About {
            member_id: log.member_id,
            server_version: crate::ETCD_VERSION,
            features: &config.features,
            extensive: config.extensive_metrics,
        }),
        ids: IdGenerator::new(log.member_id, now.as_millis() as u64),
        threads: crate::background::Threads::default(),
        revoked: tokio::sync::Notify::new(),
        started: Instant::now(),
        config,
    });
    if let Some(version) = version {
        shared.metrics.cluster_version(None, &version.short());
    }
    let raft_config = RaftConfig {
        id: shared.member_id,
        election_ticks: shared.config.election_ticks() as usize,
        pre_vote: shared.config.pre_vote,
        catch_up_entries: etched_consensus::CATCH_UP_ENTRIES,
        boot: now.as_nanos() as u64,
        seed: None,
    };
    let live_bytes = shared.storage.sizes()?.live_bytes;
    shared.progress.file_live_bytes.store(live_bytes, Ordering::Relaxed);
    let conf_state = log.start.conf_state.clone();
    let writer = Writer::new(log.wal, log.start.hard_state);
    let node = Node::new(&raft_config, log.start)?;
    let applier = Applier::new(store, Arc::clone(&shared), unswept, first_rows);
    let engine = Engine::new(node, writer, applier, Arc::clone(&shared), found.applied);
    let flusher = Flusher::new(Arc::clone(&shared), found.applied, Some(conf_state));
    Ok(Booted { shared, engine, flusher: Some(flusher), catch_up })
}

/// The cluster's version, if it has one that this server can be part of.
fn check_version(cluster: &Cluster) -> Result<Option<Version>, StartError> {
    if let Some(target) = &cluster.downgrade {
        tracing::info!(
            "target-cluster-version" = target,
            "current-server-version" = crate::ETCD_VERSION,
            "cluster is downgrading to target version"
        );
    }
    let version = Version::parse(&cluster.version);
    version.map_or(Ok(()), versions::part_of)?;
    Ok(version)
}

struct OpenLog<D: Disk> {
    wal: Wal<D>,
    start: Start,
    member_id: u64,
    cluster_id: u64,
}

fn open_log<D: Disk>(
    config: &Config,
    disk: D,
    paths: &Paths,
    found: &Boot,
) -> Result<OpenLog<D>, StartError> {
    if etched_wal::exists(&disk, &paths.wal)? {
        return reopen_log(config, disk, &paths.wal, found);
    }
    if !found.created && found.applied != Applied::default() {
        return Err(StartError::LogMissing { dir: paths.wal.clone() });
    }
    bootstrap_log(config, disk, &paths.wal)
}

/// First start: the log begins with the entry that makes this server the only member.
fn bootstrap_log<D: Disk>(config: &Config, disk: D, dir: &Path) -> Result<OpenLog<D>, StartError> {
    let member_id = id::member_id(&config.advertise_peer_urls, &config.initial_cluster_token);
    let cluster_id = id::cluster_id(&[member_id]);
    tracing::info!(
        name = config.name,
        "data-dir" = %config.data_dir.display(),
        "local-member-id" = %format!("{member_id:x}"),
        "cluster-id" = %format!("{cluster_id:x}"),
        "starting local member"
    );
    let metadata = Metadata { node_id: Some(member_id), cluster_id: Some(cluster_id) };
    let mut wal = Wal::create(disk, dir, &metadata.encode_to_vec(), &wal_options(config))?;
    let (hard_state, entries) = save_first_entry(config, &mut wal, member_id)?;
    let start = Start {
        hard_state,
        mark: (0, 0),
        entries,
        conf_state: ConfState { voters: vec![member_id], ..ConfState::default() },
        applied: 0,
    };
    Ok(OpenLog { wal, start, member_id, cluster_id })
}

/// The entry that adds this member, on disk.
fn save_first_entry<D: Disk>(
    config: &Config,
    wal: &mut Wal<D>,
    member_id: u64,
) -> Result<(HardState, Vec<Entry>), StartError> {
    let member = Member {
        id: member_id,
        name: config.name.clone(),
        peer_urls: config.advertise_peer_urls.clone(),
        ..Member::default()
    };
    let change = ConfChange {
        id: 0,
        kind: ConfChangeKind::AddNode,
        node_id: member_id,
        context: member.json(),
    };
    let entry = Entry { term: 1, index: 1, kind: EntryKind::ConfChange, data: change.encode() };
    let hard_state = HardState { term: 1, vote: 0, commit: 1 };
    let entries = vec![entry];
    wal.save(Some(&hard_state), &entries, true)?;
    Ok((hard_state, entries))
}

/// Restart: the log from the newest mark that the store's checkpoint covers.
fn reopen_log<D: Disk>(
    config: &Config,
    disk: D,
    dir: &Path,
    found: &Boot,
) -> Result<OpenLog<D>, StartError> {
    let marks = etched_wal::valid_snapshots(&disk, dir)?;
    let mark = marks
        .into_iter()
        .filter(|mark| mark.index <= found.applied.index)
        .max_by_key(|mark| mark.index)
        .ok_or_else(|| StartError::StoreBehindLog {
            dir: dir.to_path_buf(),
            applied: found.applied.index,
        })?;
    let (mut wal, mut contents) = open_wal(config, disk, dir, &mark)?;
    let metadata = Metadata::decode(contents.metadata.clone())
        .map_err(|error| StartError::BadMetadata { dir: dir.to_path_buf(), reason: error })?;
    let (member_id, cluster_id) =
        (metadata.node_id.unwrap_or_default(), metadata.cluster_id.unwrap_or_default());
    tracing::info!(
        "cluster-id" = %format!("{cluster_id:x}"),
        "local-member-id" = %format!("{member_id:x}"),
        "commit-index" = contents.hard_state.commit,
        "restarting local member"
    );
    let nothing_yet = contents.entries.is_empty() && contents.hard_state == HardState::default();
    if nothing_yet && mark.index == 0 && found.applied == Applied::default() {
        // The first start ended between making the log and its first entry.
        (contents.hard_state, contents.entries) = save_first_entry(config, &mut wal, member_id)?;
    }
    let conf_state = match &found.conf_state {
        Some(conf_state) => conf_state.clone(),
        // Nothing is in the store yet: the member is the one of the log's first entry.
        None => ConfState { voters: vec![member_id], ..ConfState::default() },
    };
    let start = Start {
        hard_state: contents.hard_state,
        mark: (mark.index, mark.term),
        entries: contents.entries,
        conf_state,
        applied: found.applied.index,
    };
    Ok(OpenLog { wal, start, member_id, cluster_id })
}

/// Without peers a member of a cluster would wait for its leader for ever.
fn refuse_others<D: Disk>(log: &OpenLog<D>, mut cluster: Cluster) -> Result<(), StartError> {
    let Start { entries, applied, .. } = &log.start;
    membership::follow(&mut cluster, entries.iter().filter(|entry| entry.index > *applied))?;
    let others = cluster.members.keys().filter(|id| **id != log.member_id);
    let others: Vec<String> = others.map(|id| format!("{id:x}")).collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(StartError::SeveralMembers { others: others.join(", ") })
}

/// Another server may hold the log: that is said at once, and then waited for, as etcd does.
fn open_wal<D: Disk>(
    config: &Config,
    disk: D,
    dir: &Path,
    mark: &SnapshotMark,
) -> Result<(Wal<D>, Contents), StartError> {
    let options = wal_options(config);
    let opened = match Wal::open(disk.clone(), dir, mark, &options) {
        Err(etched_wal::Error::Locked { path }) => {
            tracing::warn!(
                path = %path.display(),
                "the data directory is in use by another server; waiting for it to end"
            );
            Wal::open(disk, dir, mark, &etched_wal::Options { wait_for_lock: true, ..options })
        }
        other => other,
    };
    let (wal, contents) = opened?;
    if let Some(repair) = &contents.repair {
        tracing::warn!(
            path = %repair.path.display(),
            "kept-as" = %repair.broken.display(),
            offset = repair.offset,
            "the last write to the log was cut short by a crash; repaired"
        );
    }
    Ok((wal, contents))
}

fn wal_options(config: &Config) -> etched_wal::Options {
    etched_wal::Options {
        segment_bytes: config.log_segment_bytes,
        sync: !config.unsafe_no_fsync,
        wait_for_lock: false,
        beside: true,
    }
}

/// Everything that a store's file holds, as a start reads it.
pub(crate) struct Opened {
    store: Store,
    attachments: Vec<Attachment>,
    /// The floor whose compaction did not finish.
    unswept: Option<i64>,
    cluster: Cluster,
    /// The cluster's, when it has one.
    version: Option<Version>,
    lessor: Lessor,
    users: etched_auth::Store,
}

impl Opened {
    /// Reads all of it.
    ///
    /// # Errors
    /// [`StartError`]: what no member starts from.
    pub(crate) fn read(config: &Config, storage: &Arc<Storage>) -> Result<Self, StartError> {
        let rows = |table| storage.rows(table);
        let compact = compact_state(storage)?;
        let unswept = compact.scheduled.filter(|floor| Some(*floor) != compact.finished);
        let (store, attachments) = Store::open(Arc::clone(storage) as _, compact)?;
        let cluster = Cluster::restore(|table| rows(table).map_err(StartError::from))?;
        let users = Auth::restore_store(rows)?;
        let version = check_version(&cluster)?;
        let lessor = restore_lessor(config, storage)?;
        Ok(Self { store, attachments, unswept, cluster, version, lessor, users })
    }

    /// Revision of the last write.
    pub(crate) fn current_revision(&self) -> i64 {
        self.store.current_revision()
    }
}

fn restore_lessor(config: &Config, storage: &Storage) -> Result<Lessor, StartError> {
    let options = etched_lease::Options {
        min_ttl: etched_lease::min_ttl(config.heartbeat_interval, config.election_timeout),
        checkpoints: false,
    };
    Ok(Lessor::restore(options, storage.rows(Table::Lease)?)?)
}

pub(crate) fn compact_state(storage: &Storage) -> Result<CompactState, StartError> {
    compact_rows(&storage.rows(Table::Meta)?)
}

/// What the rows of the table `meta` say of compactions.
///
/// # Errors
/// [`StartError::BadMetaRow`].
pub(crate) fn compact_rows(rows: &[(Bytes, Bytes)]) -> Result<CompactState, StartError> {
    let mut state = CompactState::default();
    for (key, value) in rows {
        let revision = || revision_of(key, value);
        match key.as_ref() {
            b"scheduledCompactRev" => state.scheduled = Some(revision()?),
            b"finishedCompactRev" => state.finished = Some(revision()?),
            _ => {}
        }
    }
    Ok(state)
}

/// As etcd writes it: a revision with place 0.
fn revision_of(key: &Bytes, value: &Bytes) -> Result<i64, StartError> {
    let revision = etcd::Revision::read(value);
    let allowed = 0..=Revision::MAIN_MAX;
    let revision = revision.filter(|at| allowed.contains(&at.main) && at.sub == 0 && !at.tombstone);
    revision
        .map(|at| at.main)
        .ok_or_else(|| StartError::BadMetaRow { key: String::from_utf8_lossy(key).into_owned() })
}
