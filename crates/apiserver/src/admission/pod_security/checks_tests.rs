use serde_json::json;

use super::super::level::Version;
use super::*;

/// Checks what a Pod with this specification, in YAML, breaks.
fn check(level: Level, minor: Option<u32>, spec: &str, expect: &str) {
    let spec: Value = serde_norway::from_str(spec).expect("YAML");
    let annotations = spec.get("annotations").cloned().unwrap_or_default();
    let version = minor.map_or(Version::Latest, Version::Minor);
    let pod = Subject { annotations: &annotations, spec: &spec };
    assert_eq!(details(&violations(Standard { level, version }, pod)), expect, "{spec}");
}

#[test]
fn the_baseline_prevents_known_escalations() {
    let rows = [
        ("{containers: [{name: a}]}", ""),
        (
            "{hostNetwork: true, hostIPC: true, containers: [{name: a}]}",
            "host namespaces (hostNetwork=true, hostIPC=true)",
        ),
        (
            "{containers: [{name: a, securityContext: {privileged: true}}], initContainers: [{name: i, securityContext: {privileged: true}}]}",
            r#"privileged (containers "i", "a" must not set securityContext.privileged=true)"#,
        ),
        (
            "{containers: [{name: a, securityContext: {capabilities: {add: [SYS_ADMIN, KILL, NET_RAW]}}}]}",
            r#"non-default capabilities (container "a" must not include "NET_RAW", "SYS_ADMIN" in securityContext.capabilities.add)"#,
        ),
        (
            "{volumes: [{name: v, hostPath: {path: /}}, {name: w, nfs: {}}], containers: [{name: a}]}",
            r#"hostPath volumes (volume "v")"#,
        ),
        (
            "{containers: [{name: a, ports: [{hostPort: 80}, {hostPort: 443}, {containerPort: 1}]}]}",
            r#"hostPort (container "a" uses hostPorts 443, 80)"#,
        ),
        (
            "{containers: [{name: a, livenessProbe: {httpGet: {host: 10.0.0.1}}, lifecycle: {preStop: {httpGet: {host: x}}}}, {name: b}]}",
            r#"probe or lifecycle host (container "a" uses probe or lifecycle hosts "10.0.0.1", "x")"#,
        ),
        (
            "{containers: [{name: a, securityContext: {procMount: Unmasked}}]}",
            r#"procMount (container "a" must not set securityContext.procMount to "Unmasked")"#,
        ),
        ("{hostUsers: false, containers: [{name: a, securityContext: {procMount: Unmasked}}]}", ""),
        (
            "{securityContext: {seLinuxOptions: {type: spc_t, user: u}}, containers: [{name: a, securityContext: {seLinuxOptions: {role: r}}}]}",
            r#"seLinuxOptions (pod and container "a" set forbidden securityContext.seLinuxOptions: type "spc_t"; user may not be set; role may not be set)"#,
        ),
        ("{securityContext: {seLinuxOptions: {type: container_engine_t}}, containers: []}", ""),
        (
            "{securityContext: {seccompProfile: {type: Unconfined}}, containers: [{name: a}]}",
            r#"seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")"#,
        ),
        (
            "{securityContext: {sysctls: [{name: kernel.msgmax}, {name: net.ipv4.tcp_rmem}]}, containers: []}",
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            "{securityContext: {windowsOptions: {hostProcess: true}}, containers: []}",
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            "{annotations: {container.apparmor.security.beta.kubernetes.io/a: unconfined}, containers: [{name: a, securityContext: {appArmorProfile: {type: Unconfined}}}]}",
            r#"forbidden AppArmor profiles (container "a" and annotation must not set AppArmor profile type to "Unconfined", "container.apparmor.security.beta.kubernetes.io/a="unconfined"")"#,
        ),
    ];
    for (spec, expect) in rows {
        check(Level::Baseline, None, spec, expect);
        check(Level::Privileged, None, spec, "");
    }
}

const HARDENED: &str = "securityContext: {allowPrivilegeEscalation: false, runAsNonRoot: true, seccompProfile: {type: \
    RuntimeDefault}, capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}}";

#[test]
fn the_restricted_level_wants_hardening() {
    let all = "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), \
        unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != \
        true (pod or container \"a\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"a\" \
        must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";
    let hardened = |more: &str| format!("{{containers: [{{name: a, {HARDENED}}}]{more}}}");
    let rows = [
        ("{containers: [{name: a}]}".to_owned(), all),
        (hardened(""), ""),
        (
            hardened(", volumes: [{name: v, hostPath: {}}, {name: w, nfs: {}}, {name: x, emptyDir: {}}]"),
            r#"restricted volume types (volumes "v", "w" use restricted volume types "hostPath", "nfs")"#,
        ),
        (
            hardened(", securityContext: {runAsUser: 0, runAsNonRoot: false}"),
            "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false), runAsUser=0 (pod must not set \
             runAsUser=0)",
        ),
        (hardened(", hostUsers: false, securityContext: {runAsUser: 0, runAsNonRoot: false}"), ""),
        (
            "{hostUsers: false, os: {name: windows}, containers: [{name: a, securityContext: {procMount: Unmasked}}]}".to_owned(),
            r#"procMount (container "a" must not set securityContext.procMount to "Unmasked")"#,
        ),
        (
            "{os: {name: windows}, containers: [{name: a, securityContext: {runAsNonRoot: true, capabilities: {add: [KILL]}}}]}"
                .to_owned(),
            "",
        ),
        // What is worse than the baseline is told first.
        (
            hardened(", hostPID: true, securityContext: {runAsUser: 0}"),
            "host namespaces (hostPID=true), runAsUser=0 (pod must not set runAsUser=0)",
        ),
    ];
    for (spec, expect) in rows {
        check(Level::Restricted, None, &spec, expect);
    }
}

#[test]
fn rules_are_those_of_the_release() {
    let plain = "{containers: [{name: a}]}";
    let non_root =
        r#"runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true)"#;
    let escalation = r#"allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false)"#;
    let seccomp = r#"seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#;
    check(Level::Restricted, Some(7), plain, non_root);
    check(Level::Restricted, Some(8), plain, &format!("{escalation}, {non_root}"));
    check(Level::Restricted, Some(19), plain, &format!("{escalation}, {non_root}, {seccomp}"));
    let sysctl = "{securityContext: {sysctls: [{name: net.ipv4.tcp_rmem}]}, containers: []}";
    check(Level::Baseline, Some(31), sysctl, "forbidden sysctls (net.ipv4.tcp_rmem)");
    check(Level::Baseline, Some(32), sysctl, "");
    check(Level::Baseline, Some(99), sysctl, "");
    let probe = "{containers: [{name: a, livenessProbe: {tcpSocket: {host: h}}}]}";
    check(Level::Baseline, Some(33), probe, "");
    let annotated = "{annotations: {seccomp.security.alpha.kubernetes.io/pod: unconfined}, containers: []}";
    let forbidden =
        "seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")";
    check(Level::Baseline, Some(18), annotated, forbidden);
    check(Level::Baseline, Some(19), annotated, "");
}

#[test]
fn reasons_are_told_without_details_too() {
    let pod = Subject { annotations: &Value::Null, spec: &json!({"hostPID": true, "containers": []}) };
    let standard = Standard { level: Level::Baseline, version: Version::Latest };
    let found = violations(standard, pod);
    assert_eq!(found.iter().map(|v| v.reason.as_str()).collect::<Vec<_>>(), ["host namespaces"]);
}
