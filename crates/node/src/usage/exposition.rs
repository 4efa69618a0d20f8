//! `/metrics/resource` and `/metrics/cadvisor` in Prometheus' text format, under the names that dashboards know.

use std::fmt::{Display, Write};

use jiff::Timestamp;

use super::{ContainerSample, Measured, PodSample, Sample, Traffic};

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics with their rows.
#[derive(Default)]
struct Text {
    out: String,
    /// Milliseconds since 1970, which each row bears.
    at: i64,
}

impl Text {
    fn new(sample: &Sample) -> Self {
        Self { out: String::new(), at: sample.at.as_millisecond() }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to memory does not fail.
        let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn row(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.out.push_str(name);
        for (i, (label, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.out, "{}{label}=\"{value}\"", if i == 0 { '{' } else { ',' });
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.out, "{end} {value} {}", self.at);
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn since_1970(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1e3
}

/// `/metrics/resource`: what a metrics server needs.
pub(crate) fn resource(sample: &Sample) -> String {
    let mut text = Text::new(sample);
    let mut metric = |name: &str, kind: &str, help: &str, of: fn(&Measured) -> f64| {
        let (scope, _) = name.split_once('_').unwrap_or((name, ""));
        text.head(name, kind, help);
        match scope {
            "node" => text.row(name, &[], of(&sample.node.measured)),
            "pod" => sample.pods.iter().for_each(|pod| {
                text.row(name, &[("namespace", &pod.namespace), ("pod", &pod.name)], of(&pod.measured));
            }),
            _ => containers(sample).for_each(|(pod, container)| {
                let labels =
                    [("container", &*container.name), ("namespace", &pod.namespace), ("pod", &pod.name)];
                text.row(name, &labels, of(&container.measured));
            }),
        }
    };
    let cpu = "Processor time used, in seconds of one core.";
    let memory = "Memory that cannot be given back at once, in bytes.";
    for scope in ["container", "node", "pod"] {
        metric(&format!("{scope}_cpu_usage_seconds_total"), "counter", cpu, |m| seconds(m.usage.cpu_ns));
        metric(&format!("{scope}_memory_working_set_bytes"), "gauge", memory, |m| m.usage.working_set as f64);
    }
    let start = "Start of the container, in seconds since 1970.";
    metric("container_start_time_seconds", "gauge", start, |m| since_1970(m.started));
    text.out.push_str("# HELP resource_scrape_error 1 where the figures could not be read.\n");
    text.out.push_str("# TYPE resource_scrape_error gauge\nresource_scrape_error 0\n");
    text.out
}

fn containers(sample: &Sample) -> impl Iterator<Item = (&PodSample, &ContainerSample)> {
    sample.pods.iter().flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)))
}

/// A row's labels: container, id, image, name, namespace and Pod, as cAdvisor has them.
type Labels = [(&'static str, String); 6];

/// A group of processes with its labels.
struct Group<'a> {
    labels: Labels,
    measured: &'a Measured,
    cpu_quota: Option<(i64, u64)>,
}

fn labels(of: [&str; 6]) -> Labels {
    let mut values = of.into_iter().map(str::to_owned);
    ["container", "id", "image", "name", "namespace", "pod"]
        .map(|name| (name, values.next().unwrap_or_default()))
}

fn groups(sample: &Sample) -> Vec<Group<'_>> {
    let root = labels(["", "/", "", "", "", ""]);
    let mut groups = vec![Group { labels: root, measured: &sample.node.measured, cpu_quota: None }];
    for pod in &sample.pods {
        let id = format!("/pods/{}", pod.uid);
        let own = labels(["", &id, "", "", &pod.namespace, &pod.name]);
        groups.push(Group { labels: own, measured: &pod.measured, cpu_quota: None });
        for c in &pod.containers {
            let (id, name) = (format!("{id}/{}", c.run), format!("{}-{}", pod.uid, c.run));
            let own = labels([&c.name, &id, &c.image, &name, &pod.namespace, &pod.name]);
            groups.push(Group { labels: own, measured: &c.measured, cpu_quota: c.cpu_quota });
        }
    }
    groups
}

/// A metric of groups of processes: name, type, help, what of a group is its value if it has one, a further label.
type Metric =
    (&'static str, &'static str, &'static str, fn(&Group<'_>) -> Option<f64>, (&'static str, &'static str));

const METRICS: &[Metric] = &[
    (
        "container_cpu_usage_seconds_total",
        "counter",
        "Processor time used, in seconds of one core.",
        |g| Some(seconds(g.measured.usage.cpu_ns)),
        ("cpu", "total"),
    ),
    (
        "container_cpu_cfs_periods_total",
        "counter",
        "Periods of the processor limit that have passed.",
        |g| g.cpu_quota.map(|_| g.measured.usage.throttling.0 as f64),
        ("", ""),
    ),
    (
        "container_cpu_cfs_throttled_periods_total",
        "counter",
        "Periods in which the processor limit was reached.",
        |g| g.cpu_quota.map(|_| g.measured.usage.throttling.1 as f64),
        ("", ""),
    ),
    (
        "container_cpu_cfs_throttled_seconds_total",
        "counter",
        "Time lost to the processor limit, in seconds.",
        |g| g.cpu_quota.map(|_| seconds(g.measured.usage.throttling.2)),
        ("", ""),
    ),
    (
        "container_memory_usage_bytes",
        "gauge",
        "Memory, pages of files included, in bytes.",
        |g| Some(g.measured.usage.memory as f64),
        ("", ""),
    ),
    (
        "container_memory_working_set_bytes",
        "gauge",
        "Memory that cannot be given back at once, in bytes.",
        |g| Some(g.measured.usage.working_set as f64),
        ("", ""),
    ),
    (
        "container_memory_rss",
        "gauge",
        "Memory that no file backs, in bytes.",
        |g| Some(g.measured.usage.anonymous as f64),
        ("", ""),
    ),
    (
        "container_memory_cache",
        "gauge",
        "Memory that holds pages of files, in bytes.",
        |g| Some(g.measured.usage.file as f64),
        ("", ""),
    ),
    (
        "container_memory_failures_total",
        "counter",
        "Faults of pages.",
        |g| Some(g.measured.usage.page_faults as f64),
        ("failure_type", "pgfault"),
    ),
    (
        "container_memory_failures_total",
        "",
        "",
        |g| Some(g.measured.usage.major_page_faults as f64),
        ("failure_type", "pgmajfault"),
    ),
    (
        "container_oom_events_total",
        "counter",
        "Processes that were killed for want of memory.",
        |g| Some(g.measured.usage.oom_kills as f64),
        ("", ""),
    ),
    (
        "container_spec_memory_limit_bytes",
        "gauge",
        "Limit of memory, in bytes; 0 where there is none.",
        |g| Some(g.measured.memory_limit.unwrap_or(0) as f64),
        ("", ""),
    ),
    (
        "container_spec_cpu_period",
        "gauge",
        "Period of the processor limit, in microseconds.",
        |g| g.cpu_quota.map(|(_, period)| period as f64),
        ("", ""),
    ),
    (
        "container_spec_cpu_quota",
        "gauge",
        "Processor time in each period, in microseconds.",
        |g| g.cpu_quota.map(|(quota, _)| quota as f64),
        ("", ""),
    ),
    (
        "container_start_time_seconds",
        "gauge",
        "Start, in seconds since 1970.",
        |g| Some(since_1970(g.measured.started)),
        ("", ""),
    ),
];

/// `/metrics/cadvisor`: each container, each Pod (with an empty `container`) and the machine (`id="/"`).
pub(crate) fn cadvisor(sample: &Sample) -> String {
    let mut text = Text::new(sample);
    let groups = groups(sample);
    for (name, kind, help, value, further) in METRICS {
        if !kind.is_empty() {
            text.head(name, kind, help);
        }
        for group in &groups {
            let Some(value) = value(group) else { continue };
            let further = Some(*further).filter(|(label, _)| !label.is_empty());
            let own = group.labels.iter().map(|(label, value)| (*label, value.as_str()));
            let all: Vec<(&str, &str)> = own.chain(further).collect();
            text.row(name, &all, value);
        }
    }
    network(&mut text, sample);
    text.head("machine_cpu_cores", "gauge", "Cores of the machine.");
    text.row("machine_cpu_cores", &[], sample.node.cores);
    text.head("machine_memory_bytes", "gauge", "Memory of the machine, in bytes.");
    text.row("machine_memory_bytes", &[], sample.node.memory);
    text.out
}

/// One number of the traffic in a direction.
type Figure = fn(&Traffic) -> u64;

fn network(text: &mut Text, sample: &Sample) {
    let figures: [(&str, Figure); 4] = [
        ("bytes", |t| t.bytes),
        ("packets", |t| t.packets),
        ("errors", |t| t.errors),
        ("packets_dropped", |t| t.dropped),
    ];
    for direction in ["receive", "transmit"] {
        for (figure, of) in figures {
            let name = format!("container_network_{direction}_{figure}_total");
            text.head(&name, "counter", "Traffic of a network device.");
            let mut rows = |id: &str, namespace: &str, pod: &str, interfaces: &[super::Interface]| {
                for device in interfaces {
                    let traffic = if direction == "receive" { &device.received } else { &device.sent };
                    let labels = [
                        ("container", ""),
                        ("id", id),
                        ("image", ""),
                        ("interface", &*device.name),
                        ("name", ""),
                        ("namespace", namespace),
                        ("pod", pod),
                    ];
                    text.row(&name, &labels, of(traffic));
                }
            };
            rows("/", "", "", &sample.node.interfaces);
            for pod in &sample.pods {
                rows(&format!("/pods/{}", pod.uid), &pod.namespace, &pod.name, &pod.interfaces);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::tests::sample;

    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
    }

    #[test]
    fn the_figures_that_metrics_servers_read() {
        let text = resource(&sample());
        for line in [
            "# TYPE container_cpu_usage_seconds_total counter",
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"d\",pod=\"p\"} 2.5 1700000100000",
            "container_memory_working_set_bytes{container=\"c\",namespace=\"d\",pod=\"p\"} 3000 1700000100000",
            "container_start_time_seconds{container=\"c\",namespace=\"d\",pod=\"p\"} 1700000000 1700000100000",
            "node_cpu_usage_seconds_total 2.5 1700000100000",
            "pod_memory_working_set_bytes{namespace=\"d\",pod=\"p\"} 3000 1700000100000",
            "resource_scrape_error 0",
        ] {
            has(&text, line);
        }
    }

    #[test]
    fn the_names_that_dashboards_know() {
        let mut sample = sample();
        sample.pods[0].containers[0].image = "a\"b\\c".into();
        let text = cadvisor(&sample);
        let container = "container=\"c\",id=\"/pods/u/c-0\",image=\"a\\\"b\\\\c\",name=\"u-c-0\",namespace=\"d\",pod=\"p\"";
        let pod = "container=\"\",id=\"/pods/u\",image=\"\",name=\"\",namespace=\"d\",pod=\"p\"";
        for line in [
            format!("container_cpu_usage_seconds_total{{{container},cpu=\"total\"}} 2.5 1700000100000"),
            format!("container_memory_rss{{{container}}} 2000 1700000100000"),
            format!("container_memory_failures_total{{{container},failure_type=\"pgmajfault\"}} 1 1700000100000"),
            format!("container_cpu_cfs_throttled_seconds_total{{{container}}} 0.5 1700000100000"),
            format!("container_spec_cpu_quota{{{container}}} 50000 1700000100000"),
            format!("container_memory_working_set_bytes{{{pod}}} 3000 1700000100000"),
            "container_network_transmit_bytes_total{container=\"\",id=\"/pods/u\",image=\"\",interface=\"eth0\",name=\"\",namespace=\"d\",pod=\"p\"} 200 1700000100000".into(),
            "container_network_receive_packets_dropped_total{container=\"\",id=\"/\",image=\"\",interface=\"ens3\",name=\"\",namespace=\"\",pod=\"\"} 1 1700000100000".into(),
            "machine_cpu_cores 2 1700000100000".into(),
        ] {
            has(&text, &line);
        }
        // Each metric is described once, before its rows.
        let mut described: Vec<&str> = text.lines().filter(|l| l.starts_with("# TYPE")).collect();
        let count = described.len();
        described.sort_unstable();
        described.dedup();
        assert_eq!(described.len(), count);
    }
}
