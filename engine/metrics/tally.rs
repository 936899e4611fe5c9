//! The counts of the transaction under way: nothing is counted that is undone.

use std::cell::Cell;

use super::Counted;

/// How often each thing has happened in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally([u64; Counted::KINDS]);

impl Tally {
    const NONE: Self = Self([0; Counted::KINDS]);

    /// Returns what has happened, each with how often.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Counted, u64)> {
        Counted::all().zip(self.0).filter(|(_, count)| *count > 0)
    }
}

/// The counts of a transaction under way.
#[derive(Debug)]
pub(crate) struct Counts([Cell<u64>; Counted::KINDS]);

impl Default for Counts {
    fn default() -> Self {
        Self([const { Cell::new(0) }; Counted::KINDS])
    }
}

impl Counts {
    /// Counts what the transaction has done.
    pub(crate) fn add(&self, what: Counted, times: usize) {
        let count = &self.0[what.index()];
        count.set(count.get() + times as u64);
    }

    /// Returns how often this has happened in the transaction.
    pub(crate) fn of(&self, what: Counted) -> u64 {
        self.0[what.index()].get()
    }

    /// Returns what the transaction has done so far, to come [back to](Self::back_to) if the rest is undone.
    pub(crate) fn so_far(&self) -> Tally {
        Tally(self.0.each_ref().map(Cell::get))
    }

    /// Forgets what has been undone.
    pub(crate) fn back_to(&self, before: Tally) {
        self.0.iter().zip(before.0).for_each(|(count, before)| count.set(before));
    }

    /// Returns what the transaction has done, and begins anew: the transaction ends here.
    pub(crate) fn take(&self) -> Tally {
        let done = self.so_far();
        self.back_to(Tally::NONE);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::ExecutionStatus;

    #[test]
    fn what_is_undone_does_not_count() {
        let counts = Counts::default();
        let ended = Counted::Ended(ExecutionStatus::Failed);
        counts.add(Counted::Started, 2);
        let before = counts.so_far();
        counts.add(Counted::Started, 1);
        counts.add(ended, 1);
        counts.back_to(before);
        counts.add(Counted::Lost, 3);
        let entries: Vec<_> = counts.take().entries().collect();
        assert_eq!(entries, [(Counted::Started, 2), (Counted::Lost, 3)]);
        assert_eq!(counts.take().entries().count(), 0);
    }
}
