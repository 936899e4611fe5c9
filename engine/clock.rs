//! Time as an argument. Real time decides when a timer fires, and monotonic time measures timeouts. Because nothing
//! else in the library reads the time, a test with a [`ManualClock`] decides how time passes.

use std::fmt;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{Notify, Semaphore, oneshot};

/// A boxed sleep; see [`Clock::sleep`].
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where the engine takes its time from.
pub trait Clock: Send + Sync + 'static {
    /// The time of day.
    fn realtime(&self) -> DateTime<Utc>;

    /// The time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;

    /// Ends once `duration` of monotonic time has passed.
    fn sleep(&self, duration: Duration) -> Sleep;
}

/// Milliseconds since 1970 of the clock's real time: the unit of every stored instant.
pub(crate) fn now_ms(clock: &dyn Clock) -> i64 {
    clock.realtime().timestamp_millis()
}

/// Steady time: milliseconds that go on evenly while an engine runs, whatever happens to the time of day. Waits of a
/// duration, in contrast to waits for an instant, are measured in steady time. Steady time counts milliseconds since
/// 1970, like a clock that is never set.
pub(crate) struct Steady {
    clock: Arc<dyn Clock>,
    /// The steady time at the beginning of monotonic time.
    origin_ms: i64,
}

impl Steady {
    /// Returns steady time that is `now_ms` now.
    pub(crate) fn begin(clock: Arc<dyn Clock>, now_ms: i64) -> Self {
        let origin_ms = now_ms.saturating_sub(monotonic_ms(&*clock));
        Self { clock, origin_ms }
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.origin_ms.saturating_add(monotonic_ms(&*self.clock))
    }

    /// Returns how far the time of day is ahead of steady time, in milliseconds.
    pub(crate) fn ahead_ms(&self) -> i64 {
        now_ms(&*self.clock).saturating_sub(self.now_ms())
    }
}

impl fmt::Debug for Steady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steady").field("origin_ms", &self.origin_ms).finish_non_exhaustive()
    }
}

fn monotonic_ms(clock: &dyn Clock) -> i64 {
    i64::try_from(clock.monotonic().as_millis()).unwrap_or(i64::MAX)
}

/// The machine's own clocks. The default.
#[derive(Debug, Clone)]
pub struct SystemClock {
    origin: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn realtime(&self) -> DateTime<Utc> {
        SystemTime::now().into()
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Exact to about a tenth of a millisecond, unless very many end at once.
    fn sleep(&self, duration: Duration) -> Sleep {
        // By tokio's own time, which a test of the host may have stopped.
        let began = tokio::time::Instant::now();
        let left = move || duration.saturating_sub(began.elapsed());
        Box::pin(async move {
            tokio::time::sleep(left().saturating_sub(FINISH)).await;
            let left = left().min(FINISH);
            if !left.is_zero() {
                // Apart: very many wait for their time, and few for its end.
                Box::pin(finish(left)).await;
            }
        })
    }
}

/// The end of a sleep: tokio counts in milliseconds and ends late by one or two.
const FINISH: Duration = Duration::from_millis(3);
/// Sleeps that are brought to an exact end at a time: each takes a thread for as long.
const FINISHING_MAX: usize = 4;
static FINISHING: Semaphore = Semaphore::const_new(FINISHING_MAX);

/// Waits so long, as exactly as threads that may block are there for it.
async fn finish(left: Duration) {
    tokio::select! {
        () = finish_in_thread(left) => {}
        () = tokio::time::sleep(left) => {}
    }
}

async fn finish_in_thread(left: Duration) {
    let Ok(place) = FINISHING.try_acquire() else { return pending().await };
    let wait = move || {
        std::thread::sleep(left);
        drop(place);
    };
    if tokio::task::spawn_blocking(wait).await.is_err() {
        pending().await
    }
}

/// A clock that moves only when told to. Clones share one time.
///
/// # Moving time past a timeout
///
/// ```
/// use adjutant::{Clock, ManualClock};
/// use std::time::Duration;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(async {
/// let clock = ManualClock::at("2026-03-29T00:59:59Z".parse().unwrap());
/// let sleep = clock.sleep(Duration::from_secs(60));
/// clock.advance(Duration::from_secs(60));
/// sleep.await;
/// assert_eq!(clock.realtime().to_string(), "2026-03-29 01:00:59 UTC");
/// # });
/// ```
#[derive(Clone)]
pub struct ManualClock {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManualClock").field("realtime", &self.realtime()).finish_non_exhaustive()
    }
}

struct Shared {
    state: Mutex<State>,
    sleeper_came: Notify,
}

struct State {
    realtime: DateTime<Utc>,
    monotonic: Duration,
    sleepers: Vec<(Duration, oneshot::Sender<()>)>,
}

impl ManualClock {
    /// A clock that stands at `realtime`.
    pub fn at(realtime: DateTime<Utc>) -> Self {
        let state = State { realtime, monotonic: Duration::ZERO, sleepers: Vec::new() };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), sleeper_came: Notify::new() }) }
    }

    /// Lets `duration` pass on both clocks and ends every sleep that is due by then.
    pub fn advance(&self, duration: Duration) {
        let mut state = self.state();
        // Past their last instants both clocks stand still.
        state.monotonic = state.monotonic.saturating_add(duration);
        let realtime = TimeDelta::from_std(duration).ok();
        let realtime = realtime.and_then(|passed| state.realtime.checked_add_signed(passed));
        state.realtime = realtime.unwrap_or(DateTime::<Utc>::MAX_UTC);
        let now = state.monotonic;
        for (_, wake) in state.sleepers.extract_if(.., |(due, _)| *due <= now) {
            // A sleep that was dropped needs no waking.
            let _ = wake.send(());
        }
    }

    /// Sets the real-time clock, as an operator or NTP would; monotonic time does not notice.
    pub fn set_realtime(&self, realtime: DateTime<Utc>) {
        self.state().realtime = realtime;
    }

    /// Waits until at least `count` sleeps are under way: the moment at which moving time has an
    /// effect that a test can count on.
    pub async fn sleeping(&self, count: usize) {
        loop {
            let came = self.shared.sleeper_came.notified();
            {
                let mut state = self.state();
                state.sleepers.retain(|(_, wake)| !wake.is_closed());
                if state.sleepers.len() >= count {
                    return;
                }
            }
            came.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn realtime(&self) -> DateTime<Utc> {
        self.state().realtime
    }

    fn monotonic(&self) -> Duration {
        self.state().monotonic
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let (wake, woken) = oneshot::channel();
        {
            let mut state = self.state();
            let due = state.monotonic.saturating_add(duration);
            if due <= state.monotonic {
                let _ = wake.send(());
            } else {
                state.sleepers.push((due, wake));
            }
        }
        self.shared.sleeper_came.notify_waiters();
        Box::pin(async move {
            // The sender lives in the clock; if the clock is gone nobody can move time any more.
            if woken.await.is_err() {
                pending::<()>().await;
            }
        })
    }
}

/// The boot that this machine is in, where its system says.
pub(crate) fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_clock_that_is_moved_past_its_last_instant_stands_there() {
        let clock = ManualClock::at("9999-12-31T23:59:59Z".parse().expect("an instant"));
        let sleep = clock.sleep(Duration::MAX);
        clock.advance(Duration::from_secs(1));
        clock.advance(Duration::MAX);
        sleep.await;
        assert_eq!(clock.realtime(), DateTime::<Utc>::MAX_UTC);
        assert_eq!(clock.monotonic(), Duration::MAX);
        clock.sleep(Duration::from_secs(1)).await;
    }
}
