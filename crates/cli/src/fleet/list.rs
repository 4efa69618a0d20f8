//! fleetctl's tables.

use super::{
    registry::{Desired, Registry, Unit},
    state::{Cluster, Machine, UnitState, of_pod},
};
use crate::{Usage, args::fleet::List};

/// `list-units`.
pub fn units(list: &List, registry: &Registry, cluster: &Cluster) -> anyhow::Result<String> {
    let fields =
        fields(list, "unit,machine,active,sub", &["active", "hash", "load", "machine", "sub", "unit"])?;
    let mut rows = Vec::new();
    for unit in registry.units.values().filter(|u| u.desired != Desired::Inactive && !u.name.is_template()) {
        for state in states(unit, cluster) {
            let cell = |field: &str| match field {
                "unit" => unit.name.full().to_string(),
                "load" => "loaded".into(),
                "active" => state.active.into(),
                "sub" => state.sub.into(),
                "hash" => hash(unit, list.full),
                _ => machine(cluster, state.node.as_deref(), list.full),
            };
            rows.push(fields.iter().map(|f| cell(f)).collect());
        }
    }
    Ok(table(list, &fields, &rows))
}

/// `list-unit-files`.
pub fn unit_files(list: &List, registry: &Registry, cluster: &Cluster) -> anyhow::Result<String> {
    let known = ["desc", "dstate", "global", "hash", "state", "target", "tmachine", "unit"];
    let fields = fields(list, "unit,hash,dstate,state,target", &known)?;
    let mut rows = Vec::new();
    for unit in registry.units.values() {
        let summary = yado_compile::fleet::summary(&unit.file()).ok();
        let global = summary.as_ref().is_some_and(|s| s.global);
        let (state, node) = current(unit, cluster);
        let cell = |field: &str| match field {
            "unit" => unit.name.full().to_string(),
            "hash" => hash(unit, list.full),
            "dstate" => unit.desired.word().into(),
            "state" if global => "-".into(),
            "state" => state.word().into(),
            "global" => global.to_string(),
            "desc" => summary.as_ref().and_then(|s| s.description.clone()).unwrap_or_else(|| "-".into()),
            _ if global => "global".into(),
            _ => machine(cluster, node.as_deref(), list.full),
        };
        rows.push(fields.iter().map(|f| cell(f)).collect());
    }
    Ok(table(list, &fields, &rows))
}

/// `list-machines`.
pub fn machines(list: &List, cluster: &Cluster) -> anyhow::Result<String> {
    let fields = fields(list, "machine,ip,metadata", &["ip", "machine", "metadata"])?;
    let row = |machine: &Machine| {
        let cell = |field: &str| match field {
            "machine" => machine.id_legend(list.full),
            "ip" if machine.ip.is_empty() => "-".into(),
            "ip" => machine.ip.clone(),
            _ if machine.metadata.is_empty() => "-".into(),
            _ => machine.metadata.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","),
        };
        fields.iter().map(|f| cell(f)).collect()
    };
    // A machine that has gone is no member of the cluster.
    let rows: Vec<Vec<String>> = cluster.machines.iter().filter(|m| m.ready).map(row).collect();
    Ok(table(list, &fields, &rows))
}

/// systemd's states of a unit: one for each machine that it is on.
pub fn states(unit: &Unit, cluster: &Cluster) -> Vec<UnitState> {
    let remains = yado_compile::fleet::summary(&unit.file()).is_ok_and(|s| s.remains);
    let pods = cluster.of(unit.name.full());
    let mut states: Vec<UnitState> = pods.iter().map(|p| of_pod(p, remains)).collect();
    if !unit.global() {
        // Where one goes as another comes, it is the new one that counts.
        states.truncate(1);
    }
    states.sort_by(|a, b| a.node.cmp(&b.node));
    if states.is_empty() && !unit.global() {
        let (active, sub) = if unit.is_waiting() { ("active", "waiting") } else { ("inactive", "dead") };
        states.push(UnitState { active, sub, node: unit.machine.clone() });
    }
    states
}

/// What fleet says of a unit now, and the node it says it of.
pub fn current(unit: &Unit, cluster: &Cluster) -> (Desired, Option<String>) {
    let on = cluster.of(unit.name.full()).iter().find_map(super::state::node);
    match (unit.desired, on) {
        (Desired::Launched, Some(node)) => (Desired::Launched, Some(node)),
        (Desired::Launched, None) if unit.is_waiting() => (Desired::Launched, None),
        (Desired::Loaded, _) => (Desired::Loaded, unit.machine.clone()),
        _ => (Desired::Inactive, None),
    }
}

fn hash(unit: &Unit, full: bool) -> String {
    let hash = unit.hash();
    if full { hash } else { hash[..7].into() }
}

fn machine(cluster: &Cluster, node: Option<&str>, full: bool) -> String {
    cluster.machine(node).map_or_else(|| "-".into(), |m| m.legend(full))
}

fn fields(list: &List, default: &str, known: &[&str]) -> anyhow::Result<Vec<String>> {
    let fields: Vec<String> =
        list.fields.as_deref().unwrap_or(default).split(',').map(str::to_string).collect();
    match fields.iter().find(|f| !known.contains(&f.as_str())) {
        Some(unknown) => {
            let sentence =
                format!("Invalid key in output format: {unknown:?} (there are {})", known.join(","));
            Err(Usage(sentence).into())
        }
        None => Ok(fields),
    }
}

/// As wide as a tab goes in a terminal.
const TAB: usize = 8;

/// Columns behind tabs, as fleetctl's are: scripts cut at them.
fn table(list: &List, fields: &[String], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = fields.iter().map(|f| f.to_uppercase()).collect();
    let all: Vec<&Vec<String>> = (!list.no_legend).then_some(&header).into_iter().chain(rows).collect();
    let width = |column: usize| {
        let widest = all.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
        (widest + 1).div_ceil(TAB) * TAB
    };
    let widths: Vec<usize> = (0..fields.len()).map(width).collect();
    let mut text = String::new();
    for row in all {
        for (i, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if i + 1 < row.len() {
                let missing = widths[i].saturating_sub(cell.chars().count());
                text.push_str(&"\t".repeat(missing.div_ceil(TAB)));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c11_tables_are_cut_by_tabs() {
        let list = List { full: false, no_legend: false, fields: None };
        let fields = ["unit", "machine", "sub"].map(String::from);
        let rows = [
            ["hello.service", "85c0c595.../172.17.8.102", "running"].map(String::from).to_vec(),
            ["a@1.service", "-", "dead"].map(String::from).to_vec(),
        ];
        assert_eq!(
            table(&list, &fields, &rows),
            "UNIT\t\tMACHINE\t\t\t\tSUB\nhello.service\t85c0c595.../172.17.8.102\trunning\na@1.service\t-\t\t\t\tdead\n"
        );
        let bare = List { no_legend: true, ..list };
        assert_eq!(table(&bare, &fields, &rows[1..]), "a@1.service\t-\tdead\n");
    }
}
