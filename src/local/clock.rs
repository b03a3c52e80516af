//! Whether the wall clock can be believed when something is to be deleted because of its age.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// How far the wall clock may move away from the steady one between two looks.
const SLACK: Duration = Duration::from_secs(60);
/// How far it may be beyond the last thing that was written when a server starts.
const AWAY: SignedDuration = SignedDuration::from_hours(24);
/// How long it has to run evenly after a jump.
const PROBATION: Duration = Duration::from_secs(3600);

/// Watches the wall clock by one that only ever goes on.
///
/// A clock that jumped, in either direction, is not believed for an hour: time to set it right before anything has
/// expired by it.
#[derive(Debug)]
pub(crate) struct Clock {
    wall: Timestamp,
    steady: Instant,
    /// When the wall clock jumped.
    jump: Option<Instant>,
}

impl Clock {
    /// Begins to watch; `written` is the newest time that an earlier server wrote down.
    pub(crate) fn new(wall: Timestamp, steady: Instant, written: Option<Timestamp>) -> Self {
        let away = written.map(|written| wall.duration_since(written));
        let jumped = away.is_some_and(|away| away > AWAY || away < -SignedDuration::from_secs(60));
        Clock { wall, steady, jump: jumped.then_some(steady) }
    }

    /// Returns whether something may be deleted because of its age.
    pub(crate) fn is_believed(&mut self, wall: Timestamp, steady: Instant) -> bool {
        let expected = steady.saturating_duration_since(self.steady);
        let moved = wall.duration_since(self.wall);
        let ahead = moved - SignedDuration::try_from(expected).unwrap_or(SignedDuration::MAX);
        if ahead.unsigned_abs() > SLACK {
            tracing::warn!(
                "the clock jumped from {} to {wall}: for an hour nothing expires",
                self.wall
            );
            self.jump = Some(steady);
        }
        (self.wall, self.steady) = (wall, steady);
        let even = |jump: Instant| steady.saturating_duration_since(jump) >= PROBATION;
        self.jump.is_none_or(even)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct Machine {
        wall: Timestamp,
        steady: Instant,
    }

    impl Machine {
        fn new() -> Self {
            Machine { wall: "2026-11-24T12:00:00Z".parse().unwrap(), steady: Instant::now() }
        }

        fn watch(&self, written: Option<Timestamp>) -> Clock {
            Clock::new(self.wall, self.steady, written)
        }

        fn pass(&mut self, time: Duration) {
            self.wall += time;
            self.steady += time;
        }

        /// Returns whether the clock is believed at every second of `time`.
        fn believed(&mut self, clock: &mut Clock, time: u64) -> (bool, bool) {
            let looks: Vec<bool> = (0..time)
                .map(|_| {
                    self.pass(SECOND);
                    clock.is_believed(self.wall, self.steady)
                })
                .collect();
            (looks.iter().all(|believed| *believed), looks.iter().any(|believed| *believed))
        }
    }

    #[test]
    fn a_clock_that_runs_evenly_is_believed() {
        let mut machine = Machine::new();
        let mut clock = machine.watch(Some(machine.wall - SignedDuration::from_hours(23)));

        assert_eq!(machine.believed(&mut clock, 10_000), (true, true));
        machine.wall += Duration::from_secs(59);
        assert_eq!(machine.believed(&mut clock, 10), (true, true));
    }

    #[test]
    fn a_jump_that_is_taken_back_within_the_hour_is_never_believed() {
        for jump in [-400, -1, 1, 24, 400].map(|days| SignedDuration::from_hours(24 * days)) {
            let mut machine = Machine::new();
            let mut clock = machine.watch(None);
            assert_eq!(machine.believed(&mut clock, 10), (true, true));

            machine.wall += jump;
            assert_eq!(machine.believed(&mut clock, 3600), (false, false), "{jump}");
            machine.wall -= jump;
            assert_eq!(machine.believed(&mut clock, 3600), (false, false), "{jump}");
            assert!(machine.believed(&mut clock, 10).1, "{jump}");
        }
    }

    #[test]
    fn a_server_that_starts_far_from_what_was_written_waits() {
        for days in [-2, 2, 400] {
            let mut machine = Machine::new();
            let written = machine.wall - SignedDuration::from_hours(24 * days);
            let mut clock = machine.watch(Some(written));

            assert_eq!(machine.believed(&mut clock, 3599), (false, false), "{days}");
            assert_eq!(machine.believed(&mut clock, 10), (true, true), "{days}");
        }
    }
}
