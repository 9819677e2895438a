//! Locks, threads and time of the store: the standard library's; in the model those of a scheduler that tries orders.

#[cfg(not(feature = "model"))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
    time::Instant,
};

#[cfg(feature = "model")]
pub(crate) use shuttle::{sync::atomic, thread};

#[cfg(feature = "model")]
pub(crate) use self::model::{Condvar, Instant, Mutex, MutexGuard};

/// Time in the model. Its scheduler knows none: a timed wait lets others run, and then all its time has passed.
#[cfg(feature = "model")]
mod model {
    use std::cell::Cell;
    use std::ops::{Add, Deref, DerefMut, Sub};
    use std::sync::{LockResult, PoisonError};
    use std::time::Duration;

    // One thread of the system runs all threads of a model.
    std::thread_local! {
        static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct Instant(Duration);

    impl Instant {
        pub(crate) fn now() -> Self {
            Self(NOW.get())
        }
    }

    impl Add<Duration> for Instant {
        type Output = Self;
        fn add(self, duration: Duration) -> Self {
            Self(self.0 + duration)
        }
    }

    impl Sub for Instant {
        type Output = Duration;
        fn sub(self, earlier: Self) -> Duration {
            self.0.saturating_sub(earlier.0)
        }
    }

    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    /// Knows its mutex, so that a timed wait can lock it again.
    pub(crate) struct MutexGuard<'a, T> {
        guard: shuttle::sync::MutexGuard<'a, T>,
        mutex: &'a Mutex<T>,
    }

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            self.with_mutex(self.0.lock())
        }

        fn with_mutex<'a>(
            &'a self,
            locked: LockResult<shuttle::sync::MutexGuard<'a, T>>,
        ) -> LockResult<MutexGuard<'a, T>> {
            match locked {
                Ok(guard) => Ok(MutexGuard { guard, mutex: self }),
                Err(poisoned) => Err(PoisonError::new(MutexGuard { guard: poisoned.into_inner(), mutex: self })),
            }
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;
        fn deref(&self) -> &T {
            &self.guard
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.guard
        }
    }

    pub(crate) struct Condvar(shuttle::sync::Condvar);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self(shuttle::sync::Condvar::new())
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }

        pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
            guard.mutex.with_mutex(self.0.wait(guard.guard))
        }

        /// Tells of no timeout, since nobody asks.
        pub(crate) fn wait_timeout<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            timeout: Duration,
        ) -> LockResult<(MutexGuard<'a, T>, ())> {
            let mutex = guard.mutex;
            drop(guard);
            shuttle::thread::yield_now();
            NOW.set(NOW.get() + timeout);
            match mutex.lock() {
                Ok(guard) => Ok((guard, ())),
                Err(poisoned) => Err(PoisonError::new((poisoned.into_inner(), ()))),
            }
        }
    }
}
