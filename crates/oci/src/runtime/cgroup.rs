//! cgroups of either version. Every group is made in each hierarchy that matters, under the same path, so v1, hybrid
//! and v2 machines differ only in file names.

mod devices;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::Usage;
use crate::spec::Resources;

/// v1 controllers that limit, count or guard; the named systemd hierarchy is joined as well, so that a service
/// manager does not kill containers with the daemon.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuacct", "memory", "pids", "devices", "name=systemd"];

/// v2 controllers that limit. Memory comes first: a group with processes in it refuses it, but would take the others
/// for its threads.
const CONTROLLERS_V2: [&str; 3] = ["memory", "cpu", "pids"];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    V1 { controllers: Vec<String> },
    V2,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    kind: Kind,
}

/// The cgroup file systems of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchies(Vec<Hierarchy>);

impl Hierarchies {
    /// Reads them from the mount table.
    pub fn detect() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mountinfo")?))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `ID PARENT DEV ROOT MOUNTPOINT OPTIONS [TAGS] - TYPE SOURCE SUPEROPTIONS`, see proc_pid_mountinfo(5).
    fn parse(mountinfo: &str) -> Self {
        let mut found: Vec<Hierarchy> = Vec::new();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut right = right.split(' ');
            let (Some(kind), Some(options)) = (right.next(), right.nth(1)) else { continue };
            let Some(mount) = left.split(' ').nth(4) else { continue };
            let kind = match kind {
                "cgroup2" => Kind::V2,
                "cgroup" => {
                    let wanted = options.split(',').filter(|name| CONTROLLERS.contains(name));
                    Kind::V1 { controllers: wanted.map(str::to_owned).collect() }
                }
                _ => continue,
            };
            let useless = matches!(&kind, Kind::V1 { controllers } if controllers.is_empty());
            // A hierarchy mounted twice is one hierarchy.
            if !useless && found.iter().all(|other| other.kind != kind) {
                found.push(Hierarchy { mount: PathBuf::from(mount), kind });
            }
        }
        Self(found)
    }

    /// Controllers that no hierarchy offers.
    pub fn missing(&self) -> Vec<&'static str> {
        let offers = |hierarchy: &Hierarchy, name: &str| match &hierarchy.kind {
            Kind::V1 { controllers } => controllers.iter().any(|controller| controller == name),
            Kind::V2 => fs::read_to_string(hierarchy.mount.join("cgroup.controllers"))
                .is_ok_and(|list| list.split_whitespace().any(|controller| controller == name)),
        };
        let mut wanted = CONTROLLERS_V2.to_vec();
        wanted.retain(|name| !self.0.iter().any(|hierarchy| offers(hierarchy, name)));
        wanted
    }

    /// Whether the unified hierarchy alone is there.
    pub fn unified(&self) -> bool {
        self.0.iter().all(|hierarchy| hierarchy.kind == Kind::V2)
    }

    /// v1 mount options and the directory names that programs look for, for a container's own view.
    pub fn v1_views(&self) -> impl Iterator<Item = (String, &Path)> {
        self.0.iter().filter_map(|hierarchy| match &hierarchy.kind {
            Kind::V1 { controllers } => Some((controllers.join(","), hierarchy.mount.as_path())),
            Kind::V2 => None,
        })
    }

    /// A group by its path from the hierarchies' roots. It need not exist.
    pub fn group(&self, path: &str) -> Cgroup<'_> {
        Cgroup { hierarchies: &self.0, path: path.to_owned() }
    }
}

/// One group, in every hierarchy.
pub struct Cgroup<'a> {
    hierarchies: &'a [Hierarchy],
    path: String,
}

impl Cgroup<'_> {
    fn dirs(&self) -> impl Iterator<Item = (&Hierarchy, PathBuf)> {
        self.hierarchies.iter().map(|hierarchy| (hierarchy, hierarchy.mount.join(&self.path)))
    }

    /// Some directory of it, to show to a user.
    pub fn shown(&self) -> PathBuf {
        self.dirs().next().map(|(_, dir)| dir).unwrap_or_default()
    }

    /// Makes it and what is above it.
    pub fn create(&self) -> io::Result<()> {
        for (hierarchy, dir) in self.dirs() {
            if hierarchy.kind == Kind::V2 {
                delegate(&hierarchy.mount, &self.path)?;
            }
            fs::create_dir_all(&dir).map_err(at(&dir))?;
        }
        Ok(())
    }

    /// Writes limits. A controller that the kernel does not have is no error here: [`super::Runtime::new`] has
    /// warned of it.
    pub fn limit(&self, resources: &Resources) -> io::Result<()> {
        for (hierarchy, dir) in self.dirs() {
            for (file, value) in limits(&hierarchy.kind, resources) {
                let path = dir.join(file);
                // Never creating: cgroup file systems answer that with EACCES instead of ENOENT.
                let mut file = fs::OpenOptions::new();
                match file.write(true).open(&path).and_then(|mut file| file.write_all(value.as_bytes())) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(io::Error::new(
                            error.kind(),
                            format!("{} = {value}: {error}", path.display()),
                        ));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Refuses every device but the harmless ones that each container has.
    pub fn guard_devices(&self) -> io::Result<()> {
        let unified = self.hierarchies.iter().all(|hierarchy| hierarchy.kind == Kind::V2);
        for (hierarchy, dir) in self.dirs() {
            match &hierarchy.kind {
                Kind::V1 { controllers } if controllers.iter().any(|name| name == "devices") => {
                    devices::guard_v1(&dir)?;
                }
                Kind::V2 if unified => devices::guard_v2(&dir).map_err(at(&dir))?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Open `cgroup.procs` files: a process joins by writing `0` to each.
    pub fn doors(&self) -> io::Result<Vec<OwnedFd>> {
        self.dirs()
            .map(|(_, dir)| {
                let path = dir.join("cgroup.procs");
                fs::OpenOptions::new().write(true).open(&path).map(OwnedFd::from).map_err(at(&path))
            })
            .collect()
    }

    /// Sends SIGKILL to all that is in it and below it, once, and says whether anything was.
    pub fn kill(&self) -> io::Result<bool> {
        let mut any = false;
        for (_, dir) in self.dirs() {
            any |= kill_tree(&dir)?;
        }
        Ok(any)
    }

    /// Removes it and what is below it. Fails while processes are in it.
    pub fn remove(&self) -> io::Result<()> {
        for (_, dir) in self.dirs() {
            remove_tree(&dir).map_err(at(&dir))?;
        }
        Ok(())
    }

    /// Removes it where nothing is in or below it, and says whether it is gone everywhere. Whoever still uses it
    /// removes it later.
    pub fn remove_if_empty(&self) -> bool {
        let gone = |dir: &Path| fs::remove_dir(dir).is_ok() || !dir.exists();
        self.dirs().fold(true, |all, (_, dir)| gone(&dir) && all)
    }

    /// Whether processes are in it.
    pub fn populated(&self) -> bool {
        let listed =
            |dir: &Path| fs::read_to_string(dir.join("cgroup.procs")).is_ok_and(|list| !list.is_empty());
        self.dirs().any(|(_, dir)| listed(&dir))
    }

    /// The processes in it, by id.
    pub fn processes(&self) -> BTreeSet<i32> {
        let lists = self.dirs().filter_map(|(_, dir)| fs::read_to_string(dir.join("cgroup.procs")).ok());
        lists.flat_map(|list| list.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>()).collect()
    }

    /// Processes that the kernel's memory killer took.
    pub fn oom_kills(&self) -> u64 {
        let counts = self.dirs().map(|(hierarchy, dir)| {
            let file = if hierarchy.kind == Kind::V2 { "memory.events" } else { "memory.oom_control" };
            Fields::read(&dir.join(file)).map_or(0, |fields| fields.get("oom_kill"))
        });
        counts.max().unwrap_or(0)
    }

    /// What is used in it and below it; `None` where it is not there.
    pub fn usage(&self) -> Option<Usage> {
        let mut usage = Usage::default();
        let mut found = false;
        for (hierarchy, dir) in self.dirs() {
            match &hierarchy.kind {
                Kind::V2 => found |= usage_v2(&dir, &mut usage),
                Kind::V1 { controllers } => {
                    for controller in controllers {
                        found |= usage_v1(controller, &dir, &mut usage);
                    }
                }
            }
        }
        found.then_some(usage)
    }
}

/// Reads the files of a group of version 2, as far as its controllers are there, and says whether there were any.
fn usage_v2(dir: &Path, usage: &mut Usage) -> bool {
    let cpu = Fields::read(&dir.join("cpu.stat"));
    if let Some(cpu) = &cpu {
        usage.cpu_ns = cpu.get("usage_usec") * 1000;
        // On a hybrid machine the limits are those of version 1, and this hierarchy counts none of them.
        if cpu.get("nr_periods") > 0 {
            usage.throttling =
                (cpu.get("nr_periods"), cpu.get("nr_throttled"), cpu.get("throttled_usec") * 1000);
        }
    }
    let Some(memory) = read_number(&dir.join("memory.current")) else { return cpu.is_some() };
    usage.memory = memory;
    if let Some(stat) = Fields::read(&dir.join("memory.stat")) {
        usage.anonymous = stat.get("anon");
        usage.file = stat.get("file");
        usage.page_faults = stat.get("pgfault");
        usage.major_page_faults = stat.get("pgmajfault");
        usage.working_set = memory.saturating_sub(stat.get("inactive_file"));
    }
    usage.oom_kills = Fields::read(&dir.join("memory.events")).map_or(0, |events| events.get("oom_kill"));
    true
}

/// Reads the files of one controller of version 1, and says whether there were any.
fn usage_v1(controller: &str, dir: &Path, usage: &mut Usage) -> bool {
    match controller {
        "cpuacct" => {
            let Some(time) = read_number(&dir.join("cpuacct.usage")) else { return false };
            usage.cpu_ns = time;
        }
        "cpu" => {
            let Some(stat) = Fields::read(&dir.join("cpu.stat")) else { return false };
            usage.throttling = (stat.get("nr_periods"), stat.get("nr_throttled"), stat.get("throttled_time"));
        }
        "memory" => {
            let Some(memory) = read_number(&dir.join("memory.usage_in_bytes")) else { return false };
            usage.memory = memory;
            if let Some(stat) = Fields::read(&dir.join("memory.stat")) {
                usage.anonymous = stat.get("total_rss");
                usage.file = stat.get("total_cache");
                usage.page_faults = stat.get("total_pgfault");
                usage.major_page_faults = stat.get("total_pgmajfault");
                usage.working_set = memory.saturating_sub(stat.get("total_inactive_file"));
            }
            let control = Fields::read(&dir.join("memory.oom_control"));
            usage.oom_kills = control.map_or(0, |control| control.get("oom_kill"));
        }
        _ => return false,
    }
    true
}

/// A file with a name and a number in each line.
struct Fields(String);

impl Fields {
    fn read(path: &Path) -> Option<Self> {
        Some(Self(fs::read_to_string(path).ok()?))
    }

    /// The number of that name, 0 where there is none.
    fn get(&self, name: &str) -> u64 {
        let of = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
        self.0.lines().find_map(of).unwrap_or(0)
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn read_number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Hands controllers down to the group: each directory above it must name them in `cgroup.subtree_control`.
fn delegate(mount: &Path, path: &str) -> io::Result<()> {
    let mut dir = mount.to_owned();
    let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
    while let Some(part) = parts.next() {
        let available = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
        for name in CONTROLLERS_V2.iter().filter(|name| available.split_whitespace().any(|a| a == **name)) {
            let file = dir.join("cgroup.subtree_control");
            let hand_down = || fs::write(&file, format!("+{name}"));
            let handed = match hand_down() {
                // In a container, what looks like the root is a group like any other: it hands nothing down while
                // processes are in it.
                Err(error) if dir == mount && has_processes(&error) => {
                    vacate(mount)?;
                    hand_down()
                }
                other => other,
            };
            handed.map_err(at(&file))?;
        }
        dir.push(part);
        if parts.peek().is_some() {
            fs::create_dir_all(&dir).map_err(at(&dir))?;
        }
    }
    Ok(())
}

/// Whether a group hands nothing down because processes are in it: the second is said of one that hands down, for
/// threads, what may be handed down beside processes.
fn has_processes(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EOPNOTSUPP))
}

/// Where processes go that were in the root of a container's hierarchy; others that run in containers use the name, too.
const INIT: &str = "init";
/// Rounds of moving processes out of a group: some may be forking.
const MOVES: usize = 10;

/// Moves the processes of a group to one below it.
fn vacate(group: &Path) -> io::Result<()> {
    let to = group.join(INIT);
    fs::create_dir_all(&to).map_err(at(&to))?;
    let (from, to) = (group.join("cgroup.procs"), to.join("cgroup.procs"));
    for _ in 0..MOVES {
        let listed = fs::read_to_string(&from).map_err(at(&from))?;
        if listed.is_empty() {
            break;
        }
        for pid in listed.lines() {
            match fs::write(&to, pid) {
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                other => other.map_err(at(&to))?,
            }
        }
    }
    Ok(())
}

/// The files to write, in an order the kernel accepts. `cpu.weight` from `cpu.shares` is the mapping that container
/// runtimes agree on: 2–262144 onto 1–10000.
fn limits(kind: &Kind, resources: &Resources) -> Vec<(&'static str, String)> {
    let mut files = Vec::new();
    let period = resources.cpu_period_us.unwrap_or(100_000);
    match kind {
        Kind::V2 => {
            if let Some(shares) = resources.cpu_shares {
                let weight = 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
                files.push(("cpu.weight", weight.to_string()));
            }
            if let Some(quota) = resources.cpu_quota_us {
                let quota = if quota < 0 { "max".to_owned() } else { quota.to_string() };
                files.push(("cpu.max", format!("{quota} {period}")));
            }
            if let Some(limit) = resources.memory_limit {
                files.push(("memory.max", limit.to_string()));
                // As with v1's memsw: a limit that swap could exceed would be no limit.
                files.push(("memory.swap.max", "0".to_owned()));
            }
            if let Some(limit) = resources.pids_limit {
                files.push(("pids.max", limit.to_string()));
            }
        }
        Kind::V1 { controllers } => {
            let has = |name: &str| controllers.iter().any(|controller| controller == name);
            if let (true, Some(shares)) = (has("cpu"), resources.cpu_shares) {
                files.push(("cpu.shares", shares.max(2).to_string()));
            }
            if let (true, Some(quota)) = (has("cpu"), resources.cpu_quota_us) {
                files.push(("cpu.cfs_period_us", period.to_string()));
                files.push(("cpu.cfs_quota_us", quota.to_string()));
            }
            if let (true, Some(limit)) = (has("memory"), resources.memory_limit) {
                files.push(("memory.limit_in_bytes", limit.to_string()));
                files.push(("memory.memsw.limit_in_bytes", limit.to_string()));
            }
            if let (true, Some(limit)) = (has("pids"), resources.pids_limit) {
                files.push(("pids.max", limit.to_string()));
            }
        }
    }
    files
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|e| e.path())
        .collect()
}

fn kill_tree(dir: &Path) -> io::Result<bool> {
    let mut any = false;
    for child in children(dir) {
        any |= kill_tree(&child)?;
    }
    let procs = match fs::read_to_string(dir.join("cgroup.procs")) {
        Ok(procs) => procs,
        // Removed meanwhile, or a threaded group, whose processes its parent lists.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(any),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(any),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(any),
        Err(error) => return Err(at(dir)(error)),
    };
    for pid in procs.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0) {
        any = true;
        // SAFETY: a system call without pointers. ESRCH means that it has gone by itself.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    Ok(any)
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in children(dir) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(mountinfo: &str, expect: Expect) {
        let resources = Resources {
            cpu_shares: Some(512),
            cpu_quota_us: Some(50_000),
            cpu_period_us: None,
            memory_limit: Some(64 << 20),
            pids_limit: Some(100),
        };
        let mut text = String::new();
        let lines: Vec<&str> = mountinfo.lines().map(str::trim_start).collect();
        for hierarchy in Hierarchies::parse(&lines.join("\n")).0 {
            text += &format!("{}:", hierarchy.mount.display());
            for (file, value) in limits(&hierarchy.kind, &resources) {
                text += &format!(" {file}={value}");
            }
            text.push('\n');
        }
        expect.assert_eq(&text);
    }

    #[test]
    fn limits_of_each_layout() {
        check(
            "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate",
            expect![[r#"
                /sys/fs/cgroup: cpu.weight=20 cpu.max=50000 100000 memory.max=67108864 memory.swap.max=0 pids.max=100
            "#]],
        );
        check(
            "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
             32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
             33 31 0:29 / /elsewhere rw - cgroup cgroup rw,cpu,cpuacct
             34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
             35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
             36 31 0:33 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
             40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd",
            expect![[r#"
                /sys/fs/cgroup/cpu,cpuacct: cpu.shares=512 cpu.cfs_period_us=100000 cpu.cfs_quota_us=50000
                /sys/fs/cgroup/memory: memory.limit_in_bytes=67108864 memory.memsw.limit_in_bytes=67108864
                /sys/fs/cgroup/pids: pids.max=100
                /sys/fs/cgroup/systemd:
            "#]],
        );
        check("31 23 0:28 / / rw - ext4 /dev/sda rw", expect![[""]]);
    }
}
