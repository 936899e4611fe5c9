//! Laws, whatever the script and the values: filling in never panics; what comes of it is the script
//! with each placeholder replaced once by its value as it is, and nothing else changed; its length
//! is what the check of its size had it to be.
#![no_main]

use adjutant::{InstanceId, Limits, Parameters, PreviewCommand};
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

/// A piece of a script: random bytes alone seldom make a placeholder.
#[derive(Debug, Arbitrary)]
enum Piece {
    Bytes(Vec<u8>),
    Named { name: u8, large: bool, spaces: u8 },
    BuiltIn(u8),
}

#[derive(Debug, Arbitrary)]
struct Case {
    script: Vec<Piece>,
    values: Vec<(u8, String)>,
    defaults: Vec<(u8, String)>,
    /// A pair with any name.
    odd: Option<(String, String)>,
    instance_id: Option<String>,
}

const BUILT_IN: [&str; 7] =
    ["RegionId", "AccountId", "InstanceId", "InstanceName", "InvokeId", "CommandId", "Nothing"];

fn name(number: u8) -> String {
    format!("p-{}", number % 12)
}

fn script(pieces: &[Piece]) -> Vec<u8> {
    let mut script = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) => script.extend(bytes),
            Piece::Named { name: number, large, spaces } => {
                let name = name(*number);
                let name = if *large { name.to_uppercase() } else { name };
                let spaces = " ".repeat(usize::from(spaces % 4));
                script.extend(format!("{{{{{spaces}{name}{spaces}}}}}").bytes());
            }
            Piece::BuiltIn(number) => {
                let name = BUILT_IN[usize::from(*number) % BUILT_IN.len()];
                script.extend(format!("{{{{ACS::{name}}}}}").bytes());
            }
        }
    }
    script
}

fn pairs(given: &[(u8, String)]) -> Vec<(String, String)> {
    given.iter().map(|(number, value)| (name(*number), value.clone())).collect()
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// The finished text, done once more in the simplest way.
fn filled_in(mut script: &[u8], value: impl Fn(&str) -> String) -> Vec<u8> {
    let mut text = Vec::new();
    while let Some(open) = find(script, b"{{") {
        let Some(len) = find(&script[open + 2..], b"}}") else { break };
        let inner = std::str::from_utf8(&script[open + 2..open + 2 + len]).expect("it was taken");
        text.extend(&script[..open]);
        text.extend(value(inner.trim_ascii()).bytes());
        script = &script[open + 2 + len + 2..];
    }
    text.extend(script);
    text
}

fuzz_target!(|case: Case| {
    let script = script(&case.script);
    let mut given = pairs(&case.values);
    given.extend(case.odd.clone());
    let given = Parameters::from_iter(given);
    let defaults = Parameters::from_iter(pairs(&case.defaults));
    let mut request = PreviewCommand::script(&script);
    request.parameters = given.clone();
    request.default_parameters = defaults.clone();
    request.instance_id = case.instance_id.clone().map(InstanceId::from);
    let mut limits = Limits::default();
    let Ok(text) = request.fill_in(&limits) else { return };

    let value = |name: &str| match name.to_ascii_lowercase().as_str() {
        "acs::instanceid" => case.instance_id.clone().unwrap_or_default(),
        "acs::invokeid" => format!("t-{:032}", 0),
        "acs::commandid" => format!("c-{:032}", 0),
        built_in if built_in.starts_with("acs::") => String::new(),
        name => given.get(name).or_else(|| defaults.get(name)).unwrap_or_default().to_owned(),
    };
    assert_eq!(text.as_bytes(), filled_in(&script, value));

    // What is one byte too long is refused, and nothing shorter.
    let (before, after) = (script.len(), text.as_bytes().len());
    limits.unkept_content_bytes_max = before.max(after);
    assert_eq!(request.fill_in(&limits).expect("it fits"), text);
    if after > before {
        limits.unkept_content_bytes_max = after - 1;
        let error = request.fill_in(&limits).expect_err("it is too long");
        assert_eq!(error.code(), "CmdContent.ExceedLimit");
    }
});
