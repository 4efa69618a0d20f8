//! A Pod's network: its namespace, the pair of devices that joins it to the node, its address and routes.
//!
//! ```text
//! Pod: eth0 ADDRESS/32, default via GATEWAY  <-- veth -->  node: yadoN-HASH, route ADDRESS/32
//! ```
//!
//! Addresses are routed, not bridged: every packet between two Pods passes the node's packet filter, so replies are
//! translated back on the same node without `bridge-nf-call-iptables`. Neighbour entries are fixed on both sides, so
//! no packet ever waits for ARP.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{NSFS_MAGIC, statfs};
use parking_lot::Mutex;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection,
};
use tokio::task::JoinSet;

use crate::slot::Slot;

/// The first addresses of the range are the node's own.
const FIRST_POD: u32 = 2;

/// Marks the routes to whole ranges of addresses, so that other Yados of the machine know them.
const ROUTE_MARK: RouteProtocol = RouteProtocol::Other(b'y');

/// Ends the record of a Pod whose network is complete; one without it broke off in the middle.
const WHOLE: &str = " attached\n";

/// Why a Pod's network could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A netlink request failed.
    #[error("the Pod network's {what} cannot be set up: {source}")]
    Netlink {
        /// Device, address, route.
        what: &'static str,
        /// The kernel's reason.
        source: rtnetlink::Error,
    },
    /// A file, mount or namespace failed.
    #[error("the Pod network's {what} cannot be set up: {source}")]
    System {
        /// Namespace, mount, record.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// Every address of the range is in use.
    #[error("no address is left for another Pod in {0}; remove Pods of this node")]
    NoAddress(Ipv4Net),
}

fn system(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::System { what, source }
}

fn netlink(what: &'static str) -> impl Fn(rtnetlink::Error) -> Error {
    move |source| Error::Netlink { what, source }
}

/// What a Pod's containers join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Can be opened to enter the namespace.
    pub netns: PathBuf,
    /// The Pod's address.
    pub address: IpAddr,
}

/// The Pods of one node.
pub struct PodNetwork {
    host: Host,
    pod_cidr: Ipv4Net,
    gateway: Ipv4Addr,
    device: String,
    run_dir: PathBuf,
    state: Mutex<Addresses>,
}

/// A netlink socket of the node's own namespace, with the task that reads it and ends with it.
struct Host {
    handle: Handle,
    _reader: JoinSet<()>,
}

impl Host {
    fn connect() -> Result<Self, Error> {
        let (connection, handle, _) = new_connection().map_err(system("netlink socket"))?;
        Ok(Self { handle, _reader: own(connection) })
    }
}

/// The reader of a netlink socket, which ends when what is returned is dropped.
fn own(connection: impl Future<Output = ()> + Send + 'static) -> JoinSet<()> {
    let mut reader = JoinSet::new();
    reader.spawn(connection);
    reader
}

/// Addresses given out, by Pod; the next search starts after the last one, so that an address rests before it is
/// used again.
struct Addresses {
    by_pod: BTreeMap<String, Ipv4Addr>,
    next: u32,
}

impl Addresses {
    fn take(&mut self, uid: &str, cidr: Ipv4Net) -> Option<Ipv4Addr> {
        if let Some(address) = self.by_pod.get(uid) {
            return Some(*address);
        }
        let last = u32::from(cidr.hostmask());
        let span = last - FIRST_POD;
        for i in 0..span {
            let offset = FIRST_POD + (self.next - FIRST_POD + i) % span;
            let address = Ipv4Addr::from(u32::from(cidr.network()) + offset);
            if !self.by_pod.values().any(|a| *a == address) {
                self.next = offset + 1;
                self.by_pod.insert(uid.to_owned(), address);
                return Some(address);
            }
        }
        None
    }
}

/// What this machine routes already, default routes and a Yado's own devices left out.
pub async fn routed() -> Result<Vec<Ipv4Net>, Error> {
    let host = Host::connect()?;
    let ours = |name: &str| {
        name.strip_prefix("yado").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let links: Vec<_> =
        host.handle.link().get().execute().try_collect().await.map_err(netlink("list of devices"))?;
    let own: Vec<u32> = links
        .iter()
        .filter(|link| link.attributes.iter().any(|a| matches!(a, LinkAttribute::IfName(n) if ours(n))))
        .map(|link| link.header.index)
        .collect();
    let request = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let routes: Vec<_> =
        host.handle.route().get(request).execute().try_collect().await.map_err(netlink("list of routes"))?;
    let mut found = Vec::new();
    for route in routes.into_iter().filter(|route| route.header.protocol != ROUTE_MARK) {
        let device = route
            .attributes
            .iter()
            .find_map(|a| if let RouteAttribute::Oif(i) = a { Some(*i) } else { None });
        let to = route.attributes.iter().find_map(|a| match a {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
            _ => None,
        });
        let prefix = route.header.destination_prefix_length;
        if let Some(address) = to.filter(|_| prefix > 0 && !device.is_some_and(|d| own.contains(&d))) {
            found.extend(Ipv4Net::new(address, prefix));
        }
    }
    Ok(found)
}

impl PodNetwork {
    /// Sets up the node's side and finds the Pods that were attached before.
    pub async fn start(slot: &Slot) -> Result<Self, Error> {
        let network = Self {
            host: Host::connect()?,
            pod_cidr: slot.pod_cidr(),
            gateway: slot.gateway(),
            device: slot.device().to_owned(),
            run_dir: slot.run_dir().to_owned(),
            state: Mutex::new(Addresses { by_pod: BTreeMap::new(), next: FIRST_POD }),
        };
        network.set_up_node(slot.service_cidr()).await?;
        network.recover().await?;
        Ok(network)
    }

    async fn set_up_node(&self, services: Ipv4Net) -> Result<(), Error> {
        set_sysctl("net/ipv4/ip_forward", "1")?;
        let links = &self.host.handle;
        if self.index(&self.device).await?.is_none() {
            // A bridge without ports is a device that any kernel has and that can hold an address.
            let bridge = LinkBridge::new(&self.device).up().build();
            links.link().add(bridge).execute().await.map_err(netlink("gateway device"))?;
        }
        let device = self.index(&self.device).await?.ok_or_else(|| missing("gateway device"))?;
        let address = links.address().add(device, self.gateway.into(), 32).replace().execute();
        address.await.map_err(netlink("gateway address"))?;
        // Connections of the node itself need a route before the packet filter can translate them; and with the
        // gateway as their source, replies find back whatever other addresses the node has.
        let loopback = LinkUnspec::new_with_index(1).up().build();
        links.link().set(loopback).execute().await.map_err(netlink("loopback device"))?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(services.network(), services.prefix_len())
            .output_interface(1)
            .scope(RouteScope::Link)
            .pref_source(self.gateway)
            .build();
        links.route().add(route).replace().execute().await.map_err(netlink("route to the Services"))?;
        let range = links.route().add(unreachable(self.pod_cidr)).replace().execute();
        range.await.map_err(netlink("route for addresses without a Pod"))
    }

    /// Reads which Pods have which address, and removes what an earlier run left half made.
    async fn recover(&self) -> Result<(), Error> {
        let entries = fs::read_dir(self.run_dir.join("pods")).map_err(system("records"))?;
        for entry in entries {
            let path = entry.map_err(system("records"))?.path();
            let Some(uid) = path.file_name().and_then(|n| n.to_str()).map(str::to_owned) else { continue };
            let record = fs::read_to_string(&path).unwrap_or_default();
            let address = record.strip_suffix(WHOLE).and_then(|address| address.parse().ok());
            // The name can outlive the namespace, and the namespace's file its mount.
            let whole = address.is_some()
                && self.index(&self.pod_device(&uid)).await?.is_some()
                && is_namespace(&self.netns(&uid));
            match address.filter(|_| whole) {
                Some(address) => {
                    let mut state = self.state.lock();
                    let offset = u32::from(address).saturating_sub(u32::from(self.pod_cidr.network()));
                    state.next = state.next.max(offset + 1);
                    state.by_pod.insert(uid, address);
                }
                None => self.detach(&uid).await?,
            }
        }
        Ok(())
    }

    /// Gives a Pod its network. Asked again for the same Pod it gives the same.
    pub async fn attach(&self, uid: &str) -> Result<Attachment, Error> {
        let netns = self.netns(uid);
        let known = self.state.lock().by_pod.get(uid).copied();
        if let Some(address) = known {
            return Ok(Attachment { netns, address: address.into() });
        }
        let address = self.state.lock().take(uid, self.pod_cidr).ok_or(Error::NoAddress(self.pod_cidr))?;
        let made = self.make(uid, address, &netns).await;
        if made.is_err() {
            // Nothing half-made stays; the first error is the one that tells why.
            let _ = self.detach(uid).await;
        }
        made.map(|()| Attachment { netns, address: address.into() })
    }

    async fn make(&self, uid: &str, address: Ipv4Addr, netns: &Path) -> Result<(), Error> {
        fs::write(self.record(uid), address.to_string()).map_err(system("record"))?;
        // The device of a Pod of that name that has just gone may still be on its way out.
        self.delete_device(&self.pod_device(uid)).await?;
        let path = netns.to_owned();
        let runtime = tokio::runtime::Handle::current();
        // A thread of its own enters the new namespace and ends there: no other work must ever run on it.
        let entered = std::thread::spawn(move || {
            let _context = runtime.enter();
            new_namespace(&path)
        });
        let entered = tokio::task::spawn_blocking(move || entered.join()).await;
        let (connection, pod, file) = match entered {
            Ok(Ok(made)) => made?,
            _ => return Err(missing("namespace")),
        };
        let _reader = own(connection);
        self.join(uid, address, &pod, &file).await?;
        fs::write(self.record(uid), format!("{address}{WHOLE}")).map_err(system("record"))
    }

    /// Makes the pair of devices and everything that stands on it.
    async fn join(&self, uid: &str, address: Ipv4Addr, pod: &Handle, netns: &File) -> Result<(), Error> {
        let host = &self.host.handle;
        let name = self.pod_device(uid);
        let (host_mac, pod_mac) = (hardware_address(0x0a, self.gateway), hardware_address(0x0e, address));
        let inner = LinkMessageBuilder::<LinkUnspec>::new().name("eth0").address(pod_mac.to_vec());
        let inner = inner.setns_by_fd(netns.as_raw_fd()).build();
        let outer = LinkVeth::new(&name, "eth0").address(host_mac.to_vec()).up();
        let pair = outer.set_info_data(InfoData::Veth(InfoVeth::Peer(inner))).build();
        host.link().add(pair).execute().await.map_err(netlink("pair of devices"))?;
        set_sysctl(&format!("net/ipv4/conf/{name}/route_localnet"), "1")?;
        set_sysctl(&format!("net/ipv4/conf/{name}/send_redirects"), "0")?;
        // The Pod network has no IPv6, whose packets no rule of ours would look at; a kernel without it has no file.
        let _ = set_sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1");

        let loopback = LinkUnspec::new_with_index(1).up().build();
        pod.link().set(loopback).execute().await.map_err(netlink("Pod's loopback"))?;
        let inside = index_of(pod, "eth0").await?.ok_or_else(|| missing("Pod's device"))?;
        pod.address().add(inside, address.into(), 32).execute().await.map_err(netlink("Pod's address"))?;
        let up = LinkUnspec::new_with_index(inside).up().build();
        pod.link().set(up).execute().await.map_err(netlink("Pod's device"))?;
        let neighbours = pod.neighbours().add(inside, self.gateway.into()).link_layer_address(&host_mac);
        neighbours.execute().await.map_err(netlink("Pod's neighbour"))?;
        let to_gateway = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(self.gateway, 32)
            .output_interface(inside)
            .scope(RouteScope::Link)
            .build();
        pod.route().add(to_gateway).execute().await.map_err(netlink("Pod's route"))?;
        let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(self.gateway).build();
        pod.route().add(default).execute().await.map_err(netlink("Pod's default route"))?;

        let outside = self.index(&name).await?.ok_or_else(|| missing("node's device"))?;
        let neighbours = host.neighbours().add(outside, address.into()).link_layer_address(&pod_mac);
        neighbours.execute().await.map_err(netlink("node's neighbour"))?;
        let to_pod = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .output_interface(outside)
            .scope(RouteScope::Link)
            .pref_source(self.gateway)
            .build();
        host.route().add(to_pod).replace().execute().await.map_err(netlink("route to the Pod"))
    }

    /// Takes a Pod's network away. One that has none is no error.
    ///
    /// The kernel takes 30 ms to delete a pair of devices, and one at a time. So only the route and the namespace's
    /// name go here: the devices follow by themselves, many at once, when the last process has left the namespace.
    pub async fn detach(&self, uid: &str) -> Result<(), Error> {
        let address = self.state.lock().by_pod.get(uid).copied();
        if let Some(address) = address {
            // Of any scope: the kernel deletes only a route of the scope that is named, and this one has the link's.
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(address, 32)
                .scope(RouteScope::NoWhere)
                .build();
            match self.host.handle.route().del(route).execute().await {
                Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::ESRCH => {}
                deleted => deleted.map_err(netlink("removal of a route"))?,
            }
        }
        release_namespace(&self.netns(uid))?;
        remove_file(&self.record(uid))?;
        self.state.lock().by_pod.remove(uid);
        Ok(())
    }

    async fn delete_device(&self, name: &str) -> Result<(), Error> {
        if let Some(index) = self.index(name).await? {
            match self.host.handle.link().del(index).execute().await {
                // It went by itself meanwhile.
                Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::ENODEV => {}
                deleted => deleted.map_err(netlink("removal of a device"))?,
            }
        }
        Ok(())
    }

    /// The address of a Pod that has a network.
    pub fn address(&self, uid: &str) -> Option<Ipv4Addr> {
        self.state.lock().by_pod.get(uid).copied()
    }

    /// The namespace of the Pod that has an address.
    pub fn namespace_of(&self, address: IpAddr) -> Option<PathBuf> {
        let state = self.state.lock();
        let (uid, _) = state.by_pod.iter().find(|(_, its)| IpAddr::V4(**its) == address)?;
        Some(self.netns(uid))
    }

    /// The Pods that have a network, with their addresses.
    pub fn attached(&self) -> Vec<(String, Ipv4Addr)> {
        self.state.lock().by_pod.iter().map(|(uid, address)| (uid.clone(), *address)).collect()
    }

    /// Takes everything away, the node's side included.
    pub async fn tear_down(&self) -> Result<(), Error> {
        for (uid, _) in self.attached() {
            self.detach(&uid).await?;
        }
        match self.host.handle.route().del(unreachable(self.pod_cidr)).execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::ESRCH => {}
            deleted => deleted.map_err(netlink("removal of a route"))?,
        }
        self.delete_device(&self.device).await?;
        let ours = format!("{}-", self.device);
        for name in device_names(&self.host.handle).await?.into_iter().filter(|name| name.starts_with(&ours))
        {
            self.delete_device(&name).await?;
        }
        fs::remove_dir_all(&self.run_dir).map_err(system("removal of the records"))
    }

    async fn index(&self, name: &str) -> Result<Option<u32>, Error> {
        index_of(&self.host.handle, name).await
    }

    /// `yado0-1a2b3c4d`: at most 15 characters, so a hash stands for the Pod.
    fn pod_device(&self, uid: &str) -> String {
        // FNV-1a: the name must be the same after an upgrade, when a new build adopts the Pod.
        let hash = uid.bytes().fold(0x811c_9dc5u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
        format!("{}-{hash:08x}", self.device)
    }

    fn netns(&self, uid: &str) -> PathBuf {
        self.run_dir.join("netns").join(uid)
    }

    fn record(&self, uid: &str) -> PathBuf {
        self.run_dir.join("pods").join(uid)
    }
}

/// Makes a namespace and keeps it at `path`. Leaves the calling thread inside it.
fn new_namespace(
    path: &Path,
) -> Result<(impl Future<Output = ()> + Send + 'static + use<>, Handle, File), Error> {
    release_namespace(path)?;
    let errno = |e: nix::Error| io::Error::from(e);
    unshare(CloneFlags::CLONE_NEWNET).map_err(|e| system("namespace")(errno(e)))?;
    File::create(path).map_err(system("namespace's file"))?;
    let own = "/proc/thread-self/ns/net";
    mount(Some(own), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|e| system("namespace's mount")(errno(e)))?;
    // The device arrives later and takes over these defaults: no IPv6 chatter on a network that has none, and no
    // belief in redirects when a Pod reaches itself through a Service.
    let _ = set_sysctl("net/ipv6/conf/default/disable_ipv6", "1");
    set_sysctl("net/ipv4/conf/all/accept_redirects", "0")?;
    set_sysctl("net/ipv4/conf/default/accept_redirects", "0")?;
    // Ports below 1024 are no privilege within a Pod's own network.
    set_sysctl("net/ipv4/ip_unprivileged_port_start", "0")?;
    let file = File::open(path).map_err(system("namespace's file"))?;
    let (connection, handle, _) = new_connection().map_err(system("netlink socket"))?;
    Ok((connection, handle, file))
}

fn is_namespace(path: &Path) -> bool {
    statfs(path).is_ok_and(|s| s.filesystem_type() == NSFS_MAGIC)
}

fn release_namespace(path: &Path) -> Result<(), Error> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // Not there, or a file that nothing was mounted on yet.
        Ok(()) | Err(nix::Error::ENOENT | nix::Error::EINVAL) => remove_file(path),
        Err(e) => Err(system("namespace's removal")(e.into())),
    }
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(system("record's removal")(e)),
        _ => Ok(()),
    }
}

fn missing(what: &'static str) -> Error {
    system(what)(io::ErrorKind::NotFound.into())
}

async fn device_names(handle: &Handle) -> Result<Vec<String>, Error> {
    let links: Vec<_> =
        handle.link().get().execute().try_collect().await.map_err(netlink("list of devices"))?;
    let name = |link: LinkMessage| {
        link.attributes
            .into_iter()
            .find_map(|a| if let LinkAttribute::IfName(n) = a { Some(n) } else { None })
    };
    Ok(links.into_iter().filter_map(name).collect())
}

async fn index_of(handle: &Handle, name: &str) -> Result<Option<u32>, Error> {
    match handle.link().get().match_name(name.to_owned()).execute().try_next().await {
        Ok(link) => Ok(link.map(|l| l.header.index)),
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::ENODEV => Ok(None),
        Err(e) => Err(netlink("device")(e)),
    }
}

/// Addresses that no Pod has are unreachable at the node; each Pod's own route is more specific. By the default route,
/// what is sent to a Pod that is just gone would leave the machine, and a stranger could answer in its place.
fn unreachable(range: Ipv4Net) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(range.network(), range.prefix_len())
        .kind(RouteType::Unreachable)
        .protocol(ROUTE_MARK)
        .build()
}

/// A locally administered address made from an IP address.
fn hardware_address(first: u8, address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [first, 0x58, a, b, c, d]
}

fn set_sysctl(name: &str, value: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys").join(name);
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(system("kernel parameters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unique_and_rest_before_they_are_used_again() {
        let cidr = Ipv4Net::new_assert(Ipv4Addr::new(10, 1, 0, 0), 29);
        let mut addresses = Addresses { by_pod: BTreeMap::new(), next: FIRST_POD };
        let last = |a: Option<Ipv4Addr>| a.map(|a| a.octets()[3]);
        assert_eq!(last(addresses.take("a", cidr)), Some(2));
        assert_eq!(last(addresses.take("a", cidr)), Some(2));
        assert_eq!(last(addresses.take("b", cidr)), Some(3));
        addresses.by_pod.remove("a");
        assert_eq!(last(addresses.take("c", cidr)), Some(4));
        assert_eq!(last(addresses.take("d", cidr)), Some(5));
        assert_eq!(last(addresses.take("e", cidr)), Some(6));
        assert_eq!(last(addresses.take("f", cidr)), Some(2));
        assert_eq!(last(addresses.take("g", cidr)), None);
    }
}
