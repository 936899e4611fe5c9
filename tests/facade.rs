//! What a host's recorder hears of an engine through the facade of the crate `metrics`. By itself, for
//! there is one recorder in a process.

use std::collections::HashMap;

use adjutant::{ClosureExecutor, Engine, ExecutionStatus, Instance, InvocationStatus, RunCommand};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

/// Figures and their descriptions by name, with the labels behind it.
fn heard(snapshotter: &Snapshotter) -> HashMap<String, (DebugValue, String)> {
    let named = |(key, unit, description, value): (metrics_util::CompositeKey, _, Option<_>, _)| {
        let key = key.key();
        let labels = key.labels().map(|label| format!("{{{}={}}}", label.key(), label.value()));
        let unit: Option<metrics::Unit> = unit;
        let told =
            description.map_or_else(String::new, |text: metrics::SharedString| text.to_string());
        let told = format!("{told}, {}", unit.map_or("", |unit| unit.as_str()));
        (key.name().to_owned() + &labels.collect::<String>(), (value, told))
    };
    snapshotter.snapshot().into_vec().into_iter().map(named).collect()
}

#[tokio::test]
async fn a_recorder_hears_what_the_engine_counts() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().expect("the only one");
    let script =
        ClosureExecutor::new(async |task, _cx| i32::from(task.instance_id.as_str() == "i-2"));
    let engine = Engine::builder().executor("script", script).open().await.expect("it opens");
    for id in ["i-1", "i-2"] {
        engine.register_instance(Instance::new(id).executor("script")).await.expect("sound");
    }
    let run = engine.run_command(RunCommand::shell("x").on(["i-1", "i-2"])).await.expect("sound");
    let finished = engine.wait(&run.invoke_id).await.expect("it ends");
    assert_eq!(finished.status, InvocationStatus::PartialFailed);
    let metrics = engine.metrics();
    let heard = heard(&snapshotter);
    let of = |name: &str| heard.get(name).unwrap_or_else(|| panic!("{name}: {heard:#?}"));
    let count = |name: &str, want: u64| assert_eq!(of(name).0, DebugValue::Counter(want), "{name}");
    let gauge =
        |name: &str, want: f64| assert_eq!(of(name).0, DebugValue::Gauge(want.into()), "{name}");
    let values = |name: &str, unit: &str, want: u64| {
        let (value, told) = of(name);
        let DebugValue::Histogram(values) = value else { panic!("{name}: {value:?}") };
        assert_eq!(values.len() as u64, want, "{name}");
        assert!(told.len() > 10 && told.ends_with(unit), "{name}: {told}");
        assert!(values.iter().all(|value| value.0 < 60.0), "{name}: {values:?}");
    };
    count("adjutant_invocations_total", 1);
    count("adjutant_executions_total", 2);
    count("adjutant_executions_started_total", 2);
    count("adjutant_executions_ended_total{status=Success}", 1);
    count("adjutant_executions_ended_total{status=Failed}", 1);
    count("adjutant_fires_total{disposition=Started}", 1);
    count("adjutant_commits_total", metrics.commits);
    count("adjutant_writes_total", metrics.writes);
    gauge("adjutant_executions_running", 0.0);
    gauge("adjutant_executions_waiting", 0.0);
    values("adjutant_commit_seconds", "seconds", metrics.commits);
    values("adjutant_writes_per_commit", "count", metrics.commits);
    values("adjutant_rows_per_commit", "count", metrics.commits);
    values("adjutant_queue_seconds", "seconds", 2);
    values("adjutant_start_delay_seconds", "seconds", 2);
    values("adjutant_run_seconds", "seconds", 2);
    assert_eq!(metrics.ended.get(ExecutionStatus::Success), 1);
}
