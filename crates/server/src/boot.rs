//! From a data directory to a running member: first start, restart, replay.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use etched_bolt::etcd;
use etched_consensus::{
    ConfChange, ConfChangeKind, Config as RaftConfig, Node, Start, Writer, force_new_cluster,
};
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
use crate::ask::Dial;
use crate::auth::{Auth, Tokens};
use crate::beginning::Beginning;
use crate::cluster::{Cluster, Member};
use crate::config::Config;
use crate::engine::Engine;
use crate::flush::Flusher;
use crate::id::IdGenerator;
use crate::inbox::Inbox;
use crate::lane::Lane;
use crate::membership;
use crate::metrics::{About, Metrics};
use crate::peers::Incoming;
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

/// Opens or makes the data directory's contents and puts the member together; `begins` is what a first start writes.
///
/// # Errors
/// [`StartError`]: one line that says what stands in the way.
pub(crate) fn boot<D: Disk>(
    config: Config,
    begins: Option<&Beginning>,
    dial: Dial,
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
        let log = open_log(&config, begins, disk, &paths, &found);
        (log, opened.join().expect("a damaged file is an error, not a panic"))
    });
    // The log's error first: it says more of what happened to the folder.
    let mut log = log?;
    let Opened { store, attachments, unswept, cluster, version, mut lessor, mut users } = opened?;
    if config.force_new_cluster {
        log.force_new(&config, cluster.clone())?;
    }
    refuse_removed(&log, &cluster)?;
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
        dial,
        transport: OnceLock::new(),
        incoming: Incoming::default(),
        published: tokio::sync::watch::Sender::new(false),
        removed: tokio::sync::watch::Sender::new(false),
        anew: tokio::sync::watch::Sender::new(false),
        leaderless: tokio::sync::watch::Sender::new(false),
        leads: tokio::sync::Notify::new(),
        revoked: tokio::sync::Notify::new(),
        started: Instant::now(),
        config,
    });
    shared.note_members();
    if let Some(version) = version {
        shared.metrics.cluster_version(None, &version.short());
    }
    let raft_config = RaftConfig {
        id: shared.member_id,
        election_ticks: shared.config.election_ticks() as usize,
        pre_vote: shared.config.pre_vote,
        boot: now.as_nanos() as u64,
        catch_up_entries: shared.config.snapshot_catch_up_entries,
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

impl<D: Disk> OpenLog<D> {
    /// Makes this member the only one: what is not committed goes, and what takes the others out comes behind the rest
    /// as if it had been agreed on. `cluster` is the store's.
    ///
    /// Whoever asks for it has lost the others for good; should one live on, there are two clusters.
    fn force_new(&mut self, config: &Config, mut cluster: Cluster) -> Result<(), StartError> {
        let Start { hard_state, entries, applied, .. } = &mut self.start;
        let commit = hard_state.commit.max(*applied);
        entries.retain(|entry| entry.index <= commit);
        let behind = entries.iter().filter(|entry| entry.index > *applied);
        membership::follow(&mut cluster, behind, config.max_learners)?;
        let (id, peer_urls) = (self.member_id, config.advertise_peer_urls.clone());
        let context = Member { id, peer_urls, ..Member::default() }.json();
        let members: Vec<u64> = cluster.members.into_keys().collect();
        hard_state.commit = commit;
        let (forced, state) = force_new_cluster(id, &members, context, *hard_state);
        *hard_state = state;
        self.wal.save(Some(hard_state), &forced, true)?;
        entries.extend(forced);
        tracing::info!(
            "cluster-id" = %format!("{:x}", self.cluster_id),
            "local-member-id" = %format!("{:x}", self.member_id),
            "wal-commit-index" = commit,
            "commit-index" = hard_state.commit,
            "forcing restart member"
        );
        Ok(())
    }
}

fn open_log<D: Disk>(
    config: &Config,
    begins: Option<&Beginning>,
    disk: D,
    paths: &Paths,
    found: &Boot,
) -> Result<OpenLog<D>, StartError> {
    if etched_wal::exists(&disk, &paths.wal)? {
        return reopen_log(config, begins, disk, &paths.wal, found);
    }
    if !found.created && found.applied != Applied::default() {
        return Err(StartError::LogMissing { dir: paths.wal.clone() });
    }
    let begins = begins.ok_or_else(|| StartError::LogMissing { dir: paths.wal.clone() })?;
    bootstrap_log(config, begins, disk, &paths.wal)
}

/// First start: the log begins with an entry for each member of a new cluster.
fn bootstrap_log<D: Disk>(
    config: &Config,
    begins: &Beginning,
    disk: D,
    dir: &Path,
) -> Result<OpenLog<D>, StartError> {
    let Beginning { member_id, cluster_id, .. } = *begins;
    tracing::info!(
        name = config.name,
        "data-dir" = %config.data_dir.display(),
        "local-member-id" = %format!("{member_id:x}"),
        "cluster-id" = %format!("{cluster_id:x}"),
        "starting local member"
    );
    let metadata = Metadata { node_id: Some(member_id), cluster_id: Some(cluster_id) };
    let mut wal = Wal::create(disk, dir, &metadata.encode_to_vec(), &wal_options(config))?;
    let (hard_state, entries) = save_first_entries(begins, &mut wal)?;
    let start =
        Start { hard_state, mark: (0, 0), entries, conf_state: ConfState::default(), applied: 0 };
    Ok(OpenLog { wal, start, member_id, cluster_id })
}

/// The entries that add the first members, on disk; nothing where a cluster is joined.
fn save_first_entries<D: Disk>(
    begins: &Beginning,
    wal: &mut Wal<D>,
) -> Result<(HardState, Vec<Entry>), StartError> {
    if begins.first.is_empty() {
        return Ok(Default::default());
    }
    let changes = begins.first.iter().map(|member| ConfChange {
        id: 0,
        kind: ConfChangeKind::AddNode,
        node_id: member.id,
        context: member.json(),
    });
    let entries: Vec<Entry> = changes
        .zip(1..)
        .map(|(change, index)| {
            let data = change.encode();
            Entry { term: 1, index, kind: EntryKind::ConfChange, data }
        })
        .collect();
    let hard_state = HardState { term: 1, vote: 0, commit: entries.len() as u64 };
    wal.save(Some(&hard_state), &entries, true)?;
    Ok((hard_state, entries))
}

/// Restart: the log from the newest mark that the store's checkpoint covers.
fn reopen_log<D: Disk>(
    config: &Config,
    begins: Option<&Beginning>,
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
    // Without a hard state nobody has heard anything of this member yet.
    let nothing_yet = contents.hard_state == HardState::default()
        && mark.index == 0
        && found.applied == Applied::default();
    let begins = begins.filter(|begins| {
        (begins.member_id, begins.cluster_id) == (member_id, cluster_id) && nothing_yet
    });
    if let Some(begins) = begins {
        // The first start ended between making the log and its first entries.
        (contents.hard_state, contents.entries) = save_first_entries(begins, &mut wal)?;
    }
    // Without one in the store the log has all changes, from the first one on.
    let conf_state = found.conf_state.clone().unwrap_or_default();
    let start = Start {
        hard_state: contents.hard_state,
        mark: (mark.index, mark.term),
        entries: contents.entries,
        conf_state,
        applied: found.applied.index,
    };
    Ok(OpenLog { wal, start, member_id, cluster_id })
}

/// A member that was removed has no place in its cluster any more, whatever its data say.
fn refuse_removed<D: Disk>(log: &OpenLog<D>, cluster: &Cluster) -> Result<(), StartError> {
    if cluster.removed.contains(&log.member_id) {
        return Err(StartError::Removed);
    }
    Ok(())
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
