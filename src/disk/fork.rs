//! Whether this process is a forked one, told without asking the system.

#[cfg(unix)]
mod counted {
    use std::ffi::c_int;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// The forks that lie between this process and the first one.
    static FORKS: AtomicU32 = AtomicU32::new(0);

    /// Whether the system counts them.
    static IS_COUNTED: OnceLock<bool> = OnceLock::new();

    type Handler = Option<extern "C" fn()>;

    unsafe extern "C" {
        fn pthread_atfork(prepare: Handler, parent: Handler, child: Handler) -> c_int;
    }

    extern "C" fn count() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn process() -> u32 {
        // SAFETY: the handler is a function that stays, and does nothing but change an atomic number.
        let is_counted = IS_COUNTED.get_or_init(|| unsafe { pthread_atfork(None, None, Some(count)) } == 0);
        if *is_counted { FORKS.load(Ordering::Relaxed) } else { std::process::id() }
    }
}

/// A number that is another one in a forked child than in its parent. Takes a nanosecond; asking for the number of the
/// process is a system call.
#[cfg(unix)]
pub(crate) use self::counted::process;

/// As on Unix, where there are forks.
#[cfg(not(unix))]
pub(crate) fn process() -> u32 {
    0
}
