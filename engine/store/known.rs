//! What the thread that writes has read of rows that most requests need again: instances, scripts, the
//! count of the day. No other thread or process changes them; this one forgets instances that it changes,
//! counts on, and forgets all whenever something is undone.

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

thread_local! {
    /// None in a thread that does not write.
    static KNOWN: RefCell<Option<Known>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Known {
    /// By name, and by row.
    instances: HashMap<InstanceId, Arc<Target>>,
    rows: HashMap<i64, Arc<Target>>,
    /// Scripts and their rows, the last first.
    contents: VecDeque<(Content, i64)>,
    /// A day, and how many invocations it has had.
    day: Option<(i64, u64)>,
}

/// Has this thread remember what it reads from now on. No other may change it while it does.
pub(super) fn start() {
    KNOWN.set(Some(Known::default()));
}

fn with<T: Default>(act: impl FnOnce(&mut Known) -> T) -> T {
    KNOWN.with_borrow_mut(|known| known.as_mut().map(act)).unwrap_or_default()
}

/// Those of these instances that are remembered, in their order.
pub(super) fn instances(ids: &[InstanceId]) -> Vec<Option<Arc<Target>>> {
    KNOWN.with_borrow(|known| {
        ids.iter().map(|id| known.as_ref()?.instances.get(id).cloned()).collect()
    })
}

/// The instance of a row, if it is remembered.
pub(super) fn instance(row: i64) -> Option<Arc<Target>> {
    with(|known| known.rows.get(&row).cloned())
}

/// Remembers an instance as it is.
pub(super) fn add(target: &Arc<Target>) {
    with(|known| {
        if known.instances.len() >= INSTANCES_MAX {
            known.instances.clear();
            known.rows.clear();
        }
        known.instances.insert(target.instance.instance_id.clone(), Arc::clone(target));
        known.rows.insert(target.row, Arc::clone(target));
    });
}

/// Forgets an instance, which is being changed.
pub(super) fn forget(id: &InstanceId) {
    with(|known| {
        if let Some(target) = known.instances.remove(id) {
            known.rows.remove(&target.row);
        }
    });
}

/// The row of a script, if it is remembered.
pub(super) fn content(content: &Content) -> Option<i64> {
    with(|known| {
        let at = known.contents.iter().position(|(one, _)| one == content)?;
        let found = known.contents.remove(at)?;
        let row = found.1;
        known.contents.push_front(found);
        Some(row)
    })
}

/// Remembers the row of a script.
pub(super) fn add_content(content: &Content, row: i64) {
    with(|known| {
        known.contents.truncate(CONTENTS_MAX - 1);
        known.contents.push_front((Arc::clone(content), row));
    });
}

/// How many invocations a day has had, if that is remembered.
pub(super) fn invocations_on(day: i64) -> Option<u64> {
    with(|known| known.day.filter(|(counted, _)| *counted == day).map(|(_, count)| count))
}

/// Remembers how many invocations a day has had.
pub(super) fn set_invocations_on(day: i64, count: u64) {
    with(|known| known.day = Some((day, count)));
}

/// Forgets all of it: what was read may have been undone.
pub(super) fn forget_all() {
    with(|known| *known = Known::default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Result};
    use crate::instance::{Instance, InstanceState};
    use crate::store::{
        Durability, Location, Store, StoreOptions, Tx, contents, days, instances as table,
    };

    fn state_of(tx: Tx<'_>) -> Result<InstanceState> {
        let found = table::find_all(tx, &["i-1".into()])?.pop().flatten();
        Ok(found.expect("it is registered").instance.state)
    }

    fn set_state(tx: Tx<'_>, state: InstanceState) -> Result<()> {
        table::upsert(tx, &Instance::new("i-1").state(state), 0).map(drop)
    }

    #[tokio::test]
    async fn what_is_changed_or_undone_is_forgotten() {
        let store = Store::open(&StoreOptions {
            location: Location::Memory,
            read_only: false,
            is_strict: true,
            starts: true,
            adopts: false,
            durability: Durability::Full,
            readers_max: 1,
        });
        let store = store.expect("memory");
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
        start();
        for n in 0..=INSTANCES_MAX as i64 {
            add(&Arc::new(Target { row: n, instance: Instance::new(format!("i-{n}")) }));
        }
        let (newest, last) = (INSTANCES_MAX as i64, format!("i-{INSTANCES_MAX}").into());
        let rows: Vec<_> =
            instances(&["i-0".into(), last]).into_iter().map(|one| one.map(|t| t.row)).collect();
        assert_eq!(rows, [None, Some(newest)]);
        assert_eq!([0, newest].map(|row| instance(row).is_some()), [false, true]);
        forget(&format!("i-{newest}").into());
        assert!(instance(newest).is_none());
        let scripts: Vec<Content> =
            (0..=CONTENTS_MAX).map(|n| n.to_string().into_bytes().into()).collect();
        for (row, script) in scripts.iter().enumerate() {
            add_content(script, row as i64);
            // The first is asked for again and again.
            assert_eq!(content(&scripts[0]), Some(0));
        }
        let rows: Vec<_> = scripts.iter().map(content).collect();
        assert_eq!(rows[..3], [Some(0), None, Some(2)]);
    }
}
