//! Rust: cargo's programs come to `/app/target/release`; neither cargo nor the crates are in the image.

use crate::build::plan::{Plan, Sources, Step, words};
use crate::image::Result;
use yado_types::procfile::ProcessType;

/// Crates and what was compiled of them, kept apart from the sources.
const SETUP: &str = "mkdir -p /opt/cargo/registry /opt/cargo/git $HOME/.cargo\n\
                     ln -s /opt/cargo/registry /opt/cargo/git $HOME/.cargo/\n";
pub(super) fn plan(sources: &Sources) -> Result<Plan> {
    let manifest = sources.text_or_empty("Cargo.toml")?;
    let name = package_name(&manifest);
    let mut plan = Plan {
        // The newer ones, where Debian has them beside its release's own.
        tools: words(&["cargo-web|cargo", "rustc-web|rustc", "gcc", "libc6-dev"]),
        compilers: words(&["build-essential", "git"]),
        ignored: vec!["target"],
        path: vec!["/app/target/release"],
        processes: name
            .iter()
            .map(|name| ProcessType { name: "web".to_owned(), command: name.clone() })
            .collect(),
        ..Plan::default()
    };
    if sources.has("Cargo.lock") {
        plan.before.push(dependencies(sources, &manifest)?);
    }
    plan.after.push(Step {
        name: "compile",
        doing: "compiling the Rust programs",
        dir: "/app",
        script: format!(
            "{SETUP}cargo build --release\nmkdir -p target/release\n\
             find /opt/cargo/target/release -maxdepth 1 -type f -perm -u+x ! -name '*.so' -exec cp {{}} target/release/ \\;\n\
             [ -n \"$(ls target/release)\" ] || {{ echo 'error: the sources have no program to run' >&2; exit 1; }}\n"
        ),
        outputs: vec!["app/target/"],
        env: environment(),
        ..Step::default()
    });
    Ok(plan)
}

/// With stand-ins for the sources, so that the crates are compiled as long as the lock file stays the same. What has
/// several packages of its own, or a build script, only has its crates fetched.
fn dependencies(sources: &Sources, manifest: &str) -> Result<Step> {
    let files =
        sources.files(&["Cargo.toml", "Cargo.lock", ".cargo/config.toml", "rust-toolchain.toml"], "/app")?;
    // An empty table only says that there is no workspace around it.
    let local = manifest.contains("members") || manifest.contains("path =");
    let simple = !local
        && !manifest.contains("[[")
        && !manifest.contains("[lib]")
        && !manifest.contains("build =")
        && !sources.has("build.rs");
    let mut script = SETUP.to_owned();
    if simple {
        let stand_in = if sources.has("src/lib.rs") { "mkdir src\n: > src/lib.rs\n" } else { "mkdir src\n" };
        script += stand_in;
        script += "echo 'fn main() {}' > src/main.rs\ncargo build --release --locked\n";
        // Whatever compiled the stand-ins must not be taken for the program itself.
        let name = package_name(manifest).unwrap_or_else(|| "*".to_owned());
        script += &format!("rm -rf /opt/cargo/target/release/.fingerprint/{name}-*\n");
    } else if !local {
        script += "mkdir src\necho 'fn main() {}' > src/main.rs\n: > src/lib.rs\n: > build.rs\ncargo fetch --locked || true\n";
    }
    Ok(Step {
        name: "dependencies",
        doing: "fetching and compiling the crates",
        dir: "/app",
        files,
        script,
        outputs: vec!["opt/cargo/"],
        staged: true,
        env: environment(),
        ..Step::default()
    })
}

/// Of the `[package]` table.
fn package_name(manifest: &str) -> Option<String> {
    let table = manifest.split("[package]").nth(1)?.split("\n[").next()?;
    let line =
        table.lines().find_map(|line| line.trim().strip_prefix("name")?.trim_start().strip_prefix('='))?;
    let name = line.split('#').next()?.trim().trim_matches(['"', '\'']);
    // It goes into scripts.
    name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).then(|| name.to_owned())
}

fn environment() -> Vec<(&'static str, String)> {
    [
        ("CARGO_TARGET_DIR", "/opt/cargo/target"),
        ("CARGO_INCREMENTAL", "0"),
        ("CARGO_TERM_COLOR", "never"),
        ("CARGO_NET_RETRY", "2"),
        ("CARGO_PROFILE_RELEASE_STRIP", "symbols"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}
