//! Renders kustomizations and Helm charts to manifests with the user's own `kustomize`, `kubectl` or `helm`, so that the
//! result is the same as elsewhere.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::diagnostic::Diagnostic;

/// The file that makes a directory a chart.
const CHART: &str = "Chart.yaml";
/// The files that make a directory a kustomization, as kustomize looks for them.
const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// The tool that renders a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renderer {
    /// A directory with this kustomization in it.
    Kustomize(PathBuf),
    /// A chart with this `Chart.yaml` in it.
    Helm(PathBuf),
}

impl Renderer {
    /// The renderer of `directory`, if it contains a kustomization or a chart.
    pub fn of(directory: &Path) -> Option<Renderer> {
        let file = |name: &str| Some(directory.join(name)).filter(|p| p.is_file());
        if let Some(chart) = file(CHART) {
            return Some(Renderer::Helm(chart));
        }
        KUSTOMIZATIONS.into_iter().find_map(file).map(Renderer::Kustomize)
    }

    /// Whether a file name marks its directory as a kustomization or chart.
    pub fn is_named(name: &str) -> bool {
        name == CHART || KUSTOMIZATIONS.contains(&name)
    }

    /// The kustomization file or `Chart.yaml`.
    pub fn file(&self) -> &Path {
        match self {
            Renderer::Kustomize(file) | Renderer::Helm(file) => file,
        }
    }

    /// Renders the manifests to text. `name` is the release name of a chart.
    ///
    /// # Errors
    ///
    /// No suitable tool is installed, or the tool fails; the message contains its last lines.
    pub fn render(&self, name: &str) -> Result<String, Diagnostic> {
        let directory = self.file().parent().unwrap_or(Path::new("."));
        let commands: Vec<Vec<&str>> = match self {
            Renderer::Kustomize(_) => {
                vec![vec!["kustomize", "build", "."], vec!["kubectl", "kustomize", "."]]
            }
            Renderer::Helm(_) => vec![vec!["helm", "template", name, "."]],
        };
        for command in &commands {
            let child = Command::new(command[0])
                .args(&command[1..])
                .current_dir(directory)
                .stdin(Stdio::null())
                .output();
            let output = match child {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(self.refused(command, &e.to_string())),
                Ok(output) => output,
            };
            if !output.status.success() {
                return Err(self.refused(command, &String::from_utf8_lossy(&output.stderr)));
            }
            return String::from_utf8(output.stdout)
                .map_err(|_| self.refused(command, "what it rendered is not UTF-8 text"));
        }
        let (what, tools) = match self {
            Renderer::Kustomize(_) => ("a kustomization", "kustomize or kubectl"),
            Renderer::Helm(_) => ("a Helm chart", "helm"),
        };
        let sentence = format!(
            "is {what}, which {tools} has to render, and none is installed: install it, or render it elsewhere and name the manifests"
        );
        Err(Diagnostic::of_file(self.file(), sentence))
    }

    fn refused(&self, command: &[&str], said: &str) -> Diagnostic {
        let said: Vec<&str> = said.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        // The last lines contain the cause; those before them report progress.
        let reason = said[said.len().saturating_sub(3)..].join("; ");
        Diagnostic::of_file(self.file(), format!("`{}` failed: {reason}", command.join(" ")))
    }
}
