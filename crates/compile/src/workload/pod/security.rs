//! Translation of Docker security options to container fields.

use k8s_openapi::api::core::v1::{AppArmorProfile, SELinuxOptions, SeccompProfile};

use super::{PodFragment, Unsupported};

impl PodFragment {
    /// Applies one `--security-opt`, written `key=value` or, in older versions of Docker, `key:value`.
    pub fn security_opt(&mut self, option: &str) -> Option<Unsupported> {
        let place = option.find(['=', ':']).unwrap_or(option.len());
        let (key, value) = (&option[..place], option[place..].get(1..).unwrap_or_default());
        match (key, value) {
            ("no-new-privileges", "" | "true") => self.security().allow_privilege_escalation = Some(false),
            ("no-new-privileges", "false") => self.security().allow_privilege_escalation = Some(true),
            ("seccomp", "unconfined") => {
                let profile = SeccompProfile { type_: "Unconfined".into(), localhost_profile: None };
                self.security().seccomp_profile = Some(profile);
            }
            ("seccomp", "builtin") => {}
            ("apparmor", "unconfined") => {
                let profile = AppArmorProfile { type_: "Unconfined".into(), localhost_profile: None };
                self.security().app_armor_profile = Some(profile);
            }
            ("apparmor", "docker-default") => {}
            ("apparmor", name) if !name.is_empty() => {
                let profile =
                    AppArmorProfile { type_: "Localhost".into(), localhost_profile: Some(name.into()) };
                self.security().app_armor_profile = Some(profile);
            }
            ("label", label) => return self.se_linux(label),
            ("systempaths", "unconfined") => self.security().proc_mount = Some("Unmasked".into()),
            _ => {
                return Some(Unsupported::Warning(format!(
                    "security option {option} has no effect in a Pod"
                )));
            }
        }
        None
    }

    fn se_linux(&mut self, label: &str) -> Option<Unsupported> {
        let (key, value) = label.split_once(':').unwrap_or((label, ""));
        let options: &mut SELinuxOptions = self.security().se_linux_options.get_or_insert_default();
        match key {
            "user" => options.user = Some(value.into()),
            "role" => options.role = Some(value.into()),
            "type" => options.type_ = Some(value.into()),
            "level" => options.level = Some(value.into()),
            // The type that SELinux does not confine.
            "disable" => options.type_ = Some("spc_t".into()),
            _ => {
                return Some(Unsupported::Warning(format!(
                    "security option label:{label} has no effect in a Pod"
                )));
            }
        }
        None
    }
}
