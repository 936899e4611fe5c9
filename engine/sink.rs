//! The plug-in point for sinks, which take whole outputs to the places that requests name. The library has a sink for
//! folders of this machine, and with the feature `object-store` a sink for buckets; a host adds its own.

mod directory;
#[cfg(feature = "object-store")]
mod object_store;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use crate::id::{ExecutionId, InvokeId};

#[cfg(feature = "object-store")]
pub use self::object_store::ObjectStoreSink;
pub use directory::DirectorySink;

/// Takes whole outputs to the place where they stay.
///
/// The record of an execution keeps the beginning and the end of its output. If a request names a place for the whole
/// output (`OssOutputDelivery`, or `OutputCOSBucketUrl` in Tencent's terms), and a sink is plugged in for that place
/// with [`output_sink`](crate::EngineBuilder::output_sink), the engine keeps the whole output on disk while the
/// execution runs, both streams in the order in which they arrived. After the end, the engine gives it to the sink.
/// The end of the execution does not wait for the delivery, and the delivery does not change its result: the state of
/// the delivery is in fields of its own (`OssOutputStatus`, `OssOutputUri`, `OssOutputErrorCode`,
/// `OssOutputErrorInfo`).
///
/// If an engine ends before an output is delivered, the next engine with a sink for that place delivers it. The same
/// key may therefore come twice, with the same bytes.
///
/// # A sink of a host's own
///
/// ```
/// use adjutant::{OutputDelivery, OutputSink, OutputSinkError};
///
/// struct Archive;
///
/// impl OutputSink for Archive {
///     async fn deliver(&self, output: OutputDelivery) -> Result<(), OutputSinkError> {
///         let printed = std::fs::read(&output.path)?; // a larger one is better read in parts
///         println!("{}: {} bytes", output.key, printed.len());
///         Ok(())
///     }
/// }
///
/// let engine = adjutant::Engine::builder().output_sink("oss://archive", Archive);
/// # let _ = engine;
/// ```
pub trait OutputSink: Send + Sync + 'static {
    /// Delivers one output. It has an hour; after that it is dropped, as it is when the engine ends.
    ///
    /// # Errors
    ///
    /// Why the output is not where it was to go. It is not tried again.
    fn deliver(
        &self,
        output: OutputDelivery,
    ) -> impl Future<Output = Result<(), OutputSinkError>> + Send;
}

/// An output that is to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputDelivery {
    /// The invocation.
    pub invoke_id: InvokeId,
    /// The execution that has printed it.
    pub execution_id: ExecutionId,
    /// Where it goes, within the place that the sink was plugged in for: `FOLDERS/INVOKE_ID/EXECUTION_ID.log`,
    /// without a `/` in front. The folders are the request's, which may be anybody's.
    pub key: String,
    /// The file that holds it. It is the engine's, which removes it afterwards.
    pub path: PathBuf,
    /// How long it is.
    pub bytes: u64,
}

/// Why an output was not delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutputSinkError {
    /// The place is not there (`OutputSink.NotFound`).
    #[error("{0}")]
    NotFound(String),
    /// The engine may not write there (`OutputSink.Denied`).
    #[error("{0}")]
    Denied(String),
    /// Every other failure (`OutputSink.Failed`).
    #[error("{0}")]
    Failed(String),
}

impl OutputSinkError {
    /// The code for `OssOutputErrorCode`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "OutputSink.NotFound",
            Self::Denied(_) => "OutputSink.Denied",
            Self::Failed(_) => "OutputSink.Failed",
        }
    }
}

impl From<io::Error> for OutputSinkError {
    fn from(error: io::Error) -> Self {
        let info = error.to_string();
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound(info),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Denied(info)
            }
            _ => Self::Failed(info),
        }
    }
}

/// A boxed [`OutputSink::deliver`].
pub(crate) type Deliver<'a> =
    Pin<Box<dyn Future<Output = Result<(), OutputSinkError>> + Send + 'a>>;

/// [`OutputSink`] behind a pointer.
pub(crate) trait DynOutputSink: Send + Sync + 'static {
    fn deliver(&self, output: OutputDelivery) -> Deliver<'_>;
}

impl<S: OutputSink> DynOutputSink for S {
    fn deliver(&self, output: OutputDelivery) -> Deliver<'_> {
        Box::pin(OutputSink::deliver(self, output))
    }
}

/// The sinks of an engine, each with the place that it serves.
#[derive(Default)]
pub(crate) struct Sinks(Vec<(String, Arc<dyn DynOutputSink>)>);

impl Sinks {
    /// Adds a sink; one that served the same place before is gone.
    pub(crate) fn insert(&mut self, place: &str, sink: Arc<dyn DynOutputSink>) {
        let place = without_last_slash(place).to_owned();
        self.0.retain(|(known, _)| *known != place);
        self.0.push((place, sink));
    }

    /// Returns the number of sinks.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the number of the sink that serves a place, from 0 on; `None` if no sink does.
    pub(crate) fn number(&self, to: &str) -> Option<usize> {
        let (serving, _) = self.closest(to)?;
        self.0.iter().position(|(_, sink)| Arc::ptr_eq(sink, serving))
    }

    /// Whether there is a sink for a place.
    pub(crate) fn serve(&self, to: &str) -> bool {
        self.closest(to).is_some()
    }

    /// The way of an output to a place; none if no sink serves it.
    pub(crate) fn route(&self, to: &str, invoke_id: InvokeId, id: ExecutionId) -> Option<Route> {
        let (sink, folders) = self.closest(to)?;
        let name = format!("{invoke_id}/{id}.log");
        let uri = format!("{}/{name}", without_last_slash(to));
        let key = if folders.is_empty() { name } else { format!("{folders}/{name}") };
        Some(Route { sink: Arc::clone(sink), key, uri })
    }

    /// The sink whose place is the closest around this one, and the folders from there.
    fn closest<'a>(&self, to: &'a str) -> Option<(&Arc<dyn DynOutputSink>, &'a str)> {
        let around =
            self.0.iter().filter_map(|(place, sink)| Some((place, sink, within(place, to)?)));
        let (_, sink, folders) = around.max_by_key(|(place, ..)| place.len())?;
        Some((sink, folders))
    }
}

/// The way of an output.
pub(crate) struct Route {
    pub sink: Arc<dyn DynOutputSink>,
    /// Where it goes in the sink.
    pub key: String,
    /// Where that is for everybody.
    pub uri: String,
}

/// The folders in which `to` lies within `place`; none if it lies elsewhere.
fn within<'a>(place: &str, to: &'a str) -> Option<&'a str> {
    let folders = without_last_slash(to).strip_prefix(place)?;
    if folders.is_empty() || place.ends_with("://") {
        return Some(folders.trim_start_matches('/'));
    }
    folders.strip_prefix('/')
}

/// A place without the slash at its end, unless that belongs to the scheme.
fn without_last_slash(place: &str) -> &str {
    match place.strip_suffix('/') {
        Some(whole) if !whole.ends_with(":/") => whole,
        _ => place,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nowhere;

    impl OutputSink for Nowhere {
        async fn deliver(&self, _: OutputDelivery) -> Result<(), OutputSinkError> {
            Ok(())
        }
    }

    #[test]
    fn the_closest_place_serves() {
        let mut sinks = Sinks::default();
        for place in ["file:///var/log/", "oss://bucket", "oss://bucket/a/b", "s3://"] {
            sinks.insert(place, Arc::new(Nowhere));
        }
        let invoke_id: InvokeId = "t-01a1fb2367aa7653922750444385f3f5".parse().expect("an id");
        let check = |to: &str, want: Option<(&str, &str)>| {
            let route = sinks.route(to, invoke_id, ExecutionId(7));
            let name = format!("{invoke_id}/7.log");
            let want = want
                .map(|(folders, place)| (format!("{folders}{name}"), format!("{place}/{name}")));
            assert_eq!(route.map(|route| (route.key, route.uri)), want, "{to}");
            assert_eq!(sinks.serve(to), want.is_some());
        };
        check("oss://bucket", Some(("", "oss://bucket")));
        check("oss://bucket/", Some(("", "oss://bucket")));
        check("oss://bucket/a/", Some(("a/", "oss://bucket/a")));
        check("oss://bucket/a/b", Some(("", "oss://bucket/a/b")));
        check("oss://bucket/a/bc", Some(("a/bc/", "oss://bucket/a/bc")));
        check("oss://bucket2", None);
        check("oss://buck", None);
        check("s3://any/x", Some(("any/x/", "s3://any/x")));
        check("file:///var/log", Some(("", "file:///var/log")));
        check("file:///var/log/ä b", Some(("ä b/", "file:///var/log/ä b")));
        check("file:///var/logs", None);
        check("file:///", None);
        check("https://bucket", None);

        let mut sinks = Sinks::default();
        sinks.insert("file:///", Arc::new(Nowhere));
        let route = sinks.route("file:///", invoke_id, ExecutionId(7)).expect("it serves all");
        assert_eq!(route.key, format!("{invoke_id}/7.log"));
        assert_eq!(route.uri, format!("file:///{invoke_id}/7.log"));
        let route = sinks.route("file:///a/", invoke_id, ExecutionId(7)).expect("it serves all");
        assert_eq!(route.key, format!("a/{invoke_id}/7.log"));
        sinks.insert("file://", Arc::new(Nowhere));
        assert_eq!(sinks.0.len(), 1, "the same place");
    }
}
