//! Who comes next: calls arrive, are carried out, and are answered one at a time, in an order that
//! a seed decides; answers get lost, calls are turned away, programs are interrupted and killed.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::workspace::{Actor, Workspace, refused};
use crate::api::{Call, Client, Error};
use crate::error::{self, Kind};
use crate::ui::{Interrupt, Steps};

/// A call on its way.
struct Parked {
    actor: Actor,
    call: Call,
    /// The number of the call and what the workspace says, once it carried it out.
    outcome: Option<(u64, Result<Value, Error>)>,
    /// Where the answer goes; closed when the program waits no longer.
    reply: oneshot::Sender<Result<Vec<u8>, Error>>,
}

/// The workspace and all that is on its way to it and back.
pub(super) struct Network {
    parked: Arc<Mutex<Vec<Parked>>>,
    workspace: Mutex<Workspace>,
    /// The clients of both programs: made once, because that takes longer than most runs.
    clients: [Client; 2],
}

/// One of the two programs.
pub(super) struct Program<T> {
    /// Where it hears of signals.
    pub(super) steps: Steps,
    /// Its run.
    pub(super) run: JoinHandle<T>,
}

/// What is done next.
#[derive(Debug, Hash)]
enum Move {
    CarryOut(usize),
    Answer(usize),
    Lose(usize),
    TurnAway(usize),
    Finish(usize),
    Interrupt(Actor),
    Kill(Actor),
    Wait,
}

/// How often something may go wrong in one run.
struct Trouble {
    lost: u32,
    turned_away: u32,
    signals: u32,
}

impl Network {
    /// Creates a network on which nothing is under way.
    pub(super) fn new(workspace: Workspace) -> Self {
        let parked: Arc<Mutex<Vec<Parked>>> = Arc::default();
        let clients = [0, 1].map(|actor| {
            let parked = parked.clone();
            Client::answered_by(move |call| {
                let (reply, answer) = oneshot::channel();
                locked(&parked).push(Parked { actor, call, outcome: None, reply });
                async move { answer.await.unwrap_or_else(|_| Err(lost())) }.boxed()
            })
        });
        Network { parked, workspace: Mutex::new(workspace), clients }
    }

    /// Begins again with `workspace`.
    pub(super) fn reset(&self, workspace: Workspace) {
        assert!(locked(&self.parked).is_empty(), "the last run has ended");
        *locked(&self.workspace) = workspace;
    }

    /// Returns the client of `actor`.
    pub(super) fn client(&self, actor: Actor) -> Client {
        self.clients[actor].clone()
    }

    /// Returns the workspace.
    pub(super) fn workspace(&self) -> MutexGuard<'_, Workspace> {
        locked(&self.workspace)
    }

    /// Runs the programs to their end, in the order that `seed` decides, and returns what tells this
    /// order from others.
    pub(super) async fn play<T>(&self, programs: &[Program<T>], seed: u64) -> u64 {
        let (mut dice, mut path) = (Dice(seed), DefaultHasher::new());
        let mut trouble = Trouble { lost: 2, turned_away: 2, signals: 2 };
        loop {
            // Paused time goes on when nobody has anything left to do.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let over = programs.iter().all(|program| program.run.is_finished());
            if over && locked(&self.parked).is_empty() {
                return path.finish();
            }
            let next = self.choose(programs, &mut trouble, &mut dice);
            self.describe(&next).hash(&mut path);
            self.carry_on(next, programs).await;
        }
    }

    fn choose<T>(&self, programs: &[Program<T>], trouble: &mut Trouble, dice: &mut Dice) -> Move {
        let (parked, running) = (locked(&self.parked), locked(&self.workspace).running());
        let mut usual: Vec<Move> = (0..running.len()).map(Move::Finish).collect();
        let mut rare = Vec::new();
        for (index, parked) in parked.iter().enumerate() {
            if parked.outcome.is_some() {
                usual.push(Move::Answer(index));
                rare.extend((trouble.lost > 0).then_some(Move::Lose(index)));
            } else {
                usual.push(Move::CarryOut(index));
                rare.extend((trouble.turned_away > 0).then_some(Move::TurnAway(index)));
            }
        }
        let alive = |actor: &Actor| !programs[*actor].run.is_finished();
        if trouble.signals > 0 {
            for actor in (0..programs.len()).filter(alive) {
                rare.extend([Move::Interrupt(actor), Move::Kill(actor)]);
            }
        }
        if !rare.is_empty() && dice.below(12) == 0 {
            let chosen = rare.swap_remove(dice.below(rare.len()));
            match chosen {
                Move::Lose(_) => trouble.lost -= 1,
                Move::TurnAway(_) => trouble.turned_away -= 1,
                _ => trouble.signals -= 1,
            }
            return chosen;
        }
        if usual.is_empty() || dice.below(20) == 0 {
            return Move::Wait;
        }
        usual.swap_remove(dice.below(usual.len()))
    }

    /// Returns what tells a move from others in whatever order the calls are kept.
    fn describe(&self, next: &Move) -> (std::mem::Discriminant<Move>, String) {
        let parked = locked(&self.parked);
        let what = match next {
            Move::CarryOut(index)
            | Move::Answer(index)
            | Move::Lose(index)
            | Move::TurnAway(index) => {
                let Parked { actor, call, .. } = &parked[*index];
                format!("{actor} {} {}", call.method, call.path)
            }
            Move::Finish(index) => locked(&self.workspace).running()[*index].clone(),
            Move::Interrupt(actor) | Move::Kill(actor) => actor.to_string(),
            Move::Wait => String::new(),
        };
        (std::mem::discriminant(next), what)
    }

    async fn carry_on<T>(&self, next: Move, programs: &[Program<T>]) {
        let take = |index: usize| locked(&self.parked).swap_remove(index);
        match next {
            Move::CarryOut(index) => {
                let mut parked = locked(&self.parked);
                let Parked { actor, call, outcome, reply } = &mut parked[index];
                let mut workspace = locked(&self.workspace);
                let answer = workspace.call(*actor, call, reply.is_closed());
                *outcome = Some((workspace.last_call(), answer));
            }
            Move::Answer(index) => {
                let Parked { actor, outcome, reply, .. } = take(index);
                let (call, outcome) = outcome.expect("only what was carried out is answered");
                if let Ok(answer) = &outcome
                    && !reply.is_closed()
                {
                    locked(&self.workspace).delivered(actor, call, answer);
                }
                // Who has ended hears nothing.
                let _ = reply.send(outcome.map(|answer| answer.to_string().into_bytes()));
            }
            Move::Lose(index) => drop(take(index)),
            Move::TurnAway(index) => {
                let busy = refused(503, "TEMPORARILY_UNAVAILABLE", "busy");
                let _ = take(index).reply.send(Err(busy));
            }
            Move::Finish(index) => {
                let mut workspace = locked(&self.workspace);
                let name = workspace.running().swap_remove(index);
                workspace.finish(&name);
            }
            Move::Interrupt(actor) => {
                let program = &programs[actor];
                // A program that does not clean up ends at once.
                if !program.steps.interrupt(Interrupt::Interrupted) {
                    program.run.abort();
                }
            }
            Move::Kill(actor) => programs[actor].run.abort(),
            Move::Wait => tokio::time::sleep(Duration::from_millis(700)).await,
        }
    }
}

/// Returns what a client sees when an answer is lost.
fn lost() -> Error {
    let reason = error::Error::new(Kind::Unavailable, "no answer");
    Error::NoAnswer { reason, may_have_arrived: true }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The splitmix64 generator.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }
}
