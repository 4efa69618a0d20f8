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
    let (last, firsts) = match service.start.split_last() {
        Some((last, firsts)) => (Some(last), firsts),
        None => (None, &[][..]),
    };
    for command in service.start_pre.iter().chain(firsts) {
        for action in docker::actions(&command.words, &service.variables) {
            match action {
                Action::Run(words) => runs.push(Docker::new(command, words)),
                Action::Host(_) => plan.before.push(Step::Program(command.clone())),
                other => plan.note(other, command),
            }
        }
        // In order: a container that ends runs between the programs around it.
        while let Some(run) = runs.pop_if(|r| !r.detached() && !r.holds_data() && r.name().is_none()) {
            plan.before.push(Step::Container(run));
        }
    }
    if let Some(command) = last {
        plan.start(command, service, &mut runs, found);
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
                Action::Exec(_, words) => plan.inside.push(words),
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
                other => plan.note(other, command),
            }
        }
    }
    tell(&mut plan, found);
    plan
}

impl Plan {
    /// The main process, from the last `ExecStart`.
    fn start(&mut self, command: &Command, service: &Service, runs: &mut Vec<Docker>, found: &mut Findings) {
        let mut attached = None;
        for action in docker::actions(&command.words, &service.variables) {
            match action {
                Action::Run(words) => {
                    if let Main::Container(earlier) = std::mem::take(&mut self.main) {
                        runs.push(earlier);
                    }
                    self.main = Main::Container(Docker::new(command, words));
                }
                Action::Start(name) => attached = Some(name),
                Action::Host(_) => self.main = Main::Program(command.clone()),
                other => self.note(other, command),
            }
        }
        if let (Main::Nothing, Some(name)) = (&self.main, &attached) {
            // `docker start`, `attach`, `logs` and `wait` keep the unit running as long as a container that an earlier
            // line made.
            match runs.iter().position(|r| r.name().as_deref() == Some(name)) {
                Some(at) => self.main = Main::Container(runs.remove(at)),
                None if runs.len() == 1 => self.main = Main::Container(runs.remove(0)),
                None => {
                    let sentence =
                        format!("no docker run or docker create here says what the container {name} is");
                    found.warn(&command.at, format!("{sentence}; the line runs on the machine as it is"));
                    self.main = Main::Program(command.clone());
                }
            }
        }
        if matches!(self.main, Main::Nothing) {
            // Docker's house-keeping alone, such as a pull: what there is to do has an end.
            match runs.pop() {
                Some(run) => self.main = Main::Container(run),
                None if service.kind == ServiceType::Oneshot || !self.pulls.is_empty() => {}
                None => self.main = Main::Program(command.clone()),
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
    let calls = |command: &Command| docker::calls_docker(&command.words);
    if !matches!(plan.main, Main::Container(_)) {
        let before = plan.before.iter().filter_map(|s| if let Step::Program(c) = s { Some(c) } else { None });
        let main = if let Main::Program(command) = &plan.main { Some(command) } else { None };
        let all = before.chain(main).chain(&plan.after).chain(&plan.stop).chain(&plan.cleanup);
        for command in all.filter(|c| calls(c)) {
            let sentence = "this is more than a plain docker command, so it runs on the machine as it is, where Docker has to be";
            found.warn(&command.at, sentence);
        }
        return;
    }
    let mut left_out = |command: &Command| {
        if calls(command) {
            let sentence = "this is more than a plain docker command and is left out: Docker does not know the containers here";
            found.warn(&command.at, sentence);
        }
        !calls(command)
    };
    plan.before.retain(|step| if let Step::Program(command) = step { left_out(command) } else { true });
    plan.after.retain(&mut left_out);
    plan.stop.retain(&mut left_out);
    plan.cleanup.retain(&mut left_out);
}

/// `kill $MAINPID`, which is how Pods are stopped anyway.
fn is_kill(command: &Command) -> bool {
    let first = command.words.first().map(Word::lossy).unwrap_or_default();
    let last = command.words.last().map(Word::lossy).unwrap_or_default();
    first.rsplit('/').next() == Some("kill") && last == "1"
}
