//! Ctrl-C and its relatives. Whoever can act on a signal waits for it; one that comes while nobody
//! waits ends the program at once, so a second Ctrl-C always works.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::failure::Failure;

/// The exit status after a Ctrl-C that nobody waited for, as shells have it.
const INTERRUPTED: i32 = 130;

/// The signals that ask for an end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupts {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Somebody will act on the next signal.
    awaited: AtomicBool,
    came: Notify,
}

impl Interrupts {
    /// Takes the signals over from the system. Those that were ignored when the program started
    /// (`nohup`, a background job of a script) stay ignored.
    pub(crate) fn catch() -> Result<Self, Failure> {
        let interrupts = Self::default();
        let ignored = ignored_signals();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            if ignored >> (kind.as_raw_value() - 1) & 1 == 0 {
                let signals = signal(kind).map_err(|e| Failure::system("catch signals", &e))?;
                tokio::spawn(interrupts.clone().pass_on(signals));
            }
        }
        Ok(interrupts)
    }

    /// Ends at the next signal, for the one caller that will act on it.
    pub(crate) async fn next(&self) {
        let _awaited = Awaited::new(&self.shared.awaited);
        self.shared.came.notified().await;
    }

    async fn pass_on(self, mut signals: Signal) {
        while signals.recv().await.is_some() {
            if self.shared.awaited.swap(false, Ordering::SeqCst) {
                self.shared.came.notify_one();
            } else {
                std::process::exit(INTERRUPTED);
            }
        }
    }
}

/// Says that a signal is awaited for as long as it lives.
struct Awaited<'a>(&'a AtomicBool);

impl<'a> Awaited<'a> {
    fn new(awaited: &'a AtomicBool) -> Self {
        awaited.store(true, Ordering::SeqCst);
        Self(awaited)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// The signals that this process ignores, one bit each from bit 0 for signal 1.
fn ignored_signals() -> u64 {
    // Without /proc nothing is known to be ignored.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
