//! Watching the system's memory.

use std::time::Duration;

use super::Store;
use super::background::again_after_panics;
use crate::memory::Reading;

/// How often the system is asked.
const EVERY: Duration = Duration::from_millis(250);

impl Store {
    /// Follows what `read` tells of the system's memory until the chest is closed.
    pub(crate) fn watch_memory(&self, mut read: impl FnMut() -> Reading) {
        again_after_panics(|| {
            loop {
                let reading = read();
                self.state().residents.follow(reading);
                let (room, made) = self.make_room(0);
                room.end(&mut self.state());
                // What cannot be spilled stays; whoever needs room next gets the error.
                drop(made);
                if self.background.wait_for_end(EVERY) {
                    return;
                }
            }
        });
    }
}
