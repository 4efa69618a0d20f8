//! Parsing. The grammar is that of the `cel` crate; its parser recurses deeply, so that it runs on a stack of its own.

use std::cell::Cell;
use std::io;

use cel::common::ast::{IdedExpr, SourceInfo};

use super::error::CompileError;

/// Longest expression, in bytes. The longest ones of published definitions have some 3,000.
const MAX_LENGTH: usize = 16 * 1024;
/// Levels of brackets, parentheses and conditions. The parser takes 150 KiB of stack for each in a debug build.
const MAX_NESTING: u16 = 100;
/// Stack for parsing. A chain of operators as long as an expression may be takes half of it in a debug build. The
/// memory is reserved only, and taken as it is used.
const STACK: usize = 64 << 20;
/// Problems that are reported of one expression.
const MAX_PROBLEMS: usize = 100;
/// Lines that are longer are not shown with a problem.
const MAX_SHOWN_LINE: usize = 16 * 1024;

/// Runs what compiles expressions on a stack that is large enough for it. Fails if no thread can be started.
pub fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread_local! {
        static IS_LARGE: Cell<bool> = const { Cell::new(false) };
    }
    if IS_LARGE.get() {
        return Ok(work());
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("cel-compile".to_owned()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, || {
            IS_LARGE.set(true);
            work()
        })?;
        thread.join().map_err(|_| io::Error::other("the compiler of expressions failed"))
    })
}

/// An expression as text, with the places of its parts.
pub struct Source {
    text: String,
    places: SourceInfo,
}

/// Something that is wrong with an expression.
pub struct Problem {
    /// The byte of the text where it is.
    pub offset: usize,
    /// The text of the token.
    pub text: String,
}

impl Source {
    /// Parses an expression. Macros are left as calls.
    pub fn parse(text: &str) -> Result<(IdedExpr, Self), CompileError> {
        if text.len() > MAX_LENGTH {
            return Err(CompileError(format!(
                "ERROR: <input>:-1:0: expression code point size exceeds limit: size: {}, limit {MAX_LENGTH}",
                text.len()
            )));
        }
        let parser = cel::Env::default().parser().enable_optional_syntax(true);
        match parser.max_recursion_depth(MAX_NESTING).parse_with_source_info(text) {
            Ok((expression, places)) => Ok((expression, Self { text: text.to_owned(), places })),
            Err(errors) => {
                let lines: Vec<String> = errors
                    .errors
                    .iter()
                    .map(|error| {
                        let is_nesting = error.msg.contains("Recursion limit");
                        let message =
                            if is_nesting { "expression recursion limit exceeded" } else { &error.msg };
                        let (line, column) = (error.pos.0.max(1) as usize, error.pos.1.max(1) as usize);
                        display(text, line, column, message)
                    })
                    .collect();
                Err(CompileError(lines.join("\n")))
            }
        }
    }

    /// Where a part of the expression is.
    pub fn offset(&self, id: u64) -> usize {
        self.places.offset_for(id).map_or(0, |(start, _)| start as usize)
    }

    /// All problems, in the order of their places.
    pub fn report(&self, mut problems: Vec<Problem>) -> CompileError {
        problems.sort_by_key(|problem| problem.offset);
        let more = problems.len().saturating_sub(MAX_PROBLEMS);
        let mut lines: Vec<String> = problems
            .iter()
            .take(MAX_PROBLEMS)
            .map(|problem| {
                let before = self.text.get(..problem.offset).unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                display(&self.text, line, column, &problem.text)
            })
            .collect();
        if more > 0 {
            lines.push(format!("{more} more errors were truncated"));
        }
        CompileError(lines.join("\n"))
    }
}

/// A problem with its place, the line, and a mark below the place.
fn display(text: &str, line: usize, column: usize, message: &str) -> String {
    let mut shown = format!("ERROR: <input>:{line}:{column}: {message}");
    let source = text.split('\n').nth(line - 1).filter(|source| source.len() <= MAX_SHOWN_LINE);
    if let Some(source) = source {
        let source = source.replace('\t', " ");
        let dots: String =
            source.chars().take(column - 1).map(|c| if c.is_ascii() { '.' } else { '\u{ff0e}' }).collect();
        let mark = if source.chars().nth(column - 1).is_none_or(|c| c.is_ascii()) { '^' } else { '\u{ff3e}' };
        shown.push_str(&format!("\n | {source}\n | {dots}{mark}"));
    }
    shown
}
