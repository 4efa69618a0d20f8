//! Python: pip installs into `/opt/venv`, which sees the packages of an Aptfile too.

use super::wrong;
use crate::build::plan::{Plan, Sources, Step, Wanted, web, words};
use crate::build::procfile::ProcessType;
use crate::image::Result;

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
    packages = json.load(open("Pipfile.lock")).get("default", {})
else:
    import tomllib
    packages = tomllib.load(open("Pipfile", "rb")).get("packages", {})
open("/var/tmp/requirements.txt", "w").write("".join(line(n, s) + "\n" for n, s in packages.items()))
"#;

/// The dependencies of a `pyproject.toml`, by the standard table or poetry's.
const FROM_PROJECT: &str = r#"
import tomllib
p = tomllib.load(open("pyproject.toml", "rb"))
lines = list(p.get("project", {}).get("dependencies", []))
open("/var/tmp/requirements.txt", "w").write("".join(l + "\n" for l in lines))
"#;

pub(super) fn plan(sources: &Sources) -> Result<Plan> {
    let mut plan = Plan {
        runtime: words(&["python3", "python-is-python3"]),
        ignored: vec![".venv", "venv", "**/__pycache__"],
        path: vec!["/opt/venv/bin"],
        env: vec![("VIRTUAL_ENV", "/opt/venv".to_owned())],
        processes: processes(sources)?,
        wanted: wanted(sources)?,
        ..Plan::default()
    };
    let (script, files) = installation(sources)?;
    let Some(script) = script else {
        plan.env.clear();
        return Ok(plan);
    };
    plan.tools = words(&["python3-venv"]);
    plan.compilers = words(&["build-essential", "python3-dev", "git"]);
    let needs_sources = files.is_none();
    let step = Step {
        name: "dependencies",
        doing: "installing the Python packages",
        dir: "/app",
        files: files.unwrap_or_default(),
        script: format!("{VENV}{script}{FINISH}"),
        outputs: vec!["opt/venv/"],
        env: vec![
            ("PIP_DISABLE_PIP_VERSION_CHECK", "1".to_owned()),
            ("PIP_ROOT_USER_ACTION", "ignore".to_owned()),
        ],
        ..Step::default()
    };
    if needs_sources {
        plan.after.push(step)
    } else {
        plan.before.push(step)
    }
    if let Some(step) = static_files(sources)? {
        plan.after.push(step);
    }
    Ok(plan)
}

type Files = Vec<(String, Vec<u8>)>;

/// How the dependencies are installed, and the files that this takes; `None` where it takes all sources.
fn installation(sources: &Sources) -> Result<(Option<String>, Option<Files>)> {
    if sources.has("requirements.txt") {
        let files = requirements(sources)?;
        return Ok((Some(format!("{PIP} -r requirements.txt\n")), files));
    }
    if let Some(file) = sources.first(&["Pipfile.lock", "Pipfile"]) {
        let files = sources.files(&[file], "/app")?;
        let local = String::from_utf8_lossy(&files[0].1).contains("\"path\"");
        let script = format!("python3 - <<'END'{FROM_PIPFILE}END\n{PIP} -r /var/tmp/requirements.txt\n");
        return Ok((Some(script), (!local).then_some(files)));
    }
    if sources.has("poetry.lock") {
        let script = "python3 -m venv /var/tmp/poetry\n/var/tmp/poetry/bin/pip install -q --no-cache-dir poetry\n\
                      /var/tmp/poetry/bin/poetry install --only main --no-root --no-interaction --no-ansi\n";
        let files = sources.files(&["pyproject.toml", "poetry.lock"], "/app")?;
        return Ok((Some(script.to_owned()), Some(files)));
    }
    if sources.has("uv.lock") {
        let script = "python3 -m venv /var/tmp/uv\n/var/tmp/uv/bin/pip install -q --no-cache-dir uv\n\
                      export UV_PROJECT_ENVIRONMENT=/opt/venv UV_PYTHON=/usr/bin/python3 UV_LINK_MODE=copy\n\
                      /var/tmp/uv/bin/uv sync --frozen --no-dev --no-install-project --inexact\n";
        let files = sources.files(&["pyproject.toml", "uv.lock", ".python-version"], "/app")?;
        return Ok((Some(script.to_owned()), Some(files)));
    }
    if sources.has("pyproject.toml") {
        let text = sources.text_or_empty("pyproject.toml")?;
        // A package that can be built is installed with what it needs; else only what it needs is.
        if text.contains("[build-system]") || sources.has("setup.py") {
            return Ok((Some(format!("cp -r . /var/tmp/sources\n{PIP} /var/tmp/sources\n")), None));
        }
        let script = format!("python3 - <<'END'{FROM_PROJECT}END\n{PIP} -r /var/tmp/requirements.txt\n");
        return Ok((Some(script), Some(sources.files(&["pyproject.toml"], "/app")?)));
    }
    if sources.has("setup.py") {
        return Ok((Some(format!("cp -r . /var/tmp/sources\n{PIP} /var/tmp/sources\n")), None));
    }
    Ok((None, None))
}

/// `requirements.txt` and what it includes; `None` where it names a directory of the sources.
fn requirements(sources: &Sources) -> Result<Option<Files>> {
    let (mut files, mut waiting) = (Files::new(), vec!["requirements.txt".to_owned()]);
    while let Some(name) = waiting.pop() {
        if files.iter().any(|(path, _)| *path == format!("/app/{name}")) {
            continue;
        }
        let Some(bytes) = sources.bytes(&name)? else {
            return Err(wrong(sources, &name, "it is included by the requirements and is not there"));
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
