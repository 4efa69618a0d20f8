//! What is in the kernel's packet filter and its table of connections, read over netlink.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use super::message::{Error, FAMILY_IPV4, REQUEST, SUBSYSTEM, open, string};

/// `NFT_MSG_GET*`.
pub mod kind {
    pub const TABLE: u16 = 1;
    pub const CHAIN: u16 = 4;
    pub const RULE: u16 = 7;
    pub const SET: u16 = 10;
    pub const ELEMENTS: u16 = 13;
}

/// The kernel's table of connections.
const CONNECTIONS: u16 = 1;
const CONNECTION_GET: u16 = 1;
const CONNECTION_DELETE: u16 = 2;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;
/// The kernel fills at most so much at once.
const BUFFER: usize = 64 << 10;

/// A table, chain or rule.
pub struct Object {
    pub family: u8,
    attributes: Vec<u8>,
}

impl Object {
    pub fn attribute(&self, number: u16) -> Option<&[u8]> {
        find(&self.attributes, number)
    }

    pub fn text(&self, number: u16) -> Option<&str> {
        std::str::from_utf8(self.attribute(number)?.strip_suffix(&[0])?).ok()
    }

    pub fn number(&self, number: u16) -> Option<u32> {
        self.attribute(number)?.try_into().ok().map(u32::from_be_bytes)
    }
}

/// The content of one attribute among others.
pub fn find(mut attributes: &[u8], number: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        let content = attributes.get(4..length)?;
        // The two highest bits say how it is written.
        if kind & 0x3fff == number {
            return Some(content);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

/// One object; `None` where it is not there.
pub fn get(kind: u16, family: u8, attributes: &[u8]) -> Result<Option<Object>, Error> {
    match ask(SUBSYSTEM, kind, family, 0, attributes) {
        Ok(found) => Ok(found.into_iter().next()),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(Error::Socket(error)),
    }
}

/// All objects of a kind; of family 0 those of every family.
pub fn list(kind: u16, family: u8, attributes: &[u8]) -> Result<Vec<Object>, Error> {
    ask(SUBSYSTEM, kind, family, DUMP, attributes).map_err(Error::Socket)
}

/// A member of a set of limited age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub key: Vec<u8>,
    /// Milliseconds until it is forgotten.
    pub left: u64,
}

/// The members of those sets of a table whose name begins with `prefix`, by set. Nothing where the table is not there.
pub fn members(table: &str, prefix: char) -> Result<BTreeMap<String, Vec<Member>>, Error> {
    if get(kind::TABLE, FAMILY_IPV4, &string(1, table))?.is_none() {
        return Ok(BTreeMap::new());
    }
    let sets = list(kind::SET, FAMILY_IPV4, &string(1, table))?;
    let names = sets.iter().filter_map(|set| set.text(2)).filter(|name| name.starts_with(prefix));
    names.map(|name| Ok((name.to_owned(), members_of(table, name)?))).collect()
}

fn members_of(table: &str, set: &str) -> Result<Vec<Member>, Error> {
    let messages = list(kind::ELEMENTS, FAMILY_IPV4, &[string(1, table), string(2, set)].concat())?;
    let elements = messages.iter().filter_map(|message| message.attribute(3)).flat_map(nested);
    // Attributes of an element: 1 is its key, whose value is in 1, and 5 the time that it has left.
    let member = |element: &[u8]| {
        let key = find(find(element, 1)?, 1)?.to_vec();
        let left = find(element, 5)?.try_into().ok().map(u64::from_be_bytes)?;
        Some(Member { key, left })
    };
    Ok(elements.filter_map(member).collect())
}

/// The contents of a list of attributes.
fn nested(mut attributes: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while let Some(length) = attributes.get(..2).map(|l| usize::from(u16::from_ne_bytes([l[0], l[1]]))) {
        let Some(content) = attributes.get(4..length) else { break };
        all.push(content);
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

/// A UDP sender's connection, as the kernel remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The address and port that the sender sends to.
    pub called: (Ipv4Addr, u16),
    /// Those that its packets are led to, from where the answers come.
    pub answered_by: (Ipv4Addr, u16),
    /// The answers go to the sender's own address: it was not translated.
    pub source_kept: bool,
}

/// Forgets the UDP flows that are outdated: their next packet is led anew. A TCP connection ends by itself; a flow of
/// UDP lasts as long as its sender goes on. Returns how many were forgotten.
pub fn forget_flows(is_outdated: impl Fn(&Flow) -> bool) -> Result<usize, Error> {
    let all = ask(CONNECTIONS, CONNECTION_GET, FAMILY_IPV4, DUMP, &[]).map_err(Error::Socket)?;
    let mut forgotten = 0;
    for connection in all {
        let Some(original) = connection.attribute(1) else { continue };
        let Some(flow) = connection.attribute(2).and_then(|answers| flow(original, answers)) else {
            continue;
        };
        if !is_outdated(&flow) {
            continue;
        }
        let mut tuple = Vec::with_capacity(original.len() + 4);
        tuple.extend((original.len() as u16 + 4).to_ne_bytes());
        tuple.extend((1u16 | 0x8000).to_ne_bytes());
        tuple.extend(original);
        match ask(CONNECTIONS, CONNECTION_DELETE, FAMILY_IPV4, ACKNOWLEDGE, &tuple) {
            Ok(_) => forgotten += 1,
            // It has ended by itself.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(Error::Socket(error)),
        }
    }
    Ok(forgotten)
}

fn flow(original: &[u8], answers: &[u8]) -> Option<Flow> {
    // Attributes of a tuple: address 1 and port 2 of the source, 2 and 3 of the destination.
    Some(Flow {
        called: end(original, 2, 3)?,
        answered_by: end(answers, 1, 2)?,
        source_kept: end(original, 1, 2) == end(answers, 2, 3),
    })
}

/// One end of a UDP connection, out of a tuple: the attributes of its address and of its port.
fn end(tuple: &[u8], address: u16, port: u16) -> Option<(Ipv4Addr, u16)> {
    let (addresses, transport) = (find(tuple, 1)?, find(tuple, 2)?);
    if find(transport, 1)?.first() != Some(&17) {
        return None;
    }
    let address: [u8; 4] = find(addresses, address)?.try_into().ok()?;
    let port: [u8; 2] = find(transport, port)?.try_into().ok()?;
    Some((address.into(), u16::from_be_bytes(port)))
}

fn ask(subsystem: u16, kind: u16, family: u8, flags: u16, attributes: &[u8]) -> io::Result<Vec<Object>> {
    let socket = open()?;
    let length = 20 + attributes.len() as u32;
    let mut request = Vec::with_capacity(length as usize);
    request.extend(length.to_ne_bytes());
    request.extend(((subsystem << 8) | kind).to_ne_bytes());
    request.extend((REQUEST | flags).to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family, 0, 0, 0]);
    request.extend(attributes);
    // SAFETY: the pointer and length are those of a live vector.
    if unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut buffer = vec![0u8; BUFFER];
    loop {
        // SAFETY: the pointer and length are those of a live vector.
        let received = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        if take(&buffer[..received], &mut found)? || flags & DUMP == 0 {
            return Ok(found);
        }
    }
}

/// Takes the objects out of one packet. Says whether it was the last.
fn take(mut packet: &[u8], found: &mut Vec<Object>) -> io::Result<bool> {
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes)
    };
    while let Some(length) = word(packet, 0).map(|l| l as usize).filter(|l| *l >= 16 && *l <= packet.len()) {
        let message = &packet[..length];
        match u16::from_ne_bytes([message[4], message[5]]) {
            MESSAGE_DONE => return Ok(true),
            MESSAGE_ERROR => {
                let code = word(message, 16).unwrap_or_default() as i32;
                return if code == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(-code)) };
            }
            _ if length >= 20 => {
                found.push(Object { family: message[16], attributes: message[20..].to_vec() });
            }
            _ => {}
        }
        packet = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}
