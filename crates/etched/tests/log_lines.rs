//! What an event looks like in the log.

use std::fs;

use etched::logging::{Format, Level, LogSubscriber, Options, Output};
use serde_json::Value;
use tracing::{debug, error, info, warn};

/// The lines that `events` leave in a log of that level and format.
fn lines(level: Level, format: Format, events: impl FnOnce()) -> Vec<String> {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let path = directory.path().join("log");
    let outputs = vec![Output::File(path.clone())];
    let options = Options { level, format, outputs, rotation: None };
    let log = LogSubscriber::open(&options).expect("a file in a temporary folder opens");
    tracing::subscriber::with_default(log, events);
    let text = fs::read_to_string(path).expect("the log");
    text.lines().map(str::to_owned).collect()
}

fn json(events: impl FnOnce()) -> Vec<Value> {
    let lines = lines(Level::Debug, Format::Json, events);
    lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn a_line_has_etcds_keys_in_etcds_order() {
    let lines = lines(Level::Info, Format::Json, || {
        warn!("member-id" = "8e9e05c52164694d", took = ?std::time::Duration::from_millis(5), "slow");
    });
    let keys: Vec<_> = [
        "{\"level\":\"warn\",\"ts\":\"",
        "\"caller\":\"tests/log_lines.rs:",
        "\"msg\":\"slow\",\"member-id\":\"8e9e05c52164694d\",\"took\":\"5ms\"}",
    ]
    .into_iter()
    .map(|part| lines[0].find(part))
    .collect();
    assert!(keys.iter().all(Option::is_some) && keys.is_sorted(), "{}", lines[0]);
    let ts: Value = serde_json::from_str(&lines[0]).unwrap();
    let ts = ts["ts"].as_str().unwrap();
    assert_eq!((ts.len(), &ts[10..11], &ts[19..20], &ts[26..]), (27, "T", ".", "Z"));
}

#[test]
fn values_keep_their_kind() {
    let urls = vec!["http://a:1".to_owned(), "http://b:1 \"x\"".to_owned()];
    let lines = json(|| {
        error!(
            count = 7u64, below = -7, ratio = 0.5, nan = f64::NAN, ok = true, text = "a\"b\n",
            shown = %"[x", urls = ?urls, none = ?Option::<u8>::None, "kinds"
        );
    });
    let line = &lines[0];
    assert_eq!(
        (&line["count"], &line["below"], &line["ratio"]),
        (&7.into(), &(-7).into(), &0.5.into())
    );
    assert_eq!((&line["ok"], &line["nan"]), (&true.into(), &"NaN".into()));
    assert_eq!((&line["text"], &line["shown"]), (&"a\"b\n".into(), &"[x".into()));
    assert_eq!(line["urls"], Value::from(urls));
    assert_eq!(line["none"], "None");
}

#[test]
fn a_written_out_target_is_the_logger() {
    let lines = json(|| {
        error!(target: "raft", "became leader");
        error!("plain");
    });
    assert_eq!(lines[0]["logger"], "raft");
    assert_eq!(lines[1].get("logger"), None);
}

#[test]
fn an_error_can_be_fatal() {
    let lines = json(|| error!(level = "fatal", error = "why", "discovery failed"));
    assert_eq!(lines[0]["level"], "fatal");
    assert_eq!(lines[0]["error"], "why");
}

#[test]
fn lines_below_the_level_are_left_out() {
    let events = || {
        warn!("warn");
        error!("error");
        error!(level = "fatal", "fatal");
    };
    assert_eq!(lines(Level::Info, Format::Json, events).len(), 3);
    assert_eq!(lines(Level::Error, Format::Json, events).len(), 2);
    assert_eq!(lines(Level::Fatal, Format::Json, events).len(), 1);
}

#[test]
fn other_crates_are_heard_from_warnings_on() {
    // This test is a crate of its own, so its own events are those of another crate.
    let lines = json(|| {
        debug!("debug");
        info!("info");
        warn!("warn");
        let _ = etched::config_file::read("no-such-key: 1");
    });
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["msg"], "warn");
    assert_eq!(lines[1]["keys"], Value::from(vec!["no-such-key"]));
    assert!(lines[1]["caller"].as_str().unwrap().starts_with("etched/config_file.rs:"));
}

#[test]
fn console_lines_are_for_people() {
    let lines = lines(Level::Info, Format::Console, || {
        warn!(target: "raft", count = 1, urls = ?["a", "b"], "with fields");
        warn!("without");
    });
    let parts: Vec<_> = lines[0].split('\t').collect();
    assert_eq!((parts[1], parts[2]), ("warn", "raft"));
    assert!(parts[3].starts_with("tests/log_lines.rs:"));
    assert_eq!(parts[4..], ["with fields", "{\"count\": 1, \"urls\": [\"a\", \"b\"]}"]);
    assert_eq!(lines[1].split('\t').count(), 4);
}

#[test]
fn a_flood_is_thinned_out() {
    let lines = json(|| {
        for number in 0..100_000 {
            warn!(number, "again");
        }
        warn!("something else");
    });
    assert!(lines.len() < 10_000, "{}", lines.len());
    assert!((0..100).all(|number| lines[number]["number"] == number));
    assert_eq!(lines.last().unwrap()["msg"], "something else");
}
