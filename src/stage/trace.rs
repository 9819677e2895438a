//! What `tracing` hears of calls; nothing without the feature of that name.

#[cfg(feature = "tracing")]
mod told {
    use tracing::field::{Empty, display};
    use tracing::{Instrument, Span};

    use super::super::call::Call;
    use super::super::run::Outcome;
    use super::super::settings::CallEvent;

    /// The span of a call, from before its result is looked up until it is stored; of a handle to what was there, a moment.
    pub(in super::super) struct CallSpan(Span);

    impl CallSpan {
        pub(in super::super) fn new(call: &Call) -> Self {
            let stage = call.stage.name();
            Self(
                tracing::info_span!(target: "icechest::stage", "call", stage, key = Empty, status = Empty, bytes = Empty),
            )
        }

        pub(in super::super) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
            self.0.in_scope(work)
        }

        pub(in super::super) fn around<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
            work.instrument(self.0.clone())
        }

        /// Tells how the call ended: with a result, or with an error.
        pub(in super::super) fn end(&self, outcome: Option<Outcome<'_>>) {
            match outcome {
                Some(Outcome { key, status, bytes }) => {
                    if let Some(key) = key {
                        self.0.record("key", display(key));
                    }
                    self.0.record("status", display(status));
                    self.0.record("bytes", bytes);
                }
                None => {
                    self.0.record("status", "failed");
                }
            }
        }
    }

    /// What a user should look at is told as a warning.
    pub(in super::super) fn event(stage: &str, event: &CallEvent<'_>) {
        let (message, key, error) = match event {
            CallEvent::Damaged { key, error } => ("the stored result is damaged", Some(*key), *error),
            CallEvent::NotStored { key, error } => ("the result could not be stored", Some(*key), *error),
            CallEvent::Unkeyable { error } => ("the arguments make no key", None, *error),
            CallEvent::Hit { .. } | CallEvent::Miss { .. } | CallEvent::Stale { .. } => return,
        };
        let key = key.map(display);
        tracing::warn!(target: "icechest::stage", stage, key, %error, "{message}");
    }
}

#[cfg(not(feature = "tracing"))]
mod told {
    use super::super::call::Call;
    use super::super::run::Outcome;
    use super::super::settings::CallEvent;

    pub(in super::super) struct CallSpan;

    impl CallSpan {
        pub(in super::super) fn new(_: &Call) -> Self {
            Self
        }

        pub(in super::super) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
            work()
        }

        pub(in super::super) fn around<F: Future>(&self, work: F) -> F {
            work
        }

        pub(in super::super) fn end(&self, _: Option<Outcome<'_>>) {}
    }

    pub(in super::super) fn event(_: &str, _: &CallEvent<'_>) {}
}

pub(super) use self::told::{CallSpan, event};
