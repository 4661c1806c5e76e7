//! The store as etcd's database has it: ten buckets in the order of their names, each with its pairs.
//!
//! Rows lie in the store's file as they lie in etcd's. What is different there is put together here: a record's key,
//! and the rows of bucket `meta` that tell where the log stands.

use std::ops::ControlFlow;

use bytes::Bytes;
use etched_bolt::etcd::{self, Revision};
use etched_proto::raftpb::ConfState;
use etched_storage::{Error, Table, View};

/// Takes buckets and pairs in order.
pub(crate) trait Sink {
    /// Why it takes no more.
    type Error: From<Error>;

    /// The next bucket begins.
    fn bucket(&mut self, name: &'static str) -> Result<(), Self::Error>;

    /// A pair of that bucket.
    fn pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), Self::Error>;
}

/// Gives everything at the view's index to `sink`. In memory is a record, or the rows of one table.
///
/// # Errors
/// What the store's file says, and what `sink` does.
pub(crate) fn give<S: Sink>(view: &View, sink: &mut S) -> Result<(), S::Error> {
    for name in etcd::BUCKETS {
        sink.bucket(name)?;
        let Some(table) = Table::ALL.into_iter().find(|table| table.name() == name) else {
            give_records(view, sink)?;
            continue;
        };
        let mut rows = view.rows(table)?;
        if table == Table::Meta {
            rows.extend(log_rows(view));
            add_storage_version(view, &mut rows)?;
            rows.sort();
        }
        for (key, value) in rows {
            sink.pair(&key, &value)?;
        }
    }
    Ok(())
}

fn give_records<S: Sink>(view: &View, sink: &mut S) -> Result<(), S::Error> {
    let mut key = [0; Revision::BYTES_MAX];
    let mut given = Ok(());
    view.scan(
        etched_mvcc::Revision::start_of(0),
        etched_mvcc::Revision::start_of(i64::MAX),
        &mut |etched_mvcc::Revision { main, sub }, record| {
            let revision = Revision { main, sub, tombstone: record.tombstone };
            given = sink.pair(revision.bytes(&mut key), record.bytes);
            if given.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    )?;
    given
}

/// What is not in a table of ours: the store's file keeps it in its state.
fn log_rows(view: &View) -> Vec<(Bytes, Bytes)> {
    let applied = view.applied();
    let number = |number: u64| Bytes::copy_from_slice(&number.to_be_bytes());
    let mut rows = vec![
        (etcd::meta::CONSISTENT_INDEX.into(), number(applied.index)),
        (etcd::meta::TERM.into(), number(applied.term)),
    ];
    rows.extend(
        view.conf_state()
            .map(|state| (etcd::meta::CONF_STATE.into(), conf_state_json(state).into())),
    );
    rows
}

/// The version of the schema follows the cluster's version here and has no row of its own; before there is one, it is
/// missing in etcd too.
fn add_storage_version(view: &View, rows: &mut Vec<(Bytes, Bytes)>) -> Result<(), Error> {
    if rows.iter().any(|(key, _)| key == etcd::meta::STORAGE_VERSION) {
        return Ok(());
    }
    let cluster = view.rows(Table::Cluster)?.into_iter();
    rows.extend(
        cluster
            .filter(|(key, _)| key == etcd::CLUSTER_VERSION)
            .map(|(_, version)| (etcd::meta::STORAGE_VERSION.into(), version)),
    );
    Ok(())
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

    #[test]
    fn every_table_is_a_bucket_and_records_are_the_one_more() {
        let tables = etcd::BUCKETS.into_iter().filter(|name| *name != etcd::KEY);
        let mut names = Table::ALL.map(Table::name).to_vec();
        names.sort_unstable();
        assert!(tables.eq(names));
    }
}
