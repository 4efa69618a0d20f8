//! What the fuzz targets share. Each target but [`api`] is one format, compiled as a user would: from a file in a directory, to
//! the text of the objects. Whatever the input, that has to end soon, in little memory, without a panic.
//!
//!     cargo install cargo-fuzz
//!     cargo fuzz run --sanitizer none compose -- -max_total_time=600 -timeout=5 -rss_limit_mb=1024

pub mod api;

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};

use yado_compile::{Options, compile, output};

thread_local! {
    static DIRECTORY: OnceCell<PathBuf> = const { OnceCell::new() };
}

/// Compiles a directory of these files. What follows a NUL byte goes to the next file, so that a fuzzer can try
/// several that belong together.
pub fn check(names: &[&str], data: &[u8]) {
    DIRECTORY.with(|directory| {
        let directory = directory.get_or_init(|| {
            // In memory: it is written for every input.
            let path = Path::new("/dev/shm").join(format!("yado-fuzz-{}", std::process::id())).join("app");
            fs::create_dir_all(&path).expect("/dev/shm can be written to");
            path
        });
        let mut texts = data.split(|byte| *byte == 0);
        for name in names {
            let path = directory.join(name);
            match texts.next() {
                Some(text) => fs::write(&path, text).expect("/dev/shm can be written to"),
                None => drop(fs::remove_file(&path)),
            }
        }
        if let Ok(compiled) = compile(&directory.join(names[0]), &Options::default()) {
            let again = compile(&directory.join(names[0]), &Options::default()).expect("the same files compile again");
            assert_eq!(output::files(&compiled), output::files(&again), "compiling is deterministic");
        }
    });
}
