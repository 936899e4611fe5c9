//! The promises about dependencies: their licences, their source, the Rust version that they need, their number. The
//! tests read the lock file and the manifests that a build has downloaded, so that they need no network.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Licences under which a dependency may be used.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];
/// Crates without the name of a licence in their manifest. Only tests and benches use them.
const LICENCE_IN_A_FILE: &[&str] = &["saffron"];
/// The source of all crates.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// The largest number of crates in the library's default build, without the library.
const CRATES_MAX: usize = 68;
/// Crates of which the default build of the library and the program has two versions: rusqlite and ratatui do not agree
/// on a hashbrown, and the macros of clap and crossterm do not agree on a syn.
const TWICE: &[&str] = &["hashbrown", "syn"];

/// A crate of the build.
struct Package {
    name: String,
    version: String,
    licence: Option<String>,
    source: Option<String>,
    rust_version: Option<String>,
}

/// The packages of the workspace on this platform.
struct Build {
    packages: BTreeMap<String, Package>,
    /// The crates that a crate is built with, without tests and build scripts.
    uses: BTreeMap<String, Vec<String>>,
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn printed(command: &mut Command) -> String {
    let out = command.output().expect("the command starts");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8")
}

/// Returns the build with the features of these tests, or with the default features.
fn build(with_features: bool) -> Build {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = printed(Command::new(rustc).arg("-vV"));
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("a platform");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", host]);
    if with_features && cfg!(feature = "object-store") {
        cargo.arg("--all-features");
    }
    let metadata: Value = serde_json::from_str(&printed(&mut cargo)).expect("JSON");
    let packages = list(&metadata["packages"]).iter().map(|package| {
        let of = Package {
            name: text(&package["name"]).expect("a name"),
            version: text(&package["version"]).expect("a version"),
            licence: text(&package["license"]),
            source: text(&package["source"]),
            rust_version: text(&package["rust_version"]),
        };
        (text(&package["id"]).expect("an id"), of)
    });
    let uses = list(&metadata["resolve"]["nodes"]).iter().map(|node| {
        let is_normal =
            |used: &&Value| list(&used["dep_kinds"]).iter().any(|of| of["kind"].is_null());
        let used = list(&node["deps"]).iter().filter(is_normal);
        let used = used.map(|used| text(&used["pkg"]).expect("an id")).collect();
        (text(&node["id"]).expect("an id"), used)
    });
    Build { packages: packages.collect(), uses: uses.collect() }
}

impl Build {
    /// Returns the crates that a member of the workspace is built with, and itself.
    fn of(&self, member: &str) -> BTreeSet<&str> {
        let is_member =
            |(_, package): &(&String, &Package)| package.name == member && package.source.is_none();
        let (id, _) = self.packages.iter().find(is_member).expect("a member");
        let (mut found, mut next) = (BTreeSet::new(), vec![id.as_str()]);
        while let Some(id) = next.pop() {
            if found.insert(id) {
                next.extend(self.uses[id].iter().map(String::as_str));
            }
        }
        found
    }
}

/// Returns the first two numbers of a version of Rust. Later numbers are those of corrections.
fn release(version: &str) -> Vec<u64> {
    version.split('.').take(2).map(|part| part.parse().expect("a number")).collect()
}

/// Returns whether an expression of SPDX, or of the older form with slashes, can be met with [`LICENCES`].
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let allowed = any_of(&words, &mut at);
    assert_eq!(at, words.len(), "{expression} is read to its end");
    allowed
}

fn any_of(words: &[&str], at: &mut usize) -> bool {
    let mut allowed = all_of(words, at);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        allowed |= all_of(words, at);
    }
    allowed
}

fn all_of(words: &[&str], at: &mut usize) -> bool {
    let mut allowed = one(words, at);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        allowed &= one(words, at);
    }
    allowed
}

fn one(words: &[&str], at: &mut usize) -> bool {
    let word = words[*at];
    *at += 1;
    if word == "(" {
        let allowed = any_of(words, at);
        assert_eq!(words.get(*at), Some(&")"), "a closing bracket");
        *at += 1;
        return allowed;
    }
    if words.get(*at) == Some(&"WITH") {
        // An exception only adds rights.
        *at += 2;
    }
    LICENCES.contains(&word)
}

#[test]
fn licences_are_read_with_their_operators() {
    for (expression, allowed) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("MIT AND (GPL-3.0 OR ISC)", true),
        ("(GPL-3.0 OR AGPL-3.0) AND ISC", false),
        ("Apache-2.0 WITH LLVM-exception", true),
    ] {
        assert_eq!(is_allowed(expression), allowed, "{expression}");
    }
}

#[test]
fn each_dependency_has_a_permissive_licence_and_comes_from_the_registry() {
    let build = build(true);
    let mut wrong = Vec::new();
    for Package { name, version, licence, source, .. } in build.packages.values() {
        match licence {
            Some(licence) if is_allowed(licence) => {}
            None if LICENCE_IN_A_FILE.contains(&name.as_str()) => {}
            licence => wrong.push(format!("{name} {version}: licence {licence:?}")),
        }
        match source.as_deref() {
            Some(REGISTRY) => {}
            None if name.starts_with("adjutant") => {}
            source => wrong.push(format!("{name} {version}: source {source:?}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_dependency_needs_a_newer_rust_than_this_workspace_says() {
    let build = build(true);
    let ours = release(env!("CARGO_PKG_RUST_VERSION"));
    let newer = |package: &&Package| {
        package.rust_version.as_deref().is_some_and(|needs| release(needs) > ours)
    };
    let newer = build.packages.values().filter(newer);
    let newer: Vec<_> =
        newer.map(|of| format!("{} {}: {:?}", of.name, of.version, of.rust_version)).collect();
    assert!(newer.is_empty(), "{newer:#?}");
}

#[test]
fn the_default_build_is_small_and_has_no_crate_twice() {
    let build = build(false);
    let library = build.of("adjutant");
    let count = library.len() - 1;
    assert!(count <= CRATES_MAX, "{count} crates; want at most {CRATES_MAX}");
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for id in library.union(&build.of("adjutant-cli")) {
        let package = &build.packages[*id];
        versions.entry(&package.name).or_default().push(&package.version);
    }
    versions.retain(|name, versions| versions.len() > 1 && !TWICE.contains(name));
    assert!(versions.is_empty(), "{versions:#?}");
}
