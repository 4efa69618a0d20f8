//! Python: pip installs into `/opt/venv`, which sees the packages of an Aptfile too.

use super::wrong;
use crate::build::plan::{Plan, Sources, Step, Wanted, web, words};
use crate::image::Result;
use yado_types::procfile::ProcessType;

/// Byte code is checked by nothing: the times of layers are not those that Python would compare.
const FINISH: &str = "\
find /opt/venv -name __pycache__ -prune -exec rm -rf {} +
python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib > /dev/null 2>&1 || true
";
const VENV: &str = "python3 -m venv --system-site-packages /opt/venv\n";
const PIP: &str = "pip install --no-cache-dir --no-compile --no-input --progress-bar off";

/// Turns a Pipfile or its lock into requirements; `develop` is left out.
const FROM_PIPFILE: &str = r#"
import json, os
def line(name, spec):
    if isinstance(spec, str):
        return name if spec == "*" else name + spec
    extras = "[" + ",".join(spec["extras"]) + "]" if spec.get("extras") else ""
    if "git" in spec:
        at = "@" + spec["ref"] if spec.get("ref") else ""
        text = f"{name}{extras} @ git+{spec['git']}{at}"
    elif "file" in spec:
        text = f"{name}{extras} @ {spec['file']}"
    else:
        version = spec.get("version", "*")
        text = name + extras + ("" if version == "*" else version)
    if spec.get("markers"):
        text += " ; " + spec["markers"]
    return text + "".join(" --hash=" + h for h in spec.get("hashes", []))
if os.path.exists("Pipfile.lock"):
    lock = json.load(open("Pipfile.lock"))
    packages, sources = lock.get("default", {}), lock.get("_meta", {}).get("sources", [])
else:
    import tomllib
    lock = tomllib.load(open("Pipfile", "rb"))
    packages, sources = lock.get("packages", {}), lock.get("source", [])
# The usual one is left to the machine's settings, which may name a mirror.
urls = [s["url"] for s in sources if "url" in s]
usual = lambda url: "://pypi.org/" in url or "://pypi.python.org/" in url
lines = []
for i, url in enumerate(urls):
    if not usual(url):
        lines.append(("--index-url " if i == 0 else "--extra-index-url ") + url)
    elif i > 0:
        lines.append("--extra-index-url " + url)
lines += [line(n, s) for n, s in packages.items()]
open("/var/tmp/requirements.txt", "w").write("".join(l + "\n" for l in lines))
"#;

const EXPORT_POETRY: &str = "\
python3 -m venv /var/tmp/poetry
/var/tmp/poetry/bin/pip install -q --no-cache-dir poetry poetry-plugin-export
/var/tmp/poetry/bin/poetry export --only main --no-interaction --no-ansi -o /var/tmp/requirements.txt
";
const EXPORT_UV: &str = "\
python3 -m venv /var/tmp/uv
/var/tmp/uv/bin/pip install -q --no-cache-dir uv
UV_PYTHON=/usr/bin/python3 /var/tmp/uv/bin/uv export -q --frozen --no-dev --no-emit-workspace -o /var/tmp/requirements.txt
";
/// The dependencies of a `pyproject.toml`'s standard table. Nothing where a build backend has to be asked for them.
const FROM_PROJECT: &str = r#"
import tomllib
project = tomllib.load(open("pyproject.toml", "rb")).get("project", {})
lines = project.get("dependencies", [])
open("/var/tmp/requirements.txt", "w").write("".join(l + "\n" for l in lines))
"#;
/// What a `pyproject.toml` wants for building the package that it describes, and what backends ask for beside that.
const FROM_BUILD_SYSTEM: &str = r#"
import os, tomllib
table = {}
if os.path.exists("pyproject.toml"):
    table = tomllib.load(open("pyproject.toml", "rb")).get("build-system", {})
lines = table.get("requires", ["setuptools"]) + ["wheel", "editables"]
open("/var/tmp/requirements.txt", "w").write("".join(l + "\n" for l in lines))
"#;
/// Lock files have hashes, and pip wants one for each package or for none. What comes from version control has none.
const INSTALL_LOCKED: &str = "\
if grep -Eq '@ (git|hg|svn|file)' /var/tmp/requirements.txt; then
  sed -i -e '/^ *--hash/d' -e 's/ --hash=[^ ]*//g' -e 's/ *\\\\$//' /var/tmp/requirements.txt
fi
";
/// The sources' own package, installed so that it is read from `/app`. What this takes was fetched before, or else is
/// fetched now.
const INSTALL_PROJECT: &str = "\
pip install --no-cache-dir --no-input --no-index --find-links /opt/backend -e . > /var/tmp/offline.log 2>&1 ||
";

pub(super) fn plan(sources: &Sources) -> Result<Plan> {
    let mut plan = Plan {
        // Packages with a part in C++ come compiled, and take its library for granted.
        runtime: words(&["python3", "python-is-python3", "libstdc++6"]),
        ignored: vec![".venv", "venv", "**/__pycache__", "*.egg-info"],
        path: vec!["/opt/venv/bin"],
        env: vec![("VIRTUAL_ENV", "/opt/venv".to_owned())],
        processes: processes(sources)?,
        wanted: wanted(sources)?,
        ..Plan::default()
    };
    let installation = installation(sources)?;
    if installation.script.is_empty() && installation.project.is_none() {
        plan.env.clear();
        return Ok(plan);
    }
    plan.tools = words(&["python3-venv"]);
    plan.compilers = words(&["build-essential", "python3-dev", "git"]);
    let step = Step {
        name: "dependencies",
        doing: "installing the Python packages",
        dir: "/app",
        script: format!("{VENV}{}{FINISH}", installation.script),
        outputs: vec!["opt/venv/"],
        env: environment(),
        ..Step::default()
    };
    match installation.files {
        Some(files) => plan.before.push(Step { files, ..step }),
        None => plan.after.push(step),
    }
    if let Some(project) = installation.project {
        add_project(sources, project, &mut plan)?;
    }
    if let Some(step) = static_files(sources)? {
        plan.after.push(step);
    }
    Ok(plan)
}

/// The steps that install the sources' own package, over what it depends on.
fn add_project(sources: &Sources, project: Project, plan: &mut Plan) -> Result<()> {
    plan.before.push(Step {
        name: "backend",
        doing: "fetching what builds the Python package",
        dir: "/app",
        files: sources.files(&["pyproject.toml"], "/app")?,
        script: format!(
            "python3 - <<'END'{FROM_BUILD_SYSTEM}END\npip wheel -q --no-cache-dir -w /opt/backend -r /var/tmp/requirements.txt\n"
        ),
        outputs: vec!["opt/backend/"],
        staged: true,
        env: environment(),
        ..Step::default()
    });
    plan.after.push(Step {
        name: "package",
        doing: "installing the sources as a Python package",
        dir: "/app",
        script: format!("{INSTALL_PROJECT}{PIP} -e .\n{FINISH}"),
        outputs: vec!["opt/venv/"],
        optional: project == Project::BesideItsDependencies,
        env: environment().into_iter().chain([("PIP_USE_PEP517", "1".to_owned())]).collect(),
        ..Step::default()
    });
    Ok(())
}

fn environment() -> Vec<(&'static str, String)> {
    vec![("PIP_DISABLE_PIP_VERSION_CHECK", "1".to_owned()), ("PIP_ROOT_USER_ACTION", "ignore".to_owned())]
}

type Files = Vec<(String, Vec<u8>)>;

/// How what the sources need is installed.
#[derive(Default)]
struct Installation {
    /// Installs dependencies.
    script: String,
    /// The files that this takes; `None` where it takes all sources.
    files: Option<Files>,
    /// Where the sources are a package themselves.
    project: Option<Project>,
}

/// The sources as a package.
#[derive(Clone, Copy, PartialEq)]
enum Project {
    /// All it needs is installed; where it cannot be built as a package, it may run as files.
    BesideItsDependencies,
    /// Only installing it installs all that it needs.
    WithItsDependencies,
}

fn installation(sources: &Sources) -> Result<Installation> {
    let script = |text: &str| {
        format!("python3 - <<'END'{text}END\n{INSTALL_LOCKED}{PIP} -r /var/tmp/requirements.txt\n")
    };
    if sources.has("requirements.txt") {
        let files = requirements(sources)?;
        return Ok(Installation { script: format!("{PIP} -r requirements.txt\n"), files, project: None });
    }
    if let Some(file) = sources.first(&["Pipfile.lock", "Pipfile"]) {
        let files = sources.files(&[file], "/app")?;
        let local = String::from_utf8_lossy(&files[0].1).contains("\"path\"");
        let files = (!local).then_some(files);
        return Ok(Installation { script: script(FROM_PIPFILE), files, project: None });
    }
    let project = sources.text_or_empty("pyproject.toml")?;
    // Both tools write their lock files out as requirements, which pip fetches from where this machine's settings say.
    let exporter = [("poetry.lock", EXPORT_POETRY), ("uv.lock", EXPORT_UV)];
    if let Some((lock, export)) = exporter.into_iter().find(|(lock, _)| sources.has(lock)) {
        let local = ["path =", "path=", "[tool.uv.workspace]"].iter().any(|sign| project.contains(sign));
        let files = sources.files(&["pyproject.toml", lock, ".python-version"], "/app")?;
        return Ok(Installation {
            script: format!("{export}{INSTALL_LOCKED}{PIP} -r /var/tmp/requirements.txt\n"),
            files: (!local).then_some(files),
            project: is_package(sources, &project).then_some(Project::BesideItsDependencies),
        });
    }
    let is_built = project.contains("[build-system]") || sources.has("setup.py");
    let told = project.contains("\ndependencies") && !project.contains("[tool.poetry");
    if told || (!project.is_empty() && !is_built) {
        return Ok(Installation {
            script: script(FROM_PROJECT),
            files: Some(sources.files(&["pyproject.toml"], "/app")?),
            project: is_built.then_some(Project::BesideItsDependencies),
        });
    }
    if !is_built {
        return Ok(Installation::default());
    }
    // Its own program says what it needs. Most tell without the sources too; where one does not, all is fetched again
    // after each change.
    let manifests =
        ["pyproject.toml", "setup.py", "setup.cfg", "README.md", "README.rst", "README", "VERSION"];
    Ok(Installation {
        script: format!("cp -r . /var/tmp/sources\n{PIP} /var/tmp/sources || echo 'it takes the sources'\n"),
        files: Some(sources.files(&manifests, "/app")?),
        project: Some(Project::WithItsDependencies),
    })
}

/// Whether a project whose dependencies are locked is more than files that lie at the top.
fn is_package(sources: &Sources, project: &str) -> bool {
    let scripts = project.contains("[project.scripts]") || project.contains("[tool.poetry.scripts]");
    project.contains("[build-system]") && (sources.has_dir("src") || scripts)
}

/// `requirements.txt` and what it includes; `None` where it names a directory of the sources.
fn requirements(sources: &Sources) -> Result<Option<Files>> {
    let (mut files, mut waiting) = (Files::new(), vec!["requirements.txt".to_owned()]);
    while let Some(name) = waiting.pop() {
        if files.iter().any(|(path, _)| *path == format!("/app/{name}")) {
            continue;
        }
        let Some(bytes) = sources.bytes(&name)? else {
            return Err(wrong(sources, &name, "it is included by the requirements but does not exist"));
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let folder = name.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        for line in text.lines().map(str::trim) {
            let option = |names: &[&str]| {
                names
                    .iter()
                    .find_map(|n| line.strip_prefix(n))
                    .map(|rest| rest.trim_start_matches(['=', ' ']).trim())
            };
            if let Some(included) = option(&["-r ", "--requirement", "-c ", "--constraint"]) {
                waiting.push(format!("{folder}{}", included.trim_start_matches("./")));
            } else if line == "."
                || line.starts_with("./")
                || line.starts_with("../")
                || line.starts_with("file:.")
            {
                return Ok(None);
            } else if let Some(editable) = option(&["-e ", "--editable"])
                && !editable.contains("://")
            {
                return Ok(None);
            }
        }
        files.push((format!("/app/{name}"), bytes));
    }
    files.sort();
    Ok(Some(files))
}

fn wanted(sources: &Sources) -> Result<Option<Wanted>> {
    let version = |file: &'static str, text: Option<String>| {
        let line = text?.lines().next().unwrap_or_default().trim().to_owned();
        let version = line.trim_start_matches("python-").to_owned();
        Some(Wanted { file, what: "Python", version, package: "python3" })
    };
    let by_heroku = version("runtime.txt", sources.text("runtime.txt")?);
    Ok(by_heroku.or(version(".python-version", sources.text(".python-version")?)))
}

fn processes(sources: &Sources) -> Result<Vec<ProcessType>> {
    let named = sources.text_or_empty("requirements.txt")? + &sources.text_or_empty("Pipfile")?;
    if sources.has("manage.py") {
        let module = sources.search(|name| name == "wsgi.py").into_iter().next();
        let module = module.map(|path| path.trim_end_matches(".py").replace('/', "."));
        return Ok(match module.filter(|_| named.to_lowercase().contains("gunicorn")) {
            Some(module) => web(format!("gunicorn {module} --bind 0.0.0.0:$PORT")),
            None => web("python manage.py runserver 0.0.0.0:$PORT"),
        });
    }
    let main = ["app.py", "main.py", "server.py", "run.py", "wsgi.py", "application.py", "index.py"];
    let only = || sources.search(|name| name.ends_with(".py")).into_iter().filter(|path| !path.contains('/'));
    let main =
        sources.first(&main).map(str::to_owned).or_else(|| only().next().filter(|_| only().count() == 1));
    Ok(main.map(|file| web(format!("python {file}"))).unwrap_or_default())
}

/// Django's, where its settings say that there are some.
fn static_files(sources: &Sources) -> Result<Option<Step>> {
    if !sources.has("manage.py") {
        return Ok(None);
    }
    let mut collected = false;
    for file in sources.search(|name| name.ends_with(".py")).iter().filter(|path| path.contains("settings")) {
        collected |=
            sources.text_or_empty(file)?.lines().any(|line| line.trim_start().starts_with("STATIC_ROOT"));
    }
    Ok(collected.then(|| Step {
        name: "compile",
        doing: "collecting the static files (`python manage.py collectstatic`)",
        dir: "/app",
        script: "python manage.py collectstatic --noinput\n".to_owned(),
        outputs: vec!["app/"],
        // It needs the settings, and these may need what only the running application has.
        optional: true,
        env: vec![("PYTHONDONTWRITEBYTECODE", "1".to_owned())],
        ..Step::default()
    }))
}
