//! Go: the commands of the sources become programs in `/app/bin`; neither Go nor the modules are in the image.

use crate::build::plan::{Plan, Sources, Step, words};
use crate::image::Result;
use yado_types::procfile::ProcessType;

/// Without `-trimpath`: the sources are at the same place in every build, and with it Debian's compiled standard library
/// does not count, so that each program takes a minute more. Programs are named after the last part of their package's path; one at the top after the module.
const COMPILE: &str = "\
mkdir -p bin
go build -o bin/ ./...
[ -n \"$(ls bin)\" ] || { echo 'error: no package main is in the sources; a program needs one' >&2; exit 1; }
";

pub(super) fn plan(sources: &Sources) -> Result<Plan> {
    let module = sources.text("go.mod")?;
    let name = program(sources, module.as_deref());
    let mut plan = Plan {
        tools: words(&["golang-go", "gcc", "libc6-dev"]),
        compilers: words(&["build-essential", "git", "pkg-config"]),
        path: vec!["/app/bin"],
        processes: vec![ProcessType { name: "web".to_owned(), command: name.clone() }],
        ..Plan::default()
    };
    if let Some(text) = &module {
        // A module that is replaced by a directory of the sources cannot be had without these.
        let local =
            text.lines().any(|line| line.split("=>").nth(1).is_some_and(|to| to.trim().starts_with('.')));
        if text.contains("require") && !sources.has_dir("vendor") && !local {
            plan.before.push(Step {
                name: "dependencies",
                doing: "fetching the Go modules",
                dir: "/app",
                files: sources.files(&["go.mod", "go.sum"], "/app")?,
                script: "go mod download\n".to_owned(),
                outputs: vec!["opt/go/"],
                staged: true,
                env: environment(),
                ..Step::default()
            });
        }
    }
    let beginning = match module {
        Some(_) => String::new(),
        // Sources from before modules; what they import must be in the standard library, or in `vendor`.
        None if sources.has_dir("vendor") => {
            format!(
                "mkdir -p /var/tmp/go/src/{name}\ncp -r . /var/tmp/go/src/{name}/\nexport GOPATH=/var/tmp/go GO111MODULE=off\n"
            )
        }
        None => format!("go mod init local/{name} 2> /dev/null\n"),
    };
    let compile = match beginning.contains("GO111MODULE") {
        true => format!("mkdir -p bin\nout=$PWD/bin\ncd /var/tmp/go/src/{name}\ngo build -o $out/ ./...\n"),
        false => COMPILE.to_owned(),
    };
    plan.after.push(Step {
        name: "compile",
        doing: "compiling the Go programs",
        dir: "/app",
        script: beginning + &compile,
        outputs: vec!["app/bin/"],
        env: environment(),
        ..Step::default()
    });
    Ok(plan)
}

/// What the program at the top is called.
fn program(sources: &Sources, module: Option<&str>) -> String {
    let path = module.and_then(|text| text.lines().find_map(|line| line.trim().strip_prefix("module ")));
    let path = path.map(|p| p.trim().trim_matches('"').to_owned());
    let path = path.unwrap_or_else(|| sources.title());
    let mut parts = path.rsplit('/').filter(|part| !part.is_empty());
    let last = parts.next().unwrap_or("app");
    // `/v2` is a version of the module and no name.
    let is_version =
        last.strip_prefix('v').is_some_and(|v| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()));
    let name = if is_version { parts.next().unwrap_or(last) } else { last };
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' })
        .collect()
}

fn environment() -> Vec<(&'static str, String)> {
    [
        ("GOPATH", "/opt/go"),
        ("GOMODCACHE", "/opt/go/mod"),
        ("GOCACHE", "/var/tmp/go-build"),
        // Modules are files that their owner may delete, as all others.
        ("GOFLAGS", "-modcacherw -buildvcs=false"),
        ("GOTOOLCHAIN", "local"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}
