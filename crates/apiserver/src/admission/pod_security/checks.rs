//! The Pod Security Standards: each rule as a pure function of a Pod's specification and the release that it is of.
//!
//! Source: <https://kubernetes.io/docs/concepts/security/pod-security-standards/>. The order is that in which Kubernetes
//! tells violations.

use std::collections::BTreeSet;

use serde_json::Value;

use super::level::{Level, Standard};
use crate::edit::{list, text};

/// A Pod, or what a template says of its Pods.
#[derive(Clone, Copy)]
pub(super) struct Subject<'p> {
    pub(super) annotations: &'p Value,
    pub(super) spec: &'p Value,
}

/// A rule that a Pod breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// The rule.
    pub(super) reason: String,
    /// Where it is broken.
    pub(super) detail: String,
}

/// The rules of a standard that a Pod breaks.
pub(super) fn violations(standard: Standard, pod: Subject<'_>) -> Vec<Violation> {
    let minor = standard.version.minor();
    let applies = |check: &&Check| check.level <= standard.level && check.since <= minor;
    let overridden: BTreeSet<&str> =
        CHECKS.iter().filter(applies).map(|check| check.overrides).filter(|id| !id.is_empty()).collect();
    let checks = CHECKS.iter().filter(applies).filter(|check| !overridden.contains(check.id));
    match standard.level {
        Level::Privileged => Vec::new(),
        _ => checks.filter_map(|check| (check.run)(pod, minor)).collect(),
    }
}

/// Violations in one line, each with its detail.
pub(super) fn details(violations: &[Violation]) -> String {
    let shown = violations.iter().map(|Violation { reason, detail }| match detail.is_empty() {
        true => reason.clone(),
        false => format!("{reason} ({detail})"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

struct Check {
    id: &'static str,
    level: Level,
    /// The first minor version that has it.
    since: u32,
    /// The check of a lower level that it stands in for.
    overrides: &'static str,
    run: fn(Subject<'_>, u32) -> Option<Violation>,
}

const fn baseline(id: &'static str, since: u32, run: fn(Subject<'_>, u32) -> Option<Violation>) -> Check {
    Check { id, level: Level::Baseline, since, overrides: "", run }
}

const fn restricted(
    id: &'static str,
    since: u32,
    overrides: &'static str,
    run: fn(Subject<'_>, u32) -> Option<Violation>,
) -> Check {
    Check { id, level: Level::Restricted, since, overrides, run }
}

static CHECKS: [Check; 19] =
    [
        baseline("appArmorProfile", 0, app_armor),
        baseline("capabilities_baseline", 0, capabilities_baseline),
        baseline("hostNamespaces", 0, host_namespaces),
        baseline("hostPathVolumes", 0, host_path_volumes),
        baseline("hostPorts", 0, host_ports),
        baseline("hostProbesAndHostLifecycle", 34, probe_hosts),
        baseline("privileged", 0, privileged),
        baseline("procMount", 0, |pod, minor| {
            if minor >= 35 && has_own_users(pod) { None } else { proc_mount(pod, minor) }
        }),
        baseline("seLinuxOptions", 0, se_linux),
        baseline("seccompProfile_baseline", 0, seccomp_baseline),
        baseline("sysctls", 0, sysctls),
        baseline("windowsHostProcess", 0, windows_host_process),
        restricted("allowPrivilegeEscalation", 8, "", privilege_escalation),
        restricted("capabilities_restricted", 22, "capabilities_baseline", capabilities_restricted),
        restricted("procMount_restricted", 35, "procMount", proc_mount),
        restricted("restrictedVolumes", 0, "hostPathVolumes", restricted_volumes),
        restricted("runAsNonRoot", 0, "", run_as_non_root),
        restricted("runAsUser", 23, "", run_as_user),
        restricted("seccompProfile_restricted", 19, "seccompProfile_baseline", seccomp_restricted),
    ];

fn containers<'p>(pod: Subject<'p>) -> impl Iterator<Item = &'p Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(move |key| list(&pod.spec[key]))
}

/// The names of the containers for which something holds.
fn containers_that<'p>(pod: Subject<'p>, holds: impl Fn(&Value) -> bool) -> Vec<&'p str> {
    containers(pod).filter(|container| holds(container)).map(|container| text(&container["name"])).collect()
}

/// Windows has none of what these fields set.
fn is_windows(pod: Subject<'_>, minor: u32) -> bool {
    minor >= 25 && pod.spec["os"]["name"] == "windows"
}

/// Its users are not those of the node.
fn has_own_users(pod: Subject<'_>) -> bool {
    pod.spec["hostUsers"] == false
}

fn violation(reason: &str, detail: String) -> Option<Violation> {
    Some(Violation { reason: reason.to_owned(), detail })
}

/// `"a", "b"`
fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect();
    items.join(", ")
}

/// The word for one, or with an `s` for another number.
fn plural(word: &str, count: usize) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

/// `container "a"`, `containers "a", "b"`
fn named(word: &str, names: &[&str]) -> String {
    format!("{} {}", plural(word, names.len()), quoted(names))
}

/// Who sets something: the Pod, some of its containers, or both. `None` for nobody.
fn setters(pod: bool, containers: &[&str]) -> Option<String> {
    let mut all: Vec<String> = Vec::new();
    if pod {
        all.push("pod".to_owned());
    }
    if !containers.is_empty() {
        all.push(named("container", containers));
    }
    (!all.is_empty()).then(|| all.join(" and "))
}

/// Values of a field of security contexts that are not allowed, and who sets them.
fn forbidden_values<'p>(
    pod: Subject<'p>,
    field: impl Fn(&'p Value) -> Option<&'p str>,
    is_allowed: impl Fn(&str) -> bool,
) -> (bool, Vec<&'p str>, BTreeSet<&'p str>) {
    let forbidden = |holder: &'p Value| field(&holder["securityContext"]).filter(|value| !is_allowed(value));
    let own = forbidden(pod.spec);
    let mut values: BTreeSet<&str> = own.into_iter().collect();
    let mut names = Vec::new();
    for container in containers(pod) {
        if let Some(value) = forbidden(container) {
            names.push(text(&container["name"]));
            values.insert(value);
        }
    }
    (own.is_some(), names, values)
}

fn app_armor<'p>(pod: Subject<'p>, _: u32) -> Option<Violation> {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let profile = |context: &'p Value| -> Option<&'p str> {
        let profile = &context["appArmorProfile"];
        profile.is_object().then(|| text(&profile["type"]))
    };
    let is_allowed = |kind: &str| matches!(kind, "RuntimeDefault" | "Localhost");
    let (own, names, found) = forbidden_values(pod, profile, is_allowed);
    let mut setting: Vec<String> = setters(own, &names).into_iter().collect();
    let mut values: Vec<String> = found.into_iter().map(str::to_owned).collect();
    let annotations = pod.annotations.as_object().into_iter().flatten();
    let mut annotations: Vec<String> = annotations
        .filter(|(key, value)| {
            let value = text(value);
            let is_allowed =
                value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
            key.starts_with(ANNOTATION) && !is_allowed
        })
        .map(|(key, value)| format!("{key}={:?}", text(value)))
        .collect();
    if !annotations.is_empty() {
        annotations.sort();
        setting.push(plural("annotation", annotations.len()));
        values.extend(annotations);
    }
    if setting.is_empty() {
        return None;
    }
    let detail =
        format!("{} must not set AppArmor profile type to {}", setting.join(" and "), quoted(&values));
    violation(&plural("forbidden AppArmor profile", values.len()), detail)
}

/// Capabilities that containers have anyway.
const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The containers that add other capabilities than these, and which.
fn added_capabilities<'p>(pod: Subject<'p>, allowed: &[&str]) -> (Vec<&'p str>, BTreeSet<&'p str>) {
    let (mut names, mut added) = (Vec::new(), BTreeSet::new());
    for container in containers(pod) {
        let capabilities = list(&container["securityContext"]["capabilities"]["add"]).iter().map(text);
        let forbidden: Vec<&str> = capabilities.filter(|c| !allowed.contains(c)).collect();
        if !forbidden.is_empty() {
            names.push(text(&container["name"]));
            added.extend(forbidden);
        }
    }
    (names, added)
}

fn capabilities_baseline(pod: Subject<'_>, _: u32) -> Option<Violation> {
    let (names, added) = added_capabilities(pod, &DEFAULT_CAPABILITIES);
    if names.is_empty() {
        return None;
    }
    let (names, added) = (named("container", &names), quoted(added));
    violation(
        "non-default capabilities",
        format!("{names} must not include {added} in securityContext.capabilities.add"),
    )
}

fn capabilities_restricted(pod: Subject<'_>, minor: u32) -> Option<Violation> {
    if is_windows(pod, minor) {
        return None;
    }
    let keeping = containers_that(pod, |container| {
        !list(&container["securityContext"]["capabilities"]["drop"]).iter().any(|c| c == "ALL")
    });
    let (adding, added) = added_capabilities(pod, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !keeping.is_empty() {
        let names = named("container", &keeping);
        details.push(format!("{names} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    if !adding.is_empty() {
        let (names, added) = (named("container", &adding), quoted(added));
        details.push(format!("{names} must not include {added} in securityContext.capabilities.add"));
    }
    if details.is_empty() { None } else { violation("unrestricted capabilities", details.join("; ")) }
}

fn host_namespaces(pod: Subject<'_>, _: u32) -> Option<Violation> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| pod.spec[*field] == true);
    let shared: Vec<String> = shared.map(|field| format!("{field}=true")).collect();
    if shared.is_empty() { None } else { violation("host namespaces", shared.join(", ")) }
}

fn host_path_volumes(pod: Subject<'_>, _: u32) -> Option<Violation> {
    let volumes = list(&pod.spec["volumes"]).iter().filter(|volume| volume["hostPath"].is_object());
    let names: Vec<&str> = volumes.map(|volume| text(&volume["name"])).collect();
    if names.is_empty() { None } else { violation("hostPath volumes", named("volume", &names)) }
}

fn host_ports(pod: Subject<'_>, _: u32) -> Option<Violation> {
    let (mut names, mut ports) = (Vec::new(), BTreeSet::new());
    for container in containers(pod) {
        let own = list(&container["ports"]).iter().filter_map(|port| port["hostPort"].as_i64());
        let own: Vec<String> = own.filter(|port| *port != 0).map(|port| port.to_string()).collect();
        if !own.is_empty() {
            names.push(text(&container["name"]));
            ports.extend(own);
        }
    }
    if names.is_empty() {
        return None;
    }
    let verb = if names.len() == 1 { "uses" } else { "use" };
    let (word, shown) = (plural("hostPort", ports.len()), Vec::from_iter(ports).join(", "));
    violation("hostPort", format!("{} {verb} {word} {shown}", named("container", &names)))
}

fn probe_hosts(pod: Subject<'_>, _: u32) -> Option<Violation> {
    let (mut names, mut hosts) = (BTreeSet::new(), BTreeSet::new());
    for container in containers(pod) {
        let hooks = &container["lifecycle"];
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| &container[probe]);
        for handler in probes.into_iter().chain([&hooks["postStart"], &hooks["preStop"]]) {
            let of = ["httpGet", "tcpSocket"].into_iter().map(|kind| text(&handler[kind]["host"]));
            for host in of.filter(|host| !host.is_empty()) {
                names.insert(text(&container["name"]));
                hosts.insert(host);
            }
        }
    }
    if names.is_empty() {
        return None;
    }
    let names = Vec::from_iter(names);
    let verb = if names.len() == 1 { "uses" } else { "use" };
    let word = plural("probe or lifecycle host", hosts.len());
    let detail = format!("{} {verb} {word} {}", named("container", &names), quoted(hosts));
    violation("probe or lifecycle host", detail)
}

fn privileged(pod: Subject<'_>, _: u32) -> Option<Violation> {
    let names = containers_that(pod, |container| container["securityContext"]["privileged"] == true);
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} must not set securityContext.privileged=true", named("container", &names));
    violation("privileged", detail)
}

fn proc_mount(pod: Subject<'_>, _: u32) -> Option<Violation> {
    let (mut names, mut kinds) = (Vec::new(), BTreeSet::new());
    for container in containers(pod) {
        let kind = container["securityContext"]["procMount"].as_str().filter(|kind| *kind != "Default");
        if let Some(kind) = kind {
            names.push(text(&container["name"]));
            kinds.insert(kind);
        }
    }
    if names.is_empty() {
        return None;
    }
    let (names, kinds) = (named("container", &names), quoted(kinds));
    violation("procMount", format!("{names} must not set securityContext.procMount to {kinds}"))
}

fn se_linux(pod: Subject<'_>, minor: u32) -> Option<Violation> {
    let is_allowed = |kind: &str| match kind {
        "" | "container_t" | "container_init_t" | "container_kvm_t" => true,
        "container_engine_t" => minor >= 31,
        _ => false,
    };
    let (mut kinds, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut is_bad = |context: &Value| {
        let options = &context["seLinuxOptions"];
        let kind = text(&options["type"]);
        let (sets_user, sets_role) = (!text(&options["user"]).is_empty(), !text(&options["role"]).is_empty());
        if !is_allowed(kind) {
            kinds.insert(kind.to_owned());
        }
        user |= sets_user;
        role |= sets_role;
        !is_allowed(kind) || sets_user || sets_role
    };
    let own = is_bad(&pod.spec["securityContext"]);
    let mut names = Vec::new();
    for container in containers(pod) {
        if is_bad(&container["securityContext"]) {
            names.push(text(&container["name"]));
        }
    }
    let setters = setters(own, &names)?;
    let mut wrong = Vec::new();
    if !kinds.is_empty() {
        wrong.push(format!("{} {}", plural("type", kinds.len()), quoted(&kinds)));
    }
    if user {
        wrong.push("user may not be set".to_owned());
    }
    if role {
        wrong.push("role may not be set".to_owned());
    }
    let detail = format!("{setters} set forbidden securityContext.seLinuxOptions: {}", wrong.join("; "));
    violation("seLinuxOptions", detail)
}

/// The profile that a security context names.
fn seccomp_type(context: &Value) -> Option<&str> {
    let profile = &context["seccompProfile"];
    profile.is_object().then(|| text(&profile["type"]))
}

fn is_seccomp(kind: &str) -> bool {
    matches!(kind, "RuntimeDefault" | "Localhost")
}

/// Profiles that are none, and who names them.
fn bad_seccomp(pod: Subject<'_>) -> Option<Violation> {
    let (own, names, values) = forbidden_values(pod, seccomp_type, is_seccomp);
    let (setters, values) = (setters(own, &names)?, quoted(values));
    let detail = format!("{setters} must not set securityContext.seccompProfile.type to {values}");
    violation("seccompProfile", detail)
}

fn seccomp_baseline(pod: Subject<'_>, minor: u32) -> Option<Violation> {
    if minor >= 19 {
        return bad_seccomp(pod);
    }
    let mut keys = vec!["seccomp.security.alpha.kubernetes.io/pod".to_owned()];
    let of_container = |container: &Value| {
        format!("container.seccomp.security.alpha.kubernetes.io/{}", text(&container["name"]))
    };
    keys.extend(containers(pod).map(of_container));
    let is_allowed = |value: &str| {
        matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/")
    };
    let values = keys.iter().filter_map(|key| Some((key, pod.annotations[key].as_str()?)));
    let forbidden = values.filter(|(_, value)| !is_allowed(value));
    let forbidden: BTreeSet<String> = forbidden.map(|(key, value)| format!("{key}={value:?}")).collect();
    if forbidden.is_empty() {
        return None;
    }
    let word = plural("annotation", forbidden.len());
    violation("seccompProfile", format!("forbidden {word} {}", Vec::from_iter(forbidden).join(", ")))
}

fn seccomp_restricted(pod: Subject<'_>, minor: u32) -> Option<Violation> {
    if is_windows(pod, minor) {
        return None;
    }
    if let Some(violation) = bad_seccomp(pod) {
        return Some(violation);
    }
    // A profile of the Pod is that of its containers.
    if seccomp_type(&pod.spec["securityContext"]).is_some() {
        return None;
    }
    let without = containers_that(pod, |container| seccomp_type(&container["securityContext"]).is_none());
    if without.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        named("container", &without)
    );
    violation("seccompProfile", detail)
}

fn sysctls(pod: Subject<'_>, minor: u32) -> Option<Violation> {
    let since = |name: &str| match name {
        "kernel.shm_rmid_forced"
        | "net.ipv4.ip_local_port_range"
        | "net.ipv4.tcp_syncookies"
        | "net.ipv4.ping_group_range"
        | "net.ipv4.ip_unprivileged_port_start" => Some(0),
        "net.ipv4.ip_local_reserved_ports" => Some(27),
        "net.ipv4.tcp_keepalive_time"
        | "net.ipv4.tcp_fin_timeout"
        | "net.ipv4.tcp_keepalive_intvl"
        | "net.ipv4.tcp_keepalive_probes" => Some(29),
        "net.ipv4.tcp_rmem" | "net.ipv4.tcp_wmem" => Some(32),
        _ => None,
    };
    let names = list(&pod.spec["securityContext"]["sysctls"]).iter().map(|sysctl| text(&sysctl["name"]));
    let forbidden: Vec<&str> = names.filter(|name| since(name).is_none_or(|since| since > minor)).collect();
    if forbidden.is_empty() { None } else { violation("forbidden sysctls", forbidden.join(", ")) }
}

fn windows_host_process(pod: Subject<'_>, _: u32) -> Option<Violation> {
    let is_host = |holder: &Value| holder["securityContext"]["windowsOptions"]["hostProcess"] == true;
    let setters = setters(is_host(pod.spec), &containers_that(pod, is_host))?;
    let detail = format!("{setters} must not set securityContext.windowsOptions.hostProcess=true");
    violation("hostProcess", detail)
}

fn privilege_escalation(pod: Subject<'_>, minor: u32) -> Option<Violation> {
    if is_windows(pod, minor) {
        return None;
    }
    let names =
        containers_that(pod, |container| container["securityContext"]["allowPrivilegeEscalation"] != false);
    if names.is_empty() {
        return None;
    }
    let detail =
        format!("{} must set securityContext.allowPrivilegeEscalation=false", named("container", &names));
    violation("allowPrivilegeEscalation != false", detail)
}

fn restricted_volumes(pod: Subject<'_>, _: u32) -> Option<Violation> {
    const ALLOWED: [&str; 9] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let (mut names, mut kinds) = (Vec::new(), BTreeSet::new());
    for volume in list(&pod.spec["volumes"]) {
        let sources = || volume.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
        if !sources().any(|source| ALLOWED.contains(&source)) {
            names.push(text(&volume["name"]));
            kinds.insert(sources().find(|source| *source != "name").unwrap_or("unknown"));
        }
    }
    if names.is_empty() {
        return None;
    }
    let verb = if names.len() == 1 { "uses" } else { "use" };
    let word = plural("restricted volume type", kinds.len());
    let detail = format!("{} {verb} {word} {}", named("volume", &names), quoted(kinds));
    violation("restricted volume types", detail)
}

fn run_as_non_root(pod: Subject<'_>, minor: u32) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    if minor >= 35 && has_own_users(pod) {
        return None;
    }
    let given = |holder: &Value| holder["securityContext"]["runAsNonRoot"].as_bool();
    let own = given(pod.spec);
    let refusing = containers_that(pod, |container| given(container) == Some(false));
    if let Some(setters) = setters(own == Some(false), &refusing) {
        return violation(REASON, format!("{setters} must not set securityContext.runAsNonRoot=false"));
    }
    let silent = containers_that(pod, |container| given(container).is_none() && own != Some(true));
    if silent.is_empty() {
        return None;
    }
    let names = named("container", &silent);
    violation(REASON, format!("pod or {names} must set securityContext.runAsNonRoot=true"))
}

fn run_as_user(pod: Subject<'_>, minor: u32) -> Option<Violation> {
    if minor >= 35 && has_own_users(pod) {
        return None;
    }
    let is_root = |holder: &Value| holder["securityContext"]["runAsUser"] == 0;
    let setters = setters(is_root(pod.spec), &containers_that(pod, is_root))?;
    violation("runAsUser=0", format!("{setters} must not set runAsUser=0"))
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
