//! The hook that lets the waves of an invocation go on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::id::InvokeId;
use crate::panics::tell;

/// A wave that has ended, with those before it, and what is left of its fire.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndedWave {
    /// The invocation.
    pub invoke_id: InvokeId,
    /// Executions that have succeeded so far.
    pub succeeded: u64,
    /// Executions that have ended without success so far.
    pub failed: u64,
    /// Executions that have been stopped so far.
    pub stopped: u64,
    /// Executions of all waves.
    pub total: u64,
}

impl EndedWave {
    /// One of a fire of so many executions, none of which has ended.
    pub fn new(invoke_id: InvokeId, total: u64) -> Self {
        Self { invoke_id, succeeded: 0, failed: 0, stopped: 0, total }
    }
}

/// Whether the next wave may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaveDecision {
    /// It starts now.
    Proceed,
    /// The gate is asked again after this time.
    Wait(Duration),
    /// What waits is cancelled; the reason is in its records.
    Halt(String),
}

/// Decides about the waves of invocations: asked when a wave and its soak time are over, and there is
/// another. One wave is asked about at a time; what panics is asked again after 10 s.
///
/// # A fleet that has to stay healthy
///
/// ```
/// use adjutant::{EndedWave, WaveDecision, WaveGate};
///
/// struct NoFailures;
///
/// impl WaveGate for NoFailures {
///     async fn decide(&self, wave: EndedWave) -> WaveDecision {
///         match wave.failed {
///             0 => WaveDecision::Proceed,
///             failed => WaveDecision::Halt(format!("{failed} of {} failed", wave.total)),
///         }
///     }
/// }
/// # let _ = adjutant::Engine::builder().wave_gate(NoFailures);
/// ```
pub trait WaveGate: Send + Sync + 'static {
    /// Whether the wave after this one may start.
    fn decide(&self, wave: EndedWave) -> impl Future<Output = WaveDecision> + Send;
}

/// A boxed [`WaveGate::decide`].
pub(crate) type Decide<'a> = Pin<Box<dyn Future<Output = WaveDecision> + Send + 'a>>;

/// [`WaveGate`] behind a pointer.
pub(crate) trait DynWaveGate: Send + Sync + 'static {
    fn decide(&self, wave: EndedWave) -> Decide<'_>;
}

impl<G: WaveGate> DynWaveGate for G {
    fn decide(&self, wave: EndedWave) -> Decide<'_> {
        Box::pin(WaveGate::decide(self, wave))
    }
}

/// How long a gate that panicked is left alone.
const AFTER_PANIC: Duration = Duration::from_secs(10);

/// Asks a gate.
pub(crate) async fn ask(gate: Arc<dyn DynWaveGate>, wave: EndedWave) -> WaveDecision {
    let invoke_id = wave.invoke_id;
    let mut decision: Decide<'static> = Box::pin(async move { gate.decide(wave).await });
    let asked = std::future::poll_fn(move |cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| decision.as_mut().poll(cx)));
        polled.map_or(Poll::Ready(None), |polled| polled.map(Some))
    });
    asked.await.unwrap_or_else(|| {
        tell(|| tracing::error!(%invoke_id, "the gate of its waves panicked"));
        WaveDecision::Wait(AFTER_PANIC)
    })
}
