//! Stages: keys of calls, single flight, damage, processes, the macro.

mod attribute;
mod entries;
#[cfg(unix)]
mod files;
mod flight;
mod keys;
mod processes;
#[cfg(feature = "tracing")]
mod spans;

/// A success, of a type that the compiler need not guess.
fn ok<T>(value: T) -> icechest::Result<T> {
    Ok(value)
}
