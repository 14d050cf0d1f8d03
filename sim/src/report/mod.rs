//! Stub.
pub use crate::old_report::{Phase, Report, Settled, Spread};
