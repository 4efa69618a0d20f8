//! A container's output, as lines of the CRI format, in files of bounded size and number.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use crate::spec::LogSpec;

/// A longer line is split into `P` pieces of this size, as other CRI runtimes do.
const LINE_MAX: usize = 16 << 10;

/// Which of a container's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Writes what a container says. It never fails: lines that cannot be written are counted, and the count is
/// reported in the log itself once writing works again.
pub struct Logger {
    spec: LogSpec,
    file: Option<File>,
    size: u64,
    /// Bytes after the last newline; at most [`LINE_MAX`] each.
    pending: [Vec<u8>; 2],
    dropped: u64,
}

impl Logger {
    pub fn new(spec: LogSpec) -> Self {
        let mut logger = Self { spec, file: None, size: 0, pending: Default::default(), dropped: 0 };
        logger.open();
        logger
    }

    fn open(&mut self) {
        self.file = OpenOptions::new().create(true).append(true).open(&self.spec.path).ok();
        self.size = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len());
    }

    /// Takes bytes as they come from the pipe.
    pub fn feed(&mut self, stream: Stream, bytes: &[u8], now: i128) {
        let time = rfc3339(now);
        let mut pending = std::mem::take(&mut self.pending[stream as usize]);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, whole) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let mut text = text;
            while pending.len() + text.len() > LINE_MAX {
                let (now, later) = text.split_at(LINE_MAX - pending.len());
                pending.extend_from_slice(now);
                self.line(&time, stream, b'P', &pending);
                pending.clear();
                text = later;
            }
            if whole && pending.is_empty() {
                self.line(&time, stream, b'F', text);
                continue;
            }
            pending.extend_from_slice(text);
            if whole {
                self.line(&time, stream, b'F', &pending);
                pending.clear();
            }
        }
        if !pending.is_empty() {
            self.pending[stream as usize] = pending;
        }
    }

    /// The stream has ended; a last line without its newline counts as whole.
    pub fn end(&mut self, stream: Stream, now: i128) {
        let pending = std::mem::take(&mut self.pending[stream as usize]);
        if !pending.is_empty() {
            self.line(&rfc3339(now), stream, b'F', &pending);
        }
    }

    fn line(&mut self, time: &str, stream: Stream, tag: u8, text: &[u8]) {
        let mut line = Vec::with_capacity(time.len() + text.len() + 12);
        if self.dropped > 0 {
            let count = self.dropped;
            // Writing to a vector cannot fail.
            let _ = writeln!(
                line,
                "{time} stderr F yado: {count} lines were dropped, the log could not be written"
            );
        }
        let _ = write!(line, "{time} {} {} ", stream.name(), char::from(tag));
        line.extend_from_slice(text);
        line.push(b'\n');
        match self.write(&line) {
            Ok(()) => self.dropped = 0,
            Err(_) => self.dropped += 1,
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + line.len() as u64 > self.spec.max_bytes {
            self.rotate();
        }
        if self.file.is_none() {
            self.open();
        }
        let Some(file) = self.file.as_mut() else { return Err(io::ErrorKind::NotFound.into()) };
        match file.write(line) {
            Ok(count) if count == line.len() => {
                self.size += count as u64;
                Ok(())
            }
            Ok(_) => {
                // A full disk took a part of it; without the rest it would spoil the next line.
                let _ = file.set_len(self.size);
                Err(io::ErrorKind::StorageFull.into())
            }
            Err(error) => Err(error),
        }
    }

    /// `log` becomes `log.1`, `log.1` becomes `log.2`; the oldest goes. With one file, it starts again from nothing.
    fn rotate(&mut self) {
        let numbered = |number: u32| {
            let mut path = self.spec.path.clone().into_os_string();
            path.push(format!(".{number}"));
            PathBuf::from(path)
        };
        let kept = self.spec.max_files.max(1) - 1;
        for number in (1..kept).rev() {
            // A gap in the numbers is no reason to stop.
            let _ = fs::rename(numbered(number), numbered(number + 1));
        }
        if kept == 0 || fs::rename(&self.spec.path, numbered(1)).is_err() {
            let _ = OpenOptions::new().write(true).truncate(true).open(&self.spec.path);
        }
        self.file = None;
        self.open();
    }
}

/// `2026-11-21T03:58:35.123456789Z`, from nanoseconds since the Unix epoch. Days to dates after Howard Hinnant's
/// `civil_from_days`.
fn rfc3339(ns: i128) -> String {
    let (seconds, nanos) = (ns.div_euclid(1_000_000_000) as i64, ns.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let rows = [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (1_795_233_515_123_456_789, "2026-11-21T03:58:35.123456789Z"),
        ];
        for (ns, expect) in rows {
            assert_eq!(rfc3339(ns), expect);
        }
    }

    fn check(max_bytes: u64, max_files: u32, chunks: &[(Stream, &[u8])], expect: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut logger = Logger::new(LogSpec { path: path.clone(), max_bytes, max_files });
        for (stream, bytes) in chunks {
            logger.feed(*stream, bytes, 0);
        }
        logger.end(Stream::Stdout, 0);
        logger.end(Stream::Stderr, 0);
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        let files: Vec<String> = names
            .iter()
            .map(|name| {
                let text = fs::read_to_string(dir.path().join(name)).unwrap();
                let short = text
                    .replace("1970-01-01T00:00:00.000000000Z ", "")
                    .replace(&"x".repeat(LINE_MAX), "X16K");
                format!("{}: {}", name.to_string_lossy(), short.replace('\n', "|"))
            })
            .collect();
        assert_eq!(files, expect);
    }

    #[test]
    fn lines_pieces_and_rotation() {
        use Stream::{Stderr, Stdout};
        let chunks: &[(Stream, &[u8])] = &[(Stdout, b"a\nb"), (Stderr, b"c\n\n"), (Stdout, b"d\ne")];
        check(1 << 20, 3, chunks, &["log: stdout F a|stderr F c|stderr F |stdout F bd|stdout F e|"]);
        let long = "x".repeat(LINE_MAX + 3) + "\n";
        check(1 << 20, 3, &[(Stdout, long.as_bytes())], &["log: stdout P X16K|stdout F xxx|"]);
        let exact = "x".repeat(LINE_MAX) + "\n";
        check(1 << 20, 3, &[(Stdout, exact.as_bytes())], &["log: stdout F X16K|"]);
        let three: &[(Stream, &[u8])] = &[(Stdout, b"1\n2\n3\n4\n")];
        check(50, 3, three, &["log: stdout F 4|", "log.1: stdout F 3|", "log.2: stdout F 2|"]);
        check(50, 1, three, &["log: stdout F 4|"]);
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("later/log");
        let mut logger = Logger::new(LogSpec { path: path.clone(), max_bytes: 1000, max_files: 2 });
        logger.feed(Stream::Stdout, b"1\n2\n", 0);
        fs::create_dir(dir.path().join("later")).unwrap();
        logger.feed(Stream::Stdout, b"3\n", 0);
        let text = fs::read_to_string(path).unwrap().replace("1970-01-01T00:00:00.000000000Z ", "");
        assert_eq!(text, "stderr F yado: 2 lines were dropped, the log could not be written\nstdout F 3\n");
    }
}
