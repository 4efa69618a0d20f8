//! The chunked transfer coding of responses (RFC 9112, 7.1). Pure.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use httparse::Status;

use super::request::is_trailer;
use super::response::Malformed;

/// Bytes of extensions in one body; nobody uses them, and each would cost work without a byte of content.
const MAX_EXTENSIONS: usize = 16 << 10;
/// Bytes of all trailers.
const MAX_TRAILERS: usize = 16 << 10;

/// Decodes one body.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    extensions: usize,
}

#[derive(Debug, Default)]
enum State {
    /// Before the size of a chunk.
    #[default]
    Start,
    /// In its digits.
    Size(u64),
    /// Behind them, until the line ends.
    Extension(u64),
    /// At the line feed of that line.
    SizeEnd(u64),
    /// In its content, with this much to come.
    Data(u64),
    /// Behind the content, at its CR.
    DataEnd,
    /// At the line feed.
    DataEndLine,
    /// Behind the last chunk.
    Trailers,
    /// The body is over.
    End,
}

/// A part of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// Content.
    Data(Bytes),
    /// Fields after the content, as far as they may be passed on. The body is over.
    Trailers(HeaderMap),
    /// The body is over.
    End,
}

impl Decoder {
    /// Takes the next part from the front of `buffer`; `None` where more bytes are needed.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Part>, Malformed> {
        loop {
            match self.state {
                State::Data(left) => {
                    if buffer.is_empty() {
                        return Ok(None);
                    }
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    let left = left - count as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Some(Part::Data(buffer.split_to(count).freeze())));
                }
                State::Trailers => return self.trailers(buffer),
                State::End => return Ok(Some(Part::End)),
                _ => {}
            }
            let Some(byte) = buffer.first().copied() else { return Ok(None) };
            buffer.advance(1);
            self.step(byte)?;
        }
    }

    /// A byte outside of content and trailers.
    fn step(&mut self, byte: u8) -> Result<(), Malformed> {
        let digit = || char::from(byte).to_digit(16).map(u64::from);
        self.state = match self.state {
            State::Start => State::Size(digit().ok_or(Malformed::Chunk)?),
            State::Size(size) => match (digit(), byte) {
                (Some(_), _) if size >> 60 != 0 => return Err(Malformed::Chunk),
                (Some(digit), _) => State::Size(size << 4 | digit),
                (None, b'\r') => State::SizeEnd(size),
                (None, b';' | b' ' | b'\t') => State::Extension(size),
                _ => return Err(Malformed::Chunk),
            },
            State::Extension(size) => {
                self.extensions += 1;
                match byte {
                    _ if self.extensions > MAX_EXTENSIONS => return Err(Malformed::Chunk),
                    b'\r' => State::SizeEnd(size),
                    b'\n' => return Err(Malformed::Chunk),
                    _ => State::Extension(size),
                }
            }
            State::SizeEnd(0) if byte == b'\n' => State::Trailers,
            State::SizeEnd(size) if byte == b'\n' => State::Data(size),
            State::DataEnd if byte == b'\r' => State::DataEndLine,
            State::DataEndLine if byte == b'\n' => State::Start,
            _ => return Err(Malformed::Chunk),
        };
        Ok(())
    }

    fn trailers(&mut self, buffer: &mut BytesMut) -> Result<Option<Part>, Malformed> {
        let mut room = [httparse::EMPTY_HEADER; 64];
        let (length, fields) = match httparse::parse_headers(buffer, &mut room) {
            Ok(Status::Complete(found)) => found,
            Ok(Status::Partial) if buffer.len() < MAX_TRAILERS => return Ok(None),
            _ => return Err(Malformed::Chunk),
        };
        let mut trailers = HeaderMap::new();
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed::Chunk)?;
            let value = HeaderValue::from_bytes(field.value).map_err(|_| Malformed::Chunk)?;
            if is_trailer(&name) {
                trailers.append(name, value);
            }
        }
        buffer.advance(length);
        self.state = State::End;
        Ok(Some(if trailers.is_empty() { Part::End } else { Part::Trailers(trailers) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The content, the trailers and what is left behind the body, decoded as the bytes come `at_once` at a time.
    fn decode(body: &str, at_once: usize) -> String {
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
        let mut found = String::new();
        let bytes = body.replace('\n', "\r\n").replace('|', "\n");
        for piece in bytes.as_bytes().chunks(at_once) {
            buffer.extend_from_slice(piece);
            loop {
                match decoder.decode(&mut buffer) {
                    Ok(None) => break,
                    Ok(Some(Part::Data(data))) => found += &String::from_utf8_lossy(&data),
                    Ok(Some(Part::Trailers(fields))) => {
                        found.extend(
                            fields.iter().map(|(n, v)| format!(" {n}={}", v.to_str().unwrap_or("?"))),
                        );
                    }
                    Ok(Some(Part::End)) => {
                        return match at_once {
                            usize::MAX => format!("{found}.{}", String::from_utf8_lossy(&buffer)),
                            _ => format!("{found}."),
                        };
                    }
                    Err(error) => return format!("{error:?}"),
                }
            }
        }
        found
    }

    #[test]
    fn chunks_have_one_reading() {
        for (body, expect) in [
            ("5\nhello\n6\n world\n0\n\n", "hello world."),
            ("5;a=b;c\nhello\n0;x\n\n", "hello."),
            ("00005\nhello\n000\n\n", "hello."),
            ("a\n0123456789\n0\nX-Sum: 1\nContent-Length: 3\nX_Forwarded_For: 1\n\n", "0123456789 x-sum=1."),
            ("5\nhel", "hel"),
            ("zz\nhello\n0\n\n", "Chunk"),
            ("-5\nhello\n0\n\n", "Chunk"),
            ("+5\nhello\n0\n\n", "Chunk"),
            ("0x5\nhello\n0\n\n", "Chunk"),
            (" 5\nhello\n0\n\n", "Chunk"),
            ("\nhello\n0\n\n", "Chunk"),
            ("10000000000000005\nhello\n0\n\n", "Chunk"),
            ("5\nhello world\n0\n\n", "Chunk"),
            // A lone line feed ends no line here: some servers take it for one, others for content.
            ("5|hello|0||", "Chunk"),
            ("5;a|\nhello\n0\n\n", "Chunk"),
            ("5\nhello|0\n\n", "Chunk"),
            ("0\nX y: 1\n\n", "Chunk"),
        ] {
            for at_once in [usize::MAX, 1, 2, 3] {
                assert_eq!(decode(body, at_once), expect, "{body:?} by {at_once}");
            }
        }
        assert_eq!(decode("0\n\nHTTP/1.1 200 OK", usize::MAX), ".HTTP/1.1 200 OK");
        let extended = format!("1;{}\nx\n0\n\n", "x".repeat(MAX_EXTENSIONS));
        assert_eq!(decode(&extended, usize::MAX), "Chunk");
        let trailing = format!("0\nX: {}", "x".repeat(MAX_TRAILERS));
        assert_eq!(decode(&trailing, usize::MAX), "Chunk");
    }
}
