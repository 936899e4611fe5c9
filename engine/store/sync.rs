//! What threads share the gate with. The models of the dispatcher put loom's in its place.

pub(super) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
pub(super) use std::sync::{Mutex, MutexGuard};
