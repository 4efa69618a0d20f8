//! The plain form of a request's path: the one that a route is chosen by and that the app is given. Pure.
//!
//! An app, a route and a file system may each read `/a/../b`, `/a/%2e%2e/b` or `/a//b` in a way of their own, and a
//! request could then reach one app under the name of another. So a path is brought to its normal form first (RFC
//! 3986, 6.2.2), with empty segments left out, and what keeps two readings even then is refused.

use std::borrow::Cow;

use http::StatusCode;
use percent_encoding::percent_decode_str;

use super::request::RequestError;

/// The normal form of an absolute path; borrowed where it is in that form already. Refused with 400 are a NUL, a
/// backslash, and a dot segment that only some servers see: behind an encoded slash or before a path parameter.
pub fn normalize(path: &str) -> Result<Cow<'_, str>, RequestError> {
    if is_plain(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let mut kept: Vec<Cow<'_, str>> = Vec::new();
    // Whether the last segment names a directory, so that a slash stays at the end.
    let mut directory = false;
    for segment in path.split('/') {
        directory = false;
        match read(segment)? {
            Segment::Empty => directory = true,
            Segment::Up => {
                kept.pop();
                directory = true;
            }
            Segment::Name(name) => kept.push(name),
        }
    }
    let mut plain = String::with_capacity(path.len());
    for segment in &kept {
        plain.push('/');
        plain.push_str(segment);
    }
    if directory || plain.is_empty() {
        plain.push('/');
    }
    Ok(Cow::Owned(plain))
}

/// Whether nothing in a path needs a closer look. Nearly every path passes.
fn is_plain(path: &[u8]) -> bool {
    let suspicious = |pair: &[u8]| pair[0] == b'/' && (pair[1] == b'/' || pair[1] == b'.');
    !path.iter().any(|b| *b == b'%' || *b == b'\\') && !path.windows(2).any(suspicious)
}

/// What stands between two slashes.
enum Segment<'a> {
    /// Nothing, or a single dot.
    Empty,
    /// Two dots: the segment before it is taken back.
    Up,
    /// A name in its normal form.
    Name(Cow<'a, str>),
}

fn read(segment: &str) -> Result<Segment<'_>, RequestError> {
    let refuse = |why| Err(RequestError(StatusCode::BAD_REQUEST, why));
    if segment.contains('\\') {
        return refuse("the path holds a backslash; write it as %5C\n");
    }
    let decoded: Cow<'_, [u8]> = percent_decode_str(segment).into();
    if decoded.contains(&0) {
        return refuse("the path holds a NUL character\n");
    }
    match &*decoded {
        b"" | b"." => return Ok(Segment::Empty),
        b".." => return Ok(Segment::Up),
        _ => {}
    }
    // Some servers decode slashes before they resolve dots, and some cut off parameters (`..;a=b`) before.
    let mut pieces = decoded.split(|b| matches!(b, b'/' | b'\\'));
    if pieces.any(|piece| matches!(piece.split(|b| *b == b';').next(), Some(b"." | b".."))) {
        return refuse("the path holds a dot segment that servers read in different ways\n");
    }
    Ok(Segment::Name(decode_unreserved(segment)))
}

/// Decodes the escapes of characters that need none: `%61` and `a` are the same by RFC 3986, 6.2.2.2. The digits of the
/// others become upper case (6.2.2.1).
fn decode_unreserved(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    let mut pieces = segment.split('%');
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let digits = piece.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (byte, piece.split_at_checked(2)) {
            (Some(byte), Some((_, rest))) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                plain.push(char::from(byte));
                plain.push_str(rest);
            }
            (Some(_), Some((digits, rest))) => {
                plain.push('%');
                plain.push_str(&digits.to_ascii_uppercase());
                plain.push_str(rest);
            }
            _ => {
                plain.push('%');
                plain.push_str(piece);
            }
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_have_one_form() {
        for (path, expect) in [
            ("/", Ok("/")),
            ("/a/b", Ok("/a/b")),
            ("/a/b/", Ok("/a/b/")),
            ("/a.b/..c/d..", Ok("/a.b/..c/d..")),
            ("/.well-known/x", Ok("/.well-known/x")),
            ("/pre/../exact", Ok("/exact")),
            ("/pre/%2e%2e/exact", Ok("/exact")),
            ("/pre/%2E./exact", Ok("/exact")),
            ("/pre/.%2e/exact", Ok("/exact")),
            ("/pre/./exact", Ok("/pre/exact")),
            ("/pre/..", Ok("/")),
            ("/pre/.", Ok("/pre/")),
            ("/a/b/..", Ok("/a/")),
            ("/../../a", Ok("/a")),
            ("//a///b//", Ok("/a/b/")),
            ("//", Ok("/")),
            ("/pre//../exact", Ok("/exact")),
            ("/%61dm%69n", Ok("/admin")),
            ("/a%2fb", Ok("/a%2Fb")),
            ("/a%20b%e4", Ok("/a%20b%E4")),
            // An escape of an escape is decoded once; the second reading is the app's own.
            ("/a/%252e%252e/b", Ok("/a/%252e%252e/b")),
            // No escapes: they stay as they are.
            ("/100%", Ok("/100%")),
            ("/%zz/%+1", Ok("/%zz/%+1")),
            ("/%é", Ok("/%é")),
            ("/a/..%2fb", Err(400)),
            ("/a%2f..%2fb", Err(400)),
            ("/a/..%5cb", Err(400)),
            ("/a/..\\b", Err(400)),
            ("/a\\b", Err(400)),
            ("/a/..;x=1/b", Err(400)),
            ("/a/.;/b", Err(400)),
            ("/a%00", Err(400)),
            ("/a/b;x=1", Ok("/a/b;x=1")),
        ] {
            let found = normalize(path).map_err(|refusal| refusal.0.as_u16());
            assert_eq!(found.as_deref().map_err(|code| *code), expect, "{path}");
        }
    }

    proptest! {
        /// What was normalized is in its normal form, and no reading of it leads up or names an empty segment.
        #[test]
        fn the_normal_form_is_final(path in "(/|\\.|%2e|%2E|%2f|%5c|;|a|%61|%25|%|//){0,12}") {
            let path = format!("/{path}");
            if let Ok(plain) = normalize(&path) {
                prop_assert!(plain.starts_with('/') && !plain.contains("//"), "{path}: {plain}");
                prop_assert!(!plain.split('/').any(|s| s == "." || s == ".."), "{path}: {plain}");
            }
        }
    }
}
