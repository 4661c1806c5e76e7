//! Members, versions and alarms: the replicated state beside the keys.
//!
//! Each change gives the rows to write, in the form etcd keeps in its buckets of the same names.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use etched_consensus::ConfChange;
use etched_proto::etcdserverpb as pb;
use etched_storage::Table;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::membership::{self, Change, Invalid};
use crate::versions::Version;

/// A row to write or, with None, to delete.
pub(crate) type Row = (Table, Bytes, Option<Bytes>);

/// A member as etcd writes it in JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Member {
    #[serde(default)]
    pub(crate) id: u64,
    #[serde(rename = "peerURLs", default, deserialize_with = "nullable")]
    pub(crate) peer_urls: Vec<String>,
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_learner: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(
        rename = "clientURLs",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "nullable"
    )]
    pub(crate) client_urls: Vec<String>,
}

fn nullable<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

impl Member {
    pub(crate) fn to_proto(&self) -> pb::Member {
        pb::Member {
            id: self.id,
            name: self.name.clone(),
            peer_ur_ls: self.peer_urls.clone(),
            client_ur_ls: self.client_urls.clone(),
            is_learner: self.is_learner,
        }
    }

    pub(crate) fn json(&self) -> Bytes {
        serde_json::to_vec(self).expect("strings and numbers always serialize").into()
    }

    pub(crate) fn row(&self) -> Row {
        (Table::Members, hex_key(self.id), Some(self.json()))
    }
}

fn hex_key(id: u64) -> Bytes {
    format!("{id:x}").into()
}

/// etcd's row of a downgrade.
#[derive(Serialize, Deserialize)]
struct DowngradeRow {
    #[serde(rename = "target-version", default)]
    target_version: String,
    #[serde(default)]
    enabled: bool,
}

/// The replicated state beside the keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Cluster {
    /// By id.
    pub(crate) members: BTreeMap<u64, Member>,
    /// Ids that may never come back.
    pub(crate) removed: BTreeSet<u64>,
    /// Lowest version of all members, `major.minor.0`; empty until the leader has set it.
    pub(crate) version: String,
    /// A downgrade that was asked for: its target.
    pub(crate) downgrade: Option<String>,
    /// Active alarms: member id and kind.
    pub(crate) alarms: BTreeSet<(u64, i32)>,
}

/// Why the rows of a store make no cluster.
#[derive(Debug, thiserror::Error)]
#[error("table {table:?} holds a row that does not read: {reason}")]
pub(crate) struct BadRow {
    table: Table,
    reason: String,
}

impl Cluster {
    /// Reads the state back, from a store of ours or a database of etcd's.
    ///
    /// # Errors
    /// [`BadRow`], for what stops an etcd too; and whatever reading the rows gives.
    pub(crate) fn restore<E: From<BadRow>>(
        rows: impl Fn(Table) -> Result<Vec<(Bytes, Bytes)>, E>,
    ) -> Result<Self, E> {
        let mut cluster = Self::default();
        for (key, value) in rows(Table::Members)? {
            let member: Member =
                serde_json::from_slice(&value).map_err(|error| bad_row(Table::Members, error))?;
            if hex_id(Table::Members, &key)? != member.id {
                let reason = format!("its key and the id in it differ: {:x}", member.id);
                return Err(bad_row(Table::Members, reason).into());
            }
            cluster.members.insert(member.id, member);
        }
        for (key, _) in rows(Table::MembersRemoved)? {
            cluster.removed.insert(hex_id(Table::MembersRemoved, &key)?);
        }
        for (key, value) in rows(Table::Cluster)? {
            if key == "clusterVersion" {
                cluster.version = version(&value)?;
            } else if key == "downgrade" {
                let row: DowngradeRow = serde_json::from_slice(&value)
                    .map_err(|error| bad_row(Table::Cluster, error))?;
                if row.enabled {
                    cluster.downgrade = Some(version(row.target_version.as_bytes())?);
                }
            }
        }
        for (key, _) in rows(Table::Alarm)? {
            let alarm =
                pb::AlarmMember::decode(key).map_err(|error| bad_row(Table::Alarm, error))?;
            cluster.alarms.insert((alarm.member_id, alarm.alarm));
        }
        Ok(cluster)
    }

    /// What a membership change does here, see [`membership::validate`].
    ///
    /// # Errors
    /// [`Invalid`].
    pub(crate) fn validate(
        &self,
        change: &ConfChange,
        learners_max: usize,
    ) -> Result<Change, Invalid> {
        membership::validate(change, &self.members, &self.removed, learners_max)
    }

    /// Does what [`Self::validate`] found.
    pub(crate) fn change_members(&mut self, change: Change) -> Vec<Row> {
        match change {
            Change::Add(member) => self.add(member),
            Change::Promote(id) => self.promote(id),
            Change::Remove(id) => self.remove(id),
            Change::PeerUrls(id, peer_urls) => self.update_peer_urls(id, peer_urls),
        }
    }

    fn add(&mut self, member: Member) -> Vec<Row> {
        let row = member.row();
        self.members.insert(member.id, member);
        vec![row]
    }

    fn update_peer_urls(&mut self, id: u64, peer_urls: Vec<String>) -> Vec<Row> {
        let Some(member) = self.members.get_mut(&id) else { return Vec::new() };
        member.peer_urls = peer_urls;
        vec![member.row()]
    }

    fn remove(&mut self, id: u64) -> Vec<Row> {
        self.members.remove(&id);
        self.removed.insert(id);
        vec![
            (Table::Members, hex_key(id), None),
            (Table::MembersRemoved, hex_key(id), Some(Bytes::from_static(b"removed"))),
        ]
    }

    /// A member said its name and client URLs; one that was removed meanwhile is left alone.
    pub(crate) fn set_attributes(
        &mut self,
        id: u64,
        name: String,
        client_urls: Vec<String>,
    ) -> Vec<Row> {
        let Some(member) = self.members.get_mut(&id) else { return Vec::new() };
        member.name = name;
        member.client_urls = client_urls;
        vec![member.row()]
    }

    pub(crate) fn set_version(&mut self, version: String) -> Vec<Row> {
        self.version.clone_from(&version);
        vec![(Table::Cluster, Bytes::from_static(b"clusterVersion"), Some(version.into()))]
    }

    /// Whether the cluster's version is set and at least this.
    pub(crate) fn version_at_least(&self, major: u64, minor: u64) -> bool {
        let mut parts = self.version.split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (major, minor)
    }

    pub(crate) fn set_downgrade(&mut self, enabled: bool, target_version: String) -> Vec<Row> {
        let target_version = if enabled { target_version } else { String::new() };
        let row = DowngradeRow { target_version, enabled };
        let value = serde_json::to_vec(&row).expect("strings and booleans always serialize");
        self.downgrade = enabled.then_some(row.target_version);
        vec![(Table::Cluster, Bytes::from_static(b"downgrade"), Some(value.into()))]
    }

    /// A learner becomes a voter.
    fn promote(&mut self, id: u64) -> Vec<Row> {
        let Some(member) = self.members.get_mut(&id) else { return Vec::new() };
        member.is_learner = false;
        vec![member.row()]
    }

    /// Raises an alarm; no row when it is raised already.
    pub(crate) fn activate(&mut self, member_id: u64, alarm: i32) -> Vec<Row> {
        if !self.alarms.insert((member_id, alarm)) {
            return Vec::new();
        }
        vec![(Table::Alarm, alarm_key(member_id, alarm), Some(Bytes::new()))]
    }

    /// Clears an alarm; None when it was not raised.
    pub(crate) fn deactivate(&mut self, member_id: u64, alarm: i32) -> Option<Vec<Row>> {
        self.alarms
            .remove(&(member_id, alarm))
            .then(|| vec![(Table::Alarm, alarm_key(member_id, alarm), None)])
    }

    /// Active alarms of one kind, or all with kind 0.
    pub(crate) fn alarms_of(&self, kind: i32) -> Vec<pb::AlarmMember> {
        self.alarms
            .iter()
            .filter(|(_, alarm)| kind == 0 || *alarm == kind)
            .map(|&(member_id, alarm)| pb::AlarmMember { member_id, alarm })
            .collect()
    }

    pub(crate) fn has_alarm(&self, kind: pb::AlarmType) -> bool {
        self.alarms.iter().any(|(_, alarm)| *alarm == kind as i32)
    }
}

fn alarm_key(member_id: u64, alarm: i32) -> Bytes {
    let mut key = BytesMut::new();
    key.put_slice(&pb::AlarmMember { member_id, alarm }.encode_to_vec());
    key.freeze()
}

fn bad_row(table: Table, reason: impl ToString) -> BadRow {
    BadRow { table, reason: reason.to_string() }
}

/// The id that a row of members has as its key.
fn hex_id(table: Table, key: &[u8]) -> Result<u64, BadRow> {
    u64::from_str_radix(&String::from_utf8_lossy(key), 16).map_err(|error| bad_row(table, error))
}

/// The text of a version that is one.
fn version(bytes: &[u8]) -> Result<String, BadRow> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    match Version::parse(&text) {
        Some(_) => Ok(text),
        None => Err(bad_row(Table::Cluster, format!("{text:?} is no version"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_reads_and_writes_as_etcds_json() {
        let member = Member {
            id: 10276657743932975437,
            peer_urls: vec!["http://localhost:2380".to_owned()],
            name: "default".to_owned(),
            ..Member::default()
        };
        let json =
            r#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"name":"default"}"#;
        assert_eq!(member.json(), json);
        assert_eq!(serde_json::from_str::<Member>(json).expect("JSON"), member);
        let joining = r#"{"id":5,"peerURLs":null,"isLearner":true,"isPromote":false}"#;
        let joining: Member = serde_json::from_str(joining).expect("JSON");
        assert!(joining.is_learner && joining.peer_urls.is_empty());
    }

    #[test]
    fn the_row_of_a_cancelled_downgrade_names_no_target() {
        let mut cluster = Cluster::default();
        let rows = cluster.set_downgrade(false, "3.6.0".to_owned());
        let row = Bytes::from_static(br#"{"target-version":"","enabled":false}"#);
        assert_eq!(rows, [(Table::Cluster, Bytes::from_static(b"downgrade"), Some(row))]);
    }

    #[test]
    fn a_row_that_stops_an_etcd_is_not_taken_for_none() {
        let restore = |table: Table, key: &'static str, value: &'static str| {
            let row = (Bytes::from_static(key.as_bytes()), Bytes::from_static(value.as_bytes()));
            Cluster::restore(|wanted| {
                Ok::<_, BadRow>(if wanted == table { vec![row.clone()] } else { Vec::new() })
            })
        };
        let downgrade = |value| restore(Table::Cluster, "downgrade", value);
        for version in ["", "3", "3.7", "x", "3.7.0.0"] {
            let error = restore(Table::Cluster, "clusterVersion", version).expect_err(version);
            assert!(error.to_string().contains("is no version"), "{error}");
        }
        assert!(downgrade(r#"{"target-version":"3.x","enabled":true}"#).is_err());
        assert!(downgrade(r#"{"target-version":"","enabled":true}"#).is_err());
        assert!(downgrade("3.6.0").is_err());
        let off = downgrade(r#"{"target-version":"","enabled":false}"#).expect("switched off");
        assert_eq!(off.downgrade, None);
        let on = downgrade(r#"{"target-version":"3.6.0","enabled":true}"#).expect("switched on");
        assert_eq!(on.downgrade.as_deref(), Some("3.6.0"));
        assert!(restore(Table::Members, "5", r#"{"id":6}"#).is_err());
        assert!(restore(Table::Members, "x", r#"{"id":6}"#).is_err());
        assert!(restore(Table::MembersRemoved, "x", "removed").is_err());
    }

    #[test]
    fn an_alarm_is_raised_and_cleared_once() {
        let mut cluster = Cluster::default();
        assert_eq!(cluster.activate(1, 1).len(), 1);
        assert!(cluster.activate(1, 1).is_empty());
        assert_eq!(cluster.alarms_of(0), [pb::AlarmMember { member_id: 1, alarm: 1 }]);
        assert!(cluster.alarms_of(2).is_empty());
        assert!(cluster.deactivate(1, 1).is_some());
        assert!(cluster.deactivate(1, 1).is_none());
    }
}
