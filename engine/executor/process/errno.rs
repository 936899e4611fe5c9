//! Errors of system calls as people search for them: by name.

use std::io;

use rustix::io::Errno;

/// `error` in words, led by the name of its number if it has one that runs meet.
pub(super) fn describe(error: &io::Error) -> String {
    match Errno::from_io_error(error).and_then(name) {
        Some(name) => format!("{name}: {error}"),
        None => error.to_string(),
    }
}

fn name(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::TOOBIG => "E2BIG",
        Errno::ACCESS => "EACCES",
        Errno::AGAIN => "EAGAIN",
        Errno::CHILD => "ECHILD",
        Errno::DQUOT => "EDQUOT",
        Errno::EXIST => "EEXIST",
        Errno::FBIG => "EFBIG",
        Errno::INVAL => "EINVAL",
        Errno::IO => "EIO",
        Errno::ISDIR => "EISDIR",
        Errno::LOOP => "ELOOP",
        Errno::MFILE => "EMFILE",
        Errno::NAMETOOLONG => "ENAMETOOLONG",
        Errno::NFILE => "ENFILE",
        Errno::NOENT => "ENOENT",
        Errno::NOEXEC => "ENOEXEC",
        Errno::NOMEM => "ENOMEM",
        Errno::NOSPC => "ENOSPC",
        Errno::NOSYS => "ENOSYS",
        Errno::NOTDIR => "ENOTDIR",
        Errno::PERM => "EPERM",
        Errno::ROFS => "EROFS",
        Errno::SRCH => "ESRCH",
        Errno::TXTBSY => "ETXTBSY",
        _ => return None,
    })
}
