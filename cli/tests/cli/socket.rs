//! What is spoken on the control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::harness::Place;

struct Talk {
    stream: BufReader<UnixStream>,
}

impl Talk {
    fn new(place: &Place) -> Self {
        let stream = UnixStream::connect(place.path("a.db.sock")).expect("an owner");
        let mut talk = Self { stream: BufReader::new(stream) };
        let ready = talk.hear();
        assert_eq!(ready["ready"]["Version"], env!("CARGO_PKG_VERSION"), "{ready}");
        talk
    }

    fn say(&mut self, line: &str) -> Value {
        // The owner may hang up in the middle of a line that is too long, after its answer.
        let _ = writeln!(self.stream.get_mut(), "{line}");
        self.hear()
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("the owner answers");
        serde_json::from_str(&line).expect("a line is JSON")
    }
}

#[test]
fn requests_answers_and_events_are_lines_of_json() {
    let place = Place::new();
    let gate = place.gate("gate");
    let run = place.start(&["run", &format!("echo started; {}", gate.wait())]);
    run.out.expect("started");
    let mut talk = Talk::new(&place);

    for (line, message) in [
        ("", "bad request"),
        ("[1", "bad request"),
        (r#"{"op":"Reboot","request":{}}"#, "there is no operation `Reboot`"),
        (r#"{"op":"Reboot","request":{},"watch":true}"#, "there is no operation `Reboot`"),
        (r#"{"op":"RunCommand","request":{"Nonsense":1}}"#, "bad request"),
        (r#"{"op":"DescribeInstances","request":{},"watch":true}"#, "there is no operation"),
    ] {
        let error = talk.say(line)["error"].take();
        assert_eq!(error["Code"], "InvalidRequest", "{line}: {error}");
        assert!(error["Message"].as_str().is_some_and(|text| text.contains(message)), "{error}");
    }

    let listed = talk.say(r#"{"op":"DescribeInstances","request":{}}"#);
    assert_eq!(listed["ok"]["Instances"]["Instance"][0]["InstanceId"], "local");

    let refused = talk
        .say(r#"{"op":"RunCommand","request":{"Type":"RunShellScript","CommandContent":"true"}}"#);
    assert_eq!(refused["error"]["Violations"][0]["Code"], "MissingParam.InstanceId", "{refused}");
    assert_eq!(refused["error"]["HttpStatus"], 400);

    let request = json!({"op": "RunCommand", "watch": true, "request": {
        "Type": "RunShellScript", "CommandContent": "echo hi", "InstanceId": ["local"]}});
    let accepted = talk.say(&request.to_string());
    assert!(accepted["ok"]["InvokeId"].is_string(), "{accepted}");
    let mut printed = String::new();
    let last = loop {
        let mut event = talk.hear()["event"].take();
        match event["Event"].as_str() {
            Some("Output") => printed.push_str(event["Bytes"].take().as_str().unwrap_or_default()),
            Some("Status") => {}
            _ => break event,
        }
    };
    assert_eq!(printed, "aGkK");
    assert_eq!(last, json!({"Event": "Finished", "Status": "Success"}));
    assert_eq!(talk.hear(), json!({"end": {}}));
    assert!(talk.say(r#"{"op":"DescribeCommands","request":{}}"#)["ok"].is_object());

    let mut long = Talk::new(&place);
    let refused = long.say(&"x".repeat(5 << 20));
    assert_eq!(refused["error"]["HttpStatus"], 413);

    gate.open();
    drop(talk);
    assert_eq!(run.end().code, Some(0));
}
