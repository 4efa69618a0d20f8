//! Has the linker of a release fold functions that came out as the same code, which generic code does often.
//!
//! That is a twentieth of the binary. Rust promises no function an address of its own, and nothing here compares them;
//! folding only those whose address nobody takes (`safe`) would leave the many that tables of methods point to.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| var(name).is_ok_and(|v| v == value);
    // Where Rust links by its own LLD, unless the user chose another linker: others have no such option.
    let own_linker = is("CARGO_CFG_TARGET_ARCH", "x86_64")
        && is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu")
        && !var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| flags.contains("link"))
        && var("RUSTC_LINKER").is_err();
    if own_linker && is("PROFILE", "release") {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}
