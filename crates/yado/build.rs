//! How the linker makes a release.
//!
//! It folds functions that came out as the same code, which generic code does often. That is a twentieth of the binary.
//! Rust promises no function an address of its own, and nothing here compares them; folding only those whose address
//! nobody takes (`safe`) would leave the many that tables of methods point to.
//!
//! It gives the program a fixed address, as Go's linker does for containerd and the kubelet. One that may lie anywhere has
//! 100,000 pointers, which each start adjusts: half of a start's time, and 1.5 MiB that each shim cannot share with the
//! others. The stack, the heap and libraries lie anywhere still.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| var(name).is_ok_and(|v| v == value);
    let is_release =
        is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if !is_release {
        return;
    }
    println!("cargo::rustc-link-arg-bins=-no-pie");
    // Where Rust links by its own LLD, unless the user chose another linker: others have no such option.
    let own_linker = is("CARGO_CFG_TARGET_ARCH", "x86_64")
        && !var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| flags.contains("link"))
        && var("RUSTC_LINKER").is_err();
    if own_linker {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}
