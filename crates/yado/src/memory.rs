//! The allocator, set up so that an engine which has run many Pods returns to the size of an idle one.
//!
//! It is jemalloc, whose threads share their free memory. Where each thread has a heap of its own, what other threads free
//! waits until its owner allocates again, which a parked thread does not do; and the C library keeps whole every page
//! on which one small allocation has survived among large ones.
#![allow(unsafe_code)] // jemalloc reads its options from a symbol, and is spoken to by a C function

use std::ffi::{CStr, c_char};
use std::ptr;

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Options of jemalloc, which it reads before `main`.
///
/// One arena: with several, what lasts would be spread over as many times the pages. Threads take memory from it in
/// batches, so they seldom wait for each other. Free pages go back after a second, so that a burst reuses its own.
// SAFETY: jemalloc declares this symbol as a pointer to a string that ends in zero, which is what it is here; nothing else
// defines it.
#[unsafe(export_name = "_rjem_malloc_conf")]
static OPTIONS: Option<&'static c_char> = Some({
    let options: &'static CStr = c"narenas:1,dirty_decay_ms:1000,muzzy_decay_ms:0";
    // SAFETY: the first byte of a string that lives as long as the program.
    unsafe { &*options.as_ptr() }
});

/// Starts a thread of jemalloc that gives free pages back when their time has come. Without it only allocations do, of
/// which an idle engine makes few. Shims and commands go without: a shim must not have a second thread.
pub fn give_back_in_background() {
    let mut on = true;
    // SAFETY: `background_thread` takes a `bool` of its size; nothing is asked back.
    let refused = unsafe {
        tikv_jemalloc_sys::mallctl(
            c"background_thread".as_ptr(),
            ptr::null_mut(),
            ptr::null_mut(),
            (&raw mut on).cast(),
            size_of::<bool>(),
        )
    };
    if refused != 0 {
        tracing::warn!(
            refused,
            "memory that is free is given back late: the allocator's thread cannot start"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a number among jemalloc's settings.
    fn setting<T: Default>(name: &CStr) -> T {
        let (mut value, mut size) = (T::default(), size_of::<T>());
        // SAFETY: the setting's type is checked by its size, which jemalloc refuses if it differs.
        let refused = unsafe {
            tikv_jemalloc_sys::mallctl(
                name.as_ptr(),
                (&raw mut value).cast(),
                &raw mut size,
                ptr::null_mut(),
                0,
            )
        };
        assert_eq!(refused, 0, "{name:?}");
        value
    }

    #[test]
    fn options_are_read_and_the_thread_starts_when_asked_for() {
        assert_eq!(setting::<u32>(c"opt.narenas"), 1);
        assert_eq!(setting::<isize>(c"opt.dirty_decay_ms"), 1000);
        assert!(!setting::<bool>(c"background_thread"));
        give_back_in_background();
        assert!(setting::<bool>(c"background_thread"));
    }
}
