//! What a member without data asks others before it begins.
//!
//! ```text
//! new:      GET /members of the others ──> am I there with client URLs? then my data is lost: refuse
//! existing: GET /members ──> ids; GET /version, /downgrade/enabled ──> can I be part of it?
//! ```

use std::time::Duration;

use serde::Deserialize;

use crate::StartError;
use crate::ask::{Dial, Question, Told};
use crate::beginning::{Beginning, Joined, urls_of_others};
use crate::cluster::Member;
use crate::config::{ClusterState, Config};
use crate::versions::{self, Version};

/// How long one member may take to tell who is in the cluster that is to be joined; etcd's.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(10);

/// The same when a new cluster is made: mostly nobody is there yet.
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);

/// What `/version` says.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Versions {
    /// The server's.
    #[serde(rename = "etcdserver", default)]
    pub(crate) server: String,
    /// The cluster's, as far as it knows.
    #[serde(rename = "etcdcluster", default)]
    pub(crate) cluster: String,
}

/// How a member without data begins.
///
/// # Errors
/// [`StartError::Bootstrap`] in etcd's words.
pub(crate) async fn begin(config: &Config, dial: &Dial) -> Result<Beginning, StartError> {
    match config.initial_cluster_state {
        ClusterState::New => {
            let begins = Beginning::of_new(config)?;
            refuse_bootstrapped(config, dial, &begins).await?;
            Ok(begins)
        }
        ClusterState::Existing => join(config, dial).await,
    }
}

/// A member that the others know to have served has lost its data: as a new one it would forget what it agreed to.
async fn refuse_bootstrapped(
    config: &Config,
    dial: &Dial,
    begins: &Beginning,
) -> Result<(), StartError> {
    let own = begins.member_id;
    let there = cluster_of(dial, &urls_of_others(config), FIRST_TIMEOUT, false).await;
    let Ok(there) = there else { return Ok(()) };
    let known = there.members.iter().find(|member| member.id == own);
    if known.is_some_and(|member| !member.client_urls.is_empty()) {
        let text = format!("member {own:x} has already been bootstrapped");
        return Err(StartError::Bootstrap(text));
    }
    Ok(())
}

async fn join(config: &Config, dial: &Dial) -> Result<Beginning, StartError> {
    let refused = |text: String| StartError::Bootstrap(text);
    let there = cluster_of(dial, &urls_of_others(config), MEMBERS_TIMEOUT, true)
        .await
        .map_err(|reason| refused(format!("cannot fetch cluster info from peer urls: {reason}")))?;
    let begins = Beginning::of_existing(config, there)?;
    if !is_compatible(config, dial, &begins).await {
        return Err(refused("incompatible with current running cluster".to_owned()));
    }
    Ok(begins)
}

/// The cluster as the first of `urls` that answers has it.
async fn cluster_of(
    dial: &Dial,
    urls: &[String],
    wait: Duration,
    says_why: bool,
) -> Result<Joined, &'static str> {
    for url in urls {
        let answer = dial.ask(url, Question::get("/members"), wait).await;
        let joined = answer.map_err(|error| error.to_string());
        let joined = joined.and_then(|told| read_members(&told));
        match joined {
            Ok(joined) if joined.members.is_empty() => {
                return Err("failed to get raft cluster member(s) from the given URLs");
            }
            Ok(joined) => return Ok(joined),
            Err(error) if says_why => {
                let address = format!("{url}/members");
                tracing::warn!(address, error, "failed to get cluster response");
            }
            Err(_) => {}
        }
    }
    Err("could not retrieve cluster information from the given URLs")
}

fn read_members(told: &Told) -> Result<Joined, String> {
    let members: Vec<Member> =
        serde_json::from_slice(&told.body).map_err(|error| error.to_string())?;
    let id = told.headers.get("x-etcd-cluster-id").and_then(|value| value.to_str().ok());
    let cluster_id = u64::from_str_radix(id.unwrap_or_default(), 16)
        .map_err(|error| format!("failed to parse cluster ID: {error}"))?;
    Ok(Joined { cluster_id, members })
}

/// Whether at least one member has a cluster version that this server can have too, and none another one.
async fn is_compatible(config: &Config, dial: &Dial, begins: &Beginning) -> bool {
    let wait = config.request_timeout();
    let others = || begins.remotes.iter().filter(|member| member.id != begins.member_id);
    let mut found = Vec::new();
    for member in others() {
        if let Some(versions) = versions_of(dial, member, wait).await {
            found.push(versions);
        }
    }
    let mut downgrade = false;
    for member in others() {
        if let Some(enabled) = downgrade_enabled(dial, member, wait).await {
            downgrade = enabled;
            break;
        }
    }
    let allowed = versions::joinable(downgrade);
    let clusters: Vec<Version> =
        found.iter().filter_map(|versions| Version::parse(&versions.cluster)).collect();
    if let Some(version) = clusters.iter().find(|version| !allowed.contains(version)) {
        tracing::warn!(
            "remote-member-cluster-version" = %version,
            "minimum-cluster-version-supported" = %allowed.start(),
            "maximum-cluster-version-supported" = %allowed.end(),
            "cluster version of remote member is not compatible"
        );
        return false;
    }
    !clusters.is_empty()
}

/// What a member says of versions; None while it cannot be asked.
pub(crate) async fn versions_of(dial: &Dial, member: &Member, wait: Duration) -> Option<Versions> {
    let told = get(dial, member, "/version", wait).await?;
    serde_json::from_slice(&told.body).ok()
}

async fn get(dial: &Dial, member: &Member, path: &str, wait: Duration) -> Option<Told> {
    let question = Question::get(path);
    dial.ask_any(&member.peer_urls, &question, wait).await
}

async fn downgrade_enabled(dial: &Dial, member: &Member, wait: Duration) -> Option<bool> {
    let told = get(dial, member, "/downgrade/enabled", wait).await?;
    match &told.body[..] {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}
