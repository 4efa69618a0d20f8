//! Pods as processes: `guestbook.web.1` is the first `web` process of the app `guestbook`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;
use yado_types::labels;

/// Gives each Pod a process name and keeps it. A number is free again when its Pod is gone, as on Heroku.
#[derive(Debug, Default)]
pub struct ProcessNames {
    /// Pod name to group and number.
    taken: BTreeMap<String, (String, usize)>,
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
        let name = pod.name_any();
        let Some(group) = group(pod) else { return name };
        if !self.taken.contains_key(&name) {
            let used: Vec<usize> =
                self.taken.values().filter(|(g, _)| *g == group).map(|(_, n)| *n).collect();
            // One of the first `used.len() + 1` numbers is free.
            let number = (1..=used.len() + 1).find(|n| !used.contains(n)).unwrap_or(used.len() + 1);
            self.taken.insert(name.clone(), (group, number));
        }
        let (group, number) = &self.taken[&name];
        format!("{group}.{number}")
    }

    /// The Pod is gone.
    pub fn forget(&mut self, pod: &str) {
        self.taken.remove(pod);
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
    let label = |key: &str| pod.labels().get(key).is_some_and(|value| value == wanted);
    let owner = pod.owner_references().iter().any(|o| o.name == wanted);
    // A Pod of a Deployment is named DEPLOYMENT-HASH-RANDOM.
    let deployment = pod.name_any().rsplitn(3, '-').nth(2) == Some(wanted);
    pod.name_any() == wanted
        || process == wanted
        || group(pod).as_deref() == Some(wanted)
        || owner
        || deployment
        || [labels::APP_NAME, labels::APP_COMPONENT, labels::APP_PART_OF].into_iter().any(label)
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
    if let Some(reason) = statuses.iter().find_map(unwell) {
        return reason;
    }
    status.reason.or(status.phase).unwrap_or_else(|| "Pending".into())
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

/// The message of the first container that waits for a reason other than being started, such as a missing image.
pub fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers =
        [&status.init_container_statuses, &status.container_statuses].into_iter().flatten().flatten();
    for container in containers {
        let state = container.state.as_ref()?;
        if let Some(waiting) = &state.waiting {
            let reason = waiting.reason.as_deref().unwrap_or_default();
            if !["", "ContainerCreating", "PodInitializing"].contains(&reason) {
                let message = waiting.message.as_deref().unwrap_or_default();
                return Some(format!("{reason} {message}").trim_end().into());
            }
        }
    }
    let conditions = status.conditions.iter().flatten();
    let unscheduled = conditions.filter(|c| c.type_ == "PodScheduled" && c.status == "False");
    unscheduled.filter_map(|c| c.message.clone()).next()
}

/// Why waiting for this Pod is in vain, if it is: what it asks for cannot be had, or its process ends again and again.
pub fn hopeless(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers =
        [&status.init_container_statuses, &status.container_statuses].into_iter().flatten().flatten();
    for container in containers {
        let Some(waiting) = container.state.as_ref().and_then(|s| s.waiting.as_ref()) else { continue };
        let message = waiting.message.as_deref().unwrap_or_default();
        match waiting.reason.as_deref().unwrap_or_default() {
            // The node tries again after ErrImagePull, and says this once it has failed for a second time.
            reason @ ("ImagePullBackOff"
            | "ErrImageNeverPull"
            | "InvalidImageName"
            | "CreateContainerConfigError") => {
                return Some(
                    format!("image {} cannot be used: {reason} {message}", container.image).trim_end().into(),
                );
            }
            "CrashLoopBackOff" if container.restart_count >= PATIENT_RESTARTS => {
                let ended = container.last_state.as_ref().and_then(|s| s.terminated.as_ref());
                let code = ended.map_or_else(|| "some".into(), |e| e.exit_code.to_string());
                return Some(format!(
                    "its process ended with exit code {code}, {} times",
                    container.restart_count + 1
                ));
            }
            _ => {}
        }
    }
    None
}

/// A process that needs another one may end a few times until that one is up.
const PATIENT_RESTARTS: i32 = 3;

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
    fn states_are_told_in_a_word_and_troubles_in_a_sentence() {
        let waiting = |reason: &str, restarts: i32| {
            json!({"restartCount": restarts, "state": {"waiting": {"reason": reason, "message": "because"}},
                   "lastState": {"terminated": {"exitCode": 7}}})
        };
        type Row<'a> = (Value, &'a str, Option<&'a str>, Option<&'a str>);
        let rows: [Row; 7] = [
            (json!(null), "Running", None, None),
            (waiting("ContainerCreating", 0), "ContainerCreating", None, None),
            (waiting("ErrImagePull", 0), "ErrImagePull", Some("ErrImagePull because"), None),
            (
                waiting("ImagePullBackOff", 0),
                "ImagePullBackOff",
                Some("ImagePullBackOff because"),
                Some("image i:1 cannot be used: ImagePullBackOff because"),
            ),
            (waiting("CrashLoopBackOff", 1), "CrashLoopBackOff", Some("CrashLoopBackOff because"), None),
            (
                waiting("CrashLoopBackOff", 3),
                "CrashLoopBackOff",
                Some("CrashLoopBackOff because"),
                Some("its process ended with exit code 7, 4 times"),
            ),
            (json!({"restartCount": 0, "state": {"terminated": {"exitCode": 2}}}), "ExitCode:2", None, None),
        ];
        for (container, word, sentence, vain) in rows {
            let pod = pod("p", json!({}), container.clone());
            assert_eq!(state(&pod), word, "{container}");
            assert_eq!(trouble(&pod).as_deref(), sentence, "{container}");
            assert_eq!(hopeless(&pod).as_deref(), vain, "{container}");
        }
    }
}
