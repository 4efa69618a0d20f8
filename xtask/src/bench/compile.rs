//! Measurements of `yado compile` as a whole process, from its start until it has written the files and ended.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::cluster::yado;
use super::report::{Report, median, ms};

const RUNS: usize = 41;
const SERVICES: usize = 50;
const DEPENDENCIES: usize = 20;

pub fn measure(report: &mut Report) -> Result<()> {
    report.add(
        "start-up of the command line (`yado version`)",
        ms(times(&["version"], Path::new("/"))?),
        "10 ms",
    );
    let compose = tempfile::tempdir()?;
    fs::write(compose.path().join("compose.yaml"), project())?;
    let took = times(&["compile"], compose.path())?;
    report.add("`yado compile` of a compose file of 50 services", ms(took), "20 ms");
    let tree = tempfile::tempdir()?;
    applications(tree.path())?;
    let took = times(&["compile"], &tree.path().join("app"))?;
    report.add("`yado compile` of an Appfile with 20 dependencies", ms(took), "20 ms");
    Ok(())
}

/// The median of several runs, after one that fills the caches.
fn times(arguments: &[&str], directory: &Path) -> Result<Duration> {
    let mut all = Vec::with_capacity(RUNS);
    for run in 0..=RUNS {
        let began = Instant::now();
        let mut command = Command::new(yado());
        let output = command.args(arguments).current_dir(directory).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            bail!("yado {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        if run > 0 {
            all.push(began.elapsed());
        }
    }
    Ok(median(all))
}

/// Services as real files have them, each leaning on the one before.
fn project() -> String {
    let mut text =
        String::from("x-common: &common\n  restart: always\n  environment:\n    LANG: C.UTF-8\nservices:\n");
    for i in 0..SERVICES {
        let _ = write!(
            text,
            "  service{i}:\n    <<: *common\n    image: registry.example.com/team/service{i}:${{TAG:-1.{i}}}\n    \
             command: [\"serve\", \"--port\", \"80{i:02}\"]\n    ports: [\"90{i:02}:80{i:02}\"]\n    environment:\n      \
             NAME: service{i}\n      PEER: http://service{}:80\n    volumes: [\"data{i}:/data\", \"./conf{i}:/etc/app:ro\"]\n    \
             healthcheck:\n      test: [\"CMD\", \"curl\", \"-f\", \"http://localhost:80{i:02}/\"]\n      interval: 10s\n",
            i.saturating_sub(1)
        );
        if i > 0 {
            let _ = write!(
                text,
                "    depends_on:\n      service{}:\n        condition: service_healthy\n",
                i - 1
            );
        }
    }
    text.push_str("volumes:\n");
    (0..SERVICES).for_each(|i| text.push_str(&format!("  data{i}:\n")));
    text
}

/// An application and those it depends on, beside each other.
fn applications(directory: &Path) -> Result<()> {
    let mut app = String::from("application {\n  name = \"app\"\n  type = \"custom\"\n");
    for i in 0..DEPENDENCIES {
        let _ = writeln!(app, "  dependency {{ source = \"../dependency{i}\" }}");
        let place = directory.join(format!("dependency{i}"));
        fs::create_dir(&place)?;
        let text = format!(
            "application {{\n  name = \"dependency{i}\"\n  type = \"docker-external\"\n}}\n\
             customization \"docker\" {{\n  image = \"redis:7\"\n  run_args = \"-p 70{i:02}:6379\"\n}}\n"
        );
        fs::write(place.join("Appfile"), text)?;
        fs::write(place.join(".ottoid"), format!("00000000-0000-4000-8000-0000000000{i:02}\n"))?;
    }
    let place = directory.join("app");
    fs::create_dir(&place)?;
    fs::write(place.join("Appfile"), app + "}\n")?;
    fs::write(place.join("Procfile"), "web: ./serve\n")?;
    Ok(())
}
