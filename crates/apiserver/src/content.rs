//! Bodies: what comes in, in its media types, and what goes out.

use std::collections::VecDeque;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY, WARNING,
};
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, BodyStream, Collected};
use hyper::body::Incoming;
use serde_json::Value;

use crate::object::{Object, encode};
use crate::protobuf;
use crate::request::wants_yaml;
use crate::schema::{self, FieldError, FieldValidation, Kind, Parsed};
use crate::server::off_worker;
use crate::status::{Failure, Result};

/// The media type of YAML.
pub const YAML: &str = "application/yaml";
/// Largest request body. As in Kubernetes, where etcd's own limit is half of it.
pub const MAX_BODY: usize = 3 << 20;
/// Lists go out in parts of about so many bytes: large enough to be rare, small enough not to double a large list.
const LIST_PART: usize = 128 << 10;

/// An error of a body's transport.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub enum Body {
    /// All of it.
    Full(Option<Bytes>),
    /// A list, joined from its objects' bytes while it is sent.
    List(ListBody),
    /// A watch, a log, a proxied answer.
    Stream(BoxStream<'static, Result<Bytes, BoxError>>),
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self::Full(None)
    }

    /// The body of another server's response, streamed.
    pub(crate) fn from_incoming(body: Incoming) -> Self {
        let frames = BodyStream::new(body).filter_map(|frame| async move {
            frame.map(|f| f.into_data().ok()).map_err(Into::into).transpose()
        });
        Self::Stream(frames.boxed())
    }

    /// Its length, if it is known.
    pub fn len(&self) -> Option<usize> {
        match self {
            Self::Full(bytes) => Some(bytes.as_ref().map_or(0, Bytes::len)),
            Self::List(list) => Some(list.len),
            Self::Stream(_) => None,
        }
    }

    /// All its bytes; `None` for a stream.
    pub(crate) fn copied(&self) -> Option<Bytes> {
        match self {
            Self::Full(bytes) => bytes.clone(),
            Self::List(list) => Some(list.copied()),
            Self::Stream(_) => None,
        }
    }

    /// It has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

/// A list whose items are the very bytes that are kept.
pub struct ListBody {
    head: Bytes,
    items: VecDeque<Arc<Object>>,
    started: bool,
    ended: bool,
    len: usize,
}

impl ListBody {
    /// `head` ends with `"items":[`.
    pub fn new(head: Bytes, items: Vec<Arc<Object>>) -> Self {
        let commas = items.len().saturating_sub(1);
        let len = head.len() + items.iter().map(|o| o.json_len()).sum::<usize>() + commas + 2;
        Self { head, items: items.into(), started: false, ended: false, len }
    }

    fn copied(&self) -> Bytes {
        let (head, items) = (self.head.clone(), self.items.clone());
        let mut list = Self { head, items, started: false, ended: false, len: self.len };
        let mut all = BytesMut::with_capacity(self.len);
        while let Some(part) = list.next_part() {
            all.extend_from_slice(&part);
        }
        all.freeze()
    }

    fn next_part(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut part = BytesMut::with_capacity(self.len.min(LIST_PART + (LIST_PART >> 2)));
        if !self.started {
            part.extend_from_slice(&self.head);
        }
        while part.len() < LIST_PART {
            let Some(object) = self.items.pop_front() else {
                part.extend_from_slice(b"]}");
                self.ended = true;
                break;
            };
            if std::mem::replace(&mut self.started, true) {
                part.extend_from_slice(b",");
            }
            object.write_json(&mut part);
        }
        self.started = true;
        Some(part.freeze())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Full(bytes) => {
                Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b))))
            }
            Self::List(list) => Poll::Ready(list.next_part().map(|b| Ok(Frame::data(b)))),
            Self::Stream(stream) => Pin::new(stream).poll_next(context).map_ok(Frame::data),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::List(list) => list.ended,
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::List(list) if !list.started => SizeHint::with_exact(list.len as u64),
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            _ => SizeHint::default(),
        }
    }
}

/// An answer in JSON.
pub fn json(code: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() =
        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A value as an answer.
pub fn value(code: u16, value: &Value) -> Response<Body> {
    json(code, Body::Full(Some(encode(value))))
}

/// A failure as an answer.
pub fn failure(failure: &Failure) -> Response<Body> {
    let mut response = value(failure.code, &failure.status());
    if let Some(seconds) = failure.details.as_ref().and_then(|d| d.get("retryAfterSeconds")?.as_u64()) {
        response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
    }
    response
}

/// Writes an answer in JSON as YAML where the request prefers that, its keys in alphabetical order as in Kubernetes.
pub async fn negotiate(response: &mut Response<Body>, request: &HeaderMap) {
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if !is_json || !wants_yaml(request) || matches!(response.body(), Body::Stream(_)) {
        return;
    }
    // What lies in memory is read without an error.
    let body = std::mem::replace(response.body_mut(), Body::empty());
    let bytes = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    let yaml = off_worker(bytes.len(), || {
        let mut value: Value = serde_json::from_slice(&bytes).ok()?;
        value.sort_all_objects();
        serde_norway::to_string(&value).ok()
    });
    match yaml {
        Some(yaml) => {
            *response.body_mut() = Body::Full(Some(yaml.into()));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(YAML));
        }
        None => *response.body_mut() = Body::Full(Some(bytes)),
    }
}

/// Characters of all warnings of an answer, and of one of them where that is exceeded. As in Kubernetes: clients refuse
/// heads of more than some KiB.
const MAX_WARNINGS: usize = 4096;
const MAX_WARNING: usize = 256;

/// Adds `Warning` headers, which kubectl prints.
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    let is_long = warnings.iter().map(|w| w.chars().count()).sum::<usize>() > MAX_WARNINGS;
    let most = if is_long { MAX_WARNING } else { usize::MAX };
    for warning in warnings.iter().take(if is_long { MAX_WARNINGS / MAX_WARNING } else { usize::MAX }) {
        let cut: String = warning.chars().take(most).collect();
        let text = cut.replace('\\', "\\\\").replace('"', "\\\"");
        // A warning that no header can hold is left out: the request itself was fine.
        if let Ok(header) = HeaderValue::from_bytes(format!("299 - \"{text}\"").as_bytes()) {
            response.headers_mut().append(WARNING, header);
        }
    }
}

/// Whether the client names gzip as an encoding that it reads, and not with a quality of zero, which refuses it
/// (RFC 9110, section 12.5.3).
fn takes_gzip(request: &HeaderMap) -> bool {
    let accepted = request.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok());
    accepted.flat_map(|v| v.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let quality = parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")));
        is_named && quality.is_none_or(|q| q.parse::<f32>().is_ok_and(|q| q > 0.0))
    })
}

/// Packs an answer with gzip where the client takes it and it is large enough to be worth it.
pub fn compress(response: &mut Response<Body>, request: &HeaderMap) {
    if !takes_gzip(request) || response.body().len().is_none_or(|len| len < LIST_PART) {
        return;
    }
    let body = std::mem::replace(response.body_mut(), Body::empty());
    let packer = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = futures::stream::unfold(Some((body, packer)), |state| async move {
        let (mut body, mut packer) = state?;
        let part = match &mut body {
            Body::Full(bytes) => bytes.take(),
            Body::List(list) => list.next_part(),
            Body::Stream(_) => None,
        };
        // Writing to memory cannot fail; an error would end the body early, which clients notice.
        match part {
            Some(part) => {
                packer.write_all(&part).ok()?;
                let bytes = std::mem::take(packer.get_mut());
                Some((Ok(Bytes::from(bytes)), Some((body, packer))))
            }
            None => Some((Ok(Bytes::from(packer.finish().ok()?)), None)),
        }
    });
    *response.body_mut() = Body::Stream(packed.boxed());
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// Reads a body in JSON, YAML or protobuf.
pub fn parse(headers: &HeaderMap, body: &Bytes) -> Result<Parsed> {
    let media = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
    match media.split(';').next().unwrap_or_default().trim() {
        "application/json" | "" => parse_json(body),
        YAML => parse_yaml(body),
        protobuf::MEDIA_TYPE => {
            let value = off_worker(body.len(), || protobuf::decode(body))
                .map_err(|e| Failure::bad_request(e.to_string()))?;
            Ok(Parsed { value, duplicates: Vec::new() })
        }
        _ => Err(Failure::unsupported_media_type(
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// Reads JSON.
pub fn parse_json(body: &Bytes) -> Result<Parsed> {
    off_worker(body.len(), || schema::parse_json(body)).map_err(|e| Failure::bad_request(e.to_string()))
}

/// Reads YAML, of which JSON is a part. Most of what comes as YAML is JSON, which is read faster.
pub fn parse_yaml(body: &Bytes) -> Result<Parsed> {
    let read = || {
        if body.trim_ascii_start().starts_with(b"{")
            && let Ok(parsed) = schema::parse_json(body)
        {
            return Ok(parsed);
        }
        schema::parse_yaml(body)
    };
    off_worker(body.len(), read).map_err(|e| Failure::bad_request(e.to_string()))
}

/// Makes a parsed body an object of a kind, whose schema says which fields it has, their types and ranges. Returns the
/// object and the warnings to send with the answer.
pub fn decode(kind: &Kind, mut parsed: Parsed, validation: FieldValidation) -> Result<(Value, Vec<String>)> {
    expect_kind(kind, &mut parsed.value)?;
    schema::decode(kind, parsed, validation).map_err(|e| Failure::bad_request(e.to_string()))
}

/// The failure for the fields of an object of a kind that break rules.
pub fn refuse_invalid(kind: &Kind, name: &str, errors: &[FieldError]) -> Result<()> {
    if errors.is_empty() {
        return Ok(());
    }
    let status = schema::invalid_status(kind, name, errors);
    Err(Failure {
        code: 422,
        reason: "Invalid",
        message: status["message"].as_str().unwrap_or("the object is invalid").to_owned(),
        details: status["details"].as_object().cloned().map(Box::new),
        continue_with: None,
    })
}

/// Checks that a body is of the kind that belongs here, or says nothing of it, and completes it.
pub fn expect_kind(kind: &Kind, object: &mut Value) -> Result<()> {
    let Some(map) = object.as_object_mut() else {
        return Err(Failure::bad_request(format!(
            "couldn't get version/kind; json parse error: the body of a {} must be an object",
            kind.kind
        )));
    };
    let expected = kind.api_version();
    let given = map.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let given_kind = map.get("kind").and_then(Value::as_str).unwrap_or_default();
    if !given.is_empty() && given != expected {
        return Err(Failure::bad_request(format!(
            "the API version in the data ({given}) does not match the expected API version ({expected})"
        )));
    }
    if !given_kind.is_empty() && given_kind != kind.kind {
        return Err(Failure::bad_request(format!(
            "{given_kind} in version \"{}\" cannot be handled as a {}: no kind \"{given_kind}\" is registered here",
            kind.version, kind.kind
        )));
    }
    map.insert("apiVersion".into(), expected.into());
    map.insert("kind".into(), kind.kind.as_ref().into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn large_answers_are_packed_for_clients_that_take_gzip() {
        let object = || Arc::new(Object::unwritten(json!({"data": "x".repeat(1000)}), 1));
        let large = 2 * LIST_PART / 1000;
        for (accepted, count, is_packed) in [
            (Some("gzip"), large, true),
            (Some("deflate, GZIP;q=0.5"), large, true),
            (Some("gzip;q=0, identity"), large, false),
            (Some("gzip; q=0.0"), large, false),
            (Some("gzip;q=none"), large, false),
            (Some("br, x-gzip"), large, false),
            (None, large, false),
            (Some("gzip"), 3, false),
        ] {
            let list = ListBody::new(Bytes::from_static(b"{\"items\":["), vec![object(); count]);
            let mut response = Response::new(Body::List(list));
            let mut headers = HeaderMap::new();
            if let Some(accepted) = accepted {
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accepted));
            }
            compress(&mut response, &headers);
            let encoding = response.headers().get(CONTENT_ENCODING).cloned();
            assert_eq!(encoding.is_some_and(|e| e == "gzip"), is_packed, "{accepted:?}");
            assert_eq!(response.headers().contains_key(VARY), is_packed, "{accepted:?}");
            let mut bytes = response.into_body().collect().await.expect("no transport").to_bytes().to_vec();
            if is_packed {
                let packed = std::mem::take(&mut bytes);
                GzDecoder::new(&packed[..]).read_to_end(&mut bytes).expect("gzip");
            }
            let list: Value = serde_json::from_slice(&bytes).expect("JSON");
            assert_eq!(list["items"].as_array().map(Vec::len), Some(count), "{accepted:?}");
        }
    }

    #[tokio::test]
    async fn lists_are_joined_from_bytes_in_parts_of_known_length() {
        for (count, size) in [(0, 0), (1, 10), (3, LIST_PART), (2000, 500)] {
            let object = Arc::new(Object::unwritten(json!({"data": "x".repeat(size)}), 1));
            let body = Body::List(ListBody::new(Bytes::from_static(b"{\"items\":["), vec![object; count]));
            let len = body.len();
            let all = body.collect().await.expect("no transport").to_bytes();
            assert_eq!(Some(all.len()), len);
            let list: Value = serde_json::from_slice(&all).expect("JSON");
            assert_eq!(list["items"].as_array().map(Vec::len), Some(count));
        }
    }
}
