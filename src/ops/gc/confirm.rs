//! Consent to how much a plan deletes.

use std::collections::BTreeMap;

use super::plan::{Decision, Plan};
use crate::error::{Error, Kind, Result};
use crate::wire::names::ProjectName;

/// A plan that may be carried out, which only [`Plan::confirm`] makes.
#[derive(Debug)]
pub(crate) struct Confirmed<'p>(&'p Plan);

impl<'p> Confirmed<'p> {
    /// Returns the branches that go, with their projects.
    pub(super) fn deletions(&self) -> BTreeMap<ProjectName, Vec<&'p Decision>> {
        let mut of_project: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for decision in self.0.deletions() {
            of_project.entry(decision.name.parent()).or_default().push(decision);
        }
        of_project
    }
}

impl Plan {
    /// Lets the plan be carried out: one that deletes more than half of the branches of a project,
    /// those that are never deleted counted too, only when `count` is how many go in all.
    ///
    /// Fails with `Refused`: so much is far more often a wrong list, prefix or project than meant.
    pub(crate) fn confirm(&self, count: Option<usize>) -> Result<Confirmed<'_>> {
        let mut of_project: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for decision in &self.branches {
            let (goes, all) = of_project.entry(&decision.name.project).or_default();
            *goes += usize::from(decision.reason.deletes());
            *all += 1;
        }
        of_project.retain(|_, (goes, all)| *goes * 2 > *all);
        let going = self.deletions().count();
        if of_project.is_empty() || count == Some(going) {
            return Ok(Confirmed(self));
        }
        let mut error =
            Error::new(Kind::Refused, "more than half of a project's branches would go")
                .code("MOST_BRANCHES_WOULD_GO")
                .hint(format!("look at the plan; if it is right, add `--confirm {going}`"));
        for (project, (goes, all)) in of_project {
            error = error.why(format!("`{project}`: {goes} of {all}"));
        }
        match count {
            Some(count) => Err(error.why(format!("--confirm says {count}, the plan {going}"))),
            None => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Reason;
    use super::*;

    /// A plan with so many branches that go, and that stay, in each project.
    fn plan(projects: &[(&str, usize, usize)]) -> Plan {
        let decide = |project: &str, id: String, reason| Decision {
            name: ProjectName::new(project).branch(id),
            reason,
            uid: String::new(),
            create_time: None,
            update_time: None,
            expire_time: None,
            pull_request: None,
        };
        let mut branches = Vec::new();
        for &(project, go, stay) in projects {
            branches.extend((0..go).map(|n| decide(project, format!("pr-{n}"), Reason::Closed)));
            branches.extend((0..stay).map(|n| decide(project, format!("b{n}"), Reason::OtherName)));
        }
        Plan { branches }
    }

    #[test]
    fn more_than_half_of_a_project_needs_the_exact_count() {
        for (projects, count, allowed) in [
            (&[("shop", 1, 1)][..], None, true),
            (&[("shop", 2, 2)], None, true),
            (&[("shop", 0, 1)], None, true),
            (&[("shop", 2, 1)], None, false),
            (&[("shop", 2, 1)], Some(1), false),
            (&[("shop", 2, 1)], Some(3), false),
            (&[("shop", 2, 1)], Some(2), true),
            (&[("shop", 99, 100)], None, true),
            (&[("shop", 101, 100)], None, false),
            // A project among others that keep much, and the count is of all.
            (&[("shop", 2, 1), ("lab", 1, 90)], None, false),
            (&[("shop", 2, 1), ("lab", 1, 90)], Some(2), false),
            (&[("shop", 2, 1), ("lab", 1, 90)], Some(3), true),
            // Where it is not needed, it does not matter: the rest of an interrupted run.
            (&[("shop", 1, 9)], Some(6), true),
            (&[], Some(6), true),
        ] {
            let plan = plan(projects);
            let confirmed = plan.confirm(count).map(|_| ()).map_err(|error| error.kind());
            let expected = if allowed { Ok(()) } else { Err(Kind::Refused) };
            assert_eq!(confirmed, expected, "{projects:?} {count:?}");
        }
    }

    #[test]
    fn the_refusal_says_where_how_much_and_what_to_type() {
        let error = plan(&[("lab", 3, 1), ("shop", 2, 1)]).confirm(Some(4)).unwrap_err();

        assert_eq!(
            error.reasons(),
            ["`lab`: 3 of 4", "`shop`: 2 of 3", "--confirm says 4, the plan 5"]
        );
        assert!(error.hint_text().unwrap().contains("--confirm 5"));
    }
}
