//! `/metrics`: what the server does, counted, in the text format of Prometheus and under the names of kube-apiserver.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::StatusCode;
use parking_lot::Mutex;

use crate::audit::Audit;
use crate::content::Body;
use crate::request::{ApiRequest, PatchKind, Request, Verb};
use crate::resource::{Resource, Subresource};
use crate::schema::Name;
use crate::server::Inner;

/// `Content-Type` of the answer.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of the durations in a bucket, in seconds. As in Kubernetes.
const BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

/// Labels of a request. All parts are of fixed sets, so that no client can make more series than there are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Labels {
    verb: &'static str,
    group: Name,
    version: Name,
    resource: Name,
    /// The path of a request that is about no resource.
    subresource: &'static str,
    scope: &'static str,
    dry_run: bool,
}

impl Labels {
    /// Those of a request that was refused before it was understood.
    pub(crate) const UNKNOWN: Self = Self {
        verb: "",
        group: Name::Borrowed(""),
        version: Name::Borrowed(""),
        resource: Name::Borrowed(""),
        subresource: "",
        scope: "",
        dry_run: false,
    };

    /// Those of a request.
    pub(crate) fn of(request: &Request) -> Self {
        let r = match request {
            Request::Server(asked) => {
                return Self { verb: "GET", subresource: asked.path(), ..Self::UNKNOWN };
            }
            Request::Aggregated(_) => {
                return Self { verb: "CONNECT", subresource: "/apis/GROUP/VERSION", ..Self::UNKNOWN };
            }
            Request::Api(r) => r,
        };
        // What is created is one object, as Kubernetes counts it.
        let one = !r.name.is_empty() || matches!(r.verb, Verb::Create(_));
        let scope = match r.namespace.is_empty() {
            _ if one => "resource",
            false => "namespace",
            true => "cluster",
        };
        Self {
            verb: verb(r),
            group: r.resource.group.clone(),
            version: r.resource.version.clone(),
            resource: r.resource.plural.clone(),
            subresource: r.subresource.map_or("", Subresource::name),
            scope,
            dry_run: r.verb.is_dry_run(),
        }
    }

    fn is_long(&self) -> bool {
        matches!(self.verb, "WATCH" | "CONNECT")
    }

    fn is_mutating(&self) -> bool {
        matches!(self.verb, "POST" | "PUT" | "PATCH" | "APPLY" | "DELETE" | "DELETECOLLECTION")
    }

    /// The labels as text, in the order of their names.
    fn text(&self) -> String {
        format!(
            "component=\"apiserver\",dry_run=\"{}\",group=\"{}\",resource=\"{}\",scope=\"{}\",subresource=\"{}\",\
             verb=\"{}\",version=\"{}\"",
            if self.dry_run { "All" } else { "" },
            self.group,
            self.resource,
            self.scope,
            self.subresource,
            self.verb,
            self.version,
        )
    }
}

fn verb(r: &ApiRequest) -> &'static str {
    match &r.verb {
        Verb::Get { .. } => "GET",
        Verb::List(_) => "LIST",
        Verb::Watch(_) => "WATCH",
        Verb::Create(_) => "POST",
        Verb::Update(_) => "PUT",
        Verb::Patch(PatchKind::Apply, _) => "APPLY",
        Verb::Patch(..) => "PATCH",
        Verb::Delete(_) => "DELETE",
        Verb::DeleteCollection(..) => "DELETECOLLECTION",
        Verb::Connect(_) | Verb::Proxy(_) => "CONNECT",
    }
}

/// Requests with the same labels.
#[derive(Clone, Debug, Default)]
struct Series {
    /// Answers by their status code.
    codes: Vec<(u16, u64)>,
    /// Answers by their duration: one count for each of [`BUCKETS`], and one for those that took longer.
    buckets: [u64; BUCKETS.len() + 1],
    /// All durations together.
    seconds: f64,
    /// Requests that are being answered.
    running: u64,
}

/// Counters of requests.
#[derive(Default)]
pub(crate) struct Metrics {
    series: Mutex<HashMap<Labels, Series>>,
}

impl Metrics {
    /// A request begins; it ends when what is returned is dropped, unless [`Running::end`] is called first.
    pub(crate) fn begin(self: &Arc<Self>, labels: Labels) -> Running {
        self.series.lock().entry(labels.clone()).or_default().running += 1;
        Running { metrics: self.clone(), labels }
    }

    /// Counts a request that was refused before it was understood.
    pub(crate) fn refused(&self, code: u16) {
        count(&mut self.series.lock().entry(Labels::UNKNOWN).or_default().codes, code);
    }
}

fn count(codes: &mut Vec<(u16, u64)>, code: u16) {
    match codes.iter_mut().find(|(known, _)| *known == code) {
        Some((_, count)) => *count += 1,
        None => codes.push((code, 1)),
    }
}

/// A request that is being answered.
pub(crate) struct Running {
    metrics: Arc<Metrics>,
    labels: Labels,
}

impl Running {
    /// Counts the answer. A watch goes on until its stream ends.
    pub(crate) fn end(self, code: StatusCode, took: Duration, body: Body) -> Body {
        {
            let mut all = self.metrics.series.lock();
            let series = all.entry(self.labels.clone()).or_default();
            count(&mut series.codes, code.as_u16());
            if !self.labels.is_long() {
                let seconds = took.as_secs_f64();
                series.buckets[BUCKETS.partition_point(|bound| *bound < seconds)] += 1;
                series.seconds += seconds;
            }
        }
        match body {
            Body::Stream(stream) if self.labels.is_long() => Body::Stream(
                stream
                    .map(move |part| {
                        let _running = &self;
                        part
                    })
                    .boxed(),
            ),
            other => other,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(series) = self.metrics.series.lock().get_mut(&self.labels) {
            series.running -= 1;
        }
    }
}

impl Inner {
    /// All metrics as text.
    pub(crate) fn metrics_text(&self) -> String {
        let mut series: Vec<(Labels, Series)> = {
            let all = self.metrics.series.lock();
            all.iter().map(|(labels, series)| (labels.clone(), series.clone())).collect()
        };
        series.sort_by_cached_key(|(labels, _)| labels.text());
        let mut out = String::new();
        requests(&mut out, &series);
        self.objects(&mut out);
        out.push_str(&self.flow_control.metrics_text());
        out.extend(self.config.audit.iter().map(Audit::metrics_text));
        process(&mut out);
        out
    }

    fn objects(&self, out: &mut String) {
        let served = self.registry.current();
        let mut sizes: Vec<(&Resource, (usize, usize))> = Vec::new();
        for r in served.iter().filter(|r| r.is_stored() && r.form.is_none()) {
            // Versions of one resource share their objects.
            if sizes.iter().all(|(other, _)| other.prefix != r.prefix)
                && let Some(collection) = self.cache.collection(r)
            {
                sizes.push((r, collection.size()));
            }
        }
        head(out, "apiserver_storage_objects", "gauge", "Number of stored objects of a resource.");
        for (r, (count, _)) in &sizes {
            line(out, "apiserver_storage_objects", &format!("resource=\"{}\"", r.qualified()), *count as f64);
        }
        let name = "apiserver_resource_size_estimate_bytes";
        head(out, name, "gauge", "Size of a resource's stored objects as JSON.");
        for (r, (_, bytes)) in &sizes {
            let labels = format!("group=\"{}\",resource=\"{}\"", r.group, r.plural);
            line(out, name, &labels, *bytes as f64);
        }
    }
}

pub(crate) fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

pub(crate) fn line(out: &mut String, name: &str, labels: &str, value: f64) {
    let braces = if labels.is_empty() { ("", "") } else { ("{", "}") };
    let _ = writeln!(out, "{name}{}{labels}{} {value}", braces.0, braces.1);
}

fn requests(out: &mut String, series: &[(Labels, Series)]) {
    let name = "apiserver_request_total";
    head(out, name, "counter", "Requests that were answered, by verb, resource and status code.");
    for (labels, of) in series {
        for (code, count) in &of.codes {
            line(out, name, &format!("code=\"{code}\",{}", labels.text()), *count as f64);
        }
    }
    let name = "apiserver_request_duration_seconds";
    head(
        out,
        name,
        "histogram",
        "Time until a request was answered; watches and streams are not among them.",
    );
    for (labels, of) in series.iter().filter(|(labels, _)| !labels.is_long() && *labels != Labels::UNKNOWN) {
        let labels = labels.text();
        let mut total = 0;
        for (bucket, count) in of.buckets.iter().enumerate() {
            total += count;
            let bound = BUCKETS.get(bucket).map_or("+Inf".to_owned(), f64::to_string);
            line(out, &format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), total as f64);
        }
        line(out, &format!("{name}_sum"), &labels, of.seconds);
        line(out, &format!("{name}_count"), &labels, total as f64);
    }
    let name = "apiserver_current_inflight_requests";
    head(out, name, "gauge", "Requests that are being answered, without watches and streams.");
    for (kind, mutating) in [("mutating", true), ("readOnly", false)] {
        let of_kind = series.iter().filter(|(l, _)| !l.is_long() && l.is_mutating() == mutating);
        let running: u64 = of_kind.map(|(_, of)| of.running).sum();
        line(out, name, &format!("request_kind=\"{kind}\""), running as f64);
    }
    let name = "apiserver_longrunning_requests";
    head(out, name, "gauge", "Watches and streams that are open.");
    for (labels, of) in series.iter().filter(|(labels, _)| labels.is_long()) {
        line(out, name, &labels.text(), of.running as f64);
    }
}

/// The process metrics of Prometheus' client libraries; none where `/proc` cannot be read.
fn process(out: &mut String) {
    /// `USER_HZ`, which is the same on every architecture of Linux.
    const TICKS: f64 = 100.0;
    const PAGE: f64 = 4096.0;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    // The name in parentheses may hold anything; fields are counted from behind it (`proc_pid_stat(5)`).
    let stat = read("/proc/self/stat");
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    let field = |number: usize| fields.get(number - 3).copied();
    let booted = read("/proc/stat");
    let booted = booted.lines().find_map(|l| l.strip_prefix("btime ")?.parse::<f64>().ok());
    let descriptors = std::fs::read_dir("/proc/self/fd").ok().map(|d| d.count() as f64);
    let cpu = field(14).zip(field(15)).map(|(user, system)| (user + system) / TICKS);
    let start = field(22).zip(booted).map(|(ticks, boot)| boot + ticks / TICKS);
    for (name, kind, help, value) in [
        ("process_cpu_seconds_total", "counter", "Processor time of the process, in seconds.", cpu),
        ("process_open_fds", "gauge", "Open file descriptors.", descriptors),
        ("process_resident_memory_bytes", "gauge", "Resident memory, in bytes.", field(24).map(|p| p * PAGE)),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory, in bytes.", field(23)),
        ("process_start_time_seconds", "gauge", "Start of the process, in seconds since 1970.", start),
    ] {
        if let Some(value) = value {
            head(out, name, kind, help);
            line(out, name, "", value);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;
    use crate::resource::BUILT_IN;

    #[test]
    fn requests_are_counted_by_what_they_ask_for() {
        let metrics = Arc::new(Metrics::default());
        for (method, path, query, code, took) in [
            (Method::GET, "/api/v1/namespaces/d/pods/p", None, 200, 1),
            (Method::GET, "/api/v1/namespaces/d/pods/p", None, 404, 100),
            (Method::GET, "/api/v1/namespaces/d/pods/p", None, 200, 70_000),
            (Method::DELETE, "/apis/apps/v1/namespaces/d/deployments/x", Some("dryRun=All"), 200, 5),
            (Method::GET, "/healthz", None, 200, 0),
            (Method::GET, "/api/v1/pods", Some("watch=1"), 200, 1),
        ] {
            let request = Request::parse(&BUILT_IN, &method, path, query, &HeaderMap::new()).expect(path);
            let running = metrics.begin(Labels::of(&request));
            let code = StatusCode::from_u16(code).expect("a code");
            let body = running.end(code, Duration::from_millis(took), Body::empty());
            assert!(body.is_empty());
        }
        metrics.refused(401);
        let watch =
            Request::parse(&BUILT_IN, &Method::GET, "/api/v1/pods", Some("watch=1"), &HeaderMap::new());
        let running = metrics.begin(Labels::of(&watch.expect("a watch")));
        let stream = Body::Stream(futures::stream::pending().boxed());
        let open = running.end(StatusCode::OK, Duration::ZERO, stream);
        let text = || {
            let mut out = String::new();
            let mut series: Vec<_> =
                metrics.series.lock().iter().map(|(l, s)| (l.clone(), s.clone())).collect();
            series.sort_by_cached_key(|(labels, _)| labels.text());
            requests(&mut out, &series);
            out
        };
        let get = "component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"pods\",scope=\"resource\",subresource=\"\",\
                   verb=\"GET\",version=\"v1\"";
        let shown = text();
        for expect in [
            &format!("apiserver_request_total{{code=\"200\",{get}}} 2\n"),
            &format!("apiserver_request_total{{code=\"404\",{get}}} 1\n"),
            &format!("apiserver_request_duration_seconds_bucket{{{get},le=\"0.005\"}} 1\n"),
            &format!("apiserver_request_duration_seconds_bucket{{{get},le=\"0.1\"}} 2\n"),
            &format!("apiserver_request_duration_seconds_bucket{{{get},le=\"60\"}} 2\n"),
            &format!("apiserver_request_duration_seconds_bucket{{{get},le=\"+Inf\"}} 3\n"),
            &format!("apiserver_request_duration_seconds_count{{{get}}} 3\n"),
            "dry_run=\"All\",group=\"apps\",resource=\"deployments\",scope=\"resource\",subresource=\"\",verb=\"DELETE\"",
            "subresource=\"/healthz\",verb=\"GET\"",
            "apiserver_request_total{code=\"401\"",
            "apiserver_current_inflight_requests{request_kind=\"mutating\"} 0\n",
            "resource=\"pods\",scope=\"cluster\",subresource=\"\",verb=\"WATCH\",version=\"v1\"} 1\n",
        ] {
            assert!(shown.contains(expect), "{expect} is not in\n{shown}");
        }
        drop(open);
        assert!(text().contains("verb=\"WATCH\",version=\"v1\"} 0\n"), "{}", text());
    }
}
