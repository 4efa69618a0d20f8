//! What tests of all crates share: saying that something was not proved, so that a green run means what it names.
//!
//! A test that cannot run here calls [`skip!`] or [`not_proved!`] and returns. `cargo xtask test` collects both in the
//! file that `YADO_TEST_NOTES` names and lists them at its end.

use std::fmt::Arguments;
use std::io::Write;

/// Set to `1` in CI: there a test whose prerequisites are missing fails.
const REQUIRE: &str = "YADO_TEST_REQUIRE";
/// A file to which every test that proves nothing appends a line.
const NOTES: &str = "YADO_TEST_NOTES";

/// Says that a test proves nothing because the machine lacks a prerequisite: `skip!("mounting needs root")`. The caller
/// returns after it.
///
/// # Panics
/// Where `YADO_TEST_REQUIRE=1`, so that CI is not green without the proof.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => { $crate::skipped(format_args!($($reason)+)) };
}

/// Says that a part of the tests was left out on purpose, such as one that runs on demand or needs inputs from outside
/// the project: `not_proved!("WordPress: YADO_TEST_APPS=all runs it")`. Never fails.
#[macro_export]
macro_rules! not_proved {
    ($($reason:tt)+) => { $crate::left_out(format_args!($($reason)+)) };
}

/// See [`skip!`].
#[doc(hidden)]
#[track_caller]
pub fn skipped(reason: Arguments<'_>) {
    assert!(
        std::env::var(REQUIRE).as_deref() != Ok("1"),
        "this test would be skipped, which {REQUIRE}=1 forbids: {reason}"
    );
    left_out(reason);
}

/// See [`not_proved!`].
#[doc(hidden)]
pub fn left_out(reason: Arguments<'_>) {
    let thread = std::thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("a test"));
    eprint!("skipped: {line}");
    let Some(notes) = std::env::var_os(NOTES) else { return };
    let opened = std::fs::File::options().append(true).create(true).open(&notes);
    // One write, so that lines of tests that run at once do not mix.
    let written = opened.and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        panic!("{} cannot be written: {error}", notes.display());
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    /// Runs the test that skips in a process of its own, with the variables given.
    fn skipping(variables: &[(&str, &str)]) -> (bool, String) {
        let this = std::env::current_exe().expect("this program");
        let mut command = Command::new(this);
        command.args(["--exact", "tests::a_test_that_skips", "--ignored", "--nocapture"]);
        command.env_remove(super::REQUIRE).env_remove(super::NOTES).envs(variables.iter().copied());
        let output = command.output().expect("to run");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    #[test]
    #[ignore = "run by the test below"]
    fn a_test_that_skips() {
        skip!("no {}", "moon");
    }

    #[test]
    fn a_skipped_test_fails_where_proof_is_required() {
        let notes = std::env::temp_dir().join(format!("yado-notes-{}", std::process::id()));
        let path = notes.to_string_lossy().into_owned();
        let (passes, said) = skipping(&[(super::NOTES, &path)]);
        assert!(passes && said.contains("skipped: ") && said.contains("no moon"), "{said}");
        assert!(std::fs::read_to_string(&notes).expect("notes").ends_with("a_test_that_skips: no moon\n"));
        let (passes, said) = skipping(&[(super::REQUIRE, "1")]);
        assert!(!passes && said.contains("no moon"), "{said}");
        std::fs::remove_file(notes).expect("to remove");
    }
}
