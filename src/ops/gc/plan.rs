//! The decision on each branch: pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use super::open_prs::OpenPullRequests;
use crate::time::Ttl;
use crate::wire::names::BranchName;
use crate::wire::postgres::{Branch, BranchState};

/// What may go.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// What the id of a pull request's branch starts with; its number is the rest.
    pub(crate) prefix: String,
    /// How old a branch must be.
    pub(crate) grace: Ttl,
    /// Ids that stay whatever else is true.
    pub(crate) protected: BTreeSet<String>,
}

/// The decision on every branch, in the order of their names.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Plan {
    /// One decision per branch.
    pub(crate) branches: Vec<Decision>,
}

impl Plan {
    /// Returns the branches that go.
    pub(crate) fn deletions(&self) -> impl Iterator<Item = &Decision> {
        self.branches.iter().filter(|decision| decision.reason.deletes())
    }
}

/// The decision on one branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Decision {
    /// Full name.
    pub(crate) name: BranchName,
    /// Why it stays or goes.
    pub(crate) reason: Reason,
    /// When it was created.
    pub(crate) create_time: Option<Timestamp>,
    /// The pull request it belongs to, when its name says so.
    pub(crate) pull_request: Option<u64>,
}

/// Why a branch stays or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// It goes: its pull request is not open any more.
    Closed,
    /// It is the default branch of its project.
    Default,
    /// It is protected, or a rule names it.
    Protected,
    /// It is the root of its project: it has no source.
    Root,
    /// Its name is not that of a pull request's branch.
    OtherName,
    /// Its pull request is open.
    Open,
    /// When it was created is not known.
    AgeUnknown,
    /// It is younger than the grace period.
    Young,
    /// It is changing just now.
    Busy,
    /// Another branch that stays was copied from it.
    Parent,
}

impl Reason {
    /// Returns whether the branch goes.
    pub(crate) fn deletes(self) -> bool {
        self == Reason::Closed
    }

    /// Returns the reason as people read it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Reason::Closed => "its pull request is not open",
            Reason::Default => "default branch",
            Reason::Protected => "protected",
            Reason::Root => "root of its project",
            Reason::OtherName => "not a pull request's branch",
            Reason::Open => "its pull request is open",
            Reason::AgeUnknown => "its age is not known",
            Reason::Young => "younger than the grace period",
            Reason::Busy => "changing just now",
            Reason::Parent => "others were copied from it",
        }
    }
}

/// Decides on `branches`, which must be all branches of their projects: a source is kept for each
/// branch that stays.
pub(crate) fn plan(
    branches: &[Branch],
    open: &OpenPullRequests,
    now: Timestamp,
    rules: &Rules,
) -> Plan {
    let decide = |branch: &Branch| {
        let pull_request = pull_request(&branch.name.branch, &rules.prefix);
        Decision {
            name: branch.name.clone(),
            reason: decide_alone(branch, pull_request, open, now, rules),
            create_time: branch.create_time,
            pull_request,
        }
    };
    let mut decisions: Vec<Decision> = branches.iter().map(decide).collect();
    keep_sources(branches, &mut decisions);
    decisions.sort_by(|a, b| a.name.cmp(&b.name));
    Plan { branches: decisions }
}

/// Decides on a branch without regard to the others.
fn decide_alone(
    branch: &Branch,
    pull_request: Option<u64>,
    open: &OpenPullRequests,
    now: Timestamp,
    rules: &Rules,
) -> Reason {
    let status = &branch.status;
    if status.default {
        return Reason::Default;
    }
    if status.is_protected || rules.protected.contains(&branch.name.branch) {
        return Reason::Protected;
    }
    if status.source_branch.is_none() {
        return Reason::Root;
    }
    let Some(number) = pull_request else { return Reason::OtherName };
    if open.contains(number) {
        return Reason::Open;
    }
    let Some(created) = branch.create_time else { return Reason::AgeUnknown };
    if now < rules.grace.after(created) {
        return Reason::Young;
    }
    let settled = matches!(status.current_state, BranchState::Ready | BranchState::Archived);
    if settled && status.pending_state.is_none() { Reason::Closed } else { Reason::Busy }
}

/// Keeps the sources of all that stays, and the sources of those.
fn keep_sources(branches: &[Branch], decisions: &mut [Decision]) {
    loop {
        let needed: BTreeSet<&BranchName> = branches
            .iter()
            .zip(decisions.iter())
            .filter(|(_, decision)| !decision.reason.deletes())
            .filter_map(|(branch, _)| branch.status.source_branch.as_ref())
            .collect();
        let mut changed = false;
        for decision in &mut *decisions {
            if decision.reason.deletes() && needed.contains(&decision.name) {
                decision.reason = Reason::Parent;
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}

/// Returns the number of the pull request that the branch `id` belongs to: `pr-7`, not `pr-07`,
/// `pr-7-old` or `mypr-7`.
fn pull_request(id: &str, prefix: &str) -> Option<u64> {
    let digits = id.strip_prefix(prefix)?;
    let canonical = digits.bytes().all(|c| c.is_ascii_digit()) && !digits.starts_with('0');
    canonical.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::names::ProjectName;
    use crate::wire::postgres::BranchStatus;

    fn now() -> Timestamp {
        "2026-11-20T12:00:00Z".parse().unwrap()
    }

    fn rules() -> Rules {
        Rules {
            prefix: "pr-".to_owned(),
            grace: Ttl::from_secs(86_400),
            protected: ["pr-99".to_owned()].into(),
        }
    }

    fn branch(id: &str, source: Option<&str>, age_hours: i64) -> Branch {
        let project = ProjectName::new("shop");
        Branch {
            name: project.branch(id),
            branch_id: None,
            uid: String::new(),
            parent: Some(project.clone()),
            create_time: Some(now() - jiff::SignedDuration::from_hours(age_hours)),
            update_time: None,
            status: BranchStatus {
                branch_id: id.to_owned(),
                current_state: BranchState::Ready,
                source_branch: source.map(|source| project.branch(source)),
                ..BranchStatus::default()
            },
        }
    }

    fn reasons(branches: &[Branch], open: &[u64]) -> Vec<String> {
        let open = OpenPullRequests::of(open.iter().copied());
        plan(branches, &open, now(), &rules())
            .branches
            .iter()
            .map(|decision| format!("{} {:?}", decision.name.branch, decision.reason))
            .collect()
    }

    #[test]
    fn each_branch_has_its_reason() {
        let root = || Some("production");
        let mut default = branch("production", None, 999);
        default.status.default = true;
        let mut protected = branch("pr-1", root(), 999);
        protected.status.is_protected = true;
        let mut ageless = branch("pr-2", root(), 999);
        ageless.create_time = None;
        let mut busy = branch("pr-3", root(), 999);
        busy.status.current_state = BranchState::Resetting;

        for (branch, expected) in [
            (default, "production Default"),
            (protected, "pr-1 Protected"),
            (ageless, "pr-2 AgeUnknown"),
            (busy, "pr-3 Busy"),
            (branch("pr-99", root(), 999), "pr-99 Protected"),
            (branch("pr-4", None, 999), "pr-4 Root"),
            (branch("pr-7", root(), 999), "pr-7 Open"),
            (branch("pr-5", root(), 23), "pr-5 Young"),
            (branch("pr-5", root(), -5), "pr-5 Young"),
            (branch("pr-5", root(), 24), "pr-5 Closed"),
            (branch("pr-5-old", root(), 999), "pr-5-old OtherName"),
            (branch("pr-05", root(), 999), "pr-05 OtherName"),
            (branch("pr-", root(), 999), "pr- OtherName"),
            (branch("mypr-5", root(), 999), "mypr-5 OtherName"),
            (branch("pr-18446744073709551616", root(), 999), "pr-18446744073709551616 OtherName"),
            (branch("dev", root(), 999), "dev OtherName"),
        ] {
            assert_eq!(reasons(&[branch], &[7]), [expected]);
        }
    }

    #[test]
    fn the_sources_of_what_stays_stay() {
        let chain = [
            branch("pr-1", Some("production"), 99),
            branch("pr-2", Some("pr-1"), 99),
            branch("pr-3", Some("pr-2"), 99),
            branch("pr-4", Some("pr-1"), 99),
        ];

        assert_eq!(
            reasons(&chain, &[3]),
            ["pr-1 Parent", "pr-2 Parent", "pr-3 Open", "pr-4 Closed"]
        );
        assert_eq!(
            reasons(&chain, &[8]),
            ["pr-1 Closed", "pr-2 Closed", "pr-3 Closed", "pr-4 Closed"]
        );
    }

    fn any_branches() -> impl Strategy<Value = Vec<Branch>> {
        let id = prop_oneof![
            (0u64..12).prop_map(|n| format!("pr-{n}")),
            "[a-z][a-z0-9-]{0,6}".prop_map(|id| id)
        ];
        let one = (id, any::<prop::sample::Index>(), any::<[bool; 4]>(), -50i64..200);
        prop::collection::vec(one, 1..25).prop_map(|drawn| {
            let ids: Vec<String> = drawn.iter().map(|(id, ..)| id.clone()).collect();
            drawn
                .into_iter()
                .map(|(id, source, [default, protected, root, ageless], age)| {
                    let source = (!root).then(|| source.get(&ids).clone());
                    let mut branch = branch(&id, source.as_deref(), age);
                    branch.status.default = default;
                    branch.status.is_protected = protected;
                    if ageless {
                        branch.create_time = None;
                    }
                    branch
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn nothing_precious_ever_goes(branches in any_branches(), open in prop::collection::btree_set(0u64..12, 0..6)) {
            let plan = plan(&branches, &OpenPullRequests::of(open.clone()), now(), &rules());
            let goes: BTreeSet<&BranchName> = plan.deletions().map(|decision| &decision.name).collect();
            prop_assert_eq!(plan.branches.len(), branches.len());
            for decision in plan.deletions() {
                let number = decision.pull_request.unwrap();
                prop_assert!(!open.contains(&number));
                prop_assert_eq!(&decision.name.branch, &format!("pr-{number}"));
                let twins = branches.iter().filter(|b| b.name == decision.name);
                prop_assert!(twins.clone().any(|b| !b.status.default && !b.status.is_protected && b.create_time.is_some()));
            }
            for branch in &branches {
                let stays = !goes.contains(&branch.name);
                if let (true, Some(source)) = (stays, &branch.status.source_branch) {
                    prop_assert!(!goes.contains(source), "{} would lose its source", branch.name);
                }
            }
        }
    }
}
