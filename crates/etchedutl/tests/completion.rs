//! The scripts in the shells they are for. bash is everywhere; another shell is asked where it is installed.

#![allow(clippy::unwrap_used, reason = "helpers of tests are outside the lint's own exception")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const TOOL: &str = env!("CARGO_BIN_EXE_etchedutl");

fn script(shell: &str) -> String {
    let output = Command::new(TOOL).args(["completion", shell]).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// A folder with the script, a folder and two files in it.
fn folder(shell: &str) -> (tempfile::TempDir, PathBuf) {
    let kept = tempfile::tempdir().unwrap();
    let path = kept.path().to_owned();
    std::fs::write(path.join("script"), script(shell)).unwrap();
    std::fs::create_dir(path.join("data dir")).unwrap();
    std::fs::write(path.join("snapshot one"), "").unwrap();
    (kept, path)
}

fn is_there(shell: &str) -> bool {
    Command::new(shell).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn run(folder: &Path, shell: &str, arguments: &[&str]) -> Output {
    Command::new(shell).current_dir(folder).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What bash's function offers for these words, the last of which is being typed.
fn offered(folder: &Path, words: &[&str]) -> Vec<String> {
    let program = "source ./script; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _etchedutl; \
                   printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut arguments = vec!["--norc", "-c", program, "bash"];
    arguments.extend(words);
    let output = text(&run(folder, "bash", &arguments));
    output.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_is_offered_what_can_come() {
    let (_kept, folder) = folder("bash");
    let offered = |words: &[&str]| offered(&folder, words).join(" ");
    assert_eq!(
        offered(&["etchedutl", ""]),
        "completion defrag hashkv help migrate snapshot version"
    );
    assert_eq!(offered(&["etchedutl", "h"]), "hashkv help");
    assert_eq!(offered(&["etchedutl", "snapshot", ""]), "restore status");
    assert_eq!(offered(&["etchedutl", "-w", "json", "snapshot", "r"]), "restore");
    assert_eq!(offered(&["etchedutl", "completion", ""]), "bash zsh fish powershell");
    assert_eq!(offered(&["etchedutl", "help", "sn"]), "snapshot");
    assert_eq!(
        offered(&["etchedutl", "snapshot", "restore", "x", "--initial-c"]),
        "--initial-cluster --initial-cluster-token"
    );
    assert_eq!(offered(&["etchedutl", "defrag", "--data-dir", ""]), "data dir");
    assert_eq!(offered(&["etchedutl", "defrag", "--data-dir", "=", "da"]), "data dir");
    assert_eq!(offered(&["etchedutl", "hashkv", "snap"]), "snapshot one");
    assert_eq!(offered(&["etchedutl", "hashkv", "x", "-w", ""]), "simple json fields table");
    assert_eq!(offered(&["etchedutl", "hashkv", "--write-out", "="]), "simple json fields table");
    assert_eq!(offered(&["etchedutl", "hashkv", "--rev", ""]), "");
}

/// Types these keys into an interactive shell on a terminal; what the terminal shows.
fn typed(folder: &Path, shell: &str, keys: &str) -> String {
    let mut child = Command::new("script")
        .current_dir(folder)
        .args(["-qfec", shell, "/dev/null"])
        .env("TERM", "dumb")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(keys.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Stands for the tool: says what it was called with.
const ECHO: &str = "etchedutl() { printf 'called:%s;' \"$@\"; }\n";

#[test]
fn a_tab_in_bash_completes() {
    let (_kept, folder) = folder("bash");
    let keys = format!(
        "source ./script\n{ECHO}etchedutl sna\tsta\tsnap\t\netchedutl def\t--da\tda\t\nexit\n"
    );
    let shown = typed(&folder, "bash --norc --noprofile -i", &keys);
    assert!(shown.contains("called:snapshot;called:status;called:snapshot one;"), "{shown}");
    assert!(shown.contains("called:defrag;called:--data-dir;called:data dir"), "{shown}");
}

#[test]
fn a_tab_in_zsh_completes() {
    if !is_there("zsh") {
        eprintln!("zsh is not there: its script is not tried");
        return;
    }
    let (_kept, folder) = folder("zsh");
    assert_eq!(text(&run(&folder, "zsh", &["-n", "script"])), "");
    let keys = format!(
        "autoload -U compinit; compinit -u -D\nsource ./script\n{ECHO}\
         etchedutl sna\tsta\tsnap\t\netchedutl def\t--da\tda\t\nexit\n"
    );
    let shown = typed(&folder, "zsh -f -i", &keys);
    assert!(shown.contains("called:snapshot;called:status;called:snapshot one;"), "{shown}");
    assert!(shown.contains("called:defrag;called:--data-dir;called:data dir"), "{shown}");
}

#[test]
fn fish_is_offered_what_can_come() {
    if !is_there("fish") {
        eprintln!("fish is not there: its script is not tried");
        return;
    }
    let (_kept, folder) = folder("fish");
    let offered = |line: &str| {
        let program = format!("source ./script; complete -C '{line}'");
        let output = text(&run(&folder, "fish", &["--no-config", "-c", &program]));
        let words = output.lines().map(|line| line.split('\t').next().unwrap_or_default());
        words.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(offered("etchedutl h"), "hashkv help");
    assert_eq!(offered("etchedutl -w json snapshot "), "restore status");
    assert_eq!(offered("etchedutl defrag --data-dir da"), "data dir/");
    assert_eq!(offered("etchedutl hashkv x -w j"), "json");
    assert_eq!(offered("etchedutl hashkv snap"), "snapshot one");
}

#[test]
fn powershell_has_every_place_in_balanced_brackets() {
    let script = script("powershell");
    for (open, close) in [('{', '}'), ('(', ')')] {
        assert_eq!(script.matches(open).count(), script.matches(close).count());
    }
    for place in ["''", "'snapshot restore'", "'defrag'", "'completion'"] {
        assert!(script.contains(&format!("            {place} {{ $file = $")), "{place}");
    }
}
