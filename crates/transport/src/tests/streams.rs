//! Messages: order, loss, and what a bad peer does to others.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etched_proto::raftpb::MessageType;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::codec::Kind;

use super::member::{CLUSTER, Event, Member, append, cluster, message};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_as_they_were_sent_and_in_order() {
    let [one, mut two] = cluster().await;
    let appends: Vec<_> = (5..1505).map(|index| append(1, 2, index, "x")).collect();
    let others: Vec<_> = (0..1500)
        .map(|number| {
            let mut beat = message(MessageType::MsgHeartbeat, 1, 2);
            beat.commit = Some(number);
            beat
        })
        .collect();
    let both = appends.iter().zip(&others);
    one.transport.send(both.flat_map(|(append, other)| [append.clone(), other.clone()]));
    let (mut got_appends, mut got_others) = (Vec::new(), Vec::new());
    while got_appends.len() < appends.len() || got_others.len() < others.len() {
        let message = two.message().await;
        match message.r#type == Some(MessageType::MsgApp as i32) {
            true => got_appends.push(message),
            false => got_others.push(message),
        }
    }
    assert!(got_appends == appends, "appends differ");
    assert!(got_others == others, "others differ");
    let bytes = appends.iter().chain(&others).map(prost::Message::encoded_len).sum::<usize>();
    assert!(one.transport.metrics().peer(2).sent_bytes.value() >= bytes as u64);
    assert!(two.transport.metrics().peer(1).received_bytes.value() > 0);
    assert_eq!((one.transport.active_peers(), two.transport.active_peers()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_of_many_megabytes_arrives() {
    let [one, mut two] = cluster().await;
    let data: Vec<u8> = (0..20_u32 << 20).map(|at| (at % 251) as u8).collect();
    // The first is sent as a whole, the second as what is new.
    for index in [7, 8] {
        let append = append(1, 2, index, Bytes::from(data.clone()));
        one.transport.send([append.clone()]);
        assert!(two.message().await == append);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_come_back_when_their_connections_are_killed() {
    let [mut one, mut two] = cluster().await;
    for round in 0..3 {
        one.kill_connections().await;
        one.asked_by([2]).await;
        let append = append(1, 2, round, "y");
        one.transport.send([append.clone()]);
        assert_eq!(two.message().await, append);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_streams_messages_go_by_themselves() {
    let (one, mut two) = (Member::start(1).await, Member::start(2).await);
    // Two does not ask for streams, because it does not know one.
    one.add(&two);
    let vote = message(MessageType::MsgPreVote, 1, 2);
    one.transport.send([vote.clone()]);
    assert_eq!(two.message().await, vote);
    two.wait_for(&Event::Answered("/raft".to_owned(), 204)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_not_known_yet_is_answered() {
    let (mut one, mut two) = (Member::start(1).await, Member::start(2).await);
    two.add(&one);
    one.wait_for(&Event::Answered("/raft/stream/message/2".to_owned(), 404)).await;
    let answer = message(MessageType::MsgAppResp, 1, 2);
    one.transport.send([answer.clone()]);
    assert_eq!(two.message().await, answer);
    // When it becomes a peer it gets its streams.
    one.add(&two);
    one.asked_by([2]).await;
}

/// Asks for a stream and never reads it.
async fn deaf(member: &Member, id: u64) -> TcpStream {
    let mut stream = TcpStream::connect(member.address).await.unwrap();
    let request = format!(
        "GET /raft/stream/message/{id:x} HTTP/1.1\r\nHost: x\r\nX-Server-From: {id:x}\r\n\
         X-Server-Version: 3.7.1\r\nX-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: {CLUSTER:x}\r\n\
         X-Raft-To: {:x}\r\n\r\n",
        member.id
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_reads_nothing_loses_its_messages_and_holds_up_nobody() {
    let [mut one, mut two] = cluster().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    one.transport.add_peer(3, &[url]).unwrap();
    let _deaf = deaf(&one, 3).await;
    let proposal = append(1, 3, 1, vec![7; 4096]);
    let beat = message(MessageType::MsgHeartbeat, 1, 2);
    for _ in 0..20 {
        one.transport.send(std::iter::repeat_n(proposal.clone(), 1000));
        one.transport.send([beat.clone()]);
        assert_eq!(two.message().await, beat);
    }
    one.wait_for(&Event::Unreachable(3)).await;
    assert!(one.transport.metrics().peer(3).sent_failures.value() > 1000);
    assert_eq!(one.transport.metrics().peer(2).sent_failures.value(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_not_there_is_reported_for_each_message() {
    let mut one = Member::start(1).await;
    one.transport.add_peer(2, &["http://127.0.0.1:1"]).unwrap();
    one.transport.send((0..500).map(|_| message(MessageType::MsgPreVote, 1, 2)));
    for _ in 0..500 {
        one.wait_for(&Event::Unreachable(2)).await;
    }
    assert_eq!(one.transport.active_since(2), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_request_whose_answer_is_lost_is_not_sent_again() {
    let mut one = Member::start(1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    one.transport.add_peer(2, &[url]).unwrap();
    one.transport.send([message(MessageType::MsgReadIndex, 1, 2)]);
    let mut posts = 0;
    // Each connection is read and dropped; the two streams dial again and again meanwhile.
    while posts == 0 {
        posts += usize::from(is_post(&listener).await);
    }
    one.wait_for(&Event::Unreachable(2)).await;
    for _ in 0..10 {
        posts += usize::from(is_post(&listener).await);
    }
    assert_eq!(posts, 1);
}

async fn is_post(listener: &TcpListener) -> bool {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.is_ok() && &head == b"POST"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_says_nothing_is_dialed_again() {
    let short = Duration::from_millis(300);
    let one = Member::start_with(1, |config| config.read_timeout = short).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    one.transport.add_peer(2, &[format!("http://{}", listener.local_addr().unwrap())]).unwrap();
    let (mut open, mut streams) = (Vec::new(), 0);
    while streams < 4 {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 11];
        // The prober asks too.
        if stream.read_exact(&mut head).await.is_ok() && &head == b"GET /raft/s" {
            streams += 1;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await
                .unwrap();
        }
        open.push(stream);
    }
    assert!(one.transport.metrics().peer(2).disconnected.value() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_addresses_one_that_answers_is_found() {
    let (one, mut two) = (Member::start(1).await, Member::start(2).await);
    one.transport.add_peer(2, &["http://127.0.0.1:1".to_owned(), two.url()]).unwrap();
    two.add(&one);
    two.asked_by([1]).await;
    two.transport.remove_peer(1);
    one.transport.update_peer(2, &["http://127.0.0.1:1"]).unwrap();
    assert_eq!(two.transport.active_since(1), None);
    one.transport.update_peer(2, &[two.url()]).unwrap();
    two.add(&one);
    two.asked_by([1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_asks_while_it_is_removed_gets_a_stream_that_has_ended() {
    let [one, two] = cluster().await;
    let peer = one.transport.peer(2).unwrap();
    one.transport.remove_peer(2);
    let mut late = peer.attach(Kind::MsgApp);
    assert!(poll_fn(|cx| late.poll_chunk(cx)).await.is_none());
    assert_eq!(one.transport.metrics().peer(2).active.value(), Some(0));
    drop(two);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_to_nobody_and_to_strangers_are_dropped() {
    let [mut one, mut two] = cluster().await;
    let beat = message(MessageType::MsgHeartbeat, 1, 2);
    one.transport.send([
        message(MessageType::MsgHeartbeat, 1, 0),
        message(MessageType::MsgHeartbeat, 1, 9),
        super::member::snapshot(1, 2, 5),
        beat.clone(),
    ]);
    assert_eq!(two.message().await, beat);
    one.wait_for(&Event::Sent(2, false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_transport_ends_its_streams_and_takes_no_peers() {
    let [mut one, two] = cluster().await;
    two.transport.stop();
    two.add(&one);
    assert_eq!(two.transport.active_peers(), 0);
    one.kill_connections().await;
    one.transport.send([message(MessageType::MsgHeartbeat, 1, 2)]);
    // Nobody asks any more, so that it goes by POST, to a listener that still takes it.
    drop(two);
    one.transport.send((0..200).map(|_| message(MessageType::MsgHeartbeat, 1, 2)));
    one.wait_for(&Event::Unreachable(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_a_stream_that_is_replaced_is_lost_and_reported() {
    let mut one = Member::start(1).await;
    one.transport.add_peer(2, &["http://127.0.0.1:1"]).unwrap();
    let peer = one.transport.peer(2).unwrap();
    let mut first = peer.attach(Kind::Message);
    one.transport.send((0..3).map(|_| message(MessageType::MsgReadIndex, 1, 2)));
    let mut second = peer.attach(Kind::Message);
    assert!(poll_fn(|cx| first.poll_chunk(cx)).await.is_none());
    drop(first);
    one.wait_for(&Event::Unreachable(2)).await;
    let beat = message(MessageType::MsgHeartbeat, 1, 2);
    one.transport.send([beat.clone()]);
    let chunk = poll_fn(|cx| second.poll_chunk(cx)).await.unwrap();
    assert_eq!(chunk[8..], beat.encode_to_vec());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_has_nothing_to_say_says_that_it_lives() {
    let short = Duration::from_millis(300);
    let one = Member::start_with(1, |config| config.read_timeout = short).await;
    one.transport.add_peer(2, &["http://127.0.0.1:1"]).unwrap();
    let peer = one.transport.peer(2).unwrap();
    for (kind, heartbeat) in
        [(Kind::MsgApp, &[0][..]), (Kind::Message, &[0, 0, 0, 0, 0, 0, 0, 2, 8, 8])]
    {
        let (mut stream, began) = (peer.attach(kind), Instant::now());
        let chunk = poll_fn(|cx| stream.poll_chunk(cx)).await.unwrap();
        assert_eq!(chunk, heartbeat);
        assert!(began.elapsed() >= short / 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_bounded_in_bytes_too() {
    let mut one = Member::start(1).await;
    one.transport.add_peer(2, &["http://127.0.0.1:1"]).unwrap();
    let _unread = one.transport.peer(2).unwrap().attach(Kind::MsgApp);
    let mut large = append(1, 2, 1, vec![7; 1 << 20]);
    // All of them share the memory of one.
    large.entries = std::iter::repeat_n(large.entries.remove(0), 600).collect();
    one.transport.send([large.clone()]);
    assert_eq!(one.transport.metrics().peer(2).sent_failures.value(), 0, "the first is taken");
    one.transport.send([large]);
    one.wait_for(&Event::Unreachable(2)).await;
    assert_eq!(one.transport.metrics().peer(2).sent_failures.value(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_forbids_messages_knows_this_member_as_removed() {
    let mut one = Member::start(1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    one.transport.add_peer(2, &[url]).unwrap();
    one.transport.send([message(MessageType::MsgVote, 1, 2)]);
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4];
        if stream.read_exact(&mut head).await.is_ok() && &head == b"POST" {
            let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            one.wait_for(&Event::Removed).await;
            return;
        }
    }
}
