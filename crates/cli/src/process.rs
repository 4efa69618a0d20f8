//! Pods as processes: `guestbook.web.1` is the first `web` process of the app `guestbook`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;
use yado_types::labels;

/// Gives each Pod a process name and keeps it. A number is free again when its Pod is gone, as on Heroku.
#[derive(Debug, Default)]
pub struct ProcessNames {
    /// Namespace and name of a Pod to its group and number.
    taken: BTreeMap<(String, String), (String, usize)>,
}

impl ProcessNames {
    /// Names for these Pods, the oldest first.
    pub fn of(pods: &[Pod]) -> Self {
        let mut names = ProcessNames::default();
        let mut by_age: Vec<&Pod> = pods.iter().collect();
        by_age.sort_by_key(|p| (p.creation_timestamp(), p.name_any()));
        by_age.iter().for_each(|p| {
            names.name(p);
        });
        names
    }

    /// The Pod's process name.
    pub fn name(&mut self, pod: &Pod) -> String {
        let Some(group) = group(pod) else { return pod.name_any() };
        let key = (pod.namespace().unwrap_or_default(), pod.name_any());
        if !self.taken.contains_key(&key) {
            let same =
                self.taken.iter().filter(|((namespace, _), (g, _))| *namespace == key.0 && *g == group);
            let used: Vec<usize> = same.map(|(_, (_, number))| *number).collect();
            // One of the first `used.len() + 1` numbers is free.
            let number = (1..=used.len() + 1).find(|n| !used.contains(n)).unwrap_or(used.len() + 1);
            self.taken.insert(key.clone(), (group, number));
        }
        let (group, number) = &self.taken[&key];
        format!("{group}.{number}")
    }

    /// The Pod is gone. For names of one namespace.
    pub fn forget(&mut self, pod: &str) {
        self.taken.retain(|(_, name), _| name != pod);
    }
}

/// `guestbook.web`, or `redis` for an application of one process; none for a Pod that is no app's.
pub fn group(pod: &Pod) -> Option<String> {
    let app = pod.labels().get(labels::APP_NAME)?;
    match pod.labels().get(labels::APP_COMPONENT).filter(|c| *c != "app") {
        Some(component) => Some(format!("{app}.{component}")),
        None => Some(app.clone()),
    }
}

/// Whether `wanted` names this Pod: its name, its process, its process type, its app, or the app it is part of.
pub fn matches(pod: &Pod, process: &str, wanted: &str) -> bool {
    precision(pod, process, wanted).is_some()
}

/// How precisely a word names a Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {
    /// The Pod's name.
    Pod,
    /// `guestbook.web.1`.
    Process,
    /// `guestbook.web`, or what owns it.
    Type,
    /// `web`, an app, or the app it is part of.
    Label,
}

/// How precisely `wanted` names this Pod, if it does.
pub fn precision(pod: &Pod, process: &str, wanted: &str) -> Option<Precision> {
    let label = |key: &str| pod.labels().get(key).is_some_and(|value| value == wanted);
    if pod.name_any() == wanted {
        Some(Precision::Pod)
    } else if process == wanted {
        Some(Precision::Process)
    } else if group(pod).as_deref() == Some(wanted) || is_owned_by(pod, wanted) {
        Some(Precision::Type)
    } else if [labels::APP_NAME, labels::APP_COMPONENT, labels::APP_PART_OF].into_iter().any(label) {
        Some(Precision::Label)
    } else {
        None
    }
}

/// Whether a workload of this name has made the Pod.
fn is_owned_by(pod: &Pod, name: &str) -> bool {
    // A Pod of a Deployment is named DEPLOYMENT-HASH-RANDOM.
    pod.owner_references().iter().any(|o| o.name == name)
        || pod.name_any().rsplitn(3, '-').nth(2) == Some(name)
}

/// The Pods of one app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppPods {
    /// The app.
    pub app: String,
    /// Its namespace.
    pub namespace: String,
    /// Its workloads, by which Pods are found that carry no label of the app's, such as those of manifests.
    pub workloads: Vec<String>,
}

impl AppPods {
    /// Whether a Pod is the app's.
    pub fn has(&self, pod: &Pod) -> bool {
        let label = |key: &str| pod.labels().get(key) == Some(&self.app);
        let owned = || self.workloads.iter().any(|name| pod.name_any() == *name || is_owned_by(pod, name));
        pod.namespace().is_none_or(|namespace| namespace == self.namespace)
            && (label(labels::APP_NAME) || label(labels::APP_PART_OF) || owned())
    }
}

/// A Pod's state in one word, as `kubectl get pods` says it.
pub fn state(pod: &Pod) -> String {
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".into();
    }
    let status = pod.status.clone().unwrap_or_default();
    let statuses = status.container_statuses.unwrap_or_default();
    let init = status.init_container_statuses.unwrap_or_default();
    if let Some(reason) = init.iter().find_map(unwell) {
        return format!("Init:{reason}");
    }
    if let Some((container, reason)) = statuses.iter().find_map(|c| Some((c, unwell(c)?))) {
        let killed = reason != OOM_KILLED && last_was_oom(container);
        return if killed { format!("{reason} ({OOM_KILLED})") } else { reason };
    }
    let over = |s: &ContainerStatus| s.state.as_ref().is_some_and(|state| state.terminated.is_some());
    if !statuses.is_empty() && statuses.iter().all(over) {
        return "Completed".into();
    }
    status.reason.or(status.phase).unwrap_or_else(|| "Pending".into())
}

/// The reason of a container that the kernel ended for want of memory.
const OOM_KILLED: &str = "OOMKilled";

fn last_was_oom(container: &ContainerStatus) -> bool {
    let last = container.last_state.as_ref().and_then(|s| s.terminated.as_ref());
    last.is_some_and(|ended| ended.reason.as_deref() == Some(OOM_KILLED))
}

/// Whether one of a Pod's containers was ended for want of memory before it was started again.
pub fn was_oom_killed(pod: &Pod) -> bool {
    pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten()).any(last_was_oom)
}

/// Why a container does not run, if it does not and that is no good end.
fn unwell(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        return waiting.reason.clone();
    }
    let ended = state.terminated.as_ref()?;
    if ended.exit_code == 0 {
        return None;
    }
    Some(ended.reason.clone().unwrap_or_else(|| format!("ExitCode:{}", ended.exit_code)))
}

/// How often its containers were started again.
pub fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    statuses.map(|c| c.restart_count).sum()
}

/// Whether it takes requests.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.filter(|c| c.type_ == "Ready").any(|c| c.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, labels: Value, container: Value) -> Pod {
        let container = match container {
            Value::Null => json!([]),
            mut status => {
                for (key, value) in [
                    ("name", json!("c")),
                    ("image", json!("i:1")),
                    ("imageID", json!("")),
                    ("ready", json!(false)),
                ] {
                    status[key] = value;
                }
                json!([status])
            }
        };
        let owner =
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-web-1", "uid": "u"}]);
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels, "ownerReferences": owner},
            "spec": {"containers": []},
            "status": {"phase": "Running", "containerStatuses": container},
        }))
        .unwrap()
    }

    fn labels(app: &str, component: &str) -> Value {
        json!({labels::APP_NAME: app, labels::APP_COMPONENT: component, labels::APP_PART_OF: "all"})
    }

    #[test]
    fn numbers_are_kept_and_used_again() {
        let mut names = ProcessNames::default();
        let mut name = |pod_name: &str, component: &str| {
            names.name(&pod(pod_name, labels("shop", component), json!(null)))
        };
        assert_eq!(
            [name("a", "web"), name("b", "web"), name("c", "work")],
            ["shop.web.1", "shop.web.2", "shop.work.1"]
        );
        assert_eq!([name("b", "web"), name("d", "app")], ["shop.web.2", "shop.1"]);
        names.forget("a");
        assert_eq!(names.name(&pod("e", labels("shop", "web"), json!(null))), "shop.web.1");
        assert_eq!(names.name(&pod("own", json!({}), json!(null))), "own");
    }

    #[test]
    fn pods_are_found_by_what_users_call_them() {
        let pod = pod("shop-web-1-x", labels("shop", "web"), json!(null));
        for wanted in
            ["shop-web-1-x", "shop.web.1", "shop.web", "web", "shop", "all", "shop-web", "shop-web-1"]
        {
            assert!(matches(&pod, "shop.web.1", wanted), "{wanted}");
        }
        for wanted in ["", "sho", "shop.web.2", "work", "shop-web-1-y"] {
            assert!(!matches(&pod, "shop.web.1", wanted), "{wanted}");
        }
    }

    #[test]
    fn the_most_precise_meaning_of_a_word_counts() {
        let pod = pod("shop-web-1-x", labels("shop", "web"), json!(null));
        for (wanted, expect) in [
            ("shop-web-1-x", Some(Precision::Pod)),
            ("shop.web.1", Some(Precision::Process)),
            ("shop.web", Some(Precision::Type)),
            ("shop-web", Some(Precision::Type)),
            ("web", Some(Precision::Label)),
            ("work", None),
        ] {
            assert_eq!(precision(&pod, "shop.web.1", wanted), expect, "{wanted}");
        }
    }

    #[test]
    fn states_are_told_in_a_word() {
        let waiting = |reason: &str, last: Value| json!({"restartCount": 1, "state": {"waiting": {"reason": reason}}, "lastState": {"terminated": last}});
        let killed = json!({"exitCode": 137, "reason": "OOMKilled"});
        let rows = [
            (json!(null), "Running"),
            (waiting("ContainerCreating", json!(null)), "ContainerCreating"),
            (waiting("CrashLoopBackOff", json!({"exitCode": 7})), "CrashLoopBackOff"),
            (waiting("CrashLoopBackOff", killed.clone()), "CrashLoopBackOff (OOMKilled)"),
            (json!({"restartCount": 0, "state": {"terminated": {"exitCode": 2}}}), "ExitCode:2"),
            (json!({"restartCount": 0, "state": {"terminated": {"exitCode": 0}}}), "Completed"),
            (json!({"restartCount": 0, "state": {"terminated": killed}}), "OOMKilled"),
        ];
        for (container, word) in rows {
            assert_eq!(state(&pod("p", json!({}), container.clone())), word, "{container}");
        }
    }
}
