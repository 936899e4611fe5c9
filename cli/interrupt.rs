//! Ctrl-C and its relatives. Whoever can act on a signal waits for it; one that comes while nobody
//! waits ends the program, and in a moment at most what it runs, so a second Ctrl-C always works.
//! Signals that come together are one: `timeout` sends its own to the program, then to its group.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adjutant::Engine;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::control::Address;
use crate::failure::Failure;
use crate::ui;

/// How long what runs may take to end before the program leaves without it.
const LEAVING_MAX: Duration = Duration::from_secs(2);

/// How long after a signal others are the same: shorter than a person takes to want more.
const ONE_SIGNAL: Duration = Duration::from_millis(500);

/// The exit status after a Ctrl-C that nobody waited for, as shells have it.
const INTERRUPTED: i32 = 130;

/// The signals that ask for an end.
#[derive(Clone, Default)]
pub(crate) struct Interrupts {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Somebody will act on the next signal.
    awaited: AtomicBool,
    came: Notify,
    /// What would be left behind.
    running: Mutex<Option<Engine>>,
    leaving: AtomicBool,
    last: Mutex<Last>,
}

/// When the last signal came that was one of its own.
#[derive(Default)]
struct Last(Option<Instant>);

impl Last {
    /// Whether a signal is one of its own, and not another copy of the last.
    fn is_followed(&mut self, now: Instant) -> bool {
        let is_new = self.0.is_none_or(|last| now.duration_since(last) >= ONE_SIGNAL);
        if is_new {
            self.0 = Some(now);
        }
        is_new
    }
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

    /// Returns what a person does to end this program, as words: a shell without job control has its background jobs ignore
    /// Ctrl-C.
    pub(crate) fn key(&self) -> String {
        let is_ignored = |kind: SignalKind| ignored_signals() >> (kind.as_raw_value() - 1) & 1 == 1;
        let pid = std::process::id();
        match (is_ignored(SignalKind::interrupt()), is_ignored(SignalKind::terminate())) {
            (false, _) => "Ctrl-C".to_owned(),
            (true, false) => format!("`kill {pid}`"),
            (true, true) => format!("`kill -KILL {pid}`"),
        }
    }

    /// Ends at the next signal, for the one caller that will act on it. Signals are awaited from
    /// this call on, not only once its future is polled.
    pub(crate) fn next(&self) -> impl Future<Output = ()> + use<'_> {
        let awaited = Awaited::new(&self.shared.awaited);
        async move {
            let _awaited = awaited;
            self.shared.came.notified().await;
        }
    }

    /// Has the engine ended, and its socket removed, before a signal that nobody awaits ends the
    /// program; `None` once it is closed.
    pub(crate) fn guard(&self, engine: Option<Engine>) {
        *self.shared.running.lock().unwrap_or_else(PoisonError::into_inner) = engine;
    }

    /// Goes on unless the program is being left: how that ends is decided.
    pub(crate) async fn unless_leaving(&self) {
        if self.shared.leaving.load(Ordering::SeqCst) {
            std::future::pending().await
        }
    }

    /// Leaves without waiting for anything but the end of what would go on unseen.
    async fn leave(self) {
        let running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(engine) = running {
            let ended = tokio::time::timeout(LEAVING_MAX, engine.shutdown(Duration::ZERO)).await;
            if let Some(address) = engine.path().and_then(|path| Address::of(path).ok()) {
                // This process holds the lock of the file until it ends.
                address.tidy();
            }
            if ended.is_err() {
                ui::note("left before what runs had ended; it may go on");
            }
        }
        std::process::exit(INTERRUPTED);
    }

    async fn pass_on(self, mut signals: Signal) {
        while signals.recv().await.is_some() {
            let mut last = self.shared.last.lock().unwrap_or_else(PoisonError::into_inner);
            if !last.is_followed(Instant::now()) {
                continue;
            }
            drop(last);
            if self.shared.awaited.swap(false, Ordering::SeqCst) {
                self.shared.came.notify_one();
            } else if self.shared.leaving.swap(true, Ordering::SeqCst) {
                std::process::exit(INTERRUPTED);
            } else {
                tokio::spawn(self.clone().leave());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_that_come_together_are_one() {
        let (start, mut last) = (Instant::now(), Last::default());
        let mut check = |ms, want| {
            let at = start + Duration::from_millis(ms);
            assert_eq!(last.is_followed(at), want, "after {ms} ms");
        };
        check(0, true);
        check(0, false);
        check(499, false);
        check(500, true);
        check(999, false);
        check(5_000, true);
    }
}
