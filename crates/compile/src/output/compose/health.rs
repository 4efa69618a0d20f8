//! Writes probes as health checks.

use k8s_openapi::{
    api::core::v1::{Container, ExecAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::{Map, Value, json};

use super::{Writer, controller::PodController, environment::words, escaped};

impl Writer<'_> {
    /// Writes the readiness probe as a health check.
    pub(super) fn health(
        &mut self,
        controller: &PodController,
        container: &Container,
        env: &[(String, String)],
        service: &mut Map<String, Value>,
    ) {
        if container.liveness_probe.is_some() {
            self.warn(
                controller,
                "its liveness probe is left out, as compose does not restart unhealthy containers",
            );
        }
        let Some(probe) = &container.readiness_probe else { return };
        let test = match (&probe.exec, &probe.http_get) {
            (Some(ExecAction { command: Some(command) }), _) => match &command[..] {
                [shell, flag, script @ ..] if shell == "/bin/sh" && flag == "-c" && !script.is_empty() => {
                    let mut test = vec![Value::from("CMD-SHELL")];
                    test.extend(words(script, env).as_array().cloned().unwrap_or_default());
                    test.into()
                }
                command => {
                    let mut test = vec![Value::from("CMD")];
                    test.extend(words(command, env).as_array().cloned().unwrap_or_default());
                    test.into()
                }
            },
            (_, Some(get)) => {
                let port = match &get.port {
                    IntOrString::Int(n) => n.to_string(),
                    IntOrString::String(name) => container
                        .ports
                        .iter()
                        .flatten()
                        .find(|p| p.name.as_ref() == Some(name))
                        .map_or_else(|| "80".into(), |p| p.container_port.to_string()),
                };
                let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
                let url = format!("{scheme}://127.0.0.1:{port}{}", get.path.as_deref().unwrap_or("/"));
                json!([
                    "CMD-SHELL",
                    escaped(&format!("curl -fsko /dev/null {url} || wget -qO /dev/null {url}"))
                ])
            }
            // The default check of a port follows from `ports` and `expose`.
            _ => return,
        };
        service.insert("healthcheck".into(), timing(test, probe, container.startup_probe.as_ref()));
    }
}

/// Writes the timing of a health check where it differs from Docker's defaults.
fn timing(test: Value, probe: &Probe, startup: Option<&Probe>) -> Value {
    let mut check = json!({"test": test});
    let interval = probe.period_seconds.unwrap_or(10);
    let retries = probe.failure_threshold.unwrap_or(3);
    check["interval"] = format!("{interval}s").into();
    check["timeout"] = format!("{}s", probe.timeout_seconds.unwrap_or(1)).into();
    check["retries"] = retries.into();
    if let Some(startup) = startup {
        let period = startup.period_seconds.unwrap_or(10);
        let whole = i64::from(period) * i64::from(startup.failure_threshold.unwrap_or(3));
        let start = (whole - i64::from(retries) * i64::from(interval)).max(1);
        check["start_period"] = format!("{start}s").into();
        check["start_interval"] = format!("{period}s").into();
    } else if let Some(delay) = probe.initial_delay_seconds.filter(|d| *d > 0) {
        check["start_period"] = format!("{delay}s").into();
    }
    check
}
