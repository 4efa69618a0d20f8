//! `--volumes-from`: the volumes of other containers.

use k8s_openapi::api::core::v1::Volume;

use super::lower::{Process, Read};
use crate::{
    diagnostic::Findings,
    docker_run::Run,
    workload::{
        Claim,
        name::sanitised,
        pod::{Mount, MountSource, Part},
    },
};

/// Mounts what `one` takes from others in `units`, and makes claims of its own volumes that others take: what several
/// containers have lasts longer than each.
pub fn shared(units: &[Read], one: &Read, part: &mut Part, found: &mut Findings) -> Vec<Claim> {
    let mut claims = Vec::new();
    let Process::Container(main) = &one.main else { return claims };
    if let Some(name) = main.name.as_ref().filter(|n| is_taken(units, n)) {
        let own = claimed(main, name);
        mount(part, &own, false, &mut claims);
    }
    for (container, read_only) in &main.volumes_from {
        let all = units.iter().flat_map(Read::runs_of);
        let mut of: Vec<&Run> = all.filter(|r| r.name.as_ref() == Some(container)).collect();
        // The unit's own come first: another machine's data container may have the same name.
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

fn is_taken(units: &[Read], container: &str) -> bool {
    units.iter().flat_map(Read::runs_of).flat_map(|r| &r.volumes_from).any(|(name, _)| name == container)
}

/// The volumes of a container; those that end with it are claims named after it.
fn claimed(run: &Run, container: &str) -> Vec<Mount> {
    let volumes = run.part.pod.volumes.iter().flatten();
    let mounts = run.part.container.volume_mounts.iter().flatten();
    let from = |volume: &Volume, path: &str| {
        if let Some(host) = &volume.host_path {
            MountSource::Host(host.path.clone(), host.type_.clone())
        } else if let Some(claim) = &volume.persistent_volume_claim {
            MountSource::Claim(claim.claim_name.clone())
        } else {
            MountSource::Claim(sanitised(&format!("{container}{path}"), 63))
        }
    };
    mounts
        .filter_map(|m| {
            let volume = volumes.clone().find(|v| v.name == m.name)?;
            Some(Mount {
                from: from(volume, &m.mount_path),
                path: m.mount_path.clone(),
                read_only: m.read_only == Some(true),
                sub_path: m.sub_path.clone(),
                propagation: m.mount_propagation.clone(),
            })
        })
        .collect()
}

fn mount(part: &mut Part, mounts: &[Mount], read_only: bool, claims: &mut Vec<Claim>) {
    for mount in mounts {
        if let MountSource::Claim(name) = &mount.from {
            claims.push(Claim::new(name));
        }
        part.mount(Mount { read_only: mount.read_only || read_only, ..mount.clone() });
    }
    // What a claim has replaced is mounted nowhere.
    let mounted: Vec<String> =
        part.container.volume_mounts.iter().flatten().map(|m| m.name.clone()).collect();
    if let Some(volumes) = &mut part.pod.volumes {
        volumes.retain(|v| mounted.contains(&v.name));
    }
}
