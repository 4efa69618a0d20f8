//! Counters of flow control, and their text for Prometheus (`apiserver_flowcontrol_*`).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::seats::Reason;
use super::{Flow, FlowControl};
use crate::metrics::{head, line};

/// Upper bounds of the waits in a bucket, in seconds. As in Kubernetes.
const BUCKETS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];

/// Counters of the requests of a FlowSchema.
#[derive(Default)]
pub(super) struct Counts {
    dispatched: AtomicU64,
    ended: AtomicU64,
    waiting: AtomicU64,
    rejected: [AtomicU64; Reason::ALL.len()],
    /// Waits that ended in the execution, and those that did not.
    waits: Mutex<[Waits; 2]>,
}

/// Durations of waits.
#[derive(Clone, Default)]
struct Waits {
    /// One count for each of [`BUCKETS`], and one for those that took longer.
    buckets: [u64; BUCKETS.len() + 1],
    seconds: f64,
}

impl Counts {
    pub(super) fn started(&self) {
        self.dispatched.fetch_add(1, Relaxed);
    }

    pub(super) fn ended(&self) {
        self.ended.fetch_add(1, Relaxed);
    }

    pub(super) fn queued(&self) {
        self.waiting.fetch_add(1, Relaxed);
    }

    pub(super) fn unqueued(&self) {
        self.waiting.fetch_sub(1, Relaxed);
    }

    pub(super) fn rejected(&self, reason: Reason) {
        if let Some(at) = Reason::ALL.iter().position(|known| *known == reason) {
            self.rejected[at].fetch_add(1, Relaxed);
        }
    }

    pub(super) fn waited(&self, took: Duration, executes: bool) {
        let seconds = took.as_secs_f64();
        let waits = &mut self.waits.lock()[usize::from(executes)];
        waits.buckets[BUCKETS.partition_point(|bound| *bound < seconds)] += 1;
        waits.seconds += seconds;
    }

    fn executing(&self) -> f64 {
        // Read in this order: what ends in between must not make it negative.
        let ended = self.ended.load(Relaxed);
        self.dispatched.load(Relaxed).saturating_sub(ended) as f64
    }
}

fn labels(flow: &Flow) -> String {
    format!("flow_schema=\"{}\",priority_level=\"{}\"", flow.schema.name, flow.level.name)
}

impl FlowControl {
    /// All metrics of flow control as text.
    pub(crate) fn metrics_text(&self) -> String {
        let mut out = String::new();
        let flows = self.config.read().flows.clone();
        let text = "Requests that were rejected by flow control.";
        let name = "apiserver_flowcontrol_rejected_requests_total";
        head(&mut out, name, "counter", text);
        for flow in &flows {
            for (reason, count) in Reason::ALL.iter().zip(&flow.counts.rejected) {
                let count = count.load(Relaxed);
                if count > 0 {
                    line(
                        &mut out,
                        name,
                        &format!("{},reason=\"{}\"", labels(flow), reason.name()),
                        count as f64,
                    );
                }
            }
        }
        let mut each = |name: &str, kind: &str, help: &str, value: fn(&Counts) -> f64| {
            let name = format!("apiserver_flowcontrol_{name}");
            head(&mut out, &name, kind, help);
            for flow in &flows {
                line(&mut out, &name, &labels(flow), value(&flow.counts));
            }
        };
        let help = "Requests that flow control has let execute.";
        each("dispatched_requests_total", "counter", help, |counts| counts.dispatched.load(Relaxed) as f64);
        each("current_executing_requests", "gauge", "Requests that execute.", Counts::executing);
        each("current_inqueue_requests", "gauge", "Requests that wait in a queue.", |counts| {
            counts.waiting.load(Relaxed) as f64
        });
        waits(&mut out, flows.iter().map(AsRef::as_ref));
        self.seats_text(&mut out);
        out
    }

    fn seats_text(&self, out: &mut String) {
        let levels: Vec<(String, [u32; 4])> = {
            let seats = self.seats.lock();
            let of = |l: &super::seats::Level<_>| [l.nominal, l.guaranteed, l.most, l.executing];
            seats.levels().map(|level| (format!("priority_level=\"{}\"", level.name), of(level))).collect()
        };
        for (at, (name, help)) in [
            ("nominal_limit_seats", "Seats of a priority level by its shares."),
            ("lower_limit_seats", "Seats that are guaranteed to a priority level."),
            ("upper_limit_seats", "Seats that a priority level can use at most."),
            ("current_executing_seats", "Seats that a priority level's requests have."),
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("apiserver_flowcontrol_{name}");
            head(out, &name, "gauge", help);
            levels.iter().for_each(|(labels, values)| line(out, &name, labels, f64::from(values[at])));
        }
    }
}

/// Most requests never wait: they are counted in the first bucket.
fn waits<'a>(out: &mut String, flows: impl Iterator<Item = &'a Flow>) {
    let name = "apiserver_flowcontrol_request_wait_duration_seconds";
    head(out, name, "histogram", "Time that requests waited in a queue.");
    for flow in flows {
        let mut waits = flow.counts.waits.lock().clone();
        let waited: u64 = waits[1].buckets.iter().sum();
        waits[1].buckets[0] += flow.counts.dispatched.load(Relaxed).saturating_sub(waited);
        for (executes, waits) in [("false", &waits[0]), ("true", &waits[1])] {
            let labels = format!("execute=\"{executes}\",{}", labels(flow));
            let mut total = 0;
            for (bucket, count) in waits.buckets.iter().enumerate() {
                total += count;
                let bound = BUCKETS.get(bucket).map_or("+Inf".to_owned(), f64::to_string);
                line(out, &format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), total as f64);
            }
            line(out, &format!("{name}_sum"), &labels, waits.seconds);
            line(out, &format!("{name}_count"), &labels, total as f64);
        }
    }
}
