//! Telling the init daemon that the member serves: one datagram to the socket that `NOTIFY_SOCKET` names.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

const VARIABLE: &str = "NOTIFY_SOCKET";
const READY: &[u8] = b"READY=1";

/// Says that the member is ready. Who cannot be told is no reason not to serve.
pub(crate) fn ready() {
    tracing::info!("notifying init daemon");
    let socket = std::env::var_os(VARIABLE).filter(|socket| !socket.is_empty());
    match socket.map_or(Ok(()), |socket| send(&socket)) {
        Ok(()) => tracing::info!("successfully notified init daemon"),
        Err(error) => {
            tracing::error!(error = %error, "failed to notify systemd for readiness");
        }
    }
}

/// A name that begins with `@` lies outside of the file system.
fn send(socket: &OsStr) -> io::Result<()> {
    let address = match socket.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(READY, &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_outside_of_the_file_system_is_told() {
        let name = format!("etched-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let daemon = UnixDatagram::bind_addr(&address).expect("a free name");
        send(OsStr::new(&format!("@{name}"))).expect("somebody listens");
        let mut said = [0; 32];
        let length = daemon.recv(&mut said).expect("a datagram");
        assert_eq!(&said[..length], READY);
    }
}
