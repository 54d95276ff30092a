//! The allocators, told to keep little.

use core::ffi::{c_int, c_void};

use libsqlite3_sys::{
    SQLITE_CONFIG_PAGECACHE, SQLITE_CONFIG_PCACHE_HDRSZ, SQLITE_OK, sqlite3_config,
};

/// A poll is many small pieces of memory, taken and given back: a sixth of its CPU by the system's
/// allocator, when names were pieces too. Huge pages (`no_thp`) are half empty here, and no quicker.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`, in milliseconds, by its place in mimalloc.h.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Pages that SQLite has room for: what its connections may keep in all, or it would write out what a
/// transaction changed to have room for the rest.
const PAGES: usize = 1024;
/// Of the database, in bytes; what is kept with each is SQLite's to say.
const PAGE: usize = 4096;
/// From so many bytes on, what is given back is the machine's again.
const LARGE: c_int = 128 * 1024;

/// Allocators keep much more than is used, unless they are told otherwise. mimalloc gives pages back
/// after a second or more, when somebody happens to want others: here at once. The system's, which
/// SQLite and zstd use, has an arena a thread, each as large as it ever was: here one for all. In it
/// SQLite's pages, one by one among all else, leave more holes with every hour (5.3 of 8.6 MB after
/// an hour and a half): so they have a place of their own, and so has what is large, which the
/// system's allocator would otherwise put among the rest as soon as the first is given back.
///
/// To be called before there is a second thread or a database.
#[allow(unsafe_code, reason = "none of these settings has a safe name")]
pub(crate) fn keep_little() {
    let mut beside: c_int = 0;
    // SAFETY: these are not to be called from several threads at a time; there is one yet, and SQLite
    // is not in use. The arguments are of the types that each setting takes
    // (<https://www.sqlite.org/c3ref/c_config_covering_index_scan.html>, mallopt(3)).
    let known = unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, 0);
        #[cfg(target_env = "gnu")]
        {
            libc::mallopt(libc::M_ARENA_MAX, 1);
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        }
        sqlite3_config(SQLITE_CONFIG_PCACHE_HDRSZ, &raw mut beside)
    };
    let (Ok(beside), SQLITE_OK) = (usize::try_from(beside), known) else { return };
    let slot = (PAGE + beside).next_multiple_of(8);
    // As long as the program, and aligned as SQLite wants it: to eight bytes.
    let place: &'static mut [u64] = vec![0; PAGES * slot / 8].leak();
    let (slot, pages) = (slot as c_int, PAGES as c_int);
    // SAFETY: as above; the place is as large as it is told to be, and nobody else's.
    let taken = unsafe {
        sqlite3_config(SQLITE_CONFIG_PAGECACHE, place.as_mut_ptr().cast::<c_void>(), slot, pages)
    };
    debug_assert_eq!(taken, SQLITE_OK, "SQLite is in use already");
}

#[cfg(test)]
mod tests {
    /// Pages that stand in the place that is kept for them.
    #[allow(unsafe_code, reason = "what is asked has no safe name")]
    fn pages() -> i64 {
        let (mut now, mut most) = (0, 0);
        // SAFETY: both are SQLite's to write.
        let asked = unsafe {
            let of = libsqlite3_sys::SQLITE_STATUS_PAGECACHE_USED;
            libsqlite3_sys::sqlite3_status64(of, &raw mut now, &raw mut most, 0)
        };
        assert_eq!(asked, libsqlite3_sys::SQLITE_OK);
        now
    }

    #[test]
    #[allow(unsafe_code, reason = "the setting has no safe name")]
    fn the_settings_are_where_they_are_thought_to_be() {
        // SAFETY: nothing sets it before.
        let delay = unsafe { libmimalloc_sys::mi_option_get(super::PURGE_DELAY) };
        assert_eq!(delay, 1000, "mimalloc's own, which no other setting has");
        super::keep_little();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("test.db");
            let _store = pm2_poller::store::Store::open(&path).await.unwrap();
            assert!(pages() > 10, "{}", pages());
        });
    }
}
