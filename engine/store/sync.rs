//! The primitives with which threads share the gate. The models of the dispatcher use the
//! primitives of loom instead.

pub(super) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
pub(super) use std::sync::{Mutex, MutexGuard};
