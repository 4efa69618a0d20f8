//! Flow control: how many requests are worked on at once, whose are next, and which are rejected (API Priority and
//! Fairness).
//!
//! ```text
//! request -> FlowSchema (schema) -> priority level -> seat free? (seats) -yes-> work -> seat free for the next
//!                                                        \--no-> queue of the flow (queues) -> turn, or 429 (retry)
//! [FlowSchema, PriorityLevelConfiguration] --feed--> this
//! [defaults] --ensure, from time to time--> the same objects, and their status
//! ```
//!
//! A request with a free seat costs a comparison with a few FlowSchemas and two short locks; no lock is held while a
//! request waits. Exempt requests take no seat. Long-running requests other than watches (exec, attach, port-forward,
//! proxy, logs) are not looked at; a watch holds its seat until it begins.
//!
//! Not here: every request counts as one seat. Kubernetes estimates more for large lists and for writes with many
//! watchers.

pub(crate) mod defaults;
pub(crate) mod ensure;
mod metrics;
mod queues;
mod retry;
mod schema;
mod seats;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, oneshot};
use yado_types::clock::Clock;

use crate::cache::Observer;
use crate::identity::Identity;
use crate::object::Object;
use crate::rbac::Attributes;
use crate::schema::FLOW_CONTROL_GROUP;
use crate::status::Failure;
use metrics::Counts;
use queues::Ticket;
use schema::{Distinguisher, FlowSchema, PriorityLevel};
use seats::{Arrival, LevelId, Reason, Seats};

/// How long a request may wait for a seat: a quarter of the minute that Kubernetes gives a request.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

const FLOW_SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const PRIORITY_LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// Limits the requests that are worked on at once.
pub(crate) struct FlowControl {
    /// Seats of all priority levels together.
    total: u32,
    clock: Arc<dyn Clock>,
    config: RwLock<Config>,
    seats: Mutex<Seats<Waker>>,
    /// Hashes flows. Its keys are random, so that nobody can choose a name that shares another's queues.
    hasher: RandomState,
    /// An object of the configuration was changed.
    changed: Notify,
}

/// Wakes a waiting request.
type Waker = oneshot::Sender<()>;

/// The configuration as its objects have it.
#[derive(Default)]
struct Config {
    schemas: BTreeMap<Box<str>, FlowSchema>,
    levels: BTreeMap<Box<str>, PriorityLevel>,
    /// In the order in which they are compared with requests. The mandatory `catch-all` takes what no other does.
    flows: Vec<Arc<Flow>>,
}

/// A FlowSchema with its priority level.
struct Flow {
    schema: FlowSchema,
    level: PriorityLevel,
    /// The number of the level; `None`: it is exempt.
    id: Option<LevelId>,
    counts: Arc<Counts>,
}

impl Flow {
    /// The name of the flow within the FlowSchema.
    fn distinguisher<'a>(&self, who: &'a Identity, asked: &Attributes<'a>) -> &'a str {
        match self.schema.distinguisher {
            None => "",
            Some(Distinguisher::ByUser) => &who.user,
            Some(Distinguisher::ByNamespace) => asked.namespace(),
        }
    }

    /// Tells a client which FlowSchema and priority level its request was assigned to.
    fn mark(&self, headers: &mut HeaderMap) {
        for (name, uid) in [(FLOW_SCHEMA_UID, &self.schema.uid), (PRIORITY_LEVEL_UID, &self.level.uid)] {
            if !uid.is_empty() {
                headers.insert(name, HeaderValue::clone(uid));
            }
        }
    }
}

/// The kinds of the configuration, by the prefix of their keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    FlowSchema,
    PriorityLevel,
}

impl Kind {
    fn of_prefix(prefix: &str) -> Option<Self> {
        let (group, plural) = prefix.strip_prefix("/registry/")?.strip_suffix('/')?.split_once('/')?;
        match plural {
            _ if group != FLOW_CONTROL_GROUP => None,
            "flowschemas" => Some(Self::FlowSchema),
            "prioritylevelconfigurations" => Some(Self::PriorityLevel),
            _ => None,
        }
    }
}

impl FlowControl {
    /// Flow control with this number of seats and no more than the mandatory objects.
    pub(crate) fn new(total: u32, clock: Arc<dyn Clock>) -> Arc<Self> {
        let control = Self {
            total,
            clock,
            config: RwLock::default(),
            seats: Mutex::default(),
            hasher: RandomState::new(),
            changed: Notify::new(),
        };
        control.configure(&mut control.config.write());
        Arc::new(control)
    }

    /// Decides anew which FlowSchemas there are and how the seats are divided. Mandatory objects that are not there are
    /// taken for what they should be.
    fn configure(&self, config: &mut Config) {
        static MANDATORY: LazyLock<(Vec<PriorityLevel>, Vec<FlowSchema>)> = LazyLock::new(|| {
            let levels = defaults::mandatory(defaults::priority_levels());
            let schemas = defaults::mandatory(defaults::flow_schemas());
            (
                levels.map(|level| PriorityLevel::read(&level)).collect(),
                schemas.map(|schema| FlowSchema::read(&schema)).collect(),
            )
        });
        let mut levels = config.levels.clone();
        for level in &MANDATORY.0 {
            levels.entry(level.name.clone()).or_insert_with(|| level.clone());
        }
        let mut schemas = config.schemas.clone();
        for schema in &MANDATORY.1 {
            schemas.entry(schema.name.clone()).or_insert_with(|| schema.clone());
        }
        let all: Vec<_> = levels.values().cloned().collect();
        let mut seats = self.seats.lock();
        let turns = seats.configure(self.total, &all);
        let known = std::mem::take(&mut config.flows);
        let flow = |schema: FlowSchema| {
            // Without its priority level it is ignored, which its status says.
            let level = levels.get(&schema.level)?.clone();
            let same = |flow: &&Arc<Flow>| flow.schema.name == schema.name && flow.level.name == level.name;
            let counts = known.iter().find(same).map(|flow| flow.counts.clone()).unwrap_or_default();
            let id = if level.is_exempt { None } else { Some(seats.find(&level.name)?) };
            Some(Arc::new(Flow { schema, level, id, counts }))
        };
        config.flows = schemas.into_values().filter_map(flow).collect();
        config.flows.sort_by_key(|flow| flow.schema.precedence);
        drop(seats);
        wake(turns);
    }

    /// Waits until a request may be worked on, which it may until the returned seat is dropped.
    ///
    /// # Errors
    /// The rejection, where neither a seat nor a place in a queue is free, or no seat became free in time.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        who: &Identity,
        asked: &Attributes<'_>,
    ) -> Result<Seat, Rejection> {
        let (flow, arrival, turn) = self.arrive(who, asked)?;
        match (arrival, flow.id, turn) {
            (Arrival::Wait(ticket), Some(id), Some(turn)) => self.wait(flow, (id, ticket), turn).await,
            (Arrival::Reject(reason), Some(id), _) => Err(self.reject(flow, id, reason)),
            _ => Ok(self.seat(flow, None)),
        }
    }

    /// The FlowSchema of a new request, and the decision about it; for one that has to wait, what tells of its turn.
    #[allow(clippy::type_complexity)]
    fn arrive(
        &self,
        who: &Identity,
        asked: &Attributes<'_>,
    ) -> Result<(Arc<Flow>, Arrival, Option<oneshot::Receiver<()>>), Rejection> {
        // Held until the request has arrived, so that the number of its level stays its own.
        let config = self.config.read();
        let matching = config.flows.iter().find(|flow| flow.schema.matches(who, asked));
        let catch_all = || config.flows.iter().find(|flow| *flow.schema.name == *defaults::CATCH_ALL);
        let Some(flow) = matching.or_else(catch_all) else {
            let failure = Failure::internal("no FlowSchema is configured");
            return Err(Rejection { flow: None, failure });
        };
        let Some(id) = flow.id else { return Ok((flow.clone(), Arrival::Execute, None)) };
        let mut turn = None;
        let hash = || self.hasher.hash_one((&*flow.schema.name, flow.distinguisher(who, asked)));
        let wake = || {
            let (sender, receiver) = oneshot::channel();
            turn = Some(receiver);
            sender
        };
        let arrival = self.seats.lock().arrive(id, hash, wake);
        Ok((flow.clone(), arrival, turn))
    }

    async fn wait(
        self: &Arc<Self>,
        flow: Arc<Flow>,
        (id, ticket): (LevelId, Ticket),
        turn: oneshot::Receiver<()>,
    ) -> Result<Seat, Rejection> {
        let since = self.clock.monotonic();
        let mut waiting = Waiting::new(self, &flow, id, ticket);
        let has_seat = tokio::select! {
            biased;
            _ = turn => true,
            // Unless it had its turn at this very moment.
            () = self.clock.sleep(LONGEST_WAIT) => !waiting.cancel(),
        };
        waiting.ended = true;
        drop(waiting);
        let now = self.clock.monotonic();
        flow.counts.waited(now.saturating_sub(since), has_seat);
        if has_seat {
            return Ok(self.seat(flow, Some((ticket.queue, now))));
        }
        Err(self.reject(flow, id, Reason::TimeOut))
    }

    fn seat(self: &Arc<Self>, flow: Arc<Flow>, waited: Option<(u32, Duration)>) -> Seat {
        flow.counts.started();
        Seat { control: self.clone(), flow, waited }
    }

    fn reject(&self, flow: Arc<Flow>, id: LevelId, reason: Reason) -> Rejection {
        flow.counts.rejected(reason);
        let retry_after = self.seats.lock().rejected(id, self.clock.monotonic().as_secs());
        Rejection { flow: Some(flow), failure: Failure::too_many_requests(retry_after) }
    }

    fn leave(&self, id: LevelId, waited: Option<(u32, Duration)>) {
        let waited = waited.map(|(queue, since)| (queue, self.clock.monotonic().saturating_sub(since)));
        let turns = self.seats.lock().leave(id, waited);
        wake(turns);
    }
}

/// Wakes requests whose turn it is. One that has gone meanwhile has given its seat on itself.
fn wake(turns: Vec<Waker>) {
    turns.into_iter().for_each(|turn| _ = turn.send(()));
}

/// A request that may be worked on; its seat is free again when this is dropped.
pub(crate) struct Seat {
    control: Arc<FlowControl>,
    flow: Arc<Flow>,
    /// The queue in which it has waited, and when it was its turn.
    waited: Option<(u32, Duration)>,
}

impl Seat {
    /// Tells a client which FlowSchema and priority level its request was assigned to.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        self.flow.mark(headers);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.flow.counts.ended();
        if let Some(id) = self.flow.id {
            self.control.leave(id, self.waited);
        }
    }
}

/// A request that is not worked on.
pub(crate) struct Rejection {
    flow: Option<Arc<Flow>>,
    /// The response.
    pub(crate) failure: Failure,
}

impl Rejection {
    /// Tells a client which FlowSchema and priority level its request was assigned to.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        if let Some(flow) = &self.flow {
            flow.mark(headers);
        }
    }
}

/// A request in a queue. Dropped before its end, it leaves the queue, or gives the seat on that it was just given.
struct Waiting<'a> {
    control: &'a FlowControl,
    flow: &'a Flow,
    id: LevelId,
    ticket: Ticket,
    ended: bool,
}

impl<'a> Waiting<'a> {
    fn new(control: &'a FlowControl, flow: &'a Flow, id: LevelId, ticket: Ticket) -> Self {
        flow.counts.queued();
        Self { control, flow, id, ticket, ended: false }
    }

    /// Leaves the queue; `false` where the request has a seat by now.
    fn cancel(&mut self) -> bool {
        self.control.seats.lock().cancel(self.id, self.ticket)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.flow.counts.unqueued();
        if self.ended {
            return;
        }
        self.flow.counts.rejected(Reason::Cancelled);
        if !self.cancel() {
            self.control.leave(self.id, Some((self.ticket.queue, self.control.clock.monotonic())));
        }
    }
}

impl Observer for FlowControl {
    fn observes(&self, prefix: &str) -> bool {
        Kind::of_prefix(prefix).is_some()
    }

    fn loaded(&self, prefix: &str, objects: &BTreeMap<Box<str>, Arc<Object>>) {
        let Some(kind) = Kind::of_prefix(prefix) else { return };
        let mut config = self.config.write();
        match kind {
            Kind::FlowSchema => config.schemas.clear(),
            Kind::PriorityLevel => config.levels.clear(),
        }
        for (name, object) in objects {
            config.set(kind, name, Some(object));
        }
        self.configure(&mut config);
        self.changed.notify_one();
    }

    fn changed(&self, prefix: &str, place: &str, object: Option<&Object>) {
        let Some(kind) = Kind::of_prefix(prefix) else { return };
        let mut config = self.config.write();
        config.set(kind, place, object);
        self.configure(&mut config);
        self.changed.notify_one();
    }
}

impl Config {
    fn set(&mut self, kind: Kind, name: &str, object: Option<&Object>) {
        let value = object.map(Object::value);
        match (kind, value) {
            (Kind::FlowSchema, Some(value)) => _ = self.schemas.insert(name.into(), FlowSchema::read(&value)),
            (Kind::FlowSchema, None) => _ = self.schemas.remove(name),
            (Kind::PriorityLevel, Some(value)) => {
                _ = self.levels.insert(name.into(), PriorityLevel::read(&value))
            }
            (Kind::PriorityLevel, None) => _ = self.levels.remove(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use serde_json::{Value, json};
    use yado_types::clock::ManualClock;

    use super::*;
    use crate::rbac::Target;

    const PODS: Attributes<'static> = Attributes {
        verb: "list",
        target: Target::Resource { namespace: "a", group: "", resource: "pods", subresource: "", name: "" },
    };

    fn object(value: Value) -> Arc<Object> {
        Arc::new(Object::unwritten(value, 1))
    }

    /// Flow control with one seat for everybody but the masters, and room for one waiting request of each flow.
    fn narrow(clock: &ManualClock) -> Arc<FlowControl> {
        let control = FlowControl::new(1, Arc::new(clock.clone()));
        let set = |plural: &str, value: Value| {
            let prefix = format!("/registry/{FLOW_CONTROL_GROUP}/{plural}/");
            assert!(control.observes(&prefix));
            let name = value["metadata"]["name"].as_str().expect("a name").to_owned();
            control.changed(&prefix, &name, Some(&object(value)));
        };
        set(
            "prioritylevelconfigurations",
            json!({"metadata": {"name": "narrow", "uid": "p"}, "spec": {"type": "Limited", "limited": {
                "nominalConcurrencyShares": 1000, "borrowingLimitPercent": 0, "limitResponse": {"type": "Queue",
                "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 1}},
            }}}),
        );
        set(
            "flowschemas",
            json!({"metadata": {"name": "narrow", "uid": "f"}, "spec": {
                "matchingPrecedence": 50, "priorityLevelConfiguration": {"name": "narrow"}, "rules": [{
                    "subjects": [{"kind": "User", "user": {"name": "*"}}],
                    "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}],
                }],
            }}),
        );
        control
    }

    fn executing(control: &FlowControl) -> Vec<(String, u32, usize)> {
        let seats = control.seats.lock();
        let all = seats.levels().map(|level| (level.name.to_string(), level.executing, level.waiting()));
        all.filter(|(_, executing, waiting)| executing + *waiting as u32 > 0).collect()
    }

    #[tokio::test]
    async fn requests_wait_for_a_seat_and_are_rejected_in_the_end() {
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().expect("a time"));
        let control = narrow(&clock);
        let jane = Identity::new("jane", ["x"]);
        let first = control.admit(&jane, &PODS).await.ok().expect("a seat is free");
        let mut headers = HeaderMap::new();
        first.mark(&mut headers);
        assert_eq!(headers[FLOW_SCHEMA_UID], "f");
        assert_eq!(headers[PRIORITY_LEVEL_UID], "p");
        // The second one waits, for the third there is no room.
        let mut second = Box::pin(control.admit(&jane, &PODS));
        assert!((&mut second).now_or_never().is_none());
        let third = control.admit(&jane, &PODS).await.err().expect("the queue is full");
        assert_eq!((third.failure.code, third.failure.reason), (429, "TooManyRequests"));
        // Masters never wait, and a path is another FlowSchema's.
        assert!(control.admit(&Identity::new("root", [crate::identity::MASTERS]), &PODS).await.is_ok());
        assert!(
            control.admit(&jane, &Attributes { verb: "get", target: Target::Path("/api") }).await.is_ok()
        );
        drop(first);
        let second = second.await.ok().expect("its turn");
        // One waits too long, one is given up, and one is given up in the moment of its turn.
        let mut late = Box::pin(control.admit(&jane, &PODS));
        assert!((&mut late).now_or_never().is_none());
        clock.advance(LONGEST_WAIT);
        assert_eq!(late.await.err().expect("it waited too long").failure.code, 429);
        let mut given_up = Box::pin(control.admit(&jane, &PODS));
        assert!((&mut given_up).now_or_never().is_none());
        drop(given_up);
        assert_eq!(executing(&control), [("narrow".to_owned(), 1, 0)]);
        let mut woken = Box::pin(control.admit(&jane, &PODS));
        assert!((&mut woken).now_or_never().is_none());
        drop(second);
        drop(woken);
        assert_eq!(executing(&control), []);
        let text = control.metrics_text();
        for expect in [
            "rejected_requests_total{flow_schema=\"narrow\",priority_level=\"narrow\",reason=\"queue-full\"} 1\n",
            "rejected_requests_total{flow_schema=\"narrow\",priority_level=\"narrow\",reason=\"time-out\"} 1\n",
            "rejected_requests_total{flow_schema=\"narrow\",priority_level=\"narrow\",reason=\"cancelled\"} 2\n",
            "dispatched_requests_total{flow_schema=\"narrow\",priority_level=\"narrow\"} 2\n",
            "dispatched_requests_total{flow_schema=\"exempt\",priority_level=\"exempt\"} 1\n",
            "current_executing_requests{flow_schema=\"narrow\",priority_level=\"narrow\"} 0\n",
            "current_inqueue_requests{flow_schema=\"narrow\",priority_level=\"narrow\"} 0\n",
            "wait_duration_seconds_count{execute=\"true\",flow_schema=\"narrow\",priority_level=\"narrow\"} 2\n",
            "wait_duration_seconds_count{execute=\"false\",flow_schema=\"narrow\",priority_level=\"narrow\"} 1\n",
            "nominal_limit_seats{priority_level=\"narrow\"} 1\n",
        ] {
            assert!(text.contains(expect), "{expect} is not in\n{text}");
        }
    }

    #[tokio::test]
    async fn a_schema_without_its_level_is_ignored() {
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().expect("a time"));
        let control = narrow(&clock);
        let prefix = format!("/registry/{FLOW_CONTROL_GROUP}/prioritylevelconfigurations/");
        let jane = Identity::new("jane", ["x"]);
        let held = control.admit(&jane, &PODS).await.ok().expect("a seat is free");
        control.changed(&prefix, "narrow", None);
        let other = control.admit(&jane, &PODS).await.ok().expect("a seat is free");
        assert_eq!(&*other.flow.schema.name, defaults::CATCH_ALL);
        drop(held);
        assert_eq!(executing(&control), [(defaults::CATCH_ALL.to_owned(), 1, 0)]);
    }
}
