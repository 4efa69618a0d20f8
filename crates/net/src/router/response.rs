//! The head of an app's response, from bytes to a decision on where its body ends. Pure.
//!
//! An app's response may be wrong by mistake or by malice, and one that ends elsewhere than the router thinks would become
//! the response to somebody else's request. So what RFC 9112 leaves open is refused: the client is told 502 with the
//! reason, and the connection is not used again.

use std::mem::MaybeUninit;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use httparse::{ParserConfig, Status};

use super::forwarded::line;
use super::request::is_hop_by_hop;

/// The most headers of a response. Apps that set many cookies or policies have some fifty.
pub const MAX_HEADERS: usize = 256;
/// The most bytes of a response's head, all headers together.
pub const MAX_HEAD: usize = 64 << 10;

/// Why a response cannot be passed on. The texts are for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// More than [`MAX_HEADERS`].
    #[error("the app's response has more than {MAX_HEADERS} headers, the most that the router takes")]
    TooManyHeaders,
    /// More than [`MAX_HEAD`].
    #[error("the headers of the app's response are longer than {} KiB, the most that the router takes", MAX_HEAD >> 10)]
    HeadTooLong,
    /// HTTP/2 frames instead of HTTP/1.
    #[error(
        "the app answered in HTTP/2; the router speaks HTTP/1.1 to apps, so let it serve that on this port"
    )]
    Http2,
    /// Anything else that is no response.
    #[error("the app's response is not valid HTTP/1.1")]
    NotHttp,
    /// Content-Length is no number, or says two different lengths.
    #[error("the Content-Length of the app's response is not valid")]
    Length,
    /// A transfer coding other than a single `chunked`.
    #[error("the app's response has a Transfer-Encoding other than chunked")]
    Coding,
    /// The chunks of the body are broken.
    #[error("the chunked body of the app's response is not valid")]
    Chunk,
    /// The connection ended before the body did.
    #[error("the app closed the connection before its response was complete")]
    Truncated,
    /// 101 that nobody asked for.
    #[error("the app changed the protocol unasked")]
    Upgrade,
}

/// Where a response's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// After this many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// With the connection.
    Close,
}

/// A response without its body.
#[derive(Debug)]
pub struct Head {
    /// Its status.
    pub status: StatusCode,
    /// The text beside the status where it is not the usual one.
    pub reason: Option<Bytes>,
    /// What concerns the client. Of a 101 all headers.
    pub headers: HeaderMap,
    /// Where its body ends.
    pub framing: Framing,
    /// Whether the app takes a further request on the connection.
    pub reusable: bool,
}

/// Takes a head from the front of `buffer`; `None` where it is not complete.
pub fn parse(buffer: &mut BytesMut, method: &Method) -> Result<Option<Head>, Malformed> {
    // A first line of HTTP/1 may be preceded by empty lines; a frame of HTTP/2 begins with its length.
    if buffer.first() == Some(&0) {
        return Err(Malformed::Http2);
    }
    let mut room = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let mut config = ParserConfig::default();
    // RFC 9112, 5.1: a proxy removes such a space from a response.
    config.allow_spaces_after_header_name_in_responses(true);
    let length = match config.parse_response_with_uninit_headers(&mut response, buffer, &mut room) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if buffer.len() >= MAX_HEAD => return Err(Malformed::HeadTooLong),
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Malformed::TooManyHeaders),
        Err(_) => return Err(Malformed::NotHttp),
    };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Malformed::NotHttp)?;
    let reason = response.reason.filter(|r| !r.is_empty() && status.canonical_reason() != Some(r));
    let reason = reason.map(|r| Bytes::copy_from_slice(r.as_bytes()));
    let is_1_0 = response.version == Some(0);
    let start = buffer.as_ptr().addr();
    let mut fields = Vec::with_capacity(response.headers.len());
    for field in response.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed::NotHttp)?;
        let at = if field.value.is_empty() { 0 } else { field.value.as_ptr().addr() - start };
        fields.push((name, at, field.value.len()));
    }
    let bytes = buffer.split_to(length).freeze();
    let mut parsing = Parsing { headers: HeaderMap::with_capacity(fields.len()), ..Default::default() };
    for (name, at, length) in fields {
        let value = HeaderValue::from_maybe_shared(bytes.slice(at..at + length));
        parsing.add(name, value.map_err(|_| Malformed::NotHttp)?, status);
    }
    parsing.finish(status, reason, is_1_0, method).map(Some)
}

/// A head while its headers are read.
#[derive(Default)]
struct Parsing {
    headers: HeaderMap,
    connection: Vec<HeaderValue>,
    codings: Vec<HeaderValue>,
    lengths: Vec<HeaderValue>,
}

impl Parsing {
    fn add(&mut self, name: HeaderName, value: HeaderValue, status: StatusCode) {
        match name.as_str() {
            "transfer-encoding" => self.codings.push(value),
            "content-length" => self.lengths.push(value),
            _ if status == StatusCode::SWITCHING_PROTOCOLS => _ = self.headers.append(name, value),
            "connection" => self.connection.push(value),
            _ if is_hop_by_hop(&name) => {}
            _ => _ = self.headers.append(name, value),
        }
    }

    fn finish(
        mut self,
        status: StatusCode,
        reason: Option<Bytes>,
        is_1_0: bool,
        method: &Method,
    ) -> Result<Head, Malformed> {
        let mut reusable = !is_1_0;
        for value in std::mem::take(&mut self.connection) {
            for option in value.to_str().unwrap_or_default().split(',').map(str::trim) {
                if option.eq_ignore_ascii_case("close") {
                    reusable = false;
                } else if option.eq_ignore_ascii_case("keep-alive") {
                    reusable |= is_1_0;
                } else {
                    self.headers.remove(option);
                }
            }
        }
        let length = self.length()?;
        let chunked = self.chunked(length.is_some())?;
        let without_body = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || *method == Method::HEAD;
        let framing = match (without_body, chunked, length) {
            (true, ..) => Framing::None,
            (_, Some(true), _) => Framing::Chunked,
            (_, Some(false), _) | (_, None, None) => Framing::Close,
            (_, None, Some(length)) => Framing::Length(length),
        };
        // RFC 9112, 6.1: chunks in HTTP/1.0 may come from a server that does not know them.
        reusable &= framing != Framing::Close && !(is_1_0 && chunked.is_some());
        if let (Some(length), None) = (length, chunked)
            && !status.is_informational()
            && status != StatusCode::NO_CONTENT
        {
            self.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        Ok(Head { status, reason, headers: self.headers, framing, reusable })
    }

    /// The length that is told. It may be told twice if it is the same (RFC 9112, 6.3).
    fn length(&self) -> Result<Option<u64>, Malformed> {
        let mut found = None;
        for value in &self.lengths {
            for text in value.to_str().map_err(|_| Malformed::Length)?.split(',').map(str::trim) {
                let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                let length: u64 = text.parse().ok().filter(|_| is_number).ok_or(Malformed::Length)?;
                if found.is_some_and(|other| other != length) {
                    return Err(Malformed::Length);
                }
                found = Some(length);
            }
        }
        Ok(found)
    }

    /// Whether the body is in chunks: `None` without a transfer coding, false for `identity`, which old servers say for
    /// a body that ends with the connection.
    fn chunked(&self, has_length: bool) -> Result<Option<bool>, Malformed> {
        match &self.codings[..] {
            [] => Ok(None),
            [one] if one.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => Ok(Some(true)),
            [one] if one.as_bytes().eq_ignore_ascii_case(b"identity") && !has_length => Ok(Some(false)),
            _ => Err(Malformed::Coding),
        }
    }
}

/// An interim response (1xx) as it goes on to a client of HTTP/1.1.
pub fn encode_interim(head: &Head) -> BytesMut {
    let mut out = BytesMut::with_capacity(256);
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(head.status.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(match &head.reason {
        Some(reason) => reason,
        None => head.status.canonical_reason().unwrap_or_default().as_bytes(),
    });
    out.put_slice(b"\r\n");
    for (name, value) in &head.headers {
        line(&mut out, name.as_str(), &[value.as_bytes()]);
    }
    out.put_slice(b"\r\n");
    out
}

/// Skips empty lines before a head, which some apps send after a body.
pub fn skip_empty_lines(buffer: &mut BytesMut) {
    let empty = buffer.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    buffer.advance(empty);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The framing, `+` where the connection is used again, and the headers that go on.
    fn check(method: &str, head: &str, expect: &str) {
        let mut buffer = BytesMut::from(head.replace('\n', "\r\n").as_bytes());
        let found = match parse(&mut buffer, &method.parse().expect("a method")) {
            Ok(None) => "incomplete".to_owned(),
            Err(error) => format!("{error:?}"),
            Ok(Some(head)) => {
                let mut text = format!("{:?}{}", head.framing, if head.reusable { "+" } else { "" });
                let lines = head.headers.iter().map(|(n, v)| format!(" {n}={}", v.to_str().unwrap_or("?")));
                text.extend(lines);
                text
            }
        };
        assert_eq!(found, expect, "{method} {head}");
    }

    #[test]
    fn the_end_of_a_body_has_one_reading() {
        for (head, expect) in [
            ("HTTP/1.1 200 OK\nContent-Length: 5\n\n", "Length(5)+ content-length=5"),
            ("HTTP/1.1 200 OK\nContent-Length: 5\nConnection: close\n\n", "Length(5) content-length=5"),
            ("HTTP/1.0 200 OK\nContent-Length: 5\n\n", "Length(5) content-length=5"),
            ("HTTP/1.0 200 OK\nContent-Length: 5\nConnection: Keep-Alive\n\n", "Length(5)+ content-length=5"),
            ("HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 5\n\n", "Length(5)+ content-length=5"),
            ("HTTP/1.1 200 OK\nContent-Length: 5, 5\n\n", "Length(5)+ content-length=5"),
            ("HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 6\n\n", "Length"),
            ("HTTP/1.1 200 OK\nContent-Length: 5, 6\n\n", "Length"),
            ("HTTP/1.1 200 OK\nContent-Length: +5\n\n", "Length"),
            ("HTTP/1.1 200 OK\nContent-Length: -5\n\n", "Length"),
            ("HTTP/1.1 200 OK\nContent-Length: 0x5\n\n", "Length"),
            ("HTTP/1.1 200 OK\nContent-Length:\n\n", "Length"),
            ("HTTP/1.1 200 OK\nContent-Length: 99999999999999999999\n\n", "Length"),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", "Chunked+"),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: Chunked\n\n", "Chunked+"),
            ("HTTP/1.0 200 OK\nTransfer-Encoding: chunked\nConnection: keep-alive\n\n", "Chunked"),
            // Transfer-Encoding counts (RFC 9112, 6.3).
            ("HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked\n\n", "Chunked+"),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Length: 500\n\n", "Chunked+"),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: identity\nContent-Length: 5\n\n", "Coding"),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: identity\n\n", "Close"),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked\n\n", "Coding"),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: gzip\n\n", "Coding"),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked, chunked\n\n", "Coding"),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n", "Coding"),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: xchunked\n\n", "Coding"),
            ("HTTP/1.1 200 OK\n\n", "Close"),
            ("HTTP/1.1 204 No Content\nContent-Length: 5\n\n", "None+"),
            ("HTTP/1.1 304 Not Modified\nContent-Length: 5\n\n", "None+ content-length=5"),
            ("HTTP/1.1 103 Early Hints\nLink: x\nContent-Length: 5\n\n", "None+ link=x"),
            ("HTTP/1.1 200 OK\nX : 1\nConnection: x-hop\nX-Hop: 1\nKeep-Alive: 5\n\n", "Close x=1"),
            (
                "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: x\n\n",
                "None+ connection=Upgrade upgrade=x",
            ),
            ("HTTP/1.1 200 OK\nX: 1\n 2\n\n", "NotHttp"),
            ("HTTP/1.1 200 OK\nX: \0\n\n", "NotHttp"),
            ("HTTP/1.1 200 OK\nX y: 1\n\n", "NotHttp"),
            ("HTTP/2 200 OK\n\n", "NotHttp"),
            ("HTTP/1.1 99 What\n\n", "NotHttp"),
            ("SSH-2.0-OpenSSH\n", "NotHttp"),
            ("\0\0\u{12}\u{4}\0", "Http2"),
            ("HTTP/1.1 200 OK\nX: 1\n", "incomplete"),
            ("", "incomplete"),
        ] {
            check("GET", head, expect);
        }
        check("HEAD", "HTTP/1.1 200 OK\nContent-Length: 5\n\n", "None+ content-length=5");
        check("HEAD", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", "None+");
    }

    #[test]
    fn heads_have_bounds_that_the_reason_names() {
        let many = |count: usize| format!("HTTP/1.1 204 OK\n{}\n", "X: y\n".repeat(count));
        check("GET", &many(300), "TooManyHeaders");
        let fits = many(MAX_HEADERS).replace('\n', "\r\n");
        assert!(parse(&mut BytesMut::from(fits.as_bytes()), &Method::GET).is_ok_and(|head| head.is_some()));
        check("GET", &format!("HTTP/1.1 200 OK\nX: {}", "x".repeat(MAX_HEAD)), "HeadTooLong");
        let text = "the app's response has more than 256 headers, the most that the router takes";
        assert_eq!(Malformed::TooManyHeaders.to_string(), text);
    }
}
