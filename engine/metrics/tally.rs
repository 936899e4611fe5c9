//! What the transaction under way adds to the counts: nothing is counted that is undone. Kept by thread, for
//! a database is written by one.

use std::cell::RefCell;

use super::Counted;

thread_local! {
    static TALLY: RefCell<Tally> = const { RefCell::new(Tally([0; Counted::KINDS])) };
}

/// How often each thing has happened in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally([u64; Counted::KINDS]);

impl Tally {
    /// What has happened, and how often.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Counted, u64)> {
        Counted::all().zip(self.0).filter(|(_, count)| *count > 0)
    }
}

/// Counts what this transaction has done.
pub(crate) fn count(what: Counted, times: usize) {
    TALLY.with_borrow_mut(|tally| tally.0[what.index()] += times as u64);
}

/// How often this has happened in this transaction.
pub(crate) fn count_of(what: Counted) -> u64 {
    TALLY.with_borrow(|tally| tally.0[what.index()])
}

/// What this transaction has done so far, to come [back to](back_to) when what follows is undone.
pub(crate) fn so_far() -> Tally {
    TALLY.with_borrow(|tally| *tally)
}

/// Forgets what has been undone.
pub(crate) fn back_to(before: Tally) {
    TALLY.set(before);
}

/// What this transaction has done, for it ends here.
pub(crate) fn take() -> Tally {
    TALLY.replace(Tally([0; Counted::KINDS]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::ExecutionStatus;

    #[test]
    fn what_is_undone_does_not_count() {
        let ended = Counted::Ended(ExecutionStatus::Failed);
        count(Counted::Started, 2);
        let before = so_far();
        count(Counted::Started, 1);
        count(ended, 1);
        back_to(before);
        count(Counted::Lost, 3);
        let entries: Vec<_> = take().entries().collect();
        assert_eq!(entries, [(Counted::Started, 2), (Counted::Lost, 3)]);
        assert_eq!(take().entries().count(), 0);
    }
}
