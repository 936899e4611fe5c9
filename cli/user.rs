//! The user of this program.

use adjutant::{Engine, control};

/// Returns the user who has become root to run this program, as `sudo` names that user.
pub(crate) fn acts_for() -> Option<String> {
    let is_root = rustix::process::geteuid().is_root();
    std::env::var("SUDO_USER").ok().filter(|name| is_root && !name.is_empty())
}

/// Returns a handle of the engine whose requests carry the name of the user of this program.
pub(crate) fn calls(engine: &Engine) -> Engine {
    engine.called_by(control::this_user(acts_for().as_deref()))
}
