//! Databases, folders and files beside a database that belong to other users.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;
use std::time::Duration;

use adjutant::{Engine, Error};
use libtest_mimic::Trial;
use rustix::fs::XattrFlags;

use crate::harness::{Account, Host, Place, need_root, open_to, printed, run, script, trials};

pub fn trials() -> Vec<Trial> {
    need_root(trials![
        a_file_of_another_user_beside_the_database_is_refused,
        no_link_of_another_user_is_followed,
        a_database_or_a_folder_of_another_user_is_not_run,
        a_group_counts_as_others_unless_it_is_a_users_own,
        users_of_an_access_control_list_count_as_others,
        users_who_share_a_database_run_it_in_turn,
    ])
}

async fn refusal(database: &Path) -> Error {
    Engine::builder().path(database).open().await.expect_err("refused")
}

async fn open_and_close(database: &Path) {
    let engine = Engine::builder().path(database).open().await.expect("it opens");
    engine.shutdown(Duration::ZERO).await;
}

#[track_caller]
fn check_unsafe(error: &Error, path: &Path, want: &str) {
    assert_eq!(error.code(), "Storage.Unsafe", "{error}");
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    assert!(error.to_string().contains(&format!("`{}`", path.display())), "{error}");
    assert!(error.to_string().contains(want), "want `{want}` in: {error}");
}

/// Others may add files to a folder with the sticky bit.
async fn a_file_of_another_user_beside_the_database_is_refused() {
    let ann = Account::ann();
    let belongs = format!("belongs to `{}` (uid {}), mode ", ann.name, ann.uid);
    for suffix in [".lock", "-wal", "-shm", "-journal", ".sock", ".run", ".runs", ".outputs"] {
        for is_new in [false, true] {
            let place = Place::new();
            open_to(&place.path(""), 0o1777);
            if !is_new {
                open_and_close(&place.db()).await;
            }
            let planted = place.path(&format!("a.db{suffix}"));
            let _ = fs::remove_file(&planted);
            match suffix {
                ".run" | ".runs" | ".outputs" => fs::create_dir(&planted).expect("a folder"),
                _ => fs::write(&planted, "planted").expect("a file"),
            }
            ann.own(&planted);
            open_to(&planted, 0o700);
            let before = fs::symlink_metadata(&planted).expect("it is there");
            check_unsafe(&refusal(&place.db()).await, &planted, &belongs);
            let after = fs::symlink_metadata(&planted).expect("it is still there");
            assert_eq!(
                (after.ino(), after.len(), after.mtime_nsec()),
                (before.ino(), before.len(), before.mtime_nsec())
            );
            assert_eq!(place.db().exists(), !is_new, "{suffix}: no file is made");
        }
    }
}

async fn no_link_of_another_user_is_followed() {
    let ann = Account::ann();
    for suffix in [".lock", "-wal", "-shm", "-journal", ".sock", ".run", ".runs", ".outputs"] {
        let place = Place::new();
        open_and_close(&place.db()).await;
        let precious = place.path("precious");
        fs::create_dir(&precious).expect("a folder");
        fs::write(precious.join("1247"), "kept").expect("written");
        let target =
            if suffix.starts_with(".o") { precious.clone() } else { precious.join("1247") };
        let link = place.path(&format!("a.db{suffix}"));
        let _ = fs::remove_file(&link);
        symlink(&target, &link).expect("a link");
        std::os::unix::fs::lchown(&link, Some(ann.uid), Some(ann.gid)).expect("it is given away");
        open_to(&place.path(""), 0o1777);
        let error = refusal(&place.db()).await;
        assert_eq!(error.code(), "Storage.Unsafe", "{suffix}: {error}");
        assert!(error.to_string().contains(&ann.name), "{suffix}: {error}");
        assert_eq!(fs::read_to_string(precious.join("1247")).expect("there"), "kept", "{suffix}");
    }
}

async fn a_database_or_a_folder_of_another_user_is_not_run() {
    let ann = Account::ann();
    let belongs = format!("belongs to `{}`", ann.name);
    let place = Place::new();
    open_and_close(&place.db()).await;
    ann.own(&place.db());
    check_unsafe(&refusal(&place.db()).await, &place.db(), &belongs);
    // Root looks at the file of every user.
    let engine = Engine::builder().path(place.db()).read_only().open().await.expect("readable");
    engine.shutdown(Duration::ZERO).await;

    let place = Place::new();
    open_and_close(&place.db()).await;
    ann.own(&place.path(""));
    check_unsafe(&refusal(&place.db()).await, &place.path(""), &belongs);

    let place = Place::new();
    let own = place.path("own");
    fs::create_dir(&own).expect("a folder");
    ann.own(&place.path(""));
    check_unsafe(&refusal(&own.join("a.db")).await, &place.path(""), &belongs);
    // A file of root is as safe as a file of this user.
    let place = Place::new();
    let own = place.path("own");
    fs::create_dir(&own).expect("a folder");
    ann.own(&own);
    let mut host =
        Host::start_as(ann, &crate::host::Setup { database: own.join("a.db"), ..place.setup() });
    assert_eq!(printed(&host.finish(script("id -un"))).trim_end(), ann.name);
}

async fn a_group_counts_as_others_unless_it_is_a_users_own() {
    let (ann, bob) = (Account::ann(), Account::bob());
    let place = Place::new();
    open_and_close(&place.db()).await;
    for path in [place.path(""), place.db()] {
        let before = fs::metadata(&path).expect("it is there");
        chown(&path, None, Some(bob.gid)).expect("set");
        open_to(&path, before.mode() & 0o7777 | 0o020);
        check_unsafe(&refusal(&place.db()).await, &path, &format!("the group `{}`", bob.name));
        chown(&path, None, Some(before.gid())).expect("set");
        open_to(&path, before.mode() & 0o7777);
    }
    open_and_close(&place.db()).await;
    // With a umask of 002, as many systems have it, a user's own group may write.
    let own = place.path("own");
    fs::create_dir(&own).expect("a folder");
    ann.own(&own);
    open_to(&own, 0o775);
    let setup = || crate::host::Setup { database: own.join("a.db"), ..place.setup() };
    let mut host = Host::start_as(ann, &setup());
    assert_eq!(printed(&host.finish(script("id -un"))).trim_end(), ann.name);
    drop(host);
    open_to(&own.join("a.db"), 0o664);
    let mut host = Host::start_as(ann, &setup());
    assert_eq!(printed(&host.finish(script("id -un"))).trim_end(), ann.name);
}

async fn users_of_an_access_control_list_count_as_others() {
    let ann = Account::ann();
    let place = Place::new();
    open_and_close(&place.db()).await;
    // Version 2, then the tag, the rights and the number of each entry: owner, ann, group, mask, others.
    const NOBODY: u32 = u32::MAX;
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in [
        (0x01_u16, 6_u16, NOBODY),
        (0x02, 6, ann.uid),
        (0x04, 0, NOBODY),
        (0x10, 6, NOBODY),
        (0x20, 0, NOBODY),
    ] {
        list.extend(tag.to_le_bytes());
        list.extend(rights.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    let set =
        rustix::fs::setxattr(place.db(), "system.posix_acl_access", &list, XattrFlags::empty());
    if set == Err(rustix::io::Errno::OPNOTSUPP) {
        // This file system has no lists.
        return;
    }
    set.expect("a sound list");
    check_unsafe(&refusal(&place.db()).await, &place.db(), "users in its access control list");
}

/// A team has a group, a folder that the group may write to, and the host's word.
async fn users_who_share_a_database_run_it_in_turn() {
    let ann = Account::ann();
    let place = Place::new();
    let shared = place.path("shared");
    fs::create_dir(&shared).expect("a folder");
    chown(&shared, None, Some(ann.gid)).expect("set");
    open_to(&shared, 0o2770);
    let database = shared.join("a.db");
    fs::write(&database, "").expect("an empty file");
    chown(&database, None, Some(ann.gid)).expect("set");
    open_to(&database, 0o660);
    let open = async || {
        let builder = Engine::builder().path(&database).strict_modes(false);
        builder.open().await.expect("it opens")
    };
    let engine = open().await;
    for suffix in ["", ".lock", "-wal", "-shm"] {
        let found = fs::metadata(shared.join(format!("a.db{suffix}"))).expect("it is there");
        assert_eq!((found.gid(), found.mode() & 0o777), (ann.gid, 0o660), "{suffix}");
    }
    printed(&run(&engine, script("true")).await);
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    let setup =
        crate::host::Setup { database: database.clone(), is_lenient: true, ..place.setup() };
    printed(&Host::start_as(ann, &setup).finish(script("true")));
    open().await.shutdown(Duration::ZERO).await;
}
