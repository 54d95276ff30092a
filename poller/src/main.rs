//! Wires arguments to what they ask for.

use std::process::ExitCode;

/// A poll is many small pieces of memory, taken and given back: a sixth of its CPU by the system's
/// allocator, when names were pieces too. Huge pages (`no_thp`) are half empty here, and no quicker.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`, in milliseconds, by its place in mimalloc.h.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> ExitCode {
    keep_little_memory();
    pm2_poller::cli::main()
}

/// Two allocators keep much more than is used, unless they are told otherwise. mimalloc gives pages
/// back after a second or more, when somebody happens to want others: here at once. The system's,
/// which SQLite and zstd use, has an arena a thread, each as large as it ever was: here one for all.
#[allow(unsafe_code, reason = "neither setting has a safe name")]
fn keep_little_memory() {
    // SAFETY: both are not to be called from several threads at a time; there is one yet.
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, 0);
        #[cfg(target_env = "gnu")]
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    #[allow(unsafe_code, reason = "the setting has no safe name")]
    fn the_setting_is_where_it_is_thought_to_be() {
        // SAFETY: nothing sets it here.
        let delay = unsafe { libmimalloc_sys::mi_option_get(super::PURGE_DELAY) };
        assert_eq!(delay, 1000, "mimalloc's own, which no other setting has");
    }
}
