//! Databases from member to member.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::member::{Event, Member, cluster, snapshot};
use crate::SnapshotSource;

const PIECE: usize = 64 << 10;

/// `pieces` pieces, and how many bytes of them were asked for so far.
fn source(pieces: u64) -> (SnapshotSource, Arc<AtomicU64>) {
    let (to, chunks) = mpsc::channel(2);
    let made = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&made);
    tokio::spawn(async move {
        for number in 0..pieces {
            counted.fetch_add(PIECE as u64, Ordering::Relaxed);
            let piece = Bytes::from(vec![number as u8; PIECE]);
            if to.send(Ok(piece)).await.is_err() {
                return;
            }
        }
    });
    (SnapshotSource { size: pieces * PIECE as u64, chunks }, made)
}

fn sum(pieces: u64) -> u64 {
    (0..pieces).map(|number| u64::from(number as u8) * PIECE as u64).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_fifty_megabytes_arrives_whole() {
    let [mut one, mut two] = cluster().await;
    let (database, made) = source(800);
    let bytes = database.size;
    one.transport.send_snapshot(snapshot(1, 2, 77), database);
    two.wait_for(&Event::Database { index: 77, bytes, sum: sum(800), whole: true }).await;
    one.wait_for(&Event::Sent(2, true)).await;
    assert_eq!(made.load(Ordering::Relaxed), bytes);
    let sent = one.transport.metrics().peer(2);
    let received = two.transport.metrics().peer(1);
    assert_eq!((sent.snapshot_send.success.value(), sent.snapshot_send.failures.value()), (1, 0));
    assert_eq!(sent.snapshot_send.inflight.value(), Some(0));
    assert_eq!(sent.snapshot_send.seconds.observed().count, 1);
    assert!(received.received_bytes.value() > bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_receiver_does_not_take_is_not_made() {
    let mut one = Member::start(1).await;
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    one.transport.add_peer(2, &[format!("http://{}", deaf.local_addr().unwrap())]).unwrap();
    // Far more than the sockets between them hold.
    let (database, made) = source(16 << 10);
    one.transport.send_snapshot(snapshot(1, 2, 77), database);
    let mut seen = 0;
    let post = loop {
        let (stream, _) = deaf.accept().await.unwrap();
        let mut head = [0; 4];
        stream.readable().await.unwrap();
        if stream.peek(&mut head).await.unwrap() == 4 && &head == b"POST" {
            break stream;
        }
        drop(stream);
        seen += 1;
        assert!(seen < 1000, "no snapshot came");
    };
    // The sender gets as far as it can, which the pause of its source shows.
    let mut before = u64::MAX;
    while before != made.load(Ordering::Relaxed) {
        before = made.load(Ordering::Relaxed);
        let (stream, _) = deaf.accept().await.unwrap();
        drop(stream);
    }
    assert!(before < 64 << 20, "{before} bytes for a receiver that takes none");
    drop(post);
    one.wait_for(&Event::Unreachable(2)).await;
    one.wait_for(&Event::Sent(2, false)).await;
    assert_eq!(one.transport.metrics().peer(2).snapshot_send.failures.value(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_ends_early_is_not_taken_for_whole() {
    let [mut one, mut two] = cluster().await;
    for wrong in [-1_i64, 1] {
        let (mut database, _) = source(10);
        database.size = database.size.checked_add_signed(-wrong).unwrap();
        one.transport.send_snapshot(snapshot(1, 2, 77), database);
        let whole = two
            .wait(|event| match event {
                Event::Database { whole, .. } => Some(whole),
                _ => None,
            })
            .await;
        assert!(!whole, "{wrong}");
        one.wait_for(&Event::Sent(2, false)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_does_not_want_a_snapshot_says_so_before_it_has_come() {
    let [mut one, two] = cluster().await;
    two.raft.removed.lock().insert(1);
    let (database, made) = source(16 << 10);
    one.transport.send_snapshot(snapshot(1, 2, 77), database);
    one.wait_for(&Event::Sent(2, false)).await;
    assert!(made.load(Ordering::Relaxed) < 512 << 20);
    let received = two.transport.metrics().peer(1);
    assert_eq!(
        (received.snapshot_receive.failures.value(), received.snapshot_receive.success.value()),
        (1, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_snapshot_is_reported_when_its_peer_is_removed() {
    let mut one = Member::start(1).await;
    let (database, _) = source(1);
    one.transport.send_snapshot(snapshot(1, 2, 77), database);
    one.wait_for(&Event::Sent(2, false)).await;
    one.transport.add_peer(2, &["http://127.0.0.1:1"]).unwrap();
    let (chunks, (_never, waiting)) = (1, mpsc::channel(1));
    one.transport
        .send_snapshot(snapshot(1, 2, 78), SnapshotSource { size: chunks, chunks: waiting });
    one.transport.remove_peer(2);
    one.wait_for(&Event::Sent(2, false)).await;
}
