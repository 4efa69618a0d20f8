//! What the commands of a unit come to together: a main process, what runs before it, beside it and after it.

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
    pub main: Main,
    /// What has to end before the main process starts, in order.
    pub before: Vec<Step>,
    /// Containers that run beside it in the background.
    pub beside: Vec<Docker>,
    /// Containers that only hold volumes.
    pub data: Vec<Docker>,
    /// Commands within the main container, once it runs.
    pub inside: Vec<Vec<Word>>,
    /// Commands within the main container, before it is stopped.
    pub inside_stop: Vec<Vec<Word>>,
    /// The container that the main process is about, where no line of this unit makes it.
    pub of_other: Option<String>,
    /// Programs of the machine, once it runs.
    pub after: Vec<Command>,
    /// Programs of the machine that stop it.
    pub stop: Vec<Command>,
    /// Programs of the machine once it has stopped.
    pub cleanup: Vec<Command>,
    /// How long it may take to stop.
    pub patience: Option<i64>,
    /// Images that are pulled, to whether that may fail.
    pub pulls: BTreeMap<String, bool>,
}

/// The main process.
#[derive(Debug, Default)]
pub enum Main {
    /// There is none: a mistake has been noted.
    #[default]
    Nothing,
    /// `docker run`.
    Container(Docker),
    /// A program of the machine.
    Program(Command),
}

/// `docker exec`.
struct Exec {
    container: String,
    words: Vec<Word>,
    at: Position,
    /// When the container stops.
    late: bool,
}

/// The words behind `docker run`.
#[derive(Debug, Clone)]
pub struct Docker {
    pub at: Position,
    pub words: Vec<Word>,
}

/// One thing before the main process.
#[derive(Debug)]
pub enum Step {
    Container(Docker),
    Program(Command),
}

impl Docker {
    fn new(command: &Command, words: Vec<Word>) -> Self {
        Docker { at: command.at.clone(), words }
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

    /// Whether it is there for its volumes: it has some, and its command ends at once.
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

/// Makes a plan of a service.
pub fn plan(service: &Service, found: &mut Findings) -> Plan {
    let mut plan = Plan { patience: service.stop_seconds, ..Plan::default() };
    let mut runs: Vec<Docker> = Vec::new();
    let mut execs: Vec<Exec> = Vec::new();
    let (last, firsts) = match service.start.split_last() {
        Some((last, firsts)) => (Some(last), firsts),
        None => (None, &[][..]),
    };
    for command in service.start_pre.iter().chain(firsts) {
        for action in docker::actions(&command.words, &service.variables) {
            match action {
                Action::Run(words) => runs.push(Docker::new(command, words)),
                Action::Host(_) => plan.before.push(Step::Program(command.clone())),
                Action::Exec(container, words) => execs.push(Exec::new(command, container, words, false)),
                other => plan.note(other, command),
            }
        }
        // In order: a container that ends runs between the programs around it.
        while let Some(run) = runs.pop_if(|r| !r.detached() && !r.holds_data() && r.name().is_none()) {
            plan.before.push(Step::Container(run));
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
            plan.before.push(Step::Container(run));
        }
    }
    for command in &service.start_post {
        for action in docker::actions(&command.words, &service.variables) {
            match action {
                Action::Exec(container, words) => execs.push(Exec::new(command, container, words, false)),
                Action::Host(_) => plan.after.push(command.clone()),
                Action::Run(words) => plan.beside.push(Docker::new(command, words)),
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
                Action::Stop(seconds) => plan.patience = Some(seconds),
                Action::Exec(container, words) => execs.push(Exec::new(command, container, words, true)),
                other => plan.note(other, command),
            }
        }
    }
    plan.forget_cidfile();
    plan.idle(service, found);
    if let (Main::Program(command), None) = (&plan.main, &plan.of_other)
        && let Some(manager) = docker::called(&command.words)
    {
        found.warn(&command.at, as_it_is(manager));
        return on_machine(service);
    }
    plan.inside(execs, found);
    tell(&mut plan, found);
    plan
}

/// The plan of a service that needs Docker on the machine: every line runs there as it is, also those that look after
/// what the others leave.
pub fn on_machine(service: &Service) -> Plan {
    let Some((last, firsts)) = service.start.split_last() else { return Plan::default() };
    Plan {
        main: Main::Program(last.clone()),
        before: service.start_pre.iter().chain(firsts).cloned().map(Step::Program).collect(),
        after: service.start_post.clone(),
        stop: service.stop.iter().filter(|c| !is_kill(c)).cloned().collect(),
        cleanup: service.stop_post.clone(),
        patience: service.stop_seconds,
        ..Plan::default()
    }
}

/// What is told of a call of a program that manages containers on the machine.
fn as_it_is(manager: &str) -> String {
    if manager == "docker-compose" {
        return "this runs on the machine as it is, where docker-compose and Docker have to be: `yado deploy` runs the compose file itself".into();
    }
    let shown = shown(manager);
    format!(
        "this is more than a plain {manager} command, so it runs on the machine as it is, where {shown} has to be"
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
        runs: &mut Vec<Docker>,
        execs: &mut Vec<Exec>,
        found: &mut Findings,
    ) {
        let (mut attached, mut inside) = (None, None);
        for action in docker::actions(&command.words, &service.variables) {
            match action {
                Action::Run(words) => {
                    if let Main::Container(earlier) = std::mem::take(&mut self.main) {
                        runs.push(earlier);
                    }
                    self.main = Main::Container(Docker::new(command, words));
                }
                Action::Start(name) => attached = Some(name),
                Action::Exec(name, words) => inside = Some(Exec::new(command, name, words, false)),
                Action::Host(_) => self.main = Main::Program(command.clone()),
                other => self.note(other, command),
            }
        }
        let name = attached.as_ref().or(inside.as_ref().map(|e| &e.container));
        if let (Main::Nothing, Some(name)) = (&self.main, name) {
            // `docker start`, `attach`, `logs`, `wait` and `exec` keep the unit running as long as a container that an
            // earlier line made.
            match runs.iter().position(|r| r.name().as_deref() == Some(name)) {
                Some(at) => self.main = Main::Container(runs.remove(at)),
                None if runs.len() == 1 && inside.is_none() => self.main = Main::Container(runs.remove(0)),
                None => {
                    self.of_other = Some(name.clone());
                    self.main = Main::Program(command.clone());
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
        // Docker's house-keeping alone, or `true`: what an earlier line started is what the unit is for.
        if matches!(self.main, Main::Nothing)
            && let Some(run) = runs.pop()
        {
            self.main = Main::Container(run);
        }
    }

    /// Finds something to run where the last `ExecStart` is nothing but house-keeping, such as a pull, or `true`.
    fn idle(&mut self, service: &Service, found: &mut Findings) {
        if !matches!(self.main, Main::Nothing) {
            return;
        }
        let Some(last) = service.start.last().or(service.stop.last()) else { return };
        let waits = !self.before.is_empty()
            || !self.after.is_empty()
            || !self.stop.is_empty()
            || !self.cleanup.is_empty();
        if let Some(Step::Container(run)) = self.before.pop_if(|step| matches!(step, Step::Container(_))) {
            self.main = Main::Container(run);
        } else if service.start.is_empty() {
            self.main = Main::Program(Command { words: vec![Word::of("/bin/true")], ..last.clone() });
        } else if docker::called(&last.words).is_none() && (waits || service.kind != ServiceType::Oneshot) {
            self.main = Main::Program(last.clone());
        } else if waits && service.kind == ServiceType::Oneshot {
            self.main = Main::Program(Command { words: vec![Word::of("/bin/true")], ..last.clone() });
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

    /// Leaves out what removes the file of `--cidfile`, which nothing writes here.
    fn forget_cidfile(&mut self) {
        let Main::Container(run) = &self.main else { return };
        let Some(file) = run.value_of("--cidfile") else { return };
        let removes = |command: &Command| {
            let words: Vec<String> = command.words.iter().map(Word::lossy).collect();
            let rm = words.first().is_some_and(|w| w.rsplit('/').next() == Some("rm"));
            rm && words.iter().skip(1).all(|w| w.starts_with('-') || *w == file)
        };
        self.before.retain(|step| !matches!(step, Step::Program(command) if removes(command)));
        self.after.retain(|command| !removes(command));
        self.stop.retain(|command| !removes(command));
        self.cleanup.retain(|command| !removes(command));
    }

    /// Gives the main container the commands that are run within it.
    fn inside(&mut self, execs: Vec<Exec>, found: &mut Findings) {
        let main = if let Main::Container(run) = &self.main { run.name() } else { None };
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

/// Tells of programs of the machine that call Docker there. Beside a container they are left out: Docker does not know
/// the containers of Pods.
fn tell(plan: &mut Plan, found: &mut Findings) {
    if !matches!(plan.main, Main::Container(_)) {
        let before = plan.before.iter().filter_map(|s| if let Step::Program(c) = s { Some(c) } else { None });
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
    plan.before.retain(|step| if let Step::Program(command) = step { left_out(command) } else { true });
    plan.after.retain(&mut left_out);
    plan.stop.retain(&mut left_out);
    plan.cleanup.retain(&mut left_out);
}

/// The name of a program that manages containers, as its users write it.
fn shown(manager: &str) -> &str {
    if manager == "docker" { "Docker" } else { manager }
}

/// Why a call of Docker beside a container is left out, and what takes its place.
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

/// `kill $MAINPID`, which is how Pods are stopped anyway.
fn is_kill(command: &Command) -> bool {
    let first = command.words.first().map(Word::lossy).unwrap_or_default();
    let last = command.words.last().map(Word::lossy).unwrap_or_default();
    first.rsplit('/').next() == Some("kill") && last == "1"
}
