//! The `base` and `packages` steps: Debian packages as layers.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::apt::{Apt, Package};
use super::chroot::{Root, die_with_parent, end_of, in_root, missing};
use super::layers::{Build, Key};
use super::{Base, Packages, app, aptfile};
use crate::image::{Image, IoContext as _, Result};

/// What the base is made of: all that Debian calls essential. Merged `/usr` is what Debian installs today.
const BASE: &[&str] = &["?essential", "usr-is-merged"];
/// Documentation and translations, which are four fifths of some packages; licences stay.
const EXCLUDED: &[&str] = &["/usr/share/man", "/usr/share/info", "/usr/share/locale", "/usr/share/lintian"];
/// Where the root sees downloaded packages.
const PACKAGES: &str = "/run/packages/";
/// User and group of apps.
pub(super) const APP_ID: u32 = 1000;
/// Days since the Unix epoch to 2000-01-01: when the passwords that nobody has were last changed.
const PASSWORD_DAY: &str = "10957";

/// Builds an image that is packages and nothing else.
pub(super) fn build_packages(mut build: Build<'_>, spec: &Packages) -> Result<Image> {
    if let Some(bad) = spec.packages.iter().find(|p| !aptfile::is_package(p)) {
        return Err(build.failed(format!("`{bad}` is not the name of a Debian package")));
    }
    if spec.base == Base::Debian {
        base(&mut build)?;
    }
    if !spec.packages.is_empty() || !spec.run.is_empty() {
        packages(&mut build, &spec.packages, spec.base, &spec.run)?;
    }
    if let Some(overlay) = &spec.overlay {
        app::directory(&mut build, "files", overlay, Path::new(""), 0, app::LeftOut::default())?;
    }
    build.finish(spec.config.clone())
}

/// The `base` step.
pub(super) fn base(build: &mut Build<'_>) -> Result<()> {
    let names: Vec<String> = BASE.iter().map(|&name| name.to_owned()).collect();
    let step = Step { name: "base", key: Key::new("base"), names, status: PathBuf::from("/dev/null") };
    step.make(build, |root, apt, packages| {
        let debs: Vec<&Package> = packages.iter().collect();
        merge_usr(root)?;
        install(root, apt, &debs, true)?;
        add_user(root)
    })
}

/// The `packages` step: packages over the layers so far, and commands after them.
pub(super) fn packages(
    build: &mut Build<'_>,
    names: &[String],
    base: Base,
    commands: &[Vec<String>],
) -> Result<()> {
    Step::packages("packages", build, names, commands).make(build, |root, apt, packages| {
        match base {
            Base::Debian if packages.is_empty() => {}
            Base::Debian => install(root, apt, &packages.iter().collect::<Vec<_>>(), false)?,
            Base::Scratch => {
                let named = |p: &&Package| {
                    let name = p.file.split('_').next().unwrap_or_default();
                    names.iter().any(|n| n.split(['=', ':']).next() == Some(name))
                };
                for package in packages.iter().filter(named) {
                    extract(root, &apt.archives().join(&package.file), true)?;
                }
            }
        }
        commands.iter().try_for_each(|command| root.run(command))
    })
}

/// The `tools` step: what later steps need and the image does not.
pub(super) fn tools(build: &mut Build<'_>, names: &[String]) -> Result<()> {
    Step::packages("tools", build, names, &[])
        .make(build, |root, apt, packages| install(root, apt, &packages.iter().collect::<Vec<_>>(), false))
}

/// What stands for the layer that [`tools`] would make, without making it.
pub(super) fn tools_key(build: &Build<'_>, names: &[String]) -> Result<String> {
    Step::packages("tools", build, names, &[]).exact(build)
}

/// A step that installs packages.
struct Step {
    name: &'static str,
    /// What it depends on but for the packages' versions.
    key: Key,
    names: Vec<String>,
    /// The dpkg status file of what lies beneath.
    status: PathBuf,
}

impl Step {
    /// Packages over the layers so far, the last of which was made of packages too.
    fn packages(name: &'static str, build: &Build<'_>, names: &[String], commands: &[Vec<String>]) -> Self {
        let below: Vec<String> = build.layers().map(str::to_owned).collect();
        let mut key = Key::new("packages").with(below.join(" ")).with(names.join(" "));
        for word in commands.iter().flat_map(|command| command.iter().chain([const { &String::new() }])) {
            key = key.with(word);
        }
        let status = match below.last() {
            Some(diff_id) => build.store.inner.layer_dir(diff_id).join("var/lib/dpkg/status"),
            None => PathBuf::from("/dev/null"),
        };
        Self { name, key, names: names.to_vec(), status }
    }

    fn quick(&self, apt: &Apt) -> Result<String> {
        Ok(self.key.clone().with("sources").with(apt.fingerprint()?).finish())
    }

    /// The key of the layer.
    fn exact(&self, build: &Build<'_>) -> Result<String> {
        let mut apt = Apt::new(build)?;
        if let Some(exact) = self.recalled(build, &self.quick(&apt)?) {
            return Ok(exact);
        }
        let _one_at_a_time = build.store.inner.building.lock();
        let (_, exact) = self.resolve(build, &mut apt)?;
        let remembered = (self.quick(&apt)?, format!("list:{exact}"));
        build.store.inner.remember(vec![remembered])?;
        Ok(exact)
    }

    /// Two keys: the sources as they are now stand for a list of packages, that list stands for the layer. So a
    /// refreshed list of unchanged packages costs a look and no rebuild.
    fn make(
        self,
        build: &mut Build<'_>,
        work: impl FnOnce(&Root<'_>, &Apt, &[Package]) -> Result<()> + Send,
    ) -> Result<()> {
        let mut apt = Apt::new(build)?;
        if self.cached(build, &self.quick(&apt)?) {
            return Ok(());
        }
        let store = build.store.clone();
        let _one_at_a_time = store.inner.building.lock();
        // Another build may have made it meanwhile.
        if self.cached(build, &self.quick(&apt)?) {
            return Ok(());
        }
        let (packages, exact) = self.download(build, &mut apt)?;
        // Taken after the lists were perhaps fetched anew.
        let remembered = (self.quick(&apt)?, format!("list:{exact}"));
        if !build.cached(self.name, &exact) {
            build.running(self.name, format!("setting up {} packages", packages.len()));
            let apt = &apt;
            let layer = in_root(build, |root| {
                work(root, apt, &packages)?;
                clean(root)
            })?;
            build.add(self.name, layer, vec![exact])?;
        }
        store.inner.remember(vec![remembered])?;
        apt.forget(&packages)
    }

    fn recalled(&self, build: &Build<'_>, quick: &str) -> Option<String> {
        build.store.inner.recall(quick)?.strip_prefix("list:").map(str::to_owned)
    }

    fn cached(&self, build: &mut Build<'_>, quick: &str) -> bool {
        self.recalled(build, quick).is_some_and(|exact| build.cached(self.name, &exact))
    }

    /// Chooses the packages; the key is that of the layer they make.
    fn resolve(&self, build: &Build<'_>, apt: &mut Apt) -> Result<(Vec<Package>, String)> {
        let packages = apt.resolve(build, self.name, &self.status, &self.names)?;
        let add = |key: Key, p: &Package| key.with(&p.file).with(&p.hash);
        let exact = packages.iter().fold(self.key.clone(), add).finish();
        Ok((packages, exact))
    }

    /// [`Step::resolve`], and downloads them.
    fn download(&self, build: &Build<'_>, apt: &mut Apt) -> Result<(Vec<Package>, String)> {
        if self.names.is_empty() {
            return Ok((Vec::new(), self.key.clone().finish()));
        }
        let (packages, key) = self.resolve(build, apt)?;
        if build.store.inner.recall(&key).is_some() {
            return Ok((packages, key));
        }
        let first = apt.download(build, self.name, &self.status, &self.names, &packages)?;
        let Some(error) = first else { return Ok((packages, key)) };
        build.progress.check()?;
        // A package that was replaced at its source since the lists were fetched cannot be downloaded any more.
        tracing::info!(%error, "refreshing the package lists");
        apt.update(build, self.name)?;
        let (packages, key) = self.resolve(build, apt)?;
        match apt.download(build, self.name, &self.status, &self.names, &packages)? {
            Some(error) => Err(error),
            None => Ok((packages, key)),
        }
    }
}

/// `/bin` is `/usr/bin`, and so on. Must be there before the first package is unpacked.
fn merge_usr(root: &Root<'_>) -> Result<()> {
    let mut dirs = vec!["bin", "sbin", "lib"];
    if std::env::consts::ARCH == "x86_64" {
        dirs.push("lib64");
    }
    for dir in dirs {
        let real = root.path.join("usr").join(dir);
        fs::create_dir_all(&real).at("make the directory", &real)?;
        let link = root.path.join(dir);
        std::os::unix::fs::symlink(Path::new("usr").join(dir), &link).at("make the link", &link)?;
    }
    Ok(())
}

/// Sets packages up with the root's own `dpkg`. In an empty root they are first unpacked as they are, so that there is
/// a `dpkg`, and a shell for its scripts.
fn install(root: &Root<'_>, apt: &Apt, packages: &[&Package], empty: bool) -> Result<()> {
    let archives = apt.archives();
    if empty {
        for package in packages {
            extract(root, &archives.join(&package.file), false)?;
        }
    }
    root.bind(&archives, "packages")?;
    // No service is started in an image.
    let policy = root.path.join("usr/sbin/policy-rc.d");
    fs::write(&policy, "#!/bin/sh\nexit 101\n").at("write", &policy)?;
    fs::set_permissions(&policy, fs::Permissions::from_mode(0o755)).at("change", &policy)?;
    let mut options = vec!["dpkg".to_owned(), "--force-unsafe-io".to_owned(), "--force-confold".to_owned()];
    for excluded in EXCLUDED.iter().chain(&["/usr/share/doc"]) {
        options.push(format!("--path-exclude={excluded}/*"));
    }
    options.push("--path-include=/usr/share/doc/*/copyright".to_owned());
    let dpkg = |words: &[&str], files: &[String]| {
        let words = words.iter().map(|&word| word.to_owned());
        options.iter().cloned().chain(words).chain(files.iter().cloned()).collect::<Vec<_>>()
    };
    let files: Vec<String> = packages.iter().map(|p| format!("{PACKAGES}{}", p.file)).collect();
    if empty {
        // Whatever the others need is there as files.
        root.run(&dpkg(&["--force-depends", "--unpack"], &files))?;
    } else {
        unpack(root, files, &dpkg)?;
    }
    let manuals = manual_folders(root)?;
    root.run(&dpkg(&["--configure", "-a"], &[]))?;
    // Those with something in them stay.
    manuals.iter().rev().for_each(|dir| drop(fs::remove_dir(dir)));
    root.remove("usr/sbin/policy-rc.d")
}

/// The folders of manual pages, which some packages' scripts (Java's) make links in and take for granted. Gives those
/// that were made, outer ones first.
fn manual_folders(root: &Root<'_>) -> Result<Vec<PathBuf>> {
    let top = root.path.join("usr/share/man");
    let mut made = Vec::new();
    for dir in [top.clone()].into_iter().chain((1..=8).map(|section| top.join(format!("man{section}")))) {
        if !dir.is_dir() {
            fs::create_dir_all(&dir).at("make the directory", &dir)?;
            made.push(dir);
        }
    }
    Ok(made)
}

/// Makes a call of `dpkg` from what it is to do and the packages to do it with.
type Dpkg<'a> = &'a dyn Fn(&[&str], &[String]) -> Vec<String>;

/// Unpacks packages with `dpkg`. One that must have another set up before it is refused in the first round, and taken
/// in the next, after that one was set up.
fn unpack(root: &Root<'_>, mut files: Vec<String>, dpkg: Dpkg<'_>) -> Result<()> {
    while !files.is_empty() {
        let (done, log) = root.attempt(&dpkg(&["--unpack"], &files))?;
        if done {
            break;
        }
        let refused: Vec<String> = log
            .lines()
            .map(str::trim)
            .filter(|line| files.iter().any(|f| f == line))
            .map(str::to_owned)
            .collect();
        if refused.is_empty() || refused.len() == files.len() {
            return Err(root.failed(format!(
                "`dpkg` could not unpack {}: {}",
                refused.join(" "),
                end_of(&log)
            )));
        }
        // Some may lack what is yet to be unpacked; the last run tells.
        root.attempt(&dpkg(&["--configure", "-a"], &[]))?;
        files = refused;
    }
    Ok(())
}

/// Unpacks a package's files over the root, through links that stand for directories.
fn extract(root: &Root<'_>, deb: &Path, everything: bool) -> Result<()> {
    let mut contents = Command::new("dpkg-deb");
    contents.arg("--fsys-tarfile").arg(deb).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    die_with_parent(&mut contents);
    let mut contents = contents.spawn().map_err(|_| missing(Path::new("dpkg-deb")))?;
    let mut tar = Command::new("tar");
    tar.args([
        "--extract",
        "--preserve-permissions",
        "--numeric-owner",
        "--keep-directory-symlink",
        "--directory",
    ]);
    tar.arg(&root.path);
    if !everything {
        tar.args(
            EXCLUDED.iter().chain(&["/usr/share/doc"]).map(|excluded| format!("--exclude=.{excluded}/*")),
        );
    }
    if let Some(pipe) = contents.stdout.take() {
        let result = root.host(tar, pipe);
        let status = contents.wait().at("wait for", "dpkg-deb")?;
        result?;
        if !status.success() {
            return Err(root.failed(format!("the package {} cannot be unpacked", deb.display())));
        }
    }
    Ok(())
}

/// The user that apps run as.
fn add_user(root: &Root<'_>) -> Result<()> {
    // `*` as password: nobody logs in as this user.
    let lines = [
        ("etc/passwd", format!("app:*:{APP_ID}:{APP_ID}::/app:/bin/sh\n")),
        ("etc/group", format!("app:*:{APP_ID}:\n")),
    ];
    for (file, line) in lines {
        let path = root.path.join(file);
        let text = fs::read_to_string(&path).at("read", &path)?;
        fs::write(&path, text + &line).at("write", &path)?;
    }
    Ok(())
}

/// Removes what differs from one run to the next or serves no container.
fn clean(root: &Root<'_>) -> Result<()> {
    for file in [
        "var/cache/ldconfig/aux-cache",
        "var/cache/debconf/config.dat-old",
        "var/cache/debconf/templates.dat-old",
        "var/lib/dpkg/status-old",
        "var/lib/dpkg/diversions-old",
        "var/lib/dpkg/statoverride-old",
        "var/lib/dpkg/lock",
        "var/lib/dpkg/lock-frontend",
        "var/lib/dpkg/triggers/Lock",
        "etc/passwd-",
        "etc/group-",
        "etc/shadow-",
        "etc/gshadow-",
        "etc/subuid-",
        "etc/subgid-",
        "etc/machine-id",
        "etc/.pwd.lock",
    ] {
        root.remove(file)?;
    }
    remove_files(&root.path.join("var/log"))?;
    let shadow = root.path.join("etc/shadow");
    if let Ok(text) = fs::read_to_string(&shadow) {
        let fixed: String = text.lines().map(|line| fixed_day(line) + "\n").collect();
        if fixed != text {
            fs::write(&shadow, fixed).at("write", &shadow)?;
        }
    }
    Ok(())
}

fn fixed_day(line: &str) -> String {
    let mut fields: Vec<&str> = line.split(':').collect();
    if let Some(day) = fields.get_mut(2).filter(|day| !day.is_empty()) {
        *day = PASSWORD_DAY;
    }
    fields.join(":")
}

fn remove_files(dir: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for entry in entries {
        let path = entry.at("list", dir)?.path();
        let meta = fs::symlink_metadata(&path).at("look at", &path)?;
        if meta.is_dir() {
            remove_files(&path)?;
        } else {
            fs::remove_file(&path).at("remove", &path)?;
        }
    }
    Ok(())
}
