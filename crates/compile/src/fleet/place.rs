//! Scheduling constraints of `[X-Fleet]`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinity,
        PodAffinityTerm, PodAntiAffinity,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};
use yado_types::{labels, names};

use super::{
    name::{UnitName, glob},
    syntax::Assignment,
    text::specifiers,
};
use crate::diagnostic::{Findings, Position};

/// The constraints in `[X-Fleet]`.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    pub machine_id: Option<(String, Position)>,
    /// Units on whose machine this one has to run.
    pub machine_of: Vec<(UnitName, Position)>,
    /// Required machine metadata: values of which one has to match, by key.
    pub metadata: BTreeMap<String, Vec<String>>,
    /// Patterns of units on whose machine this one must not run.
    pub conflicts: Vec<(String, Position)>,
    pub global: bool,
    /// Units that this one replaces.
    pub replaces: Vec<(UnitName, Position)>,
}

/// Parses the section.
pub fn read(unit: &UnitName, entries: &[Assignment], found: &mut Findings) -> Fleet {
    let mut fleet = Fleet::default();
    let mut legacy_id = None;
    for entry in entries.iter().filter(|e| e.section == "X-Fleet") {
        let at = entry.value.start();
        let text = specifiers(&entry.value.text, unit).lossy();
        for value in values(&text) {
            match entry.key.as_str() {
                "MachineID" => {
                    fleet.machine_id.get_or_insert((value, at.clone()));
                }
                "X-ConditionMachineID" | "X-ConditionMachineBootID" => {
                    legacy_id.get_or_insert((value, at.clone()));
                }
                "MachineOf" | "X-ConditionMachineOf" => named(&value, &at, &mut fleet.machine_of, found),
                "Replaces" => named(&value, &at, &mut fleet.replaces, found),
                "MachineMetadata" | "X-ConditionMachineMetadata" => {
                    metadata(&value, &at, &mut fleet.metadata, found);
                }
                "Conflicts" | "X-Conflicts" => {
                    for pattern in value.split_whitespace() {
                        match glob(pattern, "") {
                            Ok(_) => fleet.conflicts.push((pattern.into(), at.clone())),
                            Err(mistake) => found.error(&at, format!("the pattern \"{pattern}\" {mistake}")),
                        }
                    }
                }
                "Global" => {
                    fleet.global = ["true", "yes", "1", "on", "t"].contains(&value.to_lowercase().as_str());
                }
                _ => {}
            }
        }
    }
    fleet.machine_id = fleet.machine_id.or(legacy_id).filter(|(id, _)| !id.is_empty());
    check(&fleet, found);
    fleet
}

/// Splits `"a=b" "c=d"` into two values; any other text is one value.
fn values(text: &str) -> Vec<String> {
    if !(text.len() > 1 && text.starts_with('"') && text.ends_with('"')) {
        return vec![text.to_string()];
    }
    let mut values = vec![String::new()];
    let mut inside = false;
    for c in text.chars() {
        match c {
            '"' => inside = !inside,
            c if c.is_whitespace() && !inside => values.push(String::new()),
            c => values.last_mut().into_iter().for_each(|v| v.push(c)),
        }
    }
    values.retain(|v| !v.is_empty());
    values
}

fn named(value: &str, at: &Position, into: &mut Vec<(UnitName, Position)>, found: &mut Findings) {
    for name in value.split_whitespace() {
        match UnitName::new(name) {
            Ok(name) => into.push((name, at.clone())),
            Err(mistake) => found.error(at, mistake),
        }
    }
}

fn metadata(value: &str, at: &Position, into: &mut BTreeMap<String, Vec<String>>, found: &mut Findings) {
    let pair = value.split_once('=').filter(|(key, value)| !key.is_empty() && !value.is_empty());
    let Some((key, value)) = pair.filter(|(_, value)| !value.contains('=')) else {
        let hint = if value.contains(char::is_whitespace) { ", several as \"a=b\" \"c=d\"" } else { "" };
        let sentence = format!("\"{value}\" is not of the form key=value{hint}, and fleet ignores it");
        return found.warn(at, sentence);
    };
    if let Err(rule) = names::qualified_name(key).and_then(|()| names::label_value(value)) {
        let sentence =
            format!("\"{key}={value}\" cannot be a label of a node, which is what metadata are here: {rule}");
        return found.error(at, sentence);
    }
    let values = into.entry(key.into()).or_default();
    if !values.iter().any(|v| v == value) {
        values.push(value.into());
    }
}

/// Reports combinations that fleet refuses.
fn check(fleet: &Fleet, found: &mut Findings) {
    let Fleet { machine_id, machine_of, conflicts, replaces, global, .. } = fleet;
    let mut refuse = |at: &Position, one: &str, other: &str| {
        found.error(at, format!("{one} cannot be used with {other}: remove one of them"));
    };
    if let Some((_, at)) = machine_id {
        let others = [
            ("MachineOf", !machine_of.is_empty()),
            ("Conflicts", !conflicts.is_empty()),
            ("Global", *global),
            ("Replaces", !replaces.is_empty()),
        ];
        others.iter().filter(|(_, used)| *used).for_each(|(other, _)| refuse(at, "MachineID", other));
    }
    if let Some((_, at)) = machine_of.first().filter(|_| *global) {
        refuse(at, "MachineOf", "Global");
    }
    if let Some((_, at)) = replaces.first() {
        let others = [("Global", *global), ("Conflicts", !conflicts.is_empty())];
        others.iter().filter(|(_, used)| *used).for_each(|(other, _)| refuse(at, "Replaces", other));
    }
    for (peer, _) in machine_of {
        for (pattern, at) in conflicts.iter().filter(|(p, _)| glob(p, peer.full()) == Ok(true)) {
            let sentence =
                format!("MachineOf={peer} and Conflicts={pattern} cannot both be met: remove one of them");
            found.error(at, sentence);
        }
    }
}

/// Placement of a unit's Pods.
#[derive(Debug, Default)]
pub struct Placement<'a> {
    /// The application whose components the units are.
    pub app: &'a str,
    /// The node with the machine ID, if known.
    pub node: Option<&'a str>,
    /// The preferred node.
    pub preferred: Option<&'a str>,
    /// Components on whose node the Pods have to run.
    pub with: Vec<String>,
    /// Components on whose node the Pods must not run.
    pub apart: Vec<String>,
}

/// The affinity of a unit's Pods.
pub fn affinity(fleet: &Fleet, placement: &Placement<'_>) -> Option<Affinity> {
    let node_affinity = node_affinity(fleet, placement);
    let near = |components: &[String]| -> Vec<PodAffinityTerm> {
        let term = |components: Vec<String>| PodAffinityTerm {
            topology_key: labels::HOSTNAME.into(),
            label_selector: Some(LabelSelector {
                match_labels: Some(BTreeMap::from([(labels::APP_NAME.into(), placement.app.into())])),
                match_expressions: Some(vec![LabelSelectorRequirement {
                    key: labels::APP_COMPONENT.into(),
                    operator: "In".into(),
                    values: Some(components),
                }]),
            }),
            ..PodAffinityTerm::default()
        };
        vec![term(components.to_vec())]
    };
    // Each unit is a separate term, since all of them have to be on the node.
    let with: Vec<PodAffinityTerm> =
        placement.with.iter().flat_map(|w| near(std::slice::from_ref(w))).collect();
    let affinity = Affinity {
        node_affinity,
        pod_affinity: (!with.is_empty()).then(|| PodAffinity {
            required_during_scheduling_ignored_during_execution: Some(with),
            ..PodAffinity::default()
        }),
        pod_anti_affinity: (!placement.apart.is_empty()).then(|| PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(near(&placement.apart)),
            ..PodAntiAffinity::default()
        }),
    };
    (affinity != Affinity::default()).then_some(affinity)
}

fn node_affinity(fleet: &Fleet, placement: &Placement<'_>) -> Option<NodeAffinity> {
    let requirement = |key: &str, values: &[String]| NodeSelectorRequirement {
        key: key.into(),
        operator: "In".into(),
        values: Some(values.to_vec()),
    };
    let metadata: Vec<_> = fleet.metadata.iter().map(|(key, values)| requirement(key, values)).collect();
    let with = |more: Option<NodeSelectorRequirement>| NodeSelectorTerm {
        match_expressions: Some(more.into_iter().chain(metadata.clone()).collect()),
        ..NodeSelectorTerm::default()
    };
    let terms = match (&fleet.machine_id, placement.node) {
        (Some(_), Some(node)) => vec![with(Some(requirement(labels::HOSTNAME, &[node.into()])))],
        // A machine's ID may be the name of its node, or a label of it.
        (Some((id, _)), None) => {
            let id = std::slice::from_ref(id);
            vec![
                with(Some(requirement(labels::HOSTNAME, id))),
                with(Some(requirement(labels::MACHINE_ID, id))),
            ]
        }
        (None, _) if metadata.is_empty() => Vec::new(),
        (None, _) => vec![with(None)],
    };
    let preferred = placement.preferred.map(|node| {
        vec![k8s_openapi::api::core::v1::PreferredSchedulingTerm {
            weight: 100,
            preference: NodeSelectorTerm {
                match_expressions: Some(vec![requirement(labels::HOSTNAME, &[node.into()])]),
                ..NodeSelectorTerm::default()
            },
        }]
    });
    (!terms.is_empty() || preferred.is_some()).then(|| NodeAffinity {
        required_during_scheduling_ignored_during_execution: (!terms.is_empty())
            .then_some(NodeSelector { node_selector_terms: terms }),
        preferred_during_scheduling_ignored_during_execution: preferred,
    })
}
