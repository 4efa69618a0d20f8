//! Which devices a container may open: its own harmless ones. A root process with `CAP_MKNOD` can make a node for
//! any device, so this is what keeps it from the host's disks.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Character devices by major and minor number; `None` is every minor: null, zero, full, random, urandom, tty,
/// console, ptmx, and the pseudo-terminals.
const ALLOWED: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

pub(super) fn guard_v1(dir: &Path) -> io::Result<()> {
    let write = |file: &str, value: &str| {
        let path = dir.join(file);
        fs::write(&path, value).map_err(super::at(&path))
    };
    write("devices.deny", "a")?;
    // Making nodes is harmless and package managers do it; opening them is what counts.
    write("devices.allow", "c *:* m")?;
    write("devices.allow", "b *:* m")?;
    for (major, minor) in ALLOWED {
        let minor = minor.map_or("*".to_owned(), |minor| minor.to_string());
        write("devices.allow", &format!("c {major}:{minor} rwm"))?;
    }
    Ok(())
}

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

// Opcodes of include/uapi/linux/bpf.h that the program needs.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND_32: u8 = 0x54;
const SHIFT_RIGHT_32: u8 = 0x74;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// The context is `struct bpf_cgroup_dev_ctx { access << 16 | type, major, minor }`; type 2 is a character device,
/// access 1 is mknod.
fn program() -> Vec<Instruction> {
    let op = |code, target: u8, source: u8, offset, immediate| Instruction {
        code,
        registers: source << 4 | target,
        offset,
        immediate,
    };
    let (access, kind, major, minor) = (2, 3, 4, 5);
    let mut code = vec![
        op(LOAD_WORD, access, 1, 0, 0),
        op(MOVE_REGISTER, kind, access, 0, 0),
        op(AND_32, kind, 0, 0, 0xffff),
        op(SHIFT_RIGHT_32, access, 0, 0, 16),
        op(LOAD_WORD, major, 1, 4, 0),
        op(LOAD_WORD, minor, 1, 8, 0),
        // mknod alone is allowed.
        op(JUMP_NOT_EQUAL, access, 0, 2, 1),
        op(MOVE, 0, 0, 0, 1),
        op(EXIT, 0, 0, 0, 0),
        // Character devices go on to the list.
        op(JUMP_EQUAL, kind, 0, 2, 2),
        op(MOVE, 0, 0, 0, 0),
        op(EXIT, 0, 0, 0, 0),
    ];
    for (allowed_major, allowed_minor) in ALLOWED {
        let skip = if allowed_minor.is_some() { 3 } else { 2 };
        code.push(op(JUMP_NOT_EQUAL, major, 0, skip, allowed_major as i32));
        if let Some(allowed_minor) = allowed_minor {
            code.push(op(JUMP_NOT_EQUAL, minor, 0, 2, allowed_minor as i32));
        }
        code.push(op(MOVE, 0, 0, 0, 1));
        code.push(op(EXIT, 0, 0, 0, 0));
    }
    code.push(op(MOVE, 0, 0, 0, 0));
    code.push(op(EXIT, 0, 0, 0, 0));
    code
}

/// The start of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes a shorter structure and zeroes the rest.
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

pub(super) fn guard_v2(dir: &Path) -> io::Result<()> {
    let program = program();
    let load = LoadAttributes {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the structure and what it points to live until the call returns, and its size is given.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &load, size_of::<LoadAttributes>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let loaded = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let group = fs::File::open(dir)?;
    let attach = AttachAttributes {
        target: group.as_raw_fd() as u32,
        program: loaded.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: as above.
    match unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &attach, size_of::<AttachAttributes>()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;

    /// Both ways, on whatever hierarchies this machine has, against a device that is everywhere.
    #[test]
    fn only_harmless_devices_open() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = |wanted: &str| {
            let line = mounts.lines().find(|line| line.contains(wanted))?;
            Some(PathBuf::from(line.split(' ').nth(4)?))
        };
        type Guard = fn(&Path) -> io::Result<()>;
        let ways: [(&str, Guard); 2] = [(" - cgroup2 ", guard_v2), (" - cgroup cgroup rw,devices", guard_v1)];
        for (kind, guard) in ways {
            let Some(mount) = mount(kind).filter(|_| nix::unistd::geteuid().is_root()) else {
                yado_testkit::not_proved!("{kind} is not mounted, or not root");
                continue;
            };
            let group = mount.join(format!("yado-test-devices-{}", std::process::id()));
            fs::create_dir(&group).unwrap();
            let guarded = guard(&group);
            let script = format!(
                "echo 0 > {}/cgroup.procs; d=$(mktemp -d); mknod $d/kmsg c 1 11 || exit 2; \
                 head -c 1 /dev/zero > /dev/null || exit 3; \
                 (: < $d/kmsg) 2>/dev/null && exit 4; rm -r $d; exit 0",
                group.display()
            );
            let status = Command::new("sh").args(["-c", &script]).status();
            fs::remove_dir(&group).unwrap();
            guarded.unwrap();
            assert_eq!(status.unwrap().code(), Some(0), "{kind}");
        }
    }
}
