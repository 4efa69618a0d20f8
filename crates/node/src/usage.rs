//! What Pods and their node use: processor time, memory and traffic at one moment. Pure: [`crate::sampling`] reads it, its
//! children show it as the kubelet does.

pub(crate) mod exposition;
pub(crate) mod summary;

use std::time::Duration;

use jiff::Timestamp;
use yado_oci::runtime::Usage;

/// Nanoseconds of a second.
const SECOND: u128 = 1_000_000_000;

/// All that is used on a node at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// When it was read.
    pub at: Timestamp,
    /// The same, by the monotonic clock.
    pub monotonic: Duration,
    pub node: NodeSample,
    pub pods: Vec<PodSample>,
}

/// What a group of processes uses.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    /// Since when it runs.
    pub started: Timestamp,
    pub usage: Usage,
    /// Nanoseconds of processor time in each second since the sample before; since the start where there is none.
    pub cpu_rate: u64,
    /// Bytes of memory that it may use, if there is a limit.
    pub memory_limit: Option<u64>,
}

/// What the machine uses, with everything that runs on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeSample {
    pub name: String,
    pub measured: Measured,
    /// Bytes of memory that programs could still get.
    pub memory_available: u64,
    /// Bytes of memory of the machine.
    pub memory: u64,
    pub cores: u64,
    pub interfaces: Vec<Interface>,
    /// The file system of the Pods' files.
    pub files: FileSystem,
    /// Largest process id, and the number of processes now.
    pub processes: (i64, i64),
}

/// A file system, in bytes and in inodes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FileSystem {
    pub capacity: u64,
    pub available: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

/// What a Pod uses.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodSample {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Of all its containers together.
    pub measured: Measured,
    /// Its network devices without loopback; none for a Pod in the node's network.
    pub interfaces: Vec<Interface>,
    pub containers: Vec<ContainerSample>,
}

/// What a container uses.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContainerSample {
    pub name: String,
    /// Tells this run from others of the container.
    pub run: String,
    /// As the Pod names it.
    pub image: String,
    pub measured: Measured,
    /// Microseconds of processor time that it may take in each period, and the period.
    pub cpu_quota: Option<(i64, u64)>,
}

/// Traffic of a network device so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    pub name: String,
    pub received: Traffic,
    pub sent: Traffic,
}

/// Traffic in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

impl Interface {
    /// Reads `/proc/PID/net/dev`; loopback is left out.
    pub(crate) fn parse(text: &str) -> Vec<Self> {
        let device = |line: &str| {
            let (name, counts) = line.split_once(':')?;
            let counts: Vec<u64> = counts.split_whitespace().map_while(|n| n.parse().ok()).collect();
            let of = |i: usize| {
                let traffic = counts.get(i..i + 4)?;
                Some(Traffic {
                    bytes: traffic[0],
                    packets: traffic[1],
                    errors: traffic[2],
                    dropped: traffic[3],
                })
            };
            let name = name.trim().to_owned();
            (name != "lo").then_some(())?;
            Some(Self { name, received: of(0)?, sent: of(8)? })
        };
        text.lines().skip(2).filter_map(device).collect()
    }
}

/// Nanoseconds of processor time in each second: since `before`, a time used at a moment, else since `started`.
pub(crate) fn rate(now: (u64, Duration), before: Option<(u64, Duration)>, running: Duration) -> u64 {
    let (used, over) = match before {
        // A counter that went back began anew.
        Some((used, at)) if used <= now.0 && at < now.1 => (now.0 - used, now.1.saturating_sub(at)),
        _ => (now.0, running),
    };
    match over.as_nanos() {
        0 => 0,
        over => u64::try_from(u128::from(used) * SECOND / over).unwrap_or(u64::MAX),
    }
}

/// Facts of `/proc/stat`, `/proc/vmstat` and `/proc/meminfo` about the whole machine.
pub(crate) fn of_machine(stat: &str, vmstat: &str, meminfo: &str) -> (Usage, Option<i64>) {
    /// `USER_HZ`, which is the same on every architecture of Linux.
    const TICK_NS: u64 = 10_000_000;
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix([' ', ':']));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
    };
    // user, nice, system, idle, iowait, irq, softirq, steal: what waits is not used.
    let times: Vec<u64> = stat
        .lines()
        .find_map(|l| l.strip_prefix("cpu "))
        .map(|l| l.split_whitespace().map_while(|n| n.parse().ok()).collect())
        .unwrap_or_default();
    let ticks: u64 = [0, 1, 2, 5, 6].iter().filter_map(|i| times.get(*i)).sum();
    let kilobytes = |name: &str| field(meminfo, name).unwrap_or(0) * 1024;
    let memory = kilobytes("MemTotal").saturating_sub(kilobytes("MemFree"));
    let usage = Usage {
        cpu_ns: ticks * TICK_NS,
        working_set: memory.saturating_sub(kilobytes("Inactive(file)")),
        memory,
        anonymous: kilobytes("AnonPages"),
        file: kilobytes("Cached"),
        page_faults: field(vmstat, "pgfault").unwrap_or(0),
        major_page_faults: field(vmstat, "pgmajfault").unwrap_or(0),
        ..Usage::default()
    };
    (usage, field(stat, "btime").and_then(|at| i64::try_from(at).ok()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A node with one Pod of one container.
    pub(crate) fn sample() -> Sample {
        let at = |seconds| Timestamp::from_second(seconds).expect("a time");
        let usage = Usage {
            cpu_ns: 2_500_000_000,
            working_set: 3000,
            memory: 4000,
            anonymous: 2000,
            file: 1500,
            page_faults: 7,
            major_page_faults: 1,
            oom_kills: 2,
            throttling: (10, 4, 500_000_000),
        };
        let measured =
            Measured { started: at(1_700_000_000), usage, cpu_rate: 250_000_000, memory_limit: Some(8000) };
        let traffic = |bytes| Traffic { bytes, packets: 3, errors: 0, dropped: 1 };
        let interface =
            |name: &str| Interface { name: name.into(), received: traffic(100), sent: traffic(200) };
        Sample {
            at: at(1_700_000_100),
            monotonic: Duration::from_secs(100),
            node: NodeSample {
                name: "n".into(),
                measured: Measured { memory_limit: None, ..measured },
                memory_available: 5000,
                memory: 9000,
                cores: 2,
                interfaces: vec![interface("ens3")],
                files: FileSystem { capacity: 1000, available: 400, inodes: 50, inodes_free: 20 },
                processes: (32768, 120),
            },
            pods: vec![PodSample {
                namespace: "d".into(),
                name: "p".into(),
                uid: "u".into(),
                measured,
                interfaces: vec![interface("eth0")],
                containers: vec![ContainerSample {
                    name: "c".into(),
                    run: "c-0".into(),
                    image: "busybox:1".into(),
                    measured,
                    cpu_quota: Some((50_000, 100_000)),
                }],
            }],
        }
    }

    #[test]
    fn rates_are_since_the_last_sample_or_the_start() {
        let s = Duration::from_secs;
        for (now, before, running, expect) in [
            ((3_000_000_000, s(20)), Some((1_000_000_000, s(10))), s(100), 200_000_000),
            ((3_000_000_000, s(20)), None, s(10), 300_000_000),
            // A counter that went back, and two samples at one moment.
            ((1_000_000_000, s(20)), Some((2_000_000_000, s(10))), s(10), 100_000_000),
            ((1_000_000_000, s(20)), Some((1_000_000_000, s(20))), s(0), 0),
        ] {
            assert_eq!(rate(now, before, running), expect, "{now:?} {before:?}");
        }
    }

    #[test]
    fn devices_are_read_without_loopback() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
             face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
             lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 3 4 0 0 0 0 20 5 6 7 0 0 0 0\n";
        let expect = Interface {
            name: "eth0".into(),
            received: Traffic { bytes: 10, packets: 2, errors: 3, dropped: 4 },
            sent: Traffic { bytes: 20, packets: 5, errors: 6, dropped: 7 },
        };
        assert_eq!(Interface::parse(text), [expect]);
        assert_eq!(Interface::parse(""), []);
    }

    #[test]
    fn the_machine_is_read_from_proc() {
        let stat = "cpu  100 20 30 9999 888 4 6 77 0 0\ncpu0 1 1 1 1\nbtime 1700000000\n";
        let meminfo =
            "MemTotal: 100 kB\nMemFree: 40 kB\nCached: 20 kB\nAnonPages: 10 kB\nInactive(file): 15 kB\n";
        let (usage, booted) = of_machine(stat, "pgfault 5\npgmajfault 2\n", meminfo);
        assert_eq!(booted, Some(1_700_000_000));
        let expect = Usage {
            cpu_ns: 1_600_000_000,
            working_set: 45 << 10,
            memory: 60 << 10,
            anonymous: 10 << 10,
            file: 20 << 10,
            page_faults: 5,
            major_page_faults: 2,
            ..Usage::default()
        };
        assert_eq!(usage, expect);
        assert_eq!(of_machine("", "", "").1, None);
    }
}
