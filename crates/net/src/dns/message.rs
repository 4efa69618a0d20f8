//! The DNS message format (RFC 1035), limited to what a server of few record types needs. Input is not trusted.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A domain name as its labels, in lower case and without the root's empty label.
pub type Name = Vec<String>;

/// Numbers of the record types that the server knows.
pub mod record_type {
    #![allow(missing_docs)] // the field's own names
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const OPT: u16 = 41;
    pub const TKEY: u16 = 249;
    pub const TSIG: u16 = 250;
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;
}

/// Response code (RCODE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The name exists; there may be no record of the requested type.
    NoError = 0,
    /// The query is not valid.
    FormatError = 1,
    /// No upstream resolver answered.
    ServerFailure = 2,
    /// The name does not exist (NXDOMAIN).
    NoSuchName = 3,
    /// The operation is not a query.
    NotImplemented = 4,
    /// The server does not answer such queries, whoever sends them.
    Refused = 5,
    /// The EDNS version is not supported (RFC 6891, 6.1.3).
    BadVersion = 16,
}

/// The class IN, the only supported one.
const CLASS_INTERNET: u16 = 1;

/// A query with one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Message id, which the response repeats.
    pub id: u16,
    /// The flag RD, which the response repeats.
    pub recursion_desired: bool,
    /// The requested name.
    pub name: Name,
    /// The requested record type, see [`record_type`].
    pub kind: u16,
    /// Maximum size in bytes of a response over UDP that the client accepts.
    pub udp_size: usize,
    /// Whether the query uses EDNS (RFC 6891), as the response then must.
    pub edns: bool,
    /// The code to respond with whatever the name, if the query is not supported.
    pub objection: Option<Code>,
    /// The question section as received, with its letter case.
    question: Vec<u8>,
}

/// The data of a resource record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// The canonical name of an alias.
    Cname(Name),
    /// The name of an address.
    Ptr(Name),
    /// Port and host of a service.
    Srv {
        /// Port number.
        port: u16,
        /// Name of the host.
        target: Name,
    },
    /// The name of the zone's server.
    Ns(Name),
    /// A text of at most 255 bytes.
    Txt(String),
    /// The start of authority, with the time for which negative answers may be cached.
    Soa {
        /// Name of the zone.
        zone: Name,
    },
}

/// A resource record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The name that has the record.
    pub name: Name,
    /// Seconds for which the record may be cached.
    pub ttl: u32,
    /// Type and data.
    pub data: Data,
}

/// A response to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The response code.
    pub code: Code,
    /// The flag AA: the server is authoritative for the zone.
    pub authoritative: bool,
    /// The answer section.
    pub answers: Vec<Record>,
    /// The authority section: the SOA record of a negative answer.
    pub authority: Vec<Record>,
    /// The additional section: addresses of names in the answer.
    pub additional: Vec<Record>,
}

impl Answer {
    /// An authoritative response with these answers.
    pub fn of(code: Code, answers: Vec<Record>) -> Self {
        Self { code, authoritative: true, answers, authority: Vec::new(), additional: Vec::new() }
    }
}

/// Maximum size in bytes of a response over UDP to a client without EDNS.
const PLAIN_UDP_SIZE: usize = 512;
/// Maximum size in bytes of a response over UDP; larger ones would be fragmented on some paths.
const LARGEST_UDP_SIZE: usize = 1232;

/// Parses a query. `Err` has the id and code of the response, or `None` if there must be no response.
pub fn parse(packet: &[u8]) -> Result<Query, Option<(u16, Code)>> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let (Some(id), Some(flags)) = (word(0), word(2)) else { return Err(None) };
    // An answer is never answered: two servers would talk for ever.
    if flags & 0x8000 != 0 {
        return Err(None);
    }
    if flags & 0x7800 != 0 {
        return Err(Some((id, Code::NotImplemented)));
    }
    let bad = Err(Some((id, Code::FormatError)));
    if word(4) != Some(1) {
        return bad;
    }
    let Some((name, after)) = read_name(packet, 12) else { return bad };
    let (Some(kind), Some(class)) = (word(after), word(after + 2)) else { return bad };
    let end = after + 4;
    let mut query = Query {
        id,
        recursion_desired: flags & 0x0100 != 0,
        name,
        kind,
        udp_size: PLAIN_UDP_SIZE,
        edns: false,
        objection: objection(kind, class),
        question: packet[12..end].to_vec(),
    };
    // The OPT record, if any, is among the additional ones; a query has no others before it.
    let only_additional = word(6) == Some(0) && word(8) == Some(0) && word(10).is_some_and(|n| n > 0);
    if only_additional && packet.get(end) == Some(&0) && word(end + 1) == Some(record_type::OPT) {
        query.edns = true;
        let size = word(end + 3).map_or(PLAIN_UDP_SIZE, usize::from);
        query.udp_size = size.clamp(PLAIN_UDP_SIZE, LARGEST_UDP_SIZE);
        // After the size a byte of the answer's code, then the version.
        if packet.get(end + 6).is_some_and(|version| *version > 0) {
            query.objection = Some(Code::BadVersion);
        }
    }
    Ok(query)
}

/// Zones are not handed out, and the types beside them are none that a name has records of.
fn objection(kind: u16, class: u16) -> Option<Code> {
    use record_type::{AXFR, IXFR, OPT, TKEY, TSIG};
    match kind {
        OPT => Some(Code::FormatError),
        TKEY | TSIG | IXFR | AXFR => Some(Code::Refused),
        _ => (class != CLASS_INTERNET).then_some(Code::Refused),
    }
}

/// Reads a name and tells where it ends. Compression is followed for a bounded number of times.
fn read_name(packet: &[u8], start: usize) -> Option<(Name, usize)> {
    let (mut name, mut at, mut end, mut jumps, mut length) = (Vec::new(), start, None, 0, 0);
    loop {
        let size = usize::from(*packet.get(at)?);
        match size {
            0 => return Some((name, end.unwrap_or(at + 1))),
            1..=63 => {
                let label = packet.get(at + 1..at + 1 + size)?;
                length += size + 1;
                if length > 254 {
                    return None;
                }
                name.push(String::from_utf8_lossy(label).to_ascii_lowercase());
                at += 1 + size;
            }
            0xc0.. => {
                jumps += 1;
                if jumps > 16 {
                    return None;
                }
                end.get_or_insert(at + 2);
                at = (size & 0x3f) << 8 | usize::from(*packet.get(at + 1)?);
            }
            _ => return None,
        }
    }
}

/// Whether another server left out a part of its answer, for want of room.
pub fn is_truncated(packet: &[u8]) -> bool {
    packet.get(2).is_some_and(|flags| flags & 2 != 0)
}

/// How it went for another server; what has no meaning here is a failure.
pub fn code(packet: &[u8]) -> Code {
    match packet.get(3).map(|flags| flags & 0xf) {
        Some(0) => Code::NoError,
        Some(3) => Code::NoSuchName,
        _ => Code::ServerFailure,
    }
}

/// The addresses in another server's answer: what a `CNAME` of ours leads to.
pub fn addresses(packet: &[u8]) -> Vec<(u32, Data)> {
    read_addresses(packet).unwrap_or_default()
}

fn read_addresses(packet: &[u8]) -> Option<Vec<(u32, Data)>> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let mut at = 12;
    for _ in 0..word(4)? {
        at = read_name(packet, at)?.1 + 4;
    }
    let mut found = Vec::new();
    for _ in 0..word(6)? {
        at = read_name(packet, at)?.1;
        let ttl = u32::from(word(at + 4)?) << 16 | u32::from(word(at + 6)?);
        let length = usize::from(word(at + 8)?);
        let data = packet.get(at + 10..at + 10 + length)?;
        match word(at)? {
            record_type::A => found.push((ttl, Data::A(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?)))),
            record_type::AAAA => {
                found.push((ttl, Data::Aaaa(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?))))
            }
            _ => {}
        }
        at += 10 + length;
    }
    Some(found)
}

/// Encodes a query for a name and record type.
pub fn query(id: u16, name: &Name, kind: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    [id, 0x0100, 1, 0, 0, 0].iter().for_each(|w| packet.extend(w.to_be_bytes()));
    write_name(&mut packet, name);
    packet.extend(kind.to_be_bytes());
    packet.extend(1u16.to_be_bytes());
    packet
}

/// Encodes a response in at most `limit` bytes. Records that do not fit are omitted, and the truncation flag is set.
pub fn encode(query: &Query, answer: &Answer, limit: usize) -> Vec<u8> {
    let whole = encode_records(query, answer, false);
    if whole.len() <= limit {
        return whole;
    }
    let without = Answer { additional: Vec::new(), ..answer.clone() };
    let smaller = encode_records(query, &without, false);
    if smaller.len() <= limit {
        return smaller;
    }
    let nothing = Answer { answers: Vec::new(), authority: Vec::new(), ..without };
    encode_records(query, &nothing, true)
}

/// Encodes a response without question and records.
pub fn refusal(id: u16, code: Code) -> Vec<u8> {
    [id, 0x8000 | code as u16, 0, 0, 0, 0].iter().flat_map(|w| w.to_be_bytes()).collect()
}

fn encode_records(query: &Query, answer: &Answer, truncated: bool) -> Vec<u8> {
    // What of the code does not fit into four bits is in the OPT record.
    let code = answer.code as u16;
    let mut flags = 0x8000 | 0x0080 | (code & 0xf);
    flags |= u16::from(answer.authoritative) << 10 | u16::from(truncated) << 9;
    flags |= u16::from(query.recursion_desired) << 8;
    let counts =
        [answer.answers.len(), answer.authority.len(), answer.additional.len() + usize::from(query.edns)];
    let mut packet = Vec::with_capacity(PLAIN_UDP_SIZE);
    [query.id, flags, 1].iter().for_each(|w| packet.extend(w.to_be_bytes()));
    counts.iter().for_each(|n| packet.extend((*n as u16).to_be_bytes()));
    packet.extend(&query.question);
    for record in answer.answers.iter().chain(&answer.authority).chain(&answer.additional) {
        write_record(&mut packet, query, record);
    }
    if query.edns {
        packet.push(0);
        packet.extend(record_type::OPT.to_be_bytes());
        packet.extend((LARGEST_UDP_SIZE as u16).to_be_bytes());
        packet.extend([(code >> 4) as u8, 0, 0, 0, 0, 0]);
    }
    packet
}

fn write_record(packet: &mut Vec<u8>, query: &Query, record: &Record) {
    if record.name == query.name {
        // A pointer to the question, which follows the header.
        packet.extend([0xc0, 12]);
    } else {
        write_name(packet, &record.name);
    }
    let (kind, data) = match &record.data {
        Data::A(address) => (record_type::A, address.octets().to_vec()),
        Data::Aaaa(address) => (record_type::AAAA, address.octets().to_vec()),
        Data::Cname(name) => (record_type::CNAME, name_bytes(name)),
        Data::Ptr(name) => (record_type::PTR, name_bytes(name)),
        Data::Ns(name) => (record_type::NS, name_bytes(name)),
        Data::Txt(text) => {
            let text = &text.as_bytes()[..text.len().min(255)];
            (record_type::TXT, [&[text.len() as u8], text].concat())
        }
        Data::Srv { port, target } => {
            // Priority 0, weight 1: every target alike.
            let fixed = [0, 1, *port].iter().flat_map(|w: &u16| w.to_be_bytes()).collect::<Vec<_>>();
            (record_type::SRV, [fixed, name_bytes(target)].concat())
        }
        Data::Soa { zone } => {
            let server = name_server(zone);
            let mailbox = [&["hostmaster".to_owned()][..], zone].concat();
            // Serial, refresh, retry, expire; the last is how long an absence may be remembered.
            let times = [1u32, 7200, 1800, 86_400, record.ttl].iter().flat_map(|t| t.to_be_bytes()).collect();
            (record_type::SOA, [name_bytes(&server), name_bytes(&mailbox), times].concat())
        }
    };
    packet.extend(kind.to_be_bytes());
    packet.extend(1u16.to_be_bytes());
    packet.extend(record.ttl.to_be_bytes());
    packet.extend((data.len() as u16).to_be_bytes());
    packet.extend(data);
}

/// The name of a zone's server in NS and SOA records.
pub fn name_server(zone: &Name) -> Name {
    [&["ns".to_owned(), "dns".to_owned()][..], zone].concat()
}

fn write_name(packet: &mut Vec<u8>, name: &Name) {
    // Names come from queries and from objects' names, which are shorter than a label's limit.
    for label in name.iter().map(|l| &l.as_bytes()[..l.len().min(63)]).filter(|l| !l.is_empty()) {
        packet.push(label.len() as u8);
        packet.extend(label);
    }
    packet.push(0);
}

fn name_bytes(name: &Name) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_name(&mut bytes, name);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        text.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn a_query_is_read_and_answered() {
        let packet = query(7, &name("Web.example"), record_type::A);
        let query = parse(&packet).expect("a query");
        assert_eq!((query.id, &query.name, query.kind, query.edns), (7, &name("web.example"), 1, false));
        let record = |address| Record { name: query.name.clone(), ttl: 5, data: Data::A(address) };
        let many: Vec<_> = (0..20).map(|i| record(Ipv4Addr::new(10, 0, 0, i))).collect();
        let answer = Answer {
            code: Code::NoError,
            authoritative: true,
            answers: many.clone(),
            authority: vec![],
            additional: vec![],
        };
        let encoded = encode(&query, &answer, PLAIN_UDP_SIZE);
        // The question keeps the letters it was asked with.
        assert!(encoded.windows(3).any(|w| w == b"Web"));
        assert_eq!(addresses(&encoded).len(), 20);
        let truncated = encode(&query, &answer, 100);
        assert!(truncated.len() <= 100 && truncated[2] & 2 != 0);
    }

    #[test]
    fn what_is_no_query_is_refused_or_dropped() {
        let good = query(7, &name("a.b"), 1);
        let with = |at: usize, byte: u8| {
            let mut packet = good.clone();
            packet[at] = byte;
            packet
        };
        assert_eq!(parse(&good[..3]), Err(None));
        assert_eq!(parse(&with(2, 0x80)), Err(None));
        assert_eq!(parse(&with(2, 0x28)), Err(Some((7, Code::NotImplemented))));
        assert_eq!(parse(&with(5, 2)), Err(Some((7, Code::FormatError))));
        assert_eq!(parse(&with(12, 0xc0)), Err(Some((7, Code::FormatError))));
        assert_eq!(parse(&good[..good.len() - 1]), Err(Some((7, Code::FormatError))));
    }

    #[test]
    fn questions_of_other_kinds_are_refused_in_a_way_of_their_own() {
        let packet = |kind: u16, class: u16, edns: Option<u8>| {
            let mut packet = query(7, &name("a.b"), kind);
            let at = packet.len() - 2;
            packet[at..].copy_from_slice(&class.to_be_bytes());
            if let Some(version) = edns {
                packet[11] = 1;
                packet.extend([0, 0, 41, 0x10, 0, 0, version, 0, 0, 0, 0]);
            }
            packet
        };
        use record_type::{A, AXFR, IXFR, OPT};
        for (packet, code, extended) in [
            (packet(A, 1, None), None, None),
            (packet(A, 1, Some(0)), None, Some(0)),
            (packet(A, 1, Some(7)), Some(Code::BadVersion), Some(1)),
            (packet(A, 3, None), Some(Code::Refused), None),
            (packet(A, 255, Some(0)), Some(Code::Refused), Some(0)),
            (packet(AXFR, 1, None), Some(Code::Refused), None),
            (packet(IXFR, 1, None), Some(Code::Refused), None),
            (packet(OPT, 1, None), Some(Code::FormatError), None),
        ] {
            let query = parse(&packet).expect("a query");
            assert_eq!(query.objection, code);
            let encoded = encode(&query, &Answer::of(code.unwrap_or(Code::NoError), Vec::new()), 512);
            assert_eq!(u16::from(encoded[3] & 0xf), code.map_or(0, |code| code as u16 & 0xf));
            // Of the OPT record, which is the last, the upper part of the code.
            assert_eq!(extended.is_some().then(|| encoded[encoded.len() - 6]), extended);
        }
    }

    proptest! {
        #[test]
        fn no_packet_does_harm(packet in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(query) = parse(&packet) {
                let record = Record { name: query.name.clone(), ttl: 0, data: Data::Ptr(query.name.clone()) };
                let answer = Answer {
                    code: Code::NoError, authoritative: false, answers: vec![record], authority: vec![], additional: vec![],
                };
                prop_assert!(encode(&query, &answer, query.udp_size).len() <= query.udp_size);
            }
            let _ = addresses(&packet);
        }
    }
}
