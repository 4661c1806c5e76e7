//! Snapshots that no member could start from, and a crash at every step of a restore.

use etched_bolt::etcd::{self, Revision};
use etched_bolt::{Builder, Layout};
use etched_proto::mvccpb::KeyValue;
use etched_sim::{Loss, Rng, SimDisk};

use super::*;
use crate::crash_tests::{SimMedium, start_with_log};

/// Of real etcd 3.7.1, which said this HashKV of itself at this revision, compacted at 6.
const SNAPSHOT: &[u8] = include_bytes!("../../../bolt/tests/fixtures/etcd-3.7.1.snapshot");
const HASH: (u32, i64, i64) = (1_178_598_391, 14, 6);

fn plan(wal_dir: Option<&str>) -> Restore {
    Restore {
        snapshot: PathBuf::new(),
        skip_hash_check: true,
        data_dir: "/data".into(),
        wal_dir: wal_dir.map(PathBuf::from),
        name: "default".to_owned(),
        members: [("default".to_owned(), vec!["http://localhost:2380".to_owned()])].into(),
        token: "etcd-cluster".to_owned(),
        bump_revision: None,
    }
}

fn restore_on(disk: &SimDisk, plan: &Restore, snapshot: &[u8]) -> Result<(), RestoreError> {
    let open_store = |path: &Path, options: Options| {
        let medium = SimMedium::at(disk, path);
        Storage::open_on(Arc::new(medium), Options { cache_bytes: 1 << 20, ..options })
    };
    let options = etched_wal::Options::default();
    let log = etched_wal::Options { segment_bytes: 16 << 10, beside: false, ..options };
    let place = Place { disk: disk.clone(), open_store: &open_store, log };
    let database = Database::open(snapshot.to_vec()).expect("it has a whole meta page");
    place.restore(plan, &database, &mut |_, _| ())
}

/// The hash that a member of the default place says of itself, its revision and its last compaction.
fn served(disk: &SimDisk, wal_dir: Option<&str>) -> Result<(u32, i64, i64), String> {
    let booted = start_with_log(disk, wal_dir)?;
    let reader = &booted.shared.reader;
    let (hash, revision) = reader.hash_kv(0).expect("the current revision");
    Ok((hash.hash, revision, reader.compact_revision()))
}

fn names(disk: &SimDisk) -> Vec<String> {
    disk.list(Path::new("/data")).unwrap_or_default()
}

/// One crash; whether there was one.
fn crash_case(wal_dir: Option<&str>, crash_at: u64, loss: Loss) -> bool {
    let case = format!("log {wal_dir:?}, crash after {crash_at}, {loss:?}");
    let disk = SimDisk::new();
    disk.create_dir(Path::new("/logs")).expect("a working disk");
    disk.crash_after(crash_at);
    let restored = restore_on(&disk, &plan(wal_dir), SNAPSHOT);
    let crashed = disk.has_crashed();
    assert!(crashed || restored.is_ok(), "{case}: {restored:?}");
    disk.restart(loss);
    let there = names(&disk);
    if there == ["member"] {
        assert_eq!(served(&disk, wal_dir), Ok(HASH), "{case}");
        return crashed;
    }
    assert!(restored.is_err(), "{case}: a restore that was said to be complete is gone");
    if there == [Restore::UNFINISHED] {
        let error =
            served(&disk, wal_dir).expect_err("nothing starts beside an unfinished restore");
        assert!(error.contains("has not ended"), "{case}: {error}");
    } else {
        assert_eq!(there, [""; 0], "{case}");
    }
    if let Err(error) = restore_on(&disk, &plan(wal_dir), SNAPSHOT) {
        // A log outside got its name just before the rest, and is nobody's to remove unasked.
        let dir = wal_dir.unwrap_or_else(|| panic!("{case}, again: {error}"));
        assert!(matches!(error, RestoreError::Wal(etched_wal::Error::Exists { .. })), "{case}");
        disk.remove_dir(Path::new(dir)).expect("a working disk");
        restore_on(&disk, &plan(wal_dir), SNAPSHOT).expect("nothing is in the way");
    }
    assert_eq!(names(&disk), ["member"], "{case}");
    assert_eq!(served(&disk, wal_dir), Ok(HASH), "{case}, again");
    crashed
}

#[test]
fn a_crash_at_any_step_of_a_restore_leaves_all_of_it_or_what_the_next_one_replaces() {
    let outside = Some("/logs/wal");
    let (unsynced, torn) = (Loss::Unsynced, Loss::Torn(1));
    for (wal_dir, loss) in
        [(None, unsynced), (None, torn), (outside, unsynced), (outside, Loss::Process)]
    {
        let mut crashes = 0;
        while crash_case(wal_dir, crashes, loss) {
            crashes += 1;
        }
        assert!(crashes > 40, "only {crashes} steps");
    }
}

#[test]
fn snapshots_of_older_releases_are_served_with_the_hash_that_etcd_said() {
    let of_3_5 = include_bytes!("../../../bolt/tests/fixtures/etcd-3.5.35.snapshot");
    let of_3_6 = include_bytes!("../../../bolt/tests/fixtures/etcd-3.6.16.snapshot");
    for (snapshot, hash) in [(&of_3_5[..], 1_518_002_149), (of_3_6, 264_231_349)] {
        let disk = SimDisk::new();
        restore_on(&disk, &plan(None), snapshot).expect("a working disk");
        assert_eq!(served(&disk, None), Ok((hash, 10, 5)));
    }
}

#[test]
fn a_left_over_beside_a_member_keeps_it_from_nothing() {
    let disk = SimDisk::new();
    restore_on(&disk, &plan(None), SNAPSHOT).expect("a working disk");
    disk.create_dir(&Path::new("/data").join(Restore::UNFINISHED)).expect("a working disk");
    assert_eq!(served(&disk, None), Ok(HASH));
    let error = restore_on(&disk, &plan(None), SNAPSHOT).expect_err("there is a member");
    assert!(matches!(error, RestoreError::Io { action: "mkdir", .. }), "{error}");
    assert_eq!(served(&disk, None), Ok(HASH));
}

/// A database of etcd's buckets with these rows, which ascend.
fn database(rows: &[(&str, &[u8], &[u8])]) -> Vec<u8> {
    let (layout, _) = filled(Builder::measure(), rows);
    filled(Builder::write(layout, Vec::new()).expect("a vector takes all"), rows).1
}

fn filled<W: io::Write>(mut builder: Builder<W>, rows: &[(&str, &[u8], &[u8])]) -> (Layout, W) {
    for name in etcd::BUCKETS {
        builder.bucket(name.as_bytes()).expect("they ascend");
        for (_, key, value) in rows.iter().filter(|(bucket, ..)| *bucket == name) {
            builder.put(key, value).expect("they ascend");
        }
    }
    builder.finish().expect("it is as measured")
}

fn revision(main: i64, sub: i64) -> Vec<u8> {
    Revision { main, sub, tombstone: false }.bytes(&mut [0; Revision::BYTES_MAX]).to_vec()
}

fn put(main: i64, version: i64) -> Vec<u8> {
    let (key, value) = ("k".into(), "v".into());
    KeyValue { key, create_revision: 1, mod_revision: main, version, value, lease: 0 }
        .encode_to_vec()
}

/// What a restore of such rows says.
fn refusal(rows: &[(&str, &[u8], &[u8])], bump: Option<u64>) -> String {
    refusal_of(&database(rows), bump)
}

fn refusal_of(file: &[u8], bump: Option<u64>) -> String {
    let disk = SimDisk::new();
    let wal_dir = Some("/logs/wal");
    disk.create_dir(Path::new("/logs")).expect("a working disk");
    let bad = Restore { bump_revision: bump, ..plan(wal_dir) };
    let error = restore_on(&disk, &bad, file).expect_err("it is refused").to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    assert_eq!(names(&disk), [""; 0], "nothing is left: {error}");
    assert_eq!(disk.list(Path::new("/logs")).unwrap_or_default(), [""; 0]);
    restore_on(&disk, &plan(wal_dir), SNAPSHOT).expect("a second try");
    assert_eq!(served(&disk, wal_dir), Ok(HASH));
    error
}

#[test]
fn records_that_no_member_starts_from_are_refused() {
    let unstartable = |key: &[u8], value: &[u8], what: &str| {
        let error = refusal(&[(etcd::KEY, key, value)], None);
        assert!(
            error.starts_with("error during bucket key iteration, name: \"key\" err: "),
            "{error}"
        );
        assert!(error.contains(what), "{error}");
    };
    let at = revision(5, 0);
    unstartable(&at, &put(5, 0), "record 5/0 is a put without a version");
    unstartable(&at, &put(5, -3), "record 5/0 is a put without a version");
    unstartable(&at, &put(5, i64::MAX), "has version 9223372036854775807");
    unstartable(&at, &put(4, 1), "record 5/0 says it is of revision 4");
    let unknown_field = [&put(5, 1)[..], &[0x38, 1]].concat();
    unstartable(&at, &unknown_field, "record 5/0 is not an encoded mvccpb.KeyValue");
    unstartable(&at, b"\xff", "record 5/0 is not an encoded mvccpb.KeyValue");
}

#[test]
fn revisions_that_no_store_reaches_are_refused() {
    for (main, sub) in [(5, 1 << 32), (5, i64::MAX), (i64::MAX, 0), (i64::MIN, 0), (1 << 62, -1)] {
        let error = refusal(&[(etcd::KEY, &revision(main, sub), &put(main, 1))], None);
        assert!(error.contains("has a revision that no store reaches, key:"), "{error}");
    }
    for name in [etcd::meta::SCHEDULED_COMPACT_REV, etcd::meta::FINISHED_COMPACT_REV] {
        for main in [i64::MAX, (1 << 62) + 1, (1 << 61) + 1, -1] {
            let error = refusal(&[(etcd::META, name.as_bytes(), &revision(main, 0))], None);
            assert!(error.contains("revision"), "{error}");
        }
        let error = refusal(&[(etcd::META, name.as_bytes(), &[0; 8])], None);
        assert!(error.ends_with(&format!("row {name} of table meta holds no revision")), "{error}");
    }
    let record: [(&str, &[u8], &[u8]); 1] = [(etcd::KEY, &revision(5, 0), &put(5, 1))];
    for bump in [u64::MAX, i64::MAX as u64, (1 << 61) - 4] {
        let error = refusal(&record, Some(bump));
        assert_eq!(error, format!("revision 5 cannot be raised by {bump}"));
    }
    let main = (1 << 61) + 1;
    let error = refusal(&[(etcd::KEY, &revision(main, 0), &put(main, 1))], None);
    assert_eq!(error, format!("the snapshot stands at revision {main}, which no store reaches"));
    let (disk, highest) = (SimDisk::new(), Some((1 << 61) - 5));
    let plan = Restore { bump_revision: highest, ..plan(None) };
    restore_on(&disk, &plan, &database(&record)).expect("it is just low enough");
    assert_eq!(served(&disk, None).map(|(_, revision, _)| revision), Ok(1 << 61));
}

#[test]
fn rows_that_no_member_starts_from_are_refused() {
    let unreadable: [(&str, &[u8], &[u8], &str); 7] = [
        (
            etcd::CLUSTER,
            b"clusterVersion",
            b"3.9.0",
            "server version is lower than determined cluster version",
        ),
        (etcd::LEASE, b"short", b"", "a row of the lease table has a key of 5 bytes instead of 8"),
        (etcd::LEASE, &[0, 0, 0, 0, 0, 0, 0, 7], b"\x08\x08", "the row of lease 7 holds lease 8"),
        (etcd::AUTH, b"authRevision", b"1", "authRevision of table auth has 1 bytes instead of 8"),
        (etcd::AUTH_USERS, b"u", b"\xff", "the row of user u does not decode"),
        (etcd::ALARM, b"\xff", b"", "table Alarm holds a row that does not read"),
        (etcd::CLUSTER, b"downgrade", b"{", "table Cluster holds a row that does not read"),
    ];
    for (bucket, key, value, what) in unreadable {
        let error = refusal(&[(bucket, key, value)], None);
        assert!(error.contains(what), "{error}");
    }
    let error = refusal(&[(etcd::META, b"tomorrow's", b"")], None);
    assert!(error.starts_with("key \"tomorrow's\" of bucket meta is nothing that"), "{error}");
}

#[test]
fn a_bucket_inside_a_bucket_is_refused() {
    // What stands for a bucket: its root page, which is none, its sequence, and a leaf without elements.
    let mut value = vec![0; 32];
    value[16 + 8] = 2;
    for bucket in [etcd::LEASE, etcd::KEY, etcd::MEMBERS] {
        let mut file = database(&[(bucket, b"a nested one", &value)]);
        let at = file.windows(12).position(|bytes| bytes == b"a nested one");
        // The first of four numbers before the key says what it is.
        file[at.expect("it was written") - 16] = 1;
        let error = refusal_of(&file, None);
        let what = format!("bucket \"a nested one\" in bucket {bucket:?} is nothing that");
        assert!(error.starts_with(&what), "{error}");
    }
}

#[test]
fn a_damaged_snapshot_gives_a_member_or_one_line_and_nothing() {
    let seed = std::env::var("ETCHED_SEED").ok().map_or(1, |seed| seed.parse().expect("a number"));
    println!("ETCHED_SEED={seed}");
    let mut rng = Rng::new(seed);
    let mut refused = 0;
    for _ in 0..80 {
        let mut file = SNAPSHOT.to_vec();
        for _ in 0..=rng.below(3) {
            // Behind the meta pages.
            let at = 2 * 4096 + rng.below(file.len() as u64 - 2 * 4096 - 32);
            file[at as usize] ^= 1 << rng.below(8);
        }
        let disk = SimDisk::new();
        match restore_on(&disk, &plan(None), &file) {
            Ok(()) => drop(served(&disk, None).expect("what is restored is started from")),
            Err(error) => {
                assert_eq!(
                    (names(&disk), error.to_string().lines().count()),
                    (vec![], 1),
                    "{error}"
                );
                refused += 1;
            }
        }
    }
    assert!((1..80).contains(&refused), "{refused} of 80 were refused");
}
