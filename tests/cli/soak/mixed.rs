//! Starts and stops of one workspace, many at once: each answer is true.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};

use serde_json::Value;

use super::seed;
use crate::dice::Dice;
use crate::forge::Forge;
use crate::own::{self, Own};

#[test]
fn starts_and_stops_at_once_end_in_true_answers() {
    mix(3);
}

#[test]
#[ignore = "takes minutes: `make soak`"]
fn starts_and_stops_at_once_end_in_true_answers_thirty_times() {
    mix(30);
}

fn mix(rounds: u64) {
    let forge = Own(Forge::offline());
    let seed = seed();
    // How often a process was said to be started.
    let mut started: BTreeMap<u64, u32> = BTreeMap::new();
    for round in 0..rounds {
        let mut dice = Dice::new(seed.wrapping_mul(1_000_003).wrapping_add(round));
        let begun: Vec<(bool, Child)> = (0..8)
            .map(|_| {
                let start = dice.below(2) == 0;
                let what = if start { "start --port 0" } else { "stop" };
                let mut command = forge.command(&format!("-q -o json local {what}"));
                let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
                (start, command.spawn().unwrap())
            })
            .collect();
        for (start, child) in begun {
            let output = child.wait_with_output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            if start && output.status.code() == Some(7) {
                assert!(
                    stderr.contains("was stopped while it started"),
                    "{seed} {round}: {stderr}"
                );
                continue;
            }
            assert!(output.status.success(), "{seed} {round}, start {start}: {stderr}");
            let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
            // One that was stopped since says no number.
            if let (true, Some(pid)) = (answer["started"] == true, answer["pid"].as_u64()) {
                *started.entry(pid).or_default() += 1;
            }
        }
        let twice: Vec<_> = started.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "{seed} {round}: started twice: {twice:?}");
        forge.succeed("local stop");
        assert_eq!(own::status(&forge)["running"], false);
        assert!(super::processes::working_in(forge.data()).is_empty(), "{seed} {round}");
    }
}
