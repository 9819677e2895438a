//! Stages: functions whose results a chest keeps, so that each distinct call runs once.
//!
//! A [`Stage`] has a function's identity and the settings; a [`Call`] binds arguments, [`run`] finds or computes the result.
//! Of threads, tasks and processes that make one call at the same time one computes: see [`flight`] within a process and
//! [`lease`] between processes. What is told of a call is stored with its result, see [`record`].

mod call;
mod context;
mod flight;
mod inputs;
mod lease;
mod memo;
mod output;
mod record;
mod run;
mod settings;
mod stats;
mod stored;
mod trace;
mod upgrade;
mod wait;

#[doc(hidden)]
pub mod private;

pub use self::call::Call;
pub use self::inputs::{FileContent, FolderContent, PathContent};
pub use self::memo::Memo;
pub use self::output::Output;
pub use self::record::CallInfo;
pub use self::run::{Run, Status};
pub use self::settings::{CallEvent, Stage, WhenUnkeyable};
pub use self::stats::StageStats;
pub(crate) use self::stats::Stages;
pub use self::stored::Stored;
