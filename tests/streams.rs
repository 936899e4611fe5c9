//! Events and notices as streams, with the feature `stream`.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use adjutant::{Engine, Event, InvocationStatus, InvokeId, LOCAL, Notice, RunCommand};
use futures_core::Stream;
use futures_core::stream::FusedStream;

async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
}

#[tokio::test]
async fn a_stream_has_the_events_of_its_watch() {
    let engine = Engine::open_in_memory().await.expect("an engine");
    let run = RunCommand::shell("echo one; echo two").on([LOCAL]);
    let (run, watch) = engine.run_command_and_watch(run).await.expect("sound");
    let mut stream = watch.into_stream();
    assert!(stream.position().is_some());
    let mut streamed = Vec::new();
    let mut middle = None;
    while let Some(event) = next(&mut stream).await {
        streamed.push(event.expect("sound"));
        middle = middle.or(stream.position().map(|position| (streamed.len(), position)));
    }
    assert!(stream.is_terminated() && next(&mut stream).await.is_none());
    assert_eq!(streamed.last(), Some(&Event::Finished { status: InvocationStatus::Success }));
    // Another watch goes on where the stream had come to.
    let (told, position) = middle.expect("an event");
    let mut watch = engine.watch_from(&run.invoke_id, position).await.expect("it exists");
    let mut rest = String::new();
    while let Some(event) = watch.next().await.expect("sound") {
        if let Event::Output { bytes, .. } = event {
            rest.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    let before = streamed[..told].iter().any(|event| matches!(event, Event::Output { .. }));
    assert_eq!(rest == "one\ntwo\n", !before);
}

#[tokio::test]
async fn a_stream_that_is_dropped_while_it_waits_holds_up_nothing() {
    let engine = Engine::open_in_memory().await.expect("an engine");
    let run = RunCommand::shell("sleep 100").on([LOCAL]);
    let (_, watch) = engine.run_command_and_watch(run).await.expect("sound");
    let mut stream = watch.into_stream();
    while stream.position().is_some() {
        let polled = poll_fn(|cx| std::task::Poll::Ready(Pin::new(&mut stream).poll_next(cx)));
        let _ = polled.await;
        tokio::task::yield_now().await;
    }
    drop(stream);
    engine.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_feed_is_a_stream_that_ends_with_the_engine() {
    let engine = Engine::open_in_memory().await.expect("an engine");
    let mut stream = engine.follow().into_stream();
    let run = engine.run_command(RunCommand::shell("true").on([LOCAL])).await.expect("sound");
    let ended = |notice: &Notice, id: InvokeId| matches!(notice, Notice::Finished { invoke_id, .. } if *invoke_id == id);
    while let Some(notice) = next(&mut stream).await {
        if ended(&notice, run.invoke_id) {
            break;
        }
    }
    engine.shutdown(Duration::ZERO).await;
    while next(&mut stream).await.is_some() {}
    assert!(stream.is_terminated());
}
