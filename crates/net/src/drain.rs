//! Whether the connections to a Pod are quiet, read from the sockets in its own network namespace.
//!
//! A program that ends at once at SIGTERM takes the requests with it that it has not answered yet. So before that signal
//! the node waits until nobody waits for an answer. The kernel knows for each socket when data came in and went out
//! last; the namespace's own table is small, whereas the node's table of translated connections holds those of all Pods
//! for minutes after their end.
//!
//! What a Pod calls itself does not count, only what it is called at: connections to a port on which it listens.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use yado_types::clock::Clock;

/// Pause between two looks while most connections end.
const INTERVAL: Duration = Duration::from_millis(20);
/// Pause between two looks at those that go on: a look costs the kernel a walk over its table of sockets.
const LONG_INTERVAL: Duration = Duration::from_millis(50);
/// From when on a connection is one of those.
const LONG: Duration = Duration::from_secs(1);
/// A connection that was made within this will get its first request.
const FRESH_MS: u32 = 1000;

/// For how long, in milliseconds, a connection has to be left alone after an answer.
#[derive(Clone, Copy)]
struct Settled {
    /// Where data went out last.
    answered: u32,
    /// Where the kernel's clock, a few milliseconds coarse, does not tell whether data came in or went out last: its
    /// client may have asked again right after an answer.
    untold: u32,
}

impl Settled {
    /// An answer may come in parts, and a client sends the next request on a connection as soon as it has read the last
    /// answer.
    const WELL: Self = Self { answered: 250, untold: 1000 };
    /// A connection that is used again and again is best ended between two requests.
    const BARELY: Self = Self { answered: 10, untold: 250 };
}

/// Ready once every connection to the Pod of this namespace is quiet, and no later than `within`. In the second half of
/// that time a connection that is between two requests is quiet enough.
pub async fn quiet(namespace: PathBuf, within: Duration, clock: &dyn Clock) {
    let opened = tokio::task::spawn_blocking(move || open_in(&namespace)).await;
    // Without a namespace there is no connection. A kernel without this interface makes nobody wait.
    let socket = match opened {
        Ok(Ok(socket)) => Arc::new(socket),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => return,
        Ok(Err(error)) => return tracing::debug!(%error, "the connections of a Pod cannot be looked at"),
        Err(_) => return,
    };
    let began = clock.monotonic();
    loop {
        let passed = clock.monotonic().saturating_sub(began);
        let (settled, interval) = match passed {
            _ if passed >= within => return,
            _ if passed >= within / 2 => (Settled::BARELY, INTERVAL),
            _ if passed >= LONG => (Settled::WELL, LONG_INTERVAL),
            _ => (Settled::WELL, INTERVAL),
        };
        let socket = socket.clone();
        match tokio::task::spawn_blocking(move || sockets(&socket)).await {
            Ok(Ok(sockets)) if !busy(&sockets, settled) => return,
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return tracing::debug!(%error, "the connections of a Pod cannot be looked at"),
            Err(_) => return,
        }
        clock.sleep(interval.min(within - passed)).await;
    }
}

/// A TCP socket, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Socket {
    state: u8,
    local: (IpAddr, u16),
    /// Bytes that the program has not read yet, and that the other side has not acknowledged yet.
    unread: u32,
    unacknowledged: u32,
    /// Milliseconds since data was sent and came in last; since the connection was made where none did.
    sent_ago: u32,
    received_ago: u32,
    /// Packets with data that came in and went out.
    received: u32,
    sent: u32,
}

/// The kernel's numbers for the states of a connection.
mod state {
    pub const ESTABLISHED: u8 = 1;
    pub const BEING_MADE: u8 = 3;
    /// Closed here; what was written is still on its way.
    pub const CLOSED_HERE: u8 = 4;
    /// Closed at the other side, which may still await an answer.
    pub const CLOSED_THERE: u8 = 8;
    pub const LAST_ACKNOWLEDGEMENT: u8 = 9;
    pub const LISTENING: u8 = 10;
    pub const CLOSING: u8 = 11;
}

/// Whether some connection is not quiet. Pure.
fn busy(sockets: &[Socket], settled: Settled) -> bool {
    let listening: BTreeSet<u16> =
        sockets.iter().filter(|s| s.state == state::LISTENING).map(|s| s.local.1).collect();
    let called = sockets.iter().filter(|s| s.state != state::LISTENING && listening.contains(&s.local.1));
    // Programs of one Pod talk to each other over loopback.
    called.filter(|s| !s.local.0.is_loopback()).any(|socket| is_busy(socket, settled))
}

fn is_busy(socket: &Socket, settled: Settled) -> bool {
    let Socket { unread, unacknowledged, sent_ago, received_ago, received, sent, .. } = *socket;
    match socket.state {
        state::BEING_MADE => true,
        state::CLOSED_HERE | state::CLOSING | state::LAST_ACKNOWLEDGEMENT => unacknowledged > 0,
        // The client has gone without a word, as a probe does.
        state::CLOSED_THERE if received == 0 => false,
        _ if unread > 0 || unacknowledged > 0 => true,
        _ if received == 0 && sent == 0 => received_ago < FRESH_MS,
        // A request came in, and after it no answer, nor part of one, went out.
        _ if sent == 0 || received_ago < sent_ago => true,
        _ if received_ago == sent_ago => sent_ago < settled.untold,
        _ => sent_ago < settled.answered,
    }
}

/// A netlink socket in the namespace; it stays there wherever it is used.
fn open_in(namespace: &std::path::Path) -> io::Result<OwnedFd> {
    let file = File::open(namespace)?;
    // A thread of its own enters the namespace and ends there: no other work must ever run on it.
    let opened = std::thread::spawn(move || {
        setns(file.as_fd(), CloneFlags::CLONE_NEWNET)?;
        // SAFETY: a plain system call; the result is checked before it becomes an owned descriptor.
        let fd = unsafe {
            libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_SOCK_DIAG)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    });
    opened.join().map_err(|_| io::Error::other("the thread ended"))?
}

/// `linux/inet_diag.h` and `linux/sock_diag.h`.
mod message {
    pub const BY_FAMILY: u16 = 20;
    pub const REQUEST_DUMP: u16 = 0x301;
    pub const ERROR: u16 = 2;
    pub const DONE: u16 = 3;
    /// Length of a message's header, and of the fixed part of an answer.
    pub const HEADER: usize = 16;
    pub const FIXED: usize = 72;
    /// The attribute with the measures of a TCP connection, as a number and as a bit of a request.
    pub const TCP_INFO: u16 = 2;
    pub const TCP_INFO_BIT: u8 = 1 << (TCP_INFO - 1);
}

/// All TCP sockets of the namespace that matter.
fn sockets(socket: &OwnedFd) -> io::Result<Vec<Socket>> {
    let mut found = Vec::new();
    // A program that listens for IPv6 has its IPv4 connections there, too.
    dump(socket, libc::AF_INET as u8, &mut found)?;
    match dump(socket, libc::AF_INET6 as u8, &mut found) {
        // A kernel without IPv6.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        dumped => dumped?,
    }
    Ok(found)
}

fn dump(socket: &OwnedFd, family: u8, found: &mut Vec<Socket>) -> io::Result<()> {
    use state::*;
    let states =
        [ESTABLISHED, BEING_MADE, CLOSED_HERE, CLOSED_THERE, LAST_ACKNOWLEDGEMENT, LISTENING, CLOSING];
    let states = states.iter().fold(0u32, |bits, state| bits | 1 << state);
    let mut request = Vec::with_capacity(72);
    request.extend(72u32.to_ne_bytes());
    request.extend(message::BY_FAMILY.to_ne_bytes());
    request.extend(message::REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family, libc::IPPROTO_TCP as u8, message::TCP_INFO_BIT, 0]);
    request.extend(states.to_ne_bytes());
    // Of all addresses and ports.
    request.extend([0; 48]);
    // SAFETY: the pointer and length are those of a live vector.
    if unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut buffer = vec![0u8; 64 << 10];
    loop {
        // SAFETY: the pointer and length are those of a live vector.
        let received = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        if take(&buffer[..received], found)? {
            return Ok(());
        }
    }
}

/// Takes the sockets out of one packet. Says whether it was the last.
fn take(mut packet: &[u8], found: &mut Vec<Socket>) -> io::Result<bool> {
    while let Some(length) = u32_at(packet, 0).map(|l| l as usize) {
        let Some(message) = packet.get(..length).filter(|m| m.len() >= message::HEADER) else { break };
        match u16::from_ne_bytes([message[4], message[5]]) {
            message::DONE => return Ok(true),
            message::ERROR => {
                let code = u32_at(message, message::HEADER).unwrap_or_default() as i32;
                return Err(io::Error::from_raw_os_error(-code));
            }
            _ => found.extend(read(&message[message::HEADER..])),
        }
        packet = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn read(body: &[u8]) -> Option<Socket> {
    let fixed = body.get(..message::FIXED)?;
    let port = u16::from_be_bytes([fixed[4], fixed[5]]);
    let address: [u8; 16] = fixed[8..24].try_into().ok()?;
    let address = match i32::from(fixed[0]) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::new(address[0], address[1], address[2], address[3])),
        _ => IpAddr::V6(Ipv6Addr::from(address)).to_canonical(),
    };
    let info = attribute(&body[message::FIXED..], message::TCP_INFO).unwrap_or_default();
    // Offsets of `struct tcp_info`; what an older kernel does not tell is zero.
    let field = |at| u32_at(info, at).unwrap_or_default();
    Some(Socket {
        state: fixed[1],
        local: (address, port),
        unread: u32_at(fixed, 56)?,
        unacknowledged: u32_at(fixed, 60)?,
        sent_ago: field(44),
        received_ago: field(52),
        received: field(152),
        sent: field(156),
    })
}

fn attribute(mut attributes: &[u8], number: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        let content = attributes.get(4..length)?;
        if kind == number {
            return Some(content);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: u16 = 8080;

    fn listener() -> Socket {
        Socket { state: state::LISTENING, ..quiet_one() }
    }

    /// A kept connection whose last answer went out ten seconds ago.
    fn quiet_one() -> Socket {
        Socket {
            state: state::ESTABLISHED,
            local: ([10, 192, 0, 2].into(), PORT),
            unread: 0,
            unacknowledged: 0,
            sent_ago: 10_000,
            received_ago: 10_001,
            received: 3,
            sent: 3,
        }
    }

    #[test]
    fn a_connection_is_busy_while_its_client_may_wait_for_something() {
        let quiet = quiet_one();
        let client = Socket { local: (quiet.local.0, 40_000), received_ago: 1, ..quiet };
        let sidecar = Socket { local: (Ipv4Addr::LOCALHOST.into(), PORT), received_ago: 1, ..quiet };
        for (what, socket, expect) in [
            ("kept", quiet, false),
            ("asked and not answered", Socket { received_ago: 5000, ..quiet }, true),
            ("answered just now", Socket { sent_ago: 10, received_ago: 12, ..quiet }, true),
            ("first request", Socket { sent: 0, sent_ago: 9000, received_ago: 9000, ..quiet }, true),
            ("at once", Socket { sent_ago: 900, received_ago: 900, ..quiet }, true),
            ("long since", Socket { sent_ago: 1100, received_ago: 1100, ..quiet }, false),
            ("request not read", Socket { unread: 9, ..quiet }, true),
            ("answer on its way", Socket { unacknowledged: 9, ..quiet }, true),
            ("just made", Socket { received: 0, sent: 0, sent_ago: 10, received_ago: 10, ..quiet }, true),
            (
                "made in advance",
                Socket { received: 0, sent: 0, sent_ago: 9000, received_ago: 9000, ..quiet },
                false,
            ),
            ("greeted only", Socket { received: 0, sent_ago: 8000, received_ago: 9000, ..quiet }, false),
            ("being made", Socket { state: state::BEING_MADE, ..quiet }, true),
            ("half closed, awaits", Socket { state: state::CLOSED_THERE, received_ago: 5, ..quiet }, true),
            ("half closed, done", Socket { state: state::CLOSED_THERE, ..quiet }, false),
            (
                "a probe",
                Socket { state: state::CLOSED_THERE, received: 0, sent_ago: 1, received_ago: 1, ..quiet },
                false,
            ),
            ("written and closed", Socket { state: state::CLOSED_HERE, unacknowledged: 9, ..quiet }, true),
            ("closed", Socket { state: state::CLOSED_HERE, ..quiet }, false),
            ("its own to others", client, false),
            ("within the Pod", sidecar, false),
        ] {
            assert_eq!(busy(&[listener(), socket], Settled::WELL), expect, "{what}");
            assert!(!busy(&[socket], Settled::WELL), "nobody listens there: {what}");
        }
        assert!(!busy(&[listener()], Settled::WELL) && !busy(&[], Settled::WELL));
        // One that is used all the time is told apart from one whose client waits.
        for (what, socket, expect) in [
            ("between two requests", Socket { sent_ago: 20, received_ago: 24, ..quiet }, false),
            ("asked and not answered", Socket { sent_ago: 24, received_ago: 20, ..quiet }, true),
            ("answered this moment", Socket { sent_ago: 4, received_ago: 8, ..quiet }, true),
        ] {
            assert!(busy(&[listener(), socket], Settled::WELL), "{what}");
            assert_eq!(busy(&[listener(), socket], Settled::BARELY), expect, "{what}");
        }
    }
}
