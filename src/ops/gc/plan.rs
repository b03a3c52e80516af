//! The decision on each branch: pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use super::pull_requests::{PullRequests, State};
use crate::time::Ttl;
use crate::wire::names::BranchName;
use crate::wire::postgres::{Branch, BranchState};

/// What may go.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// What is known of the pull requests.
    pub(crate) pull_requests: PullRequests,
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
    /// Unique id.
    pub(crate) uid: String,
    /// When it was created.
    pub(crate) create_time: Option<Timestamp>,
    /// When it last changed.
    pub(crate) update_time: Option<Timestamp>,
    /// When it goes by itself.
    pub(crate) expire_time: Option<Timestamp>,
    /// The pull request it belongs to, when its name says so.
    pub(crate) pull_request: Option<u64>,
}

impl Decision {
    fn new(branch: &Branch, reason: Reason, rules: &Rules) -> Self {
        Decision {
            name: branch.name.clone(),
            reason,
            uid: branch.uid.clone(),
            create_time: branch.create_time,
            update_time: branch.update_time,
            expire_time: branch.status.expire_time,
            pull_request: pull_request(&branch.name.branch, &rules.prefix),
        }
    }
}

/// Why a branch stays or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// It goes: its pull request is closed or merged.
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
    /// Nothing is known of its pull request.
    StateUnknown,
    /// When it was created is not known.
    AgeUnknown,
    /// It is younger than the grace period.
    Young,
    /// It is changing just now.
    Busy,
    /// Another branch that stays was copied from it.
    Parent,
    /// It was made anew since the plan.
    Replaced,
    /// It was refreshed or changed since the plan.
    Changed,
}

impl Reason {
    /// Returns whether the branch goes.
    pub(crate) fn deletes(self) -> bool {
        self == Reason::Closed
    }

    /// Returns the reason as people read it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Reason::Closed => "its pull request is closed",
            Reason::Default => "default branch",
            Reason::Protected => "protected, or listed in lakeforge.yml",
            Reason::Root => "root of its project",
            Reason::OtherName => "not a pull request's branch",
            Reason::Open => "its pull request is open",
            Reason::StateUnknown => "the list does not tell whether its pull request is closed",
            Reason::AgeUnknown => "its age is not known",
            Reason::Young => "younger than the grace period",
            Reason::Busy => "changing just now",
            Reason::Parent => "others were copied from it",
            Reason::Replaced => "made anew in the meantime",
            Reason::Changed => "refreshed or changed in the meantime",
        }
    }
}

/// Decides on `branches`, which must be all branches of their projects: a source is kept for each
/// branch that stays.
pub(crate) fn plan(branches: &[Branch], now: Timestamp, rules: &Rules) -> Plan {
    let decide = |branch| Decision::new(branch, decide_alone(branch, now, rules), rules);
    let mut decisions: Vec<Decision> = branches.iter().map(decide).collect();
    keep_twins(&mut decisions);
    keep_sources(branches, &mut decisions);
    decisions.sort_by(|a, b| a.name.cmp(&b.name));
    Plan { branches: decisions }
}

/// What a second look at a branch that was planned to go says.
#[derive(Debug, Clone)]
pub(super) enum Recheck<'b> {
    /// It is gone.
    Gone,
    /// It has to stay.
    Stays(Reason),
    /// It may go, as it is now.
    Goes(&'b Branch),
}

/// Decides again on a branch that was planned to go, just before it does; `branches` are all of
/// its project as they are now.
///
/// A branch is known by its unique id and the time it was created: one that was made anew under
/// the same name stays, and so does one that was refreshed, or that anything was copied from.
pub(super) fn recheck<'b>(
    planned: &Decision,
    branches: &'b [Branch],
    now: Timestamp,
    rules: &Rules,
) -> Recheck<'b> {
    let mut found = branches.iter().filter(|branch| branch.name == planned.name);
    let Some(branch) = found.next() else { return Recheck::Gone };
    let is_changed = branch.update_time != planned.update_time
        || branch.status.expire_time != planned.expire_time;
    let is_copy = |other: &Branch| other.status.source_branch.as_ref() == Some(&branch.name);
    let reason = if found.next().is_some() {
        Reason::Busy
    } else if branch.uid != planned.uid || branch.create_time != planned.create_time {
        Reason::Replaced
    } else if branches.iter().any(is_copy) {
        Reason::Parent
    } else {
        match decide_alone(branch, now, rules) {
            Reason::Closed if is_changed => Reason::Changed,
            reason => reason,
        }
    };
    if reason.deletes() { Recheck::Goes(branch) } else { Recheck::Stays(reason) }
}

/// Decides on a branch without regard to the others.
fn decide_alone(branch: &Branch, now: Timestamp, rules: &Rules) -> Reason {
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
    let Some(number) = pull_request(&branch.name.branch, &rules.prefix) else {
        return Reason::OtherName;
    };
    match rules.pull_requests.state(number) {
        Some(State::Closed) => {}
        Some(State::Open) => return Reason::Open,
        None => return Reason::StateUnknown,
    }
    let Some(created) = branch.create_time else { return Reason::AgeUnknown };
    if now < rules.grace.after(created) {
        return Reason::Young;
    }
    let settled = matches!(status.current_state, BranchState::Ready | BranchState::Archived);
    if settled && status.pending_state.is_none() { Reason::Closed } else { Reason::Busy }
}

/// Keeps what is listed twice: it changed while the list was read.
fn keep_twins(decisions: &mut [Decision]) {
    let mut seen = BTreeMap::new();
    for decision in &*decisions {
        *seen.entry(decision.name.clone()).or_insert(0) += 1;
    }
    for decision in decisions {
        if decision.reason.deletes() && seen[&decision.name] > 1 {
            decision.reason = Reason::Busy;
        }
    }
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
    use super::*;
    use crate::wire::names::ProjectName;
    use crate::wire::postgres::BranchStatus;

    fn now() -> Timestamp {
        "2026-11-20T12:00:00Z".parse().unwrap()
    }

    /// Rules under which the pull requests `open` are open and all others up to 99 are closed.
    fn rules(open: &[u64]) -> Rules {
        let state = |number: u64| if open.contains(&number) { "OPEN" } else { "CLOSED" };
        let one = |number| format!(r#"{{"number":{number},"state":"{}"}}"#, state(number));
        let list = (0..100).map(one).collect::<Vec<_>>().join(",");
        Rules {
            pull_requests: PullRequests::parse_states(&format!("[{list}]")).unwrap(),
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
            uid: format!("br-{id}"),
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
        plan(branches, now(), &rules(open))
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
            (branch("pr-100", root(), 999), "pr-100 StateUnknown"),
            (branch("pr-5-old", root(), 999), "pr-5-old OtherName"),
            (branch("pr-05", root(), 999), "pr-05 OtherName"),
            (branch("pr-+5", root(), 999), "pr-+5 OtherName"),
            (branch("pr-٧", root(), 999), "pr-٧ OtherName"),
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

    #[test]
    fn what_is_listed_twice_stays() {
        let twice =
            [branch("pr-5", Some("production"), 99), branch("pr-5", Some("production"), 99)];

        assert_eq!(reasons(&twice, &[]), ["pr-5 Busy", "pr-5 Busy"]);
    }

    /// Each change between the plan and the deletion, and what it makes of a branch that was to go.
    #[test]
    fn a_branch_is_looked_at_again_before_it_goes() {
        let before = branch("pr-5", Some("production"), 99);
        let planned = plan(std::slice::from_ref(&before), now(), &rules(&[]));
        let planned = &planned.branches[0];
        let shown = |found: &Recheck<'_>| match found {
            Recheck::Goes(_) => "Goes".to_owned(),
            other => format!("{other:?}"),
        };
        let changed = |change: fn(&mut Branch)| {
            let mut branch = before.clone();
            change(&mut branch);
            vec![branch]
        };
        for (branches, expected) in [
            (vec![], "Gone"),
            (changed(|_| ()), "Goes"),
            (changed(|branch| branch.uid = "br-other".to_owned()), "Stays(Replaced)"),
            (changed(|branch| branch.create_time = Some(now())), "Stays(Replaced)"),
            (changed(|branch| branch.create_time = None), "Stays(Replaced)"),
            (changed(|branch| branch.update_time = Some(now())), "Stays(Changed)"),
            (changed(|branch| branch.status.expire_time = Some(now())), "Stays(Changed)"),
            (changed(|branch| branch.status.is_protected = true), "Stays(Protected)"),
            (changed(|branch| branch.status.default = true), "Stays(Default)"),
            (changed(|branch| branch.status.source_branch = None), "Stays(Root)"),
            (
                changed(|branch| branch.status.pending_state = Some(BranchState::Ready)),
                "Stays(Busy)",
            ),
            (vec![before.clone(), before.clone()], "Stays(Busy)"),
            // Also a copy that would itself go: it may be one that could not be deleted.
            (vec![before.clone(), branch("pr-6", Some("pr-5"), 99)], "Stays(Parent)"),
            (vec![before.clone(), branch("dev", Some("pr-5"), 0)], "Stays(Parent)"),
        ] {
            let found = shown(&recheck(planned, &branches, now(), &rules(&[])));
            assert_eq!(found, expected, "{branches:?}");
        }
        assert_eq!(shown(&recheck(planned, &[before], now(), &rules(&[5]))), "Stays(Open)");
    }
}
