//! Resource limits and health checks.

use super::flags::{Reader, json_list};
use crate::workload::{
    amount,
    pod::{ContainerMount, MountSource, Tmpfs},
};

impl Reader<'_> {
    /// Applies a flag of limits and reservations. Returns false for other flags.
    pub(super) fn of_resources(&mut self, flag: &str, name: &str, value: &str) -> bool {
        match name {
            "memory" | "memory-reservation" | "shm-size" => self.memory(flag, name, value),
            "cpus" | "cpu-shares" | "cpu-period" | "cpu-quota" | "cpuset-cpus" | "cpuset" => {
                self.processors(flag, name, value);
            }
            "gpus" => {
                let count =
                    value.split(',').find_map(|o| o.strip_prefix("count=").unwrap_or(o).parse::<u32>().ok());
                self.run.part.limit("nvidia.com/gpu", count.unwrap_or(1).to_string());
                if count.is_none() {
                    self.warn(format!(
                        "{flag} {value} asks for one GPU, as a Pod says how many: write {flag} N"
                    ));
                }
            }
            "ulimit" => self.ulimit(flag, value),
            "sysctl" => match value.split_once('=') {
                Some((key, value)) => {
                    let remark = self.run.part.sysctl(key.trim(), value.trim());
                    self.remark(flag, remark);
                }
                None => self.error(format!("{flag} {value}: write {flag} NAME=VALUE")),
            },
            "storage-opt" => match value.strip_prefix("size=").and_then(amount::memory) {
                Some(size) => self.run.part.limit("ephemeral-storage", size),
                None => self.warn(format!("{flag} {value} has no effect: only size is supported")),
            },
            _ => return false,
        }
        true
    }

    fn memory(&mut self, flag: &str, name: &str, value: &str) {
        let part = &mut self.run.part;
        match (name, amount::memory(value)) {
            ("shm-size", Some(size)) => part.mount(ContainerMount {
                source: MountSource::Tmpfs(Tmpfs::sized(Some(size))),
                path: "/dev/shm".into(),
                read_only: false,
                sub_path: None,
                propagation: None,
            }),
            // 0 means unlimited, like a missing flag.
            (_, Some(zero)) if zero == "0" => {}
            ("memory", Some(amount)) => part.limit("memory", amount),
            (_, Some(amount)) => part.request("memory", amount),
            (_, None) => {
                self.error(format!("{flag} {value} is not an amount of memory: write one such as 512m"));
            }
        }
    }

    fn processors(&mut self, flag: &str, name: &str, value: &str) {
        let part = &mut self.run.part;
        let number = |text: &str| text.parse::<u64>().ok();
        match name {
            "cpus" => match amount::cpus(value) {
                Some(amount) => part.limit("cpu", amount),
                None if value.parse::<f64>() == Ok(0.0) => {}
                None => self.error(format!("{flag} {value} is not a number of processors")),
            },
            // A Pod that requests one processor gets 1024 shares.
            "cpu-shares" => match number(value) {
                Some(0) => {}
                Some(shares) => part.request("cpu", amount::milli_cpus(shares.saturating_mul(1000) / 1024)),
                None => self.error(format!("{flag} {value} is not a number of shares")),
            },
            "cpu-period" => match number(value) {
                Some(period) => self.cpu_period = Some(period),
                None => self.error(format!("{flag} {value} is not a number of microseconds")),
            },
            "cpu-quota" => match value.parse::<i64>() {
                Ok(quota) => self.cpu_quota = Some(quota),
                Err(_) => self.error(format!("{flag} {value} is not a number of microseconds")),
            },
            _ => match amount::processors(value) {
                Some(count) => {
                    part.limit("cpu", count.to_string());
                    self.warn(format!(
                        "{flag} {value} limits it to {count} processors; which ones, the node decides"
                    ));
                }
                None => self.error(format!("{flag} {value} names no processors: write such as 0-2 or 0,1")),
            },
        }
    }

    pub(super) fn of_health(&mut self, flag: &str, name: &str, value: &str) -> bool {
        let shell = |text: &str| vec!["/bin/sh".to_string(), "-c".into(), text.into()];
        let time = amount::milliseconds(value);
        let slot = match name {
            "health-cmd" => {
                match value {
                    "none" => self.run.no_health = true,
                    _ => self.health.command = json_list(value).unwrap_or_else(|| shell(value)),
                }
                return true;
            }
            "health-retries" => {
                match value.parse() {
                    Ok(retries) => self.health.retries = Some(retries),
                    Err(_) => self.error(format!("{flag} {value} is not a valid number")),
                }
                return true;
            }
            "health-interval" => &mut self.health.interval,
            "health-timeout" => &mut self.health.timeout,
            "health-start-period" => &mut self.health.start_period,
            "health-start-interval" | "health-startup-interval" => &mut self.health.start_interval,
            "health-on-failure"
            | "health-startup-cmd"
            | "health-startup-retries"
            | "health-startup-success"
            | "health-startup-timeout" => {
                self.warn(format!("{flag} has no effect: --health-cmd decides"));
                return true;
            }
            _ => return false,
        };
        match time {
            Some(time) => *slot = Some(time),
            None => self.error(format!("{flag} {value} is not a valid duration: write one such as 30s")),
        }
        true
    }

    fn ulimit(&mut self, flag: &str, value: &str) {
        let parsed = value.split_once('=').and_then(|(name, limits)| {
            let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
            Some((name, soft.parse().ok()?, hard.parse().ok()?))
        });
        match parsed {
            Some((name, soft, hard)) => self.run.part.ulimit(name, soft, hard),
            None => self.error(format!("{flag} {value}: write {flag} NAME=SOFT[:HARD]")),
        }
    }
}
