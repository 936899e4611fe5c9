//! Rows that cannot be dealt with, because of a record or a damaged page: the steps of the scheduler pass them over
//! and serve the other rows. After a while a row is tried again.
//!
//! A row is set aside beside the transaction, because SQLite commits nothing of a transaction that has met a damaged
//! page. The next try of that transaction then leaves the row alone. So a step gets past any number of such rows.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::id::InvokeId;

use super::{Tx, apart};

/// A row that a step deals with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// A fire that stands for times which a clock that was ahead wrote off.
    Ahead(i64),
    Timer(i64),
    /// An execution that is to be tried again.
    Retry(i64),
    /// A fire whose executions have not started in time.
    Start(i64),
    /// A fire whose executions have not ended in time.
    End(i64),
    /// An order to stop.
    Stop(i64),
    /// An execution that an order is about.
    Execution(i64),
    /// An instance whose boot is not dealt with.
    Boot(i64),
    /// A target that waits for a boot.
    Target(i64),
    /// A fire whose next wave is due.
    Wave(i64),
}

/// The reason why a row was set aside.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub subject: Subject,
    /// The invocation that does not go on because of the row; none if no invocation depends on the row, or if
    /// the invocation cannot be read.
    pub invoke_id: Option<InvokeId>,
    pub error: Error,
}

/// The greatest number of rows that are set aside: a file with more of them is damaged as a whole.
const ROWS_MAX: usize = 4_096;

/// The rows that are set aside.
#[derive(Debug, Default)]
pub(crate) struct Aside(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    rows: BTreeSet<Subject>,
    /// The number of times that a row has been set aside.
    total: u64,
    /// Refusals that nobody has been told of yet.
    news: Vec<Refusal>,
    /// Whether each row is read by itself, so that the row which cannot be read is known.
    is_careful: bool,
}

impl Aside {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has(&self, subject: Subject) -> bool {
        self.state().rows.contains(&subject)
    }

    /// Returns the number of rows that are set aside: a search for other rows has to go as much further.
    pub(crate) fn count(&self) -> usize {
        self.state().rows.len()
    }

    /// Returns the number of times that a row has been set aside. The number never goes down, so that a caller who
    /// compares two of these numbers knows whether another try passes over one row more. News cannot tell that: another
    /// caller may have taken the news.
    pub(crate) fn total(&self) -> u64 {
        self.state().total
    }

    /// Returns whether each row is to be read by itself.
    pub(crate) fn is_careful(&self) -> bool {
        self.state().is_careful
    }

    /// Sets whether each row is read by itself.
    pub(crate) fn be_careful(&self, is_careful: bool) {
        self.state().is_careful = is_careful;
    }

    /// Lets all rows be tried again.
    pub(crate) fn clear(&self) {
        self.state().rows.clear();
    }

    /// Takes the refusals that nobody has been told of yet.
    pub(crate) fn take_news(&self) -> Vec<Refusal> {
        std::mem::take(&mut self.state().news)
    }

    /// Returns the first `max` of these rows that are not set aside.
    pub(crate) fn others(
        &self,
        rows: Vec<i64>,
        max: usize,
        subject: impl Fn(i64) -> Subject,
    ) -> Vec<i64> {
        let state = self.state();
        let mut others = rows;
        others.retain(|row| !state.rows.contains(&subject(*row)));
        others.truncate(max);
        others
    }

    /// Sets a row aside, unless too many rows are set aside. Returns whether the row is set aside now.
    pub(crate) fn set(&self, subject: Subject, invoke_id: Option<InvokeId>, error: Error) -> bool {
        let mut state = self.state();
        if state.rows.contains(&subject) {
            return true;
        }
        if state.rows.len() >= ROWS_MAX {
            return false;
        }
        state.rows.insert(subject);
        state.total += 1;
        state.news.push(Refusal { subject, invoke_id, error });
        true
    }

    /// Sets a row aside within a transaction, because of an error that another try would meet again.
    ///
    /// # Errors
    ///
    /// Returns the error itself if another try may not meet it, if too many rows are set aside, or if the transaction
    /// cannot be committed after it.
    pub(crate) fn refuse(
        &self,
        tx: Tx<'_>,
        subject: Subject,
        invoke_id: Option<InvokeId>,
        error: Error,
    ) -> Result<()> {
        if !error.is_lasting() {
            return Err(error);
        }
        let is_set = self.set(subject, invoke_id, error.clone());
        match !is_set || error.is_damage() || tx.is_undone() {
            true => Err(error),
            false => Ok(()),
        }
    }

    /// Deals with a row in a savepoint. If a record keeps it from being dealt with, the row is given up; if it cannot
    /// be given up either, the row is set aside. Returns none in both cases. If `act` itself has set a row aside or
    /// wants each row to be read by itself, a row within `act` is to blame, and not this row: the next try deals with
    /// the other rows of `act`.
    pub(crate) fn deal<T>(
        &self,
        tx: Tx<'_>,
        subject: Subject,
        act: impl FnOnce() -> Result<T>,
        give_up: impl FnOnce(&Error) -> Result<()>,
    ) -> Result<Option<T>> {
        let (before, was_careful) = (self.total(), self.is_careful());
        let error = match apart(tx, act) {
            Err(error) if error.is_of_a_record() => match apart(tx, || give_up(&error)) {
                Ok(()) => return Ok(None),
                Err(error) => error,
            },
            Err(error) => error,
            done => return done.map(Some),
        };
        if self.total() > before || (self.is_careful() && !was_careful) {
            return Err(error);
        }
        self.refuse(tx, subject, subject.invoke_id(tx), error).map(|()| None)
    }
}

impl Subject {
    /// Returns the invocation that does not come to its end without the row, if it can be read.
    pub(crate) fn invoke_id(self, tx: Tx<'_>) -> Option<InvokeId> {
        let invocation = match self {
            // The invocation goes on without the row.
            Self::Ahead(_) | Self::Boot(_) | Self::Target(_) | Self::Start(_) | Self::End(_) => {
                return None;
            }
            Self::Timer(_) => "SELECT invocation FROM timers WHERE id = ?1",
            Self::Retry(_) | Self::Execution(_) => {
                "SELECT invocation FROM fires WHERE id = (SELECT fire FROM executions WHERE id = ?1)"
            }
            Self::Wave(_) => "SELECT invocation FROM fires WHERE id = ?1",
            Self::Stop(_) => "SELECT invocation FROM stops WHERE id = ?1",
        };
        let sql = format!("SELECT invoke_id FROM invocations WHERE id = ({invocation})");
        let mut query = tx.prepare(&sql).ok()?;
        query.query_row([self.row()], |row| Ok(InvokeId::from_bytes(row.get(0)?))).ok()
    }

    fn row(self) -> i64 {
        match self {
            Self::Ahead(row)
            | Self::Timer(row)
            | Self::Retry(row)
            | Self::Start(row)
            | Self::End(row)
            | Self::Stop(row)
            | Self::Execution(row)
            | Self::Boot(row)
            | Self::Target(row)
            | Self::Wave(row) => row,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn damage() -> Error {
        Error::Internal("damaged".to_owned())
    }

    #[test]
    fn the_number_of_rows_set_aside_never_goes_down() {
        let aside = Aside::default();
        for (number, subject) in
            [Subject::Stop(1), Subject::Stop(1), Subject::Boot(1)].into_iter().enumerate()
        {
            assert!(aside.set(subject, None, damage()));
            assert_eq!(aside.total(), [1, 1, 2][number], "a row counts once while it is aside");
            aside.take_news();
        }
        aside.clear();
        assert_eq!((aside.count(), aside.total()), (0, 2));
        assert!(aside.set(Subject::Stop(1), None, damage()));
        assert_eq!((aside.count(), aside.total()), (1, 3));
    }

    #[test]
    fn a_row_beyond_the_greatest_number_is_not_set_aside() {
        let aside = Aside::default();
        for row in 0..ROWS_MAX as i64 {
            assert!(aside.set(Subject::Execution(row), None, damage()));
        }
        assert!(aside.set(Subject::Execution(0), None, damage()), "it is set aside already");
        assert!(!aside.set(Subject::Stop(0), None, damage()));
        assert_eq!(aside.total(), ROWS_MAX as u64);
    }
}
