//! Giving the events of one revision to the watchers they concern.

use std::sync::Arc;

use bytes::Bytes;

use super::History;
use super::event::Event;
use super::outbox::{Events, Item, Wakes};
use super::slab::{Id, Slab};
use super::watcher::Watcher;
use crate::record::RecordsError;

/// The watchers that a revision concerns, each with its events. Kept between revisions for its memory.
#[derive(Debug, Default)]
pub(super) struct Concerned {
    shares: Vec<Share>,
}

/// The events of one watcher by their place in the revision; mostly there is one.
#[derive(Debug)]
struct Share {
    watcher: Id,
    first: usize,
    more: Vec<usize>,
}

/// The list made last, for the next watcher with the same share.
struct Made {
    prev_kv: bool,
    first: usize,
    more: Vec<usize>,
    events: Events,
}

impl Concerned {
    /// Finds who is concerned: those that `find` names for a key, want that kind of event and do not
    /// start later.
    pub(super) fn gather(
        &mut self,
        events: &[Event<'_>],
        watchers: &mut Slab<Watcher>,
        find: impl Fn(&[u8], &mut dyn FnMut(Id)),
    ) {
        self.shares.clear();
        for (place, event) in events.iter().enumerate() {
            find(event.key(), &mut |id| {
                let watcher = watchers.get_mut(id).expect("an indexed watcher exists");
                if watcher.start <= event.revision.main && watcher.wants.takes(event.is_delete()) {
                    add(&mut self.shares, id, watcher, place);
                }
            });
        }
    }

    /// Queues one answer for each; `slow` gets those whose stream is full.
    pub(super) fn hand_out(
        &mut self,
        events: &mut [Event<'_>],
        watchers: &mut Slab<Watcher>,
        history: &dyn History,
        slow: &mut Vec<Id>,
        wakes: &mut Wakes,
    ) -> Result<(), RecordsError> {
        let Some(revision) = events.first().map(|event| event.revision.main) else { return Ok(()) };
        let mut made: Option<Made> = None;
        for share in &self.shares {
            let watcher = watchers.get_mut(share.watcher).expect("a concerned watcher exists");
            let prev_kv = watcher.wants.prev_kv;
            if !made.as_ref().is_some_and(|made| made.fits(share, prev_kv)) {
                let list = share.list(events, prev_kv, history)?;
                made = Some(Made {
                    prev_kv,
                    first: share.first,
                    more: share.more.clone(),
                    events: list,
                });
            }
            let list = made.as_ref().expect("made above").events.clone();
            let (watch_id, fragment) = (watcher.watch_id, watcher.wants.fragment);
            let item = Item::Events { watch_id, revision, fragment, events: list };
            if watcher.outbox.offer(item, wakes) {
                watcher.hushed = true;
            } else {
                slow.push(share.watcher);
            }
        }
        Ok(())
    }
}

fn add(shares: &mut Vec<Share>, id: Id, watcher: &mut Watcher, place: usize) {
    match shares.get_mut(watcher.mark) {
        Some(share) if share.watcher == id => share.more.push(place),
        _ => {
            watcher.mark = shares.len();
            shares.push(Share { watcher: id, first: place, more: Vec::new() });
        }
    }
}

impl Share {
    fn list(
        &self,
        events: &mut [Event<'_>],
        prev_kv: bool,
        history: &dyn History,
    ) -> Result<Events, RecordsError> {
        let first = events[self.first].encoded(prev_kv, history)?;
        if self.more.is_empty() {
            return Ok(Events::One(first));
        }
        let mut list: Vec<Bytes> = Vec::with_capacity(1 + self.more.len());
        list.push(first);
        for place in &self.more {
            list.push(events[*place].encoded(prev_kv, history)?);
        }
        Ok(Events::Many(Arc::new(list)))
    }
}

impl Made {
    fn fits(&self, share: &Share, prev_kv: bool) -> bool {
        // Two empty lists are not compared: their dangling pointers make memcmp slow (100 ns).
        let same = || self.more.is_empty() && share.more.is_empty() || self.more == share.more;
        self.prev_kv == prev_kv && self.first == share.first && same()
    }
}
