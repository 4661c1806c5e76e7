//! `cargo xtask test [STAGE...]`: every test of the project, by one command.
//!
//! ```text
//! rust    format, clippy with warnings denied, cargo test of the workspace
//! compat  Go and python clients on etched and on real etcd      (compat-tests/run)
//! common  etcd's own black-box suite on etched, also over TLS   (compat-tests/common)
//! crash   kill -9, full disks, damaged files                    (compat-tests/crash)
//! kube    a real kube-apiserver on etched and on real etcd      (compat-tests/kube)
//! ```
//! Stages named on the command line are the only ones that run. The release binary is built before
//! the first stage that runs it. A stage's totals are read from what its programs print; the last
//! line printed is the sum. A stage goes on after a failure, and so do the stages behind it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::tools;

/// What a stage counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Totals {
    fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

/// One group of tests: its name on the command line and the commands it runs, in order.
struct Stage {
    name: &'static str,
    needs: &'static [&'static tools::Tool],
    /// Whether it runs the release binary.
    binary: bool,
    commands: fn() -> Vec<Command>,
}

const STAGES: [Stage; 5] = [
    Stage { name: "rust", needs: &[], binary: false, commands: rust },
    Stage { name: "compat", needs: &[&tools::GO, &tools::PYTHON], binary: true, commands: compat },
    Stage {
        name: "common",
        needs: &[&tools::GO, &tools::PYTHON, &tools::UNSHARE],
        binary: true,
        commands: common,
    },
    Stage { name: "crash", needs: &[&tools::GO, &tools::UNSHARE], binary: true, commands: crash },
    Stage {
        name: "kube",
        needs: &[&tools::GO, &tools::PYTHON],
        binary: true,
        commands: || {
            vec![with_binary(tools::command("compat-tests", "./run", &["kube-apiserver"]))]
        },
    },
];

fn rust() -> Vec<Command> {
    vec![
        tools::cargo(&["fmt", "--all", "--check"]),
        tools::cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        tools::cargo(&["test", "--workspace", "--no-fail-fast"]),
        // the tests of the generated sources need the compiler that every other build does without
        tools::cargo(&["test", "--package", "xtask", "--features", "codegen", "codegen"]),
    ]
}

fn compat() -> Vec<Command> {
    vec![
        go_test("compat-tests/descriptors", "./..."),
        go_test("compat-tests", "./load"),
        with_binary(tools::command("compat-tests", "./run", &[])),
    ]
}

fn common() -> Vec<Command> {
    let kinds: [&[&str]; 3] =
        [&["run.py"], &["run.py", "--tls", "TLS"], &["run.py", "--tls", "AutoTLS"]];
    let suite = |arguments| tools::command("compat-tests/common", "python3", arguments);
    kinds.map(|arguments| with_binary(suite(arguments))).into()
}

/// Go tests that need no server; `-v` prints each test, to be counted.
fn go_test(folder: &str, packages: &str) -> Command {
    tools::command(folder, "go", &["test", "-v", packages])
}

fn crash() -> Vec<Command> {
    let program = tools::target().join("compat").join("crash");
    let checker = go_test("compat-tests", "./crash");
    let build = tools::go_build("./crash", &program);
    vec![checker, build, with_binary(Command::new(program))]
}

/// Tells a program of compat-tests which server is under test.
fn with_binary(mut command: Command) -> Command {
    command.env("ETCHED_BIN", tools::etched());
    command
}

/// Runs the stages named, or all of them.
pub(crate) fn run(names: &[String]) -> Result<(), String> {
    let unknown = names.iter().find(|name| STAGES.iter().all(|stage| stage.name != **name));
    if let Some(name) = unknown {
        let known = STAGES.map(|stage| stage.name).join(", ");
        return Err(format!("no stage is called {name:?}; there are {known}"));
    }
    let chosen: Vec<&Stage> = STAGES
        .iter()
        .filter(|stage| names.is_empty() || names.iter().any(|name| name == stage.name))
        .collect();
    for stage in &chosen {
        tools::require(stage.needs)?;
    }
    let began = Instant::now();
    let results = run_stages(&chosen);
    let sum = results.iter().fold(Totals::default(), |sum, (_, totals, _)| sum.plus(*totals));
    println!("\n{:8} {:>8} {:>8} {:>8} {:>10}", "stage", "passed", "failed", "skipped", "time");
    for (name, totals, spent) in &results {
        let Totals { passed, failed, skipped } = totals;
        println!("{name:8} {passed:>8} {failed:>8} {skipped:>8} {:>8.1} s", spent.as_secs_f64());
    }
    println!("all of it in {:.1} s", began.elapsed().as_secs_f64());
    println!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    if sum.failed == 0 { Ok(()) } else { Err("tests failed".to_owned()) }
}

fn run_stages(chosen: &[&Stage]) -> Vec<(&'static str, Totals, Duration)> {
    let mut results = Vec::new();
    let mut built = std::env::var_os("ETCHED_BIN").is_some();
    for stage in chosen {
        if stage.binary && !built {
            built = true;
            let release = tools::cargo(&[
                "build",
                "--release",
                "--package",
                "etched",
                "--package",
                "etchedutl",
            ]);
            results.push(timed("build", vec![release]));
        }
        results.push(timed(stage.name, (stage.commands)()));
    }
    results
}

fn timed(name: &'static str, commands: Vec<Command>) -> (&'static str, Totals, Duration) {
    println!("\n== {name}");
    let began = Instant::now();
    let totals = commands.into_iter().map(counted).fold(Totals::default(), Totals::plus);
    let spent = began.elapsed();
    println!("== {name}: {:.1} s", spent.as_secs_f64());
    (name, totals, spent)
}

/// Runs a command, lets its output through, and counts what it says. A command that fails without
/// counting a failure is one failure.
fn counted(mut command: Command) -> Totals {
    println!("-- {}", shown(&command));
    let spawned = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            println!("cannot run it: {error}");
            return Totals { failed: 1, ..Totals::default() };
        }
    };
    let mut tally = Tally::default();
    let mut output = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line);
        print!("{text}");
        tally.line(text.trim_end());
        line.clear();
    }
    let succeeded = child.wait().is_ok_and(|status| status.success());
    let mut totals = tally.totals();
    if !succeeded && totals.failed == 0 {
        totals.failed = 1;
    }
    totals
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Totals as the runners print them: cargo's for each binary, Go's for each test, or one plain
/// closing line.
#[derive(Debug, Default)]
struct Tally {
    added: Totals,
    /// The last plain line: a command that prints several closes with their sum.
    plain: Option<Totals>,
}

impl Tally {
    fn line(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result:") {
            let counts = result.split_once(". ").map_or(result, |(_, counts)| counts);
            let counts = counts_in(counts.split(';'), "ignored").unwrap_or_default();
            self.added = self.added.plus(counts);
        } else if let Some(outcome) = line.strip_prefix("--- ") {
            match outcome.split_once(": ") {
                Some(("PASS", _)) => self.added.passed += 1,
                Some(("FAIL", _)) => self.added.failed += 1,
                Some(("SKIP", _)) => self.added.skipped += 1,
                _ => {}
            }
        } else {
            let counts = line.split_once(": ").filter(|(word, _)| !word.contains(' '));
            let counts = counts.map_or(line, |(_, counts)| counts);
            self.plain = counts_in(counts.split(','), "skipped").or(self.plain);
        }
    }

    fn totals(&self) -> Totals {
        self.plain.unwrap_or(self.added)
    }
}

/// Reads "3 passed", "0 failed", and how many were left out; nothing when it is another line.
fn counts_in<'a>(parts: impl Iterator<Item = &'a str>, left_out: &str) -> Option<Totals> {
    let mut totals = Totals::default();
    let mut seen = 0;
    for part in parts {
        let (number, word) = part.trim().split_once(' ')?;
        let number = number.parse();
        match word {
            "passed" => totals.passed = number.ok()?,
            "failed" => totals.failed = number.ok()?,
            word if word == left_out => totals.skipped = number.ok()?,
            _ => continue,
        }
        seen += 1;
    }
    (seen >= 2).then_some(totals)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(lines: &[&str]) -> Totals {
        let mut tally = Tally::default();
        lines.iter().for_each(|line| tally.line(line));
        tally.totals()
    }

    #[test]
    fn results_of_several_test_binaries_are_added() {
        let first = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        let second = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        let sum = Totals { passed: 15, failed: 2, skipped: 1 };
        assert_eq!(totals(&[first, "running 5 tests", second]), sum);
    }

    #[test]
    fn of_plain_lines_the_last_one_counts() {
        let sum = Totals { passed: 9, failed: 1, skipped: 4 };
        assert_eq!(totals(&["crash: 3 passed, 0 failed", "9 passed, 1 failed, 4 skipped"]), sum);
    }

    #[test]
    fn tests_of_go_count_without_their_subtests() {
        let lines =
            ["=== RUN   TestA", "--- PASS: TestA (0.0s)", "    --- FAIL: TestA/b (0.0s)", "ok"];
        assert_eq!(totals(&lines), Totals { passed: 1, ..Totals::default() });
        assert_eq!(totals(&["--- FAIL: TestC (0.0s)"]), Totals { failed: 1, ..Totals::default() });
    }

    #[test]
    fn other_lines_count_for_nothing() {
        let lines =
            ["etcd's suite: 3 passed, 1 failed", "2 cases wait, 3 more passed", "passed, failed"];
        assert_eq!(totals(&lines), Totals::default());
    }

    #[test]
    fn a_command_that_fails_silently_is_one_failure() {
        let mut silent = Command::new("sh");
        silent.args(["-c", "exit 3"]);
        assert_eq!(counted(silent), Totals { failed: 1, ..Totals::default() });
    }

    #[test]
    fn a_failing_command_keeps_its_own_count() {
        let mut loud = Command::new("sh");
        loud.args(["-c", "echo '1 passed, 2 failed, 0 skipped'; exit 1"]);
        assert_eq!(counted(loud), Totals { passed: 1, failed: 2, skipped: 0 });
    }
}
