//! Panics of the host's code, which ends no loop and no thread of the engine.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls `act`, which may run code of the host.
///
/// # Errors
///
/// Returns the message of the panic if `act` panics.
pub(crate) fn contain<T>(act: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act)).map_err(message)
}

/// Returns the message of a panic, and drops its payload.
pub(crate) fn message(payload: Box<dyn Any + Send>) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no message").to_owned();
    // The payload is a value of the host, and may panic as it is dropped.
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(again);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    struct PanicsDropped;

    impl Drop for PanicsDropped {
        fn drop(&mut self) {
            panic_any(PanicsDropped);
        }
    }

    #[test]
    fn a_panic_comes_to_its_message_whatever_it_panics_with() {
        let check = |act: fn() -> u8, want: Result<u8, &str>| {
            assert_eq!(contain(act), want.map_err(str::to_owned));
        };
        check(|| 1, Ok(1));
        check(|| panic!("literal"), Err("literal"));
        check(|| panic!("{}", "formatted"), Err("formatted"));
        check(|| panic_any(7), Err("no message"));
        check(|| panic_any(PanicsDropped), Err("no message"));
    }
}
