//! Maintenance.Hash: one checksum over everything, as etcd computes it over its file.

use std::ops::ControlFlow;

use etched_proto::raftpb::ConfState;
use etched_storage::Table;
use tonic::Status;

use crate::shared::Shared;

/// The tables in the order of their names, which is etcd's; records stand where `key` belongs.
const ORDER: [Option<Table>; 10] = [
    Some(Table::Alarm),
    Some(Table::Auth),
    Some(Table::AuthRoles),
    Some(Table::AuthUsers),
    Some(Table::Cluster),
    None,
    Some(Table::Lease),
    Some(Table::Members),
    Some(Table::MembersRemoved),
    Some(Table::Meta),
];

/// CRC-32C over all tables, and the revision at which it was taken. The file must stand at what is to be hashed.
///
/// # Errors
/// What the store's file says.
pub(crate) fn whole_store(shared: &Shared) -> Result<(u32, i64), Status> {
    let revision = shared.reader.current_revision();
    let failed = |error: etched_storage::Error| Status::unknown(error.to_string());
    let view = shared.storage.view();
    let mut crc = 0;
    for table in ORDER {
        let Some(table) = table else {
            crc = crc32c::crc32c_append(crc, b"key");
            view.scan(
                etched_mvcc::Revision::start_of(0),
                etched_mvcc::Revision::start_of(i64::MAX),
                &mut |revision, record| {
                    crc = crc32c::crc32c_append(crc, &record_key(revision, record.tombstone));
                    crc = crc32c::crc32c_append(crc, record.bytes);
                    ControlFlow::Continue(())
                },
            )
            .map_err(failed)?;
            continue;
        };
        crc = crc32c::crc32c_append(crc, table.name().as_bytes());
        let mut rows = view.rows(table).map_err(failed)?;
        if table == Table::Meta {
            rows.retain(|(key, _)| key != "storageVersion");
            rows.extend(
                shared
                    .flush
                    .conf_state()
                    .map(|state| ("confState".into(), conf_state_json(&state).into())),
            );
            rows.sort();
        }
        for (key, value) in rows {
            crc = crc32c::crc32c_append(crc, &key);
            crc = crc32c::crc32c_append(crc, &value);
        }
    }
    Ok((crc, revision))
}

/// A record's key in etcd's bucket.
fn record_key(revision: etched_mvcc::Revision, tombstone: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(18);
    key.extend_from_slice(&revision.main.to_be_bytes());
    key.push(b'_');
    key.extend_from_slice(&revision.sub.to_be_bytes());
    if tombstone {
        key.push(b't');
    }
    key
}

/// etcd's JSON of the membership; lists that are empty are left out.
fn conf_state_json(state: &ConfState) -> String {
    let list = |name: &str, ids: &[u64]| {
        let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
        if ids.is_empty() { String::new() } else { format!("\"{name}\":[{}],", ids.join(",")) }
    };
    format!(
        "{{{}{}{}{}\"auto_leave\":{}}}",
        list("voters", &state.voters),
        list("learners", &state.learners),
        list("voters_outgoing", &state.voters_outgoing),
        list("learners_next", &state.learners_next),
        state.auto_leave.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conf_state_is_written_as_etcd_writes_it() {
        let state = ConfState { voters: vec![1, 2], ..ConfState::default() };
        assert_eq!(conf_state_json(&state), r#"{"voters":[1,2],"auto_leave":false}"#);
        let state = ConfState { learners: vec![3], ..state };
        let json = r#"{"voters":[1,2],"learners":[3],"auto_leave":false}"#;
        assert_eq!(conf_state_json(&state), json);
    }
}
