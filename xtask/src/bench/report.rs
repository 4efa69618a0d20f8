//! The benchmark's results and their table.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

/// The median; the lower of the two middle values if their number is even.
pub fn median(mut all: Vec<Duration>) -> Duration {
    percentile(&mut all, 50)
}

/// The given percentile of the measurements.
pub fn percentile(all: &mut [Duration], percent: usize) -> Duration {
    all.sort_unstable();
    all.get(all.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
}

/// Formats a duration in milliseconds with significant digits only.
pub fn ms(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1000.0;
    match ms {
        ms if ms >= 1000.0 => format!("{:.2} s", ms / 1000.0),
        ms if ms >= 20.0 => format!("{ms:.0} ms"),
        ms if ms >= 1.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.2} ms"),
    }
}

/// Formats an amount in KiB as MiB.
pub fn mib(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}

/// A row of the table: what was measured, the figure, the goal, and the figure of the installed peer.
pub struct Row {
    pub what: &'static str,
    pub figure: String,
    pub goal: &'static str,
    pub peer: Option<String>,
}

/// The rows so far. Each is printed as soon as it is added, since a whole run takes minutes.
#[derive(Default)]
pub struct Report(Vec<Row>);

impl Report {
    pub fn add(&mut self, what: &'static str, figure: impl Into<String>, goal: &'static str) {
        let figure = figure.into();
        eprintln!("{what}: {figure}");
        self.0.push(Row { what, figure, goal, peer: None });
    }

    /// Adds the peer's figure to an existing row.
    pub fn compare(&mut self, what: &str, figure: String) {
        if let Some(row) = self.0.iter_mut().find(|row| row.what == what) {
            row.peer = Some(figure);
        }
    }

    /// Formats the table in Markdown. `peer` is the title of the last column, if there is one.
    pub fn table(&self, peer: Option<&str>) -> String {
        let mut text = String::new();
        let cells = |text: &mut String, cells: &[&str]| {
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        };
        let columns = if peer.is_some() { 4 } else { 3 };
        cells(&mut text, &["figure", "Yado", "goal", peer.unwrap_or_default()][..columns]);
        cells(&mut text, &vec!["---"; columns]);
        for row in &self.0 {
            let peer = row.peer.as_deref().unwrap_or("–");
            cells(&mut text, &[row.what, &row.figure, row.goal, peer][..columns]);
        }
        text
    }
}

/// Describes the machine in one line.
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let processor = field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown processor".into());
    let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let kib: u64 = memory.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?");
    format!(
        "{cores} cores ({processor}), {:.0} GiB memory, Linux {}, load {load} at the start",
        kib as f64 / 1_048_576.0,
        kernel.trim()
    )
}
