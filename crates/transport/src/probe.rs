//! Asks a peer for the time every few seconds: how long the way is, and whether the clocks agree.
//!
//! etcd probes twice, once for each of its two kinds of connections; here there is one kind.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1::SendRequest;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, MissedTickBehavior};

use crate::Error;
use crate::connect::{RequestBody, drive};
use crate::local::Hex;
use crate::peer::Link;
use crate::url::PeerUrl;

/// Path of a probe.
pub(crate) const PATH: &str = "/raft/probing";
/// How much shorter than the read timeout the time between two probes is, so that a connection lives on.
const SOONER: Duration = Duration::from_secs(1);
/// Time between two looks at what probes found, when the peer is well and when it is not; etcd's.
const LOOK: Duration = Duration::from_secs(30);
const LOOK_WHEN_ILL: Duration = Duration::from_secs(5);
/// Clocks may differ by this much without a warning.
const DRIFT_MAX: Duration = Duration::from_secs(1);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 4 << 10;
/// Weight of a new round trip in the smoothed one: one part of as many.
const SMOOTHING: u32 = 8;

/// What is known of the way to a peer.
#[derive(Default)]
struct Known {
    well: bool,
    round_trip: Duration,
    drift: Duration,
    error: Option<Error>,
}

/// Probes for as long as the task lives.
pub(crate) async fn run(link: Arc<Link>) {
    let timeout = link.local.config.read_timeout;
    let mut ticks = tokio::time::interval(timeout.saturating_sub(SOONER).max(timeout / 2));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut known = Known::default();
    let mut look_at = Instant::now() + LOOK_WHEN_ILL;
    loop {
        ticks.tick().await;
        let url = link.picker.pick();
        let failed = match link.local.config.dialer.dial(&url, timeout).await {
            // The connection is used until it fails.
            Ok((mut sender, connection)) => {
                drive(connection, async {
                    loop {
                        if let Err(error) = one(&mut sender, &url, &mut known).await {
                            return error;
                        }
                        look(&link, &known, &mut look_at);
                        ticks.tick().await;
                    }
                })
                .await
            }
            Err(error) => error,
        };
        (known.well, known.error) = (false, Some(failed));
        look(&link, &known, &mut look_at);
    }
}

async fn one(
    sender: &mut SendRequest<RequestBody>,
    url: &PeerUrl,
    known: &mut Known,
) -> Result<(), Error> {
    let mut request = Request::new(RequestBody::Empty);
    *request.uri_mut() = http::Uri::from_static(PATH);
    request.headers_mut().insert(HOST, url.authority.clone());
    let began = Instant::now();
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Err(Error::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let their_time = parse(&body.map_err(|_| Error::Probe)?.to_bytes()).ok_or(Error::Probe)?;
    known.well = true;
    known.error = None;
    known.round_trip = (known.round_trip * (SMOOTHING - 1) + began.elapsed()) / SMOOTHING;
    let drift = OffsetDateTime::now_utc() - their_time - known.round_trip / 2;
    known.drift = drift.unsigned_abs();
    Ok(())
}

/// The answer to a probe.
pub(crate) fn answer() -> String {
    let now = OffsetDateTime::now_utc().format(&Rfc3339).expect("this year has four digits");
    format!("{{\"OK\":true,\"Now\":\"{now}\"}}\n")
}

fn parse(body: &Bytes) -> Option<OffsetDateTime> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    answer.get("OK")?.as_bool().filter(|ok| *ok)?;
    OffsetDateTime::parse(answer.get("Now")?.as_str()?, &Rfc3339).ok()
}

/// Says what is wrong, and observes the round trip, now and then.
fn look(link: &Link, known: &Known, at: &mut Instant) {
    let now = Instant::now();
    if now < *at {
        return;
    }
    *at = now + if known.well { LOOK } else { LOOK_WHEN_ILL };
    let error = known.error.as_ref().map(ToString::to_string);
    if !known.well {
        tracing::warn!(
            "remote-peer-id" = %Hex(link.id),
            rtt = ?known.round_trip,
            error,
            "prober detected unhealthy status"
        );
    }
    if known.drift > DRIFT_MAX {
        tracing::warn!(
            "remote-peer-id" = %Hex(link.id),
            "clock-drift" = ?known.drift,
            rtt = ?known.round_trip,
            error,
            "prober found high clock drift"
        );
    }
    link.metrics.new_round_trip(known.round_trip);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::member::Member;

    #[test]
    fn an_answer_says_the_time_in_the_words_of_go() {
        let ours = Bytes::from(answer());
        let age = OffsetDateTime::now_utc() - parse(&ours).unwrap();
        assert!(age.whole_seconds() < 60);
        let gos =
            Bytes::from_static(b"{\"OK\":true,\"Now\":\"2026-11-25T03:39:19.123456789+01:00\"}\n");
        assert_eq!(parse(&gos).unwrap().unix_timestamp(), 1_795_574_359);
        for bad in ["", "{}", "{\"OK\":false,\"Now\":\"2026-11-25T03:39:19Z\"}", "{\"OK\":true}"] {
            assert_eq!(parse(&Bytes::from(bad)), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_probe_measures_the_way_and_the_clocks() {
        let member = Member::start(1).await;
        let url = PeerUrl::parse(&member.url()).unwrap();
        let dialer = &member.transport.local.config.dialer;
        let (mut sender, connection) = dialer.dial(&url, Duration::from_secs(10)).await.unwrap();
        let mut known = Known::default();
        drive(connection, async {
            // One connection does for all.
            for _ in 0..3 {
                one(&mut sender, &url, &mut known).await.unwrap();
            }
        })
        .await;
        assert!(known.well && known.round_trip > Duration::ZERO);
        assert!(known.drift < DRIFT_MAX, "{:?}", known.drift);
    }
}
