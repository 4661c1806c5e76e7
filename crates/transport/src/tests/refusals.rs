//! Who is turned away, with which words.

use std::time::Duration;

use bytes::Bytes;
use etched_proto::raftpb::MessageType;
use prost::Message as _;
use tokio::net::TcpListener;

use super::member::{CLUSTER, Event, Member, cluster, message, raw};
use crate::{Dialer, Error, Refused};

/// Headers of a good request from member 2 to member 1.
fn headers() -> Vec<(&'static str, String)> {
    vec![
        ("X-Server-From", "2".to_owned()),
        ("X-Server-Version", "3.6.0".to_owned()),
        ("X-Min-Cluster-Version", "3.0.0".to_owned()),
        ("X-Etcd-Cluster-ID", format!("{CLUSTER:x}")),
        ("X-Raft-To", "1".to_owned()),
    ]
}

async fn ask(
    member: &Member,
    method: &str,
    path: &str,
    headers: &[(&str, String)],
    body: &[u8],
) -> (u16, String, String) {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    let answer = raw(member.address, &[request.as_bytes(), body].concat()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_lowercase(), body.to_owned())
}

#[tokio::test]
async fn requests_are_checked_in_etcds_order() {
    let one = Member::start(1).await;
    let without = |name: &str| -> Vec<_> {
        headers().into_iter().filter(|(other, _)| *other != name).collect()
    };
    let with = |name: &'static str, value: &str| {
        let mut all = without(name);
        all.push((name, value.to_owned()));
        all
    };
    let (stream, good) = ("/raft/stream/msgapp/2", headers());
    let cases = [
        ("GET", "/raft", good.clone(), 405, "Method Not Allowed\n"),
        ("GET", "/raft/snapshot", good.clone(), 405, "Method Not Allowed\n"),
        ("POST", stream, good.clone(), 405, "Method Not Allowed\n"),
        ("POST", "/raft", without("X-Server-Version"), 412, "incompatible version\n"),
        ("POST", "/raft", with("X-Server-Version", "2.3.8"), 412, "incompatible version\n"),
        ("POST", "/raft", with("X-Server-Version", "nonsense"), 412, "incompatible version\n"),
        ("POST", "/raft", with("X-Min-Cluster-Version", "3.8.0"), 412, "incompatible version\n"),
        ("POST", "/raft", with("X-Etcd-Cluster-ID", "c2"), 412, "cluster ID mismatch\n"),
        ("GET", stream, with("X-Etcd-Cluster-ID", "c2"), 412, "cluster ID mismatch\n"),
        ("POST", "/raft/snapshot", without("X-Etcd-Cluster-ID"), 412, "cluster ID mismatch\n"),
        ("GET", "/raft/stream/other/2", good.clone(), 404, "invalid path\n"),
        ("GET", "/raft/stream/msgapp", good.clone(), 404, "invalid path\n"),
        ("GET", "/raft/stream/msgapp/x", good.clone(), 404, "invalid from\n"),
        ("GET", "/raft/stream/msgapp/", good.clone(), 404, "invalid from\n"),
        ("GET", stream, good.clone(), 404, "error sender not found\n"),
        ("GET", "/raft/", good.clone(), 404, "404 page not found\n"),
        ("POST", "/raft", good.clone(), 400, "error unmarshalling raft message\n"),
    ];
    for (method, path, headers, status, text) in cases {
        let (got, head, body) = ask(&one, method, path, &headers, b"\xff").await;
        assert_eq!((got, body.as_str()), (status, text), "{method} {path}");
        assert_eq!(head.contains("\r\nallow: "), status == 405, "{head}");
        let of_cluster = status != 405 && path != "/raft/";
        assert_eq!(head.contains("\r\nx-etcd-cluster-id: c1\r\n"), of_cluster, "{head}");
        let versioned = of_cluster && path.contains("stream");
        assert_eq!(head.contains("\r\nx-server-version: 3.7.1\r\n"), versioned, "{head}");
        assert!(head.contains("content-type: text/plain; charset=utf-8"), "{head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    }
    let (status, head, _) = ask(&one, "GET", "/raft/stream", &[], b"").await;
    assert_eq!((status, head.contains("\r\nlocation: /raft/stream/\r\n")), (307, true));
}

#[tokio::test]
async fn a_stream_for_another_member_and_one_from_a_removed_member_are_refused() {
    let (one, two) = (Member::start(1).await, Member::start(2).await);
    one.add(&two);
    let mut wrong = headers();
    wrong.pop();
    wrong.push(("X-Raft-To", "3".to_owned()));
    let (status, _, body) = ask(&one, "GET", "/raft/stream/message/2", &wrong, b"").await;
    assert_eq!((status, body.as_str()), (412, "to field mismatch\n"));
    one.raft.removed.lock().insert(2);
    let (status, _, body) = ask(&one, "GET", "/raft/stream/message/2", &headers(), b"").await;
    assert_eq!((status, body.as_str()), (410, "removed member\n"));
}

#[tokio::test]
async fn what_a_post_brings_is_taken_or_refused_as_raft_says() {
    let mut one = Member::start(1).await;
    let vote = message(MessageType::MsgVote, 2, 1);
    let (status, _, body) = ask(&one, "POST", "/raft", &headers(), &vote.encode_to_vec()).await;
    assert_eq!((status, body.as_str()), (204, ""));
    assert_eq!(one.message().await, vote);
    let elsewhere = message(MessageType::MsgVote, 2, 7).encode_to_vec();
    let (status, _, body) = ask(&one, "POST", "/raft", &headers(), &elsewhere).await;
    assert_eq!((status, body.as_str()), (500, "error processing raft message\n"));
    *one.raft.refuse.lock() = Some(Refused::Full);
    let (status, _, _) = ask(&one, "POST", "/raft", &headers(), &vote.encode_to_vec()).await;
    assert_eq!(status, 500);
    assert_eq!(one.transport.metrics().peer(2).received_failures.value(), 1);
    *one.raft.refuse.lock() = None;
    one.raft.removed.lock().insert(2);
    let (status, _, _) = ask(&one, "POST", "/raft", &headers(), &vote.encode_to_vec()).await;
    assert_eq!(status, 500);
}

#[tokio::test]
async fn what_is_no_snapshot_is_refused() {
    let one = Member::start(1).await;
    let sized = |message: &etched_proto::raftpb::Message| {
        [&(message.encoded_len() as u64).to_be_bytes()[..], &message.encode_to_vec()].concat()
    };
    let vote = sized(&message(MessageType::MsgVote, 2, 1));
    let elsewhere = sized(&super::member::snapshot(2, 7, 5));
    for (body, status, text) in [
        (&[][..], 400, "failed to decode raft message (EOF)\n"),
        (&[0, 0, 0][..], 400, "failed to decode raft message (unexpected EOF)\n"),
        (&[0xff; 8][..], 400, "failed to decode raft message (rafthttp: error limit exceeded)\n"),
        (&vote[..], 400, "wrong raft message type\n"),
        (
            &elsewhere[..],
            500,
            "failed to process raft message (cannot process message to mismatch member)\n",
        ),
    ] {
        let (got, _, answer) = ask(&one, "POST", "/raft/snapshot", &headers(), body).await;
        assert_eq!((got, answer.as_str()), (status, text));
    }
}

#[tokio::test]
async fn a_member_is_asked_for_other_things_by_one_request() {
    let one = Member::start(1).await;
    let dialer = Dialer { timeout: Duration::from_secs(10), tls: None };
    let ask = |url: String, path: &'static str, timeout| {
        let request = http::Request::get(path).body(Bytes::new()).unwrap();
        let dialer = dialer.clone();
        async move { dialer.ask(&url, request, timeout).await }
    };
    let answer = ask(one.url(), "/members", Duration::from_secs(10)).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.body()[..]), (404, &b"404 page not found\n"[..]));
    let answer = ask(one.url(), "/raft/probing", Duration::from_secs(10)).await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let late = ask(url, "/members", Duration::from_millis(10)).await;
    assert!(matches!(late, Err(Error::Timeout(_))), "{late:?}");
}

#[tokio::test]
async fn probes_are_answered() {
    let one = Member::start(1).await;
    let (status, head, body) = ask(&one, "GET", "/raft/probing", &[], b"").await;
    assert_eq!((status, head.contains("text/plain; charset=utf-8")), (200, true));
    assert!(body.starts_with("{\"OK\":true,\"Now\":\"") && body.ends_with("\"}\n"), "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_hears_that_it_is_one() {
    let [one, mut two] = cluster().await;
    one.raft.removed.lock().insert(2);
    one.transport.remove_peer(2);
    two.wait_for(&Event::Removed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_two_clusters_do_not_talk() {
    let mut one = Member::start(1).await;
    let mut two = Member::start_with(2, |config| config.cluster_id = CLUSTER + 1).await;
    one.add(&two);
    two.add(&one);
    one.wait_for(&Event::Answered("/raft/stream/msgapp/2".to_owned(), 412)).await;
    two.transport.send([message(MessageType::MsgVote, 2, 1)]);
    one.wait_for(&Event::Answered("/raft".to_owned(), 412)).await;
    two.wait_for(&Event::Unreachable(1)).await;
}

#[test]
fn the_path_says_whether_a_request_is_the_transports() {
    for (path, ours) in [
        ("/raft", true),
        ("/raft/", true),
        ("/raft/probing", true),
        ("/rafts", false),
        ("/", false),
    ] {
        assert_eq!(crate::Transport::serves(path), ours, "{path}");
    }
}

#[tokio::test]
async fn addresses_that_are_none_are_refused() {
    let one = Member::start(1).await;
    for urls in [&[][..], &["127.0.0.1:1"], &["http://a"]] {
        assert!(matches!(one.transport.add_peer(2, urls), Err(Error::Url(_))));
        assert!(matches!(one.transport.add_remote(2, urls), Err(Error::Url(_))));
    }
}

#[tokio::test]
async fn only_a_sender_that_may_join_is_remembered() {
    let one = Member::start(1).await;
    let mut named = headers();
    named.push(("X-PeerURLs", "http://127.0.0.1:1".to_owned()));
    let vote = message(MessageType::MsgVote, 2, 1).encode_to_vec();
    one.raft.removed.lock().insert(2);
    ask(&one, "POST", "/raft", &named, &vote).await;
    assert!(!one.transport.knows(2));
    one.raft.removed.lock().remove(&2);
    ask(&one, "POST", "/raft", &named, &vote).await;
    assert!(one.transport.knows(2));
    one.transport.remove_peer(2);
    assert!(!one.transport.knows(2));
}
