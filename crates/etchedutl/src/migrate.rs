//! `etchedutl migrate --check`: what a start of etched would make of a data directory of etcd's.
//!
//! Looks at all of it that a start looks at before it changes anything, reads every page of the database, and changes
//! nothing. Schemas of etcd's are not migrated: a start takes over those of 3.5 to 3.7 as they are.

use std::path::{Path, PathBuf};

use etched::go_values::io_reason;
use etched_server::{Found, check_take_over, store_file};

use crate::Failure;
use crate::arguments::{ArgumentError, Flag, Given, Kind};
use crate::output::Format;
use crate::progress::shown;
use crate::usage::WRITE_OUT;

const fn flag(name: &'static str, kind: Kind, help: &'static str) -> Flag {
    Flag { name, short: None, kind, default: "", help }
}

const DATA_DIR: Flag = flag("data-dir", Kind::Text, "Required. Path to the etcd data dir");
const WAL_DIR: Flag =
    flag("wal-dir", Kind::Text, "Path to the WAL directory (use --data-dir if none given)");
const CHECK: Flag = flag(
    "check",
    Kind::Switch,
    "Required. Say whether etched can take the directory over, and change nothing",
);
/// The command's flags.
pub(crate) const FLAGS: [Flag; 3] = [CHECK, DATA_DIR, WAL_DIR];

/// Whether these arguments ask for what is there: the check, or how the command is called.
pub(crate) fn is_there(arguments: &[String]) -> bool {
    arguments.iter().any(|word| {
        word.split('=').next() == Some("--check") || matches!(word.as_str(), "-h" | "--help")
    })
}

/// The refusal of everything else.
pub(crate) fn refusal() -> Failure {
    Failure::Later { command: "migrate", there: "--check" }
}

/// Says what a start would find; `usage` is how the command is called.
///
/// # Errors
/// [`Failure`].
pub(crate) fn run(given: &Given, usage: String) -> Result<String, Failure> {
    if !given.is_on(CHECK.name) {
        return Err(refusal());
    }
    let data_dir = given.text(&DATA_DIR);
    if data_dir.is_empty() {
        let error = ArgumentError::Required(DATA_DIR.name);
        return Err(Failure::Arguments { error, usage });
    }
    let format = Format::of(given.text(&WRITE_OUT))?;
    let store = store_file(Path::new(data_dir));
    std::fs::metadata(&store).map_err(|error| {
        Failure::Failed(format!("stat {}: {}", store.display(), io_reason(&error)))
    })?;
    let wal_dir = Some(given.text(&WAL_DIR)).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let found = shown(|_| check_take_over(Path::new(data_dir), wal_dir)).map_err(|reason| {
        Failure::Failed(format!("cannot take over the etcd data directory {data_dir}: {reason}"))
    })?;
    let found = found.ok_or_else(|| {
        Failure::Failed(format!("{} is not a database of etcd's", store.display()))
    })?;
    text(&found, format)
}

fn text(found: &Found, format: Format) -> Result<String, Failure> {
    let Found { version, member_id, cluster_id, index, term, waiting, database_bytes, .. } = found;
    let version = version.as_deref().unwrap_or("none yet");
    match format {
        Format::Simple => Ok(format!(
            "a data directory of etcd, storage version {version}\n\
             member {member_id:x} of cluster {cluster_id:x}, alone in it\n\
             database of {database_bytes} bytes at index {index} of term {term}, {waiting} entries in the log behind it\n\
             a start of etched would take it over and keep the database as {}\n",
            found.kept_name()
        )),
        Format::Json => {
            let name = serde_json::Value::from(version);
            Ok(format!(
                "{{\"storageVersion\":{name},\"memberID\":{member_id},\"clusterID\":{cluster_id},\
                 \"index\":{index},\"term\":{term},\"entriesBehind\":{waiting},\
                 \"databaseBytes\":{database_bytes}}}\n"
            ))
        }
        Format::Fields | Format::Table => {
            Err(Failure::Format("only simple and json are supported as output format".to_owned()))
        }
    }
}
