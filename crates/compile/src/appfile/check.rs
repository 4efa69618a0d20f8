//! Validation of a whole Appfile, after merging imports.
//!
//! As in Otto, `project` and `infrastructure` may be omitted together; if one is given, the other has to match it.

use super::{Appfile, Application, Infrastructure, Project, Text};
use crate::diagnostic::Findings;

/// Reports missing and inconsistent settings. Dependencies take the infrastructure of the compiled application, so it is
/// checked for that one (`root`) only.
pub(super) fn check(file: &Appfile, root: bool, found: &mut Findings) {
    if let Some(application) = &file.application {
        check_application(application, found);
    }
    if let Some(project) = &file.project {
        not_empty(&project.name, "project", found);
        if project.name.is_none() {
            found.error(&project.at, "project has no name: write name = \"...\"");
        }
    }
    if root {
        check_infrastructure(file, found);
    }
}

fn check_application(application: &Application, found: &mut Findings) {
    not_empty(&application.name, "application", found);
    if let Some(app_type) = application.app_type.as_ref().filter(|t| t.value.is_empty()) {
        found.error(
            &app_type.at,
            "application's type is empty: name one, or remove the line to have it detected",
        );
    }
}

fn check_infrastructure(file: &Appfile, found: &mut Findings) {
    match (&file.project, &file.infrastructures[..]) {
        (None, []) => {}
        (None, [first, ..]) => found.error(
            &first.name.at,
            format!(
                "infrastructure \"{0}\" is used by no project: write project {{ name = \"...\" infrastructure = \"{0}\" }}",
                first.name.value
            ),
        ),
        (Some(project), infrastructures) => check_project(project, infrastructures, found),
    }
}

fn check_project(project: &Project, infrastructures: &[Infrastructure], found: &mut Findings) {
    let Some(wanted) = project.infrastructure.as_ref().filter(|i| !i.value.is_empty()) else {
        let example = infrastructures.first().map_or("...", |i| &i.name.value);
        found.error(
            &project.at,
            format!("project names no infrastructure: write infrastructure = \"{example}\""),
        );
        return;
    };
    if !infrastructures.iter().any(|i| i.name.value == wanted.value) {
        found.error(
            &wanted.at,
            format!("there is no infrastructure \"{0}\": write infrastructure \"{0}\" {{ }}", wanted.value),
        );
    }
}

fn not_empty(name: &Option<Text>, of: &str, found: &mut Findings) {
    if let Some(name) = name.as_ref().filter(|n| n.value.trim().is_empty()) {
        found.error(&name.at, format!("{of}'s name is empty: write name = \"...\""));
    }
}
