//! The output of an execution that runs: one writer, any number of readers from any offset. Without
//! a watcher it keeps what the record will keep; with one, what that would drop waits in a spool,
//! so a slow reader loses nothing and holds nobody up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use super::spool::{Cursor, Spool, SpoolSpace};
use super::whole::WholeOutput;
use super::{BufferPlace, Output, OutputBuffer, Stream};
use crate::config::OutputQuota;
use crate::panics::tell;

/// What a reader finds at its offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// These bytes, of one stream.
    Bytes { stream: Stream, bytes: Vec<u8> },
    /// This many bytes were dropped.
    Gap(u64),
    /// Nothing yet.
    Wait,
    /// Nothing more.
    End,
}

/// The shared output of one execution. As there is one for each that runs, what only those need that print
/// comes with the first they print.
#[derive(Debug)]
pub(crate) struct LiveOutput {
    quota: OutputQuota,
    space: Arc<SpoolSpace>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    printed: Option<Box<Printed>>,
    watchers: Vec<Weak<Notify>>,
    closed: bool,
}

/// What an execution has printed.
#[derive(Debug)]
struct Printed {
    buffer: OutputBuffer,
    spool: SpoolState,
    /// All of it, if it is to be delivered.
    whole: Option<WholeOutput>,
}

#[derive(Debug)]
enum SpoolState {
    /// Nothing had to be spooled yet.
    Unused,
    Open(Spool),
    /// The space is used up: it can be read, and takes no more.
    Full(Spool),
    /// There was no place for one, or the disk failed; readers get gaps.
    Failed,
}

impl LiveOutput {
    pub(crate) fn new(
        quota: OutputQuota,
        space: Arc<SpoolSpace>,
        watchers: Vec<Weak<Notify>>,
    ) -> Arc<Self> {
        let state = State { printed: None, watchers, closed: false };
        Arc::new(Self { quota, space, state: Mutex::new(state) })
    }

    /// Has everything that comes from now on kept as well, until [`take_whole`](Self::take_whole).
    pub(crate) fn keep_whole(&self, whole: WholeOutput) {
        self.state().printed(self.quota).whole = Some(whole);
    }

    /// What was kept so.
    pub(crate) fn take_whole(&self) -> Option<WholeOutput> {
        self.state().printed.as_mut()?.whole.take()
    }

    /// Takes what the execution printed. Blocks no longer than a write to the page cache takes.
    pub(crate) fn append(&self, stream: Stream, bytes: &[u8]) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        let was_watched = !state.watchers.is_empty();
        state.watchers.retain(|watcher| watcher.strong_count() > 0);
        let is_watched = !state.watchers.is_empty();
        let printed = state.printed(self.quota);
        if let Some(whole) = &mut printed.whole {
            whole.append(bytes);
        }
        if is_watched {
            printed.spool(stream, bytes, &self.space);
        } else if was_watched {
            printed.spool = SpoolState::Unused;
        }
        printed.buffer.append(stream, bytes);
        state.notify();
    }

    /// Takes note of bytes that were lost on the way here.
    pub(crate) fn skip(&self, bytes: u64) {
        let mut state = self.state();
        if state.closed || bytes == 0 {
            return;
        }
        let printed = state.printed(self.quota);
        if let Some(whole) = &mut printed.whole {
            whole.skip(bytes);
        }
        let spool = std::mem::replace(&mut printed.spool, SpoolState::Failed);
        printed.spool = match spool {
            SpoolState::Open(spool) => SpoolState::Full(spool),
            other => other,
        };
        printed.buffer.skip(bytes);
        state.notify();
    }

    /// How much of it the record keeps.
    pub(crate) fn quota(&self) -> OutputQuota {
        self.quota
    }

    /// What the record would have now, and how much was printed so far.
    pub(crate) fn snapshot(&self) -> (Output, u64) {
        match &self.state().printed {
            Some(printed) => (printed.buffer.to_output(), printed.buffer.total),
            None => (Output::default(), 0),
        }
    }

    /// Lets `watcher` know of everything that comes from now on.
    pub(crate) fn watch(&self, watcher: &Arc<Notify>) {
        let watcher = Arc::downgrade(watcher);
        let mut state = self.state();
        if !state.watchers.iter().any(|known| known.ptr_eq(&watcher)) {
            state.watchers.push(watcher);
        }
    }

    /// Ends the output: the record's share of it, if there is anything.
    pub(crate) fn close(&self) -> Output {
        let mut state = self.state();
        state.closed = true;
        state.notify();
        state.printed.as_ref().map(|printed| printed.buffer.to_output()).unwrap_or_default()
    }

    /// How many are told of what comes.
    #[cfg(test)]
    pub(crate) fn watchers(&self) -> usize {
        self.state().watchers.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn printed(&mut self, quota: OutputQuota) -> &mut Printed {
        self.printed.get_or_insert_with(|| {
            let buffer = OutputBuffer::new(quota);
            Box::new(Printed { buffer, spool: SpoolState::Unused, whole: None })
        })
    }

    fn notify(&self) {
        for watcher in &self.watchers {
            if let Some(watcher) = watcher.upgrade() {
                watcher.notify_one();
            }
        }
    }
}

impl Printed {
    /// Puts aside what the buffer is about to drop.
    fn spool(&mut self, stream: Stream, bytes: &[u8], space: &Arc<SpoolSpace>) {
        let spool = std::mem::replace(&mut self.spool, SpoolState::Failed);
        self.spool = match spool {
            SpoolState::Unused if self.buffer.would_drop(bytes.len()) => {
                match self.spool_with_tail(space) {
                    Ok(Some(spool)) => append_to(spool, stream, bytes),
                    Ok(None) => SpoolState::Failed,
                    Err(error) => failed(&error),
                }
            }
            SpoolState::Open(spool) => append_to(spool, stream, bytes),
            other => other,
        };
    }

    /// A spool that begins with what the buffer's tail still holds.
    fn spool_with_tail(&self, space: &Arc<SpoolSpace>) -> std::io::Result<Option<Spool>> {
        let buffer = &self.buffer;
        let Some(mut spool) = Spool::new(buffer.tail_start(), space)? else {
            return Ok(None);
        };
        let mut from = 0;
        for &(stream, length) in &buffer.tail_runs {
            let bytes: Vec<u8> = buffer.tail.range(from..from + length).copied().collect();
            if !spool.append(stream, &bytes)? {
                return Ok(None);
            }
            from += length;
        }
        Ok(Some(spool))
    }
}

fn append_to(mut spool: Spool, stream: Stream, bytes: &[u8]) -> SpoolState {
    match spool.append(stream, bytes) {
        Ok(true) => SpoolState::Open(spool),
        Ok(false) => SpoolState::Full(spool),
        Err(error) => failed(&error),
    }
}

fn failed(error: &std::io::Error) -> SpoolState {
    tell(
        || tracing::warn!(%error, "watched output cannot be spooled; slow watchers will see gaps"),
    );
    SpoolState::Failed
}

/// One reader of a live output.
#[derive(Debug)]
pub(crate) struct Reader {
    live: Arc<LiveOutput>,
    offset: u64,
    place: BufferPlace,
    cursor: Cursor,
}

impl Reader {
    pub(crate) fn new(live: Arc<LiveOutput>, offset: u64) -> Self {
        Self { live, offset, place: BufferPlace::default(), cursor: Cursor::default() }
    }

    /// The next piece, at most `bytes_max` long.
    pub(crate) fn next(&mut self, bytes_max: usize) -> Piece {
        let piece = self.piece(bytes_max);
        let read = match &piece {
            Piece::Bytes { bytes, .. } => bytes.len() as u64,
            Piece::Gap(bytes) => *bytes,
            Piece::Wait | Piece::End => 0,
        };
        self.offset = self.offset.saturating_add(read);
        piece
    }

    fn piece(&mut self, bytes_max: usize) -> Piece {
        let (frames, kept) = {
            let state = self.live.state();
            let Some(printed) = &state.printed else {
                return if state.closed { Piece::End } else { Piece::Wait };
            };
            let kept = printed.buffer.piece_at(self.offset, bytes_max, &mut self.place);
            match (&kept, &printed.spool) {
                (Piece::End, _) if !state.closed => return Piece::Wait,
                (Piece::Gap(gap), SpoolState::Open(spool) | SpoolState::Full(spool)) => {
                    if !spool.holds(self.offset) {
                        return match spool.start().checked_sub(self.offset) {
                            Some(before) if before > 0 => Piece::Gap(before.min(*gap)),
                            _ => kept,
                        };
                    }
                    (spool.frames(), kept)
                }
                _ => return kept,
            }
        };
        // Read without the lock, so that the printing executor does not wait for the disk.
        match frames.read(self.offset, bytes_max, &mut self.cursor) {
            Ok((stream, bytes)) => Piece::Bytes { stream, bytes },
            Err(error) => {
                tell(|| tracing::warn!(%error, "spooled output cannot be read"));
                kept
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(spool_bytes_max: u64, watchers: Vec<Weak<Notify>>) -> Arc<LiveOutput> {
        let quota = OutputQuota { head_bytes_max: 4, tail_bytes_max: 8, spool_bytes_max };
        LiveOutput::new(quota, SpoolSpace::new(spool_bytes_max), watchers)
    }

    fn read_all(reader: &mut Reader) -> (Vec<u8>, u64) {
        let (mut read, mut missing) = (Vec::new(), 0);
        loop {
            match reader.next(7) {
                Piece::Bytes { bytes, .. } => read.extend(bytes),
                Piece::Gap(bytes) => missing += bytes,
                Piece::Wait | Piece::End => return (read, missing),
            }
        }
    }

    fn print(live: &LiveOutput, lines: std::ops::Range<usize>) -> Vec<u8> {
        let mut printed = Vec::new();
        for n in lines {
            let line = format!("line {n}\n");
            let stream = if n % 3 == 0 { Stream::Stderr } else { Stream::Stdout };
            live.append(stream, line.as_bytes());
            printed.extend(line.into_bytes());
        }
        printed
    }

    #[test]
    fn a_slow_watcher_loses_nothing() {
        let wake = Arc::new(Notify::new());
        let live = live(1 << 20, vec![Arc::downgrade(&wake)]);
        let mut early = Reader::new(live.clone(), 0);
        let mut printed = print(&live, 0..50);
        assert_eq!(read_all(&mut early), (printed.clone(), 0));
        printed.extend(print(&live, 50..100));
        let mut late = Reader::new(live.clone(), 100);
        live.close();
        assert_eq!(read_all(&mut late), (printed[100..].to_vec(), 0));
        assert_eq!(read_all(&mut early).0.len(), printed.len() - early_offset(&printed, 50));
        assert_eq!(early.next(1), Piece::End);
    }

    fn early_offset(printed: &[u8], lines: usize) -> usize {
        printed.split_inclusive(|b| *b == b'\n').take(lines).map(<[u8]>::len).sum()
    }

    #[test]
    fn what_nobody_watched_is_a_gap_of_exact_size() {
        let live = live(1 << 20, Vec::new());
        let printed = print(&live, 0..50);
        let (read, missing) = read_all(&mut Reader::new(live.clone(), 0));
        assert_eq!(read.len() as u64 + missing, printed.len() as u64);
        assert_eq!(read, [&printed[..4], &printed[printed.len() - 8..]].concat());

        let wake = Arc::new(Notify::new());
        live.watch(&wake);
        let more = print(&live, 50..90);
        let (read, missing) = read_all(&mut Reader::new(live, 0));
        assert_eq!(missing, printed.len() as u64 - 12);
        assert_eq!(read, [&printed[..4], &printed[printed.len() - 8..], &more].concat());
    }

    #[test]
    fn spools_share_their_space_and_give_it_back() {
        let wake = Arc::new(Notify::new());
        let space = SpoolSpace::new(1 << 20);
        let quota = OutputQuota { head_bytes_max: 4, tail_bytes_max: 8, spool_bytes_max: 0 };
        let outputs = |count| -> Vec<_> {
            let watchers = || vec![Arc::downgrade(&wake)];
            let outputs = (0..count).map(|_| LiveOutput::new(quota, space.clone(), watchers()));
            outputs.inspect(|output| drop(print(output, 0..50))).collect()
        };
        let missing = |output: &Arc<LiveOutput>| read_all(&mut Reader::new(output.clone(), 0)).1;
        let many = outputs(65);
        let gaps = many.iter().filter(|output| missing(output) > 0).count();
        assert_eq!(gaps, 1, "64 files at a time, and an exact gap for the rest");
        drop(many);
        assert_eq!(missing(&outputs(1)[0]), 0);
    }

    #[test]
    fn past_the_spools_limit_there_are_gaps() {
        let wake = Arc::new(Notify::new());
        let live = live(40, vec![Arc::downgrade(&wake)]);
        let printed = print(&live, 0..50);
        let (read, missing) = read_all(&mut Reader::new(live, 0));
        assert_eq!(read.len() as u64 + missing, printed.len() as u64);
        assert!(missing > 0);
        assert!(read.starts_with(&printed[..40]));
        assert!(read.ends_with(&printed[printed.len() - 8..]));
    }
}
