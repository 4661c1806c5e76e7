//! The tool on directories of its own, as a command.

#![allow(clippy::unwrap_used, reason = "helpers of tests are outside the lint's own exception")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Of real etcd 3.7.1, which said this HashKV of itself at revision 14, compacted at 6.
const SNAPSHOT: &[u8] = include_bytes!("../../bolt/tests/fixtures/etcd-3.7.1.snapshot");
const HASH: &str = "1178598391, 14, 6\n";

fn run(folder: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_etchedutl"));
    command.current_dir(folder).args(line.split_whitespace()).output().unwrap()
}

/// What a command prints that must succeed.
fn said(folder: &Path, line: &str) -> String {
    let output = run(folder, line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The error of one that must fail.
fn refused(folder: &Path, line: &str) -> String {
    let output = run(folder, line);
    assert_eq!(output.status.code(), Some(1), "{line}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    stderr.lines().filter(|line| !line.starts_with("info\t")).map(str::to_owned).collect()
}

fn folder_with(name: &str, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), content).unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}

#[test]
fn a_restored_directory_has_the_hash_that_etcd_said() {
    let (_kept, folder) = folder_with("snapshot", SNAPSHOT);
    said(&folder, "snapshot restore snapshot --data-dir data");
    assert_eq!(said(&folder, "hashkv data/member/snap/db"), HASH);
    assert_eq!(said(&folder, "defrag --data-dir data"), "");
    assert_eq!(said(&folder, "hashkv data/member/snap/db --rev 14"), HASH);
    assert_eq!(
        refused(&folder, "hashkv data/member/snap/db --rev 15"),
        "Error: mvcc: required revision is a future revision"
    );
    assert_eq!(
        refused(&folder, "snapshot restore snapshot --data-dir data"),
        "Error: data-dir \"data\" not empty or could not be read"
    );
}

#[test]
fn snapshots_of_older_releases_are_restored_with_the_hash_that_etcd_said() {
    let of_3_5 = include_bytes!("../../bolt/tests/fixtures/etcd-3.5.35.snapshot");
    let of_3_6 = include_bytes!("../../bolt/tests/fixtures/etcd-3.6.16.snapshot");
    for (snapshot, hash) in [(&of_3_5[..], "1518002149, 10, 5\n"), (of_3_6, "264231349, 10, 5\n")] {
        let (_kept, folder) = folder_with("snapshot", snapshot);
        said(&folder, "snapshot restore snapshot --data-dir data");
        assert_eq!(said(&folder, "hashkv data/member/snap/db"), hash);
    }
}

#[test]
fn a_restore_takes_the_place_of_what_a_killed_one_left() {
    let (_kept, folder) = folder_with("snapshot", SNAPSHOT);
    let left = folder.join("data").join("member.restore").join("snap");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("db"), "half").unwrap();
    said(&folder, "snapshot restore snapshot --data-dir data");
    assert_eq!(said(&folder, "hashkv data/member/snap/db"), HASH);
    assert!(!folder.join("data").join("member.restore").exists());
}

#[test]
fn a_restore_beside_one_that_is_at_work_is_refused_and_takes_nothing_from_it() {
    let (_kept, folder) = folder_with("snapshot", SNAPSHOT);
    let half = folder.join("data").join("member.restore").join("snap").join("db");
    std::fs::create_dir_all(half.parent().unwrap()).unwrap();
    std::fs::write(&half, "half").unwrap();
    let at_work = std::fs::File::open(folder.join("data")).unwrap();
    at_work.lock().unwrap();
    let line = "snapshot restore snapshot --data-dir data";
    assert_eq!(refused(&folder, line), "Error: another restore into data is at work");
    assert_eq!(std::fs::read_to_string(&half).unwrap(), "half");
    drop(at_work);
    said(&folder, line);
    assert_eq!(said(&folder, "hashkv data/member/snap/db"), HASH);
}

#[test]
fn of_restores_into_one_directory_at_once_one_succeeds_and_is_whole() {
    let (_kept, folder) = folder_with("snapshot", SNAPSHOT);
    let restores: Vec<_> = (0..4)
        .map(|_| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_etchedutl"));
            let line = "snapshot restore snapshot --data-dir data --wal-dir log/";
            command.current_dir(&folder).args(line.split_whitespace()).spawn().unwrap()
        })
        .collect();
    let succeeded = restores.into_iter().map(|mut restore| restore.wait().unwrap().success());
    assert_eq!(succeeded.filter(|succeeded| *succeeded).count(), 1);
    assert_eq!(said(&folder, "hashkv data/member/snap/db"), HASH);
    assert_eq!(std::fs::read_dir(folder.join("data")).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(folder.join("log")).unwrap().count(), 1);
}

#[test]
fn the_default_place_of_the_log_may_be_spelled_out_and_others_inside_are_refused() {
    let (_kept, folder) = folder_with("snapshot", SNAPSHOT);
    std::fs::create_dir(folder.join("real")).unwrap();
    std::os::unix::fs::symlink("real", folder.join("link")).unwrap();
    for (data, log) in [
        ("data", "data/member/wal"),
        ("data", "./data//member/wal/"),
        ("data", "data/../data/member/wal/."),
        ("link/data", "real/data/member/wal"),
    ] {
        said(&folder, &format!("snapshot restore snapshot --data-dir {data} --wal-dir {log}"));
        assert_eq!(said(&folder, &format!("hashkv {data}/member/snap/db")), HASH, "{log}");
        assert!(folder.join(data).join("member").join("wal").is_dir(), "{log}");
        std::fs::remove_dir_all(folder.join(data)).unwrap();
    }
    for log in ["a/b/member", "a/b/member/snap", "a/b/member.restore/wal", "a/b", "a/b/"] {
        let line = format!("snapshot restore snapshot --data-dir a/b --wal-dir {log}");
        let error = refused(&folder, &line);
        assert!(error.starts_with(&format!("Error: the log cannot lie in {log}: ")), "{error}");
        assert!(!folder.join("a").exists(), "{log}");
    }
}

#[test]
fn a_restore_that_fails_leaves_nothing_and_the_next_one_works() {
    let mut damaged = SNAPSHOT.to_vec();
    let at = damaged.windows(9).position(|bytes| bytes == [b'z'; 9]).unwrap();
    // The first page of the leaf of keys: its number is wrong now.
    let page = (0..=at / 4096).rev().find(|page| damaged[page * 4096 + 8] == 2).unwrap();
    damaged[page * 4096] ^= 0x40;
    let (_kept, folder) = folder_with("damaged", &damaged);
    let line = "snapshot restore damaged --data-dir data --wal-dir log";
    assert!(refused(&folder, line).starts_with("Error: expected sha256 ["));
    let error = refused(&folder, &format!("{line} --skip-hash-check"));
    assert!(error.starts_with("Error: page ") && error.lines().count() == 1, "{error}");
    assert_eq!(std::fs::read_dir(folder.join("data")).unwrap().count(), 0);
    assert!(!folder.join("log").exists());
    std::fs::write(folder.join("snapshot"), SNAPSHOT).unwrap();
    std::fs::write(folder.join("file"), "").unwrap();
    refused(&folder, "snapshot restore snapshot --data-dir data --wal-dir file/log");
    assert_eq!(std::fs::read_dir(folder.join("data")).unwrap().count(), 0);
    said(&folder, "snapshot restore snapshot --data-dir data --wal-dir log");
    assert_eq!(said(&folder, "hashkv data/member/snap/db"), HASH);
}

/// Prints what a command shows on a terminal; needs `script`, of util-linux.
fn on_terminal(folder: &Path, line: &str) -> Option<String> {
    let tool = env!("CARGO_BIN_EXE_etchedutl");
    let mut command = Command::new("script");
    command.current_dir(folder).args(["-qfec", &format!("{tool} {line}"), "/dev/null"]);
    let output = command.stdin(std::process::Stdio::null()).output().ok()?;
    assert!(output.status.success(), "{line}: {output:?}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn long_work_shows_a_bar_on_a_terminal_and_nowhere_else() {
    let (_kept, folder) = folder_with("snapshot", SNAPSHOT);
    let restored = run(&folder, "snapshot restore snapshot --data-dir data");
    assert!(restored.status.success());
    for line in [
        "snapshot restore snapshot --data-dir again",
        "hashkv data/member/snap/db",
        "defrag --data-dir data",
    ] {
        if let Some(shown) = on_terminal(&folder, line) {
            assert!(shown.contains("%, 0 s") || shown.contains("%, 1 s"), "{line}: {shown}");
        }
    }
    for output in [
        restored,
        run(&folder, "hashkv data/member/snap/db"),
        run(&folder, "defrag --data-dir data"),
    ] {
        assert!(!String::from_utf8_lossy(&output.stderr).contains('%'));
    }
}

#[test]
fn what_is_no_store_of_ours_is_named() {
    let (_kept, folder) = folder_with("snapshot", SNAPSHOT);
    assert_eq!(
        refused(&folder, "hashkv missing"),
        "Error: stat missing: no such file or directory"
    );
    assert!(refused(&folder, "hashkv snapshot").contains("etcd"));
    assert_eq!(
        refused(&folder, "defrag --data-dir none"),
        "Error: Failed to defragment etcd data[none] (stat none/member/snap/db: no such file or \
         directory)"
    );
}
