//! What shows units: `status`, `journal`, `ssh`.

use std::io::{IsTerminal, Write};

use jiff::{Timestamp, tz::TimeZone};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{Api, Client, ResourceExt, api::LogParams};
use yado_types::clock::SystemClock;

use super::{
    list::states,
    registry::{Registry, Unit},
    say, say_error,
    state::{Cluster, main, node},
};
use crate::{
    args::fleet::Journal,
    connect::failed,
    ready::{self, Readiness},
    text::{harmless, next_line},
};

/// Lines of the log below a status, as systemctl shows.
const LINES: u32 = 10;
/// What systemctl exits with for a unit that is not active.
pub const NOT_ACTIVE: u8 = 3;

/// One line of `status` for each state, and the log below; systemctl's exit code.
pub async fn status(client: &Client, namespace: &str, unit: &Unit, cluster: &Cluster) -> anyhow::Result<u8> {
    let summary = yado_compile::fleet::summary(&unit.file()).ok();
    let description = summary.and_then(|s| s.description);
    let title = description.map(|d| format!(" - {d}")).unwrap_or_default();
    let pods = cluster.of(unit.name.full());
    let now = SystemClock::shared().now();
    let mut code = NOT_ACTIVE;
    for (i, state) in states(unit, cluster).iter().enumerate() {
        let pod = pods.iter().find(|p| node(p) == state.node);
        if i > 0 {
            say("")?;
        }
        say(&format!("● {}{title}", unit.name))?;
        say(&format!("   Loaded: loaded (ConfigMap {}; {})", unit.config_map, unit.desired.word()))?;
        let since = pod.and_then(since).map(|t| since_text(t, now)).unwrap_or_default();
        say(&format!("   Active: {} ({}){since}", state.active, state.sub))?;
        if let Some(machine) = cluster.machine(state.node.as_deref()) {
            say(&format!("  Machine: {}", machine.legend(false)))?;
        }
        if state.active == "active" {
            code = 0;
        }
        let Some(pod) = pod else { continue };
        for line in processes(pod) {
            say(&line)?;
        }
        if let Readiness::Moving(cause) | Readiness::Failed(cause) = ready::of_pod(pod) {
            say(&format!("   Status: \"{}\"", cause.sentence))?;
        }
        let lines = log(client, namespace, pod, LINES).await;
        if !lines.is_empty() {
            say("")?;
            for line in lines {
                say(&short(&line, unit, pod))?;
            }
        }
    }
    Ok(code)
}

/// The lines of a status that tell of a Pod's containers, as of processes.
fn processes(pod: &Pod) -> Vec<String> {
    let mut lines = Vec::new();
    let status = pod.status.clone().unwrap_or_default();
    for init in status.init_container_statuses.iter().flatten() {
        let ended = init.state.as_ref().and_then(|s| s.terminated.as_ref());
        if let Some(ended) = ended {
            lines.push(format!(
                "  Process: ExecStartPre {} ({})",
                init.name,
                exit(ended.exit_code, ended.signal)
            ));
        }
    }
    if let Some(main) = main(pod) {
        let ended = |s: &Option<k8s_openapi::api::core::v1::ContainerState>| {
            s.as_ref().and_then(|s| s.terminated.clone())
        };
        let last = ended(&main.state).or_else(|| ended(&main.last_state));
        if let Some(last) = last {
            lines.push(format!("  Process: ExecStart {} ({})", main.name, exit(last.exit_code, last.signal)));
        }
        if main.state.as_ref().is_some_and(|s| s.running.is_some()) {
            lines.push(format!(" Main PID: 1 ({})", program(pod, main)));
        }
        if main.restart_count > 0 {
            lines.push(format!(" Restarts: {}", main.restart_count));
        }
    }
    lines.push(format!("   CGroup: /{}", pod.name_any()));
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let running: Vec<String> = containers
        .map(|c| {
            let words = c.command.iter().chain(&c.args).flatten().cloned().collect::<Vec<_>>().join(" ");
            format!("{} {words}", c.image.as_deref().unwrap_or_default()).trim_end().replace('\n', " ")
        })
        .collect();
    for (i, text) in running.iter().enumerate() {
        let branch = if i + 1 == running.len() { "└─" } else { "├─" };
        lines.push(format!("           {branch}{text}"));
    }
    lines
}

/// `code=exited, status=0/SUCCESS`
fn exit(code: i32, signal: Option<i32>) -> String {
    match (signal.filter(|s| *s != 0), code) {
        (Some(signal), _) => format!("code=killed, signal={signal}"),
        (None, 0) => "code=exited, status=0/SUCCESS".into(),
        (None, 1) => "code=exited, status=1/FAILURE".into(),
        (None, code) => format!("code=exited, status={code}"),
    }
}

/// What a container's process is called.
fn program(pod: &Pod, container: &ContainerStatus) -> String {
    let mut containers = pod.spec.iter().flat_map(|s| &s.containers);
    let found = containers.find(|c| c.name == container.name);
    let first = found.and_then(|c| c.command.iter().chain(&c.args).flatten().next());
    first.map_or_else(|| container.name.clone(), |f| f.rsplit('/').next().unwrap_or(f).to_string())
}

fn since(pod: &Pod) -> Option<Timestamp> {
    let state = main(pod)?.state.as_ref()?;
    let running = state.running.as_ref().and_then(|r| r.started_at.as_ref());
    let ended = state.terminated.as_ref().and_then(|t| t.finished_at.as_ref());
    Some(running.or(ended)?.0)
}

/// ` since Wed 2014-01-29 23:20:23 UTC; 1h 49min ago`
fn since_text(then: Timestamp, now: Timestamp) -> String {
    let shown = then.to_zoned(TimeZone::UTC).strftime("%a %Y-%m-%d %H:%M:%S UTC");
    let seconds = (now.as_second() - then.as_second()).max(0);
    let ago = match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}min {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} days", seconds / 86_400),
    };
    format!(" since {shown}; {ago} ago")
}

/// The last lines of a Pod's main container, each behind its time; also those of before its last restart.
async fn log(client: &Client, namespace: &str, pod: &Pod, lines: u32) -> Vec<String> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut all: Vec<String> = Vec::new();
    let restarted = main(pod).is_some_and(|c| c.restart_count > 0);
    for previous in [true, false] {
        if previous && !restarted {
            continue;
        }
        // A log that is not there yet, or no more, has no lines.
        let Ok(stream) = api.log_stream(&pod.name_any(), &params(pod, lines, previous)).await else {
            continue;
        };
        let mut stream = std::pin::pin!(stream);
        while let Ok(Some(line)) = next_line(&mut stream).await {
            all.push(line);
        }
    }
    let first = all.len().saturating_sub(lines as usize);
    all.split_off(first)
}

fn params(pod: &Pod, lines: u32, previous: bool) -> LogParams {
    let main = pod.spec.as_ref().and_then(|s| s.containers.first()).map(|c| c.name.clone());
    LogParams {
        container: main,
        tail_lines: Some(lines.into()),
        timestamps: true,
        previous,
        ..LogParams::default()
    }
}

/// A line as journalctl shows it: `Jan 30 01:09:18 node-1 bash[1]: Hello`.
fn short(line: &str, unit: &Unit, pod: &Pod) -> String {
    let (time, text) = line.split_once(' ').unwrap_or((line, ""));
    let Ok(time) = time.parse::<Timestamp>() else { return line.into() };
    let time = time.to_zoned(TimeZone::UTC).strftime("%b %d %H:%M:%S");
    let program = main(pod).map_or_else(|| unit.name.stem().to_string(), |c| program(pod, c));
    format!("{time} {} {program}[1]: {text}", node(pod).unwrap_or_default())
}

/// `journal`.
pub async fn journal(
    client: &Client,
    namespace: &str,
    registry: &Registry,
    cluster: &Cluster,
    journal: &Journal,
) -> anyhow::Result<u8> {
    let unit = super::known(registry, &journal.unit)?;
    if unit.global() {
        say_error(&format!("Unable to retrieve journal of global unit {}.", unit.name));
        return Ok(crate::EXIT_FAILURE);
    }
    let pod = cluster.of(unit.name.full()).first().filter(|_| registry.is_launched(unit));
    let Some(pod) = pod else {
        say_error(&format!("Unit {} does not appear to be running.", unit.name));
        return Ok(crate::EXIT_FAILURE);
    };
    let terminal = std::io::stdout().is_terminal();
    let shown = |line: &str| {
        let line = match journal.output.as_str() {
            "cat" => line.split_once(' ').map_or("", |(_, text)| text).to_string(),
            _ => short(line, unit, pod),
        };
        // A terminal would obey what a unit writes.
        if terminal { harmless(&line, true).into_owned() } else { line }
    };
    if !journal.follow {
        for line in log(client, namespace, pod, journal.lines).await {
            say(&shown(&line))?;
        }
        return Ok(crate::EXIT_OK);
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = LogParams { follow: true, ..params(pod, journal.lines, false) };
    let stream = api.log_stream(&pod.name_any(), &params).await;
    let stream = stream.map_err(failed(format!("the journal of {} cannot be read", unit.name)))?;
    let mut stream = std::pin::pin!(stream);
    while let Some(line) = next_line(&mut stream).await? {
        say(&shown(&line))?;
        std::io::stdout().flush()?;
    }
    Ok(crate::EXIT_OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c12_times_as_systemctl_shows_them() {
        let then: Timestamp = "2014-01-29T23:20:23Z".parse().unwrap();
        for (seconds, expect) in [(5, "5s"), (65, "1min 5s"), (6540, "1h 49min"), (200_000, "2 days")] {
            let now = Timestamp::from_second(then.as_second() + seconds).unwrap();
            assert_eq!(since_text(then, now), format!(" since Wed 2014-01-29 23:20:23 UTC; {expect} ago"));
        }
        assert_eq!(exit(0, None), "code=exited, status=0/SUCCESS");
        assert_eq!(exit(137, Some(9)), "code=killed, signal=9");
    }
}
