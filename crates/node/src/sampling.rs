//! Reads what the Pods and the node use, every ten seconds, and keeps the last sample for those who ask.
//!
//! ```text
//! [cgroups, /proc] --every 10 s--> Sample --> /stats/summary, /metrics/resource, /metrics/cadvisor
//! ```

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::statvfs::statvfs;

use crate::handle::PodHandle;
use crate::lifecycle::{ContainerRecord, Run, SandboxPhase};
use crate::machine;
use crate::resources;
use crate::shared::Shared;
use crate::spec::all_containers;
use crate::usage::{
    ContainerSample, FileSystem, Interface, Measured, NodeSample, PodSample, Sample, of_machine, rate,
};

/// How often usage is read; the kubelet's housekeeping interval.
const INTERVAL: Duration = Duration::from_secs(10);

/// Reads a sample every [`INTERVAL`] until the node ends.
pub(crate) fn start(shared: &Arc<Shared>) {
    let worker = shared.clone();
    shared.tasks.spawn("usage", async move {
        loop {
            // Whoever asks before has the first sample taken: at start there is other work.
            worker.clock.sleep(INTERVAL).await;
            sample(&worker).await;
        }
    });
}

/// The last sample, or the first where there is none yet.
pub(crate) async fn last(shared: &Arc<Shared>) -> Arc<Sample> {
    let last = shared.usage.lock().clone();
    match last {
        Some(last) => last,
        None => sample(shared).await,
    }
}

async fn sample(shared: &Arc<Shared>) -> Arc<Sample> {
    let worker = shared.clone();
    let read = tokio::task::spawn_blocking(move || {
        let before = worker.usage.lock().clone();
        let sample = Arc::new(read(&worker, before.as_deref()));
        *worker.usage.lock() = Some(sample.clone());
        sample
    });
    // It fails only where it panics, or while the process ends.
    read.await.unwrap_or_default()
}

/// What was used before, to compute rates from: nanoseconds of processor time, by the ids of Pods and their runs.
struct Before<'a> {
    at: Duration,
    cpu: HashMap<(&'a str, &'a str), u64>,
}

impl<'a> Before<'a> {
    fn of(sample: Option<&'a Sample>) -> Self {
        let mut cpu = HashMap::new();
        if let Some(sample) = sample {
            cpu.insert(("", ""), sample.node.measured.usage.cpu_ns);
            for pod in &sample.pods {
                cpu.insert((pod.uid.as_str(), ""), pod.measured.usage.cpu_ns);
                let runs = pod.containers.iter();
                cpu.extend(runs.map(|c| ((pod.uid.as_str(), c.run.as_str()), c.measured.usage.cpu_ns)));
            }
        }
        Self { at: sample.map_or(Duration::ZERO, |sample| sample.monotonic), cpu }
    }

    fn get(&self, pod: &str, run: &str) -> Option<(u64, Duration)> {
        self.cpu.get(&(pod, run)).map(|cpu| (*cpu, self.at))
    }
}

fn read(shared: &Shared, before: Option<&Sample>) -> Sample {
    let (at, monotonic) = (shared.clock.now(), shared.clock.monotonic());
    let before = Before::of(before);
    let reader = Reader { shared, before: &before, at, monotonic };
    let pods = shared.handles.all().iter().filter_map(|handle| reader.pod(handle)).collect();
    Sample { at, monotonic, node: reader.node(), pods }
}

/// Reads one sample.
struct Reader<'a> {
    shared: &'a Shared,
    before: &'a Before<'a>,
    at: Timestamp,
    monotonic: Duration,
}

impl Reader<'_> {
    fn pod(&self, handle: &PodHandle) -> Option<PodSample> {
        let state = handle.state();
        let pod = state.pod.as_deref().filter(|_| state.record.sandbox == SandboxPhase::Ready)?;
        let spec = pod.spec.as_ref()?;
        let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
        let started = started.map_or(self.at, |time| time.0);
        let limit = resources::of_pod(spec).memory_limit;
        let mut containers = Vec::new();
        for container in all_containers(spec) {
            let record = state.record.container(&container.name);
            let Run::Running { started_at, .. } = record.run else { continue };
            let run = ContainerRecord::id(&container.name, record.attempt);
            let limits = resources::of_container(container);
            // One that ended meanwhile has none.
            let Some(measured) = self.measured(&handle.uid, &run, started_at, limits.memory_limit) else {
                continue;
            };
            containers.push(ContainerSample {
                name: container.name.clone(),
                run,
                image: container.image.clone().unwrap_or_default(),
                measured,
                cpu_quota: limits.cpu_quota_us.zip(limits.cpu_period_us),
            });
        }
        let interfaces = match spec.host_network {
            Some(true) => Vec::new(),
            _ => containers.first().map(|c| self.interfaces(&handle.uid, &c.run)).unwrap_or_default(),
        };
        Some(PodSample {
            namespace: handle.key.namespace.clone(),
            name: handle.key.name.clone(),
            uid: handle.uid.clone(),
            measured: self.measured(&handle.uid, "", started, limit)?,
            interfaces,
            containers,
        })
    }

    /// What a sandbox uses, or a run of a container in it.
    fn measured(
        &self,
        sandbox: &str,
        run: &str,
        started: Timestamp,
        memory_limit: Option<i64>,
    ) -> Option<Measured> {
        let usage = self.shared.runtime.usage(sandbox, Some(run).filter(|run| !run.is_empty()))?;
        let running = Duration::try_from(self.at.duration_since(started)).unwrap_or_default();
        let cpu_rate = rate((usage.cpu_ns, self.monotonic), self.before.get(sandbox, run), running);
        let memory_limit = memory_limit.and_then(|limit| u64::try_from(limit).ok());
        Some(Measured { started, usage, cpu_rate, memory_limit })
    }

    /// The network devices that the processes of a container see.
    fn interfaces(&self, sandbox: &str, run: &str) -> Vec<Interface> {
        let processes = self.shared.runtime.processes(sandbox, run);
        let devices = processes.iter().find_map(|id| fs::read_to_string(format!("/proc/{id}/net/dev")).ok());
        devices.map(|text| Interface::parse(&text)).unwrap_or_default()
    }

    fn node(&self) -> NodeSample {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let machine = &self.shared.machine;
        let (usage, booted) = of_machine(&text("/proc/stat"), &text("/proc/vmstat"), &text("/proc/meminfo"));
        let started = booted.and_then(|at| Timestamp::from_second(at).ok()).unwrap_or(self.at);
        let running = Duration::try_from(self.at.duration_since(started)).unwrap_or_default();
        let cpu_rate = rate((usage.cpu_ns, self.monotonic), self.before.get("", ""), running);
        let positive = |n: i64| u64::try_from(n).unwrap_or(0);
        NodeSample {
            name: self.shared.config.name.clone(),
            measured: Measured { started, usage, cpu_rate, memory_limit: None },
            memory_available: machine::available_memory().map_or(0, positive),
            memory: positive(machine.memory.units()),
            cores: positive(machine.cpu.units()),
            interfaces: Interface::parse(&text("/proc/net/dev")),
            files: self.files(),
            processes: machine::processes().unwrap_or_default(),
        }
    }

    fn files(&self) -> FileSystem {
        let Ok(s) = statvfs(&self.shared.config.data_dir) else { return FileSystem::default() };
        let bytes = |blocks: u64| blocks.saturating_mul(s.fragment_size());
        FileSystem {
            capacity: bytes(s.blocks()),
            available: bytes(s.blocks_available()),
            inodes: s.files(),
            inodes_free: s.files_available(),
        }
    }
}
