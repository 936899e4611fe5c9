//! A host that serves the control socket, and the program that reaches its engine from another process.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use adjutant::control::{CONNECTIONS_MAX, ControlError, FIRST_REQUEST_MAX};
use adjutant::{ClosureExecutor, Engine, ExecutionContext, Instance, RunCommand, Stream};
use rustix::process::Signal;
use tokio::runtime::Runtime;

use crate::harness::Place;

/// A host in this process.
struct Host {
    runtime: Runtime,
    engine: Engine,
}

impl Host {
    fn open(place: &Place) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let held = ClosureExecutor::new(|_task, cx: ExecutionContext| async move {
            cx.print(Stream::Stdout, b"at work\n");
            std::future::pending::<()>().await
        });
        let builder = Engine::builder().path(place.db()).executor("held", held);
        let engine = runtime.block_on(builder.open()).expect("the file is free");
        let instance = Instance::new("worker").executor("held");
        runtime.block_on(engine.register_instance(instance)).expect("a sound instance");
        Self { runtime, engine }
    }

    fn serve(&self) {
        let _inside = self.runtime.enter();
        self.engine.serve_control().expect("the socket can be made");
    }

    fn shut_down(&self) {
        self.runtime.block_on(self.engine.shutdown(Duration::ZERO));
    }
}

#[test]
fn a_host_is_listed_stopped_and_given_work_from_another_process() {
    let place = Place::new();
    let host = Host::open(&place);
    host.serve();
    let request = RunCommand::shell("hold").on(["worker"]).name("nightly");
    let id = host.runtime.block_on(host.engine.run_command(request)).expect("sound").invoke_id;
    let id = id.to_string();
    let follow = place.start(&["show", "--follow", &id]);
    follow.out.expect("at work");
    let listed = place.ok(&["ps"]);
    assert!(listed.contains(&format!("*  {id}  Running")), "{listed}");
    assert!(place.ok(&["show", &id]).contains("nightly"));
    assert_eq!(place.ok(&["stop", "--reason", "too long", &id]), format!("asked {id} to stop\n"));
    let done = follow.end();
    assert!(done.err.contains("too long"), "{}", done.err);
    assert_eq!(place.ok(&["run", "echo hello"]), "hello\n");
    let schedule = place.ok(&["run", "--frequency", "0 0 0 1 1 ? 2090", "--timeout", "5", "true"]);
    let schedule = schedule.trim();
    assert_eq!(place.ok(&["pause", schedule]), format!("paused {schedule}\n"));
    assert_eq!(place.ok(&["resume", schedule]), format!("resumed {schedule}\n"));
    place.ok(&["stop", schedule]);
    assert_eq!(place.run(&["run", "exit 3"]).code, Some(1));
    let failed = place.newest();
    assert_eq!(place.run(&["retry", &failed]).code, Some(1));
    place.ok(&["quota"]);
    host.shut_down();
}

#[test]
fn the_socket_is_private_and_goes_with_its_engine() {
    let place = Place::new();
    let socket = place.path("a.db.sock");
    let host = Host::open(&place);
    host.serve();
    assert_eq!(fs::metadata(&socket).expect("a socket").permissions().mode() & 0o777, 0o600);
    let mut idle = BufReader::new(UnixStream::connect(&socket).expect("the host listens"));
    host.shut_down();
    // The connection hears that nothing was done, and ends.
    let mut heard = String::new();
    idle.read_to_string(&mut heard).expect("the host hangs up");
    assert!(heard.ends_with("{\"bye\":{}}\n"), "{heard}");
    assert!(!socket.exists());
    // A handle of the host does not keep the service going, nor the service the engine.
    let place = Place::new();
    let host = Host::open(&place);
    host.serve();
    let Host { runtime, engine } = host;
    let closed = engine.closed();
    drop(engine);
    runtime.block_on(closed);
    drop(runtime);
    assert!(!place.path("a.db.sock").exists());
}

#[test]
fn what_is_no_socket_is_never_replaced() {
    let check = |make: &dyn Fn(&Place), want: &str| {
        let place = Place::new();
        let host = Host::open(&place);
        make(&place);
        let _inside = host.runtime.enter();
        let refused = host.engine.serve_control().expect_err("it is in the way");
        assert!(matches!(refused, ControlError::Socket { .. }));
        assert!(refused.to_string().contains(want), "{refused}");
        host.shut_down();
    };
    check(&|place| fs::write(place.path("a.db.sock"), "mine").expect("written"), "no socket");
    check(&|place| fs::create_dir(place.path("a.db.sock")).expect("made"), "a folder");
    check(
        &|place| {
            drop(UnixListener::bind(place.path("other.sock")).expect("a socket"));
            fs::set_permissions(place.path("other.sock"), PermissionsExt::from_mode(0o640))
                .expect("set");
            symlink("other.sock", place.path("a.db.sock")).expect("a link");
        },
        "a link",
    );
    let runtime = Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let engine = runtime.block_on(Engine::open_in_memory()).expect("it opens");
    assert!(matches!(engine.serve_control(), Err(ControlError::InMemory)));
}

#[test]
fn connections_that_ask_nothing_keep_nobody_out() {
    let place = Place::new();
    let host = Host::open(&place);
    host.serve();
    let connect = || UnixStream::connect(place.path("a.db.sock")).expect("the host listens");
    let idle: Vec<UnixStream> = (0..CONNECTIONS_MAX + 40).map(|_| connect()).collect();
    assert_eq!(place.ok(&["run", "echo hello"]), "hello\n");
    let id = place.newest();
    assert!(place.ok(&["stop", &id]).contains("had already ended"));
    // None of them stays for ever.
    for stream in idle {
        stream.set_read_timeout(Some(2 * FIRST_REQUEST_MAX)).expect("set");
        let mut heard = String::new();
        BufReader::new(stream).read_to_string(&mut heard).expect("the host hangs up");
        assert!(heard.ends_with("{\"bye\":{}}\n"), "{heard}");
    }
    host.shut_down();
}

#[test]
fn a_stop_gets_through_while_all_places_are_in_use() {
    let place = Place::new();
    let host = Host::open(&place);
    host.serve();
    let request = RunCommand::shell("hold").on(["worker"]);
    let id = host.runtime.block_on(host.engine.run_command(request)).expect("sound").invoke_id;
    let watch = format!(
        "{{\"op\":\"WatchInvocation\",\"request\":{{\"InvokeId\":\"{id}\"}},\"watch\":true}}\n"
    );
    let watching: Vec<_> = (0..CONNECTIONS_MAX)
        .map(|_| {
            let mut stream = UnixStream::connect(place.path("a.db.sock")).expect("it listens");
            stream.write_all(watch.as_bytes()).expect("the host reads");
            let mut lines = BufReader::new(stream);
            let mut line = String::new();
            while !line.contains("\"ok\"") {
                line.clear();
                lines.read_line(&mut line).expect("the host answers");
            }
            lines
        })
        .collect();
    let refused = place.run(&["run", "echo hello"]);
    assert!(refused.err.contains("(Throttling)"), "{}", refused.err);
    let id = id.to_string();
    assert_eq!(place.ok(&["stop", &id]), format!("asked {id} to stop\n"));
    place.wait_until(&id, "Stopped");
    drop(watching);
    host.shut_down();
}

#[test]
fn a_suspended_owner_is_told_and_waited_for_equally_long() {
    let place = Place::new();
    let gate = place.gate("gate");
    let run = place.start(&["run", &format!("echo started; {}; echo on", gate.wait())]);
    run.out.expect("started");
    let id = place.newest();
    let follow = place.start(&["show", "--follow", &id]);
    follow.out.expect("started");
    run.signal(Signal::STOP);
    follow.err.expect("does not answer");
    for words in [&["stop", &id][..], &["run", "true"], &["pause", &id]] {
        let done = place.run(words);
        assert_eq!(done.code, Some(1), "{words:?}");
        assert!(done.err.ends_with("does not answer (Control.Silent)\n"), "{}", done.err);
    }
    let listed = place.run(&["ps"]);
    assert!(listed.out.contains(&id), "{}", listed.out);
    assert!(listed.err.contains("does not answer"), "{}", listed.err);
    let late = place.start(&["show", "--follow", &id]);
    late.err.expect("does not answer");
    run.signal(Signal::CONT);
    follow.err.expect("answers again");
    gate.open();
    for followed in [follow, late] {
        let done = followed.end();
        assert!(done.out.ends_with("on\n"), "{}{}", done.out, done.err);
    }
    assert_eq!(run.end().code, Some(0));
}
