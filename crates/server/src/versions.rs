//! The version that the cluster agrees on, and the way down to the one before.
//!
//! ```text
//! Downgrade ENABLE ──> entry DowngradeInfoSet ──> apply: row `downgrade`
//!                                                   │ the leader looks every few seconds: `decide`
//!                                                   v
//! row `clusterVersion` <── apply <── entry ClusterVersionSet (the target)
//! ```
//! The cluster's version is the lowest of its members', unless a downgrade asks for the one before: then
//! members of that version may join. The downgrade is over when all members have it, or when it is cancelled; the
//! version of the stored data follows the cluster's. What is decided here changes nothing but by entries of the log.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use etched_proto::membershippb::{ClusterVersionSetRequest, DowngradeInfoSetRequest};
use prost::Message;
use tokio::sync::watch;

use crate::StartError;
use crate::auth::{Asking, Nobody};
use crate::cluster::Member;
use crate::error::Error;
use crate::joining::versions_of;
use crate::request::Field;
use crate::shared::Shared;

/// How often the leader looks whether the cluster's version is to change; etcd's period.
const VERSION_INTERVAL: Duration = Duration::from_secs(4);

/// This server's own version, without its patch.
pub(crate) const OWN: Version = Version { major: 3, minor: 7, patch: 0 };

/// The lowest version of a cluster: what it has while its members do not say theirs.
const MIN_CLUSTER: Version = Version { major: 3, minor: 0, patch: 0 };

/// A version in three numbers. What may stand behind them (`-rc.0`, `+build`) is looked at and left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    major: i64,
    minor: i64,
    patch: i64,
}

impl Version {
    /// Reads `3.6.0`, as etcd's library does.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (text, build) = text.split_once('+').unwrap_or((text, ""));
        let (numbers, pre_release) = text.split_once('-').unwrap_or((text, ""));
        let named = |name: &str| {
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
        };
        if !named(build) || !named(pre_release) {
            return None;
        }
        let mut parts = numbers.splitn(3, '.').map(|part| part.parse().ok());
        let mut next = || parts.next().flatten();
        Some(Self { major: next()?, minor: next()?, patch: next()? })
    }

    /// Reads the target of a downgrade: `3.6` is good too, and the patch does not count.
    fn parse_target(text: &str) -> Result<Self, Error> {
        let version = Self::parse(text).or_else(|| Self::parse(&format!("{text}.0")));
        version.map(Self::without_patch).ok_or(Error::WrongDowngradeVersionFormat)
    }

    fn without_patch(self) -> Self {
        Self { patch: 0, ..self }
    }

    /// The one version that a cluster of this one can go down to.
    fn one_below(self) -> Self {
        Self { major: self.major, minor: self.minor.saturating_sub(1), patch: 0 }
    }

    /// Major and minor, as metrics and answers name it.
    pub(crate) fn short(self) -> String {
        format!("{}.{}", self.major, self.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What becomes of the cluster's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Keep,
    Set(Version),
    /// A downgrade is asked for that cannot be.
    Impossible,
}

/// The version for a cluster of version `cluster` whose oldest member has `oldest`, on its way to `target`. None is a
/// member that could not be asked.
fn decide(cluster: Option<Version>, oldest: Option<Version>, target: Option<Version>) -> Decision {
    let oldest = match oldest {
        Some(oldest) => oldest.without_patch(),
        None if cluster.is_none() => return Decision::Set(MIN_CLUSTER),
        None => return Decision::Keep,
    };
    match (cluster, target) {
        (None, _) => Decision::Set(oldest),
        (Some(cluster), Some(target)) if target == cluster => Decision::Keep,
        (Some(cluster), Some(target)) => {
            let possible = target == cluster.one_below() && target == oldest.one_below();
            if possible { Decision::Set(target) } else { Decision::Impossible }
        }
        (Some(cluster), None) => {
            let rises = cluster.major == oldest.major && cluster.without_patch() < oldest;
            if rises { Decision::Set(oldest) } else { Decision::Keep }
        }
    }
}

/// The versions of clusters that this server can join; while one goes down by one version, it is not for this one.
pub(crate) fn joinable(downgrade: bool) -> RangeInclusive<Version> {
    let above = Version { minor: OWN.minor + 1, ..OWN };
    if downgrade { above..=above } else { MIN_CLUSTER..=OWN }
}

/// Whether this server can be part of a cluster of this version: one that is older would take entries for something
/// else than they are.
///
/// # Errors
/// [`StartError::ClusterIsNewer`].
pub(crate) fn part_of(cluster: Version) -> Result<(), StartError> {
    if cluster <= OWN {
        return Ok(());
    }
    Err(StartError::ClusterIsNewer { own: OWN.to_string(), cluster: cluster.to_string() })
}

/// The version of a [`ClusterVersionSetRequest`], if the server can go on with it. etcd panics where not.
///
/// # Errors
/// Says why not.
pub(crate) fn accept(text: &str) -> Result<Version, String> {
    let version =
        Version::parse(text).ok_or_else(|| format!("cluster version {text:?} is none"))?;
    part_of(version).map_err(|error| error.to_string())?;
    Ok(version)
}

/// The version that a lone member which has just become leader sets at once.
pub(crate) fn first(shared: &Shared) -> Option<ClusterVersionSetRequest> {
    let (cluster, target) = known(shared);
    match decide(cluster, Some(OWN), target) {
        Decision::Set(version) => Some(ClusterVersionSetRequest { ver: version.to_string() }),
        Decision::Keep | Decision::Impossible => None,
    }
}

/// The cluster's version and the target of a downgrade.
fn known(shared: &Shared) -> (Option<Version>, Option<Version>) {
    let cluster = shared.cluster.read();
    let target = cluster.downgrade.as_deref().and_then(Version::parse);
    (Version::parse(&cluster.version), target)
}

/// Whether the cluster can go down to `target`; gives its version now.
///
/// # Errors
/// What etcd refuses it with.
pub(crate) async fn validate(shared: &Shared, target: &str) -> Result<Version, Error> {
    checked(shared, target).await.map(|(cluster, _)| cluster)
}

async fn checked(shared: &Shared, target: &str) -> Result<(Version, Version), Error> {
    let target = Version::parse_target(target)?;
    let cluster = known(shared).0.ok_or(Error::ClusterVersionUnavailable)?;
    shared.read_index().await?;
    let (now, downgrade) = known(shared);
    if now.map(Version::one_below) != Some(target) {
        return Err(Error::InvalidDowngradeTarget);
    }
    match downgrade {
        Some(_) => Err(Error::DowngradeInProcess),
        None => Ok((cluster, target)),
    }
}

/// Starts a downgrade to `target`.
///
/// # Errors
/// Those of [`validate`], and of a proposal.
pub(crate) async fn enable(shared: &Shared, who: impl Asking, target: &str) -> Result<(), Error> {
    let (_, target) = checked(shared, target).await?;
    set_downgrade(shared, who, Some(target)).await
}

/// Ends a downgrade.
///
/// # Errors
/// [`Error::NoInflightDowngrade`], and those of a proposal.
pub(crate) async fn cancel(shared: &Shared, who: impl Asking) -> Result<(), Error> {
    shared.read_index().await?;
    if shared.cluster.read().downgrade.is_none() {
        return Err(Error::NoInflightDowngrade);
    }
    set_downgrade(shared, who, None).await
}

async fn set_downgrade(
    shared: &Shared,
    who: impl Asking,
    target: Option<Version>,
) -> Result<(), Error> {
    let request = DowngradeInfoSetRequest {
        enabled: target.is_some(),
        ver: target.map(|target| target.to_string()).unwrap_or_default(),
    };
    let outcome = shared.propose(who, Field::DowngradeInfoSet, &request.encode_to_vec()).await?;
    outcome.result.map(|_| ())
}

/// The cluster's version, major and minor; empty before there is one.
pub(crate) fn short_cluster_version(shared: &Shared) -> String {
    known(shared).0.map(Version::short).unwrap_or_default()
}

/// Keeps the cluster's version what it should be, until the server ends.
pub(crate) async fn watch_version(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            goes_on = goes_on(VERSION_INTERVAL, &mut stop) => if !goes_on { return },
            // A new cluster has its version as soon as it has a leader.
            () = shared.leads.notified() => {}
        }
        if shared.is_leader() {
            update(&shared).await;
        }
    }
}

/// What the servers of all members have; None of one that cannot be asked.
async fn of_members(shared: &Shared) -> Vec<(u64, Option<Version>)> {
    let members: Vec<Member> = shared.cluster.read().members.values().cloned().collect();
    let wait = shared.config.request_timeout();
    let mut found = Vec::with_capacity(members.len());
    for member in members {
        let version = if member.id == shared.member_id {
            Version::parse(crate::ETCD_VERSION)
        } else {
            let said = versions_of(&shared.dial, &member, wait).await;
            said.and_then(|said| Version::parse(&said.server))
        };
        if version.is_none() {
            let id = format!("{:x}", member.id);
            tracing::warn!("remote-member-id" = id, "failed to get version");
        }
        found.push((member.id, version));
    }
    found
}

async fn update(shared: &Shared) {
    let versions: Vec<Option<Version>> =
        of_members(shared).await.into_iter().map(|(_, version)| version).collect();
    let oldest = versions.into_iter().collect::<Option<Vec<_>>>();
    let oldest = oldest.and_then(|versions| versions.into_iter().min());
    let (cluster, target) = known(shared);
    let version = match decide(cluster, oldest, target) {
        Decision::Keep => return,
        Decision::Set(version) => version,
        Decision::Impossible => {
            let text = |version: Option<Version>| version.map(|version| version.to_string());
            let (cluster, target) = (text(cluster), text(target));
            tracing::error!(
                "cluster-version" = cluster,
                "downgrade-target" = target,
                error = "invalid downgrade target",
                "Failed to monitor cluster version"
            );
            return;
        }
    };
    let request = ClusterVersionSetRequest { ver: version.to_string() }.encode_to_vec();
    let result = match shared.propose(Nobody, Field::ClusterVersionSet, &request).await {
        Ok(outcome) => outcome.result.map(|_| ()),
        Err(error) => Err(error),
    };
    let shown = version.short();
    match result {
        Ok(()) => tracing::info!("cluster-version" = shown, "cluster version is updated"),
        Err(error) => {
            tracing::warn!(error = error.status().1, "failed to update cluster version");
        }
    }
}

/// Ends a downgrade when all members have its version, until the server ends.
pub(crate) async fn watch_downgrade(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let interval = shared.config.downgrade_check_time;
    if interval.is_zero() {
        return;
    }
    while goes_on(interval, &mut stop).await {
        let Some(target) = known(&shared).1.filter(|_| shared.is_leader()) else { continue };
        if !all_have(&shared, target).await {
            continue;
        }
        tracing::info!("cluster-version" = %target, "the cluster has been downgraded");
        if let Err(error) = set_downgrade(&shared, Nobody, None).await {
            tracing::warn!(error = error.status().1, "failed to cancel downgrade");
        }
    }
}

/// Whether the servers of all members have the version that the cluster goes down to.
async fn all_have(shared: &Shared, target: Version) -> bool {
    let mut all = true;
    for (id, version) in of_members(shared).await {
        let Some(version) = version else { return false };
        if version.without_patch() != target.without_patch() {
            tracing::warn!(
                "remote-member-id" = %format!("{id:x}"),
                "current-server-version" = %version,
                "target-version" = %target,
                "remotes server has mismatching etcd version"
            );
            all = false;
        }
    }
    all
}

/// Waits for the next moment to look; false when the server ends.
pub(crate) async fn goes_on(interval: Duration, stop: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        () = tokio::time::sleep(interval) => true,
        _ = stop.wait_for(|stop| *stop) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).expect(text)
    }

    #[test]
    fn the_own_version_is_that_of_etcd_without_its_patch() {
        assert_eq!(version(crate::ETCD_VERSION).without_patch(), OWN);
        assert_eq!(OWN.short(), crate::API_VERSION);
    }

    #[test]
    fn a_server_is_no_part_of_a_newer_cluster() {
        for older in ["3.7.0", "3.7.0-rc.1", "3.6.9", "2.3.0"] {
            assert!(part_of(version(older)).is_ok(), "{older}");
        }
        for newer in ["3.7.2", "3.8.0", "4.0.0"] {
            assert!(part_of(version(newer)).is_err(), "{newer}");
        }
    }

    #[test]
    fn a_target_needs_two_numbers_and_its_patch_does_not_count() {
        for good in ["3.6.0", "3.6", "3.6.9", "3.6.0-rc.1", "3.6.0+build-5", "03.06.00"] {
            assert_eq!(Version::parse_target(good), Ok(version("3.6.0")), "{good}");
        }
        for bad in
            ["", "3", "v3.6.0", "3.6.x", "3.6.0.1", "3.6-rc", "3.6.0-rc_1", " 3.6.0", "3..0", "."]
        {
            let refused = Err(Error::WrongDowngradeVersionFormat);
            assert_eq!(Version::parse_target(bad), refused, "{bad}");
        }
    }

    #[test]
    fn a_cluster_takes_the_version_of_its_oldest_member_and_never_a_lower_one() {
        let decide = |cluster: Option<&str>, oldest: &str| {
            decide(cluster.map(version), Some(version(oldest)), None)
        };
        assert_eq!(decide(None, "3.7.1"), Decision::Set(OWN));
        assert_eq!(decide(Some("3.0.0"), "3.7.1"), Decision::Set(OWN));
        assert_eq!(decide(Some("3.7.0"), "3.7.1"), Decision::Keep);
        assert_eq!(decide(Some("3.7.0"), "3.6.9"), Decision::Keep);
        assert_eq!(decide(Some("2.3.0"), "3.7.1"), Decision::Keep);
    }

    #[test]
    fn while_a_member_cannot_be_asked_only_a_first_version_is_set() {
        assert_eq!(decide(None, None, None), Decision::Set(MIN_CLUSTER));
        assert_eq!(decide(Some(version("3.0.0")), None, None), Decision::Keep);
        let target = Some(version("3.6.0"));
        assert_eq!(decide(Some(version("3.7.0")), None, target), Decision::Keep);
    }

    #[test]
    fn a_downgrade_goes_down_one_version_from_the_members_and_the_clusters() {
        let decide = |cluster: &str, target: &str| {
            decide(Some(version(cluster)), Some(version("3.7.1")), Some(version(target)))
        };
        assert_eq!(decide("3.7.0", "3.6.0"), Decision::Set(version("3.6.0")));
        assert_eq!(decide("3.6.0", "3.6.0"), Decision::Keep);
        assert_eq!(decide("3.6.0", "3.5.0"), Decision::Impossible, "no member has 3.6");
        assert_eq!(decide("3.7.0", "3.5.0"), Decision::Impossible);
    }
}
