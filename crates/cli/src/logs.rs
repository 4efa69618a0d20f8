//! Logs of many processes as one stream.
//!
//! [`follow_logs`] watches Pods and reads the log of every container that starts, a restarted one's and a new Pod's
//! too, until it is dropped. Each line says which process wrote it; [`Printer`] puts that in front, in colour.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    io::{IsTerminal, Write},
    pin::pin,
    time::Duration,
};

use anyhow::Context;
use futures::{StreamExt, io::AsyncBufRead};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::LogParams,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::{sync::mpsc, task::JoinSet};
use yado_types::labels::APP_PART_OF;

use crate::{
    args::{Global, LogsArgs},
    connect::reason,
    process::{AppPods, ProcessNames, matches},
    progress::use_colour,
    scope::Scope,
    text::{harmless, next_line},
};

mod exits;

pub use exits::follow_exits;

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
    /// An app, process or Pod, as [`matches()`] understands it.
    pub name: Option<String>,
    /// Only Pods of this app.
    pub app: Option<AppPods>,
    /// Lines of each container to begin with; all where it is none.
    pub tail: Option<u32>,
}

impl Selection {
    /// The logs of an app's processes and of those that it depends on, as `compile` labels them. Manifests are not
    /// labelled, so for them it is all logs there are.
    pub fn of(compiled: &yado_compile::Compiled) -> Self {
        let ours = compiled
            .objects
            .iter()
            .any(|o| o.value["metadata"]["labels"][APP_PART_OF] == compiled.app.as_str());
        let labels = if ours { format!("{APP_PART_OF}={}", compiled.app) } else { String::new() };
        Selection { labels, ..Selection::default() }
    }
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
    let mut followed = Followed {
        api,
        selection,
        sink: sink.clone(),
        names: ProcessNames::default(),
        started: BTreeSet::new(),
        listed: Some(BTreeSet::new()),
        first: true,
        readers: JoinSet::new(),
    };
    loop {
        tokio::select! {
            event = events.next() => match event {
                None => return,
                // The watcher starts again by itself after an error.
                Some(Err(_)) => {}
                Some(Ok(event)) => followed.event(event),
            },
            // Finished readers are let go of, so that the set holds only what runs.
            Some(_) = followed.readers.join_next(), if !followed.readers.is_empty() => {}
            () = sink.closed() => return,
        }
    }
}

/// The containers whose logs are being read.
struct Followed<'a> {
    api: Api<Pod>,
    selection: &'a Selection,
    sink: mpsc::Sender<LogLine>,
    names: ProcessNames,
    /// Pod and container ID of every container whose reader was started.
    started: BTreeSet<(String, String)>,
    /// Pods seen in the listing that is under way.
    listed: Option<BTreeSet<String>>,
    /// Whether that is the first listing: what it shows may have been running for long.
    first: bool,
    readers: JoinSet<()>,
}

impl Followed<'_> {
    fn event(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.listed = Some(BTreeSet::new()),
            Event::InitApply(pod) => {
                self.listed.get_or_insert_default().insert(pod.name_any());
                let tail = self.selection.tail.filter(|_| self.first);
                self.pod(&pod, tail);
            }
            Event::InitDone => {
                self.first = false;
                let listed = self.listed.take().unwrap_or_default();
                let gone: Vec<String> = self.started.iter().map(|(pod, _)| pod.clone()).collect();
                gone.iter().filter(|pod| !listed.contains(*pod)).for_each(|pod| self.forget(pod));
            }
            // A container that starts while we look is read from its first line.
            Event::Apply(pod) => self.pod(&pod, None),
            Event::Delete(pod) => self.forget(&pod.name_any()),
        }
    }

    fn forget(&mut self, pod: &str) {
        self.names.forget(pod);
        self.started.retain(|(name, _)| name != pod);
    }

    fn pod(&mut self, pod: &Pod, tail: Option<u32>) {
        let process = self.names.name(pod);
        if self.selection.name.as_ref().is_some_and(|wanted| !matches(pod, &process, wanted))
            || self.selection.app.as_ref().is_some_and(|app| !app.has(pod))
        {
            return;
        }
        for container in started_containers(pod) {
            let id = container.container_id.clone().unwrap_or_default();
            if !self.started.insert((pod.name_any(), id)) {
                continue;
            }
            let reader = Reader {
                api: self.api.clone(),
                pod: pod.name_any(),
                container: container.name.clone(),
                tail,
                process: process.clone(),
                several: pod.spec.as_ref().is_some_and(|s| s.containers.len() > 1),
                sink: self.sink.clone(),
                last: None,
                resuming: false,
            };
            self.readers.spawn(reader.run());
        }
    }
}

/// Containers, init containers too, that have written or may write a log.
fn started_containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    let all = status.flat_map(|s| [&s.init_container_statuses, &s.container_statuses]).flatten().flatten();
    // One that waits to be restarted still has the log of its last run.
    all.filter(|c| {
        let ended = |s: &ContainerState| s.terminated.is_some();
        let started = |s: &ContainerState| s.running.is_some() || ended(s);
        c.container_id.is_some()
            && (c.state.as_ref().is_some_and(started) || c.last_state.as_ref().is_some_and(ended))
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
    /// When the last line that came was written.
    last: Option<Timestamp>,
    /// Whether lines come again that came before the connection broke.
    resuming: bool,
}

impl Reader {
    /// Reads until the container ends. Where the connection breaks, goes on after the last line that came.
    async fn run(mut self) {
        let mut params = LogParams {
            container: Some(self.container.clone()),
            follow: true,
            timestamps: true,
            tail_lines: self.tail.map(i64::from),
            ..LogParams::default()
        };
        loop {
            let ended = match self.api.log_stream(&self.pod, &params).await {
                Ok(stream) => self.lines(stream).await,
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 400 => return,
                Err(_) => Ended::Broken,
            };
            if ended == Ended::Well || self.sink.is_closed() {
                return;
            }
            tokio::time::sleep(AGAIN).await;
            if self.last.is_some() {
                params.since_time = self.last;
                params.tail_lines = None;
                self.resuming = true;
            }
        }
    }

    async fn lines(&mut self, stream: impl AsyncBufRead) -> Ended {
        let mut stream = pin!(stream);
        loop {
            let line = match next_line(&mut stream).await {
                Ok(Some(line)) => line,
                Ok(None) => return Ended::Well,
                Err(_) => return Ended::Broken,
            };
            let Some(text) = self.new_text(&line) else { continue };
            let container = self.several.then(|| self.container.clone());
            let line = LogLine { process: self.process.clone(), container, text: text.into() };
            if self.sink.send(line).await.is_err() {
                return Ended::Well;
            }
        }
    }

    /// The text of a line behind its time; none for a line that has come before.
    fn new_text<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        let (time, text) = line.split_once(' ').unwrap_or((line, ""));
        let Ok(time) = time.parse::<Timestamp>() else { return Some(line) };
        if self.resuming && self.last.is_some_and(|last| time <= last) {
            return None;
        }
        self.resuming = false;
        self.last = Some(time);
        Some(text)
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
    raw: bool,
    width: usize,
    colours: BTreeMap<String, usize>,
}

/// Colours that can be read on dark and on light; red is for mistakes.
const COLOURS: [&str; 6] = ["36", "33", "32", "35", "34", "96"];

impl<W: Write> Printer<W> {
    /// Prints to `out`, bytes of lines as they came.
    pub fn new(out: W, colour: bool, prefix: bool) -> Self {
        Printer { out, colour, prefix, raw: true, width: 0, colours: BTreeMap::new() }
    }

    /// Shows control sequences instead of passing them on, other than those that choose colours: for a terminal, which
    /// would obey them.
    #[must_use]
    pub fn harmless(mut self, harmless: bool) -> Self {
        self.raw = !harmless;
        self
    }

    /// Prints one line.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn print(&mut self, line: &LogLine) -> std::io::Result<()> {
        let text = if self.raw { Cow::Borrowed(line.text.as_str()) } else { harmless(&line.text, true) };
        if !self.prefix {
            return writeln!(self.out, "{text}");
        }
        let mut name = line.process.clone();
        if let Some(container) = &line.container {
            name.push('/');
            name.push_str(container);
        }
        self.width = self.width.max(name.chars().count());
        let front = format!("{name:<width$} |", width = self.width);
        if !self.colour {
            return writeln!(self.out, "{front} {text}");
        }
        let process_type = line.process.trim_end_matches(|c: char| c.is_ascii_digit());
        let next = self.colours.len();
        let colour = COLOURS[*self.colours.entry(process_type.into()).or_insert(next) % COLOURS.len()];
        // A line may leave a colour on; the next one's front must not be in it.
        writeln!(self.out, "\x1b[{colour}m{front}\x1b[0m {text}\x1b[0m")
    }
}

/// Follows logs and prints them to standard output until the output is closed or this is dropped.
///
/// # Errors
///
/// Those of standard output.
pub async fn print_followed(
    client: &Client,
    namespaces: &[String],
    selection: &Selection,
    mut printer: Printer<impl Write>,
) -> std::io::Result<()> {
    let (sink, mut lines) = mpsc::channel(BUFFERED_LINES);
    let follow = namespaces.iter().map(|namespace| follow_logs(client, namespace, selection, sink.clone()));
    let mut follow = pin!(futures::future::join_all(follow));
    loop {
        tokio::select! {
            _ = &mut follow => return Ok(()),
            Some(line) = lines.recv() => printer.print(&line)?,
        }
    }
}

/// `yado logs`.
///
/// # Errors
///
/// One sentence that says what, and what to do.
pub async fn run(global: &Global, args: &LogsArgs) -> anyhow::Result<()> {
    let scope = Scope::of(global).await?;
    let pods = match &args.name {
        // What is to come may be followed before it is there.
        Some(_) if args.follow => {
            scope.chosen(args.name.as_deref(), args.all).await.unwrap_or_else(|_| scope.whole())
        }
        name => scope.chosen(name.as_deref(), args.all).await?,
    };
    if let Some(name) = &args.name {
        pods.of_one_app(name)?;
    }
    let stdout = std::io::stdout();
    let terminal = stdout.is_terminal();
    let colour = use_colour(global.color, terminal);
    let mut printer = Printer::new(stdout, colour, !args.no_prefix).harmless(terminal && !args.raw);
    let tail = args.tail.or(args.follow.then_some(TAIL_OF_FOLLOW));
    if args.follow {
        let selection = Selection { labels: String::new(), name: args.name.clone(), app: pods.app, tail };
        return Ok(print_followed(&scope.client, &pods.namespaces, &selection, printer).await?);
    }
    for (process, pod) in &pods.found {
        let several = pod.spec.as_ref().is_some_and(|s| s.containers.len() > 1);
        for container in started_containers(pod) {
            let line = |text| LogLine {
                process: process.clone(),
                container: several.then(|| container.name.clone()),
                text,
            };
            let api = scope.api_of(pod);
            let read = print_log(&api, pod, container, tail, |text| printer.print(&line(text))).await;
            read.with_context(|| format!("the log of {process} cannot be read"))?;
        }
    }
    Ok(())
}

/// Prints what a container's present run has written, or the run before where the present one has written nothing yet.
async fn print_log(
    api: &Api<Pod>,
    pod: &Pod,
    container: &ContainerStatus,
    tail: Option<u32>,
    mut print: impl FnMut(String) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let restarted = container.last_state.as_ref().is_some_and(|s| s.terminated.is_some());
    for previous in [false, true] {
        let params = LogParams {
            container: Some(container.name.clone()),
            tail_lines: tail.map(i64::from),
            previous,
            ..LogParams::default()
        };
        let stream = match api.log_stream(&pod.name_any(), &params).await {
            // Of a run that has just been replaced there may be no log any more.
            Err(kube::Error::Api(status)) if previous && (400..500).contains(&status.code) => return Ok(()),
            stream => stream.map_err(|error| anyhow::anyhow!("{}", reason(&error)))?,
        };
        let mut stream = pin!(stream);
        let mut any = false;
        while let Some(text) = next_line(&mut stream).await? {
            any = true;
            print(text)?;
        }
        if any || !restarted {
            return Ok(());
        }
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
