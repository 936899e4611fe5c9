//! Sees every connection an engine opens, however well it hides them: what durability they really had,
//! and in runs of equal durability, that they keep SQLite's own `synchronous`, which is FULL.
//!
//! The functions are declared here because each engine links another version of SQLite; these have been
//! the same in all of them.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

#[repr(C)]
struct Db {
    _opaque: [u8; 0],
}

type Entry = unsafe extern "C" fn(*mut Db, *mut *mut c_char, *const c_void) -> c_int;
type Authorizer = unsafe extern "C" fn(
    *mut c_void,
    c_int,
    *const c_char,
    *const c_char,
    *const c_char,
    *const c_char,
) -> c_int;
type Trace = unsafe extern "C" fn(c_uint, *mut c_void, *mut c_void, *mut c_void) -> c_int;
type Row = unsafe extern "C" fn(*mut c_void, c_int, *mut *mut c_char, *mut *mut c_char) -> c_int;

unsafe extern "C" {
    fn sqlite3_auto_extension(entry: Option<Entry>) -> c_int;
    fn sqlite3_set_authorizer(db: *mut Db, f: Option<Authorizer>, context: *mut c_void) -> c_int;
    fn sqlite3_trace_v2(
        db: *mut Db,
        events: c_uint,
        f: Option<Trace>,
        context: *mut c_void,
    ) -> c_int;
    fn sqlite3_exec(
        db: *mut Db,
        sql: *const c_char,
        row: Option<Row>,
        context: *mut c_void,
        error: *mut *mut c_char,
    ) -> c_int;
    fn sqlite3_total_changes(db: *mut Db) -> c_int;
    fn sqlite3_open(path: *const c_char, db: *mut *mut Db) -> c_int;
    fn sqlite3_busy_timeout(db: *mut Db, milliseconds: c_int) -> c_int;
    fn sqlite3_close(db: *mut Db) -> c_int;
}

const OK: c_int = 0;
/// Of an authorizer: the statement is compiled, and does nothing.
const IGNORE: c_int = 2;
/// To an authorizer: a PRAGMA, with its name and its argument.
const PRAGMA: c_int = 19;
const TRACE_CLOSE: c_uint = 0x08;
/// For the end of a checkpoint: the last connection to close writes one.
const BUSY_MS: c_int = 5_000;

struct Seen {
    open: usize,
    /// Rows written, by the `synchronous` they were written with.
    rows: BTreeMap<String, u64>,
}

static SEEN: Mutex<Seen> = Mutex::new(Seen { open: 0, rows: BTreeMap::new() });
static CLOSED: Condvar = Condvar::new();
static KEEP_FULL: AtomicBool = AtomicBool::new(false);

fn seen() -> MutexGuard<'static, Seen> {
    SEEN.lock().expect("nobody panics with it")
}

/// Watches all connections from now on. With `keep_full`, `PRAGMA synchronous = …` has no effect on them.
pub fn watch(keep_full: bool) {
    KEEP_FULL.store(keep_full, Ordering::Relaxed);
    // SAFETY: `opened` has the type of an extension's entry point, and lives as long as the program.
    let code = unsafe { sqlite3_auto_extension(Some(opened)) };
    assert_eq!(code, OK, "SQLite takes the extension");
}

/// What was written with which `synchronous`, once all connections are closed; those that are not within
/// `patience` stay unread.
pub fn synchronous(patience: Duration) -> Vec<(String, u64)> {
    let (seen, _) = CLOSED
        .wait_timeout_while(seen(), patience, |seen| seen.open > 0)
        .expect("nobody panics with it");
    seen.rows.clone().into_iter().collect()
}

/// Creates the file with a write-ahead log, which stays with it.
pub fn create_with_wal(file: &Path) -> Result<(), String> {
    let mode = query(file, c"PRAGMA journal_mode = wal")?;
    if mode == "wal" { Ok(()) } else { Err(format!("{} is in mode {mode}", file.display())) }
}

pub fn journal_mode(file: &Path) -> Result<String, String> {
    query(file, c"PRAGMA journal_mode")
}

fn query(file: &Path, sql: &CStr) -> Result<String, String> {
    let path = CString::new(file.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    let mut db = ptr::null_mut();
    // SAFETY: both arguments outlive the call; the connection is used by this thread only, and closed.
    let text = unsafe {
        let mut text = None;
        if sqlite3_open(path.as_ptr(), &raw mut db) == OK {
            sqlite3_busy_timeout(db, BUSY_MS);
            text = first_text(db, sql);
        }
        sqlite3_close(db);
        text
    };
    text.ok_or_else(|| format!("{sql:?} has no answer from {}", file.display()))
}

unsafe extern "C" fn opened(db: *mut Db, _: *mut *mut c_char, _: *const c_void) -> c_int {
    // SAFETY: SQLite passes a connection that no other thread has yet; both functions live as long as the
    // program.
    unsafe {
        if KEEP_FULL.load(Ordering::Relaxed) {
            sqlite3_set_authorizer(db, Some(ignore_synchronous), ptr::null_mut());
        }
        sqlite3_trace_v2(db, TRACE_CLOSE, Some(closing), ptr::null_mut());
    }
    seen().open += 1;
    OK
}

unsafe extern "C" fn ignore_synchronous(
    _: *mut c_void,
    action: c_int,
    name: *const c_char,
    argument: *const c_char,
    _: *const c_char,
    _: *const c_char,
) -> c_int {
    if action != PRAGMA || name.is_null() || argument.is_null() {
        return OK;
    }
    // SAFETY: SQLite passes the name of the PRAGMA, which ends with a zero.
    let name = unsafe { CStr::from_ptr(name) };
    if name.to_bytes().eq_ignore_ascii_case(b"synchronous") { IGNORE } else { OK }
}

/// On the thread that closes the connection, while it can still be asked.
unsafe extern "C" fn closing(_: c_uint, _: *mut c_void, db: *mut c_void, _: *mut c_void) -> c_int {
    let db = db.cast::<Db>();
    // SAFETY: SQLite passes the connection, whole yet. A close that is refused must not be told again.
    let (rows, level) = unsafe {
        sqlite3_trace_v2(db, 0, None, ptr::null_mut());
        (sqlite3_total_changes(db), first_text(db, c"PRAGMA synchronous"))
    };
    let level = match level.as_deref() {
        Some("0") => "OFF",
        Some("1") => "NORMAL",
        Some("2") => "FULL",
        Some("3") => "EXTRA",
        _ => "unread",
    };
    let mut seen = seen();
    if rows > 0 {
        *seen.rows.entry(level.to_owned()).or_default() += rows.unsigned_abs() as u64;
    }
    seen.open -= 1;
    CLOSED.notify_all();
    OK
}

/// # Safety
///
/// `db` is an open connection that no other thread uses.
unsafe fn first_text(db: *mut Db, sql: &CStr) -> Option<String> {
    unsafe extern "C" fn keep(
        kept: *mut c_void,
        columns: c_int,
        texts: *mut *mut c_char,
        _: *mut *mut c_char,
    ) -> c_int {
        // SAFETY: `kept` is the option below; SQLite passes as many texts as columns, or nulls.
        unsafe {
            if columns > 0 && !(*texts).is_null() {
                let text = CStr::from_ptr(*texts).to_string_lossy().into_owned();
                *kept.cast::<Option<String>>() = Some(text);
            }
        }
        OK
    }
    let mut kept: Option<String> = None;
    // SAFETY: the caller vouches for the connection; `kept` outlives the call.
    let code = unsafe {
        sqlite3_exec(db, sql.as_ptr(), Some(keep), (&raw mut kept).cast(), ptr::null_mut())
    };
    kept.filter(|_| code == OK)
}
