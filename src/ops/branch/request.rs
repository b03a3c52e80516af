//! What `create` and `restore` are asked for, and what they answer.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::ops::names::Resolved;
use crate::time::{Ttl, distance, to_milliseconds};
use crate::wire::limits::LONGEST_BRANCH_LIFE;
use crate::wire::names::{BranchName, EndpointName};

/// When a new branch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// This long from now.
    After(Ttl),
    /// At a moment.
    At(Timestamp),
    /// Never.
    Never,
}

/// What to create: the same branch in each of several projects.
#[derive(Debug, Clone)]
pub(crate) struct Create {
    /// The new branches, one per project.
    pub(crate) branches: Vec<Resolved>,
    /// Id of the branch to copy, instead of each project's default branch.
    pub(crate) from: Option<String>,
    /// Moment of the source to go back to.
    pub(crate) at: Option<Timestamp>,
    /// When the branches end.
    pub(crate) expiry: Expiry,
    /// Whether they are protected.
    pub(crate) protected: bool,
    /// How long to wait until SQL works.
    pub(crate) wait: Duration,
}

/// What became of one branch.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Created {
    /// Full name.
    pub(crate) name: BranchName,
    /// What was done, or would be.
    pub(crate) outcome: Outcome,
    /// Whether this call created it.
    pub(crate) created: bool,
    /// The branch it was copied from.
    pub(crate) source: Option<BranchName>,
    /// The moment that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requested_time: Option<Timestamp>,
    /// The moment of the source it really starts from.
    pub(crate) source_time: Option<Timestamp>,
    /// When it ends.
    pub(crate) expire_time: Option<Timestamp>,
    /// Endpoint that took SQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<EndpointName>,
    /// Host of that endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    /// Time until SQL worked, in milliseconds.
    pub(crate) elapsed_ms: u64,
}

/// What was done, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Created.
    Created,
    /// There already, with the same source; its expiry was refreshed.
    Reused,
    /// It would be created.
    WouldCreate,
    /// It would be reused.
    WouldReuse,
}

impl Expiry {
    /// Returns when a branch ends whose life is counted from `now`.
    pub(super) fn moment(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Expiry::After(ttl) => Some(to_milliseconds(ttl.after(now))),
            Expiry::At(moment) => Some(moment),
            Expiry::Never => None,
        }
    }
}

impl Create {
    /// Refuses what no workspace could do.
    pub(super) fn check(&self, now: Timestamp) -> Result<()> {
        if let Some(at) = self.at
            && at > now
        {
            return Err(Error::new(Kind::Usage, "cannot restore to a moment in the future")
                .why(format!("{at} has not come yet")));
        }
        match self.expiry.moment(now) {
            Some(end) if end > now + LONGEST_BRANCH_LIFE => {
                Err(Error::new(Kind::Usage, "a branch that expires lives at most 30 days")
                    .why(format!("{end} is {}", distance(end, now)))
                    .hint("--ttl 30d, or --no-expiry"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_workspace_could_do_is_refused_before_it_is_asked() {
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let days = |days: u64| Expiry::After(Ttl::from_secs(days * 86_400));
        let moment = |text: &str| text.parse::<Timestamp>().unwrap();
        for (expiry, at, allowed) in [
            (days(30), None, true),
            (days(31), None, false),
            (days(40), Some("2026-11-20T11:00:00Z"), false),
            (Expiry::At(moment("2026-12-20T12:00:00Z")), None, true),
            (Expiry::At(moment("2026-12-20T12:00:01Z")), None, false),
            (Expiry::Never, Some("2026-11-20T12:00:00Z"), true),
            (Expiry::Never, Some("2026-11-20T12:00:01Z"), false),
        ] {
            let request = Create {
                branches: Vec::new(),
                from: None,
                at: at.map(moment),
                expiry,
                protected: false,
                wait: Duration::ZERO,
            };
            assert_eq!(request.check(now).is_ok(), allowed, "{request:?}");
        }
    }
}
