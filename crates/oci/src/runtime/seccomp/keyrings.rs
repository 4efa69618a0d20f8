//! Keeps containers from the keyrings of their user id. These belong to the id as the machine sees it, so root of every
//! container would share them with the machine's root. A container's own keyrings (session, process, thread) are open.

use std::mem::offset_of;

use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
use seccompiler::{BpfProgram, sock_filter};

/// `AUDIT_ARCH` of this machine, and the numbers of the three calls for its 32-bit programs: the lowest and the highest,
/// which are neighbours.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: (u32, [u32; 2]) = (0xc000_003e, [286, 288]);
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: (u32, [u32; 2]) = (0xc000_00b7, [309, 311]);

/// Numbers of x86's x32 calls have this bit besides.
const X32: u32 = 0x4000_0000;
/// `KEY_SPEC_USER_SESSION_KEYRING` and `KEY_SPEC_USER_KEYRING`, as the kernel reads them: 32 bits.
const USERS: [u32; 2] = [-5i32 as u32, -4i32 as u32];
/// `KEYCTL_GET_PERSISTENT`: a further keyring of the user id.
const GET_PERSISTENT: u32 = 22;

const DENY: u32 = libc::SECCOMP_RET_ERRNO | libc::EACCES as u32;

fn op(code: u32, jump: (u8, u8), k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: jump.0, jf: jump.1, k }
}

fn load(offset: usize) -> sock_filter {
    op(BPF_LD | BPF_W | BPF_ABS, (0, 0), offset as u32)
}

fn load_argument(index: usize) -> sock_filter {
    // The lower half, on the little-endian machines there are.
    load(offset_of!(libc::seccomp_data, args) + index * 8)
}

fn answer(value: u32) -> sock_filter {
    op(BPF_RET | BPF_K, (0, 0), value)
}

/// `EACCES` where one of these arguments names a keyring of the user, then permission.
fn refuse_arguments(arguments: &[usize]) -> BpfProgram {
    let mut program = Vec::new();
    for index in arguments {
        program.push(load_argument(*index));
        // Below the first, or above the second: on to what follows the answer.
        program.push(op(BPF_JMP | BPF_JGT | BPF_K, (0, 2), USERS[0] - 1));
        program.push(op(BPF_JMP | BPF_JGT | BPF_K, (1, 0), USERS[1]));
        program.push(answer(DENY));
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program
}

/// The filter. 32-bit programs get no keys at all.
pub(super) fn filter() -> BpfProgram {
    let (native, [lowest, highest]) = ARCHITECTURE;
    let equal = BPF_JMP | BPF_JEQ | BPF_K;
    let above = BPF_JMP | BPF_JGT | BPF_K;
    let mut program = vec![
        load(offset_of!(libc::seccomp_data, arch)),
        op(equal, (5, 0), native),
        load(offset_of!(libc::seccomp_data, nr)),
        op(above, (0, 2), lowest - 1),
        op(above, (1, 0), highest),
        answer(DENY),
        answer(libc::SECCOMP_RET_ALLOW),
        load(offset_of!(libc::seccomp_data, nr)),
        op(BPF_ALU | BPF_AND | BPF_K, (0, 0), !X32),
    ];
    // The keyring is the fifth argument, or the fourth; keyctl's other arguments depend on its first.
    let mut keyctl = vec![load_argument(0), op(equal, (0, 1), GET_PERSISTENT), answer(DENY)];
    keyctl.extend(refuse_arguments(&[1, 2, 3, 4]));
    let calls = [
        (libc::SYS_add_key, refuse_arguments(&[4])),
        (libc::SYS_request_key, refuse_arguments(&[3])),
        (libc::SYS_keyctl, keyctl),
    ];
    for (number, body) in calls {
        // A body answers in any case, and is short enough for one jump.
        program.push(op(equal, (0, body.len() as u8), number as u32));
        program.extend(body);
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET_KEYRING_ID: i64 = 0;
    const SEARCH: i64 = 10;

    /// The result of a call in a thread with the filter: the number of the error, or 0.
    fn filtered(number: i64, args: [i64; 5]) -> i32 {
        let call = move || {
            nix::sys::prctl::set_no_new_privs().expect("no_new_privs");
            super::super::install(&vec![filter()]).expect("installed");
            // SAFETY: pointers among the arguments are null or to static text.
            let result = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4]) };
            if result < 0 { std::io::Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 }
        };
        std::thread::spawn(call).join().expect("no panic")
    }

    #[test]
    fn keyrings_of_the_user_are_refused() {
        let (kind, name) = (c"user".as_ptr() as i64, c"nothing-of-this-name".as_ptr() as i64);
        let keyctl = |args| filtered(libc::SYS_keyctl, args);
        let rows = [
            ("the user's", keyctl([GET_KEYRING_ID, -4, 1, 0, 0]), libc::EACCES),
            ("its session's", keyctl([GET_KEYRING_ID, -5, 1, 0, 0]), libc::EACCES),
            ("in the upper half too", keyctl([GET_KEYRING_ID, 0xffff_fffc, 1, 0, 0]), libc::EACCES),
            ("the persistent one", keyctl([GET_PERSISTENT.into(), -1, -3, 0, 0]), libc::EACCES),
            ("as a destination", keyctl([SEARCH, -3, kind, name, -4]), libc::EACCES),
            ("the thread's", keyctl([GET_KEYRING_ID, -1, 1, 0, 0]), 0),
            ("searched", keyctl([SEARCH, -1, kind, name, 0]), libc::ENOKEY),
            ("a key added", filtered(libc::SYS_add_key, [kind, name, kind, 4, -1]), 0),
            (
                "a key added to the user's",
                filtered(libc::SYS_add_key, [kind, name, kind, 4, -4]),
                libc::EACCES,
            ),
            ("a key asked for", filtered(libc::SYS_request_key, [kind, name, 0, -5, 0]), libc::EACCES),
            (
                "another call with such an argument",
                filtered(libc::SYS_close, [-4, -4, -4, -4, -4]),
                libc::EBADF,
            ),
        ];
        for (what, got, expect) in rows {
            assert_eq!(got, expect, "{what}");
        }
    }
}
