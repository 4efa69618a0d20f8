//! Merges two Appfiles by Otto's rules.

use super::Appfile;

/// Merges `over` into `file`, with precedence. Customizations are appended; for each setting the last one counts.
pub(super) fn merge(file: &mut Appfile, over: Appfile) {
    match (&mut file.application, over.application) {
        (Some(own), Some(other)) => {
            own.at = other.at;
            own.name = other.name.or(own.name.take());
            own.app_type = other.app_type.or(own.app_type.take());
            own.detect &= other.detect;
            if !other.dependencies.is_empty() {
                own.dependencies = other.dependencies;
            }
        }
        (own @ None, other) => *own = other,
        (Some(_), None) => {}
    }
    file.project = over.project.or(file.project.take());
    for mut infrastructure in over.infrastructures {
        match file.infrastructures.iter_mut().find(|i| i.name.value == infrastructure.name.value) {
            Some(own) => {
                if infrastructure.foundations.is_empty() {
                    infrastructure.foundations = std::mem::take(&mut own.foundations);
                }
                *own = infrastructure;
            }
            None => file.infrastructures.push(infrastructure),
        }
    }
    file.customizations.extend(over.customizations);
}
