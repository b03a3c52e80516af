//! 100,000 random worlds for the plan, against rules that were written down a second time.
//!
//! The second writing goes the other way about: from the numbers that are closed to the names that
//! may go, and from a branch to everything that was copied from it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::plan::{Plan, Recheck, Rules, plan, recheck};
use super::pull_requests::PullRequests;
use crate::time::Ttl;
use crate::wire::names::{BranchName, ProjectName};
use crate::wire::postgres::{Branch, BranchState, BranchStatus};

const WORLDS: u64 = 100_000;
const GRACE_HOURS: i64 = 24;

/// Random numbers that a seed repeats: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    /// Returns whether something happens that does so once in `times`.
    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Branches of some projects, and what is known of the pull requests.
struct World {
    branches: Vec<Branch>,
    /// Number and state of each entry of the list; a number can be there twice.
    listed: Vec<(u64, &'static str)>,
    /// Whether the list is of open ones alone.
    only_open: bool,
    protected: BTreeSet<String>,
}

fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

impl World {
    fn draw(random: &mut Random) -> Self {
        let only_open = random.one_in(4);
        let words: &[_] = match only_open {
            true => &["OPEN"],
            false => &["OPEN", "CLOSED", "MERGED", "open", "closed", "opened", "merged", "locked"],
        };
        let count = random.below(10);
        let listed = (0..count).map(|_| (random.below(10) as u64, random.pick(words))).collect();
        let mut world =
            World { branches: Vec::new(), listed, only_open, protected: BTreeSet::new() };
        if random.one_in(4) {
            world.protected.insert(format!("pr-{}", random.below(10)));
        }
        for _ in 0..=random.below(9) {
            let branch = world.draw_branch(random);
            world.branches.push(branch);
        }
        world
    }

    fn draw_branch(&self, random: &mut Random) -> Branch {
        let project = ProjectName::new(random.pick(&["shop", "shop", "lab"]));
        let number = random.below(10);
        let id = match random.below(12) {
            0 => "production".to_owned(),
            1 => random
                .pick(&["dev", "pr-", "pr", "pr--1", "xpr-3", "pr-٧", "pr-+7", "PR-7"])
                .to_owned(),
            2 => format!("pr-0{number}"),
            3 => format!("pr-{number}-x"),
            4 => format!("pr-1844674407370955161{number}"),
            _ => format!("pr-{number}"),
        };
        let source = match random.below(8) {
            0 => None,
            1..4 => Some(random.below(10)).map(|number| format!("pr-{number}")),
            _ => Some("production".to_owned()),
        };
        let age = SignedDuration::from_hours(random.below(60) as i64 - 5);
        let state = match random.one_in(8) {
            true => random.pick(&[BranchState::Init, BranchState::Resetting, BranchState::Unknown]),
            false => random.pick(&[BranchState::Ready, BranchState::Archived]),
        };
        Branch {
            name: project.branch(&id),
            branch_id: None,
            uid: format!("br-{}", random.next()),
            parent: None,
            create_time: (!random.one_in(12)).then(|| now() - age),
            update_time: None,
            status: BranchStatus {
                branch_id: id,
                current_state: state,
                pending_state: random.one_in(16).then_some(BranchState::Ready),
                source_branch: source.map(|id| project.branch(id)),
                default: random.one_in(16),
                is_protected: random.one_in(16),
                ..BranchStatus::default()
            },
        }
    }

    /// Returns the rules, with the list as it would be read.
    fn rules(&self) -> Rules {
        let text = if self.only_open {
            let numbers: String = self.listed.iter().map(|(n, _)| format!("{n}\n")).collect();
            format!("{numbers}end {}\n", self.listed.len())
        } else {
            let entry = |(n, state): &(u64, _)| format!(r#"{{"number":{n},"state":"{state}"}}"#);
            format!("[{}]", self.listed.iter().map(entry).collect::<Vec<_>>().join(","))
        };
        let read =
            if self.only_open { PullRequests::parse_open } else { PullRequests::parse_states };
        Rules {
            pull_requests: read(&text).unwrap(),
            prefix: "pr-".to_owned(),
            grace: Ttl::from_secs(GRACE_HOURS as u64 * 3600),
            protected: self.protected.clone(),
        }
    }

    /// Returns the ids that the list says are of closed pull requests.
    fn closed_ids(&self) -> BTreeSet<String> {
        let is_open = |number: u64| {
            let words = self.listed.iter().filter(|(n, _)| *n == number).map(|(_, word)| *word);
            words.into_iter().any(|word| !matches!(word, "CLOSED" | "MERGED" | "closed" | "merged"))
        };
        let told: Vec<u64> = match self.only_open {
            true => (0..self.listed.iter().map(|(n, _)| *n).max().unwrap_or(0)).collect(),
            false => self.listed.iter().map(|(n, _)| *n).collect(),
        };
        // A number of 0 is no number of a pull request.
        let closed = told.into_iter().filter(|number| *number > 0 && !is_open(*number));
        closed.map(|number| format!("pr-{number}")).collect()
    }

    /// Returns the names that could go if nothing was copied from them.
    fn candidates(&self) -> BTreeSet<BranchName> {
        let closed = self.closed_ids();
        let may_go = |branch: &&Branch| {
            let status = &branch.status;
            let old = |time| now().duration_since(time) >= SignedDuration::from_hours(GRACE_HOURS);
            let twins = self.branches.iter().filter(|other| other.name == branch.name).count();
            closed.contains(&branch.name.branch)
                && !self.protected.contains(&branch.name.branch)
                && !(status.default || status.is_protected || status.source_branch.is_none())
                && branch.create_time.is_some_and(old)
                && [BranchState::Ready, BranchState::Archived].contains(&status.current_state)
                && status.pending_state.is_none()
                && twins == 1
        };
        self.branches.iter().filter(may_go).map(|branch| branch.name.clone()).collect()
    }

    /// Returns everything that was copied from `name`, directly or not.
    fn descendants(&self, name: &BranchName) -> BTreeSet<BranchName> {
        let (mut found, mut look_at) = (BTreeSet::new(), vec![name.clone()]);
        while let Some(source) = look_at.pop() {
            let copies = self
                .branches
                .iter()
                .filter(|branch| branch.status.source_branch.as_ref() == Some(&source));
            for copy in copies {
                if found.insert(copy.name.clone()) {
                    look_at.push(copy.name.clone());
                }
            }
        }
        found
    }

    /// Returns what goes.
    fn expected(&self) -> BTreeSet<BranchName> {
        let candidates = self.candidates();
        let all_go = |name: &&BranchName| self.descendants(name).is_subset(&candidates);
        candidates.iter().filter(all_go).cloned().collect()
    }

    /// Returns whether more than half of the branches of some project are in `going`.
    fn is_much(&self, going: &BTreeSet<BranchName>) -> bool {
        let projects: BTreeSet<&str> =
            self.branches.iter().map(|branch| branch.name.project.as_str()).collect();
        projects.into_iter().any(|project| {
            let all = self.branches.iter().filter(|branch| branch.name.project == project).count();
            let goes = going.iter().filter(|name| name.project == project).count();
            goes > all - goes
        })
    }

    /// Lets others work: branches go, come, change, and are made anew under the name they had.
    fn go_on(&mut self, random: &mut Random) {
        let mut branches = std::mem::take(&mut self.branches);
        branches.retain(|_| !random.one_in(8));
        for branch in &mut branches {
            match random.below(16) {
                0 => branch.uid = format!("br-{}", random.next()),
                1 => branch.create_time = Some(now() - SignedDuration::from_hours(30)),
                2 => branch.status.is_protected = !branch.status.is_protected,
                3 => branch.status.default = !branch.status.default,
                4 => branch.status.pending_state = Some(BranchState::Resetting),
                5 => branch.status.expire_time = Some(now()),
                6 => branch.update_time = Some(now()),
                _ => {}
            }
        }
        self.branches = branches;
        if random.one_in(2) {
            let made = self.draw_branch(random);
            self.branches.push(made);
        }
    }

    /// Returns whether what was `planned` may still go, now that others have worked.
    fn may_still_go(&self, planned: &Branch) -> bool {
        let same = self.branches.iter().any(|branch| {
            (&branch.name, &branch.uid, branch.create_time)
                == (&planned.name, &planned.uid, planned.create_time)
                && branch.update_time == planned.update_time
                && branch.status.expire_time == planned.status.expire_time
        });
        same && self.candidates().contains(&planned.name)
            && self.descendants(&planned.name).is_empty()
    }
}

/// Returns what a plan lets go.
fn goes(plan: &Plan) -> BTreeSet<BranchName> {
    plan.deletions().map(|decision| decision.name.clone()).collect()
}

#[test]
fn the_plan_lets_go_what_the_rules_say_in_100_000_worlds() {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..WORLDS {
        let mut random = Random(seed);
        let mut world = World::draw(&mut random);
        let rules = world.rules();
        let planned = plan(&world.branches, now(), &rules);
        let expected = world.expected();

        assert_eq!(goes(&planned), expected, "seed {seed}");
        assert_eq!(planned.branches.len(), world.branches.len(), "seed {seed}");
        let is_much = world.is_much(&expected);
        assert_eq!(planned.confirm(None).is_err(), is_much, "seed {seed}");
        assert_eq!(planned.confirm(Some(expected.len() + 1)).is_err(), is_much, "seed {seed}");
        assert!(planned.confirm(Some(expected.len())).is_ok(), "seed {seed}");
        for decision in &planned.branches {
            *seen.entry(format!("{:?}", decision.reason)).or_default() += 1;
        }
        *seen.entry("is much".to_owned()).or_default() += u32::from(is_much);

        let before = std::mem::take(&mut world.branches);
        world.branches.clone_from(&before);
        world.go_on(&mut random);
        for decision in planned.deletions() {
            let branch = before.iter().find(|branch| branch.name == decision.name).unwrap();
            let again = recheck(decision, &world.branches, now(), &rules);
            let goes = matches!(again, Recheck::Goes(_));
            assert_eq!(goes, world.may_still_go(branch), "seed {seed}: {again:?}");
            let word = if goes { "Goes".to_owned() } else { format!("{again:?}") };
            *seen.entry(format!("then {word}")).or_default() += 1;
        }
    }
    // Worlds that show nothing would prove nothing: each case is met often.
    for case in [
        "Closed",
        "Default",
        "Protected",
        "Root",
        "OtherName",
        "Open",
        "StateUnknown",
        "AgeUnknown",
        "Young",
        "Busy",
        "Parent",
        "is much",
        "then Gone",
        "then Goes",
        "then Stays(Replaced)",
        "then Stays(Parent)",
        "then Stays(Protected)",
        "then Stays(Default)",
        "then Stays(Busy)",
        "then Stays(Changed)",
    ] {
        let count = seen.get(case).copied().unwrap_or_default();
        assert!(count >= 100, "`{case}` was met only {count} times: {seen:?}");
    }
}
