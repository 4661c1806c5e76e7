//! Names of the addresses that members come from, looked up while a connection is let in.
//!
//! ```text
//! connection ──its address's turn──> one of LOOKUPS_MAX ──> thread: reverse look-up, then name by name
//!      └─ gives up after its ten seconds ────────────────────> before the next name the thread sees that, and ends
//! ```
//! A look-up lasts as long as the name servers like, also when its connection is gone, so it takes a thread of its own,
//! and there are few. An address has one at a time: one of a client whose names hang leaves the others to the rest.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;

use etched_tls::{Identity, Lookup};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Look-ups at once; further ones wait, and their connections are dropped when their time is over.
const LOOKUPS_MAX: usize = 8;

/// Look-ups of one side.
pub(crate) struct Lookups {
    turns: Arc<Semaphore>,
    addresses: Addresses,
}

/// The turn of each address that has a look-up under way or wants one.
type Addresses = Arc<Mutex<HashMap<IpAddr, Arc<Semaphore>>>>;

impl Default for Lookups {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(LOOKUPS_MAX)), addresses: Addresses::default() }
    }
}

impl Lookups {
    /// Whether the holder of a certificate may come from `remote`.
    ///
    /// # Errors
    /// Why not.
    pub(crate) async fn check(&self, identity: Identity, remote: IpAddr) -> Result<(), String> {
        let compare = move |is_wanted: &dyn Fn() -> bool| {
            etched_tls::check_remote(&identity, remote, &System { is_wanted })
        };
        self.run(remote, compare).await?.map_err(|error| error.to_string())
    }

    /// Runs `work`, which is told whether anybody still waits for it, on a thread of its own.
    async fn run<T: Send + 'static>(
        &self,
        remote: IpAddr,
        work: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
    ) -> Result<T, String> {
        let failed = |reason: &dyn std::fmt::Display| {
            format!("cannot look up the names of the client: {reason}")
        };
        let place = Place::new(&self.addresses, remote);
        let one = Arc::clone(&place.one).acquire_owned().await.map_err(|error| failed(&error))?;
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let held = Held { _turn: turn.map_err(|error| failed(&error))?, _one: one, _place: place };
        let (sender, receiver) = oneshot::channel();
        let thread = std::thread::Builder::new().name("names".to_owned());
        let look = move || {
            let found = work(&|| !sender.is_closed());
            // Whoever asked may have given up meanwhile.
            let _ = sender.send(found);
            drop(held);
        };
        thread.spawn(look).map_err(|error| failed(&error))?;
        receiver.await.map_err(|error| failed(&error))
    }
}

/// What a look-up has until its thread ends; given back in this order.
struct Held {
    _turn: OwnedSemaphorePermit,
    _one: OwnedSemaphorePermit,
    _place: Place,
}

/// Keeps the turn of an address known.
struct Place {
    remote: IpAddr,
    one: Arc<Semaphore>,
    addresses: Addresses,
}

impl Place {
    fn new(addresses: &Addresses, remote: IpAddr) -> Self {
        let mut known = addresses.lock();
        let one = known.entry(remote).or_insert_with(|| Arc::new(Semaphore::new(1)));
        Self { remote, one: Arc::clone(one), addresses: Arc::clone(addresses) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut known = self.addresses.lock();
        // This place and the table: nobody else wants a look-up.
        if Arc::strong_count(&self.one) == 2 {
            known.remove(&self.remote);
        }
    }
}

/// The system's DNS and hosts file, as long as somebody wants to know.
struct System<'a> {
    is_wanted: &'a dyn Fn() -> bool,
}

impl System<'_> {
    fn ask<T>(&self, ask: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if (self.is_wanted)() { ask() } else { Err(io::Error::other("the client has gone")) }
    }
}

impl Lookup for System<'_> {
    fn names(&self, address: IpAddr) -> io::Result<Vec<String>> {
        self.ask(|| {
            dns_lookup::lookup_addr(&address).map(|name| vec![name]).map_err(io::Error::from)
        })
    }

    fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.ask(|| Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use tokio::task::JoinSet;

    use super::*;

    fn address(number: usize) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, number as u8).into()
    }

    /// Lets others run.
    async fn rest() {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }

    /// Look-ups that end when their gates are dropped.
    struct Hanging {
        lookups: Arc<Lookups>,
        begun: Arc<AtomicUsize>,
        gates: Vec<mpsc::Sender<()>>,
        tasks: JoinSet<Result<(), String>>,
    }

    impl Hanging {
        fn from(addresses: impl Iterator<Item = IpAddr>) -> Self {
            let mut all = Self {
                lookups: Arc::default(),
                begun: Arc::default(),
                gates: Vec::new(),
                tasks: JoinSet::new(),
            };
            for address in addresses {
                let (gate, opened) = mpsc::channel::<()>();
                let (lookups, begun) = (Arc::clone(&all.lookups), Arc::clone(&all.begun));
                all.gates.push(gate);
                all.tasks.spawn(async move {
                    let hang = move |_: &dyn Fn() -> bool| {
                        begun.fetch_add(1, Ordering::SeqCst);
                        let _ = opened.recv();
                    };
                    lookups.run(address, hang).await
                });
            }
            all
        }

        async fn end(mut self) -> usize {
            self.gates.clear();
            while let Some(done) = self.tasks.join_next().await {
                assert_eq!(done.expect("no panic"), Ok(()));
            }
            // The last threads give back what they have when they have told.
            let all = self.lookups.turns.acquire_many(LOOKUPS_MAX as u32).await;
            drop(all.expect("never closed"));
            self.begun.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn look_ups_that_hang_keep_no_reads_waiting_and_are_few() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build();
        runtime.expect("a runtime").block_on(async {
            let hanging = Hanging::from((0..=LOOKUPS_MAX).map(address));
            rest().await;
            assert_eq!(hanging.lookups.turns.available_permits(), 0);
            assert_eq!(tokio::task::spawn_blocking(|| 7).await.expect("it ran"), 7);
            assert_eq!(hanging.end().await, LOOKUPS_MAX + 1);
        });
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_address_has_one_look_up_at_a_time_and_leaves_the_others_to_others() {
        let hanging = Hanging::from((0..20).map(|_| address(1)));
        rest().await;
        assert_eq!(hanging.lookups.turns.available_permits(), LOOKUPS_MAX - 1);
        let other = hanging.lookups.run(address(2), |_: &dyn Fn() -> bool| 7).await;
        assert_eq!(other, Ok(7));
        let lookups = Arc::clone(&hanging.lookups);
        assert_eq!(hanging.end().await, 20);
        let (mut done, mut tries) = (false, 0);
        while !done && tries < 1_000_000 {
            // The thread of the last one may still be on its way out.
            std::thread::yield_now();
            (done, tries) = (lookups.addresses.lock().is_empty(), tries + 1);
        }
        assert!(done, "no address is remembered");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_look_up_sees_that_nobody_waits_for_it_any_more() {
        let lookups = Lookups::default();
        let (told, tells) = mpsc::channel();
        let (gate, opened) = mpsc::channel::<()>();
        let work = move |is_wanted: &dyn Fn() -> bool| {
            told.send(is_wanted()).expect("the test is there");
            let _ = opened.recv();
            let system = System { is_wanted };
            told.send(system.addresses("localhost").is_ok()).expect("the test is there");
        };
        let mut asking = Box::pin(lookups.run(address(1), work));
        tokio::select! {
            biased;
            _ = asking.as_mut() => unreachable!("it hangs"),
            () = rest() => {}
        }
        assert_eq!(tells.recv(), Ok(true));
        drop(asking);
        drop(gate);
        assert_eq!(tells.recv(), Ok(false), "no name is looked up for nobody");
    }
}
