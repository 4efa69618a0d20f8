//! Node: npm, yarn or pnpm installs into `/opt/node`, and `/node_modules` leads there, where Node looks from `/app`.
//!
//! Packages that are part of the sources (workspaces, `file:`) can be installed only among them: then `node_modules`
//! is in `/app`.

use serde_json::Value;

use super::wrong;
use crate::build::plan::{Plan, Sources, Step, Wanted, web, words};
use crate::image::Result;

const MODULES: &str = "/opt/node";
/// With what the building takes beside.
const ALL_MODULES: &str = "/opt/node-all";

/// A `package.json`, as far as it concerns building.
struct Package {
    json: Value,
}

impl Package {
    fn read(sources: &Sources) -> Result<Option<Self>> {
        let Some(text) = sources.text("package.json")? else { return Ok(None) };
        let json: Value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
            .map_err(|e| wrong(sources, "package.json", format!("it is not valid JSON ({e})")))?;
        Ok(Some(Self { json }))
    }

    fn script(&self, name: &str) -> bool {
        self.json["scripts"][name].as_str().is_some_and(|script| !script.trim().is_empty())
    }

    fn dependencies(&self, table: &str) -> impl Iterator<Item = (&String, &Value)> {
        self.json[table].as_object().into_iter().flatten()
    }

    fn is_local(&self) -> bool {
        let local = |table: &str| {
            self.dependencies(table).filter_map(|(_, v)| v.as_str()).any(|version| {
                ["file:", "link:", "workspace:", "portal:", "./", "../"]
                    .iter()
                    .any(|p| version.starts_with(p))
            })
        };
        self.json.get("workspaces").is_some() || local("dependencies") || local("devDependencies")
    }

    fn has_dependencies(&self) -> bool {
        ["dependencies", "devDependencies", "optionalDependencies"]
            .iter()
            .any(|t| self.dependencies(t).next().is_some())
    }

    /// Without the scripts, which are there for the sources.
    fn manifest(&self) -> Vec<u8> {
        let mut json = self.json.clone();
        if let Some(object) = json.as_object_mut() {
            object.remove("scripts");
        }
        json.to_string().into_bytes()
    }
}

pub(super) fn plan(sources: &Sources) -> Result<Plan> {
    let mut plan = Plan {
        runtime: words(&["nodejs", "npm"]),
        path: vec!["/node_modules/.bin"],
        env: vec![("NODE_ENV", "production".to_owned())],
        ..Plan::default()
    };
    add(sources, &mut plan)?;
    if let Some(package) = Package::read(sources)? {
        if package.script("start") || sources.has("server.js") {
            plan.processes = web("npm start");
        } else if let Some(main) = package.json["main"].as_str() {
            plan.processes = web(format!("node {main}"));
        }
        if let Some(version) = package.json["engines"]["node"].as_str() {
            let (file, version) = ("package.json", version.trim().to_owned());
            plan.wanted = Some(Wanted { file, what: "Node", version, package: "nodejs" });
        }
    }
    if plan.processes.is_empty() {
        let main = sources.first(&["server.js", "app.js", "index.js", "main.js"]);
        plan.processes = main.map(|file| web(format!("node {file}"))).unwrap_or_default();
    }
    Ok(plan)
}

/// The steps of a `package.json`, which an application of another language may have too.
pub(super) fn add(sources: &Sources, plan: &mut Plan) -> Result<()> {
    let Some(package) = Package::read(sources)? else { return Ok(()) };
    if plan.compilers.is_empty() && !plan.tools.iter().any(|tool| tool == "build-essential") {
        plan.compilers = words(&["build-essential", "python3", "git"]);
    }
    let build = ["heroku-postbuild", "build"].into_iter().find(|script| package.script(script));
    let afterwards: String = ["postinstall"]
        .into_iter()
        .filter(|script| package.script(script))
        .chain(build)
        .map(|script| format!("npm run {script}\n"))
        .collect();
    if package.is_local() {
        return among_sources(sources, &package, &afterwards, plan);
    }
    if package.has_dependencies() {
        plan.ignored.push("node_modules");
        plan.before.push(installation(sources, &package, MODULES, false)?);
    }
    if afterwards.is_empty() {
        return Ok(());
    }
    let mut links = Vec::new();
    if package.has_dependencies() {
        plan.before.push(installation(sources, &package, ALL_MODULES, true)?);
        links.push(("/node_modules", "opt/node-all/node_modules"));
    }
    plan.after.push(Step {
        name: "compile",
        doing: "running the scripts of the package.json",
        dir: "/app",
        links,
        script: afterwards,
        outputs: vec!["app/"],
        env: environment(),
        ..Step::default()
    });
    Ok(())
}

/// All in `/app`, in one step: what is installed is not apart from the sources.
fn among_sources(sources: &Sources, package: &Package, afterwards: &str, plan: &mut Plan) -> Result<()> {
    let install = command(sources, package, true)?;
    plan.path.insert(0, "/app/node_modules/.bin");
    plan.ignored.push("**/node_modules");
    plan.after.push(Step {
        name: "dependencies",
        doing: "installing the Node packages",
        dir: "/app",
        script: format!("{install}{afterwards}rm -f node_modules/.package-lock.json\n"),
        outputs: vec!["app/"],
        env: environment(),
        ..Step::default()
    });
    Ok(())
}

fn installation(sources: &Sources, package: &Package, dir: &'static str, all: bool) -> Result<Step> {
    let lock =
        ["package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", ".npmrc", ".yarnrc"];
    let mut files = sources.files(&lock, dir)?;
    files.push((format!("{dir}/package.json"), package.manifest()));
    let install = command(sources, package, all)?;
    Ok(Step {
        name: "dependencies",
        doing: "installing the Node packages",
        dir,
        files,
        links: if all { Vec::new() } else { vec![("/node_modules", "opt/node/node_modules")] },
        // It tells where packages were fetched from, and helps nobody but the next `npm install`.
        script: format!(
            "{install}mkdir -p node_modules\nrm -f node_modules/.package-lock.json .npmrc .yarnrc\n"
        ),
        outputs: if all { vec!["opt/node-all/"] } else { vec!["opt/node/", "node_modules"] },
        staged: all,
        env: environment(),
        ..Step::default()
    })
}

/// By the lock file that is there.
fn command(sources: &Sources, package: &Package, all: bool) -> Result<String> {
    let npm = if all { "--include=dev" } else { "--omit=dev" };
    if let Some(lock) = sources.text("pnpm-lock.yaml")? {
        let version = named_version(package, "pnpm").unwrap_or_else(|| pnpm_of(&lock).to_owned());
        // Else it goes by NODE_ENV, which is that of the image.
        let which = if all { "--prod=false" } else { "--prod" };
        return Ok(format!("npx --yes pnpm@{version} install --frozen-lockfile {which}\n"));
    }
    if let Some(lock) = sources.text("yarn.lock")? {
        if lock.contains("# yarn lockfile v1") {
            let which = if all { "--production=false" } else { "--production=true" };
            return Ok(format!(
                "npx --yes yarn@1 install --frozen-lockfile --non-interactive --no-progress {which}\n"
            ));
        }
        // Later ones keep packages in archives unless told otherwise, and have no option to leave any out.
        let version = named_version(package, "yarn").unwrap_or_else(|| "4".to_owned());
        return Ok(format!(
            "export YARN_NODE_LINKER=node-modules YARN_ENABLE_GLOBAL_CACHE=false YARN_CACHE_FOLDER=/var/tmp/yarn\n\
             npx --yes @yarnpkg/cli-dist@{version} install --immutable\n"
        ));
    }
    if sources.first(&["package-lock.json", "npm-shrinkwrap.json"]).is_some() {
        return Ok(format!("npm ci {npm}\n"));
    }
    Ok(format!("npm install --no-package-lock {npm}\n"))
}

/// The version of `"packageManager": "yarn@3.2.1+sha224.…"`.
fn named_version(package: &Package, manager: &str) -> Option<String> {
    let (name, version) = package.json["packageManager"].as_str()?.split_once('@')?;
    let version = version.split('+').next().unwrap_or(version);
    let plain = version.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
    (name == manager && plain).then(|| version.to_owned())
}

/// Each version of pnpm reads few versions of lock files.
fn pnpm_of(lock: &str) -> &'static str {
    let line = lock.lines().find_map(|line| line.strip_prefix("lockfileVersion:")).unwrap_or_default();
    match line.trim().trim_matches(['\'', '"']).split('.').next() {
        Some("5") => "7",
        Some("6") => "8",
        _ => "9",
    }
}

fn environment() -> Vec<(&'static str, String)> {
    [
        ("NPM_CONFIG_CACHE", "/var/tmp/npm"),
        ("NPM_CONFIG_AUDIT", "false"),
        ("NPM_CONFIG_FUND", "false"),
        ("NPM_CONFIG_UPDATE_NOTIFIER", "false"),
        ("NPM_CONFIG_PROGRESS", "false"),
        ("YARN_CACHE_FOLDER", "/var/tmp/yarn"),
        ("npm_config_store_dir", "/var/tmp/pnpm"),
        ("NPM_CONFIG_NODEDIR", "/usr"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}
