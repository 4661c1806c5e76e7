//! The members that a new cluster starts with.
//!
//! Counts only while there is no data: a member that has data finds its cluster there, and etcd does
//! not even look at these settings then. So whoever opens the data dir asks for this when it is empty.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::go_values::quote;
use crate::settings::{ClusterState, Settings};
use crate::urls::{Url, UrlError, join};

/// Peer URLs by member name; URLs sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialCluster {
    /// Every member, this one included.
    pub members: BTreeMap<String, Vec<Url>>,
}

/// A cluster cannot be started like this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootstrapError {
    /// A peer URL is none.
    PeerUrl(UrlError),
    /// This member is not among them.
    LocalMissing(String),
    /// Two members have the same URL.
    DuplicateUrl(InitialCluster),
    /// This member's URLs in the cluster are not those that it advertises.
    Mismatch {
        /// This member.
        name: String,
        /// `name=url` of those that are in the cluster only.
        missing: Vec<String>,
        /// URLs that are advertised.
        advertised: Vec<Url>,
        /// URLs in the cluster.
        initial: Vec<Url>,
    },
}

impl InitialCluster {
    /// The cluster that the settings describe, checked as etcd checks it.
    ///
    /// # Errors
    /// [`BootstrapError`].
    pub fn of(settings: &Settings) -> Result<Self, BootstrapError> {
        let clustering = &settings.clustering;
        let cluster = Self::parse(&clustering.initial_cluster).map_err(BootstrapError::PeerUrl)?;
        let advertised = match clustering.initial_cluster_state {
            ClusterState::New => Some(&clustering.initial_advertise_peer_urls[..]),
            // Its URLs are known to the cluster already.
            ClusterState::Existing => None,
        };
        cluster.checked(&settings.member.name, advertised)
    }

    /// The cluster, if the member of that name may start in it, with the URLs that it advertises where those count.
    ///
    /// # Errors
    /// [`BootstrapError`].
    pub fn checked(self, name: &str, advertised: Option<&[Url]>) -> Result<Self, BootstrapError> {
        let initial = self.members.get(name);
        let initial = initial.ok_or_else(|| BootstrapError::LocalMissing(name.to_owned()))?;
        if let Some(advertised) = advertised {
            check_advertised(name, initial, advertised)?;
        }
        let mut urls = BTreeSet::new();
        if !self.members.values().flatten().all(|url| urls.insert(url)) {
            return Err(BootstrapError::DuplicateUrl(self));
        }
        Ok(self)
    }

    /// Reads `name=url,name=url`; a name may come several times.
    ///
    /// # Errors
    /// [`UrlError`] of the first that is none.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let (name, url) = item.split_once('=').unwrap_or((item, ""));
            members.entry(name.to_owned()).or_default().push(Url::parse(url)?);
        }
        members.values_mut().for_each(|urls| urls.sort());
        Ok(Self { members })
    }
}

fn check_advertised(name: &str, initial: &[Url], advertised: &[Url]) -> Result<(), BootstrapError> {
    let resolved = |urls: &[Url]| urls.iter().map(resolve).collect::<BTreeSet<_>>();
    if resolved(initial) == resolved(advertised) {
        return Ok(());
    }
    let only_initial = initial.iter().filter(|url| !advertised.contains(url));
    Err(BootstrapError::Mismatch {
        name: name.to_owned(),
        missing: only_initial.map(|url| format!("{name}={url}")).collect(),
        advertised: advertised.to_vec(),
        initial: initial.to_vec(),
    })
}

/// `localhost` and its address are the same; other names are not looked up.
fn resolve(url: &Url) -> String {
    match url.bind_address() {
        Some(address) => format!("{:?}://{address}", url.scheme()),
        None => url.to_string(),
    }
}

impl fmt::Display for InitialCluster {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<_> = self
            .members
            .iter()
            .flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")))
            .collect();
        out.write_str(&pairs.join(","))
    }
}

impl fmt::Display for BootstrapError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerUrl(error) => write!(out, "error setting up initial cluster: {error}"),
            Self::LocalMissing(name) => {
                let name = quote(name);
                write!(out, "couldn't find local name {name} in the initial cluster configuration")
            }
            Self::DuplicateUrl(cluster) => {
                write!(out, "initial cluster {cluster} has duplicate url")
            }
            Self::Mismatch { missing, advertised, initial, .. } if !missing.is_empty() => {
                write!(out, "--initial-cluster has {} ", missing.join(","))?;
                let (shown, wanted) = (join(advertised), join(initial));
                write!(out, "but missing from --initial-advertise-peer-urls={shown} ")?;
                write!(out, "(resolved urls: {} != {})", quote(&shown), quote(&wanted))
            }
            Self::Mismatch { name, advertised, initial, .. } => {
                let only = advertised.iter().filter(|url| !initial.contains(url)).cloned();
                let only = join(&only.collect::<Vec<_>>());
                write!(out, "--initial-advertise-peer-urls has {only} ")?;
                // As in etcd, what is shown is what is missing there, not what is there.
                let wanted = advertised.iter().map(|url| format!("{name}={url}"));
                let wanted = wanted.collect::<Vec<_>>().join(",");
                write!(out, "but missing from --initial-cluster={wanted}")
            }
        }
    }
}

impl std::error::Error for BootstrapError {}
