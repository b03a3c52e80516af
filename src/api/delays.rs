//! Tells that the workspace lets somebody wait.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::Error;

/// Shortest pause that is told: before that nobody wonders.
const NOTICED: Duration = Duration::from_secs(1);
/// How long nothing is told after something was.
const QUIET: Duration = Duration::from_secs(10);

/// Where it is told that a call waits before it is sent again.
pub(crate) struct Delays {
    tell: Box<dyn Fn(String) + Send + Sync>,
    last: Mutex<Option<Instant>>,
}

impl Delays {
    /// Creates it; `tell` gets a sentence now and then.
    pub(crate) fn new(tell: impl Fn(String) + Send + Sync + 'static) -> Self {
        Delays { tell: Box::new(tell), last: Mutex::default() }
    }

    /// Tells that a call that ended in `error` is sent again after `wait`.
    pub(super) fn tell(&self, error: &Error, wait: Duration) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if wait < NOTICED || last.is_some_and(|last| last.elapsed() < QUIET) {
            return;
        }
        *last = Some(Instant::now());
        let what = match error {
            Error::Refused { status, .. } => format!("answers {status}"),
            _ => "does not answer".to_owned(),
        };
        (self.tell)(format!("the workspace {what}; trying again"));
    }
}

impl fmt::Debug for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delays").field("last", &self.last).finish_non_exhaustive()
    }
}
