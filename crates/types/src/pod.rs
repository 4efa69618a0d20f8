//! Accessors for a Pod's status and spec that several crates use.

use std::fmt;
use std::str::FromStr;

use k8s_openapi::api::core::v1::{Pod, PodCondition};

/// The Pod's condition of this type, such as `Ready`, if the status has it.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// Whether the Pod's Ready condition is True.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// Whether the Pod's phase is Succeeded or Failed, after which its containers are not restarted.
pub fn is_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the Pod's deletion was requested: it has a deletion timestamp.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// The Pod's phase; `Pending` if it has no status yet.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

/// The name of the node that the Pod is bound to, if it is.
pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())
}

/// How often a container is run again after its process has ended, as Docker's restart policies say. Written `no`,
/// `on-failure`, `on-failure:3`, `always` or, with a bound that only Swarm knows, `always:3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// Whatever its exit code.
    #[default]
    Always,
    /// Whatever its exit code, and so many times at most.
    AtMost(u32),
    /// After an exit code other than 0, and so many times at most where that is said.
    OnFailure(Option<u32>),
    /// Never.
    No,
}

impl Restart {
    /// Whether a process that ended with `code` is run once more when it has been `restarts` times already.
    pub fn again(self, code: i32, restarts: u32) -> bool {
        match self {
            Restart::Always => true,
            Restart::AtMost(most) => restarts < most,
            Restart::OnFailure(most) => code != 0 && most.is_none_or(|most| restarts < most),
            Restart::No => false,
        }
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Restart::Always => f.write_str("always"),
            Restart::AtMost(most) => write!(f, "always:{most}"),
            Restart::OnFailure(None) => f.write_str("on-failure"),
            Restart::OnFailure(Some(most)) => write!(f, "on-failure:{most}"),
            Restart::No => f.write_str("no"),
        }
    }
}

impl FromStr for Restart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (policy, most) = match text.split_once(':') {
            Some((policy, most)) => {
                (policy, Some(most.parse().map_err(|_| format!("{most:?} is not a number"))?))
            }
            None => (text, None),
        };
        match (policy, most) {
            ("always", None) => Ok(Restart::Always),
            ("always", Some(most)) => Ok(Restart::AtMost(most)),
            ("on-failure", most) => Ok(Restart::OnFailure(most)),
            ("no", None) => Ok(Restart::No),
            _ => Err(format!(
                "{text:?} is not a restart policy: there are no, on-failure, on-failure:N, always and always:N"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_policy_says_how_often() {
        // The policy; then, for exit codes 0 and 1, how often a process is run in all, of five times that it would end.
        for (text, well, badly) in [
            ("always", 5, 5),
            ("always:2", 3, 3),
            ("on-failure", 1, 5),
            ("on-failure:3", 1, 4),
            ("on-failure:0", 1, 1),
            ("no", 1, 1),
        ] {
            let restart: Restart = text.parse().unwrap();
            assert_eq!(restart.to_string(), text);
            let runs = |code| 1 + (0..4).take_while(|restarts| restart.again(code, *restarts)).count();
            assert_eq!((runs(0), runs(1)), (well, badly), "{text}");
        }
        for text in ["", "never", "no:1", "on-failure:x", "always:-1"] {
            assert!(text.parse::<Restart>().is_err(), "{text}");
        }
    }
}
