//! nf_tables messages over netlink: just those that the tables of this crate need. Attribute numbers are the kernel's
//! (`linux/netfilter/nf_tables.h`).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Elements in one message: the attribute that holds them has a length of 16 bits.
const ELEMENTS_PER_MESSAGE: usize = 400;
/// Room for a full resynchronisation of ten thousand Services in one transaction.
const SEND_BUFFER: i32 = 32 << 20;

/// The kernel refused a change to the packet filter.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The netlink socket failed.
    #[error(
        "the kernel's packet filter cannot be reached ({0}); is nf_tables in the kernel and is this root?"
    )]
    Socket(#[source] io::Error),
    /// A message of the batch was refused; nothing of the batch was applied.
    #[error("the kernel refused a packet filter rule (message {message} of the batch: {source})")]
    Refused {
        /// Which message, counted from the start of the batch.
        message: u32,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// A 32-bit register.
#[derive(Clone, Copy, Debug)]
pub enum Reg {
    R0 = 8,
    R1 = 9,
    R2 = 10,
}

/// One step of a rule.
#[derive(Clone, Debug)]
pub enum Expression {
    SourceAddress(Reg),
    DestinationAddress(Reg),
    DestinationPort(Reg),
    TransportProtocol(Reg),
    InputDevice(Reg),
    OutputDevice(Reg),
    /// Puts the address type of the destination into the register: 2 is local.
    DestinationIsLocal(Reg),
    /// Puts the index of the input device into the register where packets to the source address would leave by that
    /// device, and 0 where they would not.
    SourceRoutedHere(Reg),
    Compare {
        reg: Reg,
        how: Comparison,
        value: Vec<u8>,
    },
    /// The state bits of the packet's connection.
    ConnectionState(Reg),
    /// The address that the connection was made to, before any translation.
    OriginalDestination(Reg),
    Mask {
        reg: Reg,
        mask: [u8; 4],
    },
    Immediate {
        reg: Reg,
        value: Vec<u8>,
    },
    Random {
        to: Reg,
        modulus: u32,
    },
    /// Adds the key to a set of limited age, or makes it young again.
    Remember {
        set: String,
        key: Reg,
    },
    Map {
        set: String,
        key: Reg,
        to: Reg,
    },
    VerdictMap {
        set: String,
        key: Reg,
    },
    Contained {
        set: String,
        key: Reg,
    },
    DestinationNat(Reg, Reg),
    SourceNat(Reg),
    Masquerade,
    RejectWithReset,
    RejectAsUnreachable,
    Drop,
    /// Nothing more of this chain: the packet goes on.
    Accept,
    /// Back to where a jump came from.
    Return,
    Goto(String),
}

/// How a register is compared with a value, by the bytes in order.
#[derive(Clone, Copy, Debug)]
pub enum Comparison {
    Equal = 0,
    Different = 1,
    AtMost = 3,
    AtLeast = 5,
}

/// State bits of connections that have been let through before, and of errors about them.
pub const KNOWN_CONNECTION: u32 = 2 | 4;

impl Expression {
    pub fn equals(reg: Reg, value: &[u8]) -> Self {
        Self::Compare { reg, how: Comparison::Equal, value: value.to_vec() }
    }

    pub fn differs(reg: Reg, value: &[u8]) -> Self {
        Self::Compare { reg, how: Comparison::Different, value: value.to_vec() }
    }

    pub fn at_least(reg: Reg, value: &[u8]) -> Self {
        Self::Compare { reg, how: Comparison::AtLeast, value: value.to_vec() }
    }

    pub fn at_most(reg: Reg, value: &[u8]) -> Self {
        Self::Compare { reg, how: Comparison::AtMost, value: value.to_vec() }
    }

    pub fn mask(reg: Reg, mask: [u8; 4]) -> Self {
        Self::Mask { reg, mask }
    }

    pub fn source_nat(address: Ipv4Addr) -> [Self; 2] {
        [Self::Immediate { reg: Reg::R0, value: address.octets().to_vec() }, Self::SourceNat(Reg::R0)]
    }

    fn encode(&self) -> Vec<u8> {
        let number = |attribute, value: u32| be32(attribute, value);
        let reg = |attribute, r: &Reg| be32(attribute, *r as u32);
        // Payload: register, base (1 network header, 2 transport header), offset, length.
        let payload = |r, base, offset, length| {
            named("payload", &[reg(1, r), number(2, base), number(3, offset), number(4, length)])
        };
        let verdict = |code| named("immediate", &[number(1, 0), nest(2, &[nest(2, &[number(1, code)])])]);
        match self {
            Self::SourceAddress(r) => payload(r, 1, 12, 4),
            Self::DestinationAddress(r) => payload(r, 1, 16, 4),
            Self::DestinationPort(r) => payload(r, 2, 2, 2),
            Self::TransportProtocol(r) => named("meta", &[number(2, 16), reg(1, r)]),
            Self::InputDevice(r) => named("meta", &[number(2, 6), reg(1, r)]),
            Self::OutputDevice(r) => named("meta", &[number(2, 7), reg(1, r)]),
            // Result 3 is the address type; flag 2 looks at the destination.
            Self::DestinationIsLocal(r) => named("fib", &[reg(1, r), number(2, 3), number(3, 2)]),
            // Result 1 is the output device; flags 1 and 8 look at the source and ask for the input device.
            Self::SourceRoutedHere(r) => named("fib", &[reg(1, r), number(2, 1), number(3, 1 | 8)]),
            // Key 0 is the state.
            Self::ConnectionState(r) => named("ct", &[reg(1, r), number(2, 0)]),
            // Key 9 is the destination; direction 0 is that of the first packet.
            Self::OriginalDestination(r) => named("ct", &[reg(1, r), number(2, 9), attribute(3, &[0])]),
            Self::Compare { reg: r, how, value: v } => {
                named("cmp", &[reg(1, r), number(2, *how as u32), value(3, v)])
            }
            Self::Mask { reg: r, mask } => {
                named("bitwise", &[reg(1, r), reg(2, r), number(3, 4), value(4, mask), value(5, &[0; 4])])
            }
            Self::Immediate { reg: r, value: v } => named("immediate", &[reg(1, r), value(2, v)]),
            // Type 1 is random, offset 0.
            Self::Random { to, modulus } => {
                named("numgen", &[reg(1, to), number(2, *modulus), number(3, 1), number(4, 0)])
            }
            // Operation 1 updates.
            Self::Remember { set, key } => named("dynset", &[string(1, set), number(3, 1), reg(4, key)]),
            Self::Map { set, key, to } => named("lookup", &[string(1, set), reg(2, key), reg(3, to)]),
            // Destination register 0 is the verdict.
            Self::VerdictMap { set, key } => named("lookup", &[string(1, set), reg(2, key), number(3, 0)]),
            Self::Contained { set, key } => named("lookup", &[string(1, set), reg(2, key)]),
            // Type 1 is destination NAT, 0 source NAT; family 2 is IPv4.
            Self::DestinationNat(address, port) => {
                named("nat", &[number(1, 1), number(2, 2), reg(3, address), reg(5, port)])
            }
            Self::SourceNat(address) => named("nat", &[number(1, 0), number(2, 2), reg(3, address)]),
            Self::Masquerade => named("masq", &[]),
            Self::RejectWithReset => named("reject", &[number(1, 1), attribute(2, &[0])]),
            // ICMP code 3: port unreachable.
            Self::RejectAsUnreachable => named("reject", &[number(1, 0), attribute(2, &[3])]),
            Self::Goto(chain) => {
                let verdict = nest(2, &[be32(1, GOTO), string(2, chain)]);
                named("immediate", &[number(1, 0), nest(2, &[verdict])])
            }
            Self::Drop => verdict(0),
            Self::Accept => verdict(1),
            Self::Return => verdict(RETURN),
        }
    }
}

/// What an element of a set or map carries beside its key.
#[derive(Clone, Debug)]
pub enum Element {
    Member,
    Data(Vec<u8>),
    /// A member for so many milliseconds more.
    Until(u64),
    Goto(String),
    Jump(String),
}

/// Where a base chain hooks into the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    kind: &'static str,
    number: u32,
    priority: i32,
}

impl Hook {
    pub const fn nat_prerouting() -> Self {
        Self { kind: "nat", number: 0, priority: -100 }
    }

    pub const fn nat_output() -> Self {
        Self { kind: "nat", number: 3, priority: -100 }
    }

    pub const fn nat_postrouting() -> Self {
        Self { kind: "nat", number: 4, priority: 100 }
    }

    pub const fn filter_prerouting_before_conntrack() -> Self {
        Self { kind: "filter", number: 0, priority: -300 }
    }

    pub const fn filter_input() -> Self {
        Self { kind: "filter", number: 1, priority: 0 }
    }

    pub const fn filter_forward() -> Self {
        Self { kind: "filter", number: 2, priority: 0 }
    }

    pub const fn filter_output() -> Self {
        Self { kind: "filter", number: 3, priority: 0 }
    }
}

/// `NFT_MSG_*`.
mod command {
    pub const NEW_TABLE: u16 = 0;
    pub const DELETE_TABLE: u16 = 2;
    pub const NEW_CHAIN: u16 = 3;
    pub const DELETE_CHAIN: u16 = 5;
    pub const NEW_RULE: u16 = 6;
    pub const DELETE_RULE: u16 = 8;
    pub const NEW_SET: u16 = 9;
    pub const DELETE_SET: u16 = 11;
    pub const NEW_ELEMENTS: u16 = 12;
    pub const DELETE_ELEMENTS: u16 = 14;
    pub const BATCH_BEGIN: u16 = 0x10;
    pub const BATCH_END: u16 = 0x11;
}

pub(super) const SUBSYSTEM: u16 = 10;
pub(super) const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
pub(super) const FAMILY_IPV4: u8 = 2;
const SET_IS_MAP: u32 = 8;
const SET_HAS_TIMEOUT: u32 = 0x10;
/// Rules add elements.
const SET_IS_DYNAMIC: u32 = 0x20;
const TYPE_VERDICT: u32 = 0xffff_ff00;
const JUMP: u32 = -3i32 as u32;
const GOTO: u32 = -4i32 as u32;
const RETURN: u32 = -5i32 as u32;

/// Changes to one table that the kernel applies together or not at all.
pub struct Batch {
    family: u8,
    table: String,
    bytes: Vec<u8>,
    last: usize,
    count: u32,
    sets: u32,
}

impl Batch {
    pub fn new(table: &str) -> Self {
        Self::of_family(FAMILY_IPV4, table)
    }

    /// For a table of somebody else.
    pub fn of_family(family: u8, table: &str) -> Self {
        let mut batch =
            Self { family, table: table.to_owned(), bytes: Vec::new(), last: 0, count: 0, sets: 0 };
        batch.push(command::BATCH_BEGIN, REQUEST, 0, SUBSYSTEM, &[]);
        batch
    }

    pub fn add_table(&mut self) {
        self.send(command::NEW_TABLE, CREATE, &[]);
    }

    pub fn delete_table(&mut self) {
        self.send(command::DELETE_TABLE, 0, &[]);
    }

    pub fn add_chain(&mut self, name: &str, hook: Option<Hook>) {
        let mut attributes = vec![string(3, name)];
        if let Some(hook) = hook {
            attributes.push(nest(4, &[be32(1, hook.number), be32(2, hook.priority as u32)]));
            attributes.push(string(7, hook.kind));
        }
        self.send(command::NEW_CHAIN, CREATE, &attributes);
    }

    /// A base chain that drops what none of its rules accepts, as firewalls have.
    #[cfg(test)]
    pub fn add_closed_chain(&mut self, name: &str, hook: Hook) {
        let place = nest(4, &[be32(1, hook.number), be32(2, hook.priority as u32)]);
        self.send(command::NEW_CHAIN, CREATE, &[string(3, name), place, be32(5, 0), string(7, hook.kind)]);
    }

    pub fn delete_chain(&mut self, name: &str) {
        self.send(command::DELETE_CHAIN, 0, &[string(3, name)]);
    }

    pub fn add_set(&mut self, name: &str, key_type: u32, key_length: u32) {
        self.new_set(name, &[be32(3, 0), be32(4, key_type), be32(5, key_length)]);
    }

    /// A set that rules add elements to ([`Expression::Remember`]), at most `size`, each for so many seconds.
    pub fn add_remembering_set(
        &mut self,
        name: &str,
        key_type: u32,
        key_length: u32,
        seconds: u32,
        size: u32,
    ) {
        let timeout = attribute(11, &(u64::from(seconds) * 1000).to_be_bytes());
        let flags = be32(3, SET_HAS_TIMEOUT | SET_IS_DYNAMIC);
        let size = nest(9, &[be32(1, size)]);
        self.new_set(name, &[flags, be32(4, key_type), be32(5, key_length), timeout, size]);
    }

    /// A map to verdicts, or to data of the given type and length.
    pub fn add_map(&mut self, name: &str, key_type: u32, key_length: u32, data: Option<(u32, u32)>) {
        let mut attributes = vec![be32(3, SET_IS_MAP), be32(4, key_type), be32(5, key_length)];
        match data {
            Some((data_type, length)) => attributes.extend([be32(6, data_type), be32(7, length)]),
            None => attributes.push(be32(6, TYPE_VERDICT)),
        }
        self.new_set(name, &attributes);
    }

    fn new_set(&mut self, name: &str, attributes: &[Vec<u8>]) {
        self.sets += 1;
        let all = [&[string(2, name)], attributes, &[be32(10, self.sets)]].concat();
        self.send(command::NEW_SET, CREATE, &all);
    }

    pub fn delete_set(&mut self, name: &str) {
        self.send(command::DELETE_SET, 0, &[string(2, name)]);
    }

    pub fn clear_set(&mut self, name: &str) {
        self.send(command::DELETE_ELEMENTS, 0, &[string(2, name)]);
    }

    pub fn add_elements(&mut self, set: &str, elements: impl Iterator<Item = (Vec<u8>, Element)>) {
        let to_chain = |verdict, chain: &str| nest(2, &[nest(2, &[be32(1, verdict), string(2, chain)])]);
        let encoded = elements.map(|(key, element)| {
            let mut parts = vec![value(1, &key)];
            match element {
                Element::Member => {}
                Element::Data(data) => parts.push(value(2, &data)),
                Element::Until(left) => parts.push(attribute(5, &left.to_be_bytes())),
                Element::Goto(chain) => parts.push(to_chain(GOTO, &chain)),
                Element::Jump(chain) => parts.push(to_chain(JUMP, &chain)),
            }
            nest(1, &parts)
        });
        self.send_elements(command::NEW_ELEMENTS, CREATE, set, encoded.collect());
    }

    pub fn delete_elements(&mut self, set: &str, keys: impl Iterator<Item = Vec<u8>>) {
        let encoded = keys.map(|key| nest(1, &[value(1, &key)])).collect();
        self.send_elements(command::DELETE_ELEMENTS, 0, set, encoded);
    }

    fn send_elements(&mut self, kind: u16, flags: u16, set: &str, elements: Vec<Vec<u8>>) {
        for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.send(kind, flags, &[string(2, set), nest(3, chunk)]);
        }
    }

    pub fn add_rule(&mut self, chain: &str, rule: impl IntoIterator<Item = Expression>) {
        let expressions: Vec<_> = rule.into_iter().map(|e| e.encode()).collect();
        self.send(command::NEW_RULE, CREATE | APPEND, &[string(2, chain), nest(4, &expressions)]);
    }

    /// A rule that can be told from others by `mark`.
    pub fn add_marked_rule(&mut self, chain: &str, mark: &[u8], rule: impl IntoIterator<Item = Expression>) {
        let expressions: Vec<_> = rule.into_iter().map(|e| e.encode()).collect();
        let attributes = [string(2, chain), nest(4, &expressions), attribute(7, mark)];
        self.send(command::NEW_RULE, CREATE | APPEND, &attributes);
    }

    /// Removes one rule.
    pub fn delete_rule(&mut self, chain: &str, handle: &[u8]) {
        self.send(command::DELETE_RULE, 0, &[string(2, chain), attribute(3, handle)]);
    }

    /// Removes every rule of a chain.
    pub fn delete_rules(&mut self, chain: &str) {
        self.send(command::DELETE_RULE, 0, &[string(2, chain)]);
    }

    fn send(&mut self, kind: u16, flags: u16, attributes: &[Vec<u8>]) {
        let body = [&[string(1, &self.table)], attributes].concat().concat();
        self.push((SUBSYSTEM << 8) | kind, REQUEST | flags, self.family, 0, &body);
    }

    fn push(&mut self, kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) {
        self.last = self.bytes.len();
        let length = 20 + body.len() as u32;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.count.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(body);
        self.count += 1;
    }

    /// Sends the batch and waits for the kernel's word.
    pub fn commit(mut self) -> Result<(), Error> {
        // An acknowledgement of the last change is one of all: the batch is applied as a whole.
        let at = self.last + 6;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | ACKNOWLEDGE;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
        self.push(command::BATCH_END, REQUEST, 0, SUBSYSTEM, &[]);
        let socket = open().map_err(Error::Socket)?;
        // SAFETY: the pointer and length are those of a live vector; a null address means the kernel.
        let sent = unsafe { libc::send(socket.as_raw_fd(), self.bytes.as_ptr().cast(), self.bytes.len(), 0) };
        if sent < 0 {
            return Err(Error::Socket(io::Error::last_os_error()));
        }
        let mut answer = [0u8; 8192];
        // SAFETY: the pointer and length are those of a live array.
        let received = unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
        if received < 20 {
            return Err(Error::Socket(io::Error::last_os_error()));
        }
        let word = |at: usize| [answer[at], answer[at + 1], answer[at + 2], answer[at + 3]];
        match i32::from_ne_bytes(word(16)) {
            0 => Ok(()),
            code => Err(Error::Refused {
                message: u32::from_ne_bytes(word(8)),
                source: io::Error::from_raw_os_error(-code),
            }),
        }
    }
}

pub(super) fn open() -> io::Result<OwnedFd> {
    // SAFETY: a plain system call; the result is checked before it becomes an owned descriptor.
    let fd = unsafe {
        libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_NETFILTER)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just opened and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let wait = libc::timeval { tv_sec: 10, tv_usec: 0 };
    set(&socket, libc::SO_RCVTIMEO, &wait)?;
    // Root may exceed the system's limit; where it may not, small batches still work.
    let _ = set(&socket, libc::SO_SNDBUFFORCE, &SEND_BUFFER);
    // SAFETY: all-zero is a valid address: the kernel.
    let mut kernel: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    kernel.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    let length = size_of_val(&kernel) as libc::socklen_t;
    // SAFETY: the pointer and length are those of a live structure.
    let connected = unsafe { libc::connect(socket.as_raw_fd(), (&raw const kernel).cast(), length) };
    if connected < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

fn set<T>(socket: &OwnedFd, option: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    let value: *const T = value;
    // SAFETY: the pointer and length are those of a live value that the kernel only reads.
    let done =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value.cast(), length) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An attribute: length, number, content, padding to four bytes.
pub(super) fn attribute(number: u16, content: &[u8]) -> Vec<u8> {
    let length = 4 + content.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(number.to_ne_bytes());
    bytes.extend(content);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

fn nest(number: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    attribute(number | 0x8000, &attributes.concat())
}

pub(super) fn string(number: u16, text: &str) -> Vec<u8> {
    attribute(number, &[text.as_bytes(), &[0]].concat())
}

fn be32(number: u16, value: u32) -> Vec<u8> {
    attribute(number, &value.to_be_bytes())
}

fn named(name: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    nest(1, &[string(1, name), nest(2, attributes)])
}

fn value(number: u16, content: &[u8]) -> Vec<u8> {
    nest(number, &[attribute(1, content)])
}
