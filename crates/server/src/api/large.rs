//! Large answers: how much memory all of them take together, and how they get onto the wire.
//!
//! ```text
//! length known ──> share of the budget, in order ──> window read beside ──block by block──> HTTP/2 stream
//!                       ^                                                   (as fast as the client takes)
//!                       └────────── next window, or the same one again ───────────┘
//! ```
//! An answer in key order is never held as a whole, unless its records lie scattered in storage (see
//! `etched_mvcc`): then one answer at a time may have a window that is nearly all of it. Whatever happens, the
//! memory of all answers above [`LARGE_BYTES`] is at most [`WINDOWS_BYTES`] and [`WHOLE_BYTES`], and what one
//! request in another order takes.
//!
//! A client that has had its window for [`HOLD`] and takes nothing for a [`TICK`], while others wait, loses it: it
//! is read again when the client goes on and the budget allows. Only an answer in another order, which cannot be read in parts,
//! ends with an error then. An old revision is kept for [`PIN`]; after that a compaction beyond it ends the answer
//! with an error: the message stays short of its announced length, which no client takes for an answer.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use etched_mvcc::{LargeRange, Window};
use etched_proto::raw::{RangeReply, Wire};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::Status;

use super::check_length;
use super::kv::beside;
use crate::error::Error;
use crate::grpc::{Framed, GzipMessage, PREFIX, Source};
use crate::shared::Shared;

/// Answers above this are counted against the budget.
pub(crate) const LARGE_BYTES: usize = 1 << 20;
/// A window of records that lie together.
const WINDOW_BYTES: usize = 8 << 20;
/// All windows of that kind. Whoever finds no room waits, in order, until its deadline.
const WINDOWS_BYTES: usize = 64 << 20;
/// A window of scattered records, of which there is one at a time.
const WHOLE_BYTES: usize = 224 << 20;
/// What shares are counted in.
const UNIT: usize = 1 << 20;
/// Pieces of an answer that is held as a whole.
const SLICE: usize = 256 << 10;
/// How long a client may hold a share while others wait; in tests they wait for long enough at once.
const HOLD: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 5 });
/// How long an answer keeps a compaction waiting.
const PIN: Duration = Duration::from_secs(60);
/// How long a client may take nothing before it is looked at.
const TICK: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 1000 });

/// The memory that large answers have.
#[derive(Debug)]
pub(crate) struct LargeAnswers {
    windows: Room,
    whole: Room,
}

#[derive(Debug)]
struct Room {
    free: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

/// Part of a room, until it is dropped. It goes along with the read that it is for: one that nobody waits for any
/// more takes its memory until it ends.
struct Share {
    waiting: Arc<AtomicUsize>,
    since: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Default for LargeAnswers {
    fn default() -> Self {
        Self { windows: Room::new(WINDOWS_BYTES / UNIT), whole: Room::new(1) }
    }
}

impl Room {
    fn new(units: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(units)), waiting: Arc::default() }
    }

    async fn share(&self, units: usize) -> Share {
        let _waiting = Waiting::of(&self.waiting);
        let permit = Arc::clone(&self.free).acquire_many_owned(units as u32).await;
        let permit = permit.expect("never closed");
        Share { waiting: Arc::clone(&self.waiting), since: Instant::now(), _permit: permit }
    }
}

impl Share {
    /// What was read for is there: the client's time begins.
    fn filled(mut self) -> Self {
        self.since = Instant::now();
        self
    }

    /// Whether it was held for long enough, now that somebody else wants it.
    fn is_due(&self) -> bool {
        self.since.elapsed() >= HOLD && self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// Counts who waits, also when the waiting is given up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers a range window by window; `revision` is that of the header.
///
/// # Errors
/// When the first window cannot be read, or the answer is larger than a message may be.
pub(super) async fn by_windows(
    shared: Arc<Shared>,
    range: LargeRange,
    revision: i64,
) -> Result<Framed, Status> {
    let head = RangeReply { header: Some(shared.header(revision)), ..RangeReply::default() };
    let tail = range.head();
    let length = head.wire_len() + range.bytes() + tail.wire_len();
    check_length(length)?;
    let mut start = BytesMut::with_capacity(64);
    start.put_u8(0);
    start.put_u32(length as u32);
    head.write(&mut start);
    let mut end = BytesMut::with_capacity(16);
    tail.write(&mut end);
    let began = Instant::now();
    let mut answer = ByWindows { shared, range: Arc::new(range), scattered: false, began };
    sent_by(|to| async move { answer.send(&to, start.freeze(), end.freeze()).await }).await
}

/// Answers with what `make` makes, framed, when it is its turn to be held as a whole.
///
/// # Errors
/// Those of `make`.
pub(super) async fn as_a_whole(
    shared: Arc<Shared>,
    make: impl FnOnce(&Shared) -> Result<Bytes, Status> + Send + 'static,
) -> Result<Framed, Status> {
    sent_by(|to| async move {
        let share = shared.large.whole.share(1).await;
        let maker = Arc::clone(&shared);
        let (mut answer, share) = beside(move || Ok((make(&maker)?, share.filled()))).await?;
        while !answer.is_empty() {
            // A copy: a piece that the client does not take must not keep the whole answer.
            let slice = Bytes::copy_from_slice(&answer[..answer.len().min(SLICE)]);
            answer.advance(slice.len());
            let Some(permit) = room(&to, Some(&share), || {}).await? else {
                return Err(Status::unavailable(
                    "etched: the client takes its large answer too slowly while others wait",
                ));
            };
            permit.send(Ok(slice));
        }
        Ok(())
    })
    .await
}

type Blocks = mpsc::Sender<Result<Bytes, Status>>;

/// The message whose pieces `sending` sends, from the moment it sends the first. Before that an error is a status
/// of its own; later it cuts the message short. Ends with the client.
async fn sent_by<F>(sending: impl FnOnce(Blocks) -> F) -> Result<Framed, Status>
where
    F: Future<Output = Result<(), Status>> + 'static,
{
    let (to, mut pieces) = mpsc::channel(1);
    let sending = sending(to.clone());
    tokio::task::spawn_local(async move {
        tokio::select! {
            sent = sending => if let Err(status) = sent {
                // Nobody is there to hear it when the client has gone.
                let _ = to.send(Err(status)).await;
            },
            () = to.closed() => {}
        }
    });
    match pieces.recv().await {
        Some(first) => first.map(|first| Framed::pieces(first, |left| Pieces { pieces, left })),
        None => Err(Error::Stopped.into()),
    }
}

/// The pieces of a message after the first.
struct Pieces {
    pieces: mpsc::Receiver<Result<Bytes, Status>>,
    /// Bytes still to come: an end before them is an error, whatever the reason.
    left: usize,
}

impl Source for Pieces {
    fn poll_chunk(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = std::task::ready!(self.pieces.poll_recv(cx));
        let piece = piece.unwrap_or_else(|| Err(Error::Stopped.into()));
        self.left = self.left.saturating_sub(piece.as_ref().map_or(0, Bytes::len));
        Poll::Ready(Some(piece))
    }
}

struct ByWindows {
    shared: Arc<Shared>,
    range: Arc<LargeRange>,
    /// Its records lie scattered, as a window has shown.
    scattered: bool,
    began: Instant,
}

impl ByWindows {
    async fn send(&mut self, to: &Blocks, start: Bytes, end: Bytes) -> Result<(), Status> {
        let shared = Arc::clone(&self.shared);
        let (mut start, mut sent) = (Some(start), 0);
        while !self.range.is_done() {
            let (mut window, share) = self.read(&shared.large).await?;
            if let Some(start) = start.take() {
                to.send(Ok(start)).await.map_err(|_| gone())?;
            }
            let blocks = std::mem::take(&mut window.blocks);
            let all = blocks.len();
            for block in blocks.into_iter().skip(sent) {
                let Some(permit) = self.room(to, Some(&share)).await? else { break };
                permit.send(Ok(block));
                sent += 1;
            }
            drop(share);
            if sent == all {
                self.range_mut().pass(&window);
                sent = 0;
            } else {
                // Only when the client reads on there is a reason to read again.
                self.room(to, None).await?;
            }
        }
        to.send(Ok(end)).await.map_err(|_| gone())
    }

    /// The next window, and the share that it takes.
    async fn read(&mut self, budget: &LargeAnswers) -> Result<(Window, Share), Status> {
        if !self.scattered {
            let bytes = self.range.bytes().min(WINDOW_BYTES);
            let share = self.share(&budget.windows, bytes.div_ceil(UNIT)).await;
            // A larger window would not hold more of an answer that small.
            let whole = self.range.bytes() <= WINDOW_BYTES;
            if let (Some(window), share) = self.window(WINDOW_BYTES, whole, share).await? {
                return Ok((window, share));
            }
            self.scattered = true;
        }
        let share = self.share(&budget.whole, 1).await;
        let (window, share) = self.window(WHOLE_BYTES, true, share).await?;
        Ok((window.expect("scattered windows were asked for"), share))
    }

    /// A share when it is this one's turn. Waiting for it keeps the revision no longer than a slow client does.
    async fn share(&mut self, room: &Room, units: usize) -> Share {
        let mut share = pin!(room.share(units));
        loop {
            self.unpin_in_time();
            if let Ok(share) = tokio::time::timeout(TICK, share.as_mut()).await {
                return share;
            }
        }
    }

    async fn window(
        &self,
        bytes: usize,
        scattered: bool,
        share: Share,
    ) -> Result<(Option<Window>, Share), Status> {
        let (shared, range) = (Arc::clone(&self.shared), Arc::clone(&self.range));
        beside(move || {
            let window = range.window(bytes, scattered).map_err(|error| shared.failed(&error))?;
            // Before the answer is handed over: who gets it counts on being the only one.
            drop(range);
            Ok((window, share.filled()))
        })
        .await
    }

    fn unpin_in_time(&mut self) {
        if self.began.elapsed() >= PIN {
            self.range_mut().unpin();
        }
    }

    async fn room<'t>(
        &mut self,
        to: &'t Blocks,
        share: Option<&Share>,
    ) -> Result<Option<Permit<'t>>, Status> {
        room(to, share, || self.unpin_in_time()).await
    }

    fn range_mut(&mut self) -> &mut LargeRange {
        Arc::get_mut(&mut self.range).expect("nobody reads while a window is sent")
    }
}

type Permit<'t> = mpsc::Permit<'t, Result<Bytes, Status>>;

/// Waits until the client takes the next piece, and calls `tick` now and then; none when the share is to be
/// given up first.
async fn room<'t>(
    to: &'t Blocks,
    share: Option<&Share>,
    mut tick: impl FnMut(),
) -> Result<Option<Permit<'t>>, Status> {
    let mut reserve = pin!(to.reserve());
    loop {
        tick();
        // A client that is ready keeps its window, however long the reading took.
        match tokio::time::timeout(TICK, reserve.as_mut()).await {
            Ok(permit) => return permit.map(Some).map_err(|_| gone()),
            Err(_) if share.is_some_and(Share::is_due) => return Ok(None),
            Err(_) => {}
        }
    }
}

fn gone() -> Status {
    Status::cancelled("context canceled")
}

/// Compresses a message piece by piece, off the network thread.
///
/// # Errors
/// That of the source: nothing of the message has been sent then.
pub(super) async fn gzip(message: Framed) -> Result<Framed, Status> {
    let (first, mut rest) = message.into_parts();
    let mut gzip = GzipMessage::default().add(&first[PREFIX..])?;
    while let Some(source) = &mut rest {
        let piece = std::future::poll_fn(|cx| source.as_mut().poll_chunk(cx)).await;
        let Some(piece) = piece.transpose()? else { break };
        gzip = beside(move || gzip.add(&piece)).await?;
    }
    gzip.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::task::LocalSet;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        LocalSet::new().block_on(&runtime.expect("a runtime"), test);
    }

    /// Whether a share is to be had now.
    async fn is_free(mut share: Pin<&mut impl Future>) -> bool {
        poll_fn(|cx| Poll::Ready(share.as_mut().poll(cx).is_ready())).await
    }

    fn prefix(length: u8) -> Bytes {
        vec![0, 0, 0, 0, length].into()
    }

    async fn next(source: &mut Pin<Box<dyn Source>>) -> Option<Result<Bytes, Status>> {
        poll_fn(|cx| source.as_mut().poll_chunk(cx)).await
    }

    #[test]
    fn shares_are_given_in_order_and_one_who_goes_away_is_passed_over() {
        run(async {
            let room = Room::new(8);
            let all = room.share(8).await;
            let mut first = Box::pin(room.share(5));
            let mut second = pin!(room.share(8));
            assert!(!is_free(first.as_mut()).await);
            assert!(!is_free(second.as_mut()).await);
            drop(first);
            assert!(!is_free(second.as_mut()).await);
            drop(all);
            assert!(is_free(second.as_mut()).await);
            assert_eq!(room.waiting.load(Ordering::Relaxed), 0);
        });
    }

    #[test]
    fn who_does_not_read_gives_its_share_up_when_another_waits() {
        run(async {
            let (rooms, (to, mut from)) = (Room::new(1), mpsc::channel(1));
            let share = rooms.share(1).await;
            let mut other = pin!(rooms.share(1));
            assert!(!is_free(other.as_mut()).await);
            let permit = room(&to, Some(&share), || {}).await.expect("a client");
            permit.expect("a client that is ready is served").send(Ok(prefix(0)));
            assert!(room(&to, Some(&share), || {}).await.expect("a client").is_none());
            drop(share);
            assert!(is_free(other.as_mut()).await);
            from.recv().await.expect("sent before").expect("a piece");
            drop(from);
            assert!(room(&to, None, || {}).await.is_err(), "the client has gone");
        });
    }

    #[test]
    fn a_message_that_ends_too_soon_is_an_error() {
        run(async {
            let answer = sent_by(|to| async move {
                to.send(Ok(prefix(3))).await.map_err(|_| gone())?;
                to.send(Ok(Bytes::from_static(&[1, 2]))).await.map_err(|_| gone())
            });
            let (_, rest) = answer.await.expect("it begins well").into_parts();
            let mut rest = rest.expect("more to come");
            assert_eq!(next(&mut rest).await.expect("two bytes").expect("two bytes").len(), 2);
            assert!(next(&mut rest).await.expect("not the end").is_err());
            let refused = sent_by(|_| async { Err(Status::data_loss("broken")) }).await;
            assert_eq!(refused.err().map(|status| status.code()), Some(tonic::Code::DataLoss));
        });
    }

    #[test]
    fn what_sends_ends_with_the_client() {
        run(async {
            let alive = Arc::new(());
            let held = Arc::clone(&alive);
            let answer = sent_by(|to| async move {
                let _held = held;
                to.send(Ok(prefix(9))).await.map_err(|_| gone())?;
                std::future::pending().await
            });
            drop(answer.await.expect("it begins well"));
            while Arc::strong_count(&alive) > 1 {
                tokio::task::yield_now().await;
            }
        });
    }
}
