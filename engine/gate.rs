//! The hook that lets the waves of an invocation go on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::clock::Clock;
use crate::id::InvokeId;
use crate::panics::{contain, tell};

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

/// Decides about the waves of invocations. The engine asks when a wave and its soak are over and another wave
/// follows. The engine asks about 16 waves at a time at most, each in a task of its own. If the gate has not answered
/// after 60 s, or panics, the engine asks again 10 s later. The engine drops a question as soon as no execution of
/// the invocation waits, for instance because the invocation was stopped.
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

/// The longest time for an answer of a gate, so that a service that hangs does not hold a wave for ever.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// The time after which a gate that panicked or did not answer is asked again.
pub(crate) const ASK_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Asks a gate. If the gate panics or does not answer, the decision is to wait.
pub(crate) async fn ask(
    gate: Arc<dyn DynWaveGate>,
    wave: EndedWave,
    clock: Arc<dyn Clock>,
) -> WaveDecision {
    let invoke_id = wave.invoke_id;
    let mut question = Question(Some(Box::pin(async move { gate.decide(wave).await })));
    let answer = tokio::select! {
        biased;
        answer = &mut question => answer,
        () = clock.sleep(ANSWER_TIME_MAX) => {
            tell(|| tracing::error!(%invoke_id, "the wave gate does not answer"));
            None
        }
    };
    answer.unwrap_or(WaveDecision::Wait(ASK_AGAIN_AFTER))
}

/// A question to a gate. The gate is the host's, so its future may panic when it is polled and when it is
/// dropped.
struct Question(Option<Decide<'static>>);

impl Future for Question {
    /// `None` if the gate panicked.
    type Output = Option<WaveDecision>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(decision) = &mut self.0 else { return Poll::Ready(None) };
        match contain(|| decision.as_mut().poll(cx)) {
            Ok(polled) => polled.map(Some),
            Err(panic) => {
                tell(|| tracing::error!(panic, "the wave gate panicked"));
                Poll::Ready(None)
            }
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        let decision = self.0.take();
        if let Err(panic) = contain(|| drop(decision)) {
            tell(|| tracing::error!(panic, "the wave gate panicked when its question was dropped"));
        }
    }
}
