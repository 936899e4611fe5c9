//! From readings of a zone's clock to instants, through every change of that clock.
//!
//! A zone is a list of spans with one offset each. Between two spans the clock jumps forward, and
//! the readings in between do not exist (a *gap*), or back, and readings come twice (an
//! *overlap*). Two rules answer both: see [`Offsets::first_fixed`] and [`Offsets::first_interval`].
//!
//! All instants are seconds since 1970, all readings as in [`super::pattern`].

use super::calendar::SECONDS_PER_DAY;
use super::pattern::NEVER;

/// Earlier than every instant, with room to add an offset.
const BEFORE_ALL: i64 = i64::MIN / 2;

/// How a zone's clock differs from UTC.
#[derive(Debug, Clone, Copy)]
pub(super) enum Offsets {
    /// By so many seconds, always.
    Fixed(i64),
    /// By the offset of the span that holds the instant.
    Changing(&'static Spans),
    /// By nobody knows how much, so that no reading is an instant.
    Unknown,
}

/// The spans of a zone, in order.
#[derive(Debug)]
pub(super) struct Spans {
    spans: Box<[Span]>,
    /// The span that holds the first instant of each stretch of `1 << STRETCH_BITS` seconds after
    /// 1970. Few clocks change more than twice in a stretch, so the right span is a step or two
    /// from there.
    stretches: Box<[u16]>,
}

/// Half a year.
const STRETCH_BITS: u32 = 24;

/// A time in which a zone's offset does not change. It ends where the next one starts.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: i64,
    offset: i64,
    /// All readings before this one have been passed when the span starts. It is behind the span's
    /// first reading after a gap and ahead of it in an overlap.
    high: i64,
}

impl Offsets {
    /// The first instant at or after `from` at which a fixed-time schedule fires, or [`NEVER`].
    ///
    /// `next` gives the first matching reading at or after another. A reading in a gap counts as
    /// the first instant after it, if that is still the same date; one in an overlap counts the
    /// first time only. So instants never run backwards as readings go on, and one pass over
    /// the spans decides.
    pub(super) fn first_fixed(self, from: i64, next: impl Fn(i64) -> i64) -> i64 {
        let spans = match self {
            Offsets::Fixed(offset) => return later(next(from + offset), -offset),
            Offsets::Changing(spans) => spans,
            Offsets::Unknown => return NEVER,
        };
        let mut index = spans.holding(from);
        let spans = &spans.spans;
        let span = spans[index];
        let mut reading = match from == span.start {
            true => next(span.high),
            false => next((from + span.offset).max(span.high)),
        };
        while reading != NEVER {
            while spans.get(index + 1).is_some_and(|following| reading >= following.high) {
                index += 1;
            }
            let span = spans[index];
            let first_reading = span.start + span.offset;
            if reading >= first_reading {
                return reading - span.offset;
            }
            let midnight = first_reading - first_reading.rem_euclid(SECONDS_PER_DAY);
            if reading >= midnight {
                return span.start;
            }
            // The date of this reading ends in the gap.
            reading = next(midnight);
        }
        NEVER
    }

    /// The first instant at or after `from` at which an interval schedule fires, or [`NEVER`].
    ///
    /// It fires whenever the clock shows a matching reading: never in a gap, twice in an overlap.
    pub(super) fn first_interval(self, from: i64, next: impl Fn(i64) -> i64) -> i64 {
        let spans = match self {
            Offsets::Fixed(offset) => return later(next(from + offset), -offset),
            Offsets::Changing(spans) => spans,
            Offsets::Unknown => return NEVER,
        };
        let mut index = spans.holding(from);
        let spans = &spans.spans;
        // There is no match in `searched..reading`, so a search is repeated only where a change
        // of the clock leaves that stretch.
        let mut searched = from + spans[index].offset;
        let mut reading = next(searched);
        loop {
            let Some(following) = spans.get(index + 1) else {
                return later(reading, -spans[index].offset);
            };
            if reading < following.start + spans[index].offset {
                return reading - spans[index].offset;
            }
            let first_reading = following.start + following.offset;
            if !(searched..=reading).contains(&first_reading) {
                searched = first_reading;
                reading = next(searched);
            }
            index += 1;
        }
    }

    /// The one instant that a reading names: the first time the clock shows it, or the first
    /// instant after the gap that swallows it.
    pub(super) fn instant(self, reading: i64) -> i64 {
        let spans = match self {
            Offsets::Fixed(offset) => return reading - offset,
            Offsets::Changing(spans) => &spans.spans,
            Offsets::Unknown => return NEVER,
        };
        let span = spans[spans.partition_point(|span| span.high <= reading) - 1];
        (reading - span.offset).max(span.start)
    }
}

impl Spans {
    /// The spans of a clock whose offset from UTC at an instant is `offset_at(instant)`,
    /// examined every `step` seconds from `from` to `to`.
    ///
    /// A change and its reversal within one `step` would go unseen.
    pub(super) fn find((from, to): (i64, i64), step: i64, offset_at: impl Fn(i64) -> i64) -> Self {
        Self::stated((from, to), &[], from, step, offset_at)
    }

    /// As [`find`](Self::find), of a clock that can change before `unstated` at the instants
    /// `stated` only, which are in order.
    pub(super) fn stated(
        (from, to): (i64, i64),
        stated: &[i64],
        unstated: i64,
        step: i64,
        offset_at: impl Fn(i64) -> i64,
    ) -> Self {
        let mut spans = vec![Span { start: BEFORE_ALL, offset: offset_at(from), high: BEFORE_ALL }];
        let change = |spans: &mut Vec<Span>, start: i64| {
            let last = spans[spans.len() - 1];
            let offset = offset_at(start);
            if offset != last.offset {
                let high = last.high.max(start + last.offset);
                spans.push(Span { start, offset, high });
            }
        };
        for &start in stated {
            change(&mut spans, start);
        }
        let mut known = unstated.max(from);
        while known < to {
            let last = spans[spans.len() - 1];
            let next = known + step;
            if offset_at(next) == last.offset {
                known = next;
                continue;
            }
            let (mut before, mut start) = (known, next);
            while start - before > 1 {
                let middle = before + (start - before) / 2;
                match offset_at(middle) == last.offset {
                    true => before = middle,
                    false => start = middle,
                }
            }
            change(&mut spans, start);
            known = start;
        }
        let first_of = |stretch: i64| {
            let start = stretch << STRETCH_BITS;
            (spans.partition_point(|span| span.start <= start) - 1) as u16
        };
        let stretches = (0..=to >> STRETCH_BITS).map(first_of).collect();
        Spans { spans: spans.into(), stretches }
    }

    /// Returns whether two clocks show the same readings at all instants from `from` to `to`.
    pub(super) fn agree(&self, other: &Self, (from, to): (i64, i64)) -> bool {
        fn changes(spans: &Spans, (from, to): (i64, i64)) -> impl Iterator<Item = (i64, i64)> {
            let first = spans.holding(from);
            let inside = spans.spans[first..].iter().take_while(move |span| span.start < to);
            inside.map(move |span| (span.start.max(from), span.offset))
        }
        changes(self, (from, to)).eq(changes(other, (from, to)))
    }

    /// Returns the offset of a clock that never changes.
    pub(super) fn only_offset(&self) -> Option<i64> {
        match *self.spans {
            [span] => Some(span.offset),
            _ => None,
        }
    }

    /// The offset at an instant.
    #[cfg(test)]
    pub(super) fn offset_at(&self, instant: i64) -> i64 {
        self.spans[self.holding(instant)].offset
    }

    /// The index of the span that holds an instant.
    fn holding(&self, instant: i64) -> usize {
        let stretch = match usize::try_from(instant >> STRETCH_BITS) {
            Ok(stretch) => stretch.min(self.stretches.len() - 1),
            Err(_) => return self.spans.partition_point(|span| span.start <= instant).max(1) - 1,
        };
        let mut index = usize::from(self.stretches[stretch]);
        while self.spans.get(index + 1).is_some_and(|following| following.start <= instant) {
            index += 1;
        }
        index
    }
}

fn later(reading: i64, by: i64) -> i64 {
    match reading {
        NEVER => NEVER,
        _ => reading + by,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDNIGHT: i64 = 20_000 * SECONDS_PER_DAY;

    /// Clocks that no region has had since 1970, but might: changes are `(instant, offset)`.
    fn clock(changes: &'static [(i64, i64)]) -> Offsets {
        let offset_at = |instant| {
            let past = changes.iter().rfind(|(start, _)| *start <= instant);
            past.map_or(changes[0].1, |(_, offset)| *offset)
        };
        let range = (MIDNIGHT - SECONDS_PER_DAY, MIDNIGHT + SECONDS_PER_DAY);
        Offsets::Changing(Box::leak(Box::new(Spans::find(range, 600, offset_at))))
    }

    fn among(readings: &[i64]) -> impl Fn(i64) -> i64 {
        move |from| readings.iter().copied().find(|&reading| reading >= from).unwrap_or(NEVER)
    }

    #[test]
    fn a_gap_across_midnight_keeps_the_readings_of_its_last_date() {
        // 23:30 becomes 00:30.
        const CHANGE: i64 = MIDNIGHT - 1800;
        let clock = clock(&[(0, 0), (CHANGE, 3600)]);
        let before = MIDNIGHT - 900;
        let after = MIDNIGHT + 900;
        assert_eq!(clock.first_fixed(MIDNIGHT - 7200, among(&[before])), NEVER);
        assert_eq!(clock.first_fixed(MIDNIGHT - 7200, among(&[after])), CHANGE);
        assert_eq!(clock.first_fixed(MIDNIGHT - 7200, among(&[before, after])), CHANGE);
        assert_eq!(clock.first_fixed(CHANGE, among(&[before, after])), CHANGE);
        assert_eq!(clock.first_fixed(CHANGE + 1, among(&[before, after])), NEVER);
        assert_eq!(clock.first_interval(MIDNIGHT - 7200, among(&[before, after])), NEVER);
        assert_eq!((clock.instant(before), clock.instant(after)), (CHANGE, CHANGE));
    }

    #[test]
    fn two_overlaps_in_a_row_repeat_nothing_fixed() {
        // The clock is put back at midnight by UTC, and again half an hour later.
        let clock = clock(&[(0, 7200), (MIDNIGHT, 3600), (MIDNIGHT + 1800, 0)]);
        let reading = MIDNIGHT + 6000;
        let first = MIDNIGHT - 1200;
        assert_eq!(clock.first_fixed(first, among(&[reading])), first);
        assert_eq!(clock.first_fixed(first + 1, among(&[reading])), NEVER);
        assert_eq!(clock.first_fixed(MIDNIGHT + 1801, among(&[reading])), NEVER);
        assert_eq!(clock.first_interval(first + 1, among(&[reading])), reading);
        assert_eq!(clock.instant(reading), first);
        let shown_three_times = MIDNIGHT + 4000;
        for (from, fire) in [(-3600, -3200), (-3199, 400), (401, 4000)] {
            let fires = clock.first_interval(MIDNIGHT + from, among(&[shown_three_times]));
            assert_eq!(fires, MIDNIGHT + fire);
        }
    }
}
