//! Steps of work as the user sees them.
//!
//! On a terminal a step is one line that is redrawn, with a spinner and, after a second, the time it takes. Elsewhere a
//! step is one line when it ends; one that takes more than a second also says what it is at, now and then.

use std::{
    io::{IsTerminal, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use yado_types::clock::{Clock, SystemClock};

use crate::args::When;

/// Fast enough to look alive, slow enough to cost nothing.
const FRAME: Duration = Duration::from_millis(100);
/// Where nothing can be redrawn: after this a step says what it is at.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// And again after each of these, if that has changed: often enough to be believed, seldom enough to be read.
const NEXT_WORD: Duration = Duration::from_secs(5);
const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

/// Prints steps to standard error. Cheap to clone.
#[derive(Clone)]
pub struct Progress {
    live: bool,
    colour: bool,
    quiet: bool,
    clock: Arc<dyn Clock>,
}

impl Progress {
    /// For standard error, as it is and as `when` says.
    pub fn stderr(when: When) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Progress {
            live: terminal && when != When::Never,
            colour: use_colour(when, terminal),
            quiet: false,
            clock: SystemClock::shared(),
        }
    }

    /// Prints nothing at all.
    pub fn none() -> Self {
        Progress { live: false, colour: false, quiet: true, clock: SystemClock::shared() }
    }

    /// Begins a step, such as `build`; `detail` says what of.
    pub fn step(&self, name: impl Into<String>, detail: impl Into<String>) -> Step {
        let line = Line { name: name.into(), detail: detail.into(), over: false };
        let shared = Arc::new(Shared { line: Mutex::new(line), changed: Condvar::new() });
        let started = self.clock.monotonic();
        let painter = (!self.quiet).then(|| {
            let (shared, progress) = (shared.clone(), self.clone());
            let paint = if self.live { Progress::spin } else { Progress::tell };
            std::thread::spawn(move || paint(&progress, &shared, started))
        });
        Step { progress: self.clone(), shared, started, painter }
    }

    /// A line of its own, between steps.
    pub fn say(&self, line: impl AsRef<str>) {
        if !self.quiet {
            write_stderr(&format!("{}\n", line.as_ref()));
        }
    }

    /// A line that is a warning.
    pub fn warn(&self, line: impl AsRef<str>) {
        self.say(format!("{} {}", self.paint("33", "warning:"), line.as_ref()));
    }

    /// Redraws a step's line until it is over.
    fn spin(&self, shared: &Shared, started: Duration) {
        let mut frame = 0;
        let mut line = shared.line();
        while !line.over {
            let text = format!(
                "\r\x1b[2K{} {:<9} {}{}",
                self.paint("36", SPINNER[frame % SPINNER.len()]),
                line.name,
                fitting(&line.detail),
                self.elapsed(started)
            );
            write_stderr(&text);
            frame += 1;
            line = shared.wait(line, FRAME);
        }
        write_stderr("\r\x1b[2K");
    }

    /// Says what a long step is at, each time on a line of its own.
    fn tell(&self, shared: &Shared, started: Duration) {
        let mut said = None;
        let mut next = started + FIRST_WORD;
        let mut line = shared.line();
        while !line.over {
            let left = next.saturating_sub(self.clock.monotonic());
            if !left.is_zero() {
                line = shared.wait(line, left);
                continue;
            }
            next += NEXT_WORD;
            if said.as_ref() != Some(&line.detail) {
                write_stderr(&format!("… {:<9} {}{}\n", line.name, line.detail, self.elapsed(started)));
                said = Some(line.detail.clone());
            }
        }
    }

    fn end(&self, mark: &str, colour: &str, line: &Line, started: Duration) {
        if self.quiet {
            return;
        }
        let mark = self.paint(colour, mark);
        write_stderr(&format!("{mark} {:<9} {}{}\n", line.name, line.detail, self.elapsed(started)));
    }

    /// The time since `started`, if it is worth saying.
    fn elapsed(&self, started: Duration) -> String {
        let elapsed = self.clock.monotonic().saturating_sub(started);
        if elapsed < Duration::from_secs(1) {
            return String::new();
        }
        self.paint("2", &format!(" {:.1} s", elapsed.as_secs_f64()))
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() }
    }
}

/// Whether colours are wanted on a stream that is or is not a terminal. See <https://no-color.org>.
pub fn use_colour(when: When, terminal: bool) -> bool {
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
    }
}

/// One step. Dropped without an end, as by an error, it counts as failed.
pub struct Step {
    progress: Progress,
    shared: Arc<Shared>,
    started: Duration,
    painter: Option<JoinHandle<()>>,
}

struct Shared {
    line: Mutex<Line>,
    changed: Condvar,
}

#[derive(Clone)]
struct Line {
    name: String,
    detail: String,
    over: bool,
}

impl Shared {
    fn line(&self) -> MutexGuard<'_, Line> {
        // A line of text is whole whatever a thread that held it did.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Waits until the line changes, and no longer than `at_most`.
    fn wait<'a>(&self, line: MutexGuard<'a, Line>, at_most: Duration) -> MutexGuard<'a, Line> {
        match self.changed.wait_timeout(line, at_most) {
            Ok((line, _)) => line,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }
}

impl Step {
    /// Says what the step is at now.
    pub fn detail(&self, detail: impl Into<String>) {
        self.shared.line().detail = detail.into();
        self.shared.changed.notify_all();
    }

    /// Ends the step well; `detail` says with what.
    pub fn done(mut self, detail: impl Into<String>) {
        self.finish(Some(detail.into()), "✓", "32");
    }

    /// Ends the step badly. The reason is in the error that follows.
    pub fn fail(mut self) {
        self.finish(None, "✗", "31");
    }

    fn finish(&mut self, detail: Option<String>, mark: &str, colour: &str) {
        let line = {
            let mut line = self.shared.line();
            if line.over {
                return;
            }
            line.over = true;
            if let Some(detail) = detail {
                line.detail = detail;
            }
            line.clone()
        };
        self.shared.changed.notify_all();
        if let Some(painter) = self.painter.take() {
            // It cannot panic; if it did, the last line would merely stay on the screen.
            let _ = painter.join();
        }
        self.progress.end(mark, colour, &line, self.started);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.finish(None, "✗", "31");
    }
}

/// As much of a line as fits, so that redrawing does not scroll.
fn fitting(text: &str) -> String {
    let width = terminal_size::terminal_size_of(std::io::stderr()).map_or(80, |(w, _)| usize::from(w.0));
    text.chars().take(width.saturating_sub(24)).collect()
}

fn write_stderr(text: &str) {
    // Where standard error is closed nobody looks at progress.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
