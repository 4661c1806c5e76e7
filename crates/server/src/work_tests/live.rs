//! A member and its client that are asked from outside of any runtime, one call after the other.

use std::cell::RefCell;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::{LocalSet, yield_now};

use super::client::Client;
use super::member::Member;
use crate::listen::{self, Endpoint, Service, Stream};

/// Turns that a call has to be answered in. One that waits for something, as a watch does, is given up then.
const TURNS: usize = 60;

pub(crate) struct Live {
    runtime: Runtime,
    local: LocalSet,
    member: Rc<RefCell<Member>>,
    client: Client,
    _stop: watch::Sender<bool>,
}

impl Live {
    pub(crate) fn start() -> Self {
        let member = Member::start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let local = LocalSet::new();
        crate::lane::set_up(&local, &member.shared, 0);
        let (own, other) = UnixStream::pair().expect("two sockets");
        for socket in [&own, &other] {
            socket.set_nonblocking(true).expect("a socket");
        }
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::clone(&member.shared);
        let endpoint = Arc::new(Endpoint { service: Service::Grpc, plain: true, secured: None });
        local.spawn_local(listen::serve(shared, endpoint, Stream::Unix(own), stopped));
        let client = local.block_on(&runtime, async {
            let socket = tokio::net::UnixStream::from_std(other).expect("a socket");
            let handshake = h2::client::handshake(socket).await;
            let (requests, connection) = handshake.expect("an HTTP/2 server");
            tokio::task::spawn_local(async { drop(connection.await) });
            Client(requests)
        });
        let member = Rc::new(RefCell::new(member));
        Self { runtime, local, member, client, _stop: stop }
    }

    /// Sends `body`, framing included, to the method at `path`: how the call ended, or None if it did not.
    ///
    /// # Panics
    /// When the server has closed the connection, as it does when a task of it panics.
    pub(crate) fn call(&mut self, path: &str, body: Bytes) -> Option<i32> {
        let (client, member) = (&mut self.client, &self.member);
        self.local.block_on(&self.runtime, async {
            let call = client.send(path, body).await;
            let answer = tokio::task::spawn_local(call.status());
            for _ in 0..TURNS {
                yield_now().await;
                member.borrow_mut().turn();
                if answer.is_finished() {
                    return answer.await.expect("a client's task does not panic");
                }
            }
            answer.abort();
            None
        })
    }
}
