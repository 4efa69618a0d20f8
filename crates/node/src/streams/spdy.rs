//! SPDY/3.1 frames, as port-forward sends them inside a WebSocket; pure. Only what port-forward needs: streams
//! opened by the client, data, resets, pings.

use bytes::{Buf, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// A frame's payload is at most this; the format allows 16 MiB, kubectl sends 32 KiB.
const LARGEST_FRAME: usize = 1 << 20;
/// Headers of one stream, unpacked. kubectl sends three short ones.
const LARGEST_HEADERS: usize = 16 << 10;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GO_AWAY: u16 = 7;
const FLAG_FIN: u8 = 1;
/// Status of a reset: the stream is refused.
const REFUSED: u32 = 3;

/// A frame from the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A stream is opened.
    Open { id: u32, headers: Vec<(String, String)>, fin: bool },
    /// Bytes of a stream; `fin` is its end in this direction.
    Data { id: u32, bytes: Bytes, fin: bool },
    /// A stream ends at once.
    Reset { id: u32 },
    /// To be sent back.
    Ping { payload: Bytes },
    /// No more streams will come.
    GoAway,
}

/// Why a connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the SPDY stream is broken: {0}")]
pub(crate) struct Broken(&'static str);

/// Reads frames from bytes as they arrive.
pub(crate) struct Decoder {
    buffer: BytesMut,
    inflate: Decompress,
    dictionary: Vec<u8>,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { buffer: BytesMut::new(), inflate: Decompress::new(true), dictionary: dictionary() }
    }

    /// Adds bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if it is there.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Broken> {
        loop {
            if self.buffer.len() < 8 {
                return Ok(None);
            }
            let head = u32::from_be_bytes([self.buffer[0], self.buffer[1], self.buffer[2], self.buffer[3]]);
            let flags = self.buffer[4];
            let length = u32::from_be_bytes([0, self.buffer[5], self.buffer[6], self.buffer[7]]) as usize;
            if length > LARGEST_FRAME {
                return Err(Broken("a frame is longer than a mebibyte"));
            }
            if self.buffer.len() < 8 + length {
                return Ok(None);
            }
            self.buffer.advance(8);
            let payload = self.buffer.split_to(length).freeze();
            let fin = flags & FLAG_FIN != 0;
            if head & 0x8000_0000 == 0 {
                return Ok(Some(Frame::Data { id: head, bytes: payload, fin }));
            }
            if (head >> 16) & 0x7fff != 3 {
                return Err(Broken("a frame is not of version 3"));
            }
            // What is left out here (settings, window updates) asks for nothing from us.
            if let Some(frame) = self.control((head & 0xffff) as u16, payload, fin)? {
                return Ok(Some(frame));
            }
        }
    }

    fn control(&mut self, kind: u16, mut payload: Bytes, fin: bool) -> Result<Option<Frame>, Broken> {
        let short = Broken("a control frame is too short");
        Ok(match kind {
            SYN_STREAM if payload.len() >= 10 => {
                let id = payload.get_u32() & 0x7fff_ffff;
                payload.advance(6);
                Some(Frame::Open { id, headers: self.headers(&payload)?, fin })
            }
            RST_STREAM if payload.len() >= 4 => Some(Frame::Reset { id: payload.get_u32() & 0x7fff_ffff }),
            SYN_STREAM | RST_STREAM => return Err(short),
            PING => Some(Frame::Ping { payload }),
            GO_AWAY => Some(Frame::GoAway),
            _ => None,
        })
    }

    /// Headers are packed with one zlib stream for the whole connection, which starts from a fixed dictionary.
    fn headers(&mut self, packed: &[u8]) -> Result<Vec<(String, String)>, Broken> {
        let mut raw = Vec::with_capacity(LARGEST_HEADERS);
        let mut rest = packed;
        while !rest.is_empty() {
            let before = self.inflate.total_in();
            let result = self.inflate.decompress_vec(rest, &mut raw, FlushDecompress::Sync);
            let used = usize::try_from(self.inflate.total_in() - before).unwrap_or(rest.len());
            rest = &rest[used..];
            match result {
                Ok(Status::Ok) if used > 0 => {}
                Ok(_) => return Err(Broken("headers are too long")),
                Err(error) if error.needs_dictionary().is_some() => {
                    let set = self.inflate.set_dictionary(&self.dictionary);
                    set.map_err(|_| Broken("headers are packed with another dictionary"))?;
                }
                Err(_) => return Err(Broken("headers cannot be unpacked")),
            }
        }
        parse_headers(&raw).ok_or(Broken("headers are cut short"))
    }
}

fn parse_headers(mut raw: &[u8]) -> Option<Vec<(String, String)>> {
    let text = |raw: &mut &[u8]| -> Option<String> {
        let length = raw.try_get_u32().ok()? as usize;
        let bytes = raw.get(..length)?;
        let text = String::from_utf8_lossy(bytes).into_owned();
        raw.advance(length);
        Some(text)
    };
    let count = raw.try_get_u32().ok()?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let name = text(&mut raw)?.to_lowercase();
        headers.push((name, text(&mut raw)?));
    }
    Some(headers)
}

/// Writes frames.
pub(crate) struct Encoder {
    deflate: Compress,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        let mut deflate = Compress::new(Compression::fast(), true);
        // A fresh compressor always takes a dictionary.
        let _ = deflate.set_dictionary(&dictionary());
        Self { deflate }
    }

    /// Accepts a stream, with no headers.
    pub(crate) fn reply(&mut self, id: u32) -> Result<Bytes, Broken> {
        let mut payload = id.to_be_bytes().to_vec();
        payload.reserve(128);
        let no_headers = 0u32.to_be_bytes();
        let packed = self.deflate.compress_vec(&no_headers, &mut payload, FlushCompress::Sync);
        packed.map_err(|_| Broken("a reply cannot be packed"))?;
        Ok(control(SYN_REPLY, &payload))
    }

    /// A ping sent back.
    pub(crate) fn ping(payload: &[u8]) -> Bytes {
        control(PING, payload)
    }

    /// Refuses a stream.
    pub(crate) fn refuse(id: u32) -> Bytes {
        let mut payload = id.to_be_bytes().to_vec();
        payload.extend(REFUSED.to_be_bytes());
        control(RST_STREAM, &payload)
    }

    /// Bytes of a stream.
    pub(crate) fn data(id: u32, bytes: &[u8], fin: bool) -> Bytes {
        let mut frame = BytesMut::with_capacity(8 + bytes.len());
        frame.extend_from_slice(&id.to_be_bytes());
        put_length(&mut frame, if fin { FLAG_FIN } else { 0 }, bytes.len());
        frame.extend_from_slice(bytes);
        frame.freeze()
    }
}

fn control(kind: u16, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + payload.len());
    frame.extend_from_slice(&0x8003u16.to_be_bytes());
    frame.extend_from_slice(&kind.to_be_bytes());
    put_length(&mut frame, 0, payload.len());
    frame.extend_from_slice(payload);
    frame.freeze()
}

fn put_length(frame: &mut BytesMut, flags: u8, length: usize) {
    let length = u32::try_from(length).unwrap_or(u32::MAX) & 0x00ff_ffff;
    frame.extend_from_slice(&(u32::from(flags) << 24 | length).to_be_bytes());
}

/// The words that both sides know, from the SPDY/3 specification: each with its length before it, then a tail.
fn dictionary() -> Vec<u8> {
    const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
        accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
        content-length content-location content-md5 content-range content-type date etag expect expires from host \
        if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards \
        pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding \
        upgrade user-agent vary via warning www-authenticate method get status";
    const MORE: &str = "version HTTP/1.1 url public set-cookie keep-alive origin";
    const TAIL: &[u8] = b"100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
        203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
        403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr \
        May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,\
        image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,\
        deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
    let mut all = Vec::with_capacity(1423);
    for word in WORDS.split_whitespace().chain(["200 OK"]).chain(MORE.split_whitespace()) {
        all.extend((word.len() as u32).to_be_bytes());
        all.extend(word.as_bytes());
    }
    all.extend(TAIL);
    all
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A client's SYN_STREAM.
    pub(crate) struct ClientEncoder(Compress);

    impl ClientEncoder {
        pub(crate) fn new() -> Self {
            let mut deflate = Compress::new(Compression::fast(), true);
            deflate.set_dictionary(&dictionary()).expect("a fresh compressor takes a dictionary");
            Self(deflate)
        }

        pub(crate) fn open(&mut self, id: u32, headers: &[(&str, &str)]) -> Bytes {
            let mut raw = (headers.len() as u32).to_be_bytes().to_vec();
            for text in headers.iter().flat_map(|(name, value)| [name, value]) {
                raw.extend((text.len() as u32).to_be_bytes());
                raw.extend(text.as_bytes());
            }
            let mut payload = id.to_be_bytes().to_vec();
            payload.extend([0; 6]);
            payload.reserve(1024);
            self.0.compress_vec(&raw, &mut payload, FlushCompress::Sync).expect("room enough");
            control(SYN_STREAM, &payload)
        }
    }

    #[test]
    fn the_dictionary_is_that_of_the_specification() {
        let (mut a, mut b) = (1u32, 0u32);
        for byte in dictionary() {
            a = (a + u32::from(byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!((dictionary().len(), b << 16 | a), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn frames_are_read_byte_by_byte() {
        let mut client = ClientEncoder::new();
        let headers = [("streamType", "data"), ("port", "80"), ("requestID", "0")];
        let all = [
            client.open(1, &[("streamtype", "error"), ("port", "80")]),
            client.open(3, &headers),
            Encoder::data(3, b"hello", false),
            Encoder::data(3, b"", true),
            Encoder::ping(&[0, 0, 0, 1]),
            control(4, b"settings"),
            control(GO_AWAY, &[0; 8]),
        ]
        .concat();
        let mut decoder = Decoder::new();
        let mut frames = Vec::new();
        for byte in &all {
            decoder.feed(&[*byte]);
            while let Some(frame) = decoder.next().expect("sound frames") {
                frames.push(frame);
            }
        }
        let owned = |h: &[(&str, &str)]| {
            h.iter().map(|(n, v)| (n.to_lowercase(), (*v).to_owned())).collect::<Vec<_>>()
        };
        let expect = [
            Frame::Open { id: 1, headers: owned(&[("streamtype", "error"), ("port", "80")]), fin: false },
            Frame::Open { id: 3, headers: owned(&headers), fin: false },
            Frame::Data { id: 3, bytes: "hello".into(), fin: false },
            Frame::Data { id: 3, bytes: Bytes::new(), fin: true },
            Frame::Ping { payload: Bytes::from_static(&[0, 0, 0, 1]) },
            Frame::GoAway,
        ];
        assert_eq!(frames, expect);
    }

    #[test]
    fn broken_frames_are_refused() {
        let check = |bytes: &[u8], expect: &'static str| {
            let mut decoder = Decoder::new();
            decoder.feed(bytes);
            assert_eq!(decoder.next(), Err(Broken(expect)));
        };
        check(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff], "a frame is longer than a mebibyte");
        check(&[0x80, 2, 0, 1, 0, 0, 0, 0], "a frame is not of version 3");
        check(&control(SYN_STREAM, &[0; 4]), "a control frame is too short");
        check(&control(SYN_STREAM, &[&[0u8; 10][..], b"garbage"].concat()), "headers cannot be unpacked");
    }
}
