//! Output that waits on disk for a reader slower than the process that prints it: an unlinked file
//! of framed pieces, each with its stream. It exists only while somebody watches.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Stream;

const HEADER_BYTES: usize = 5;

/// The file, and which part of the output it holds.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    file_bytes: u64,
    start: u64,
    end: u64,
    /// No more than this many bytes of output.
    bytes_max: u64,
}

/// Where a reader stands: the offset in the output, and the frame in the file that holds it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cursor {
    frame_at: u64,
    frame_start: u64,
}

impl Spool {
    pub(super) fn new(start: u64, bytes_max: u64) -> io::Result<Self> {
        let file = tempfile::tempfile()?;
        Ok(Self { file, file_bytes: 0, start, end: start, bytes_max })
    }

    /// Whether the byte at `offset` of the output is here.
    pub(super) fn holds(&self, offset: u64) -> bool {
        (self.start..self.end).contains(&offset)
    }

    /// The first byte it holds.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Appends a piece; `Ok(false)` once the limit is reached: then it takes no more.
    pub(super) fn append(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<bool> {
        if bytes.is_empty() {
            return Ok(true);
        }
        if self.end - self.start + bytes.len() as u64 > self.bytes_max {
            return Ok(false);
        }
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut header = [0; HEADER_BYTES];
        header[0] = stream as u8;
        header[1..].copy_from_slice(&length.to_le_bytes());
        self.file.write_all_at(&header, self.file_bytes)?;
        self.file.write_all_at(bytes, self.file_bytes + HEADER_BYTES as u64)?;
        self.file_bytes += HEADER_BYTES as u64 + u64::from(length);
        self.end += u64::from(length);
        Ok(true)
    }

    /// Reads from `offset`, which it must hold, to the end of its piece.
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
