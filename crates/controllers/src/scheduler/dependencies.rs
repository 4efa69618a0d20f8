//! Components that a Pod waits for, as the annotation `yado.dev/depends-on` on it says.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::Pod;
use yado_reconcile::Change;
use yado_types::labels::{
    APP_COMPONENT, APP_NAME, DEPENDS_ON, DEPENDS_ON_COMPLETED, DEPENDS_ON_HEALTHY, DEPENDS_ON_STARTED,
    RESTART,
};
use yado_types::pod::{is_ready, phase};

/// A component of an app in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Component {
    namespace: String,
    app: String,
    name: String,
}

/// What a component has to have come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A Pod of it has been started.
    Started,
    /// A Pod of it is ready.
    Healthy,
    /// A Pod of it has ended well.
    Completed,
}

/// What the annotation on a Pod says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dependencies {
    wanted: Vec<(Component, Wanted)>,
    /// Why the annotation cannot be followed.
    pub malformed: Option<String>,
}

impl Dependencies {
    pub fn of(pod: &Pod) -> Self {
        let annotation = pod.metadata.annotations.as_ref().and_then(|a| a.get(DEPENDS_ON));
        let Some(text) = annotation else { return Self::default() };
        match parse(text) {
            Ok(wanted) => {
                let near = |name| {
                    let (namespace, app) = place(pod);
                    Component { namespace, app, name }
                };
                let wanted = wanted.into_iter().map(|(name, what)| (near(name), what)).collect();
                Self { wanted, malformed: None }
            }
            Err(why) => Self { wanted: Vec::new(), malformed: Some(why) },
        }
    }

    pub fn name(&self, component: &Component) -> bool {
        self.wanted.iter().any(|(c, _)| c == component)
    }
}

fn place(pod: &Pod) -> (String, String) {
    let label = pod.metadata.labels.as_ref().and_then(|l| l.get(APP_NAME).cloned());
    (pod.metadata.namespace.clone().unwrap_or_default(), label.unwrap_or_default())
}

/// The component a Pod is of.
fn component(pod: &Pod) -> Option<Component> {
    let name = pod.metadata.labels.as_ref()?.get(APP_COMPONENT)?.clone();
    let (namespace, app) = place(pod);
    Some(Component { namespace, app, name })
}

fn is_over(pod: &Pod) -> bool {
    let annotated = pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(RESTART));
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let mut ended =
        statuses.map(|s| s.state.as_ref().is_some_and(|state| state.terminated.is_some())).peekable();
    annotated && ended.peek().is_some() && ended.all(|ended| ended)
}

fn parse(text: &str) -> Result<BTreeMap<String, Wanted>, String> {
    let read: BTreeMap<String, String> =
        serde_json::from_str(text).map_err(|e| format!("it is no JSON object of texts: {e}"))?;
    let known = |(name, what): (String, String)| {
        let wanted = match what.as_str() {
            DEPENDS_ON_STARTED => Wanted::Started,
            DEPENDS_ON_HEALTHY => Wanted::Healthy,
            DEPENDS_ON_COMPLETED => Wanted::Completed,
            _ => {
                return Err(format!(
                    "{name} is to be {what:?}, which is none of {DEPENDS_ON_STARTED}, {DEPENDS_ON_HEALTHY} and \
                     {DEPENDS_ON_COMPLETED}"
                ));
            }
        };
        Ok((name, wanted))
    };
    read.into_iter().map(known).collect()
}

/// How far a Pod, or the furthest of several, has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    there: bool,
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
            there: true,
            started: matches!(phase, "Running" | "Succeeded" | "Failed"),
            ready: is_ready(pod),
            completed: phase == "Succeeded",
            failed: phase == "Failed",
            over: is_over(pod),
        }
    }

    fn with(self, other: &Self) -> Self {
        Self {
            there: self.there || other.there,
            started: self.started || other.started,
            ready: self.ready || other.ready,
            completed: self.completed || other.completed,
            failed: self.failed || other.failed,
            over: self.over || other.over,
        }
    }

    fn has(self, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Started => self.started,
            Wanted::Healthy => self.ready,
            Wanted::Completed => self.completed,
        }
    }
}

/// How far the Pods of every component have come; as many entries as there are Pods with a component's label.
#[derive(Default)]
pub struct Components(HashMap<Component, HashMap<String, Progress>>);

impl Components {
    fn progress(&self, component: &Component) -> Progress {
        let pods = self.0.get(component).into_iter().flat_map(HashMap::values);
        pods.fold(Progress::default(), Progress::with)
    }

    /// Takes in a change, and gives the components that have come to something else by it.
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

    /// What a Pod still waits for, in words; `None` when there is nothing left.
    pub fn missing(&self, dependencies: &Dependencies) -> Option<String> {
        let open = dependencies.wanted.iter().filter_map(|(component, wanted)| {
            let progress = self.progress(component);
            let name = &component.name;
            let note = match (progress.has(*wanted), progress.there, wanted) {
                (true, ..) => return None,
                (false, false, _) => " (there is no Pod of it)",
                (false, true, Wanted::Completed) if progress.failed => " (it has failed)",
                (false, true, Wanted::Healthy) if progress.over => " (it has ended)",
                (false, true, _) => "",
            };
            Some(match wanted {
                Wanted::Started => format!("{name} to start{note}"),
                Wanted::Healthy => format!("{name} to be healthy{note}"),
                Wanted::Completed => format!("{name} to complete{note}"),
            })
        });
        let open: Vec<_> = open.collect();
        (!open.is_empty()).then(|| format!("waits for {}", open.join(" and for ")))
    }
}
