//! Files that other users could change. Files of other users are in `tests/processes/strangers.rs`, which needs root.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use adjutant::{Engine, Error, RunCommand};

use crate::support::{Place, within};

fn beside(place: &Place, suffix: &str) -> PathBuf {
    place.folder().join(format!("adjutant.db{suffix}"))
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is this user's");
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it is there").mode() & 0o7777
}

/// Returns the names and contents of the files in a folder, and the modes of all entries.
fn contents(folder: &Path) -> Vec<(PathBuf, u32, Option<Vec<u8>>)> {
    let entries = fs::read_dir(folder).expect("it is there");
    let paths = entries.map(|entry| entry.expect("a name").path());
    let mut all: Vec<_> =
        paths.map(|path| (path.clone(), mode(&path), fs::read(&path).ok())).collect();
    all.sort();
    all
}

async fn refusal(place: &Place) -> Error {
    within(Engine::open(place.database())).await.expect_err("refused")
}

async fn open_and_close(place: &Place, is_strict: bool) {
    let engine = Engine::builder().path(place.database()).strict_modes(is_strict);
    let engine = within(engine.open()).await.expect("it opens");
    engine.shutdown(Duration::ZERO).await;
}

/// The paths are relative to the folder of the database.
#[tokio::test]
async fn what_others_can_write_is_refused_before_any_file_is_touched() {
    let check = async |name: &str, wrong: u32, want: &str| {
        let place = Place::new();
        open_and_close(&place, true).await;
        let path = place.folder().join(name);
        let before = fs::metadata(&path).map(|found| found.mode() & 0o7777).ok();
        match name.ends_with(".run") || name.ends_with(".runs") || name.ends_with(".outputs") {
            true => fs::create_dir(&path).expect("a folder"),
            false if before.is_none() => fs::write(&path, "").expect("a file"),
            false => {}
        }
        set_mode(&path, wrong);
        let files = contents(place.folder());
        let error = refusal(&place).await;
        assert_eq!(error.code(), "Storage.Unsafe", "{name}: {error}");
        let shown = path.canonicalize().expect("it is there");
        for want in [want, &format!("`{}`", shown.display()), &format!("mode {wrong:04o}")] {
            assert!(error.to_string().contains(want), "{name}: {want}: {error}");
        }
        assert!(error.to_string().contains("chmod go-w"), "{error}");
        assert_eq!(contents(place.folder()), files, "{name}");
        // An engine that only reads runs nothing.
        let looks = Engine::builder().path(place.database()).read_only();
        within(looks.open()).await.expect("it can be read").shutdown(Duration::ZERO).await;
        // The host may allow it by name, and the remedy in the error works.
        open_and_close(&place, false).await;
        if path.exists() {
            set_mode(&path, wrong & !0o022);
        }
        // The lock has taken the mode of the file.
        set_mode(&beside(&place, ".lock"), 0o600);
        open_and_close(&place, true).await;
    };
    let everybody = "can be written by every user";
    check("", 0o777, everybody).await;
    check("", 0o703, everybody).await;
    check("adjutant.db", 0o666, everybody).await;
    check("adjutant.db", 0o602, everybody).await;
    check("adjutant.db.lock", 0o666, everybody).await;
    check("adjutant.db-wal", 0o646, everybody).await;
    check("adjutant.db-shm", 0o646, everybody).await;
    check("adjutant.db-journal", 0o602, everybody).await;
    check("adjutant.db.outputs", 0o777, everybody).await;
    check("adjutant.db.run", 0o733, everybody).await;
    check("adjutant.db.runs", 0o777, everybody).await;
}

#[tokio::test]
async fn a_folder_above_that_others_can_write_to_is_refused() {
    let place = Place::new();
    let above = place.folder().join("above");
    fs::create_dir_all(above.join("own")).expect("folders");
    let database = above.join("own/adjutant.db");
    let open = async || within(Engine::open(&database)).await;
    set_mode(&above, 0o777);
    let error = open().await.expect_err("others could replace the folder").to_string();
    let above_is = above.canonicalize().expect("it is there");
    assert!(error.contains(&format!("`{}` can be written by", above_is.display())), "{error}");
    assert_eq!(fs::read_dir(above.join("own")).expect("it is there").count(), 0);
    // With the sticky bit others can add files, and replace none.
    set_mode(&above, 0o1777);
    open().await.expect("as in /tmp").shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_folder_with_the_sticky_bit_keeps_files_of_this_user() {
    let place = Place::new();
    set_mode(place.folder(), 0o1777);
    for _ in 0..2 {
        let engine = place.open().await;
        let run = engine.run_command(RunCommand::shell("exit:0").on(["i-1"])).await;
        engine.wait(&run.expect("sound").invoke_id).await.expect("it ends");
        engine.shutdown(Duration::ZERO).await;
    }
    assert!(!beside(&place, "-journal").exists(), "the name was held for the opening only");
    // A transaction of another program that was cut off: its journal is this user's, and nothing is lost.
    fs::write(beside(&place, "-journal"), "").expect("written");
    open_and_close(&place, true).await;
}

#[tokio::test]
async fn no_folder_beside_the_file_is_a_link_or_a_file() {
    for suffix in [".outputs", ".run", ".runs"] {
        let place = Place::new();
        open_and_close(&place, true).await;
        let precious = place.folder().join("precious");
        fs::create_dir(&precious).expect("a folder");
        fs::write(precious.join("1247"), "kept").expect("written");
        let path = beside(&place, suffix);
        let check = async |want: &str| {
            let error = refusal(&place).await;
            assert_eq!(error.code(), "Storage.InTheWay", "{suffix}: {error}");
            assert!(error.to_string().contains(want), "{suffix}: {error}");
            fs::remove_file(&path).expect("it is still there");
        };
        symlink(&precious, &path).expect("a link");
        check("it is a link").await;
        symlink(place.folder().join("never"), &path).expect("a link");
        check("it is a link").await;
        fs::write(&path, "").expect("written");
        check("it is no folder").await;
        assert_eq!(fs::read_to_string(precious.join("1247")).expect("there"), "kept");
        open_and_close(&place, true).await;
    }
}

#[tokio::test]
async fn files_beside_the_database_have_its_mode() {
    for wanted in [0o600, 0o640, 0o644] {
        let place = Place::new();
        open_and_close(&place, true).await;
        set_mode(&place.database(), wanted);
        let engine = place.open().await;
        for suffix in ["", ".lock", "-wal", "-shm"] {
            assert_eq!(mode(&beside(&place, suffix)), wanted, "{suffix}");
        }
        engine.shutdown(Duration::ZERO).await;
    }
    let place = Place::new();
    open_and_close(&place, true).await;
    assert_eq!(mode(&place.database()), 0o600, "a new file is this user's alone");
}
