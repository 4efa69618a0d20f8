//! Combines the commands of a unit to a plan: the main process and the commands before, beside and after it.

use std::collections::BTreeMap;

use super::{
    docker::{self, Action},
    text::Word,
    unit::{Command, Service, ServiceType},
};
use crate::diagnostic::{Findings, Position};

/// The parts of a unit.
#[derive(Debug, Default)]
pub struct Plan {
    pub main: MainCommand,
    /// Commands that have to end before the main process starts, in order.
    pub before: Vec<PreStart>,
    /// Containers that run in the background.
    pub beside: Vec<DockerRun>,
    /// Data containers, which only hold volumes.
    pub data: Vec<DockerRun>,
    /// Commands to execute in the main container after its start.
    pub inside: Vec<Vec<Word>>,
    /// Commands to execute in the main container before it is stopped.
    pub inside_stop: Vec<Vec<Word>>,
    /// The container on which the main process acts, if it belongs to another unit.
    pub of_other: Option<String>,
    /// Programs of the machine to run after the start.
    pub after: Vec<Command>,
    /// Programs of the machine that stop it.
    pub stop: Vec<Command>,
    /// Programs of the machine once it has stopped.
    pub cleanup: Vec<Command>,
    /// Stop timeout in seconds.
    pub stop_timeout: Option<i64>,
    /// Pulled images, and whether the pull may fail.
    pub pulls: BTreeMap<String, bool>,
}

/// The command of the main process.
#[derive(Debug, Default)]
pub enum MainCommand {
    /// None; an error has been reported.
    #[default]
    Nothing,
    /// `docker run`.
    Container(DockerRun),
    /// A program of the machine.
    Program(Command),
}

/// `docker exec`.
struct Exec {
    container: String,
    words: Vec<Word>,
    at: Position,
    /// Whether it runs when the container stops.
    late: bool,
}

/// The arguments of a `docker run` line.
#[derive(Debug, Clone)]
pub struct DockerRun {
    pub at: Position,
    pub words: Vec<Word>,
}

/// A command that runs before the main process.
#[derive(Debug)]
pub enum PreStart {
    Container(DockerRun),
    Program(Command),
}

impl DockerRun {
    fn new(command: &Command, words: Vec<Word>) -> Self {
        DockerRun { at: command.at.clone(), words }
    }

    /// The value of `--name`.
    pub fn name(&self) -> Option<String> {
        self.value_of("--name")
    }

    /// The value of a long flag.
    fn value_of(&self, flag: &str) -> Option<String> {
        let texts: Vec<String> = self.words.iter().map(Word::lossy).collect();
        let inline = format!("{flag}=");
        let once_short = inline[1..].to_string();
        texts.iter().enumerate().find_map(|(i, text)| {
            if text == flag || *text == flag[1..] {
                return texts.get(i + 1).cloned();
            }
            text.strip_prefix(&inline).or_else(|| text.strip_prefix(&once_short)).map(str::to_string)
        })
    }

    fn detached(&self) -> bool {
        let flags = self.words.iter().map(Word::lossy);
        flags.take_while(|w| !w.is_empty()).any(|w| {
            let short =
                w.strip_prefix('-').filter(|s| !s.starts_with('-') && s.chars().all(|c| "ditP".contains(c)));
            w == "--detach" || w == "--detach=true" || short.is_some_and(|s| s.contains('d'))
        })
    }

    /// Whether it is a data container: it has volumes, and its command ends immediately.
    fn holds_data(&self) -> bool {
        let texts: Vec<String> = self.words.iter().map(Word::lossy).collect();
        let volumes = texts.iter().any(|t| t.starts_with("-v") || t.starts_with("--volume"));
        let idle =
            ["true", "/bin/true", "echo", "/bin/echo", "/bin/sh", "sh", "bash", "/bin/bash", "/true", ":"];
        let last = texts.last().map(String::as_str).unwrap_or_default();
        let named = texts.iter().any(|t| t.contains("-data") || t.contains("_data"));
        volumes && (idle.contains(&last) || texts.iter().any(|t| idle[..4].contains(&t.as_str())) || named)
    }
}

/// Plans the commands of a service.
pub fn plan(service: &Service, found: &mut Findings) -> Plan {
    let mut plan = Plan { stop_timeout: service.stop_seconds, ..Plan::default() };
    let mut runs: Vec<DockerRun> = Vec::new();
    let mut execs: Vec<Exec> = Vec::new();
    let (last, firsts) = match service.start.split_last() {
        Some((last, firsts)) => (Some(last), firsts),
        None => (None, &[][..]),
    };
    for command in service.start_pre.iter().chain(firsts) {
        for action in docker::actions(&command.words, &service.variables) {
            match action {
                Action::Run(words) => runs.push(DockerRun::new(command, words)),
                Action::Host(_) => plan.before.push(PreStart::Program(command.clone())),
                Action::Exec(container, words) => execs.push(Exec::new(command, container, words, false)),
                other => plan.note(other, command),
            }
        }
        // The order is kept: a container that ends runs between the programs before and after it.
        while let Some(run) = runs.pop_if(|r| !r.detached() && !r.holds_data() && r.name().is_none()) {
            plan.before.push(PreStart::Container(run));
        }
    }
    if let Some(command) = last {
        plan.start(command, service, &mut runs, &mut execs, found);
    }
    for run in runs {
        if run.detached() && !run.holds_data() {
            plan.beside.push(run);
        } else if run.holds_data() {
            plan.data.push(run);
        } else {
            plan.before.push(PreStart::Container(run));
        }
    }
    for command in &service.start_post {
        for action in docker::actions(&command.words, &service.variables) {
            match action {
                Action::Exec(container, words) => execs.push(Exec::new(command, container, words, false)),
                Action::Host(_) => plan.after.push(command.clone()),
                Action::Run(words) => plan.beside.push(DockerRun::new(command, words)),
                other => plan.note(other, command),
            }
        }
    }
    let stops = service.stop.iter().map(|c| (c, false)).chain(service.stop_post.iter().map(|c| (c, true)));
    for (command, late) in stops {
        for action in docker::actions(&command.words, &service.variables) {
            match action {
                Action::Host(_) if is_kill(command) => {}
                Action::Host(_) if late => plan.cleanup.push(command.clone()),
                Action::Host(_) => plan.stop.push(command.clone()),
                Action::Stop(seconds) => plan.stop_timeout = Some(seconds),
                Action::Exec(container, words) => execs.push(Exec::new(command, container, words, true)),
                other => plan.note(other, command),
            }
        }
    }
    plan.forget_cidfile();
    plan.idle(service, found);
    if let (MainCommand::Program(command), None) = (&plan.main, &plan.of_other)
        && let Some(manager) = docker::called(&command.words)
    {
        found.warn(&command.at, as_it_is(manager));
        return on_machine(service);
    }
    plan.inside(execs, found);
    tell(&mut plan, found);
    plan
}

/// The plan of a service that needs Docker on the machine: every line runs there unchanged, management commands included.
pub fn on_machine(service: &Service) -> Plan {
    let Some((last, firsts)) = service.start.split_last() else { return Plan::default() };
    Plan {
        main: MainCommand::Program(last.clone()),
        before: service.start_pre.iter().chain(firsts).cloned().map(PreStart::Program).collect(),
        after: service.start_post.clone(),
        stop: service.stop.iter().filter(|c| !is_kill(c)).cloned().collect(),
        cleanup: service.stop_post.clone(),
        stop_timeout: service.stop_seconds,
        ..Plan::default()
    }
}

/// The warning about a command that calls a container manager of the machine.
fn as_it_is(manager: &str) -> String {
    if manager == "docker-compose" {
        return "this runs unchanged on the machine, where docker-compose and Docker have to be installed: `yado deploy` runs the compose file itself".into();
    }
    let shown = shown(manager);
    format!(
        "this is more than a plain {manager} command, so it runs unchanged on the machine, where {shown} has to be installed"
    )
}

impl Exec {
    fn new(command: &Command, container: String, words: Vec<Word>, late: bool) -> Self {
        Exec { container, words, at: command.at.clone(), late }
    }
}

impl Plan {
    /// The main process, from the last `ExecStart`.
    fn start(
        &mut self,
        command: &Command,
        service: &Service,
        runs: &mut Vec<DockerRun>,
        execs: &mut Vec<Exec>,
        found: &mut Findings,
    ) {
        let (mut attached, mut inside) = (None, None);
        for action in docker::actions(&command.words, &service.variables) {
            match action {
                Action::Run(words) => {
                    if let MainCommand::Container(earlier) = std::mem::take(&mut self.main) {
                        runs.push(earlier);
                    }
                    self.main = MainCommand::Container(DockerRun::new(command, words));
                }
                Action::Start(name) => attached = Some(name),
                Action::Exec(name, words) => inside = Some(Exec::new(command, name, words, false)),
                Action::Host(_) => self.main = MainCommand::Program(command.clone()),
                other => self.note(other, command),
            }
        }
        let name = attached.as_ref().or(inside.as_ref().map(|e| &e.container));
        if let (MainCommand::Nothing, Some(name)) = (&self.main, name) {
            // `docker start`, `attach`, `logs`, `wait` and `exec` keep the unit running as long as the container
            // created by an earlier line.
            match runs.iter().position(|r| r.name().as_deref() == Some(name)) {
                Some(at) => self.main = MainCommand::Container(runs.remove(at)),
                None if runs.len() == 1 && inside.is_none() => {
                    self.main = MainCommand::Container(runs.remove(0))
                }
                None => {
                    self.of_other = Some(name.clone());
                    self.main = MainCommand::Program(command.clone());
                    return;
                }
            }
        }
        match inside {
            Some(exec) if service.kind == ServiceType::Oneshot => execs.push(exec),
            Some(exec) => {
                let sentence = format!(
                    "what this runs in the container {} is left out, as the container itself is the unit's process here: write it as ExecStartPost if it ends by itself",
                    exec.container
                );
                found.warn(&command.at, sentence);
            }
            None => {}
        }
        // Only management commands or `true`: the purpose of the unit is the container started by an earlier line.
        if matches!(self.main, MainCommand::Nothing)
            && let Some(run) = runs.pop()
        {
            self.main = MainCommand::Container(run);
        }
    }

    /// Chooses the main process if the last `ExecStart` is only a management command, such as a pull, or `true`.
    fn idle(&mut self, service: &Service, found: &mut Findings) {
        if !matches!(self.main, MainCommand::Nothing) {
            return;
        }
        let Some(last) = service.start.last().or(service.stop.last()) else { return };
        let waits = !self.before.is_empty()
            || !self.after.is_empty()
            || !self.stop.is_empty()
            || !self.cleanup.is_empty();
        if let Some(PreStart::Container(run)) =
            self.before.pop_if(|step| matches!(step, PreStart::Container(_)))
        {
            self.main = MainCommand::Container(run);
        } else if service.start.is_empty() {
            self.main = MainCommand::Program(Command { words: vec![Word::of("/bin/true")], ..last.clone() });
        } else if docker::called(&last.words).is_none() && (waits || service.kind != ServiceType::Oneshot) {
            self.main = MainCommand::Program(last.clone());
        } else if waits && service.kind == ServiceType::Oneshot {
            self.main = MainCommand::Program(Command { words: vec![Word::of("/bin/true")], ..last.clone() });
        } else if !self.pulls.is_empty() {
            found.warn(
                &last.at,
                "only prepares images, so nothing runs: images are pulled when they are used",
            );
        } else if docker::called(&last.words).is_some() {
            found.warn(
                &last.at,
                "only looks after Docker's containers and images, so nothing runs: what is no longer used goes by itself here",
            );
        } else {
            found.warn(&last.at, "does nothing, so nothing runs");
        }
    }

    /// Drops commands that remove the file of `--cidfile`, which does not exist here.
    fn forget_cidfile(&mut self) {
        let MainCommand::Container(run) = &self.main else { return };
        let Some(file) = run.value_of("--cidfile") else { return };
        let removes = |command: &Command| {
            let words: Vec<String> = command.words.iter().map(Word::lossy).collect();
            let rm = words.first().is_some_and(|w| w.rsplit('/').next() == Some("rm"));
            rm && words.iter().skip(1).all(|w| w.starts_with('-') || *w == file)
        };
        self.before.retain(|step| !matches!(step, PreStart::Program(command) if removes(command)));
        self.after.retain(|command| !removes(command));
        self.stop.retain(|command| !removes(command));
        self.cleanup.retain(|command| !removes(command));
    }

    /// Adds the commands that are executed in the main container.
    fn inside(&mut self, execs: Vec<Exec>, found: &mut Findings) {
        let main = if let MainCommand::Container(run) = &self.main { run.name() } else { None };
        for exec in execs {
            if main.as_ref() != Some(&exec.container) {
                let sentence = format!(
                    "what this runs in the container {} is left out, as that is in another Pod: write it into the unit that runs the container",
                    exec.container
                );
                found.warn(&exec.at, sentence);
            } else if exec.late {
                self.inside_stop.push(exec.words);
            } else {
                self.inside.push(exec.words);
            }
        }
    }

    fn note(&mut self, action: Action, command: &Command) {
        match action {
            Action::Pull(image) => {
                self.pulls.insert(image, command.may_fail);
            }
            Action::Stop(_) | Action::Nothing | Action::Start(_) | Action::Exec(..) => {}
            Action::Run(_) | Action::Host(_) => {}
        }
    }
}

/// Warns about programs that call Docker on the machine. If the main process is a container they are dropped, since
/// Docker does not know the containers of Pods.
fn tell(plan: &mut Plan, found: &mut Findings) {
    if !matches!(plan.main, MainCommand::Container(_)) {
        let before =
            plan.before.iter().filter_map(|s| if let PreStart::Program(c) = s { Some(c) } else { None });
        for command in before.chain(&plan.after).chain(&plan.stop).chain(&plan.cleanup) {
            if let Some(manager) = docker::called(&command.words) {
                found.warn(&command.at, as_it_is(manager));
            }
        }
        return;
    }
    let mut left_out = |command: &Command| {
        let Some(manager) = docker::called(&command.words) else { return true };
        found.warn(&command.at, left_out(manager, &command.words));
        false
    };
    plan.before.retain(|step| if let PreStart::Program(command) = step { left_out(command) } else { true });
    plan.after.retain(&mut left_out);
    plan.stop.retain(&mut left_out);
    plan.cleanup.retain(&mut left_out);
}

/// The display name of a container manager.
fn shown(manager: &str) -> &str {
    if manager == "docker" { "Docker" } else { manager }
}

/// The warning about a dropped call of Docker, with the alternative.
fn left_out(manager: &str, words: &[Word]) -> String {
    let verb = words.iter().map(Word::lossy).find_map(|text| {
        ["build", "load", "import"].into_iter().find(|v| text.split_whitespace().any(|w| w == *v))
    });
    match verb {
        Some("build") => {
            "the image is not built here: push it to a registry, or `yado image import` what `docker save` writes"
                .into()
        }
        Some(verb) => format!("{manager} {verb} is left out: `yado image import FILE` on the machine takes its place"),
        None => format!(
            "this is more than a plain {manager} command and is left out: {} does not know the containers here",
            shown(manager)
        ),
    }
}

/// Whether a command is `kill $MAINPID`, which is how Pods are stopped anyway.
fn is_kill(command: &Command) -> bool {
    let first = command.words.first().map(Word::lossy).unwrap_or_default();
    let last = command.words.last().map(Word::lossy).unwrap_or_default();
    first.rsplit('/').next() == Some("kill") && last == "1"
}
