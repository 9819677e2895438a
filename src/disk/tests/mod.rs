//! The disk tier on a medium that fails, or that loses its power.

mod faults;
mod locks;
mod medium;
mod power;
mod sqlite;
