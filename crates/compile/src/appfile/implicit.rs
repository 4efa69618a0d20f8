//! Implicit dependencies of application types, as in Otto: they refer to Otto's examples, and apply unless the Appfile has
//! dependencies or `detect = false`.

use std::path::Path;

use super::{Application, Text};
use crate::{detect, diagnostic::Findings};

/// Gems, and the example of the service that each one connects to.
const GEMS: [(&str, &str); 3] = [("dalli", "memcached"), ("pg", "postgresql"), ("redis", "redis")];

/// Adds the implicit dependencies of an application of type `app_type` in `directory`, with a warning about each.
pub(super) fn add(application: &mut Application, app_type: &str, directory: &Path, found: &mut Findings) {
    if !application.detect || !application.dependencies.is_empty() {
        return;
    }
    let mut needs: Vec<(&str, String)> = Vec::new();
    match app_type {
        "ruby" | "rails" => {
            let used = GEMS.iter().filter(|(gem, _)| detect::gem(directory, gem));
            needs.extend(used.map(|(gem, example)| (*example, format!("its Gemfile names {gem}"))));
        }
        "wordpress" => needs.push(("mysql", "it is of type wordpress".into())),
        _ => {}
    }
    for (example, reason) in needs {
        let source = format!("github.com/hashicorp/otto/examples/{example}");
        let sentence = format!(
            "depends on {example}, as {reason}: write dependency {{ source = \"{source}\" }} to say so, another source \
             to choose another, or detect = false to have none"
        );
        found.warn(&application.at, sentence);
        application.dependencies.push(Text { at: application.at.clone(), value: source });
    }
}
