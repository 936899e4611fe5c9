//! Outputs of executions: the part that the record keeps, and the live view.

mod delivery;
mod live;
mod spool;
mod whole;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::config::OutputQuota;

pub use delivery::DeliveryStatus;
pub(crate) use delivery::{Delivery, INTERRUPTED, TIMED_OUT};
pub(crate) use live::{LiveOutput, Piece, Reader};
pub(crate) use spool::SpoolSpace;
pub(crate) use whole::{WholeOutput, WholeOutputs};

/// The two streams of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

/// Neighbouring bytes of an output that came from one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct OutputStretch {
    /// Where they came from.
    pub stream: Stream,
    /// How many they are.
    pub bytes: usize,
}

/// What the record keeps of an output: its beginning and its end, both streams in the order they
/// arrived, and the exact number of bytes between.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    runs: Runs,
    gap: Option<Gap>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gap {
    at: usize,
    bytes: u64,
}

impl Output {
    /// Returns an output of its parts: bytes, their stretches, and a gap as its place in the bytes and the number of
    /// bytes left out; `None` if the parts do not fit one another.
    pub(crate) fn from_parts(bytes: Vec<u8>, runs: Runs, gap: Option<(u64, u64)>) -> Option<Self> {
        let gap = match gap {
            Some((at, left_out)) => Some(Gap { at: usize::try_from(at).ok()?, bytes: left_out }),
            None => None,
        };
        let gap_fits = gap.is_none_or(|gap| gap.at <= bytes.len() && gap.bytes > 0);
        (gap_fits && runs.cover(bytes.len())).then_some(Self { bytes, runs, gap })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn runs(&self) -> &Runs {
        &self.runs
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.gap.is_none()
    }

    /// Bytes that were left out.
    pub(crate) fn dropped(&self) -> u64 {
        self.gap.map_or(0, |gap| gap.bytes)
    }

    /// The length of the part before the bytes that were left out.
    pub(crate) fn gap_at(&self) -> Option<u64> {
        self.gap.map(|gap| gap.at as u64)
    }

    /// Returns the piece at `offset` of the whole output: `Gap` if it was left out, `End` past the end. `place` comes
    /// from the piece before; it saves a look through all earlier stretches.
    pub(crate) fn piece_at(&self, offset: u64, bytes_max: usize, place: &mut Place) -> Piece {
        let (gap_at, gap_bytes) =
            self.gap.map_or((self.bytes.len() as u64, 0), |gap| (gap.at as u64, gap.bytes));
        let gap_end = gap_at.saturating_add(gap_bytes);
        let index = if offset < gap_at {
            offset
        } else if offset < gap_end {
            return Piece::Gap(gap_end - offset);
        } else {
            offset - gap_bytes
        };
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let Some((stream, run_end)) = self.runs.find(index, place) else { return Piece::End };
        let mut end = run_end.min(index.saturating_add(bytes_max));
        if offset < gap_at {
            end = end.min(usize::try_from(gap_at).unwrap_or(usize::MAX));
        }
        match self.bytes.get(index..end.min(self.bytes.len())) {
            Some(bytes) if !bytes.is_empty() => Piece::Bytes { stream, bytes: bytes.to_vec() },
            _ => Piece::End,
        }
    }
}

/// Where a reader of an output stands among its stretches.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place {
    run: usize,
    /// The index at which this stretch begins.
    start: usize,
}

/// Which stretches of some bytes came from which stream: lengths in turn, standard output first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Runs(Vec<usize>);

impl Runs {
    fn push(&mut self, stream: Stream, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let parity = stream as usize;
        if self.0.is_empty() && parity == 1 {
            self.0.push(0);
        }
        if self.0.len() % 2 == 1 - parity && !self.0.is_empty() {
            *self.0.last_mut().expect("not empty, as just seen") += bytes;
        } else {
            self.0.push(bytes);
        }
    }

    /// Returns the stream of the byte at `index` and the end of its stretch. The search begins at `place`.
    fn find(&self, index: usize, place: &mut Place) -> Option<(Stream, usize)> {
        if index < place.start {
            *place = Place::default();
        }
        loop {
            let end = place.start.saturating_add(*self.0.get(place.run)?);
            if index < end {
                let stream =
                    if place.run.is_multiple_of(2) { Stream::Stdout } else { Stream::Stderr };
                return Some((stream, end));
            }
            if place.run + 1 == self.0.len() {
                // `place` stays here, because the last stretch may grow.
                return None;
            }
            *place = Place { run: place.run + 1, start: end };
        }
    }

    /// Returns whether the lengths of the stretches add up to `bytes`.
    fn cover(&self, bytes: usize) -> bool {
        let sum = self.0.iter().try_fold(0usize, |sum, length| sum.checked_add(*length));
        sum == Some(bytes)
    }

    /// Returns its parts, in order.
    pub(crate) fn stretches(&self) -> impl Iterator<Item = OutputStretch> {
        let streams = [Stream::Stdout, Stream::Stderr].into_iter().cycle();
        let stretches = self.0.iter().zip(streams);
        // Only the first can be empty: where standard error came first.
        stretches
            .filter(|(bytes, _)| **bytes > 0)
            .map(|(&bytes, stream)| OutputStretch { stream, bytes })
    }

    /// The compact form that is stored: each length in LEB128.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * 2);
        for &length in &self.0 {
            let mut rest = length;
            while rest >= 0x80 {
                bytes.push((rest & 0x7f) as u8 | 0x80);
                rest >>= 7;
            }
            bytes.push(rest as u8);
        }
        bytes
    }

    /// Reads the stored form; `None` if it is not one.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut lengths = Vec::new();
        let (mut length, mut shift) = (0usize, 0u32);
        for &byte in bytes {
            let bits = usize::from(byte & 0x7f);
            length = length.checked_add(bits.checked_shl(shift).filter(|v| v >> shift == bits)?)?;
            if byte & 0x80 == 0 {
                lengths.push(length);
                (length, shift) = (0, 0);
            } else {
                shift += 7;
            }
        }
        (shift == 0).then_some(Self(lengths))
    }
}

/// Collects an output within its quota: memory stays the same whatever is appended.
#[derive(Debug)]
struct OutputBuffer {
    quota: OutputQuota,
    head: Vec<u8>,
    head_runs: Runs,
    tail: VecDeque<u8>,
    tail_runs: VecDeque<(Stream, usize)>,
    /// The number of stretches that the tail has dropped.
    tail_runs_gone: u64,
    total: u64,
}

/// Where a reader of a buffer stands among its stretches.
#[derive(Debug, Clone, Copy, Default)]
struct BufferPlace {
    head: Place,
    /// A stretch of the tail, counted from the first stretch that the tail ever had, and the offset in the output at
    /// which the stretch begins.
    tail_run: u64,
    tail_start: u64,
}

impl OutputBuffer {
    fn new(quota: OutputQuota) -> Self {
        Self {
            quota,
            head: Vec::new(),
            head_runs: Runs::default(),
            tail: VecDeque::new(),
            tail_runs: VecDeque::new(),
            tail_runs_gone: 0,
            total: 0,
        }
    }

    fn append(&mut self, stream: Stream, mut bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = (self.quota.head_bytes_max - self.head.len()).min(bytes.len());
        if room > 0 {
            self.head.extend_from_slice(&bytes[..room]);
            self.head_runs.push(stream, room);
            bytes = &bytes[room..];
        }
        // Of a piece longer than the tail only its end can stay.
        let tail_max = self.quota.tail_bytes_max;
        bytes = &bytes[bytes.len().saturating_sub(tail_max)..];
        self.forget(self.tail.len().saturating_add(bytes.len()).saturating_sub(tail_max));
        if bytes.is_empty() {
            return;
        }
        self.tail.extend(bytes);
        match self.tail_runs.back_mut() {
            Some((last, length)) if *last == stream => *length += bytes.len(),
            _ => self.tail_runs.push_back((stream, bytes.len())),
        }
    }

    /// Whether `more` bytes would push others out.
    fn would_drop(&self, more: usize) -> bool {
        let head_room = self.quota.head_bytes_max - self.head.len();
        more > head_room.saturating_add(self.quota.tail_bytes_max - self.tail.len())
    }

    /// The offset of the first byte of the tail.
    fn tail_start(&self) -> u64 {
        self.total - self.tail.len() as u64
    }

    /// Takes note of bytes that were lost before they came here. What follows the beginning is left out
    /// up to them: there is one gap in an output.
    fn skip(&mut self, bytes: u64) {
        self.quota.head_bytes_max = self.head.len();
        self.tail.clear();
        self.tail_runs_gone += self.tail_runs.len() as u64;
        self.tail_runs.clear();
        self.total += bytes;
    }

    fn forget(&mut self, mut bytes: usize) {
        self.tail.drain(..bytes);
        while bytes > 0 {
            let Some((_, length)) = self.tail_runs.front_mut() else { return };
            if *length > bytes {
                *length -= bytes;
                return;
            }
            bytes -= *length;
            self.tail_runs.pop_front();
            self.tail_runs_gone += 1;
        }
    }

    /// Returns the piece at `offset`: `Gap` if it was dropped, `End` at the end of the output so far. `place` comes
    /// from the piece before.
    fn piece_at(&self, offset: u64, bytes_max: usize, place: &mut BufferPlace) -> Piece {
        if offset >= self.total {
            return Piece::End;
        }
        if offset < self.head.len() as u64 {
            let from = offset as usize;
            let Some((stream, run_end)) = self.head_runs.find(from, &mut place.head) else {
                return Piece::End;
            };
            let end = run_end.min(from.saturating_add(bytes_max));
            return Piece::Bytes { stream, bytes: self.head[from..end].to_vec() };
        }
        let tail_start = self.tail_start();
        if offset < tail_start {
            return Piece::Gap(tail_start - offset);
        }
        if place.tail_run <= self.tail_runs_gone || place.tail_start > offset {
            (place.tail_run, place.tail_start) = (self.tail_runs_gone, tail_start);
        }
        let run = usize::try_from(place.tail_run - self.tail_runs_gone).unwrap_or(usize::MAX);
        for &(stream, length) in self.tail_runs.range(run.min(self.tail_runs.len())..) {
            let run_end = place.tail_start + length as u64;
            if offset < run_end {
                let from = (offset - tail_start) as usize;
                let end = ((run_end - tail_start) as usize).min(from.saturating_add(bytes_max));
                return Piece::Bytes {
                    stream,
                    bytes: self.tail.range(from..end).copied().collect(),
                };
            }
            place.tail_run += 1;
            place.tail_start = run_end;
        }
        Piece::End
    }

    fn to_output(&self) -> Output {
        let mut bytes = Vec::with_capacity(self.head.len() + self.tail.len());
        bytes.extend_from_slice(&self.head);
        bytes.extend(&self.tail);
        let mut runs = self.head_runs.clone();
        for &(stream, length) in &self.tail_runs {
            runs.push(stream, length);
        }
        let dropped = self.total - bytes.len() as u64;
        let gap = (dropped > 0).then_some(Gap { at: self.head.len(), bytes: dropped });
        Output { bytes, runs, gap }
    }
}

#[cfg(test)]
mod tests {
    use super::Stream::{Stderr, Stdout};
    use super::*;
    use proptest::prelude::*;

    fn quota(head: usize, tail: usize) -> OutputQuota {
        OutputQuota { head_bytes_max: head, tail_bytes_max: tail, spool_bytes_max: 0 }
    }

    fn collect(quota: OutputQuota, appends: &[(Stream, &[u8])]) -> OutputBuffer {
        let mut buffer = OutputBuffer::new(quota);
        for (stream, bytes) in appends {
            buffer.append(*stream, bytes);
        }
        buffer
    }

    #[test]
    fn head_tail_and_exact_count() {
        let check = |appends: &[(Stream, &[u8])], kept: &[u8], dropped| {
            let output = collect(quota(3, 4), appends).to_output();
            assert_eq!(output.as_bytes(), kept);
            assert_eq!(output.dropped(), dropped);
        };
        check(&[], b"", 0);
        check(&[(Stdout, b"ab")], b"ab", 0);
        check(&[(Stdout, b"abcdefg")], b"abcdefg", 0);
        check(&[(Stdout, b"abcdefgh")], b"abcefgh", 1);
        check(&[(Stdout, b"ab"), (Stderr, b"cd"), (Stdout, b"efghijkl")], b"abcijkl", 5);
        check(&[(Stdout, &[b'x'; 100]), (Stderr, b"end")], b"xxxxend", 96);
    }

    proptest! {
        /// Whatever is appended, in whatever pieces: every byte is kept or counted, in its place
        /// and with its stream, and the stored form reads back the same.
        #[test]
        fn nothing_is_lost_uncounted(
            appends in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..20)), 0..20),
            head in 0usize..30,
            tail in 0usize..30,
            piece_max in 1usize..9,
        ) {
            let mut buffer = OutputBuffer::new(quota(head, tail));
            let mut whole = Vec::new();
            for (err, bytes) in &appends {
                let stream = if *err { Stderr } else { Stdout };
                buffer.append(stream, bytes);
                whole.extend(bytes.iter().map(|byte| (stream, *byte)));
            }
            let output = buffer.to_output();
            prop_assert_eq!(output.as_bytes().len() as u64 + output.dropped(), whole.len() as u64);
            let stored = Runs::from_bytes(&output.runs().to_bytes());
            prop_assert_eq!(stored.as_ref(), Some(output.runs()));
            let stretches: Vec<_> = output.runs().stretches().collect();
            prop_assert!(stretches.windows(2).all(|pair| pair[0].stream != pair[1].stream));
            let streams = stretches.iter().flat_map(|one| vec![one.stream; one.bytes]);
            let kept = whole[..whole.len().min(head)].iter().chain(
                &whole[whole.len().min(head).max(whole.len().saturating_sub(tail))..],
            );
            prop_assert_eq!(
                streams.zip(output.as_bytes().iter().copied()).collect::<Vec<_>>(),
                kept.copied().collect::<Vec<_>>()
            );
            let (mut in_buffer, mut in_record) = (BufferPlace::default(), Place::default());
            let mut from_buffer = |at| buffer.piece_at(at, piece_max, &mut in_buffer);
            let mut from_record = |at| output.piece_at(at, piece_max, &mut in_record);
            for kept in [&mut from_buffer as &mut dyn FnMut(u64) -> Piece, &mut from_record] {
                let mut at = 0usize;
                loop {
                    match kept(at as u64) {
                        Piece::End => break,
                        Piece::Gap(bytes) => {
                            prop_assert_eq!(bytes, output.dropped());
                            at += bytes as usize;
                        }
                        Piece::Bytes { stream, bytes } => {
                            prop_assert!(!bytes.is_empty());
                            for byte in bytes {
                                prop_assert_eq!((stream, byte), whole[at]);
                                at += 1;
                            }
                        }
                        Piece::Wait => unreachable!(),
                    }
                }
                prop_assert_eq!(at, whole.len());
            }
        }
    }

    #[test]
    fn broken_runs_are_refused() {
        assert_eq!(Runs::from_bytes(&[0x80]), None);
        assert_eq!(Runs::from_bytes(&[0xff; 12]), None);
    }
}
