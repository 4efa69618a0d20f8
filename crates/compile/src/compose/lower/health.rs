//! Health checks as probes.

use std::time::Duration;

use super::super::model::Service;
use crate::{
    diagnostic::Findings,
    workload::pod::{HealthCheck, PodFragment, escape_references},
};

/// The health check of `service` as the container's probes.
pub(super) fn probe(service: &Service, part: &mut PodFragment, found: &mut Findings) {
    let Some(check) = &service.healthcheck else { return };
    if check.disable {
        return part.no_health_check();
    }
    let command: Vec<String> = match check.test.split_first() {
        // The first word is the shell's script, any further ones are its arguments.
        Some((kind, rest)) if kind == "CMD-SHELL" && !rest.is_empty() => {
            ["/bin/sh".to_string(), "-c".into()].into_iter().chain(rest.iter().cloned()).collect()
        }
        Some((kind, _)) if kind == "CMD-SHELL" => Vec::new(),
        Some((kind, rest)) if kind == "CMD" => rest.to_vec(),
        Some((kind, _)) if kind == "NONE" => return,
        Some(_) => check.test.clone(),
        None => Vec::new(),
    };
    if command.is_empty() {
        let sentence = "healthcheck has no effect without a test: the health check of the image is not known";
        return found.warn(&check.at, sentence);
    }
    let env: Vec<String> = part.container.env.iter().flatten().map(|e| e.name.clone()).collect();
    let known = |name: &str| env.iter().any(|e| e == name);
    let milliseconds = |d: Option<Duration>| d.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
    part.health(&HealthCheck {
        command: command.iter().map(|word| escape_references(word, &known)).collect(),
        interval: milliseconds(check.interval).filter(|i| *i > 0),
        timeout: milliseconds(check.timeout).filter(|i| *i > 0),
        retries: check.retries.filter(|r| *r > 0),
        start_period: milliseconds(check.start_period),
        start_interval: milliseconds(check.start_interval).filter(|i| *i > 0),
    });
}
