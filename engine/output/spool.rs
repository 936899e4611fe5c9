//! Output that waits on disk for a reader slower than the process that prints it: an unlinked file
//! of framed pieces, each with its stream. It exists only while somebody watches.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::Stream;

const HEADER_BYTES: usize = 5;
/// Files open at a time: descriptors are for what runs, and a watcher must not use them up.
const FILES_MAX: usize = 64;

/// What the spools of an engine may use, all together.
#[derive(Debug)]
pub(crate) struct SpoolSpace {
    files: AtomicUsize,
    bytes: AtomicU64,
}

impl SpoolSpace {
    pub(crate) fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { files: AtomicUsize::new(FILES_MAX), bytes: AtomicU64::new(bytes_max) })
    }

    fn take_file(&self) -> bool {
        let take = |left: usize| left.checked_sub(1);
        self.files.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    fn take_bytes(&self, bytes: u64) -> bool {
        let take = |left: u64| left.checked_sub(bytes);
        self.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }
}

/// The file, and which part of the output it holds.
#[derive(Debug)]
pub(super) struct Spool {
    file: Arc<File>,
    file_bytes: u64,
    start: u64,
    end: u64,
    space: Arc<SpoolSpace>,
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.space.files.fetch_add(1, Ordering::AcqRel);
        self.space.bytes.fetch_add(self.end - self.start, Ordering::AcqRel);
    }
}

/// Where a reader stands: the offset in the output, and the frame in the file that holds it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cursor {
    frame_at: u64,
    frame_start: u64,
}

impl Spool {
    /// A spool for output from `start` on; none if too many are open.
    pub(super) fn new(start: u64, space: &Arc<SpoolSpace>) -> io::Result<Option<Self>> {
        if !space.take_file() {
            return Ok(None);
        }
        let opened = tempfile::tempfile().inspect_err(|_| {
            space.files.fetch_add(1, Ordering::AcqRel);
        });
        let space = Arc::clone(space);
        Ok(Some(Self { file: Arc::new(opened?), file_bytes: 0, start, end: start, space }))
    }

    /// Whether the byte at `offset` of the output is here.
    pub(super) fn holds(&self, offset: u64) -> bool {
        (self.start..self.end).contains(&offset)
    }

    /// The first byte it holds.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Appends a piece; `Ok(false)` once the space is used up: then it takes no more.
    pub(super) fn append(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<bool> {
        if bytes.is_empty() {
            return Ok(true);
        }
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        if !self.space.take_bytes(u64::from(length)) {
            return Ok(false);
        }
        self.end += u64::from(length);
        let mut header = [0; HEADER_BYTES];
        header[0] = stream as u8;
        header[1..].copy_from_slice(&length.to_le_bytes());
        self.file.write_all_at(&header, self.file_bytes)?;
        self.file.write_all_at(bytes, self.file_bytes + HEADER_BYTES as u64)?;
        self.file_bytes += HEADER_BYTES as u64 + u64::from(length);
        Ok(true)
    }

    /// Returns the pieces of the spool, to be read while more is appended.
    pub(super) fn frames(&self) -> Frames {
        Frames { file: Arc::clone(&self.file), start: self.start }
    }
}

/// The pieces in a spool.
#[derive(Debug)]
pub(super) struct Frames {
    file: Arc<File>,
    start: u64,
}

impl Frames {
    /// Reads from `offset`, which the spool must hold, to the end of its piece.
    pub(super) fn read(
        &self,
        offset: u64,
        bytes_max: usize,
        cursor: &mut Cursor,
    ) -> io::Result<(Stream, Vec<u8>)> {
        if cursor.frame_start > offset || cursor.frame_start < self.start {
            *cursor = Cursor { frame_at: 0, frame_start: self.start };
        }
        loop {
            let mut header = [0; HEADER_BYTES];
            self.file.read_exact_at(&mut header, cursor.frame_at)?;
            let [kind, length @ ..] = header;
            let length = u64::from(u32::from_le_bytes(length));
            if offset >= cursor.frame_start + length {
                cursor.frame_at += HEADER_BYTES as u64 + length;
                cursor.frame_start += length;
                continue;
            }
            let skip = offset - cursor.frame_start;
            let wanted = usize::try_from(length - skip).unwrap_or(usize::MAX).min(bytes_max);
            let mut bytes = vec![0; wanted];
            self.file.read_exact_at(&mut bytes, cursor.frame_at + HEADER_BYTES as u64 + skip)?;
            let stream = if kind == Stream::Stdout as u8 { Stream::Stdout } else { Stream::Stderr };
            return Ok((stream, bytes));
        }
    }
}
