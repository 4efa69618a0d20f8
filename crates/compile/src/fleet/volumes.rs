//! Volumes of other containers (`--volumes-from`).

use k8s_openapi::api::core::v1::Volume;

use super::lower::{MainProcess, PlannedUnit};
use crate::{
    diagnostic::Findings,
    docker_run::RunCommand,
    workload::{
        VolumeClaim,
        name::sanitised,
        pod::{ContainerMount, MountSource, PodFragment},
    },
};

/// Mounts the volumes that `one` takes from other units, and turns its own volumes that others take into claims, since a
/// shared volume outlives each container.
pub fn shared(
    units: &[PlannedUnit],
    one: &PlannedUnit,
    part: &mut PodFragment,
    found: &mut Findings,
) -> Vec<VolumeClaim> {
    let mut claims = Vec::new();
    let MainProcess::Container(main) = &one.main else { return claims };
    if let Some(name) = main.name.as_ref().filter(|n| is_taken(units, n)) {
        let own = claimed(main, name);
        mount(part, &own, false, &mut claims);
    }
    for (container, read_only) in &main.volumes_from {
        let all = units.iter().flat_map(PlannedUnit::runs_of);
        let mut of: Vec<&RunCommand> = all.filter(|r| r.name.as_ref() == Some(container)).collect();
        // The unit's own containers take precedence, since a data container of another machine may have the same name.
        of.sort_by_key(|r| !one.data.iter().any(|d| std::ptr::eq(d, *r)));
        match of.first() {
            Some(run) => mount(part, &claimed(run, container), *read_only, &mut claims),
            None => {
                let sentence = format!(
                    "no unit here runs a container {container}, so the volumes of --volumes-from {container} are not there"
                );
                found.warn(&one.unit.at, sentence);
            }
        }
    }
    claims
}

fn is_taken(units: &[PlannedUnit], container: &str) -> bool {
    units
        .iter()
        .flat_map(PlannedUnit::runs_of)
        .flat_map(|r| &r.volumes_from)
        .any(|(name, _)| name == container)
}

/// The volumes of a container. Volumes that would end with it become claims named after it.
fn claimed(run: &RunCommand, container: &str) -> Vec<ContainerMount> {
    let volumes = run.part.pod.volumes.iter().flatten();
    let mounts = run.part.container.volume_mounts.iter().flatten();
    let source = |volume: &Volume, path: &str| {
        if let Some(host) = &volume.host_path {
            MountSource::HostPath(host.path.clone(), host.type_.clone())
        } else if let Some(claim) = &volume.persistent_volume_claim {
            MountSource::Claim(claim.claim_name.clone())
        } else {
            MountSource::Claim(sanitised(&format!("{container}{path}"), 63))
        }
    };
    mounts
        .filter_map(|m| {
            let volume = volumes.clone().find(|v| v.name == m.name)?;
            Some(ContainerMount {
                source: source(volume, &m.mount_path),
                path: m.mount_path.clone(),
                read_only: m.read_only == Some(true),
                sub_path: m.sub_path.clone(),
                propagation: m.mount_propagation.clone(),
            })
        })
        .collect()
}

fn mount(part: &mut PodFragment, mounts: &[ContainerMount], read_only: bool, claims: &mut Vec<VolumeClaim>) {
    for mount in mounts {
        if let MountSource::Claim(name) = &mount.source {
            claims.push(VolumeClaim::new(name));
        }
        part.mount(ContainerMount { read_only: mount.read_only || read_only, ..mount.clone() });
    }
    // The volume replaced by a claim has no mount any more.
    let mounted: Vec<String> =
        part.container.volume_mounts.iter().flatten().map(|m| m.name.clone()).collect();
    if let Some(volumes) = &mut part.pod.volumes {
        volumes.retain(|v| mounted.contains(&v.name));
    }
}
