//! What happens to all invocations, as it happens: for who shows or counts it. Nothing waits for a
//! reader; one that is too slow is told how much it missed.

#[cfg(feature = "stream")]
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
#[cfg(feature = "stream")]
use std::task::{Context, Poll, ready};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use crate::id::{ExecutionId, InstanceId, InvokeId};
use crate::invocation::fire::Fire;
use crate::output::DeliveryStatus;
use crate::status::{ExecutionStatus, InvocationStatus};

/// Notices that wait for the slowest reader; a herd comes to more, but nobody reads that fast.
const NOTICES_MAX: usize = 1_024;

/// One thing that happened to any invocation. Told after the commit that made it true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "Notice", rename_all_fields = "PascalCase")]
#[non_exhaustive]
pub enum Notice {
    /// A nominal time, or a stretch of them, has been dealt with; or a boot, or a request to run
    /// beside the schedule.
    Fire {
        /// The invocation.
        invoke_id: InvokeId,
        /// What became of it.
        fire: Fire,
    },
    /// An execution started, is being stopped, or ended; or another attempt of it is to be made.
    Status {
        /// The invocation.
        invoke_id: InvokeId,
        /// The execution.
        execution_id: ExecutionId,
        /// Where it runs.
        instance_id: InstanceId,
        /// The status it came to.
        status: ExecutionStatus,
        /// When.
        at: DateTime<Utc>,
        /// When it will start, if it is another attempt and waits for that.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        retry_time: Option<DateTime<Utc>>,
    },
    /// An invocation ended.
    Finished {
        /// The invocation.
        invoke_id: InvokeId,
        /// How it ended as a whole.
        status: InvocationStatus,
    },
    /// The delivery of a whole output ended: to where `OssOutputDelivery` said.
    Delivery {
        /// The invocation.
        invoke_id: InvokeId,
        /// The execution that printed it.
        execution_id: ExecutionId,
        /// How it ended.
        status: DeliveryStatus,
        /// Where the output is; empty if it was not delivered.
        uri: String,
        /// What went wrong, in words; empty if nothing did.
        error_info: String,
    },
    /// The reader was too slow for some notices; the records have it all.
    Lagged {
        /// How many it missed.
        count: u64,
    },
}

/// Notices from now on, from [`Engine::follow`](crate::Engine::follow). On a file that is open for
/// reading only there are none.
#[derive(Debug)]
pub struct Feed {
    notices: Option<broadcast::Receiver<Notice>>,
    /// Whether a shutdown has begun.
    closing: watch::Receiver<bool>,
    /// Whether the feed ends then.
    ends_with_closing: bool,
    /// Counts those who follow.
    _follows: Arc<()>,
}

impl Feed {
    /// Makes this feed end when the engine begins to shut down, instead of when the engine has ended.
    #[must_use]
    pub fn until_closing(mut self) -> Self {
        self.ends_with_closing = true;
        self
    }

    /// Returns the notices as a stream, which ends with the feed.
    #[cfg(feature = "stream")]
    pub fn into_stream(self) -> FeedStream {
        FeedStream(Some(Box::pin(next(self))))
    }

    /// The next notice; `None` once the engine has ended or, after [`until_closing`](Self::until_closing), once it begins
    /// to shut down. May be dropped and called again without losing anything.
    pub async fn next(&mut self) -> Option<Notice> {
        let notices = self.notices.as_mut()?;
        let told = tokio::select! {
            biased;
            told = notices.recv() => told,
            // An error means that the engine is gone.
            _ = self.closing.wait_for(|is_closing| *is_closing), if self.ends_with_closing => return None,
        };
        match told {
            Ok(notice) => Some(notice),
            Err(RecvError::Lagged(count)) => Some(Notice::Lagged { count }),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Notices as a stream, from [`Feed::into_stream`].
#[cfg(feature = "stream")]
pub struct FeedStream(Option<Waits>);

#[cfg(feature = "stream")]
type Waits = Pin<Box<dyn Future<Output = (Feed, Option<Notice>)> + Send>>;

#[cfg(feature = "stream")]
async fn next(mut feed: Feed) -> (Feed, Option<Notice>) {
    let notice = feed.next().await;
    (feed, notice)
}

#[cfg(feature = "stream")]
impl futures_core::Stream for FeedStream {
    type Item = Notice;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Notice>> {
        let Some(waits) = &mut self.0 else { return Poll::Ready(None) };
        let (feed, notice) = ready!(waits.as_mut().poll(cx));
        self.0 = notice.is_some().then(|| Box::pin(next(feed)) as Waits);
        Poll::Ready(notice)
    }
}

#[cfg(feature = "stream")]
impl futures_core::stream::FusedStream for FeedStream {
    fn is_terminated(&self) -> bool {
        self.0.is_none()
    }
}

#[cfg(feature = "stream")]
impl std::fmt::Debug for FeedStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FeedStream").finish_non_exhaustive()
    }
}

/// Those who follow everything.
#[derive(Debug)]
pub(super) struct Feeds {
    sender: RwLock<Option<broadcast::Sender<Notice>>>,
    closing: watch::Sender<bool>,
    /// Each of them has one, too: whether there are any takes no lock.
    follows: Arc<()>,
}

impl Default for Feeds {
    fn default() -> Self {
        let sender = RwLock::new(Some(broadcast::Sender::new(NOTICES_MAX)));
        Self { sender, closing: watch::Sender::new(false), follows: Arc::default() }
    }
}

impl Feeds {
    pub(super) fn open(&self) -> Feed {
        let follows = Arc::clone(&self.follows);
        let notices = self.with_sender(broadcast::Sender::subscribe);
        let closing = self.closing.subscribe();
        Feed { notices, closing, ends_with_closing: false, _follows: follows }
    }

    pub(super) fn announce_closing(&self) {
        self.closing.send_replace(true);
    }

    pub(super) fn any(&self) -> bool {
        Arc::strong_count(&self.follows) > 1
    }

    pub(super) fn tell(&self, notice: impl FnOnce() -> Notice) {
        if self.any() {
            // Whoever has left in between needs no notice.
            self.with_sender(|sender| sender.send(notice()).is_ok());
        }
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        self.sender.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn with_sender<T>(&self, use_it: impl FnOnce(&broadcast::Sender<Notice>) -> T) -> Option<T> {
        self.sender.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(use_it)
    }
}
