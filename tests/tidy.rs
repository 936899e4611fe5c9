//! The mechanical rules of ARCHITECTURE.md, as a test: who imports whom, where SQL, clocks and tasks
//! may appear, and that what was released stays as it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The modules of the library, layer by layer. A module imports from layers below its own only.
const LAYERS: [&[&str]; 9] = [
    &["id", "clock", "files", "operation", "panics", "schedule", "status", "text"],
    &["limits", "error", "metrics", "wire"],
    &["config", "ending", "given"],
    &["instance", "command", "invocation", "execution", "output", "overview", "secret", "tag"],
    &["authorizer", "store", "executor", "gate", "sink", "event"],
    &["dispatcher", "deliverer", "recovery", "scheduler"],
    &["engine"],
    &["tencent"],
    &["control"],
];

/// Within this layer modules may use each other: the nouns refer to one another.
const NOUNS: usize = 3;

/// Migrations that have been released: they never change again.
const RELEASED: [(&str, &str); 0] = [];

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the project") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("UTF-8");
                found.push((path.strip_prefix(root).expect("inside").to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has sources");
    found.sort();
    found
}

/// The module that a file of the library belongs to: `store` for `engine/store/writer.rs`.
fn module(path: &Path) -> String {
    let name = path.components().nth(1).expect("engine/<module>").as_os_str().to_string_lossy();
    name.trim_end_matches(".rs").to_owned()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// What lies before the unit tests of a file; nothing, if it holds only those.
fn code<'a>(path: &Path, text: &'a str) -> &'a str {
    if path.ends_with("tests.rs") {
        return "";
    }
    let tests = "#[cfg(test)]\nmod tests {";
    text.split(tests).next().unwrap_or_default()
}

#[test]
fn modules_import_downwards_only() {
    let mut wrong = Vec::new();
    for (path, text) in sources("engine") {
        let user = module(&path);
        if user == "lib" {
            continue;
        }
        let Some(user_layer) = layer(&user) else {
            wrong.push(format!("{}: module `{user}` has no layer", path.display()));
            continue;
        };
        for (number, line) in code(&path, &text).lines().enumerate() {
            // A document may lead anywhere.
            if line.trim_start().starts_with("//") {
                continue;
            }
            for used in line.split("crate::").skip(1) {
                let used: String =
                    used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let allowed = used == user
                    || layer(&used).is_some_and(|used_layer| {
                        used_layer < user_layer || (used_layer == user_layer && user_layer == NOUNS)
                    });
                if !allowed && used.starts_with(char::is_lowercase) {
                    wrong.push(format!("{}:{}: imports {used}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_module_list_is_in_layer_order() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lib = fs::read_to_string(root.join("engine/lib.rs")).expect("UTF-8");
    let listed =
        lib.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
    let layers: Vec<_> = listed.map(|name| layer(name.trim_end_matches(';'))).collect();
    assert_eq!(layers.len(), LAYERS.iter().map(|modules| modules.len()).sum::<usize>());
    assert!(layers.is_sorted(), "{layers:?}");
}

#[test]
fn things_have_their_place() {
    /// A word, the files that may hold it, and why.
    const RULES: [(&[&str], &[&str], &str); 9] = [
        (
            &["unsafe ", "unsafe{", "allow(unsafe_code)"],
            &["engine/executor/process/kernel.rs"],
            "what no safe crate offers is in one place",
        ),
        (
            &["rusqlite"],
            // The library names it once, for hosts with tables of their own.
            &["engine/store.rs", "engine/store", "engine/lib.rs"],
            "SQL is spoken in store only",
        ),
        (
            &["prepare_cached("],
            // The files that look after the database file, and a host's own statements, have no transaction.
            &[
                "engine/store/tx.rs",
                "engine/store/connection.rs",
                "engine/store/custody.rs",
                "engine/store/host.rs",
                "engine/store/upkeep.rs",
                "engine/store/plans.rs",
            ],
            "a statement of a table is prepared by its transaction",
        ),
        (
            &["thread_local!"],
            // SQLite calls the hook of the log without a value of the engine's.
            &[
                "engine/store/upkeep.rs",
                "engine/store/plans.rs",
                "engine/executor/process/pipes.rs",
            ],
            "a transaction carries what its thread remembers",
        ),
        (
            &["Instant::now", "SystemTime::now", "Utc::now", "time::sleep", "Uuid::now"],
            // What the kernel does takes real time, whatever the clock of the engine says.
            &[
                "engine/clock.rs",
                "engine/store/writer.rs",
                "engine/store/upkeep.rs",
                "engine/executor/process",
                "engine/control/server.rs",
            ],
            "time comes from the clock",
        ),
        (
            &["tokio::spawn", "JoinSet"],
            &[
                "engine/dispatcher.rs",
                "engine/dispatcher/run.rs",
                "engine/dispatcher/steps.rs",
                "engine/deliverer.rs",
                "engine/engine.rs",
                "engine/scheduler/questions.rs",
                "engine/control/server.rs",
            ],
            "every task has an owner",
        ),
        (
            &["unbounded_channel", "mpsc::unbounded"],
            // One message for each execution that runs.
            &["engine/dispatcher.rs"],
            "every queue has a limit",
        ),
        (&["unwrap()"], &[], "say why it cannot fail, or return the error"),
        (&["todo!", "unimplemented!", "dbg!", "println!", "eprintln!"], &[], "not in a library"),
    ];
    let mut wrong = Vec::new();
    for (path, text) in sources("engine") {
        for (words, allowed, why) in RULES {
            if allowed.iter().any(|place| path.starts_with(place)) {
                continue;
            }
            for word in words {
                let found = code(&path, &text)
                    .lines()
                    .position(|line| line.contains(word) && !line.trim_start().starts_with("//"));
                if let Some(number) = found {
                    wrong.push(format!("{}:{}: {word}: {why}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Returns Rust code with spaces in the place of comments, strings and characters; its length stays the same.
fn bare(code: &str) -> String {
    let mut bare = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let is_raw = rest.starts_with("r\"") || rest.starts_with("r#\"");
        let is_part_of_name = bare.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let end = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if is_raw && !is_part_of_name {
            let close = if rest.starts_with("r#") { "\"#" } else { "\"" };
            let opened = close.len() + 1;
            rest[opened..].find(close).map_or(rest.len(), |at| opened + at + close.len())
        } else if first == '"' {
            let mut is_escaped = false;
            let close = rest.char_indices().skip(1).find(|(_, c)| {
                let closes = *c == '"' && !is_escaped;
                is_escaped = *c == '\\' && !is_escaped;
                closes
            });
            close.map_or(rest.len(), |(at, _)| at + 1)
        } else if rest.starts_with("'\\") {
            rest[3..].find('\'').map_or(rest.len(), |at| 3 + at + 1)
        } else if first == '\'' && rest.chars().nth(2) == Some('\'') {
            2 + rest[1..].chars().next().map_or(0, char::len_utf8)
        } else {
            bare.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        bare.extend(rest[..end].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        rest = &rest[end..];
    }
    bare
}

/// Returns whether the code after `before` is among the arguments of `tell` or `contain`.
fn is_contained(before: &str) -> bool {
    let mut closed = 0_usize;
    for (at, c) in before.char_indices().rev() {
        match c {
            ')' | '}' | ']' => closed += 1,
            '(' | '{' | '[' if closed > 0 => closed -= 1,
            '(' => {
                let called = before[..at].rsplit(|c: char| !(c.is_alphanumeric() || c == '_'));
                if called.take(1).any(|name| ["tell", "contain"].contains(&name)) {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

/// Returns the lines on which code of the library calls a subscriber without containing its panics.
fn bare_events(code: &str) -> Vec<usize> {
    let code = bare(code);
    let line = |at: usize| code[..at].matches('\n').count() + 1;
    let events = code.match_indices("tracing::").filter(|&(at, path)| {
        let name = code[at + path.len()..].split(|c: char| !(c.is_alphanumeric() || c == '_'));
        let name = name.take(1).collect::<String>();
        let is_macro = code[at + path.len() + name.len()..].starts_with('!');
        // Macros are called by their path, so that this test finds them.
        let is_harmless = !is_macro && ["Span", "Instrument", "instrument"].contains(&&*name);
        !is_harmless && !is_contained(&code[..at])
    });
    events.map(|(at, _)| line(at)).collect()
}

#[test]
fn a_subscriber_that_panics_is_contained_wherever_it_is_called() {
    let check = |code: &str, want: &[usize]| assert_eq!(bare_events(code), want, "{code}");
    check("tell(|| tracing::warn!(a, \"b\"));", &[]);
    check("tell(|| {\n  tracing::warn!(%error, \"(\");\n  tracing::info!(\"b\");\n});", &[]);
    check("let span = panics::contain(|| { tracing::info_span!(\"a\") });", &[]);
    check("use tracing::Span; use tracing::instrument::Instrumented;", &[]);
    check("// tracing::warn!\n/// `tracing::warn!`\nlet a = \"tracing::warn!\";", &[]);
    check("fn a() {\n    tracing::warn!(\"b\");\n}", &[2]);
    check("tell(|| a());\nif a {\n    tracing::error!(\"b\");\n}", &[3]);
    check("tell(|| a(')', '\\'', b\"(\", r#\"(\"(\"#));\ntracing::error!(\"b\");", &[2]);
    check("foretell(|| tracing::debug!(\"a\"));", &[1]);
    check("use tracing::warn;\nuse tracing::{info, Span};", &[1, 2]);
    let mut wrong = Vec::new();
    for (path, text) in sources("engine") {
        let lines = bare_events(code(&path, &text));
        wrong.extend(lines.iter().map(|line| format!("{}:{line}", path.display())));
    }
    assert!(wrong.is_empty(), "an event is not inside `tell` or `contain`: {wrong:#?}");
}

#[test]
fn tests_do_not_sleep() {
    let mut wrong = Vec::new();
    for (path, text) in ["engine", "tests", "cli"].into_iter().flat_map(sources) {
        let tested = if path.starts_with("tests") || path.to_string_lossy().contains("tests") {
            text.as_str()
        } else {
            text.split_once("#[cfg(test)]").map_or("", |(_, tests)| tests)
        };
        if path.ends_with("tidy.rs") {
            continue;
        }
        for word in ["thread::sleep", "time::sleep", "#[ignore"] {
            if tested.contains(word) {
                wrong.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn released_migrations_never_change() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(root).expect("the folder of migrations") {
        let path = entry.expect("an entry").path();
        let hash: String = Sha256::digest(fs::read(&path).expect("readable"))
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        files.insert(path.file_name().expect("a name").to_string_lossy().into_owned(), hash);
    }
    for (number, name) in files.keys().enumerate() {
        assert!(name.starts_with(&format!("{:04}_", number + 1)), "{name} is out of order");
    }
    for (name, hash) in RELEASED {
        assert_eq!(files.get(name).map(String::as_str), Some(hash), "{name} was released");
    }
}

/// Returns names that a migration after the first must not give, because a host may have them.
fn unreserved(sql: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in sql.lines().map(str::trim_start) {
        let Some(rest) = line.strip_prefix("CREATE ") else { continue };
        let mut words = rest.split(|c: char| c.is_whitespace() || c == '(');
        let kinds = ["TABLE", "INDEX", "VIEW", "TRIGGER"];
        let name = words.by_ref().find(|word| kinds.contains(word)).and(words.next());
        let name = name.unwrap_or_default();
        if !name.starts_with("adjutant_") {
            found.push(name.to_owned());
        }
    }
    found
}

#[test]
fn names_that_a_later_migration_adds_are_reserved() {
    let sample = "CREATE TABLE adjutant_a (\n    id INTEGER\n) STRICT;\nCREATE TABLE b (x);
        CREATE UNIQUE INDEX c ON adjutant_a (id);\nCREATE INDEX adjutant_d ON b (x);";
    assert_eq!(unreserved(sample), ["b", "c"]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    for entry in fs::read_dir(root).expect("the folder of migrations") {
        let path = entry.expect("an entry").path();
        if !path.ends_with("0001_initial.sql") {
            let sql = fs::read_to_string(&path).expect("UTF-8");
            assert_eq!(unreserved(&sql), [""; 0], "{}", path.display());
        }
    }
}

#[test]
fn the_layers_in_the_document_are_those_here() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("engine/ARCHITECTURE.md")).expect("UTF-8");
    for (number, modules) in LAYERS.iter().enumerate() {
        let line = format!("{number}  {}", modules.join(" · "));
        assert!(document.contains(&line), "ARCHITECTURE.md lacks `{line}`");
    }
}
