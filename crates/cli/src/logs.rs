//! Logs of many processes as one stream.
//!
//! [`follow_logs`] watches Pods and reads the log of every container that starts, a restarted one's and a new Pod's
//! too, until it is dropped. Each line says which process wrote it; [`Printer`] puts that in front, in colour.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{IsTerminal, Write},
    pin::pin,
    time::Duration,
};

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt, io::AsyncBufRead};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    args::{Global, LogsArgs},
    connect::{connect, failed},
    process::{ProcessNames, matches},
    progress::use_colour,
};

/// Lines between the readers and the printer: enough for a burst of every process, and little memory.
const BUFFERED_LINES: usize = 1024;
/// A log that breaks off while its container runs is read again after this, as often as it breaks off.
const AGAIN: Duration = Duration::from_millis(500);
/// Lines that `--follow` begins with where `--tail` says nothing: what is on a screen.
const TAIL_OF_FOLLOW: u32 = 20;

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The process, such as `guestbook.web.1`, or the Pod where it is no app's.
    pub process: String,
    /// The container, where the Pod has several.
    pub container: Option<String>,
    /// The line, without its line feed.
    pub text: String,
}

/// Which logs to follow.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Label selector of the Pods; empty is all.
    pub labels: String,
    /// An app, process or Pod, as [`matches`] understands it.
    pub name: Option<String>,
    /// Lines of each container to begin with; all where it is none.
    pub tail: Option<u32>,
}

/// Sends every line that the selected Pods' containers write to `sink`, until the receiver is dropped or this is.
///
/// Lines of one container come in order; those of several as they arrive. A slow receiver slows the reading down.
pub async fn follow_logs(
    client: &Client,
    namespace: &str,
    selection: &Selection,
    sink: mpsc::Sender<LogLine>,
) {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let config = watcher::Config::default().labels(&selection.labels);
    let mut events = pin!(watcher(api.clone(), config).default_backoff());
    let mut names = ProcessNames::default();
    let mut started: BTreeSet<(String, String)> = BTreeSet::new();
    let mut readers = JoinSet::new();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            // Finished readers are let go of, so that the set holds only what runs.
            Some(_) = readers.join_next(), if !readers.is_empty() => continue,
            () = sink.closed() => return,
        };
        let pod = match event {
            None => return,
            // The watcher starts again by itself after an error.
            Some(Err(_) | Ok(Event::Init | Event::InitDone)) => continue,
            Some(Ok(Event::Delete(pod))) => {
                names.forget(&pod.name_any());
                started.retain(|(name, _)| *name != pod.name_any());
                continue;
            }
            Some(Ok(Event::Apply(pod) | Event::InitApply(pod))) => pod,
        };
        let process = names.name(&pod);
        if selection.name.as_ref().is_some_and(|wanted| !matches(&pod, &process, wanted)) {
            continue;
        }
        for container in started_containers(&pod) {
            let id = container.container_id.clone().unwrap_or_default();
            if !started.insert((pod.name_any(), id)) {
                continue;
            }
            let first = container.restart_count == 0;
            let reader = Reader {
                api: api.clone(),
                pod: pod.name_any(),
                container: container.name.clone(),
                // A container that starts while we look is read from its first line.
                tail: selection.tail.filter(|_| first),
                process: process.clone(),
                several: pod.spec.as_ref().is_some_and(|s| s.containers.len() > 1),
                sink: sink.clone(),
            };
            readers.spawn(reader.run());
        }
    }
}

/// Containers, init containers too, that have written or may write a log.
fn started_containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    let all = status.flat_map(|s| [&s.init_container_statuses, &s.container_statuses]).flatten().flatten();
    all.filter(|c| {
        let started =
            |s: &k8s_openapi::api::core::v1::ContainerState| s.running.is_some() || s.terminated.is_some();
        c.container_id.is_some() && c.state.as_ref().is_some_and(started)
    })
}

struct Reader {
    api: Api<Pod>,
    pod: String,
    container: String,
    tail: Option<u32>,
    process: String,
    several: bool,
    sink: mpsc::Sender<LogLine>,
}

impl Reader {
    /// Reads until the container ends. Where the connection breaks, goes on after the last line that came.
    async fn run(self) {
        let mut params = LogParams {
            container: Some(self.container.clone()),
            follow: true,
            timestamps: true,
            tail_lines: self.tail.map(i64::from),
            ..LogParams::default()
        };
        let mut last = String::new();
        loop {
            let ended = match self.api.log_stream(&self.pod, &params).await {
                Ok(stream) => self.lines(stream, &mut last).await,
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 400 => return,
                Err(_) => Ended::Broken,
            };
            if ended == Ended::Well || self.sink.is_closed() {
                return;
            }
            tokio::time::sleep(AGAIN).await;
            if let Ok(time) = last.parse() {
                params.since_time = Some(time);
                params.tail_lines = None;
            }
        }
    }

    /// Passes lines on; those up to the time `last` came before the connection broke.
    async fn lines(&self, stream: impl AsyncBufRead, last: &mut String) -> Ended {
        let mut lines = pin!(stream.lines());
        loop {
            let line = match lines.try_next().await {
                Ok(Some(line)) => line,
                Ok(None) => return Ended::Well,
                // Bytes that are no text: a process may write what it likes.
                Err(e) if e.kind() == std::io::ErrorKind::InvalidData => continue,
                Err(_) => return Ended::Broken,
            };
            let (time, text) = line.split_once(' ').unwrap_or((&line, ""));
            if time <= last.as_str() {
                continue;
            }
            *last = time.into();
            let container = self.several.then(|| self.container.clone());
            let line = LogLine { process: self.process.clone(), container, text: text.into() };
            if self.sink.send(line).await.is_err() {
                return Ended::Well;
            }
        }
    }
}

#[derive(PartialEq)]
enum Ended {
    Well,
    Broken,
}

/// Puts the process in front of each line, aligned, each process type in its own colour.
pub struct Printer<W> {
    out: W,
    colour: bool,
    prefix: bool,
    width: usize,
    colours: BTreeMap<String, usize>,
}

/// Colours that can be read on dark and on light; red is for mistakes.
const COLOURS: [&str; 6] = ["36", "33", "32", "35", "34", "96"];

impl<W: Write> Printer<W> {
    /// Prints to `out`.
    pub fn new(out: W, colour: bool, prefix: bool) -> Self {
        Printer { out, colour, prefix, width: 0, colours: BTreeMap::new() }
    }

    /// Prints one line.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn print(&mut self, line: &LogLine) -> std::io::Result<()> {
        if !self.prefix {
            return writeln!(self.out, "{}", line.text);
        }
        let mut name = line.process.clone();
        if let Some(container) = &line.container {
            name.push('/');
            name.push_str(container);
        }
        self.width = self.width.max(name.chars().count());
        let front = format!("{name:<width$} |", width = self.width);
        if !self.colour {
            return writeln!(self.out, "{front} {}", line.text);
        }
        let process_type = line.process.trim_end_matches(|c: char| c.is_ascii_digit());
        let next = self.colours.len();
        let colour = COLOURS[*self.colours.entry(process_type.into()).or_insert(next) % COLOURS.len()];
        // A line may leave a colour on; the next one's front must not be in it.
        writeln!(self.out, "\x1b[{colour}m{front}\x1b[0m {}\x1b[0m", line.text)
    }
}

/// Follows logs and prints them to standard output until the output is closed or this is dropped.
///
/// # Errors
///
/// Those of standard output.
pub async fn print_followed(
    client: &Client,
    namespace: &str,
    selection: &Selection,
    mut printer: Printer<impl Write>,
) -> std::io::Result<()> {
    let (sink, mut lines) = mpsc::channel(BUFFERED_LINES);
    let mut follow = pin!(follow_logs(client, namespace, selection, sink));
    loop {
        tokio::select! {
            () = &mut follow => return Ok(()),
            Some(line) = lines.recv() => printer.print(&line)?,
        }
    }
}

/// `yado logs`.
pub(crate) async fn run(global: &Global, args: &LogsArgs) -> anyhow::Result<()> {
    let (client, namespace) = connect(global).await?;
    let stdout = std::io::stdout();
    let colour = use_colour(global.color, stdout.is_terminal());
    let mut printer = Printer::new(stdout, colour, !args.no_prefix);
    let tail = args.tail.or(args.follow.then_some(TAIL_OF_FOLLOW));
    if args.follow {
        let selection = Selection { labels: String::new(), name: args.name.clone(), tail };
        return Ok(print_followed(&client, &namespace, &selection, printer).await?);
    }
    let api: Api<Pod> = Api::namespaced(client, &namespace);
    let pods = api.list(&ListParams::default()).await.map_err(failed("Pods cannot be listed"))?.items;
    let mut names = ProcessNames::of(&pods);
    let mut found = false;
    for pod in &pods {
        let process = names.name(pod);
        if args.name.as_ref().is_some_and(|wanted| !matches(pod, &process, wanted)) {
            continue;
        }
        found = true;
        let several = pod.spec.as_ref().is_some_and(|s| s.containers.len() > 1);
        for container in started_containers(pod) {
            let params = LogParams {
                container: Some(container.name.clone()),
                tail_lines: tail.map(i64::from),
                ..LogParams::default()
            };
            let logs = api.logs(&pod.name_any(), &params).await;
            let logs = logs.map_err(failed(format!("the log of {process} cannot be read")))?;
            for text in logs.lines() {
                let container = several.then(|| container.name.clone());
                printer.print(&LogLine { process: process.clone(), container, text: text.into() })?;
            }
        }
    }
    if let Some(name) = args.name.as_ref().filter(|_| !found) {
        anyhow::bail!("there is no app, process or Pod {name} in namespace {namespace}: see `yado ps`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn lines_say_which_process_wrote_them() {
        let line = |process: &str, container: Option<&str>, text: &str| LogLine {
            process: process.into(),
            container: container.map(Into::into),
            text: text.into(),
        };
        let lines = [
            line("a.web.1", None, "one"),
            line("redis.1", None, "\x1b[31mtwo"),
            line("a.web.2", Some("side"), "three"),
            line("a.web.1", None, ""),
        ];
        let printed = |colour, prefix| {
            let mut out = Vec::new();
            let mut printer = Printer::new(&mut out, colour, prefix);
            lines.iter().for_each(|l| printer.print(l).unwrap());
            String::from_utf8(out).unwrap().replace('\x1b', "^")
        };
        expect![[r#"
            a.web.1 | one
            redis.1 | ^[31mtwo
            a.web.2/side | three
            a.web.1      | 
        "#]]
        .assert_eq(&printed(false, true));
        expect![[r#"
            ^[36ma.web.1 |^[0m one^[0m
            ^[33mredis.1 |^[0m ^[31mtwo^[0m
            ^[36ma.web.2/side |^[0m three^[0m
            ^[36ma.web.1      |^[0m ^[0m
        "#]]
        .assert_eq(&printed(true, true));
        expect![[r#"
            one
            ^[31mtwo
            three

        "#]]
        .assert_eq(&printed(false, false));
    }
}
