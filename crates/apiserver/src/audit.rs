//! The audit log: who asked for what, when, and with what outcome, as events of `audit.k8s.io/v1`, one JSON a line.
//!
//! ```text
//! request -> policy -> Record --stage--> event -> log (thread, rotation) -> file
//!                        ^-- request and response objects, decision, annotations of webhooks
//! ```
//!
//! The policy is asked about the user who sent the request, also where they act as another one. Without a policy nothing
//! of this exists, and requests cost what they cost without it.

mod log;
mod policy;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use futures::StreamExt;
use http::header::USER_AGENT;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use yado_types::clock::Clock;

use crate::auth::attributes;
use crate::content::{self, Body};
use crate::edit::existing;
use crate::identity::Identity;
use crate::metrics::{head, line};
use crate::rbac::{Attributes, Target};
use crate::request::{PatchKind, Request, Verb};
use crate::status::Failure;
use crate::write::create::uid;
use log::Log;
pub use log::LogConfig;
pub(crate) use policy::Level;
use policy::{Extent, Stage};
pub use policy::{Policy, PolicyError};

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// Characters of a client's name, and of an identifier that it chose. The first as in Kubernetes.
const MAX_USER_AGENT: usize = 1024;
const MAX_ID: usize = 64;

/// The address of a request's client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

/// The audit log of a server. Clones share it.
#[derive(Clone)]
pub struct Audit {
    inner: Arc<Inner>,
}

struct Inner {
    policy: Policy,
    log: Log,
    clock: Arc<dyn Clock>,
}

impl Audit {
    /// Opens the log.
    ///
    /// # Errors
    /// Where its file cannot be opened for appending.
    pub fn open(policy: Policy, config: LogConfig, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let log = Log::open(config, clock.clone())?;
        Ok(Self { inner: Arc::new(Inner { policy, log, clock }) })
    }

    /// The record of a new request, if the policy says that it is logged. `asked` is missing where the request makes no
    /// sense.
    pub(crate) fn record(
        &self,
        who: &Identity,
        asked: Option<&Request>,
        parts: &Parts,
    ) -> Option<Arc<Record>> {
        let method = parts.method.as_str().to_ascii_lowercase();
        let asked_for = match asked {
            Some(asked) => attributes(asked, &parts.method, parts.uri.path()),
            None => Attributes { verb: &method, target: Target::Path(parts.uri.path()) },
        };
        let extent = self.inner.policy.extent(who, &asked_for)?;
        let given = parts.headers.get(AUDIT_ID).filter(|id| !id.is_empty() && id.len() <= MAX_ID);
        let id = given.and_then(|id| id.to_str().ok()).map_or_else(|| uid(&mut rand::rng()), str::to_owned);
        let received = self.inner.clock.now();
        let mut head =
            json!({"requestURI": parts.uri.path_and_query().map_or("/", |target| target.as_str())});
        head["verb"] = asked_for.verb.into();
        head["user"] = who.user_info();
        let found = Found { object: object_reference(&asked_for, asked), ..Found::default() };
        Some(Arc::new(Record {
            audit: self.inner.clone(),
            extent,
            id,
            head,
            client: client(parts),
            received,
            found: Mutex::new(found),
        }))
    }

    /// The metrics of the log as text.
    pub(crate) fn metrics_text(&self) -> String {
        let (mut out, counts) = (String::new(), self.inner.log.counts());
        let name = "apiserver_audit_event_total";
        head(&mut out, name, "counter", "Audit events that were logged.");
        line(&mut out, name, "", counts.events.load(Relaxed) as f64);
        let name = "apiserver_audit_error_total";
        head(&mut out, name, "counter", "Audit events that could not be written.");
        line(&mut out, name, "plugin=\"log\"", counts.errors.load(Relaxed) as f64);
        out
    }

    /// Writes what is left and closes the log.
    pub(crate) async fn close(&self) {
        self.inner.log.close().await;
    }
}

/// The addresses that a request came through, and the client's name.
fn client(parts: &Parts) -> Value {
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let forwarded = text("x-forwarded-for").into_iter().flat_map(|list| list.split(','));
    let mut addresses: Vec<IpAddr> = forwarded.filter_map(|address| address.trim().parse().ok()).collect();
    let real = text("x-real-ip").and_then(|address| address.trim().parse().ok());
    // A request from within the process has no address.
    let near = parts.extensions.get::<ClientAddress>().map_or(IpAddr::from([127, 0, 0, 1]), |near| near.0);
    for address in real.into_iter().chain([near]) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let mut client = json!({"sourceIPs": addresses});
    if let Some(agent) = parts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()) {
        // Headers that read as text are ASCII.
        client["userAgent"] = agent.get(..MAX_USER_AGENT).unwrap_or(agent).into();
    }
    client
}

fn object_reference(asked_for: &Attributes<'_>, asked: Option<&Request>) -> Map<String, Value> {
    let Target::Resource { namespace, group, resource, subresource, name } = asked_for.target else {
        return Map::new();
    };
    let version = match asked {
        Some(Request::Api(r)) => &*r.resource.version,
        _ => "",
    };
    let fields = [
        ("resource", resource),
        ("namespace", namespace),
        ("name", name),
        ("apiGroup", group),
        ("apiVersion", version),
        ("subresource", subresource),
    ];
    fields
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(key, text)| (key.to_owned(), text.into()))
        .collect()
}

/// What is known of a request that is logged. Its last event is logged when it ends, or is dropped before.
pub(crate) struct Record {
    audit: Arc<Inner>,
    extent: Extent,
    id: String,
    /// Its first fields: the target, the verb and the user.
    head: Value,
    client: Value,
    received: Timestamp,
    found: Mutex<Found>,
}

/// What is learnt of a request on its way.
#[derive(Default)]
struct Found {
    object: Map<String, Value>,
    impersonated: Option<Value>,
    status: Option<Value>,
    request: Option<Value>,
    response: Option<Value>,
    annotations: Map<String, Value>,
    ended: bool,
}

impl Record {
    /// The request acts as another user.
    pub(crate) fn impersonated(&self, who: &Identity) {
        let info = who.user_info();
        if info != self.head["user"] {
            self.found.lock().impersonated = Some(info);
        }
    }

    /// Adds an annotation.
    pub(crate) fn annotate(&self, key: &str, value: &str) {
        self.found.lock().annotations.insert(key.to_owned(), value.into());
    }

    /// Adds an annotation to an event of at least this level.
    pub(crate) fn annotate_at(&self, level: Level, key: &str, value: &str) {
        if self.extent.level >= level {
            self.annotate(key, value);
        }
    }

    /// The request was refused, or failed.
    pub(crate) fn failed(&self, failure: &Failure) {
        let mut status = failure.status();
        if let Some(status) = status.as_object_mut() {
            status.shift_remove("kind");
            status.shift_remove("apiVersion");
        }
        self.found.lock().status = Some(status);
    }

    /// The body of the request. Only that of a create says which object it is about.
    pub(crate) fn request_body(&self, asked: &Verb, parts: &Parts, body: &Bytes) {
        let is_create = matches!(asked, Verb::Create(_));
        if body.is_empty() || self.extent.level < Level::Request && !is_create {
            return;
        }
        let parsed = match asked {
            Verb::Patch(PatchKind::Apply, _) => content::parse_yaml(body),
            Verb::Patch(..) => content::parse_json(body),
            _ => content::parse(&parts.headers, body),
        };
        let Ok(mut object) = parsed.map(|parsed| parsed.value) else { return };
        let mut found = self.found.lock();
        for key in ["namespace", "name", "uid", "resourceVersion"] {
            if let Some(text) = object["metadata"].get(key).filter(|_| is_create)
                && !found.object.contains_key(key)
            {
                found.object.insert(key.to_owned(), text.clone());
            }
        }
        if self.extent.level >= Level::Request {
            self.trim(&mut object);
            found.request = Some(object);
        }
    }

    /// The body of the response.
    pub(crate) fn response_body(&self, body: &Body) {
        if self.extent.level < Level::RequestResponse {
            return;
        }
        let object = body.copied().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        self.found.lock().response = object.map(|mut object| {
            self.trim(&mut object);
            object
        });
    }

    fn trim(&self, object: &mut Value) {
        if !self.extent.omit_managed_fields {
            return;
        }
        let drop_fields = |object: &mut Value| {
            if let Some(metadata) = object.as_object_mut().and_then(|object| existing(object, "metadata")) {
                metadata.shift_remove("managedFields");
            }
        };
        drop_fields(object);
        object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(drop_fields);
    }

    /// Logs an event, when the log has room for it.
    pub(crate) async fn received(&self) {
        if let Some(event) = self.event(Stage::RequestReceived) {
            self.audit.log.write(event).await;
        }
    }

    /// Logs that the response is complete, or that it begins where it is the stream of a long-running request.
    pub(crate) async fn responded(
        self: Arc<Self>,
        mut response: Response<Body>,
        is_long: bool,
    ) -> Response<Body> {
        if let Ok(id) = HeaderValue::from_str(&self.id) {
            response.headers_mut().insert(AUDIT_ID, id);
        }
        {
            let mut found = self.found.lock();
            found.status.get_or_insert_with(|| json!({"metadata": {}, "code": response.status().as_u16()}));
        }
        let lasts = is_long && matches!(response.body(), Body::Stream(_));
        let stage = if lasts { Stage::ResponseStarted } else { Stage::ResponseComplete };
        if let Some(event) = self.event(stage) {
            self.audit.log.write(event).await;
        }
        if !lasts {
            self.found.lock().ended = true;
            return response;
        }
        response.map(|body| match body {
            Body::Stream(stream) => Body::Stream(
                stream
                    .map(move |part| {
                        let _record = &self;
                        part
                    })
                    .boxed(),
            ),
            other => other,
        })
    }

    /// The event of a stage as a line; `None` where the policy omits it.
    fn event(&self, stage: Stage) -> Option<Vec<u8>> {
        if self.extent.omit_stages.contains(&stage) {
            return None;
        }
        let found = self.found.lock();
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": self.extent.level.name(), "auditID": self.id,
            "stage": stage.name(),
        });
        let fields = event.as_object_mut()?;
        let take = |fields: &mut Map<String, Value>, from: &Value| {
            fields.extend(
                from.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())),
            );
        };
        take(fields, &self.head);
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(key.to_owned(), value);
            }
        };
        set("impersonatedUser", found.impersonated.clone());
        set("sourceIPs", self.client.get("sourceIPs").cloned());
        set("userAgent", self.client.get("userAgent").cloned());
        set("objectRef", Some(found.object.clone().into()).filter(|_| !found.object.is_empty()));
        if stage != Stage::RequestReceived {
            set("responseStatus", found.status.clone());
            set("requestObject", found.request.clone());
            set("responseObject", found.response.clone());
        }
        set("requestReceivedTimestamp", Some(micro(self.received)));
        set("stageTimestamp", Some(micro(self.audit.clock.now())));
        set("annotations", Some(found.annotations.clone().into()).filter(|_| !found.annotations.is_empty()));
        // What was read from JSON is written as JSON.
        let mut line = serde_json::to_vec(&event).ok()?;
        line.push(b'\n');
        Some(line)
    }
}

impl Drop for Record {
    /// The end of a stream, of a request whose client went away, or of one in which the server failed.
    fn drop(&mut self) {
        if self.found.get_mut().ended {
            return;
        }
        let stage = if std::thread::panicking() { Stage::Panic } else { Stage::ResponseComplete };
        let why = match stage {
            Stage::Panic => "the server failed while it worked on the request",
            _ => "the client closed the connection before the response was there",
        };
        let code = if stage == Stage::Panic { 500 } else { 499 };
        let status = || json!({"metadata": {}, "status": "Failure", "message": why, "code": code});
        self.found.get_mut().status.get_or_insert_with(status);
        if let Some(event) = self.event(stage) {
            self.audit.log.write_now(event);
        }
    }
}

/// A time with microseconds, as `MicroTime` is written.
fn micro(time: Timestamp) -> Value {
    format!("{time:.6}").into()
}
