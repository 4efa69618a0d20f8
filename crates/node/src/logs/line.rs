//! One record of a log, and what a reader wants to see of it; pure.

use std::ops::ControlFlow;

use bytes::BytesMut;
use jiff::Timestamp;

use super::Options;

/// `2026-11-21T03:58:35.123456789Z stdout F text`, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// Empty where the record is not in the format.
    pub time: &'a [u8],
    /// The line ends here; otherwise the next record goes on with it.
    pub full: bool,
    pub text: &'a [u8],
}

impl<'a> Record<'a> {
    /// What is not in the format is a whole line of text.
    pub(crate) fn parse(bytes: &'a [u8]) -> Self {
        let mut parts = bytes.splitn(4, |b| *b == b' ');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(time), Some(b"stdout" | b"stderr"), Some(tag @ (b"F" | b"P")), Some(text)) => {
                Self { time, full: tag == b"F", text }
            }
            _ => Self { time: b"", full: true, text: bytes },
        }
    }
}

/// Picks and shapes lines.
pub(crate) struct Filter {
    since: Option<Timestamp>,
    timestamps: bool,
    /// Bytes that may still be sent.
    left: Option<u64>,
    /// Lines still to be passed over.
    skip: u64,
    /// In the middle of a line.
    within: bool,
}

impl Filter {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            since: options.since,
            timestamps: options.timestamps,
            left: options.limit_bytes,
            skip: 0,
            within: false,
        }
    }

    /// Passes over so many lines first.
    pub(crate) fn skip(&mut self, lines: u64) {
        self.skip = lines;
    }

    /// Appends to `out` what the reader sees of a record, which is given without its newline. Breaks once the reader needs no
    /// further records.
    pub(crate) fn push(&mut self, record: &[u8], out: &mut BytesMut) -> ControlFlow<()> {
        if self.left == Some(0) {
            return ControlFlow::Break(());
        }
        let record = Record::parse(record);
        if self.skip > 0 {
            self.skip -= u64::from(record.full);
            return ControlFlow::Continue(());
        }
        if self.too_old(&record) {
            return ControlFlow::Continue(());
        }
        let before = out.len();
        if self.timestamps && !self.within && !record.time.is_empty() {
            out.extend_from_slice(record.time);
            out.extend_from_slice(b" ");
        }
        out.extend_from_slice(record.text);
        if record.full {
            out.extend_from_slice(b"\n");
        }
        self.within = !record.full;
        if let Some(left) = &mut self.left {
            let room = usize::try_from(*left).unwrap_or(usize::MAX);
            out.truncate(before.saturating_add(room));
            *left -= (out.len() - before) as u64;
        }
        if self.left == Some(0) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn too_old(&mut self, record: &Record) -> bool {
        let Some(since) = self.since else { return false };
        let time = std::str::from_utf8(record.time).ok().and_then(|t| t.parse::<Timestamp>().ok());
        match time {
            Some(time) if time < since => true,
            Some(_) => {
                // Times only grow: what follows is not old either.
                self.since = None;
                false
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[&str] = &[
        "2026-01-01T00:00:01.5Z stdout F one",
        "2026-01-01T00:00:02Z stdout P tw",
        "2026-01-01T00:00:02Z stdout F o",
        "2026-01-01T00:00:03Z stderr F ",
        "not in the format",
    ];

    fn check(options: Options, skip: u64, expect: &str) {
        let mut filter = Filter::new(&options);
        filter.skip(skip);
        let mut out = BytesMut::new();
        for record in LOG {
            if filter.push(record.as_bytes(), &mut out).is_break() {
                break;
            }
        }
        assert_eq!(String::from_utf8_lossy(&out), expect, "{options:?}");
    }

    #[test]
    fn lines_are_picked_and_shaped() {
        let plain = Options::default;
        check(plain(), 0, "one\ntwo\n\nnot in the format\n");
        check(plain(), 2, "\nnot in the format\n");
        check(
            Options { timestamps: true, ..plain() },
            0,
            "2026-01-01T00:00:01.5Z one\n2026-01-01T00:00:02Z two\n2026-01-01T00:00:03Z \nnot in the format\n",
        );
        let since = "2026-01-01T00:00:02Z".parse().ok();
        check(Options { since, ..plain() }, 0, "two\n\nnot in the format\n");
        check(Options { limit_bytes: Some(5), ..plain() }, 0, "one\nt");
        check(Options { limit_bytes: Some(0), ..plain() }, 0, "");
    }
}
