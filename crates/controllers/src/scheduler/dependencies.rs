//! Start order of an app's components: a Pod with the annotation `yado.dev/depends-on` is scheduled once the components
//! that it names have reached the stated condition.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::Pod;
use yado_reconcile::Change;
use yado_types::labels::{
    APP_COMPONENT, APP_NAME, DEPENDS_ON, DEPENDS_ON_COMPLETED, DEPENDS_ON_HEALTHY, DEPENDS_ON_STARTED,
    RESTART,
};
use yado_types::pod::{is_ready, phase};

/// A component (process type) of an app in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Component {
    namespace: String,
    app: String,
    name: String,
}

/// The condition that a component must reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// One of its Pods is in the phase Running, Succeeded or Failed.
    Started,
    /// One of its Pods is ready.
    Healthy,
    /// One of its Pods is in the phase Succeeded.
    Completed,
}

/// The dependencies that a Pod's annotation declares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dependencies {
    required: Vec<(Component, Condition)>,
    /// Why the annotation is not valid; it is ignored then.
    pub malformed: Option<String>,
}

impl Dependencies {
    /// Parses the annotation of a Pod; without it, there are no dependencies.
    pub fn of(pod: &Pod) -> Self {
        let annotation = pod.metadata.annotations.as_ref().and_then(|a| a.get(DEPENDS_ON));
        let Some(text) = annotation else { return Self::default() };
        match parse(text) {
            Ok(required) => {
                let component = |name| {
                    let (namespace, app) = app_of(pod);
                    Component { namespace, app, name }
                };
                let required =
                    required.into_iter().map(|(name, condition)| (component(name), condition)).collect();
                Self { required, malformed: None }
            }
            Err(why) => Self { required: Vec::new(), malformed: Some(why) },
        }
    }

    /// Whether these dependencies name the component.
    pub fn include(&self, component: &Component) -> bool {
        self.required.iter().any(|(c, _)| c == component)
    }
}

/// The Pod's namespace and its app by the label; empty if it has none.
fn app_of(pod: &Pod) -> (String, String) {
    let label = pod.metadata.labels.as_ref().and_then(|l| l.get(APP_NAME).cloned());
    (pod.metadata.namespace.clone().unwrap_or_default(), label.unwrap_or_default())
}

/// The component that a Pod belongs to by its labels.
fn component(pod: &Pod) -> Option<Component> {
    let name = pod.metadata.labels.as_ref()?.get(APP_COMPONENT)?.clone();
    let (namespace, app) = app_of(pod);
    Some(Component { namespace, app, name })
}

fn is_over(pod: &Pod) -> bool {
    let annotated = pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(RESTART));
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let mut ended =
        statuses.map(|s| s.state.as_ref().is_some_and(|state| state.terminated.is_some())).peekable();
    annotated && ended.peek().is_some() && ended.all(|ended| ended)
}

/// Parses the annotation: a JSON object of component names and conditions.
fn parse(text: &str) -> Result<BTreeMap<String, Condition>, String> {
    let object: BTreeMap<String, String> =
        serde_json::from_str(text).map_err(|e| format!("it is not a valid JSON object of strings: {e}"))?;
    let parse_condition = |(name, text): (String, String)| {
        let condition = match text.as_str() {
            DEPENDS_ON_STARTED => Condition::Started,
            DEPENDS_ON_HEALTHY => Condition::Healthy,
            DEPENDS_ON_COMPLETED => Condition::Completed,
            _ => {
                return Err(format!(
                    "the condition {text:?} for {name} is not one of {DEPENDS_ON_STARTED}, {DEPENDS_ON_HEALTHY} and \
                     {DEPENDS_ON_COMPLETED}"
                ));
            }
        };
        Ok((name, condition))
    };
    object.into_iter().map(parse_condition).collect()
}

/// What one Pod has reached, or any of several Pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    exists: bool,
    started: bool,
    ready: bool,
    completed: bool,
    failed: bool,
    /// None of its processes runs, though its phase says so of none: a restart policy leaves them ended.
    over: bool,
}

impl Progress {
    fn of(pod: &Pod) -> Self {
        let phase = phase(pod);
        Self {
            exists: true,
            started: matches!(phase, "Running" | "Succeeded" | "Failed"),
            ready: is_ready(pod),
            completed: phase == "Succeeded",
            failed: phase == "Failed",
            over: is_over(pod),
        }
    }

    fn with(self, other: &Self) -> Self {
        Self {
            exists: self.exists || other.exists,
            started: self.started || other.started,
            ready: self.ready || other.ready,
            completed: self.completed || other.completed,
            failed: self.failed || other.failed,
            over: self.over || other.over,
        }
    }

    fn meets(self, condition: Condition) -> bool {
        match condition {
            Condition::Started => self.started,
            Condition::Healthy => self.ready,
            Condition::Completed => self.completed,
        }
    }
}

/// Progress of the Pods of every component, by the Pod's uid. It has an entry for each Pod with a component label.
#[derive(Default)]
pub struct Components(HashMap<Component, HashMap<String, Progress>>);

impl Components {
    fn progress(&self, component: &Component) -> Progress {
        let pods = self.0.get(component).into_iter().flat_map(HashMap::values);
        pods.fold(Progress::default(), Progress::with)
    }

    /// Applies the change of a Pod and returns the components whose progress differs afterwards.
    pub fn changed(&mut self, change: &Change<Pod>) -> Vec<Component> {
        let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
        let old = change.old.as_ref().and_then(|pod| Some((component(pod)?, uid(pod))));
        let new = change.new.as_ref().and_then(|pod| Some((component(pod)?, uid(pod), Progress::of(pod))));
        let mut touched: Vec<(Component, Progress)> = Vec::new();
        for c in old.iter().map(|(c, _)| c).chain(new.iter().map(|(c, ..)| c)) {
            if touched.iter().all(|(known, _)| known != c) {
                touched.push((c.clone(), self.progress(c)));
            }
        }
        if let Some((component, uid)) = old
            && let Some(pods) = self.0.get_mut(&component)
        {
            pods.remove(&uid);
            if pods.is_empty() {
                self.0.remove(&component);
            }
        }
        if let Some((component, uid, progress)) = new {
            self.0.entry(component).or_default().insert(uid, progress);
        }
        touched.retain(|(component, before)| self.progress(component) != *before);
        touched.into_iter().map(|(component, _)| component).collect()
    }

    /// A sentence that lists the dependencies that are not met; `None` if all are.
    pub fn missing(&self, dependencies: &Dependencies) -> Option<String> {
        let open = dependencies.required.iter().filter_map(|(component, condition)| {
            let progress = self.progress(component);
            let name = &component.name;
            let note = match (progress.meets(*condition), progress.exists, condition) {
                (true, ..) => return None,
                (false, false, _) => " (there is no Pod of it)",
                (false, true, Condition::Completed) if progress.failed => " (it has failed)",
                (false, true, Condition::Healthy) if progress.over => " (it has ended)",
                (false, true, _) => "",
            };
            Some(match condition {
                Condition::Started => format!("{name} to start{note}"),
                Condition::Healthy => format!("{name} to be healthy{note}"),
                Condition::Completed => format!("{name} to complete{note}"),
            })
        });
        let open: Vec<_> = open.collect();
        (!open.is_empty()).then(|| format!("waits for {}", open.join(" and for ")))
    }
}
