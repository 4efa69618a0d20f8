//! `cargo xtask vm [YADO]`: checks Yado in an emulated machine with Debian's own kernel and only cgroups of version 2.
//! `xtask/vm/check.sh` runs in it and reports the results.
//!
//! The machines that this project is developed and tested on have cgroups of version 1 beside it, and a newer kernel.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{is_installed, kubectl, root, run as command};

/// What Yado needs of the kernel's modules, as folders of them.
const MODULES: &[&str] =
    &["kernel/net", "kernel/fs/overlayfs", "kernel/lib", "kernel/crypto", "kernel/drivers/net"];

/// Boots it with this `yado`, or the binary of the `dist` profile, and fails unless everything holds.
pub fn run(args: &[String]) -> Result<()> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let yado = args.first().map_or_else(|| target.join("dist/yado"), PathBuf::from);
    if !yado.exists() {
        bail!("{} is not there; `cargo build --profile dist` makes it", yado.display());
    }
    if !is_installed("qemu-system-x86_64") {
        command("apt-get", &["install", "-y", "-qq", "--no-install-recommends", "qemu-system-x86"])?;
    }
    kubectl::install()?;
    let images = root().join("target/images/busybox.tar");
    if !images.exists() {
        crate::demo_images::run(false)?;
    }
    let dir = target.join("vm");
    let kernel = kernel(&dir)?;
    let tree = dir.join("tree");
    let _ = fs::remove_dir_all(&tree);
    plant(&tree, &yado, &images)?;
    modules(&kernel, &tree)?;
    let disk = dir.join("initrd");
    archive(&tree, &disk).with_context(|| format!("{} cannot be written", disk.display()))?;
    boot(&kernel, &disk)
}

/// Debian's kernel for virtual machines, unpacked.
fn kernel(dir: &Path) -> Result<PathBuf> {
    let unpacked = dir.join("kernel");
    if unpacked.join("boot").exists() {
        return Ok(unpacked);
    }
    fs::create_dir_all(dir)?;
    // The package of this name only depends on that of the current version.
    let script = "apt-get download -q $(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \\(linux-image\\)/\\1/p') \
                  && dpkg -x linux-image-*.deb kernel && rm linux-image-*.deb";
    let status = Command::new("sh").args(["-c", script]).current_dir(dir).status()?;
    if !status.success() {
        bail!("Debian's kernel cannot be had; `apt-get update` may help");
    }
    Ok(unpacked)
}

/// The machine's files but for the kernel's modules.
fn plant(tree: &Path, yado: &Path, images: &Path) -> Result<()> {
    for dir in ["bin", "sbin", "lib", "lib64", "usr/lib", "images", "proc"] {
        fs::create_dir_all(tree.join(dir))?;
    }
    let busybox = find("busybox")?;
    shell(
        tree,
        &format!("cp '{}' bin/busybox && chroot . /bin/busybox --install -s /bin", busybox.display()),
    )?;
    shell(tree, "rm -f bin/unshare bin/nsenter && ln -s ../bin/busybox sbin/modprobe")?;
    let programs = [
        ("yado", yado.to_owned()),
        ("kubectl", find("kubectl")?),
        ("unshare", find("unshare")?),
        ("nsenter", find("nsenter")?),
    ];
    for (name, program) in programs {
        fs::copy(&program, tree.join("bin").join(name))
            .with_context(|| format!("{} cannot be copied", program.display()))?;
        libraries(&program, tree)?;
    }
    let _ = shell(tree, "strip --strip-debug bin/yado");
    fs::copy(images, tree.join("images/busybox.tar"))?;
    let files = root().join("xtask/vm");
    shell(
        tree,
        &format!("cp -r '{0}/manifests' '{0}/check.sh' '{0}/init' . && chmod 755 init", files.display()),
    )
}

/// What the loader needs for a program; nothing for a static one.
fn libraries(program: &Path, tree: &Path) -> Result<()> {
    let listed = Command::new("ldd").arg(program).output().context("ldd cannot be started")?;
    for path in
        String::from_utf8_lossy(&listed.stdout).split_whitespace().filter(|word| word.starts_with('/'))
    {
        let to = tree.join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap_or(tree))?;
        fs::copy(path, &to).with_context(|| format!("{path} cannot be copied"))?;
    }
    Ok(())
}

fn modules(kernel: &Path, tree: &Path) -> Result<()> {
    let all = kernel.join("lib/modules");
    let version = fs::read_dir(&all)?.flatten().next().context("the kernel has no modules")?.file_name();
    let (from, to) = (all.join(&version), tree.join("lib/modules").join(&version));
    for folder in MODULES {
        let to = to.join(folder);
        fs::create_dir_all(to.parent().unwrap_or(tree))?;
        shell(tree, &format!("cp -r '{}' '{}'", from.join(folder).display(), to.display()))?;
    }
    shell(
        tree,
        &format!(
            "cp '{}'/modules.* '{}' && bin/busybox depmod -b . '{}'",
            from.display(),
            to.display(),
            version.display()
        ),
    )
}

fn boot(kernel: &Path, disk: &Path) -> Result<()> {
    let image = fs::read_dir(kernel.join("boot"))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")))
        .context("the package has no kernel")?;
    let mut machine = Command::new("qemu-system-x86_64")
        .args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "3072",
            "-nographic",
            "-no-reboot",
        ])
        .args(["-nic", "none", "-append", "console=ttyS0 quiet panic=-1 edd=off"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(disk)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("the machine cannot be started")?;
    let (mut failed, mut done) = (Vec::new(), false);
    for line in BufReader::new(machine.stdout.take().context("its output")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        println!("{line}");
        failed.extend(line.strip_prefix("FAILED ").map(str::to_owned));
        done |= line == "done";
    }
    machine.wait()?;
    if !failed.is_empty() || !done {
        bail!(
            "{} checks failed{}",
            failed.len(),
            if done { "" } else { ", and the machine did not come to the end" }
        );
    }
    Ok(())
}

/// An archive as the kernel unpacks it into its first file system: `cpio`'s format "newc".
fn archive(tree: &Path, to: &Path) -> Result<()> {
    let mut out = BufWriter::new(File::create(to)?);
    let mut found = vec![PathBuf::new()];
    let mut inode = 0;
    while let Some(path) = found.pop() {
        let full = tree.join(&path);
        let about = fs::symlink_metadata(&full)?;
        let content = if about.is_symlink() {
            fs::read_link(&full)?.into_os_string().into_encoded_bytes()
        } else if about.is_dir() {
            found.extend(fs::read_dir(&full)?.flatten().map(|entry| path.join(entry.file_name())));
            Vec::new()
        } else {
            fs::read(&full)?
        };
        inode += 1;
        let name =
            if path.as_os_str().is_empty() { ".".as_bytes() } else { path.as_os_str().as_encoded_bytes() };
        entry(&mut out, inode, about.mode(), name, &content)?;
    }
    entry(&mut out, 0, 0, b"TRAILER!!!", &[])?;
    out.flush()?;
    Ok(())
}

fn entry(out: &mut impl Write, inode: u32, mode: u32, name: &[u8], content: &[u8]) -> Result<()> {
    let (length, named) = (u32::try_from(content.len())?, u32::try_from(name.len())? + 1);
    // Inode, mode, owner, group, links, time, size, device and its node, length of the name, checksum.
    let fields = [inode, mode, 0, 0, 1, 0, length, 0, 0, 0, 0, named, 0];
    out.write_all(b"070701")?;
    fields.iter().try_for_each(|field| write!(out, "{field:08x}"))?;
    out.write_all(name)?;
    let padding = |written: usize| &[0; 4][..(4 - written % 4) % 4];
    out.write_all(&[0])?;
    out.write_all(padding(110 + name.len() + 1))?;
    out.write_all(content)?;
    out.write_all(padding(content.len()))?;
    Ok(())
}

fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).chain([kubectl::tools()]).map(|dir| dir.join(program));
    let found =
        places.find(|path| path.metadata().is_ok_and(|about| about.permissions().mode() & 0o111 != 0));
    found.with_context(|| format!("{program} is not installed; `cargo xtask test` installs it"))
}

fn shell(dir: &Path, script: &str) -> Result<()> {
    let status = Command::new("sh").args(["-ec", script]).current_dir(dir).status()?;
    if !status.success() {
        bail!("`{script}` failed: {status}");
    }
    Ok(())
}
