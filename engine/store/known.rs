//! Instances as the thread that writes has read them: most invocations are on instances that others
//! before them were on. No other thread or process changes an instance; this one forgets those that it
//! changes, and all of them whenever something is undone.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::id::InstanceId;

use super::instances::Target;

/// Instances that are remembered at a time, which take a few megabytes.
const KNOWN_MAX: usize = 16_384;

thread_local! {
    /// None in a thread that does not write.
    static KNOWN: RefCell<Option<HashMap<InstanceId, Arc<Target>>>> = const { RefCell::new(None) };
}

/// Has this thread remember instances from now on. No other may change them while it does.
pub(super) fn start() {
    KNOWN.set(Some(HashMap::new()));
}

/// Those of these that are remembered, in their order.
pub(super) fn get(ids: &[InstanceId]) -> Vec<Option<Arc<Target>>> {
    KNOWN.with_borrow(|known| {
        ids.iter().map(|id| known.as_ref().and_then(|known| known.get(id)).cloned()).collect()
    })
}

/// Remembers an instance as it is.
pub(super) fn add(target: &Arc<Target>) {
    KNOWN.with_borrow_mut(|known| {
        let Some(known) = known else { return };
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(target.instance.instance_id.clone(), Arc::clone(target));
    });
}

/// Forgets an instance, which is being changed.
pub(super) fn forget(id: &InstanceId) {
    KNOWN.with_borrow_mut(|known| known.as_mut().and_then(|known| known.remove(id)));
}

/// Forgets all of them: what was read may have been undone.
pub(super) fn forget_all() {
    KNOWN.with_borrow_mut(|known| known.as_mut().map(HashMap::clear));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Result};
    use crate::instance::{Instance, InstanceState};
    use crate::store::{Durability, Location, Store, StoreOptions, Tx, instances};

    fn state_of(tx: Tx<'_>) -> Result<InstanceState> {
        let found = instances::find_all(tx, &["i-1".into()])?.pop().flatten();
        Ok(found.expect("it is registered").instance.state)
    }

    fn set_state(tx: Tx<'_>, state: InstanceState) -> Result<()> {
        instances::upsert(tx, &Instance::new("i-1").state(state), 0).map(drop)
    }

    #[tokio::test]
    async fn what_is_changed_or_undone_is_forgotten() {
        let store = Store::open(&StoreOptions {
            location: Location::Memory,
            read_only: false,
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
        assert!(fails.await.is_err());
        assert_eq!(store.write(state_of).await.expect("memory"), InstanceState::Running);
    }

    #[test]
    fn so_many_are_remembered_and_no_more() {
        start();
        for n in 0..=KNOWN_MAX as i64 {
            add(&Arc::new(Target { row: n, instance: Instance::new(format!("i-{n}")) }));
        }
        let last = format!("i-{KNOWN_MAX}").into();
        let rows: Vec<_> =
            get(&["i-0".into(), last]).into_iter().map(|one| one.map(|t| t.row)).collect();
        assert_eq!(rows, [None, Some(KNOWN_MAX as i64)]);
    }
}
