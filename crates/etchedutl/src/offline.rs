//! `etchedutl hashkv` and `etchedutl defrag`: on a store whose server has ended.

use std::path::Path;
use std::time::Duration;

use etched::go_values::{GoDuration, io_reason};
use etched_server::{Offline, StartError, store_file};

use crate::Failure;
use crate::arguments::{ArgumentError, Flag, Given, Kind};
use crate::output::Format;
use crate::progress::shown;
use crate::usage::{TIMEOUT, WRITE_OUT};

const REVISION: Flag = Flag {
    name: "rev",
    short: None,
    kind: Kind::Signed,
    default: "0",
    help: "maximum revision to hash (default: latest revision)",
};
const DATA_DIR: Flag = Flag {
    name: "data-dir",
    short: None,
    kind: Kind::Text,
    default: "",
    help: "Required. Defragments a data directory not in use by etched.",
};
/// Flags of `hashkv`.
pub(crate) const HASH_KV_FLAGS: [Flag; 1] = [REVISION];
/// Flags of `defrag`.
pub(crate) const DEFRAG_FLAGS: [Flag; 1] = [DATA_DIR];

/// The hash of a store's keys; `usage` is how the command is called.
///
/// # Errors
/// [`Failure`].
pub(crate) fn hash_kv(given: &Given, usage: String) -> Result<String, Failure> {
    let [file] = given.words.as_slice() else {
        let error = ArgumentError::Count { wanted: 1, given: given.words.len() };
        return Err(Failure::Arguments { error, usage });
    };
    let format = Format::of(given.text(&WRITE_OUT))?;
    exists(Path::new(file)).map_err(Failure::Failed)?;
    let revision = given.text(&REVISION).parse().unwrap_or_default();
    let hash = shown(|how_far| offline(given).hash_kv(Path::new(file), revision, how_far));
    hash.map(|hash| format.hash(&hash)).map_err(|error| Failure::Failed(words(&error)))
}

/// Gives a store's free pages back.
///
/// # Errors
/// [`Failure`].
pub(crate) fn defragment(given: &Given, usage: String) -> Result<String, Failure> {
    let data_dir = given.text(&DATA_DIR);
    if data_dir.is_empty() {
        let error = ArgumentError::Required(DATA_DIR.name);
        return Err(Failure::Arguments { error, usage });
    }
    let done = exists(&store_file(Path::new(data_dir))).and_then(|()| {
        let done = shown(|how_far| offline(given).defragment(Path::new(data_dir), how_far));
        done.map_err(|error| words(&error))
    });
    done.map(|()| String::new()).map_err(|reason| {
        Failure::Failed(format!("Failed to defragment etcd data[{data_dir}] ({reason})"))
    })
}

fn exists(file: &Path) -> Result<(), String> {
    let found = std::fs::metadata(file);
    found.map(|_| ()).map_err(|error| format!("stat {}: {}", file.display(), io_reason(&error)))
}

fn offline(given: &Given) -> Offline {
    let timeout =
        GoDuration::parse(given.text(&TIMEOUT)).map_or(Duration::ZERO, GoDuration::saturating);
    Offline { lock_timeout: Some(timeout).filter(|timeout| !timeout.is_zero()) }
}

/// The error as etcdutl would say it: without what a server puts before it.
fn words(error: &StartError) -> String {
    match error {
        StartError::Store(error) => error.to_string().trim_start_matches("etcdserver: ").to_owned(),
        error => error.to_string(),
    }
}
