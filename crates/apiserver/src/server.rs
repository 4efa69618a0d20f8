//! The server itself: what it is made of, and how a request finds its way.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::Response;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use yado_store::Store;
use yado_types::clock::Clock;

use crate::admission::validating_policies;
use crate::audit::{Audit, Record};
use crate::auth::{Identity, Tokens, attributes, authenticate, authorize, impersonate};
use crate::cache::{self, Cache, Observer, feed::Feed};
use crate::content::{self, Body, BoxError, MAX_BODY};
use crate::flow_control::{self, FlowControl};
use crate::kinds::service::PREFIX_LENGTHS;
use crate::metrics::{Labels, Metrics};
use crate::node_proxy::NodeDialer;
use crate::pki::FrontProxy;
use crate::rbac::Authorizer;
use crate::request::{ApiRequest, Request, Verb};
use crate::resource::Registry;
use crate::serve::{EndWatches, GRACE};
use crate::status::{Failure, Result};
use crate::tokens::oidc::Provider;
use crate::tokens::{Issuer, Keys};
use crate::{aggregation, bootstrap, definitions, discovery, expiry, quota};

/// Requests with bodies that are worked on at once; more wait. At their largest they take 768 MiB, as they usually are
/// less than one.
const MAX_BODIES: usize = 256;
/// Bytes of a body or an object from which working on it takes long enough to hold up other requests.
const LARGE: usize = 64 << 10;
/// A body has to come within this time, so that slow senders do not take all places.
const BODY_TIME: Duration = Duration::from_secs(30);

/// Bytes of a refused request's body that are read and dropped, as Go's HTTP server does.
const MAX_DISCARDED: usize = 256 << 10;

/// Configuration of a server.
#[derive(Clone)]
pub struct Config {
    /// Range of the Services' cluster IPs, with a prefix of 8 to 30 bits.
    pub service_cidr: Ipv4Net,
    /// Ports of NodePort Services.
    pub node_ports: RangeInclusive<u16>,
    /// Bearer tokens and whose they are.
    pub tokens: Tokens,
    /// The issuer of ServiceAccount tokens. `None`: one with keys in memory, so that tokens are valid for as long as it runs.
    pub issuer: Option<Issuer>,
    /// The OpenID Connect provider by whose tokens people log in.
    pub oidc: Option<Arc<Provider>>,
    /// Where Pods reach this server: the endpoint of the `kubernetes` Service. `None`: it has none.
    pub advertise: Option<SocketAddr>,
    /// The certificate with which requests are handed on to aggregated API servers. `None`: without one.
    pub front_proxy: Option<FrontProxy>,
    /// How long Events are kept after they were last written.
    pub event_ttl: Duration,
    /// The audit log, if there is one.
    pub audit: Option<Audit>,
    /// Requests that are worked on at once, beside exempt and long-running ones: what priority levels divide.
    pub max_requests: u32,
}

impl Default for Config {
    /// Kubernetes' own defaults.
    fn default() -> Self {
        Self {
            service_cidr: Ipv4Net::new_assert([10, 96, 0, 0].into(), 16),
            node_ports: 30000..=32767,
            tokens: Tokens::default(),
            issuer: None,
            oidc: None,
            advertise: None,
            front_proxy: None,
            event_ttl: Duration::from_secs(3600),
            audit: None,
            max_requests: 600,
        }
    }
}

/// The Kubernetes API over a store: a `tower::Service`, cheap to clone. A request acts as the [`Identity`] in its
/// extensions, or as whom its bearer token belongs to.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) nodes: Arc<dyn NodeDialer>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) registry: Registry,
    pub(crate) authorizer: Arc<Authorizer>,
    pub(crate) issuer: Issuer,
    pub(crate) flow_control: Arc<FlowControl>,
    /// Watches end when it is cancelled.
    pub(crate) stop: CancellationToken,
    /// Connections, streams and the server's own loops.
    pub(crate) tasks: TaskTracker,
    pub(crate) metrics: Arc<Metrics>,
    /// Places for requests with bodies.
    bodies: Semaphore,
    /// Turns of requests with large bodies: as many as there are processors, so that the others are answered meanwhile
    /// and few of them are in memory decoded.
    large: Semaphore,
    feed: Mutex<Option<Feed>>,
}

impl ApiServer {
    /// Loads what the store holds and creates what every cluster has: its first Namespaces and the `kubernetes`
    /// Service.
    ///
    /// # Errors
    /// Where the range of Service addresses is too small or too large, or the store cannot be read or written.
    pub async fn new(
        config: Config,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        nodes: Arc<dyn NodeDialer>,
    ) -> Result<Self> {
        if !PREFIX_LENGTHS.contains(&config.service_cidr.prefix_len()) {
            return Err(Failure::internal(format!("{} cannot hold Service addresses", config.service_cidr)));
        }
        let authorizer = Arc::<Authorizer>::default();
        let flow_control = FlowControl::new(config.max_requests, clock.clone());
        let observers: Vec<Arc<dyn Observer>> = vec![authorizer.clone(), flow_control.clone()];
        let (cache, feed) = cache::start(store.clone(), observers).await?;
        let issuer = match &config.issuer {
            Some(issuer) => issuer.clone(),
            None => Issuer::new(Keys::ephemeral().map_err(Failure::internal)?),
        };
        let inner = Arc::new(Inner {
            config,
            store,
            clock,
            nodes,
            cache,
            registry: Registry::default(),
            authorizer,
            issuer,
            flow_control,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            metrics: Arc::default(),
            bodies: Semaphore::new(MAX_BODIES),
            large: Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)),
            feed: Mutex::new(Some(feed)),
        });
        let served = definitions::serve_established(&inner)?;
        bootstrap::run(&inner).await?;
        inner.tasks.spawn(definitions::run(inner.clone(), served));
        inner.tasks.spawn(validating_policies::type_check::run(inner.clone()));
        inner.tasks.spawn(aggregation::run(inner.clone()));
        inner.tasks.spawn(quota::run(inner.clone()));
        inner.tasks.spawn(flow_control::ensure::run(inner.clone()));
        inner.tasks.spawn(expiry::expire_events(inner.clone()));
        inner.tasks.spawn(expiry::forget_history(inner.clone()));
        Ok(Self { inner })
    }

    /// A client in process, which acts as `identity`: no socket, no TLS, the same rights.
    pub fn client(&self, identity: Identity) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |mut request: http::Request<kube::client::Body>| {
            let server = server.clone();
            if request.headers().contains_key(http::header::UPGRADE) {
                return server.upgrade_in_process(request, identity.clone()).boxed();
            }
            request.extensions_mut().insert(identity.clone());
            request.extensions_mut().insert(SameMachine);
            server.respond(request)
        });
        kube::Client::new(service, "default")
    }

    /// Ends watches, the server's own loops and the feed, and waits for them. The store stays open: it is its owner's.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(GRACE, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!(
                tasks = self.inner.tasks.len(),
                "streams did not end within {GRACE:?} and are left behind"
            );
        }
        let feed = self.inner.feed.lock().take();
        if let Some(mut feed) = feed {
            feed.stop().await;
        }
        if let Some(audit) = &self.inner.config.audit {
            audit.close().await;
        }
    }

    fn respond<B>(self, request: http::Request<B>) -> BoxFuture<'static, Result<Response<Body>, Infallible>>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Box::pin(async move { Ok(self.inner.handle(request).await) })
    }
}

impl<B> tower::Service<http::Request<B>> for ApiServer
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        self.clone().respond(request)
    }
}

impl Inner {
    /// Answers a request and counts the answer.
    async fn handle<B>(self: &Arc<Self>, request: http::Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (mut parts, body) = request.into_parts();
        let admitted = self.admit(&mut parts).await;
        let record = parts.extensions.get::<Arc<Record>>().cloned();
        let is_long = matches!(&admitted, Ok((_, asked)) if asked.is_long());
        let response = match admitted {
            Ok((who, asked)) => {
                let (running, begun) = (self.metrics.begin(Labels::of(&asked)), self.clock.monotonic());
                let response = self.respond_to(asked, &who, &mut parts, body).await;
                let (code, took) = (response.status(), self.clock.monotonic().saturating_sub(begun));
                response.map(|body| running.end(code, took, body))
            }
            Err(failure) => {
                self.metrics.refused(failure.code);
                self.discard(&parts.headers, body).await;
                failed(&failure, &parts).await
            }
        };
        match record {
            None => response,
            Some(record) => {
                // Only the record's own clone lives on, in the response's body.
                drop(parts);
                record.responded(response, is_long).await
            }
        }
    }

    /// Answers a request when flow control lets it through, if it is allowed.
    async fn respond_to<B>(
        self: &Arc<Self>,
        asked: Request,
        who: &Identity,
        parts: &mut http::request::Parts,
        body: B,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let attributes = attributes(&asked, &parts.method, parts.uri.path());
        let mut seat = match asked.is_stream() {
            true => None,
            false => match self.flow_control.admit(who, &attributes).await {
                Ok(seat) => Some(seat),
                Err(rejection) => {
                    self.discard(&parts.headers, body).await;
                    let mut answer = failed(&rejection.failure, parts).await;
                    rejection.mark(answer.headers_mut());
                    return answer;
                }
            },
        };
        let answer = match authorize(&self.authorizer, who, &asked, &attributes, parts) {
            Ok(()) => self.carry_out(asked, who, parts, body).await,
            Err(failure) => {
                // Nobody waits for a seat while the body of a refused request arrives.
                let mut marks = http::HeaderMap::new();
                if let Some(seat) = seat.take() {
                    seat.mark(&mut marks);
                }
                self.discard(&parts.headers, body).await;
                let mut answer = failed(&failure, parts).await;
                answer.headers_mut().extend(marks);
                return answer;
            }
        };
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(failure) => failed(&failure, parts).await,
        };
        if let Some(seat) = seat {
            seat.mark(answer.headers_mut());
        }
        answer
    }

    /// The identity that a request acts as, and what it asks for. The record of one that is logged is put into its
    /// extensions.
    async fn admit(&self, parts: &mut http::request::Parts) -> Result<(Identity, Request)> {
        let user = self.authenticate(parts);
        let served = self.registry.current();
        let asked =
            Request::parse(&served, &parts.method, parts.uri.path(), parts.uri.query(), &parts.headers);
        if let Some(audit) = &self.config.audit {
            let nobody = Identity::default();
            let record = audit.record(user.as_ref().unwrap_or(&nobody), asked.as_ref().ok(), parts);
            if let Some(record) = record {
                record.received().await;
                parts.extensions.insert(record);
            }
        }
        let who = impersonate(&self.authorizer, user?, &parts.headers)?;
        if let Some(record) = parts.extensions.get::<Arc<Record>>() {
            record.impersonated(&who);
        }
        match asked {
            Ok(asked) => Ok((who, asked)),
            // Who may see nothing is told nothing of what there is.
            Err(failure) if who.is_anonymous() => Err(Failure::denied(format!("forbidden: {failure}"))),
            Err(failure) => Err(failure),
        }
    }

    /// The identity that sent a request.
    fn authenticate(&self, parts: &http::request::Parts) -> Result<Identity> {
        let bearer = |token: &str| {
            let holder = self.holder(token, &self.issuer.audiences);
            holder.map_err(|refusal| tracing::debug!(%refusal, "a bearer token is refused")).ok()
        };
        let connection = parts.extensions.get::<Identity>();
        authenticate(&parts.headers, connection, |token| bearer(token).map(|holder| holder.identity))
    }

    async fn carry_out<B>(
        self: &Arc<Self>,
        asked: Request,
        who: &Identity,
        parts: &mut http::request::Parts,
        body: B,
    ) -> Result<Response<Body>>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let r = match asked {
            Request::Server(asked) => {
                let mut response = discovery::answer(self, &asked, &parts.headers)?;
                finish(&mut response, parts).await;
                return Ok(response);
            }
            // Boxed, as few requests need what it holds.
            Request::Aggregated(asked) => {
                return match &asked.service.provider {
                    aggregation::Provider::Server(spec) => {
                        Box::pin(self.ask_aggregated(&asked.service, spec, who, parts, body)).await
                    }
                    aggregation::Provider::UsageMetrics => {
                        let mut response = Box::pin(self.usage_metrics(&asked, parts)).await?;
                        finish(&mut response, parts).await;
                        Ok(response)
                    }
                };
            }
            Request::Api(r) => r,
        };
        let mut response = match &r.verb {
            Verb::Connect(query) => Box::pin(self.connect(&r, query, who, parts)).await?,
            // Another program's answer goes on as it is.
            Verb::Proxy(asked) => return Box::pin(self.proxy(&r, asked, who, parts, body)).await,
            _ => {
                let (body, _place) = self.read(body).await?;
                let _turn = match body.len() > LARGE {
                    // The semaphore is never closed.
                    true => Some(self.large.acquire().await.map_err(Failure::internal)?),
                    false => None,
                };
                if let Some(record) = parts.extensions.get::<Arc<Record>>() {
                    record.request_body(&r.verb, parts, &body);
                }
                Box::pin(self.act(&r, who, parts, &body)).await?
            }
        };
        if let Some(warning) = r.resource.deprecation() {
            content::warn(&mut response, &[warning.into_owned()]);
        }
        if let Some(record) = parts.extensions.get::<Arc<Record>>() {
            record.response_body(response.body());
        }
        finish(&mut response, parts).await;
        Ok(response)
    }

    /// The whole body, within the limits; what is returned with it holds a place among the bodies in memory.
    async fn read<B>(&self, body: B) -> Result<(Bytes, Option<SemaphorePermit<'_>>)>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if body.is_end_stream() {
            return Ok((Bytes::new(), None));
        }
        // The semaphore is never closed.
        let place = self.bodies.acquire().await.map_err(Failure::internal)?;
        let whole = tokio::select! {
            whole = Limited::new(body, MAX_BODY).collect() => whole,
            () = self.clock.sleep(BODY_TIME) => {
                return Err(Failure::new(408, "Timeout", "the request's body did not come in time"));
            }
        };
        match whole {
            Ok(whole) => Ok((whole.to_bytes(), Some(place))),
            Err(error) if error.is::<LengthLimitError>() => Err(Failure::too_large(MAX_BODY)),
            Err(error) => Err(Failure::bad_request(format!("the request's body could not be read: {error}"))),
        }
    }

    /// Reads what comes of a refused request's body, within bounds. An answer that overtakes the request is lost to
    /// some clients: HTTP/1.1 then ends in a reset connection, HTTP/2 in a reset stream.
    async fn discard<B>(&self, headers: &http::HeaderMap, body: B)
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        // Whoever asks first sends nothing after a refusal; reading would say that it is welcome.
        if headers.contains_key(http::header::EXPECT) {
            return;
        }
        let mut body = pin!(Limited::new(body, MAX_DISCARDED));
        let whole = async { while let Some(Ok(_)) = body.frame().await {} };
        tokio::select! {
            () = whole => {}
            () = self.clock.sleep(BODY_TIME) => {}
        }
    }

    async fn act(
        self: &Arc<Self>,
        r: &ApiRequest,
        who: &Identity,
        parts: &http::request::Parts,
        body: &Bytes,
    ) -> Result<Response<Body>> {
        match &r.verb {
            Verb::Get { resource_version } => self.get(r, *resource_version).await,
            Verb::List(options) => self.list(r, options).await,
            Verb::Watch(options) => {
                let end = parts.extensions.get::<EndWatches>().map_or(&self.stop, |e| &e.0);
                self.watch(r, options, end.clone()).await
            }
            _ => self.write(r, who, parts, body).await,
        }
    }

    /// Whether a Namespace of that name is there.
    pub(crate) fn has_namespace(&self, name: &str) -> bool {
        crate::resource::find("", "v1", "namespaces").is_some_and(|r| self.find(r, "", name).is_ok())
    }
}

/// Brings a response into the media type and the encoding that the client takes.
async fn finish(response: &mut Response<Body>, parts: &http::request::Parts) {
    content::negotiate(response, &parts.headers).await;
    if parts.extensions.get::<SameMachine>().is_none() {
        content::compress(response, &parts.headers);
    }
}

/// The response that tells of a failure, in the form that its request asks for.
async fn failed(failure: &Failure, parts: &http::request::Parts) -> Response<Body> {
    if let Some(record) = parts.extensions.get::<Arc<Record>>() {
        record.failed(failure);
    }
    let mut response = content::failure(failure);
    content::negotiate(&mut response, &parts.headers).await;
    response
}

/// Does work whose time grows with `bytes`. Where they are many, the thread's other tasks are given to another thread
/// first, so that no request waits for it.
pub(crate) fn off_worker<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let has_others = || Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
    if bytes > LARGE && has_others() { tokio::task::block_in_place(work) } else { work() }
}

/// Marks a request from this very machine: packing its answer would cost both sides more than it saves.
#[derive(Clone, Copy, Debug)]
pub struct SameMachine;
