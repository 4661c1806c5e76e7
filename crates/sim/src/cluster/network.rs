//! A network that loses, delays, doubles and reorders, and falls apart in every shape.

use std::collections::{BTreeMap, BTreeSet};

use etched_proto::raftpb::{Message, MessageType};

use super::store::Store;
use crate::Rng;

/// How bad it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// Percent of messages that are lost.
    pub(crate) loss: u64,
    /// Percent of messages that come twice.
    pub(crate) twice: u64,
    /// Steps that a message takes at most.
    pub(crate) delay: u64,
    /// Percent of messages that take ten times as long.
    pub(crate) late: u64,
}

/// One message, with the state that a snapshot's transport carries beside it.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) message: Message,
    pub(crate) state: Option<Store>,
}

#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) weather: Weather,
    /// By time of arrival and number.
    letters: BTreeMap<(u64, u64), Letter>,
    sent: u64,
    /// From, to: nothing gets through.
    cut: BTreeSet<(u64, u64)>,
}

impl Network {
    pub(crate) fn new(weather: Weather) -> Self {
        Self { weather, ..Self::default() }
    }

    /// Whether it can arrive as far as the sender can tell.
    pub(crate) fn send(&mut self, letter: Letter, step: u64, rng: &mut Rng) -> bool {
        let Weather { loss, twice, delay, late } = self.weather;
        if rng.chance(loss) {
            return false;
        }
        // Nothing may double a read's request: that is a rule for transports.
        let may_double = letter.message.r#type() != MessageType::MsgReadIndex;
        let copies = 1 + usize::from(may_double && rng.chance(twice));
        for _ in 0..copies {
            let mut takes = 1 + rng.below(delay + 1);
            if rng.chance(late) {
                takes *= 10;
            }
            self.sent += 1;
            self.letters.insert((step + takes, self.sent), letter.clone());
        }
        true
    }

    /// What arrives now.
    pub(crate) fn arrived(&mut self, step: u64) -> Vec<Letter> {
        let later = self.letters.split_off(&(step + 1, 0));
        let due = std::mem::replace(&mut self.letters, later);
        let cut = &self.cut;
        let passes = |letter: &Letter| !cut.contains(&(letter.message.from(), letter.message.to()));
        due.into_values().filter(passes).collect()
    }

    /// Comes again at `step`: the receiver sleeps.
    pub(crate) fn put_off(&mut self, letter: Letter, step: u64) {
        self.sent += 1;
        self.letters.insert((step, self.sent), letter);
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    /// Another partition, of a shape by chance.
    pub(crate) fn part(&mut self, ids: &[u64], rng: &mut Rng) {
        self.cut.clear();
        let one = ids[rng.below(ids.len() as u64) as usize];
        let side: BTreeSet<u64> = ids.iter().copied().filter(|_| rng.chance(50)).collect();
        let shape = rng.below(6);
        for (place, &from) in ids.iter().enumerate() {
            for &to in ids.iter().filter(|to| **to != from) {
                let is_cut = match shape {
                    // Two sides.
                    0 => side.contains(&from) != side.contains(&to),
                    // Nobody talks to one.
                    1 => from == one || to == one,
                    // One speaks and hears nothing, or hears and does not speak.
                    2 => to == one,
                    3 => from == one,
                    // Each hears some.
                    4 => rng.chance(40),
                    // In a ring.
                    _ => ids[(place + 1) % ids.len()] != to,
                };
                if is_cut {
                    self.cut.insert((from, to));
                }
            }
        }
    }
}
