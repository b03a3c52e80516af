//! Which calls are sent again, and when.

use std::time::{Duration, Instant};

use backon::ExponentialBuilder;

use super::error::Error;

/// Longest time that one call and its repetitions take.
pub(super) const BUDGET: Duration = Duration::from_secs(60);
/// How often a workspace that cannot be reached is tried again: it is rather misspelt than away.
const UNREACHABLE_TRIES: u32 = 3;

/// Returns the waiting times between attempts: 250 ms doubling to 10 s, with jitter.
pub(super) fn waits() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(Duration::from_secs(10))
        .with_jitter()
        .without_max_times()
}

/// Decides on the repetitions of one call.
#[derive(Debug)]
pub(super) struct Judge {
    /// Whether sending twice does what sending once does.
    idempotent: bool,
    end: Instant,
    unreachable: u32,
}

impl Judge {
    /// Creates the judge of a call that starts now and has `budget`.
    pub(super) fn new(idempotent: bool, budget: Duration) -> Self {
        Judge { idempotent, end: Instant::now() + budget, unreachable: 0 }
    }

    /// Returns how long to wait before the next attempt after `error`, or nothing to give up.
    ///
    /// `Retry-After` counts as the least wait. Every call is repeated after 429 and 503 and when
    /// it never left; after a lost answer only one that may be sent twice.
    ///
    /// Source: Go SDK 0.175.0 `httpclient`, Python SDK 0.156.0 `retries.py`, read 2026-08.
    pub(super) fn wait(&mut self, error: &Error, planned: Option<Duration>) -> Option<Duration> {
        let least = match error {
            Error::Refused { status: 429 | 503, retry_after, .. } => {
                retry_after.unwrap_or_default()
            }
            Error::NoAnswer { reason, may_have_arrived }
                if reason.is_retryable() && (self.idempotent || !may_have_arrived) =>
            {
                self.unreachable += 1;
                if self.unreachable > UNREACHABLE_TRIES {
                    return None;
                }
                Duration::ZERO
            }
            _ => return None,
        };
        let wait = planned?.max(least);
        (Instant::now() + wait < self.end).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error as OurError, Kind};

    const PLANNED: Option<Duration> = Some(Duration::from_millis(250));

    fn refused(status: u16, retry_after: Option<u64>) -> Error {
        Error::Refused {
            status,
            failure: Box::default(),
            retry_after: retry_after.map(Duration::from_secs),
            request_id: None,
            login_hint: String::new(),
        }
    }

    fn lost(may_have_arrived: bool) -> Error {
        Error::NoAnswer { reason: OurError::new(Kind::Unavailable, "no answer"), may_have_arrived }
    }

    #[test]
    fn a_change_is_sent_again_only_when_it_cannot_have_happened() {
        for (error, once, twice) in [
            (refused(429, None), true, true),
            (refused(503, None), true, true),
            (refused(500, None), false, false),
            (refused(404, None), false, false),
            (lost(false), true, true),
            (lost(true), false, true),
        ] {
            for (idempotent, expected) in [(false, once), (true, twice)] {
                let wait = Judge::new(idempotent, BUDGET).wait(&error, PLANNED);
                assert_eq!(wait.is_some(), expected, "{error:?} idempotent={idempotent}");
            }
        }
    }

    #[test]
    fn the_service_is_asked_no_earlier_than_it_said_and_not_beyond_the_budget() {
        let mut judge = Judge::new(true, BUDGET);

        assert_eq!(judge.wait(&refused(429, Some(7)), PLANNED), Some(Duration::from_secs(7)));
        assert_eq!(judge.wait(&refused(429, Some(0)), PLANNED), PLANNED);
        assert_eq!(judge.wait(&refused(429, Some(61)), PLANNED), None);
    }

    #[test]
    fn an_unreachable_workspace_is_soon_given_up() {
        let mut judge = Judge::new(true, BUDGET);
        let tries = (0..10).take_while(|_| judge.wait(&lost(false), PLANNED).is_some()).count();

        assert_eq!(tries, 3);
    }
}
