//! securityContext of Pod and container, merged; pure.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, PodSpec, SeccompProfile};
use yado_oci::spec::{LARGEST_ID, Seccomp};

use crate::environment::ConfigError;

/// What container engines grant unless told otherwise.
const DEFAULT_CAPABILITIES: &[&str] = &[
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Every capability the kernel knows, for `add: [ALL]`.
const ALL_CAPABILITIES: &[&str] = &[
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

/// Who a container's processes are and what they may do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Identity {
    pub user: String,
    /// Refuse to run as user 0, whatever `user` resolves to in the image.
    pub run_as_non_root: bool,
    pub groups: Vec<u32>,
    pub capabilities: Vec<String>,
    pub privileged: bool,
    pub no_new_privileges: bool,
    pub read_only_root: bool,
    pub seccomp: Seccomp,
}

/// Merges a Pod's and a container's securityContext with the image's user. `named` is the user that the Pod gives the
/// container by name: it counts more than what is said for the whole Pod, and less than the container's own number.
/// `profiles` is where Localhost seccomp profiles lie.
pub(crate) fn of(
    spec: &PodSpec,
    container: &Container,
    image_user: &str,
    named: Option<&str>,
    profiles: &std::path::Path,
) -> Result<Identity, ConfigError> {
    let pod = spec.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let image_user = named.unwrap_or(image_user);
    let of_pod = |number: Option<i64>| number.filter(|_| named.is_none());
    let user = own.run_as_user.or(of_pod(pod.run_as_user));
    let user = user.map(|id| in_range("user", id)).transpose()?;
    let group = own.run_as_group.or(of_pod(pod.run_as_group));
    let group = group.map(|id| in_range("group", id)).transpose()?;
    let non_root = own.run_as_non_root.or(pod.run_as_non_root).unwrap_or(false);
    let user = match (user, group) {
        (Some(u), Some(g)) => format!("{u}:{g}"),
        (Some(u), None) => u.to_string(),
        (None, Some(g)) => {
            let name = image_user.split(':').next().filter(|n| !n.is_empty()).unwrap_or("0");
            format!("{name}:{g}")
        }
        (None, None) => image_user.to_owned(),
    };
    if non_root {
        refuse_root(&user, container)?;
    }
    let privileged = own.privileged.unwrap_or(false);
    let mut groups: Vec<u32> = Vec::new();
    for group in pod.supplemental_groups.iter().flatten().chain(&pod.fs_group) {
        let group = in_range("group", *group)?;
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    let profile = own.seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref());
    Ok(Identity {
        user,
        run_as_non_root: non_root,
        groups,
        capabilities: capabilities(container, privileged),
        privileged,
        no_new_privileges: own.allow_privilege_escalation == Some(false) && !privileged,
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        seccomp: if privileged { Seccomp::Unconfined } else { seccomp(profile, profiles)? },
    })
}

/// An id that a process can have. The API server takes no other; one could be in an object that is older.
fn in_range(what: &str, id: i64) -> Result<u32, ConfigError> {
    let valid = u32::try_from(id).ok().filter(|id| *id <= LARGEST_ID);
    valid.ok_or_else(|| ConfigError(format!("the {what} id {id} is not between 0 and {LARGEST_ID}")))
}

fn refuse_root(user: &str, container: &Container) -> Result<(), ConfigError> {
    let name = &container.name;
    let user = user.split(':').next().unwrap_or_default();
    match user.parse::<u32>() {
        Ok(0) => Err(ConfigError(format!(
            "container's runAsUser breaks non-root policy (container: {name}): set runAsUser to a number other than 0"
        ))),
        Ok(_) => Ok(()),
        Err(_) if user.is_empty() || user == "root" => Err(ConfigError(format!(
            "container has runAsNonRoot and image will run as root (container: {name})"
        ))),
        Err(_) => Err(ConfigError(format!(
            "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root \
             (container: {name})"
        ))),
    }
}

fn capabilities(container: &Container, privileged: bool) -> Vec<String> {
    if privileged {
        return ALL_CAPABILITIES.iter().map(|c| (*c).to_owned()).collect();
    }
    let own = container.security_context.as_ref().and_then(|s| s.capabilities.clone()).unwrap_or_default();
    let full = |name: &String| {
        let name = name.to_uppercase();
        if name.starts_with("CAP_") || name == "ALL" { name } else { format!("CAP_{name}") }
    };
    let add: Vec<String> = own.add.iter().flatten().map(full).collect();
    let drop: Vec<String> = own.drop.iter().flatten().map(full).collect();
    let all = |list: &[String]| list.iter().any(|c| c == "ALL");
    let base = if all(&add) { ALL_CAPABILITIES } else { DEFAULT_CAPABILITIES };
    let mut set: Vec<String> = match all(&drop) {
        true => Vec::new(),
        false => base.iter().map(|c| (*c).to_owned()).filter(|c| !drop.contains(c)).collect(),
    };
    for capability in add.into_iter().filter(|c| c != "ALL") {
        if !set.contains(&capability) {
            set.push(capability);
        }
    }
    set
}

/// Kubernetes runs containers unconfined unless a profile is asked for.
fn seccomp(profile: Option<&SeccompProfile>, profiles: &std::path::Path) -> Result<Seccomp, ConfigError> {
    let Some(profile) = profile else { return Ok(Seccomp::Unspecified) };
    match profile.type_.as_str() {
        "RuntimeDefault" => Ok(Seccomp::Default),
        "Unconfined" => Ok(Seccomp::Unconfined),
        "Localhost" => {
            let name = PathBuf::from(profile.localhost_profile.as_deref().unwrap_or_default());
            let plain = name.components().all(|c| matches!(c, std::path::Component::Normal(_)));
            if name.as_os_str().is_empty() || !plain {
                return Err(ConfigError("localhostProfile must be a relative path without \"..\"".into()));
            }
            Ok(Seccomp::Profile(profiles.join(name)))
        }
        other => Err(ConfigError(format!("seccomp profile type \"{other}\" is not known"))),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn check(pod: Value, container: Value, image_user: &str, expect: Expect) {
        check_named(pod, container, image_user, None, expect);
    }

    fn check_named(pod: Value, container: Value, image_user: &str, named: Option<&str>, expect: Expect) {
        let spec: PodSpec = serde_json::from_value(json!({
            "securityContext": pod, "containers": [{"name": "c", "securityContext": container}],
        }))
        .expect("a Pod specification");
        let said = match of(&spec, &spec.containers[0], image_user, named, "/profiles".as_ref()) {
            Ok(i) => format!(
                "{:?} {:?} caps={} privileged={} nnp={} ro={} {:?}",
                i.user,
                i.groups,
                i.capabilities.len(),
                i.privileged,
                i.no_new_privileges,
                i.read_only_root,
                i.seccomp
            ),
            Err(e) => e.to_string(),
        };
        expect.assert_eq(&said);
    }

    #[test]
    fn contexts_are_merged() {
        check(
            json!({}),
            json!({}),
            "redis",
            expect![[r#""redis" [] caps=14 privileged=false nnp=false ro=false Unspecified"#]],
        );
        check_named(
            json!({"runAsUser": 5}),
            json!({}),
            "redis",
            Some("www-data:adm"),
            expect![[r#""www-data:adm" [] caps=14 privileged=false nnp=false ro=false Unspecified"#]],
        );
        check_named(
            json!({}),
            json!({"runAsUser": 5}),
            "redis",
            Some("www-data"),
            expect![[r#""5" [] caps=14 privileged=false nnp=false ro=false Unspecified"#]],
        );
        check(
            json!({"runAsUser": 5, "fsGroup": 7, "supplementalGroups": [7, 8]}),
            json!({"runAsGroup": 6, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false}),
            "",
            expect![[r#""5:6" [7, 8] caps=14 privileged=false nnp=true ro=true Unspecified"#]],
        );
        check(
            json!({"seccompProfile": {"type": "RuntimeDefault"}}),
            json!({"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}, "runAsUser": 0}),
            "",
            expect![[r#""0" [] caps=1 privileged=false nnp=false ro=false Default"#]],
        );
        check(
            json!({}),
            json!({"privileged": true}),
            "",
            expect![[r#""" [] caps=41 privileged=true nnp=false ro=false Unconfined"#]],
        );
        check(
            json!({"runAsNonRoot": true}),
            json!({}),
            "",
            expect!["container has runAsNonRoot and image will run as root (container: c)"],
        );
        check(
            json!({"runAsNonRoot": true}),
            json!({}),
            "1000",
            expect![[r#""1000" [] caps=14 privileged=false nnp=false ro=false Unspecified"#]],
        );
        check(
            json!({"runAsNonRoot": true}),
            json!({}),
            "redis",
            expect![
                "container has runAsNonRoot and image has non-numeric user (redis), cannot verify user is non-root (container: c)"
            ],
        );
        check(
            json!({"runAsNonRoot": true, "runAsUser": 0}),
            json!({}),
            "1",
            expect![
                "container's runAsUser breaks non-root policy (container: c): set runAsUser to a number other than 0"
            ],
        );
        for (pod, container) in [
            (json!({"runAsUser": 4294967295_i64}), json!({})),
            (json!({}), json!({"runAsUser": 2147483648_i64})),
            (json!({}), json!({"runAsUser": 5, "runAsGroup": -1})),
            (json!({"fsGroup": 4294967295_i64}), json!({})),
            (json!({"supplementalGroups": [5, 4294967296_i64]}), json!({})),
        ] {
            let spec: PodSpec = serde_json::from_value(json!({
                "securityContext": pod, "containers": [{"name": "c", "securityContext": container}],
            }))
            .expect("a Pod specification");
            let said = of(&spec, &spec.containers[0], "", None, "/profiles".as_ref());
            let said = said.expect_err("an id out of range").to_string();
            assert!(said.ends_with("is not between 0 and 2147483647"), "{said}");
        }
        check(
            json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}}),
            json!({}),
            "",
            expect![[r#"localhostProfile must be a relative path without "..""#]],
        );
    }
}
