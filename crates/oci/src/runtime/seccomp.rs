//! System-call filters: the default one, and profiles in the OCI `linux.seccomp` form. Compiled before a container's
//! process is made, so that a profile that cannot be applied fails the container instead of leaving it open.

mod keyrings;
mod names;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};
use serde::Deserialize;

use crate::spec::{ContainerSpec, Seccomp};

/// Programs to install, in order; of several the kernel takes the strictest answer.
pub type Filters = Vec<BpfProgram>;

/// What a container asks for. A privileged container has no filter, nor has one that asks for none by name; any other is
/// kept from the machine's keyrings of its user, which no namespace separates.
pub fn filters(spec: &ContainerSpec) -> Result<Filters, String> {
    if spec.privileged {
        return Ok(Vec::new());
    }
    match &spec.seccomp {
        Seccomp::Unconfined => Ok(Vec::new()),
        Seccomp::Unspecified => Ok(vec![keyrings::filter()]),
        // Refuses all calls about keys.
        Seccomp::Default => default_filter(&spec.capabilities).map(|program| vec![program]),
        Seccomp::Profile(path) => {
            // First, since a profile may forbid to install more.
            let mut filters = vec![keyrings::filter()];
            filters.extend(profile(path)?);
            Ok(filters)
        }
    }
}

/// Installs filters on this process. Without `no_new_privs` the kernel wants `CAP_SYS_ADMIN` for it.
pub fn install(filters: &Filters) -> io::Result<()> {
    for program in filters {
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr() as *mut _ };
        // Without this flag older kernels slow every filtered process down against side channels between its own
        // threads, which a filter on its calls has nothing to do with.
        let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        // SAFETY: the kernel copies the program, which lives until the call returns, and changes nothing.
        if unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &program) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Refused with EPERM unless the container has the capability. The choice is the one that container engines' default
/// profiles agree on; what they leave out of their lists of allowed calls is here a list of refused ones.
const GUARDED: &[(Option<&str>, &[&str])] = &[
    (
        None,
        &[
            "add_key",
            "keyctl",
            "request_key",
            "userfaultfd",
            "kexec_load",
            "kexec_file_load",
            "nfsservctl",
            "uselib",
            "_sysctl",
            "sysfs",
            "ustat",
            "vm86",
            "vm86old",
            "create_module",
            "get_kernel_syms",
            "query_module",
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
            "swapon",
            "swapoff",
            "afs_syscall",
            "tuxcall",
            "security",
            "vserver",
            "getpmsg",
            "putpmsg",
        ],
    ),
    (
        Some("CAP_SYS_ADMIN"),
        &[
            "mount",
            "umount2",
            "pivot_root",
            "setns",
            "unshare",
            "fsopen",
            "fsconfig",
            "fsmount",
            "fspick",
            "move_mount",
            "open_tree",
            "mount_setattr",
            "quotactl",
            "quotactl_fd",
            "lookup_dcookie",
            "sethostname",
            "setdomainname",
            "fanotify_init",
        ],
    ),
    (Some("CAP_BPF"), &["bpf"]),
    (Some("CAP_PERFMON"), &["perf_event_open"]),
    (Some("CAP_SYS_BOOT"), &["reboot"]),
    (Some("CAP_SYS_CHROOT"), &["chroot"]),
    (Some("CAP_SYS_MODULE"), &["init_module", "finit_module", "delete_module"]),
    (Some("CAP_SYS_PACCT"), &["acct"]),
    (Some("CAP_SYS_PTRACE"), &["kcmp", "process_madvise"]),
    (Some("CAP_SYS_RAWIO"), &["iopl", "ioperm"]),
    (Some("CAP_SYS_TIME"), &["settimeofday", "clock_settime", "clock_settime64", "stime", "clock_adjtime"]),
    (Some("CAP_SYS_TTY_CONFIG"), &["vhangup"]),
    (Some("CAP_SYSLOG"), &["syslog"]),
    (Some("CAP_SYS_NICE"), &["mbind", "set_mempolicy", "migrate_pages", "move_pages"]),
    (Some("CAP_DAC_READ_SEARCH"), &["open_by_handle_at"]),
];

/// `clone` with any of the namespace flags. `CLONE_NEWTIME` is only for `clone3` and `unshare`.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

fn default_filter(capabilities: &[String]) -> Result<BpfProgram, String> {
    let has = |wanted: &str| capabilities.iter().any(|name| name == wanted || name == "CAP_SYS_ADMIN");
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (capability, calls) in GUARDED {
        if capability.is_none_or(|capability| !has(capability)) {
            rules.extend(calls.iter().filter_map(|name| Some((names::number(name)?, Vec::new()))));
        }
    }
    let admin = has("CAP_SYS_ADMIN");
    if !admin {
        // Any bit of the mask forbids it: one rule a bit, since a rule compares for equality.
        let bits = (0..64).map(|bit| 1u64 << bit).filter(|bit| NAMESPACE_FLAGS & bit != 0);
        let clone =
            bits.map(|bit| condition(0, SeccompCmpOp::MaskedEq(bit), bit).and_then(|c| rule(vec![c])));
        rules.insert(libc::SYS_clone, clone.collect::<Result<_, _>>()?);
    }
    // On a personality that is not Linux' own (x86's ADDR_NO_RANDOMIZE and such weaken the process itself only).
    let filter = compile(rules, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32))?;
    let mut program = prologue(!admin);
    program.extend(filter);
    Ok(program)
}

/// Answers ENOSYS, before anything else, to calls that are newer than this list or of the x32 ABI, whose numbers
/// would slip past it, and to `clone3`, whose flags a filter cannot see: libc then uses `clone`.
fn prologue(hide_clone3: bool) -> BpfProgram {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// The newest call number there is while this is written, with room for those of the next years.
    const NEWEST: u32 = 512;
    let op = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    // With nothing to hide the second test repeats the first, which is harmless.
    let hidden = if hide_clone3 { libc::SYS_clone3 as u32 } else { u32::MAX };
    vec![
        op(LOAD, 0, 0, 0),
        op(AT_LEAST, 1, 0, NEWEST),
        op(EQUAL, 0, 1, hidden),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
    ]
}

fn condition(index: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, String> {
    SeccompCondition::new(index, SeccompCmpArgLen::Qword, op, value).map_err(|error| error.to_string())
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, String> {
    SeccompRule::new(conditions).map_err(|error| error.to_string())
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    let filter = SeccompFilter::new(rules, otherwise, matched, arch).map_err(|error| error.to_string())?;
    BpfProgram::try_from(filter).map_err(|error| error.to_string())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Vec<ProfileRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProfileRule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Vec<ProfileArgument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProfileArgument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

fn profile(path: &Path) -> Result<Filters, String> {
    let sentence =
        |error: String| format!("the seccomp profile {} cannot be applied: {error}", path.display());
    let text = std::fs::read(path).map_err(|error| sentence(error.to_string()))?;
    compile_profile(&text).map_err(sentence)
}

fn action(name: &str, errno: Option<u32>) -> Result<SeccompAction, String> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => SeccompAction::Allow,
        "SCMP_ACT_ERRNO" => SeccompAction::Errno(errno.unwrap_or(libc::EPERM as u32)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => SeccompAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => SeccompAction::KillProcess,
        "SCMP_ACT_TRAP" => SeccompAction::Trap,
        "SCMP_ACT_LOG" => SeccompAction::Log,
        "SCMP_ACT_TRACE" => SeccompAction::Trace(errno.unwrap_or(0)),
        other => return Err(format!("action {other} is not supported")),
    })
}

/// One filter that answers the default to every call not named, and one for each further action. The kernel takes
/// the strictest, so a named call gets its own action.
fn compile_profile(text: &[u8]) -> Result<Filters, String> {
    let profile: Profile = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let mut named: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut groups: Vec<(SeccompAction, BTreeMap<i64, Vec<SeccompRule>>)> = Vec::new();
    for entry in &profile.syscalls {
        let matched = action(&entry.action, entry.errno_ret)?;
        for number in entry.names.iter().filter_map(|name| names::number(name)) {
            if matched != default {
                add(&mut named, number, &entry.args)?;
            }
            if matched != SeccompAction::Allow && matched != default {
                let place = groups.iter().position(|(action, _)| *action == matched);
                let place = place.unwrap_or_else(|| {
                    groups.push((matched.clone(), BTreeMap::new()));
                    groups.len() - 1
                });
                add(&mut groups[place].1, number, &entry.args)?;
            }
        }
    }
    let mut filters = Vec::new();
    // The group filters go first: after the default one, a strict profile might not let us install more.
    for (matched, rules) in groups {
        filters.push(compile(rules, SeccompAction::Allow, matched)?);
    }
    if default != SeccompAction::Allow {
        filters.push(compile(named, default, SeccompAction::Allow)?);
    }
    Ok(filters)
}

/// A rule without arguments is unconditional and makes conditional ones of the same call moot.
fn add(
    rules: &mut BTreeMap<i64, Vec<SeccompRule>>,
    number: i64,
    arguments: &[ProfileArgument],
) -> Result<(), String> {
    if arguments.is_empty() {
        rules.insert(number, Vec::new());
        return Ok(());
    }
    let conditions = arguments.iter().map(|argument| {
        let (op, value) = match argument.op.as_str() {
            "SCMP_CMP_NE" => (SeccompCmpOp::Ne, argument.value),
            "SCMP_CMP_LT" => (SeccompCmpOp::Lt, argument.value),
            "SCMP_CMP_LE" => (SeccompCmpOp::Le, argument.value),
            "SCMP_CMP_EQ" => (SeccompCmpOp::Eq, argument.value),
            "SCMP_CMP_GE" => (SeccompCmpOp::Ge, argument.value),
            "SCMP_CMP_GT" => (SeccompCmpOp::Gt, argument.value),
            "SCMP_CMP_MASKED_EQ" => (SeccompCmpOp::MaskedEq(argument.value), argument.value_two),
            other => return Err(format!("comparison {other} is not supported")),
        };
        condition(argument.index, op, value)
    });
    let new = rule(conditions.collect::<Result<_, _>>()?)?;
    match rules.get_mut(&number) {
        Some(existing) if existing.is_empty() => {}
        Some(existing) => existing.push(new),
        None => {
            rules.insert(number, vec![new]);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_compile_or_say_why_not() {
        let rows: [(&str, Result<usize, &str>); 6] = [
            (r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#, Ok(0)),
            (
                r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read","no_such"],"action":"SCMP_ACT_ALLOW"}]}"#,
                Ok(1),
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
                    {"names":["read"],"action":"SCMP_ACT_ALLOW"},
                    {"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38},
                    {"names":["clone"],"action":"SCMP_ACT_ALLOW",
                     "args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#,
                Ok(2),
            ),
            (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, Err("action SCMP_ACT_NOTIFY is not supported")),
            (
                r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW",
                    "args":[{"index":0,"value":1,"op":"ODD"}]}]}"#,
                Err("comparison ODD is not supported"),
            ),
            ("{}", Err("missing field `defaultAction` at line 1 column 2")),
        ];
        for (text, expect) in rows {
            let result = compile_profile(text.as_bytes()).map(|filters| filters.len());
            assert_eq!(result, expect.map_err(str::to_owned), "{text}");
        }
        assert!(profile(Path::new("/no/such/profile")).is_err());
        assert!(default_filter(&[]).is_ok());
        assert!(default_filter(&["CAP_SYS_ADMIN".to_owned()]).is_ok());
    }
}
