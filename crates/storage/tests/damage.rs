//! Bytes change behind the file's back. Whatever is read afterwards is right or an error, and it
//! ends; nothing is ever wrong in silence.

mod common;

use std::{
    sync::{Once, mpsc},
    thread,
    time::Duration,
};

use common::{MemMedium, Model, Workload, scan};
use etched_mvcc::Revision;
use etched_storage::{Commit, Durability, Error, Storage};

const PATIENCE: Duration = Duration::from_secs(60);

fn filled() -> (MemMedium, Workload) {
    quiet_panics();
    let medium = MemMedium::default();
    let (storage, _) = medium.open().expect("an empty disk");
    let mut workload = Workload::new(5);
    workload.fill(&storage, 6, 60);
    drop(storage);
    (medium, workload)
}

/// Places that hold something, every `stride`-th of them.
fn places(bytes: &[u8], stride: usize) -> Vec<usize> {
    let used = bytes.iter().enumerate().filter(|(_, byte)| **byte != 0);
    let header = 0..512;
    header.step_by(7).chain(used.map(|(place, _)| place).skip(512).step_by(stride)).collect()
}

/// Runs `job` for every place on a thread of its own, so that an endless loop fails the test.
fn for_each_place(places: Vec<usize>, job: impl Fn(usize) + Send + 'static) {
    let (sender, receiver) = mpsc::channel();
    let worker = thread::spawn(move || {
        for place in places {
            sender.send(place).expect("the test listens");
            job(place);
        }
    });
    let mut last = None;
    loop {
        match receiver.recv_timeout(PATIENCE) {
            Ok(place) => last = Some(place),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("byte {last:?} makes a read endless"),
        }
    }
    worker.join().unwrap_or_else(|_| panic!("failed at byte {last:?}"));
}

/// Panics inside redb are expected here; what they become is looked at, the noise is not.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| match etched_storage::panic_line(panic) {
            Some(line) => assert!(line.contains("memory/db") && !line.contains('\n')),
            None => usual(panic),
        }));
    });
}

fn one_line(error: &Error) {
    let line = error.to_string();
    assert!(!line.contains('\n') && line.contains("memory/db"), "{line:?}");
}

/// Every answer is right or an error. Answers whether all were right.
fn right_or_error(storage: &Storage, model: &Model) -> bool {
    let mut all_right = true;
    let mut failed = |error: Error| {
        one_line(&error);
        all_right = false;
    };
    for (revision, record) in model.records.iter().step_by(7) {
        match storage.view().get(*revision) {
            // The index names it and nobody finds it: the caller stops there.
            Ok(found) => assert!(found.is_none_or(|found| found == *record), "{revision:?}"),
            Err(error) => failed(error),
        }
    }
    match Model::read(storage) {
        Ok(mut found) => {
            found.rows.retain(|_, rows| !rows.is_empty());
            let mut expected = model.clone();
            expected.rows.retain(|_, rows| !rows.is_empty());
            assert!(found == expected, "wrong data without an error");
        }
        Err(error) => failed(error),
    }
    all_right
}

#[test]
fn a_flipped_byte_in_a_closed_file_gives_right_answers_or_an_error() {
    let (medium, workload) = filled();
    let (bytes, model) = (medium.main_bytes(), workload.model.clone());
    // And in the head of each page, the number of its entries.
    let heads = (4096..bytes.len()).step_by(4096).filter(|page| bytes[*page] != 0);
    let tried = places(&bytes, 2503).into_iter().chain(heads.map(|page| page + 2)).collect();
    for_each_place(tried, {
        let bytes = bytes.clone();
        move |place| {
            let mut bytes = bytes.clone();
            bytes[place] ^= 1 << (place % 8);
            match MemMedium::with_main(bytes).open() {
                Ok((storage, boot)) if boot.applied == model.applied => {
                    right_or_error(&storage, &model);
                }
                Ok((_, boot)) => panic!("byte {place}: state of {:?}", boot.applied),
                Err(error) => one_line(&error),
            }
        }
    });
    // The other way round: without a flip nothing is an error.
    let (storage, _) = MemMedium::with_main(bytes).open().unwrap();
    assert!(right_or_error(&storage, &workload.model));
}

#[test]
fn a_byte_flipped_under_an_open_file_gives_right_answers_or_an_error_also_in_part_scans() {
    let (medium, workload) = filled();
    let (bytes, model) = (medium.main_bytes(), workload.model);
    let (mut detected, tried) = (0, places(&bytes, 4001));
    let count = tried.len();
    for place in tried {
        let medium = MemMedium::with_main(bytes.clone());
        let options = etched_storage::Options { cache_bytes: 0, ..Default::default() };
        let (storage, _) = medium.open_with(options).unwrap();
        // The full scan at the start, after which every page is known.
        model.expect(&storage);
        medium.disk().files[0][place] ^= 0x10;
        let mut right = right_or_error(&storage, &model);
        let keys: Vec<_> = model.records.keys().copied().collect();
        for ends in keys.chunks(40) {
            let (from, last) = (ends[0], ends[ends.len() - 1]);
            let until = Revision { main: last.main, sub: last.sub + 1 };
            match scan(&storage, from, until) {
                Ok(found) => {
                    let expected = model.records.range(from..until);
                    assert!(found.iter().map(|(at, record)| (at, record)).eq(expected), "{place}");
                }
                Err(error) => {
                    one_line(&error);
                    right = false;
                }
            }
        }
        detected += usize::from(!right);
    }
    assert!(detected > count / 4, "{detected} of {count}: the flips hit nothing that is read");
}

#[test]
fn writing_to_a_damaged_file_never_turns_into_wrong_data() {
    let (medium, workload) = filled();
    let (bytes, model) = (medium.main_bytes(), workload.model);
    for_each_place(places(&bytes, 9001), move |place| {
        let mut bytes = bytes.clone();
        bytes[place] ^= 0x04;
        let medium = MemMedium::with_main(bytes);
        let Ok((storage, boot)) = medium.open() else { return };
        assert_eq!(boot.applied, model.applied);
        let mut workload = Workload::after(model.clone(), place as u64);
        let commit = workload.commit(50);
        let written = storage.commit(&commit, Durability::Checkpoint);
        if let Err(error) = &written {
            one_line(error);
            return;
        }
        right_or_error(&storage, &workload.model);
        drop(storage);
        match medium.open() {
            Ok((storage, _)) => {
                right_or_error(&storage, &workload.model);
            }
            Err(error) => one_line(&error),
        }
    });
}

#[test]
fn a_cut_file_is_refused() {
    let (medium, workload) = filled();
    let bytes = medium.main_bytes();
    for part in 0..40 {
        let cut = bytes[..bytes.len() * part / 40].to_vec();
        match MemMedium::with_main(cut).open() {
            Ok((storage, _)) => assert!(!right_or_error(&storage, &workload.model)),
            Err(error) => one_line(&error),
        }
    }
}

#[test]
fn what_another_program_wrote_is_called_foreign_and_left_alone() {
    let mut bbolt = vec![0; 8192];
    bbolt[16..20].copy_from_slice(&0xED0C_DAEDu32.to_le_bytes());
    for (bytes, word) in
        [(bbolt, "etcd"), (b"hello".to_vec(), "unknown"), (vec![7; 9000], "unknown")]
    {
        let medium = MemMedium::with_main(bytes.clone());
        let error = medium.open().unwrap_err();
        assert!(matches!(error, Error::Foreign { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(medium.main_bytes(), bytes);
        assert_eq!(medium.steps(), 0);
    }
    let error = MemMedium::with_main(Vec::new()).open().unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

#[test]
fn a_redb_file_of_another_program_is_foreign() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    drop(redb::Database::create(&path).unwrap());
    let error = Storage::open(&path, Default::default()).unwrap_err();
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
}

#[test]
fn after_damage_was_met_a_commit_does_not_pretend() {
    let (medium, workload) = filled();
    let (storage, _) = medium.open().unwrap();
    let mut workload = Workload::after(workload.model, 1);
    // Every page but the header: whatever the commit needs to read is wrong.
    medium.disk().files.iter_mut().for_each(|file| file[4096..].fill(0xA5));
    let commit = workload.commit(5);
    let error = storage.commit(&commit, Durability::Checkpoint).unwrap_err();
    one_line(&error);
    let again = storage
        .commit(&Commit { applied: commit.applied, ..Commit::default() }, Durability::Buffered);
    one_line(&again.unwrap_err());
}
