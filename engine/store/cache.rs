//! The rows that the writing thread has read and that most requests need again: instances, scripts, the count of the
//! day. Because no other thread or process changes these rows, the cache forgets an instance only when its own thread
//! changes the row, and forgets all rows when a write is undone.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::HashMap;

use crate::command::content::Content;
use crate::id::InstanceId;

use super::instances::Target;

/// Instances that are remembered at a time, which take a few megabytes.
const INSTANCES_MAX: usize = 16_384;
/// Scripts that are remembered at a time: few enough to be compared one by one.
const CONTENTS_MAX: usize = 8;

/// The rows that the writing thread remembers. A reading thread remembers none.
#[derive(Debug)]
pub(super) struct WriterCache(Option<RefCell<Rows>>);

#[derive(Debug, Default)]
struct Rows {
    /// By name, and by row.
    instances: HashMap<InstanceId, Arc<Target>>,
    rows: HashMap<i64, Arc<Target>>,
    /// Scripts and their rows, the last first.
    contents: VecDeque<(Content, i64)>,
    /// A day, and how many invocations it has had.
    day: Option<(i64, u64)>,
}

impl WriterCache {
    /// Returns the cache of the writing thread. No other thread or process may change the rows.
    pub(super) fn of_writer() -> Self {
        Self(Some(RefCell::default()))
    }

    /// Returns a cache that remembers no row.
    pub(super) fn of_reader() -> Self {
        Self(None)
    }

    fn with<T: Default>(&self, act: impl FnOnce(&mut Rows) -> T) -> T {
        self.0.as_ref().map(|rows| act(&mut rows.borrow_mut())).unwrap_or_default()
    }

    /// Returns each of these instances; `None` for an instance that the cache does not have.
    pub(super) fn instances(&self, ids: &[InstanceId]) -> Vec<Option<Arc<Target>>> {
        let rows = self.0.as_ref().map(RefCell::borrow);
        ids.iter().map(|id| rows.as_ref()?.instances.get(id).cloned()).collect()
    }

    /// Returns the instance of a row, if the cache has it.
    pub(super) fn instance(&self, row: i64) -> Option<Arc<Target>> {
        self.with(|rows| rows.rows.get(&row).cloned())
    }

    /// Remembers an instance as it is.
    pub(super) fn add(&self, target: &Arc<Target>) {
        self.with(|rows| {
            if rows.instances.len() >= INSTANCES_MAX {
                rows.instances.clear();
                rows.rows.clear();
            }
            rows.instances.insert(target.instance.instance_id.clone(), Arc::clone(target));
            rows.rows.insert(target.row, Arc::clone(target));
        });
    }

    /// Forgets an instance, which is being changed.
    pub(super) fn forget(&self, id: &InstanceId) {
        self.with(|rows| {
            if let Some(target) = rows.instances.remove(id) {
                rows.rows.remove(&target.row);
            }
        });
    }

    /// Returns the row of a script, if the cache has it.
    pub(super) fn content(&self, content: &Content) -> Option<i64> {
        self.with(|rows| {
            let at = rows.contents.iter().position(|(one, _)| one == content)?;
            let found = rows.contents.remove(at)?;
            let row = found.1;
            rows.contents.push_front(found);
            Some(row)
        })
    }

    /// Remembers the row of a script.
    pub(super) fn add_content(&self, content: &Content, row: i64) {
        self.with(|rows| {
            rows.contents.truncate(CONTENTS_MAX - 1);
            rows.contents.push_front((Arc::clone(content), row));
        });
    }

    /// Returns the number of invocations of a day, if the cache has it.
    pub(super) fn invocations_on(&self, day: i64) -> Option<u64> {
        self.with(|rows| rows.day.filter(|(counted, _)| *counted == day).map(|(_, count)| count))
    }

    /// Remembers the number of invocations of a day.
    pub(super) fn set_invocations_on(&self, day: i64, count: u64) {
        self.with(|rows| rows.day = Some((day, count)));
    }

    /// Forgets all rows, because a write that has changed some of them may have been undone.
    pub(super) fn forget_all(&self) {
        self.with(|rows| *rows = Rows::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Result};
    use crate::instance::{Instance, InstanceState};
    use crate::store::{Store, Tx, contents, days, instances as table};

    fn state_of(tx: Tx<'_>) -> Result<InstanceState> {
        let found = table::find_all(tx, &["i-1".into()])?.pop().flatten();
        Ok(found.expect("it is registered").instance.state)
    }

    fn set_state(tx: Tx<'_>, state: InstanceState) -> Result<()> {
        table::upsert(tx, &Instance::new("i-1").state(state), 0).map(drop)
    }

    #[tokio::test]
    async fn what_is_changed_or_undone_is_forgotten() {
        let store = Store::in_memory();
        let set_and_read = |state| {
            store.write(move |tx: Tx<'_>| {
                set_state(tx, state)?;
                state_of(tx)
            })
        };
        for state in [InstanceState::Running, InstanceState::Stopped, InstanceState::Running] {
            assert_eq!(set_and_read(state).await.expect("memory"), state);
        }
        let fails = store.write(|tx: Tx<'_>| {
            set_state(tx, InstanceState::Stopped)?;
            assert_eq!(state_of(tx)?, InstanceState::Stopped);
            Err::<(), _>(Error::Internal("undo it".to_owned()))
        });
        let undone = |error: Error| assert!(error.to_string().contains("undo it"), "{error}");
        undone(fails.await.expect_err("as told"));
        assert_eq!(store.write(state_of).await.expect("memory"), InstanceState::Running);
        let count_and_store = |tx: Tx<'_>| {
            days::count_invocation(tx, 0)?;
            let script: Content = b"true".as_slice().into();
            Ok((days::invocations(tx, 0)?, contents::intern(tx, &script)?))
        };
        let (counted, _) = store.write(count_and_store).await.expect("memory");
        let fails = store.write(move |tx: Tx<'_>| {
            assert_eq!(count_and_store(tx)?.0, counted + 1);
            let other: Content = b"false".as_slice().into();
            contents::intern(tx, &other)?;
            Err::<(), _>(Error::Internal("undo it".to_owned()))
        });
        undone(fails.await.expect_err("as told"));
        let again = store.write(move |tx: Tx<'_>| {
            let other: Content = b"false".as_slice().into();
            let row = contents::intern(tx, &other)?;
            Ok((days::invocations(tx, 0)?, contents::get(tx, row)? == other))
        });
        assert_eq!(again.await.expect("memory"), (counted, true));
    }

    #[test]
    fn so_many_are_remembered_and_no_more() {
        let cache = WriterCache::of_writer();
        for n in 0..=INSTANCES_MAX as i64 {
            cache.add(&Arc::new(Target { row: n, instance: Instance::new(format!("i-{n}")) }));
        }
        let (newest, last) = (INSTANCES_MAX as i64, format!("i-{INSTANCES_MAX}").into());
        let rows: Vec<_> = cache
            .instances(&["i-0".into(), last])
            .into_iter()
            .map(|one| one.map(|t| t.row))
            .collect();
        assert_eq!(rows, [None, Some(newest)]);
        assert_eq!([0, newest].map(|row| cache.instance(row).is_some()), [false, true]);
        cache.forget(&format!("i-{newest}").into());
        assert!(cache.instance(newest).is_none());
        let scripts: Vec<Content> =
            (0..=CONTENTS_MAX).map(|n| n.to_string().into_bytes().into()).collect();
        for (row, script) in scripts.iter().enumerate() {
            cache.add_content(script, row as i64);
            // The first is asked for again and again.
            assert_eq!(cache.content(&scripts[0]), Some(0));
        }
        let rows: Vec<_> = scripts.iter().map(|script| cache.content(script)).collect();
        assert_eq!(rows[..3], [Some(0), None, Some(2)]);
    }
}
