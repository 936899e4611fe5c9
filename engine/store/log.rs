//! The log beside a database file (SQLite's WAL), and the index of it in the memory that all connections share, as
//! SQLite documents both. The end of the log and the validity of its frames follow SQLite's rules.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

/// Returns the length in bytes of a log with this many frames.
pub(super) fn bytes_of(frames: u32, page_bytes: u64) -> u64 {
    match frames {
        0 => 0,
        frames => {
            HEADER_BYTES as u64 + u64::from(frames) * (FRAME_HEADER_BYTES as u64 + page_bytes)
        }
    }
}

/// Returns the number of frames that fit in a log of this length.
pub(super) fn frames_in(bytes: u64, page_bytes: u64) -> u32 {
    let frames =
        bytes.saturating_sub(HEADER_BYTES as u64) / (FRAME_HEADER_BYTES as u64 + page_bytes);
    u32::try_from(frames).unwrap_or(u32::MAX)
}

/// Two numbers that distinguish the frames of a log from frames of the log before it in the same file.
type Salts = [u8; 8];
/// The checksum of a log from its beginning up to a frame.
type Sum = [u32; 2];

/// Reads a number in the byte order of SQLite's files.
pub(super) fn big_endian(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

/// Adds bytes to a checksum, as words in the byte order of the log.
fn add(sum: Sum, bytes: &[u8], is_big_endian: bool) -> Sum {
    let (mut first, mut second) = (sum[0], sum[1]);
    let (words, _) = bytes.as_chunks::<4>();
    let (pairs, _) = words.as_chunks::<2>();
    for [even, odd] in pairs {
        let word = |bytes: [u8; 4]| match is_big_endian {
            true => u32::from_be_bytes(bytes),
            false => u32::from_le_bytes(bytes),
        };
        first = first.wrapping_add(word(*even)).wrapping_add(second);
        second = second.wrapping_add(word(*odd)).wrapping_add(first);
    }
    [first, second]
}

fn salts_of(bytes: &[u8]) -> Salts {
    let mut salts = Salts::default();
    salts.copy_from_slice(bytes);
    salts
}

/// The header of a log.
struct Header {
    page_bytes: usize,
    is_big_endian: bool,
    salts: Salts,
    sum: Sum,
}

impl Header {
    /// Reads a header. Returns `None` if SQLite would ignore such a log.
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        const MAGIC: u32 = 0x377f_0682;
        let magic = big_endian(bytes, 0);
        let is_big_endian = magic & 1 == 1;
        let page_bytes = big_endian(bytes, 8) as usize;
        let sum = add([0, 0], &bytes[..24], is_big_endian);
        let is_sound = magic & !1 == MAGIC
            && page_bytes.is_power_of_two()
            && (512..=65_536).contains(&page_bytes)
            && sum == [big_endian(bytes, 24), big_endian(bytes, 28)];
        is_sound.then(|| Self { page_bytes, is_big_endian, salts: salts_of(&bytes[16..24]), sum })
    }
}

/// Returns the values that `pick` makes of pages that committed transactions of a log have written, each with the
/// number of its transaction, from 0 on. `pick` gets the number of a page and its bytes.
///
/// Frames behind the last commit are left out. So are frames of an earlier log or an earlier transaction behind the
/// end of this log, because their salts differ, or the checksum of all frames before them does.
pub(super) fn committed<T>(
    log: &File,
    mut pick: impl FnMut(u32, &[u8]) -> Option<T>,
) -> io::Result<Vec<(T, usize)>> {
    let mut log = BufReader::with_capacity(1 << 16, log);
    log.rewind()?;
    let mut header = [0; HEADER_BYTES];
    if !read_whole(&mut log, &mut header)? {
        return Ok(Vec::new());
    }
    let Some(header) = Header::parse(&header) else { return Ok(Vec::new()) };
    let mut frame = vec![0; FRAME_HEADER_BYTES + header.page_bytes];
    let (mut sum, mut transaction) = (header.sum, 0);
    let (mut committed, mut uncommitted) = (Vec::new(), Vec::new());
    while read_whole(&mut log, &mut frame)? {
        let (head, page) = frame.split_at(FRAME_HEADER_BYTES);
        sum = add(sum, &head[..8], header.is_big_endian);
        sum = add(sum, page, header.is_big_endian);
        let (number, is_commit) = (big_endian(head, 0), big_endian(head, 4) != 0);
        let is_valid = number != 0
            && head[8..16] == header.salts
            && sum == [big_endian(head, 16), big_endian(head, 20)];
        if !is_valid {
            break;
        }
        uncommitted.extend(pick(number, page).map(|picked| (picked, transaction)));
        if is_commit {
            committed.append(&mut uncommitted);
            transaction += 1;
        }
    }
    Ok(committed)
}

/// Reads until `bytes` is full. Returns false if the file ends before.
fn read_whole(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

fn read_whole_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<bool> {
    match file.read_exact_at(bytes, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

/// Returns whether SQLite would read on behind `end`: the frame there has the salts of this log.
pub(super) fn goes_on(log: &File, end: u64) -> io::Result<bool> {
    let (mut salts, mut next) = (Salts::default(), Salts::default());
    let frame = end.max(HEADER_BYTES as u64);
    Ok(read_whole_at(log, &mut salts, 16)?
        && read_whole_at(log, &mut next, frame + 8)?
        && salts == next)
}

/// The index of a log, in the memory that connections share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Index {
    /// Frames of committed transactions.
    pub frames: u32,
    /// Pages of the database after the last of these frames.
    pub pages: u32,
    sum: Sum,
    /// How far the log has been copied into the file.
    pub copied: Copied,
}

/// How far a log has been copied into its file. A connection that writes to the file changes this first, or has
/// announced here that it is about to copy more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copied {
    salts: Salts,
    frames: u32,
    attempted: u32,
}

impl Copied {
    /// Returns whether a checkpoint is under way, or was cut off.
    pub(super) fn is_under_way(self) -> bool {
        self.attempted > self.frames
    }

    /// Returns whether all of so many frames have been copied.
    pub(super) fn is_of(self, frames: u32) -> bool {
        self.frames == frames
    }

    /// Returns whether the log has begun anew once since `before`, and nothing of it has been copied. SQLite adds one
    /// to the first salt each time that a log begins anew.
    pub(super) fn begins_after(self, before: Self) -> bool {
        let first = |salts: Salts| u32::from_be_bytes([salts[0], salts[1], salts[2], salts[3]]);
        (self.frames, self.attempted) == (0, 0)
            && first(self.salts) == first(before.salts).wrapping_add(1)
    }
}

impl Index {
    /// Reads the index from the file of the shared memory. Returns `None` if the index is being written at
    /// this moment.
    pub(super) fn read(shared: &File) -> io::Result<Option<Self>> {
        const HEADER_BYTES: usize = 48;
        const BYTES: usize = 132;
        let mut bytes = [0; BYTES];
        shared.read_exact_at(&mut bytes, 0)?;
        if bytes[..HEADER_BYTES] != bytes[HEADER_BYTES..2 * HEADER_BYTES] {
            return Ok(None);
        }
        // The numbers of the index are in the byte order of this machine. The salts have the bytes of the log.
        let number = |at: usize| {
            let mut number = [0; 4];
            number.copy_from_slice(&bytes[at..at + 4]);
            u32::from_ne_bytes(number)
        };
        Ok(Some(Self {
            frames: number(16),
            pages: number(20),
            sum: [number(24), number(28)],
            copied: Copied {
                salts: salts_of(&bytes[32..40]),
                frames: number(96),
                attempted: number(128),
            },
        }))
    }

    /// Returns whether a file is the log of this index, up to its last commit.
    pub(super) fn is_of(&self, log: &File, page_bytes: u64) -> io::Result<bool> {
        if self.frames == 0 {
            // The next commit overwrites the whole log, whatever its bytes are.
            return Ok(true);
        }
        let (mut salts, mut last) = (Salts::default(), [0; FRAME_HEADER_BYTES]);
        let at = bytes_of(self.frames, page_bytes) - FRAME_HEADER_BYTES as u64 - page_bytes;
        Ok(read_whole_at(log, &mut salts, 16)?
            && read_whole_at(log, &mut last, at)?
            && salts == self.copied.salts
            && last[8..16] == self.copied.salts
            && [big_endian(&last, 16), big_endian(&last, 20)] == self.sum)
    }

    /// Returns whether a file has the page that was copied into it last; `None` if that cannot be told.
    ///
    /// A checkpoint leaves out a page that has a later frame, so a page with a later frame tells nothing.
    pub(super) fn is_copied_into(
        &self,
        file: impl Fn(&mut [u8], u64) -> io::Result<()>,
        log: &File,
        page_bytes: u64,
    ) -> io::Result<Option<bool>> {
        const LATER_MAX: u32 = 1_024;
        let last = self.copied.frames;
        if last == 0 || self.copied.is_under_way() || self.frames.saturating_sub(last) > LATER_MAX {
            return Ok(None);
        }
        let at = |frame: u32| bytes_of(frame, page_bytes) - FRAME_HEADER_BYTES as u64 - page_bytes;
        let page_of = |frame: u32| -> io::Result<u32> {
            let mut header = [0; FRAME_HEADER_BYTES];
            log.read_exact_at(&mut header, at(frame))?;
            Ok(if header[8..16] == self.copied.salts { big_endian(&header, 0) } else { 0 })
        };
        let page = page_of(last)?;
        if page == 0 || page > self.pages {
            return Ok(None);
        }
        for later in last + 1..=self.frames {
            if page_of(later)? == page {
                return Ok(None);
            }
        }
        let mut want = vec![0; usize::try_from(page_bytes).unwrap_or_default()];
        let mut found = want.clone();
        log.read_exact_at(&mut want, at(last) + FRAME_HEADER_BYTES as u64)?;
        file(&mut found, u64::from(page - 1) * page_bytes)?;
        Ok(Some(want == found))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::path::Path;

    use rusqlite::Connection;

    use super::*;
    use crate::files::beside;

    fn writer(path: &Path) -> Connection {
        let writer = Connection::open(path).expect("a file");
        writer
            .execute_batch("PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0")
            .expect("sound SQL");
        writer
    }

    fn visited(log: &File) -> Vec<(u32, usize)> {
        committed(log, |number, _| Some(number)).expect("readable")
    }

    #[test]
    fn a_log_that_begins_anew_is_told_from_a_log_that_another_program_has_copied() {
        let at = |salts, frames, attempted| Copied { salts, frames, attempted };
        let before = at([0, 0, 1, 255, 9, 9, 9, 9], 40, 40);
        let next = [0, 0, 2, 0, 7, 7, 7, 7];
        let check = |now: Copied, want: bool| assert_eq!(now.begins_after(before), want, "{now:?}");
        check(at(next, 0, 0), true);
        check(at(next, 3, 3), false);
        check(at(next, 0, 3), false);
        check(at([0, 0, 2, 1, 7, 7, 7, 7], 0, 0), false);
        check(before, false);
    }

    #[test]
    fn frames_are_valid_as_sqlite_has_them_and_none_behind_the_last_commit() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        let writer = writer(&path);
        let transactions = ["CREATE TABLE t (x)", "INSERT INTO t VALUES (1)"];
        transactions.iter().for_each(|sql| writer.execute_batch(sql).expect("sound SQL"));
        let log = OpenOptions::new().read(true).write(true).open(beside(&path, "-wal"));
        let log = log.expect("it is there");
        let page_bytes = 4_096;
        let open = || log.try_clone().expect("a descriptor");
        let reread = || visited(&File::open(beside(&path, "-wal")).expect("it is there"));
        let want = vec![(1, 0), (2, 0), (2, 1)];
        assert_eq!(reread(), want);
        let length = log.metadata().expect("it is there").len();
        assert_eq!(length, bytes_of(3, page_bytes));
        assert_eq!(frames_in(length, page_bytes), 3);

        // A frame with the salts of this log, but without the checksum of the frames before it.
        let mut stale = vec![0; FRAME_HEADER_BYTES + page_bytes as usize];
        log.read_exact_at(&mut stale, bytes_of(2, page_bytes)).expect("a frame");
        log.write_all_at(&stale, length).expect("written");
        assert!(goes_on(&open(), length).expect("readable"));
        assert_eq!(reread(), want);
        // A frame whose bytes have changed. No frame from there on is valid.
        log.write_all_at(&[7], bytes_of(1, page_bytes) + 100).expect("written");
        assert_eq!(reread(), []);
        log.set_len(20).expect("cut");
        assert_eq!(reread(), []);
    }

    #[test]
    fn the_index_tells_who_has_copied_a_log_and_whose_log_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        let writer = writer(&path);
        writer.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").expect("sound SQL");
        let shared = File::open(beside(&path, "-shm")).expect("it is there");
        let log = File::open(beside(&path, "-wal")).expect("it is there");
        let index = || Index::read(&shared).expect("readable").expect("nobody writes");
        let begun = index();
        assert_eq!((begun.frames, begun.copied.frames, begun.copied.attempted), (3, 0, 0));
        assert!(begun.is_of(&log, 4_096).expect("readable"));
        let checkpoint = |mode: &str| {
            let sql = format!("PRAGMA wal_checkpoint({mode})");
            let busy: i64 = writer.query_row(&sql, (), |row| row.get(0)).expect("a checkpoint");
            assert_eq!(busy, 0);
            index()
        };
        let passive = checkpoint("PASSIVE");
        assert_eq!(passive.copied, Copied { frames: 3, attempted: 3, ..begun.copied });
        assert_eq!(passive.copied, checkpoint("RESTART").copied);
        writer.execute_batch("INSERT INTO t VALUES (2)").expect("sound SQL");
        let anew = index();
        assert_ne!(anew.copied.salts, begun.copied.salts);
        assert_eq!((anew.frames, anew.copied.frames), (1, 0));
        assert!(anew.is_of(&log, 4_096).expect("readable"));
        assert!(!begun.is_of(&log, 4_096).expect("readable"));
        let cut = checkpoint("TRUNCATE");
        assert_eq!((cut.frames, cut.copied.frames), (0, 0));
        assert!(cut.is_of(&log, 4_096).expect("readable"));
        writer.execute_batch("INSERT INTO t VALUES (3)").expect("sound SQL");
        assert!(index().is_of(&log, 4_096).expect("readable"));
        std::fs::write(beside(&path, "-wal"), "").expect("written");
        assert!(!index().is_of(&log, 4_096).expect("readable"));
    }
}
