//! Where a branch comes from: its source, and the moment of it that is copied.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::World;
use crate::local::fault::{Answer, Fault};
use crate::local::postgres::check_position;
use crate::wire::postgres::BranchSpec;

/// Where a branch comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Source {
    /// Unique id of the branch it was copied from.
    pub(crate) uid: String,
    /// Id of that branch at that time.
    pub(crate) id: String,
    /// Moment that was asked for.
    pub(crate) wanted_time: Option<Timestamp>,
    /// Position that was asked for.
    pub(crate) wanted_lsn: Option<String>,
    /// Moment it really starts from.
    pub(crate) time: Option<Timestamp>,
    /// Position it really starts from.
    pub(crate) lsn: Option<String>,
}

impl World {
    /// Returns the uid of the branch a creation copies; fails as [`World::create_branch`] would.
    pub(crate) fn source_uid(&self, project: &str, spec: &BranchSpec) -> Answer<String> {
        let project_record = self.project(project)?;
        let id = match &spec.source_branch {
            Some(source) if source.project != project => {
                return Err(Fault::bad_request(
                    "source_branch field must point to the branch from the same Project",
                ));
            }
            Some(source) => &source.branch,
            None => &project_record.default_branch,
        };
        Ok(self.branch(project, id)?.uid.clone())
    }

    /// Returns the source of a new branch; fails when it cannot be copied, or not at that moment.
    pub(super) fn source_of(
        &self,
        project: &str,
        spec: &BranchSpec,
        oldest: Option<Timestamp>,
        now: Timestamp,
    ) -> Answer<Source> {
        let source = &self.branches[&self.source_uid(project, spec)?];
        if source.operation.is_some() {
            return Err(Fault::busy(source.name()));
        }
        if source.expire_time.is_some() {
            return Err(Fault::bad_request(
                "Branches with an expiration date cannot have child branches",
            ));
        }
        if spec.source_branch_time.is_some() && spec.source_branch_lsn.is_some() {
            return Err(Fault::invalid(
                "only one of source_branch_time and source_branch_lsn can be set",
            ));
        }
        if let Some(wanted) = spec.source_branch_time {
            self.check_moment(project, "source_branch_time", wanted, oldest, now)?;
        }
        if let Some(wanted) = &spec.source_branch_lsn {
            let wrong = |why| Fault::invalid(format!("Invalid source_branch_lsn: {why}"));
            check_position(wanted).map_err(wrong)?;
        }
        Ok(Source {
            uid: source.uid.clone(),
            id: source.id.clone(),
            wanted_time: spec.source_branch_time,
            wanted_lsn: spec.source_branch_lsn.clone(),
            time: None,
            lsn: None,
        })
    }

    /// Refuses a moment in the future or outside the history that `project` keeps; `field` asked for it.
    pub(super) fn check_moment(
        &self,
        project: &str,
        field: &str,
        wanted: Timestamp,
        oldest: Option<Timestamp>,
        now: Timestamp,
    ) -> Answer<()> {
        // Records keep whole milliseconds: `now` may lie a little before the moment a client calls now.
        if wanted > now + SignedDuration::from_millis(1) {
            return Err(Fault::invalid(format!("{field} must not be in the future")));
        }
        let retention = self.project(project)?.history_retention_duration.0;
        let retained = now
            .checked_sub(SignedDuration::try_from(retention).unwrap_or(SignedDuration::MAX))
            .unwrap_or(Timestamp::MIN);
        let first = oldest.map_or(retained, |oldest| oldest.max(retained));
        if wanted < first {
            return Err(Fault::invalid(format!(
                "{field} {wanted} is outside the history of the source branch, which begins at {first}"
            )));
        }
        Ok(())
    }
}
