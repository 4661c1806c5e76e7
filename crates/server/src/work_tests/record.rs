//! The recorded numbers, and how near the measured ones have to be.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use etched_fuzz::heap::Allocated;

use super::account::Logged;

/// Set to anything, it lets the tests write down what they measure.
const RECORD: &str = "ETCHED_RECORD_WORK";
/// Part of a number by which it may differ from the record: what a dependency's patch release or a longer number
/// may change without anybody's doing. The same code gives the same numbers.
const TOLERANCE: f64 = 0.01;
/// What a number may differ by at least, as they are recorded to two places; half a sync for a batch of 50.
const TOLERANCE_MIN: f64 = 0.01;

/// The columns of the table.
const COLUMNS: [&str; 6] =
    ["network allocs", "network bytes", "raft allocs", "raft bytes", "log bytes", "log syncs"];

/// Work of one operation, in the order of [`COLUMNS`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Work([f64; COLUMNS.len()]);

/// Counts of the network thread, the raft thread and the log.
type Counts = (Allocated, Allocated, Logged);

impl Work {
    /// What each of `operations` cost on average.
    pub(super) fn between(before: Counts, after: Counts, operations: usize) -> Self {
        let counts = |(network, raft, log): Counts| {
            [network.times, network.bytes, raft.times, raft.bytes, log.bytes, log.syncs]
        };
        let (before, after) = (counts(before), counts(after));
        Self(std::array::from_fn(|i| (after[i] - before[i]) as f64 / operations as f64))
    }
}

/// Held while the record is written: several tests may want to.
static WRITING: Mutex<()> = Mutex::new(());

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/work_tests/record.txt")
}

/// Compares `work` with the record of `workload`, or writes it there.
pub(super) fn check(workload: &str, work: &Work) {
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut record = parse(&std::fs::read_to_string(path()).unwrap_or_default());
    if std::env::var_os(RECORD).is_some() {
        record.insert(workload.to_owned(), *work);
        std::fs::write(path(), print(&record)).expect("the source is there");
        return;
    }
    let recorded = record.get(workload);
    let recorded = recorded.unwrap_or_else(|| panic!("no record of {workload:?}: {RECORD}=1"));
    if let Err(report) = compare(recorded, work) {
        panic!("{workload}, each:\n{report}");
    }
}

/// One line a workload: its columns, then its name.
fn print(record: &BTreeMap<String, Work>) -> String {
    let mut text = String::new();
    for column in COLUMNS {
        let _ = write!(text, "{column:>15}");
    }
    text.push('\n');
    for (workload, work) in record {
        for number in work.0 {
            let _ = write!(text, "{number:>15.2}");
        }
        let _ = writeln!(text, "  {workload}");
    }
    text
}

fn parse(text: &str) -> BTreeMap<String, Work> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let work = Work(std::array::from_fn(|_| {
            words.next().and_then(|word| word.parse().ok()).expect("a number in each column")
        }));
        (words.collect::<Vec<_>>().join(" "), work)
    };
    text.lines().skip(1).map(line).collect()
}

/// The table of both, if they differ by more than the tolerance.
fn compare(recorded: &Work, measured: &Work) -> Result<(), String> {
    let mut report = format!("{:>15}{:>15}{:>15}\n", "", "recorded", "measured");
    let (mut more, mut less) = (false, false);
    for ((column, recorded), measured) in COLUMNS.iter().zip(recorded.0).zip(measured.0) {
        let tolerance = (recorded * TOLERANCE).max(TOLERANCE_MIN);
        let verdict = if measured > recorded + tolerance {
            more = true;
            "  more"
        } else if measured < recorded - tolerance {
            less = true;
            "  less"
        } else {
            ""
        };
        let _ = writeln!(report, "{column:>15}{recorded:>15.2}{measured:>15.2}{verdict}");
    }
    if more {
        report.push_str("It costs more than recorded. If that has to be: ");
    } else if less {
        report.push_str("It costs less than recorded. Lower the record, so that it stays so: ");
    } else {
        return Ok(());
    }
    let _ = write!(report, "{RECORD}=1 cargo test -p etched-server work_tests");
    Err(report)
}

#[test]
fn more_and_less_than_recorded_both_fail_and_say_what_to_do() {
    let recorded = Work([10.0, 1000.0, 0.5, 40.0, 0.0, 1.0]);
    let near = Work([10.05, 991.0, 0.505, 40.0, 0.005, 1.0]);
    assert_eq!(compare(&recorded, &near), Ok(()));
    let more = compare(&recorded, &Work([10.0, 900.0, 0.5, 40.0, 0.0, 1.1])).unwrap_err();
    assert!(more.contains("1.10  more") && more.contains("900.00  less"), "{more}");
    assert!(more.contains("costs more"), "{more}");
    let batch = |syncs| Work([10.0, 1000.0, 0.5, 40.0, 0.0, syncs / 50.0]);
    assert!(compare(&batch(1.0), &batch(2.0)).is_err(), "a second sync for a batch of 50");
    let less = compare(&recorded, &Work([9.0, 1000.0, 0.5, 40.0, 0.0, 1.0])).unwrap_err();
    assert!(less.contains("Lower the record"), "{less}");
}

#[test]
fn the_record_reads_back_as_it_was_written() {
    let work = Work([1.0, 2.25, 3.0, 4.5, 5.0, 0.02]);
    let record = BTreeMap::from([("a put, twice".to_owned(), work)]);
    assert_eq!(parse(&print(&record)), record);
}
