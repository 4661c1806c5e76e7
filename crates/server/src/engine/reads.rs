//! Linearizable reads: many share one round of ReadIndex.
//!
//! ```text
//! ask ──> new ──begin──> round (id) ──confirm(id, index)──> confirmed ──applied(index)──> answered
//!          ^───── again, with another id, after AGAIN_AFTER ─┘
//! ```
//! Whoever asks while a round is under way waits for the next one: that which is under way may have begun before a write
//! was acknowledged that the new read has to see.

use std::time::{Duration, Instant};

use etched_consensus::ReadState;
use tokio::sync::oneshot;

use crate::error::Error;

/// A round that is not confirmed by then is lost; etcd's.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Who waits: the reads of one turn of a network thread.
pub(crate) type ReadWaiter = oneshot::Sender<Result<(), Error>>;

/// Reads on their way.
#[derive(Debug, Default)]
pub(super) struct Reads {
    new: Vec<ReadWaiter>,
    /// Oldest first.
    rounds: Vec<Round>,
    /// To be answered when the index is applied.
    confirmed: Vec<(u64, Vec<ReadWaiter>)>,
    /// Before that moment no further round begins, because there is nobody to ask.
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Round {
    id: u64,
    began: Instant,
    readers: Vec<ReadWaiter>,
}

impl Reads {
    pub(super) fn ask(&mut self, reader: ReadWaiter) {
        self.new.push(reader);
    }

    /// Begins a round for those that have none, with an id of `ask`; None there is that nobody leads.
    pub(super) fn begin(&mut self, now: Instant, ask: impl FnOnce() -> Option<u64>) {
        let lost = |round: &mut Round| now.duration_since(round.began) >= AGAIN_AFTER;
        for round in self.rounds.extract_if(.., lost) {
            self.new.extend(round.readers.into_iter().filter(|reader| !reader.is_closed()));
        }
        if self.new.is_empty() || self.not_before.is_some_and(|at| now < at) {
            return;
        }
        match ask() {
            Some(id) => {
                self.not_before = None;
                let readers = std::mem::take(&mut self.new);
                self.rounds.push(Round { id, began: now, readers });
            }
            None => {
                self.not_before = Some(now + AGAIN_AFTER);
                self.new.retain(|reader| !reader.is_closed());
            }
        }
    }

    /// Nothing that was acknowledged is missing here: all that wait are answered.
    pub(super) fn answer_all(&mut self) {
        self.end(Ok(()));
    }

    /// Whoever waits for a round hears `error` instead.
    pub(super) fn fail(&mut self, error: Error) {
        self.end(Err(error));
    }

    fn end(&mut self, result: Result<(), Error>) {
        self.not_before = None;
        let rounds = self.rounds.drain(..).flat_map(|round| round.readers);
        for reader in self.new.drain(..).chain(rounds) {
            // Who has stopped waiting needs no answer.
            let _ = reader.send(result);
        }
    }

    /// Rounds that a quorum has confirmed.
    pub(super) fn confirm(&mut self, states: &[ReadState], applied: u64) {
        for state in states {
            let Some(at) = self.rounds.iter().position(|round| round.id == state.id) else {
                continue;
            };
            let round = self.rounds.remove(at);
            self.confirmed.push((state.index, round.readers));
        }
        if !states.is_empty() {
            self.applied(applied);
        }
    }

    /// The store stands at `index`.
    pub(super) fn applied(&mut self, index: u64) {
        for (_, readers) in self.confirmed.extract_if(.., |(needs, _)| *needs <= index) {
            for reader in readers {
                let _ = reader.send(Ok(()));
            }
        }
    }

    /// When [`Self::begin`] has something to do.
    pub(super) fn next_attempt(&self) -> Option<Instant> {
        let again = self.rounds.first().map(|round| round.began + AGAIN_AFTER);
        let new = self.not_before.filter(|_| !self.new.is_empty());
        [again, new].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answer = oneshot::Receiver<Result<(), Error>>;

    fn asked(reads: &mut Reads) -> Answer {
        let (sender, receiver) = oneshot::channel();
        reads.ask(sender);
        receiver
    }

    fn state(id: u64, index: u64) -> ReadState {
        ReadState { id, index }
    }

    #[test]
    fn a_read_is_answered_when_its_own_round_is_confirmed_and_applied() {
        let (mut reads, now) = (Reads::default(), Instant::now());
        let mut first = asked(&mut reads);
        reads.begin(now, || Some(1));
        // Came later: what the first round is sure of may be too old for it.
        let mut second = asked(&mut reads);
        reads.confirm(&[state(1, 7)], 6);
        assert!(first.try_recv().is_err());
        reads.applied(7);
        assert_eq!(first.try_recv(), Ok(Ok(())));
        assert!(second.try_recv().is_err());
        reads.begin(now, || Some(2));
        reads.confirm(&[state(2, 7)], 7);
        assert_eq!(second.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn a_lost_round_is_tried_again_under_another_id() {
        let (mut reads, now) = (Reads::default(), Instant::now());
        let mut reader = asked(&mut reads);
        reads.begin(now, || Some(1));
        reads.begin(now, || panic!("nobody waits for a round"));
        assert_eq!(reads.next_attempt(), Some(now + AGAIN_AFTER));
        reads.begin(now + AGAIN_AFTER, || Some(2));
        reads.confirm(&[state(1, 3)], 9);
        assert!(reader.try_recv().is_err(), "of the lost round");
        reads.confirm(&[state(2, 3)], 9);
        assert_eq!(reader.try_recv(), Ok(Ok(())));
        assert_eq!(reads.next_attempt(), None);
    }

    #[test]
    fn without_a_leader_reads_wait_until_they_give_up_or_one_comes() {
        let (mut reads, now) = (Reads::default(), Instant::now());
        let (gone, mut waiting) = (asked(&mut reads), asked(&mut reads));
        reads.begin(now, || None);
        reads.begin(now, || panic!("too early"));
        drop(gone);
        reads.begin(now + AGAIN_AFTER, || None);
        assert_eq!(reads.new.len(), 1);
        reads.fail(Error::LeaderChanged);
        assert_eq!(waiting.try_recv(), Ok(Err(Error::LeaderChanged)));
        assert_eq!(reads.next_attempt(), None);
    }
}
