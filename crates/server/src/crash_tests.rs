//! The whole member on a disk that loses every unsynced byte: log, flush, checkpoint, compaction.
//!
//! Each case runs writers until the planned crash, takes away what a power cut may take, starts again and
//! compares with what was acknowledged. A failing case names its numbers; the same numbers crash at the same
//! operation again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use etched_proto::etcdserverpb as pb;
use etched_proto::mvccpb::KeyValue;
use etched_sim::{Loss, Rng, SimDisk, SimFile};
use etched_storage::{Held, Medium, Room, Storage, StorageBackend};
use etched_wal::disk::{Disk, DiskFile, Open};
use prost::Message;

use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::ask::Dial;
use crate::auth::{AuthAnswer, Nobody, Tokens, Who};
use crate::beginning::Beginning;
use crate::boot::{Booted, boot};
use crate::config::Config;
use crate::request::{AuthRequest, Field};
use crate::shared::{Answer, Event, Shared};

pub(crate) const MAIN: &str = "/data/member/snap/db";
const COPY: &str = "/data/member/snap/db.new";

/// A store's file on the fake disk.
#[derive(Debug)]
pub(crate) struct SimMedium {
    disk: SimDisk,
    main: PathBuf,
    copy: PathBuf,
}

#[derive(Debug)]
struct SimBackend(SimFile);

impl SimMedium {
    pub(crate) fn new(disk: &SimDisk) -> Self {
        Self::at(disk, Path::new(MAIN))
    }

    pub(crate) fn at(disk: &SimDisk, main: &Path) -> Self {
        let copy = main.with_added_extension("new");
        Self { disk: disk.clone(), main: main.to_owned(), copy }
    }

    fn open(&self, path: &Path, mode: Open) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(SimBackend(self.disk.open(path, mode)?)))
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.disk.sync_dir(self.main.parent().expect("the file lies in a folder"))
    }
}

impl Medium for SimMedium {
    fn name(&self) -> String {
        self.main.display().to_string()
    }

    fn open_main(&self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        match self.open(&self.main, Open::Write) {
            Ok(file) => {
                self.sync_folder()?;
                Ok(Some(file))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create_copy(&self) -> io::Result<Box<dyn StorageBackend>> {
        self.discard_copy()?;
        self.open(&self.copy, Open::CreateNew)
    }

    fn discard_copy(&self) -> io::Result<()> {
        match self.disk.remove(&self.copy) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn hold_main(&self) -> io::Result<Option<Box<dyn Held>>> {
        Ok(Some(Box::new(SimBackend(self.disk.open(&self.main, Open::Write)?))))
    }

    fn install_copy(&self) -> io::Result<()> {
        self.disk.rename(&self.copy, &self.main)?;
        self.sync_folder()
    }

    fn room(&self) -> io::Result<Room> {
        Ok(Room { available: 1 << 40, taken: 1 << 30, total: 1 << 40 })
    }
}

impl Held for SimBackend {
    fn try_lock(&self) -> io::Result<bool> {
        self.0.try_lock()
    }

    fn has_a_name(&self) -> io::Result<bool> {
        self.0.has_a_name()
    }

    fn length(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }
}

impl StorageBackend for SimBackend {
    fn len(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.0.read_at(offset, out)? < out.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}

pub(crate) fn config() -> Config {
    Config {
        data_dir: "/data".into(),
        log_segment_bytes: 16 << 10,
        checkpoint_log_bytes: 6_000,
        commit_bytes: 1_500,
        compaction_batch: 7,
        compaction_pause: Duration::ZERO,
        ..Config::default()
    }
}

fn start(disk: &SimDisk) -> Result<Booted<SimDisk>, String> {
    start_as(disk, config())
}

/// With the log in another place.
pub(crate) fn start_with_log(
    disk: &SimDisk,
    wal_dir: Option<&str>,
) -> Result<Booted<SimDisk>, String> {
    start_as(disk, Config { wal_dir: wal_dir.map(PathBuf::from), ..config() })
}

/// As a server starts.
pub(crate) fn start_as(disk: &SimDisk, config: Config) -> Result<Booted<SimDisk>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let open =
        |path: &Path, options| Storage::open_on(Arc::new(SimMedium::at(disk, path)), options);
    let config = Config { cache_bytes: 1 << 20, ..config };
    let (storage, etcds) =
        crate::run::open_storage(&config, disk, &open).map_err(|error| text(&error))?;
    let tokens = Tokens::new(&config.auth).map_err(|error| text(&error))?;
    let begins = Beginning::again(&config);
    let mut booted =
        boot(config, begins.as_ref(), Dial::default(), disk.clone(), storage, tokens, 1)
            .map_err(|error| text(&error))?;
    drop(etcds);
    booted.engine.start().map_err(|error| text(&error))?;
    Ok(booted)
}

/// What was acknowledged.
#[derive(Debug, Default)]
struct Acknowledged {
    /// By revision: key and value.
    puts: BTreeMap<i64, (String, String)>,
    compacted: i64,
    roles: Vec<String>,
    /// Names for roles that were tried.
    role_names: u64,
}

/// Serves until `work` ends or the disk crashes, then ends cleanly if the disk still works.
pub(crate) fn with_member<T>(
    booted: Booted<SimDisk>,
    work: impl AsyncFnOnce(Arc<Shared>, watch::Receiver<bool>) -> T,
) -> T {
    let Booted { shared, engine, flusher, .. } = booted;
    let (ended, end) = watch::channel(false);
    let threads = [
        std::thread::spawn({
            let ended = ended.clone();
            move || {
                let _ = engine.run();
                ended.send_replace(true);
            }
        }),
        std::thread::spawn(move || {
            let flusher = flusher.expect("nobody took it");
            if flusher.run().is_err() {
                ended.send_replace(true);
            }
        }),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime without network");
    let local = LocalSet::new();
    crate::lane::set_up(&local, &shared, 0);
    let result = local.block_on(&runtime, work(Arc::clone(&shared), end));
    shared.flush.stop();
    let [engine, flusher] = threads;
    flusher.join().expect("the flusher does not panic");
    shared.inbox.push(Event::Stop);
    engine.join().expect("the raft thread does not panic");
    result
}

/// Puts, compacts and defragments until the disk crashes or enough is done.
async fn write(
    shared: Arc<Shared>,
    end: watch::Receiver<bool>,
    rng: &mut Rng,
    done: &mut Acknowledged,
) {
    let mut copies = Vec::new();
    write_beside(&shared, end, rng, done, &mut copies).await;
    for copy in copies {
        // Refused or not, it must have left the disk before the next start.
        let _ = copy.await.expect("a defragmentation does not panic");
    }
}

async fn write_beside(
    shared: &Arc<Shared>,
    mut end: watch::Receiver<bool>,
    rng: &mut Rng,
    done: &mut Acknowledged,
    copies: &mut Vec<tokio::task::JoinHandle<Result<(), tonic::Status>>>,
) {
    for number in 0..120 {
        if number % 40 == 30 {
            let copy = crate::defragment::run(Arc::clone(shared));
            copies.push(tokio::task::spawn_local(copy));
        }
        let revision = shared.reader.current_revision();
        if number % 25 == 24 && revision > done.compacted + 10 {
            let target = revision - 5;
            let request = pb::CompactionRequest { revision: target, physical: number % 2 == 0 };
            let compact = propose(shared, Field::Compaction, &request);
            let outcome = tokio::select! {
                outcome = compact => outcome,
                _ = end.wait_for(|ended| *ended) => return,
            };
            if outcome.is_some() {
                done.compacted = target;
            }
            continue;
        }
        if number % 10 == 3 {
            done.role_names += 1;
            let name = format!("role{}", done.role_names);
            let request = pb::AuthRoleAddRequest { name: name.clone() };
            let added = propose(shared, Field::AuthRoleAdd, &request);
            let outcome = tokio::select! {
                outcome = added => outcome,
                _ = end.wait_for(|ended| *ended) => return,
            };
            done.roles.extend(outcome.map(|_| name));
            continue;
        }
        let key = format!("key{}", rng.below(20));
        let value = format!("{number}-{}", "v".repeat(rng.below(200) as usize));
        let put = pb::PutRequest {
            key: key.clone().into(),
            value: value.clone().into(),
            ..Default::default()
        };
        let put = propose(shared, Field::Put, &put);
        let outcome = tokio::select! {
            outcome = put => outcome,
            _ = end.wait_for(|ended| *ended) => return,
        };
        let Some(revision) = outcome else { return };
        done.puts.insert(revision, (key, value));
    }
}

/// The revision of the answer, or none when the server ended first.
pub(crate) async fn propose(shared: &Shared, field: Field, message: &impl Message) -> Option<i64> {
    let outcome = shared.propose(Nobody, field, &message.encode_to_vec()).await.ok()?;
    let answer = outcome.result.expect("nothing in this workload is refused");
    assert!(!matches!(answer, Answer::Txn(_) | Answer::LeaseGranted { .. } | Answer::Alarms(_)));
    Some(outcome.revision)
}

/// Everything acknowledged is there, under its revision, unless compacted.
fn check(shared: &Shared, done: &Acknowledged, case: &str) {
    let (floor, current) = (shared.reader.compact_revision(), shared.reader.current_revision());
    assert!(
        done.compacted == 0 || floor >= done.compacted,
        "{case}: an acknowledged compaction is gone"
    );
    if let Some((last, _)) = done.puts.last_key_value() {
        assert!(current >= *last, "{case}: revision {current} is below an acknowledged {last}");
    }
    let roles = roles(shared);
    for role in &done.roles {
        assert!(roles.contains(role), "{case}: the acknowledged {role} is gone");
    }
    let changes = shared.auth.revision() - 1;
    assert_eq!(
        changes,
        roles.len() as u64,
        "{case}: roles and their revision are not of one index"
    );
    for (revision, (key, value)) in &done.puts {
        if *revision < floor {
            continue;
        }
        let found = shared.reader.kv_at(key.as_bytes(), *revision).expect("a readable revision");
        let found = found.expect("an acknowledged put is there");
        let found = KeyValue::decode(found).expect("a KeyValue");
        assert_eq!(found.value, value.as_bytes(), "{case}: {key} at {revision}");
        assert_eq!(found.mod_revision, *revision, "{case}: {key}");
    }
}

fn roles(shared: &Shared) -> Vec<String> {
    let list = AuthRequest::AuthRoleList(pb::AuthRoleListRequest::default());
    match shared.auth.apply(list, 0, Duration::ZERO, &mut Vec::new()) {
        Ok(AuthAnswer::Names(names)) => names,
        other => panic!("{other:?}"),
    }
}

fn crash_case(seed: u64) {
    let mut rng = Rng::new(seed);
    let disk = SimDisk::new();
    let mut done = Acknowledged::default();
    for round in 0..4 {
        let crash_at = rng.below(900);
        let loss = match rng.below(3) {
            0 => Loss::Process,
            1 => Loss::Unsynced,
            _ => Loss::Torn(rng.below(u64::MAX)),
        };
        let case = format!("seed {seed}, round {round}, crash after {crash_at}, {loss:?}");
        disk.crash_after(crash_at);
        if let Ok(booted) = start(&disk) {
            check(&booted.shared, &done, &case);
            with_member(booted, async |shared, end| write(shared, end, &mut rng, &mut done).await);
        }
        disk.restart(loss);
        let booted = start(&disk).unwrap_or_else(|error| panic!("{case}: {error}"));
        check(&booted.shared, &done, &case);
        restart_cleanly(&disk, booted, &case);
    }
}

/// A clean end and start give the same keys, revision and hash.
fn restart_cleanly(disk: &SimDisk, booted: Booted<SimDisk>, case: &str) {
    let state = |shared: &Shared| {
        let (hash, revision) = shared.reader.hash_kv(0).expect("the current revision");
        (hash.hash, revision, shared.reader.keys())
    };
    let before = with_member(booted, async |shared, _| state(&shared));
    disk.restart(Loss::Unsynced);
    let again = start(disk).unwrap_or_else(|error| panic!("{case}, clean restart: {error}"));
    assert_eq!(state(&again.shared), before, "{case}: a clean restart changed the store");
    with_member(again, async |_, _| ());
    disk.restart(Loss::Process);
}

#[test]
fn a_crash_at_any_step_loses_no_acknowledged_write() {
    for seed in 0..60 {
        crash_case(seed);
    }
}

#[test]
fn a_file_whose_defragmentation_was_killed_before_its_name_was_durable_is_not_lost_by_a_power_cut()
{
    let disk = SimDisk::new();
    let puts = async |shared: Arc<Shared>, _| {
        for number in 0..200 {
            let (key, value) = (format!("key{number}").into(), vec![b'v'; 200].into());
            let put = pb::PutRequest { key, value, ..Default::default() };
            propose(&shared, Field::Put, &put).await.expect("a working disk");
        }
    };
    with_member(start(&disk).expect("a fresh member"), puts);
    let copied = disk.read(Path::new(MAIN)).expect("the store's file");
    disk.put(Path::new(COPY), &copied).expect("a working disk");
    disk.rename(Path::new(COPY), Path::new(MAIN)).expect("a working disk");
    disk.restart(Loss::Process);
    with_member(start(&disk).expect("the copy is whole"), puts);
    disk.restart(Loss::Unsynced);
    let booted = start(&disk).unwrap_or_else(|error| panic!("after the power cut: {error}"));
    assert_eq!(booted.shared.reader.current_revision(), 401);
}

#[test]
fn a_full_disk_under_the_log_ends_the_member_and_loses_nothing() {
    let disk = SimDisk::new();
    let booted = start(&disk).expect("a fresh member");
    let mut done = Acknowledged::default();
    let mut rng = Rng::new(1);
    with_member(booted, async |shared, end| {
        write(Arc::clone(&shared), end.clone(), &mut rng, &mut done).await;
        disk.set_read_only(true);
        write(shared, end, &mut rng, &mut done).await;
    });
    assert!(done.puts.len() > 50);
    disk.set_read_only(false);
    disk.restart(Loss::Unsynced);
    let booted = start(&disk).expect("the disk works again");
    check(&booted.shared, &done, "read-only disk");
}

#[test]
fn a_crash_at_any_step_of_the_first_start_leaves_a_member_that_knows_itself() {
    for loss in [Loss::Process, Loss::Unsynced, Loss::Torn(3), Loss::Torn(4)] {
        for crash_at in 0.. {
            let disk = SimDisk::new();
            disk.crash_after(crash_at);
            let whole = start(&disk).is_ok_and(|_| !disk.has_crashed());
            disk.restart(loss);
            let case = format!("crash after {crash_at}, {loss:?}");
            let booted = start(&disk).unwrap_or_else(|error| panic!("{case}: {error}"));
            let cluster = booted.shared.cluster.read().clone();
            let names: Vec<&str> = cluster.members.values().map(|own| own.name.as_str()).collect();
            assert_eq!(names, ["default"], "{case}");
            assert!(cluster.members.contains_key(&booted.shared.member_id), "{case}");
            if whole {
                break;
            }
        }
    }
}

#[test]
fn a_defragmented_file_is_not_ahead_of_the_commit_index_in_the_log() {
    let disk = SimDisk::new();
    let booted = start(&disk).expect("a fresh member");
    with_member(booted, async |shared, _| {
        let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        propose(&shared, Field::Put, &put).await.expect("the disk works");
        shared.flush.commit_now().await.expect("the flusher writes all");
        crate::defragment::run(Arc::clone(&shared)).await.expect("there is room");
        disk.crash_after(0);
    });
    disk.restart(Loss::Unsynced);
    let storage = Storage::open_on(Arc::new(SimMedium::new(&disk)), Default::default());
    let (_, store) = storage.expect("a whole file");
    let (dir, mark) = (Path::new("/data/member/wal"), Default::default());
    let options = etched_wal::Options::default();
    let (_, log) = etched_wal::Wal::open(disk, dir, &mark, &options).expect("a whole log");
    assert!(store.applied.index > 0, "the copy took the put along");
    let commit = log.hard_state.commit;
    assert!(commit >= store.applied.index, "{commit} is below {:?}", store.applied);
}

#[test]
fn a_token_that_only_the_end_of_the_log_knows_is_no_good_after_a_restart() {
    let disk = SimDisk::new();
    let caller = |shared: &Shared, token: &str| {
        let token = http::HeaderValue::from_str(token).expect("letters");
        shared.caller(&Who::new(Some(&token), None, false))
    };
    let token = with_member(start(&disk).expect("a fresh member"), async |shared, _| {
        let name = || etched_auth::ROOT.to_owned();
        let hashed_password = "aGFzaA==".to_owned();
        let user = pb::AuthUserAddRequest { name: name(), hashed_password, ..Default::default() };
        propose(&shared, Field::AuthUserAdd, &user).await.expect("a working disk");
        let role = pb::AuthUserGrantRoleRequest { user: name(), role: name() };
        propose(&shared, Field::AuthUserGrantRole, &role).await.expect("a working disk");
        let enable = pb::AuthEnableRequest {};
        propose(&shared, Field::AuthEnable, &enable).await.expect("a working disk");
        let simple_token = shared.auth.draw_letters();
        let login =
            pb::InternalAuthenticateRequest { name: name(), simple_token, ..Default::default() };
        let body = login.encode_to_vec();
        let outcome = shared.propose(Nobody, Field::Authenticate, &body).await.expect("an answer");
        let Ok(Answer::Auth(answer)) = outcome.result else { panic!("{outcome:?}") };
        let AuthAnswer::Token { assigned, .. } = *answer else { panic!("{answer:?}") };
        assert!(caller(&shared, &assigned).is_ok());
        // No later batch says that this one is committed.
        disk.crash_after(0);
        assigned
    });
    disk.restart(Loss::Unsynced);
    let again = start(&disk).expect("a whole log");
    assert!(again.shared.auth.is_enabled());
    assert!(caller(&again.shared, &token).is_err());
}

async fn set_alarm(shared: &Shared, action: pb::alarm_request::AlarmAction) {
    let alarm = pb::AlarmType::Nospace as i32;
    let request = pb::AlarmRequest { action: action as i32, member_id: 7, alarm };
    let outcome = shared.propose(Nobody, Field::Alarm, &request.encode_to_vec()).await;
    assert!(outcome.is_ok_and(|outcome| outcome.result.is_ok()), "{action:?}");
}

#[test]
fn a_clean_end_gives_back_the_room_reserved_for_the_log() {
    let disk = SimDisk::new();
    let names = || disk.list("/data/member/wal".as_ref()).expect("a folder");
    for _ in 0..2 {
        let booted = start(&disk).expect("a member");
        with_member(booted, async |shared, _| {
            let put = pb::PutRequest { key: "k".into(), ..Default::default() };
            assert!(propose(&shared, Field::Put, &put).await.is_some());
        });
        let names = names();
        assert!(names.iter().all(|name| name.ends_with(".wal")), "{names:?}");
    }
}

#[test]
fn with_the_memory_full_alarms_and_deletes_pass_and_an_abandoned_put_is_forgotten() {
    use pb::alarm_request::AlarmAction;
    let disk = SimDisk::new();
    let Booted { shared, engine, flusher, .. } = start(&disk).expect("a fresh member");
    let engine = std::thread::spawn(move || engine.run());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let local = LocalSet::new();
    crate::lane::set_up(&local, &shared, 0);
    local.block_on(&runtime.expect("a runtime without network"), async {
        let put = |length: usize| {
            let (key, value) = ("k".into(), vec![b'v'; length].into());
            pb::PutRequest { key, value, ..Default::default() }.encode_to_vec()
        };
        let large = put(1 << 20);
        while shared.reader.memory_bytes() < crate::engine::MEMORY_TABLE_BYTES_MAX {
            shared.propose(Nobody, Field::Put, &large).await.expect("there is memory");
        }
        let last = shared.reader.current_revision();
        tokio::select! {
            biased;
            _ = shared.propose(Nobody, Field::Put, &large) => panic!("a put found memory"),
            () = set_alarm(&shared, AlarmAction::Activate) => {}
        }
        let delete = pb::DeleteRangeRequest { key: "k".into(), ..Default::default() };
        let deleted = propose(&shared, Field::DeleteRange, &delete).await;
        assert_eq!(deleted, Some(last + 1), "what makes room passes");
        // The put has been given up; with the next event that is found out.
        set_alarm(&shared, AlarmAction::Deactivate).await;
        let flusher = flusher.expect("nobody took it");
        let flusher = std::thread::spawn(move || flusher.run());
        shared.flush.commit_now().await.expect("the flusher writes all");
        let outcome =
            shared.propose(Nobody, Field::Put, &put(1)).await.expect("there is memory again");
        assert_eq!(outcome.revision, last + 2, "the abandoned put is not carried out");
        shared.flush.stop();
        flusher.join().expect("no panic").expect("the flusher writes all");
    });
    shared.inbox.push(Event::Stop);
    engine.join().expect("no panic").expect("a clean end");
}

#[test]
fn without_room_for_the_next_file_of_the_log_puts_are_refused_and_the_member_lives() {
    let disk = SimDisk::new();
    // Nothing goes to the store's file, which would find the disk full as well. What time alone brings there on
    // a slow machine is no checkpoint: one would give room back, and rightly end the alarm's reason.
    let config = Config { commit_bytes: usize::MAX, checkpoint_log_bytes: u64::MAX, ..config() };
    let booted = start_as(&disk, config).expect("a fresh member");
    with_member(booted, async |shared, _| {
        disk.set_capacity(Some(disk.reserved_bytes()));
        let put =
            pb::PutRequest { key: "k".into(), value: vec![0; 1000].into(), ..Default::default() };
        let (mut puts, body) = (0, put.encode_to_vec());
        while shared.admit(1).is_ok() {
            // The alarm may come between the question and the put.
            shared.propose(Nobody, Field::Put, &body).await.expect("the log takes what was let in");
            puts += 1;
            assert!(puts < 40, "the log has no room for all these");
        }
        let delete = pb::DeleteRangeRequest { key: "k".into(), ..Default::default() };
        let deleted = shared.propose(Nobody, Field::DeleteRange, &delete.encode_to_vec()).await;
        assert!(deleted.is_ok_and(|deleted| deleted.result.is_ok()), "a delete is still taken");
        assert!(shared.cluster.read().has_alarm(pb::AlarmType::Nospace));
        disk.set_capacity(None);
    });
}

#[test]
fn above_the_quota_what_adds_nothing_is_let_in() {
    let config = Config { quota_bytes: Some(1), ..config() };
    let booted = start_as(&SimDisk::new(), config).expect("a fresh member");
    assert!(booted.shared.admit(0).is_ok());
    assert!(booted.shared.admit(1).is_err());
}

#[test]
fn the_size_of_the_file_is_known_before_its_first_commit() {
    let booted = start(&SimDisk::new()).expect("a fresh member");
    let live = booted.shared.progress.file_live_bytes.load(std::sync::atomic::Ordering::Relaxed);
    assert!(live > 0);
}

#[test]
fn a_lost_store_is_made_again_only_of_a_log_that_has_all_of_it() {
    let put = async |shared: &Shared| {
        let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        propose(shared, Field::Put, &put).await.expect("a working disk");
    };
    let disk = SimDisk::new();
    // Killed before anything but the log was written.
    let booted = start(&disk).expect("a fresh member");
    with_member(booted, async |shared, _| {
        put(&shared).await;
        disk.crash_after(0);
    });
    disk.restart(Loss::Process);
    disk.remove(Path::new(MAIN)).expect("it was there");
    let booted = start(&disk).expect("the log has everything");
    assert_eq!(booted.shared.reader.current_revision(), 2);
    // A clean end marks in the log where the store stands.
    with_member(booted, async |shared, _| put(&shared).await);
    disk.restart(Loss::Process);
    disk.remove(Path::new(MAIN)).expect("it was there");
    let Err(error) = start(&disk) else { panic!("an empty store in place of one with keys") };
    assert!(error.contains(MAIN) && error.lines().count() == 1, "{error}");
    assert!(disk.read(Path::new(MAIN)).is_err(), "nothing is made in its place");
}

#[test]
fn the_place_of_the_log_may_end_in_a_slash() {
    let disk = SimDisk::new();
    for wal_dir in ["/logs/wal/", "/logs/wal/.", "/logs/wal"] {
        start_with_log(&disk, Some(wal_dir)).unwrap_or_else(|error| panic!("{wal_dir}: {error}"));
        assert_eq!(disk.list(Path::new("/logs")).expect("a folder"), ["wal"], "{wal_dir}");
        disk.restart(Loss::Process);
    }
}
