//! The name of a data directory's node: chosen at the first start and kept there, because Pods and volumes are bound to it.
//! The machine's host name may change at any time, with a new lease for one.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client};
use yado_apiserver::pki::write_private;
use yado_types::{labels, names};

use crate::data_dir::{DataDir, NODE_NAME};

/// The node's name: the one that is kept, else the one asked for, else the host's. It is kept from now on.
///
/// # Errors
/// Where another name is asked for than the one that is kept, or none can be had.
pub async fn settle(data: &DataDir, asked: Option<&str>, admin: &Client) -> Result<String> {
    let file = data.file(NODE_NAME);
    let kept = match read(&file)? {
        Some(name) => Some(name),
        None => registered(admin).await.context("the nodes of this data directory cannot be listed")?,
    };
    let name = choose(kept.as_deref(), asked, data.path(), host_name)?;
    let written = write_private(&file, &format!("{name}\n"));
    written.with_context(|| format!("the node's name cannot be written to {}", file.display()))?;
    Ok(name)
}

fn choose(
    kept: Option<&str>,
    asked: Option<&str>,
    data_dir: &Path,
    host: impl FnOnce() -> Result<String>,
) -> Result<String> {
    match (kept, asked) {
        (Some(kept), Some(asked)) if kept != asked => bail!(
            "the node of {} is named {kept}, and its Pods and volumes are bound to that name; start it without --name, \
             choose another --data-dir for {asked}, or remove everything with `yado reset` first",
            data_dir.display()
        ),
        (Some(kept), _) => Ok(kept.to_owned()),
        (None, Some(asked)) => Ok(asked.to_owned()),
        (None, None) => host(),
    }
}

/// The name in the file; `None` where there is no file.
fn read(file: &Path) -> Result<Option<String>> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.with_context(|| format!("the node's name cannot be read from {}", file.display()))?,
    };
    let name = text.trim();
    if is_name(name).is_err() {
        bail!(
            "{} does not hold the name of a node; write the node's name into it, or remove it and start with --name",
            file.display()
        );
    }
    Ok(Some(name.to_owned()))
}

/// The node of a data directory that was made before names were kept in it: the one that was alive last.
async fn registered(admin: &Client) -> Result<Option<String>, kube::Error> {
    let nodes = Api::<Node>::all(admin.clone()).list(&ListParams::default()).await?.items;
    let names: Vec<String> = nodes.into_iter().filter_map(|node| node.metadata.name).collect();
    if names.len() < 2 {
        return Ok(names.into_iter().next());
    }
    let leases = Api::<Lease>::namespaced(admin.clone(), labels::NODE_LEASE_NAMESPACE);
    let leases = leases.list(&ListParams::default()).await?.items;
    let renewed = |name: &String| {
        let lease = leases.iter().find(|lease| lease.metadata.name.as_ref() == Some(name))?;
        lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0)
    };
    Ok(names.into_iter().max_by_key(renewed))
}

/// A node's name is the value of a label of it, too.
fn is_name(name: &str) -> Result<(), String> {
    names::dns_subdomain(name).and_then(|()| names::label_value(name))
}

fn host_name() -> Result<String> {
    let name = nix::unistd::gethostname().context("the host has no name")?;
    let name = name.to_string_lossy().to_ascii_lowercase();
    is_name(&name)
        .map_err(|_| anyhow::anyhow!("the host's name {name:?} cannot name a node; give one with --name"))?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_whatever_the_host_is_called() {
        let host = || Ok("host".to_owned());
        let choose = |kept, asked| choose(kept, asked, Path::new("/d"), host).map_err(|e| e.to_string());
        assert_eq!(choose(None, None).as_deref(), Ok("host"));
        assert_eq!(choose(None, Some("a")).as_deref(), Ok("a"));
        assert_eq!(choose(Some("a"), None).as_deref(), Ok("a"));
        assert_eq!(choose(Some("a"), Some("a")).as_deref(), Ok("a"));
        let refused = choose(Some("a"), Some("b")).expect_err("another node");
        assert!(refused.starts_with("the node of /d is named a,"), "{refused}");
    }

    #[test]
    fn what_names_no_node_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join(NODE_NAME);
        assert_eq!(read(&file).expect("nothing yet"), None);
        for (text, expect) in [("a.b\n", Some("a.b")), ("", None), ("A_B\n", None), ("a\nb\n", None)] {
            fs::write(&file, text).expect("a file");
            assert_eq!(read(&file).ok().flatten().as_deref(), expect, "{text:?}");
        }
    }
}
