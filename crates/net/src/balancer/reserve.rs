//! Ports taken from the system, so that no program of the machine has them too, and who has one that cannot be taken.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrIn, bind, connect, listen, setsockopt,
    shutdown, socket, sockopt,
};

use crate::index::{HostPort, Protocol};

/// The ports that are held, and the engine's own.
pub struct Reservations {
    own: Vec<(u16, String)>,
    held: BTreeMap<HostPort, OwnedFd>,
}

impl Reservations {
    pub fn new(own: Vec<(u16, String)>) -> Self {
        Self { own, held: BTreeMap::new() }
    }

    /// Takes a port, or says in a sentence who has it.
    pub fn reserve(&mut self, port: HostPort) -> Result<(), String> {
        if self.held.contains_key(&port) {
            return Ok(());
        }
        match take(port) {
            Ok(socket) => {
                self.held.insert(port, socket);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Err(format!("port {port} is in use on this machine by {}", self.user(port)))
            }
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                Err(format!("port {port} cannot be taken: this machine does not have that address"))
            }
            Err(error) => Err(format!("port {port} cannot be taken on this machine: {error}")),
        }
    }

    /// Gives back all others.
    pub fn keep(&mut self, ports: &BTreeSet<HostPort>) {
        self.held.retain(|port, _| ports.contains(port));
    }

    fn user(&self, port: HostPort) -> String {
        let own = self.own.iter().find(|(number, _)| *number == port.port).map(|(_, what)| what.as_str());
        match holder(port) {
            Some((id, _)) if id == std::process::id() => {
                format!("yado itself, for {}; publish another port", own.unwrap_or("the Pods' name server"))
            }
            Some((id, name)) => format!("{name} (process {id}); stop it or publish another port"),
            None => "another program; stop it or publish another port".into(),
        }
    }
}

/// A socket that has the port on its address, or on every one, and takes nothing that arrives there: where no rule leads
/// a packet away, the system refuses it as if nobody had the port.
fn take(HostPort { address, protocol, port }: HostPort) -> io::Result<OwnedFd> {
    let at = |address| SockaddrIn::from(std::net::SocketAddrV4::new(address, port));
    let any = at(address.unwrap_or(Ipv4Addr::UNSPECIFIED));
    if protocol == Protocol::Udp {
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        bind(socket.as_raw_fd(), &any)?;
        // Connected to itself, it hears nobody else. Should that fail, packets are only dropped and not refused.
        let itself = at(address.unwrap_or(Ipv4Addr::LOCALHOST));
        let _ = connect(socket.as_raw_fd(), &itself);
        return Ok(socket);
    }
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Connections that ended a moment ago do not count, as for any server. Whether another one listens, only
    // listening tells.
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &any)?;
    listen(&socket, Backlog::new(1)?)?;
    shutdown(socket.as_raw_fd(), Shutdown::Read)?;
    setsockopt(&socket, sockopt::ReuseAddr, &false)?;
    Ok(socket)
}

/// The process that has a port: its id and name.
fn holder(HostPort { protocol, port, .. }: HostPort) -> Option<(u32, String)> {
    let tables = match protocol {
        Protocol::Tcp => ["tcp", "tcp6"],
        Protocol::Udp => ["udp", "udp6"],
    };
    let inodes: Vec<String> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok())
        .flat_map(|text| sockets(&text, protocol, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find_map(|id| {
        let open = fs::read_dir(format!("/proc/{id}/fd")).ok()?.flatten();
        let mut links = open.filter_map(|fd| fs::read_link(fd.path()).ok());
        links.any(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str())).then(|| {
            let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
            (id, name.trim().to_owned())
        })
    })
}

/// Inodes of the sockets of the kernel's table that wait at `port`.
fn sockets(table: &str, protocol: Protocol, port: u16) -> Vec<String> {
    // 0A is a listener's state; UDP knows no other than 07 for what is not connected.
    let state = if protocol == Protocol::Tcp { "0A" } else { "07" };
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields.get(1)?.rsplit_once(':')?.1;
        let waits = u16::from_str_radix(local, 16) == Ok(port) && fields.get(3) == Some(&state);
        waits.then(|| fields.get(9).map(|inode| (*inode).to_owned())).flatten()
    };
    table.lines().skip(1).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    /// A port that was free a moment ago.
    fn free() -> u16 {
        TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port()
    }

    #[test]
    fn a_port_in_use_is_refused_with_the_name_of_its_user() {
        let mut reservations = Reservations::new(Vec::new());
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().expect("an address").port();
            let said =
                reservations.reserve(HostPort::everywhere(Protocol::Tcp, port)).expect_err("it is in use");
            assert_eq!(
                said,
                format!(
                    "port {port}/TCP is in use on this machine by yado itself, for the Pods' name server; publish another port"
                ),
                "{address}"
            );
            drop(listener);
            assert_eq!(reservations.reserve(HostPort::everywhere(Protocol::Tcp, port)), Ok(()), "{address}");
        }
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        let port = socket.local_addr().expect("an address").port();
        let named = Reservations::new(vec![(port, "its own use".into())])
            .reserve(HostPort::everywhere(Protocol::Udp, port));
        assert!(
            named.expect_err("it is in use").ends_with("yado itself, for its own use; publish another port")
        );
    }

    #[test]
    fn what_is_held_nobody_else_gets_and_callers_are_refused() {
        let mut reservations = Reservations::new(Vec::new());
        let port = free();
        reservations.reserve(HostPort::everywhere(Protocol::Tcp, port)).expect("the port");
        reservations.reserve(HostPort::everywhere(Protocol::Udp, port)).expect("the port");
        assert!(TcpListener::bind(("127.0.0.1", port)).is_err());
        assert!(TcpListener::bind(("0.0.0.0", port)).is_err());
        assert!(UdpSocket::bind(("127.0.0.1", port)).is_err());
        let refused = std::net::TcpStream::connect(("127.0.0.1", port)).expect_err("nobody answers");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let caller = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        caller.connect(("127.0.0.1", port)).expect("to connect");
        caller.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("a timeout");
        caller.send(b"?").expect("to send");
        let refused = caller.recv(&mut [0; 4]).expect_err("nobody answers");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let one = HostPort { address: Some(Ipv4Addr::LOCALHOST), protocol: Protocol::Tcp, port: free() };
        reservations.reserve(one).expect("the port");
        assert!(TcpListener::bind(("127.0.0.1", one.port)).is_err());
        TcpListener::bind(("127.0.0.2", one.port)).expect("another address");
        let foreign = HostPort { address: Some(Ipv4Addr::new(192, 0, 2, 9)), ..one };
        let said = reservations.reserve(foreign).expect_err("not of this machine");
        assert!(said.ends_with("this machine does not have that address"), "{said}");
        reservations.keep(&BTreeSet::new());
        TcpListener::bind(("0.0.0.0", port)).expect("it is free again");
    }

    #[test]
    fn listeners_are_read_from_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0\n   \
            1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0\n";
        assert_eq!(sockets(table, Protocol::Tcp, 8080), ["4711"]);
        assert!(sockets(table, Protocol::Tcp, 80).is_empty());
    }
}
