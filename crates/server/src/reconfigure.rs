//! Changes of the membership, from the request to the entry.
//!
//! ```text
//! MemberAdd ... ──> would the quorum be lost? ──> entry ──> judged again when it is applied (`membership`) ──> answer
//! ```
//! What is looked at here is this member's view and only spares everybody a bad change; with
//! `--strict-reconfig-check=false` it is not looked at.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use etched_consensus::{ConfChange, ConfChangeKind};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::cluster::{Cluster, Member};
use crate::deadline;
use crate::error::Error;
use crate::id;
use crate::lane;
use crate::shared::{Answer, Event, Shared, Waiter};

/// How long a member has to have been connected to count as healthy; etcd's.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);

/// How far a learner has to have the leader's log before it may vote.
const READY: f64 = 0.9;

/// Adds a member; it, and all members then.
///
/// # Errors
/// Why not.
pub(crate) async fn add(
    shared: &Shared,
    peer_urls: Vec<String>,
    is_learner: bool,
) -> Result<(Member, Vec<Member>), Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // As in etcd: the time is the salt that a token is for a new cluster.
    let id = id::member_id(&peer_urls, &now.to_string());
    let member = Member { id, peer_urls, is_learner, ..Member::default() };
    if shared.config.strict_reconfig_check {
        may_add(shared, is_learner)?;
    }
    let kind = if is_learner { ConfChangeKind::AddLearnerNode } else { ConfChangeKind::AddNode };
    let members = propose(shared, kind, id, member.json()).await?;
    Ok((member, members))
}

/// Removes a member; all members then.
///
/// # Errors
/// Why not.
pub(crate) async fn remove(shared: &Shared, id: u64) -> Result<Vec<Member>, Error> {
    if shared.config.strict_reconfig_check {
        may_remove(shared, id)?;
    }
    propose(shared, ConfChangeKind::RemoveNode, id, Bytes::new()).await
}

/// Gives a member other peer URLs; all members then.
///
/// # Errors
/// Why not.
pub(crate) async fn update(
    shared: &Shared,
    id: u64,
    peer_urls: Vec<String>,
) -> Result<Vec<Member>, Error> {
    let member = Member { id, peer_urls, ..Member::default() };
    propose(shared, ConfChangeKind::UpdateNode, id, member.json()).await
}

/// Makes a learner a voter, where this member leads; all members then.
///
/// # Errors
/// Why not; [`Error::NotLeader`]: only the leader knows how far a learner is.
pub(crate) async fn promote(shared: &Shared, id: u64) -> Result<Vec<Member>, Error> {
    is_ready(shared, id).await?;
    if shared.config.strict_reconfig_check {
        let voters = Voters::of(&shared.cluster.read());
        // The learner counts as started.
        refuse_unless(voters.started + 1 >= quorum(voters.all + 1), "promote")?;
    }
    let context = format!(r#"{{"id":{id},"peerURLs":null,"isPromote":true}}"#);
    propose(shared, ConfChangeKind::AddNode, id, context.into()).await
}

/// Voting members, and how many of them have ever started: those that have a name.
struct Voters {
    all: usize,
    started: usize,
    ids: Vec<u64>,
}

impl Voters {
    fn of(cluster: &Cluster) -> Self {
        Self::without(cluster, None)
    }

    fn without(cluster: &Cluster, left_out: Option<u64>) -> Self {
        let voters = cluster.members.values().filter(|member| !member.is_learner);
        let voters: Vec<&Member> = voters.filter(|member| Some(member.id) != left_out).collect();
        let started = voters.iter().filter(|member| !member.name.is_empty()).count();
        let ids = voters.iter().map(|member| member.id).collect();
        Self { all: voters.len(), started, ids }
    }
}

fn quorum(members: usize) -> usize {
    members / 2 + 1
}

fn refuse_unless(enough: bool, what: &str) -> Result<(), Error> {
    if enough {
        return Ok(());
    }
    let error = Error::NotEnoughStarted.status().1;
    tracing::warn!(error, "rejecting member {what} request; not enough healthy members");
    Err(Error::NotEnoughStarted)
}

fn may_add(shared: &Shared, is_learner: bool) -> Result<(), Error> {
    let voters = Voters::of(&shared.cluster.read());
    // One more for a lone member is how a cluster grows again.
    let grows = voters.all == 1 && voters.started == 1;
    let enough = is_learner || grows || voters.started >= quorum(voters.all + 1);
    refuse_unless(enough, "add")?;
    if voters.all > 1 && connected(shared, &voters.ids) < quorum(voters.all + 1) {
        let error = Error::Unhealthy.status().1;
        tracing::warn!(
            error,
            "rejecting member add request; local member has not been connected to majority peers, \
             reconfigure breaks active quorum"
        );
        return Err(Error::Unhealthy);
    }
    Ok(())
}

fn may_remove(shared: &Shared, id: u64) -> Result<(), Error> {
    let (voters, left) = {
        let cluster = shared.cluster.read();
        if cluster.members.get(&id).is_some_and(|member| member.is_learner) {
            return Ok(());
        }
        (Voters::of(&cluster), Voters::without(&cluster, Some(id)))
    };
    refuse_unless(left.started >= quorum(left.all), "remove")?;
    // Who is down is no part of the quorum that works.
    if id != shared.member_id && shared.active_since(id).is_none() {
        return Ok(());
    }
    let active = connected(shared, &voters.ids);
    if active.saturating_sub(1) < quorum(voters.all.saturating_sub(1)) {
        let error = Error::Unhealthy.status().1;
        tracing::warn!(
            error,
            "active-peers" = active,
            "rejecting member remove request; local member has not been connected to all peers, \
             reconfigure breaks active quorum"
        );
        return Err(Error::Unhealthy);
    }
    Ok(())
}

/// How many of these members are connected for long enough; this one is.
fn connected(shared: &Shared, ids: &[u64]) -> usize {
    let healthy = |id: &u64| {
        let since = shared.active_since(*id);
        *id == shared.member_id || since.is_some_and(|since| since.elapsed() > HEALTHY_AFTER)
    };
    ids.iter().filter(|id| healthy(id)).count()
}

async fn is_ready(shared: &Shared, id: u64) -> Result<(), Error> {
    let (sender, matched) = oneshot::channel();
    shared.inbox.push(Event::Matched(sender));
    let matched = matched.await.map_err(|_| Error::Stopped)?.ok_or(Error::NotLeader)?;
    let of = |id: u64| matched.iter().find(|(member, _)| *member == id).map(|(_, at)| *at);
    let learner = of(id).ok_or(Error::MemberNotFound)?;
    let own = of(shared.member_id).unwrap_or_default();
    let part = learner as f64 / own as f64;
    if part < READY {
        tracing::error!(
            "learner-ready-percent" = part,
            "ready-percent-threshold" = READY,
            "rejecting promote learner: learner is not ready"
        );
        return Err(Error::LearnerNotReady);
    }
    Ok(())
}

async fn propose(
    shared: &Shared,
    kind: ConfChangeKind,
    node_id: u64,
    context: Bytes,
) -> Result<Vec<Member>, Error> {
    let change = ConfChange { id: shared.ids.next(), kind, node_id, context };
    let (sender, receiver) = oneshot::channel();
    let waiter = Waiter { lane: lane::current(), sender };
    lane::propose(Event::Reconfigure { change, waiter });
    let started = Instant::now();
    let deadline = started + shared.config.request_timeout();
    let waited = deadline::within(Some(deadline), receiver).await;
    let outcome = shared.ended(waited, started.into_std())?;
    let Answer::Members(members) = outcome.result? else { return Err(Error::Stopped) };
    tracing::info!(
        "local-member-id" = %format!("{:x}", shared.member_id),
        "raft-conf-change" = ?kind,
        "raft-conf-change-node-id" = %format!("{node_id:x}"),
        "applied a configuration change through raft"
    );
    Ok(members)
}

/// Peer URLs of a request, in order, if all are such.
pub(crate) fn peer_urls(given: &[String]) -> Option<Vec<String>> {
    let mut urls: Option<Vec<String>> = given.iter().map(|url| peer_url(url.trim())).collect();
    if let Some(urls) = &mut urls {
        urls.sort();
    }
    urls.filter(|urls| !urls.is_empty())
}

fn peer_url(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let printable =
        rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte));
    let good = match scheme.as_str() {
        "http" | "https" => is_host_and_port(rest),
        "unix" | "unixs" => true,
        _ => false,
    };
    (printable && good).then(|| format!("{scheme}://{rest}"))
}

fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_is_good = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.contains(|sign: char| "/:[]@?#%".contains(sign)),
    };
    host_is_good && port.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_urls_have_a_scheme_a_host_and_a_port_and_no_path() {
        let read = |urls: &[&str]| {
            peer_urls(&urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>())
        };
        let sorted = ["http://a:1".to_owned(), "https://[::1]:2".to_owned()];
        assert_eq!(read(&["HTTPS://[::1]:2", " http://a:1 "]).as_deref(), Some(&sorted[..]));
        assert!(read(&["unix://x/y:1"]).is_some());
        for bad in [
            "",
            "a:1",
            "ftp://a:1",
            "http://a",
            "http://a:1/",
            "http://a:1/path",
            "http://a:x",
            "http://a b:1",
            "http://::1:2380",
            "http://u@a:1",
        ] {
            assert_eq!(read(&[bad]), None, "{bad}");
            assert_eq!(read(&["http://a:1", bad]), None, "{bad}");
        }
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn only_voters_with_a_name_have_started() {
        let mut cluster = Cluster::default();
        for (id, name, is_learner) in [(1, "a", false), (2, "", false), (3, "c", true)] {
            let name = name.to_owned();
            cluster.members.insert(id, Member { id, name, is_learner, ..Member::default() });
        }
        let voters = Voters::of(&cluster);
        assert_eq!((voters.all, voters.started, &voters.ids[..]), (2, 1, &[1, 2][..]));
        let left = Voters::without(&cluster, Some(1));
        assert_eq!((left.all, left.started), (1, 0));
        assert_eq!([1, 2, 3, 4, 5].map(quorum), [1, 2, 2, 3, 3]);
    }
}
