//! `/health`, `/livez` and `/readyz`.

use std::sync::Arc;

use etched_proto::etcdserverpb::AlarmType;
use http::{Response, StatusCode};

use super::{text, values};
use crate::grpc::Body;
use crate::shared::Shared;

/// The checks of the two endpoints, in the order they are run and shown.
const LIVEZ: &[&str] = &["serializable_read"];
const READYZ: &[&str] =
    &["data_corruption", "serializable_read", "linearizable_read", "non_learner"];

/// Whether `path` is one of `/livez`, `/readyz` or a single check below them.
pub(super) fn is_check(path: &str) -> bool {
    split(path).is_some()
}

/// Endpoint and, if given, the one check.
fn split(path: &str) -> Option<(&'static str, &'static [&'static str], Option<&'static str>)> {
    for (endpoint, checks) in [("livez", LIVEZ), ("readyz", READYZ)] {
        let Some(rest) = path.strip_prefix('/').and_then(|p| p.strip_prefix(endpoint)) else {
            continue;
        };
        if rest.is_empty() {
            return Some((endpoint, checks, None));
        }
        let one = checks.iter().find(|check| rest.strip_prefix('/') == Some(check));
        return one.map(|one| (endpoint, checks, Some(*one)));
    }
    None
}

/// `/health`: the first failing check gives the reason.
pub(super) async fn health(shared: &Arc<Shared>, query: Option<&str>) -> Response<Body> {
    let reason = unhealthy(shared, query).await;
    match reason {
        None => {
            shared.metrics.health_success.inc();
            let mut response = text(StatusCode::OK, r#"{"health":"true","reason":""}"#);
            response.headers_mut().remove("x-content-type-options");
            response
        }
        Some(reason) => {
            shared.metrics.health_failures.inc();
            tracing::warn!(reason, "serving /health false");
            let body = format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n");
            text(StatusCode::SERVICE_UNAVAILABLE, body)
        }
    }
}

async fn unhealthy(shared: &Arc<Shared>, query: Option<&str>) -> Option<String> {
    let serializable = values(query, "serializable").any(|value| value == "true");
    let alarms = shared.cluster.read().alarms_of(0);
    for alarm in alarms {
        let name = AlarmType::try_from(alarm.alarm).map_or("UNKNOWN", |kind| kind.as_str_name());
        if !values(query, "exclude").any(|excluded| excluded == name) {
            return Some(format!("ALARM {name}"));
        }
    }
    if !serializable && shared.leader() == 0 {
        return Some("RAFT NO LEADER".to_owned());
    }
    if !serializable && let Err(error) = shared.read_index().await {
        return Some(format!("RANGE ERROR:{}", error.status().1));
    }
    None
}

/// `/livez`, `/readyz` and their single checks.
pub(super) async fn check(shared: &Arc<Shared>, path: &str, query: Option<&str>) -> Response<Body> {
    let Some((endpoint, checks, one)) = split(path) else {
        return text(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    let excluded = |name: &str| one.is_none() && values(query, "exclude").any(|e| e == name);
    let (mut lines, mut failed) = (String::new(), false);
    let wanted = checks.iter().filter(|name| one.is_none_or(|one| one == **name));
    for &name in wanted.filter(|name| !excluded(name)) {
        let outcome = run(shared, name).await;
        record(shared, endpoint, name, outcome.is_ok());
        match outcome {
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            Err(error) => {
                failed = true;
                lines.push_str(&format!("[-]{name} failed: {error}\n"));
            }
        }
    }
    if failed {
        return text(StatusCode::SERVICE_UNAVAILABLE, lines + "\n");
    }
    if values(query, "verbose").next().is_none() {
        lines.clear();
    }
    text(StatusCode::OK, lines + "ok\n")
}

fn record(shared: &Shared, endpoint: &str, name: &str, ok: bool) {
    let status = if ok { "success" } else { "error" };
    shared.metrics.healthcheck.with_label_values(&[endpoint, name]).set(f64::from(ok));
    shared.metrics.healthchecks.with_label_values(&[endpoint, name, status]).inc();
}

async fn run(shared: &Arc<Shared>, name: &str) -> Result<(), String> {
    match name {
        "data_corruption" if shared.cluster.read().has_alarm(AlarmType::Corrupt) => {
            Err("alarm activated: CORRUPT".to_owned())
        }
        "linearizable_read" => {
            shared.read_index().await.map_err(|error| error.status().1.to_owned())
        }
        "non_learner" if shared.is_learner() => Err("not supported for learner".to_owned()),
        // A serializable read takes the store as it is: answering at all is the proof.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_check_is_found_below_its_endpoint_only() {
        assert!(is_check("/livez"));
        assert!(is_check("/readyz/non_learner"));
        assert!(!is_check("/livez/non_learner"));
        assert!(!is_check("/livezz"));
        assert!(!is_check("/readyz/"));
    }

    #[test]
    fn a_parameter_may_be_repeated_or_bare() {
        let query = Some("exclude=a&verbose&exclude=b");
        assert_eq!(values(query, "exclude").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(values(query, "verbose").count(), 1);
        assert_eq!(values(None, "verbose").count(), 0);
    }
}
