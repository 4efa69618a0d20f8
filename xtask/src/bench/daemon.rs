//! Measurements of the idle engine: start, memory, processor time and size of the binary.

use std::time::Duration;

use anyhow::{Context, Result};

use super::cluster::{Cluster, Memory, cpu_time, yado};
use super::report::{Report, median, mib, ms};

const STARTS: usize = 7;
/// Time after the start by which caches and start-up work have settled.
const SETTLE: Duration = Duration::from_secs(30);
/// Length of the measurement, which includes several renewals of the node's lease.
const IDLE: Duration = Duration::from_secs(30);

pub async fn measure(report: &mut Report) -> Result<()> {
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let mut cluster = Cluster::new(&[])?;
        first.push(cluster.start().await?);
        cluster.stop().await?;
        later.push(cluster.start().await?);
        cluster.remove().await?;
    }
    report.add("start → node Ready, new data directory", ms(median(first)), "0.5 s");
    report.add("start → node Ready, later starts", ms(median(later)), "0.5 s");

    let mut cluster = Cluster::new(&["busybox.tar"])?;
    cluster.start().await?;
    tokio::time::sleep(SETTLE).await;
    let pid = cluster.pid()?;
    let memory = Memory::of(pid)?;
    let before = cpu_time(pid)?;
    tokio::time::sleep(IDLE).await;
    let used = cpu_time(pid)?.saturating_sub(before);
    report.add("idle memory, resident (PSS)", format!("{} ({})", mib(memory.rss), mib(memory.pss)), "60 MiB");
    let share = used.as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    report.add("idle CPU, of one core", format!("{share:.2} %"), "");
    cluster.remove().await?;

    let path = yado();
    let size = std::fs::metadata(&path).with_context(|| path.display().to_string())?.len();
    report.add("size of the binary", format!("{:.1} MB", size as f64 / 1e6), "45 MB");
    Ok(())
}
