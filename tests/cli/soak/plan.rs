//! What is done in a round and what is killed meanwhile: all of it follows from the seed.

use std::time::Duration;

use super::ROOT;
use super::family::Family;
use crate::dice::Dice;

/// Copies from which on some are deleted rather than made.
const ENOUGH: usize = 5;
/// Longest time from the beginning of a deed to the kill.
const LONGEST: Duration = Duration::from_millis(1200);
/// Parts of a writer's commits among which the moment of a restore is chosen.
pub(crate) const PARTS: u64 = 1000;

/// What is done while the workspace is killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    Create {
        branch: String,
        source: String,
    },
    /// Makes what `source` was after so many of its commits, in parts of all.
    Restore {
        branch: String,
        source: String,
        part: u64,
    },
    /// Deletes a branch and makes another of its name.
    Renew {
        branch: String,
        source: String,
    },
    /// Deletes a branch, together with all that was copied from it.
    Delete(Vec<String>),
    /// Asks to delete a branch alone that others were copied from.
    DeleteParent(String),
    Deploy,
}

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    Server,
    Compute,
    Backend,
    App,
    ServerAndCompute,
    ServerAndApp,
    /// The server, and the next one while it starts.
    ServerTwice,
}

/// The choices of one round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) deed: Deed,
    pub(crate) victim: Victim,
    /// Which of the victims there are.
    pub(crate) which: [usize; 2],
    /// Commits before the deed begins.
    pub(crate) commits: usize,
    /// Time from there to the kill.
    pub(crate) pause: Duration,
    /// A copy that is written to besides the root.
    pub(crate) writer: Option<String>,
    /// Whether what is deleted is deleted for good.
    pub(crate) purge: bool,
}

impl Plan {
    /// Chooses for round `round` of the run with `seed`. What earlier rounds left to the machine's pace
    /// changes nothing: each round throws dice of its own.
    pub(crate) fn of(seed: u64, round: u64, family: &Family) -> Self {
        let mut dice = Dice::new(seed.wrapping_mul(1_000_003).wrapping_add(round));
        let deed = deed(&mut dice, round, family);
        let victim = *dice.one_of(&[
            Victim::Server,
            Victim::Server,
            Victim::Compute,
            Victim::App,
            Victim::Backend,
            Victim::ServerTwice,
            Victim::ServerAndCompute,
            Victim::ServerAndApp,
        ]);
        let writer = writer(&mut dice, &deed, family);
        let mut number = |limit| usize::try_from(dice.below(limit)).unwrap();
        let which = [number(1000), number(1000)];
        let (commits, purge) = (1 + number(60), number(2) == 0);
        Plan { deed, victim, which, commits, pause: dice.within(LONGEST), writer, purge }
    }
}

fn deed(dice: &mut Dice, round: u64, family: &Family) -> Deed {
    let (number, lot) = (dice.below(12), dice.below(PARTS));
    let (leaves, parents, middle) = (family.leaves(), family.parents(), family.middle());
    let one_of = |names: &[String]| names.get(lot as usize % names.len().max(1)).cloned();
    let full = family.copies().len() >= ENOUGH;
    let with_copies = |name: String| {
        let copies = family.copies_of(&name);
        Deed::Delete([vec![name], copies].concat())
    };
    match (number, one_of(&leaves), one_of(&parents)) {
        (0..6, _, Some(parent)) if full => with_copies(parent),
        (_, Some(leaf), _) if full => Deed::Delete(vec![leaf]),
        (0, Some(leaf), _) => Deed::Delete(vec![leaf]),
        (1, _, Some(parent)) => with_copies(parent),
        (2, _, Some(parent)) => Deed::DeleteParent(parent),
        (3 | 4, Some(leaf), _) => {
            let source = family.get(&leaf).source.clone().unwrap();
            Deed::Renew { branch: leaf, source }
        }
        (5 | 6, ..) => Deed::Deploy,
        _ => {
            let source = one_of(&middle).filter(|_| dice.below(2) == 0);
            let source = source.unwrap_or_else(|| ROOT.to_owned());
            match number % 2 {
                0 => Deed::Create { branch: format!("soak/b{round}"), source },
                _ => {
                    let part = dice.below(PARTS);
                    Deed::Restore { branch: format!("soak/r{round}"), source, part }
                }
            }
        }
    }
}

/// Chooses the copy that is written to: the one that is copied, else any that stays.
fn writer(dice: &mut Dice, deed: &Deed, family: &Family) -> Option<String> {
    let (coin, lot) = (dice.below(2), dice.below(PARTS));
    let goes: &[String] = match deed {
        Deed::Create { source, .. } | Deed::Restore { source, .. } if source != ROOT => {
            return Some(source.clone());
        }
        Deed::Renew { branch, .. } => std::slice::from_ref(branch),
        Deed::Delete(branches) => branches,
        _ => &[],
    };
    let stay: Vec<String> =
        family.copies().into_iter().filter(|branch| !goes.contains(branch)).collect();
    (coin == 0 && !stay.is_empty()).then(|| stay[lot as usize % stay.len()].clone())
}

#[test]
fn a_seed_makes_the_same_choices_whatever_was_confirmed() {
    let mut family = Family::of(ROOT);
    for (branch, source) in [("soak/a", ROOT), ("soak/b", "soak/a"), ("soak/c", ROOT)] {
        family.add(branch, source);
    }
    let choices = |family: &Family, seed| -> Vec<Plan> {
        (1..100).map(|round| Plan::of(seed, round, family)).collect()
    };
    let before = choices(&family, 7);
    family.get_mut(ROOT).next = 1000;

    assert_eq!(choices(&family, 7), before);
    assert_ne!(choices(&family, 8), before);
    let parts = |plan: &Plan| match &plan.deed {
        Deed::Delete(branches) => branches.len(),
        _ => 0,
    };
    let most = before.iter().map(parts).max();
    assert_eq!(most, Some(2), "a branch goes only with its copies");
}
