//! `etchedutl snapshot restore`.

use std::path::{Path, PathBuf};

use etched::bootstrap::{BootstrapError, InitialCluster};
use etched::go_values::{io_reason, quote};
use etched::urls::{Url, UrlError};
use etched_server::{Restore, RestoreError};

use crate::Failure;
use crate::arguments::{Flag, Given, Kind};
use crate::progress::shown;

const fn flag(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag { name, short: None, kind, default, help }
}

const DATA_DIR: Flag = flag("data-dir", Kind::Text, "", "Path to the output data directory");
const WAL_DIR: Flag =
    flag("wal-dir", Kind::Text, "", "Path to the WAL directory (use --data-dir if none given)");
const CLUSTER: Flag = flag(
    "initial-cluster",
    Kind::Text,
    "default=http://localhost:2380",
    "Initial cluster configuration for restore bootstrap",
);
const TOKEN: Flag = flag(
    "initial-cluster-token",
    Kind::Text,
    "etcd-cluster",
    "Initial cluster token for the etcd cluster during restore bootstrap",
);
const PEER_URLS: Flag = flag(
    "initial-advertise-peer-urls",
    Kind::Text,
    "http://localhost:2380",
    "List of this member's peer URLs to advertise to the rest of the cluster",
);
const NAME: Flag = flag("name", Kind::Text, "default", "Human-readable name for this member");
const SKIP_HASH_CHECK: Flag = flag(
    "skip-hash-check",
    Kind::Switch,
    "",
    "Ignore snapshot integrity hash value (required if copied from data directory)",
);
const MAP_SIZE: Flag = flag(
    "initial-memory-map-size",
    Kind::Number,
    "10737418240",
    "Initial memory map size of the database in bytes. It has no effect: no database is mapped",
);
const BUMP: Flag = flag(
    "bump-revision",
    Kind::Number,
    "0",
    "How much to increase the latest revision after restore",
);
const COMPACTED: Flag = flag(
    "mark-compacted",
    Kind::Switch,
    "",
    "Mark the latest revision after restore as the point of scheduled compaction (required if --bump-revision > 0, disallowed otherwise)",
);
/// The command's flags.
pub(crate) const FLAGS: [Flag; 10] = [
    DATA_DIR,
    WAL_DIR,
    CLUSTER,
    TOKEN,
    PEER_URLS,
    NAME,
    SKIP_HASH_CHECK,
    MAP_SIZE,
    BUMP,
    COMPACTED,
];

/// Restores; prints nothing but its log.
///
/// # Errors
/// [`Failure`].
pub(crate) fn run(given: &Given) -> Result<String, Failure> {
    let [snapshot] = given.words.as_slice() else {
        let text = "snapshot restore requires exactly one argument";
        return Err(Failure::BadArguments(text.to_owned()));
    };
    let bump: u64 = given.text(&BUMP).parse().unwrap_or_default();
    if (bump > 0) != given.is_on(COMPACTED.name) {
        let text = "--mark-compacted required if --revision-bump > 0";
        return Err(Failure::BadArguments(text.to_owned()));
    }
    let plan = plan(given, Path::new(snapshot), bump)?;
    log("restoring snapshot", &plan);
    let restored =
        shown(|how_far| etched_server::restore(&plan, &mut |done, total| how_far.set(done, total)));
    restored.map_err(|error| Failure::Failed(words(&error)))?;
    log("restored snapshot", &plan);
    Ok(String::new())
}

fn plan(given: &Given, snapshot: &Path, bump: u64) -> Result<Restore, Failure> {
    let bad_url = |error: UrlError| Failure::Failed(error.to_string());
    let advertised = Url::parse_list(given.text(&PEER_URLS)).map_err(bad_url)?;
    let name = given.text(&NAME).to_owned();
    let cluster = InitialCluster::parse(given.text(&CLUSTER)).map_err(bad_url)?;
    let cluster = cluster.checked(&name, Some(&advertised)).map_err(|error| match error {
        BootstrapError::PeerUrl(error) => bad_url(error),
        error => Failure::Failed(error.to_string()),
    })?;
    let data_dir = match given.text(&DATA_DIR) {
        "" => PathBuf::from(format!("{name}.etcd")),
        data_dir => PathBuf::from(data_dir),
    };
    if data_dir.exists() && !is_empty(&data_dir) {
        let data_dir = quote(&data_dir.to_string_lossy());
        return Err(Failure::Failed(format!("data-dir {data_dir} not empty or could not be read")));
    }
    let wal_dir = Some(given.text(&WAL_DIR)).filter(|dir| !dir.is_empty());
    if let Some(dir) = wal_dir.filter(|dir| Path::new(dir).exists()) {
        return Err(Failure::Failed(format!("wal-dir {} exists", quote(dir))));
    }
    let text = |urls: Vec<Url>| urls.iter().map(|url| url.as_str().to_owned()).collect();
    Ok(Restore {
        snapshot: snapshot.to_owned(),
        skip_hash_check: given.is_on(SKIP_HASH_CHECK.name),
        data_dir,
        wal_dir: wal_dir.map(PathBuf::from),
        name,
        members: cluster.members.into_iter().map(|(name, urls)| (name, text(urls))).collect(),
        token: given.text(&TOKEN).to_owned(),
        bump_revision: Some(bump).filter(|bump| *bump > 0),
    })
}

/// What a restore that was killed left counts for nothing: this one takes its place.
fn is_empty(folder: &Path) -> bool {
    let left_over = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name() == Restore::UNFINISHED)
    };
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.all(left_over))
}

/// The error as etcdutl would say it.
fn words(error: &RestoreError) -> String {
    match error {
        RestoreError::Io { action, path, source } => {
            format!("{action} {}: {}", path.display(), io_reason(source))
        }
        error => error.to_string(),
    }
}

/// A line as etcdutl logs it, without what only it has.
fn log(message: &str, plan: &Restore) {
    let snap = plan.data_dir.join("member").join("snap");
    let wal = plan.wal_dir.clone().unwrap_or_else(|| plan.data_dir.join("member").join("wal"));
    let fields = [
        ("path", &plan.snapshot),
        ("wal-dir", &wal),
        ("data-dir", &plan.data_dir),
        ("snap-dir", &snap),
    ];
    let fields = fields.map(|(name, path)| {
        format!("{name:?}: {}", serde_json::Value::from(path.to_string_lossy()))
    });
    eprintln!("info\t{message}\t{{{}}}", fields.join(", "));
}
