//! Work on the project itself: `cargo xtask test|tidy|bench|vm|demo-images`.
#![allow(clippy::print_stdout)] // it speaks to a terminal

mod bench;
mod demo_images;
mod kubectl;
mod test;
mod tidy;
mod vm;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

/// Option of `apt-get`: retry a mirror that does not respond.
const RETRIES: &str = "-oAcquire::Retries=5";

const USAGE: &str = "\
usage: cargo xtask COMMAND

  test [FILTER...]   install what the tests need, check format, lints and tidiness, run every test;
                     YADO_TEST_LANGUAGES=all (or ruby,node,php,go,rust,java) builds those languages' samples too
  bench [PART...]    measure the binary of the dist profile: daemon, workloads, api, memory, objects, compile, dev;
                     all of them by default
  demo-images [all]  build the images that example manifests ask for, as archives in target/images/; with `all` also
                     large ones, whose tests run where YADO_TEST_APPS=all
  vm [YADO]          run that binary, or the one of the dist profile, on a machine with cgroups of version 2 only and Debian's kernel,
                     emulated by qemu
  tidy               check the rules that the compiler does not: dependencies between crates, circles of modules, file sizes, bans
";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let done = match command.as_str() {
        "test" => test::run(&rest),
        "tidy" => tidy::run(),
        "bench" => bench::run(&rest),
        "demo-images" => demo_images::run(rest.iter().any(|word| word == "all")),
        "vm" => vm::run(&rest),
        "" | "help" | "--help" | "-h" => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        other => {
            eprintln!("xtask: there is no command {other:?}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root directory of the workspace.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The file to which tests append what they leave out; see the crate `testkit`.
fn test_notes() -> PathBuf {
    root().join("target/test-notes")
}

/// Prints a command and runs it in the root. Fails if the command does.
fn run(program: &str, args: &[&str]) -> Result<()> {
    println!("+ {program} {}", args.join(" "));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::env::split_paths(&path).chain([kubectl::tools()]))?;
    let mut command = Command::new(program);
    command.args(args).env("PATH", path).env("YADO_TEST_NOTES", test_notes());
    let status = command.current_dir(root()).status();
    let status = status.with_context(|| format!("{program} cannot be started; is it installed?"))?;
    if !status.success() {
        bail!("`{program} {}` failed: {status}", args.join(" "));
    }
    Ok(())
}

/// Whether a program is on the PATH.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}
