//! A model test: two programs that create, delete and clean up the same branch at the same time, in
//! thousands of orders, with lost answers and signals. The programs are the real ones; the workspace
//! is in memory and keeps a log that the oracle reads.

mod schedule;
mod workspace;

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;

use super::branch::{self, Create, Expiry, Outcome};
use super::creds::Connection;
use super::gc::{self, PullRequests, Rules};
use super::names::{Origin, Resolved};
use crate::api::Client;
use crate::error::{Doing, Error, Kind, Result};
use crate::time::Ttl;
use crate::ui::{Facts, Output, Steps, Ui};
use crate::wire::names::{BranchName, ProjectName};
use schedule::{Network, Program};
use workspace::{Actor, BROKEN, Deletion, Workspace};

/// How long a program waits for a branch.
const WAIT: Duration = Duration::from_secs(30);
/// The branch that all are about.
const NAME: &str = "pr-7";

/// What a program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// `branch create`, with a life of an hour.
    Create,
    /// `branch create --no-expiry`.
    CreateForEver,
    /// `branch create --from dev`.
    CreateFromDev,
    /// `branch create --all --no-expiry`, where another project refuses.
    CreateInAll,
    /// `branch delete --yes`.
    Delete,
    /// `gc --apply --yes`; the pull request is not open any more.
    Gc,
}

impl Task {
    fn creates(self) -> bool {
        !matches!(self, Task::Delete | Task::Gc)
    }
}

/// Two programs, and whether the branch is there from the start.
const PAIRS: [(Task, Task, bool); 14] = [
    (Task::Create, Task::Create, false),
    (Task::CreateForEver, Task::CreateForEver, false),
    (Task::CreateFromDev, Task::Create, false),
    (Task::CreateInAll, Task::CreateForEver, false),
    (Task::CreateInAll, Task::Create, false),
    (Task::CreateInAll, Task::CreateInAll, false),
    (Task::Create, Task::Delete, false),
    (Task::Create, Task::Delete, true),
    (Task::CreateInAll, Task::Delete, true),
    (Task::Create, Task::Gc, true),
    (Task::CreateForEver, Task::Gc, true),
    (Task::CreateInAll, Task::Gc, true),
    (Task::CreateForEver, Task::CreateForEver, true),
    (Task::Delete, Task::Gc, true),
];

/// What came of all runs.
#[derive(Debug, Default)]
struct Count {
    deletions: usize,
    rolled_back: usize,
    /// Deletions of a branch that the other refreshed between the last look at it and the deletion:
    /// the platform has no conditional deletion, so no program can see that.
    unseen: usize,
    reused: usize,
    failed: usize,
}

fn branch_of(project: &str) -> BranchName {
    ProjectName::new(project).branch(NAME)
}

/// Does `task` as the real program would; answers what became of the branch of `shop`.
async fn run(api: Client, steps: Steps, task: Task) -> Result<Option<Outcome>> {
    let target = |project: &str| Resolved { name: branch_of(project), origin: Origin::Name };
    let create = |projects: &[&str], from: Option<&str>, expiry: Expiry| Create {
        branches: projects.iter().map(|project| target(project)).collect(),
        from: from.map(str::to_owned),
        at: None,
        expiry,
        protected: false,
        wait: WAIT,
    };
    let hour = Expiry::After(Ttl::from_secs(3600));
    let request = match task {
        Task::Create => create(&["shop"], None, hour),
        Task::CreateForEver => create(&["shop"], None, Expiry::Never),
        Task::CreateFromDev => create(&["shop"], Some("dev"), hour),
        Task::CreateInAll => create(&["shop", BROKEN], None, Expiry::Never),
        Task::Delete => {
            let plan = branch::plan_delete(&api, vec![target("shop")], &[], false).await?;
            return branch::delete(&api, &steps, plan, WAIT).await.map(|_| None);
        }
        Task::Gc => return clean_up(&api, &steps).await.map(|()| None),
    };
    let plan = branch::plan_create(&api, &steps, request).await?;
    let created = branch::create_until(&api, &steps, plan, &ready).await?;
    Ok(created.first().map(|created| created.outcome))
}

async fn clean_up(api: &Client, steps: &Steps) -> Result<()> {
    let rules = Rules {
        pull_requests: PullRequests::parse_states(r#"[{"number":7,"state":"CLOSED"}]"#)?,
        prefix: "pr-".to_owned(),
        grace: Ttl::from_secs(3600),
        protected: BTreeSet::new(),
    };
    let projects = BTreeSet::from([ProjectName::new("shop")]);
    let plan = gc::look(api, steps, projects, Timestamp::now(), &rules).await?;
    let confirmed = plan.confirm(Some(plan.deletions().count()))?;
    gc::apply(api, steps, &confirmed, &rules, WAIT, &|_| ()).await
}

/// Stands for the wait until SQL works: it asks for the endpoints of the branch, as the real one does.
async fn ready(api: &Client, name: &BranchName, _: Duration) -> Result<Connection> {
    api.list_endpoints(name).await.doing(|| format!("could not connect to `{name}`"))?;
    Ok(Connection {
        host: "model.test".to_owned(),
        port: 5432,
        user: "nobody".to_owned(),
        database: "none".to_owned(),
        endpoint: name.endpoint("primary"),
        token: "nothing".to_owned().into(),
        expire_time: Timestamp::now(),
        authority: None,
    })
}

/// Plays one order, judges it, and returns what tells it from others.
async fn play(network: &Network, pair: (Task, Task, bool), seed: u64, count: &mut Count) -> u64 {
    network.reset(Workspace::new(Timestamp::now(), pair.2));
    let programs = [pair.0, pair.1];
    let programs: Vec<Program<Result<Option<Outcome>>>> = programs
        .into_iter()
        .enumerate()
        .map(|(actor, task)| {
            let steps = Ui::new(Facts::default(), Output::Text, true).steps;
            let run = run(network.client(actor), steps.clone(), task);
            Program { steps, run: tokio::task::spawn_local(run) }
        })
        .collect();
    let order = network.play(&programs, seed).await;
    let context = format!("{pair:?}, seed {seed}");
    let workspace = network.workspace();
    for deletion in &workspace.deletions {
        let task = if deletion.actor == 0 { pair.0 } else { pair.1 };
        judge(task, deletion, &context);
        count.deletions += 1;
        count.rolled_back += usize::from(task.creates());
        count.unseen += usize::from(deletion.changed_after);
    }
    let unseen = workspace.deletions.iter().any(|deletion| deletion.changed_after);
    for (actor, program) in programs.into_iter().enumerate() {
        // What was killed answers nothing.
        let Some(Ok(answer)) = program.run.now_or_never() else { continue };
        count.reused += usize::from(matches!(answer, Ok(Some(Outcome::Reused))));
        count.failed += usize::from(answer.is_err());
        let has_its_branch = workspace.find(&branch_of("shop")).is_some();
        match answer {
            Ok(_) if pair.0.creates() && pair.1.creates() => {
                assert!(has_its_branch || unseen, "the branch of {actor} is gone: {context}");
            }
            Ok(_) => {}
            Err(error)
                if pair.0.creates() && pair.1.creates() && error.kind() == Kind::NotFound =>
            {
                panic!("{actor} does without the branch that the other removed: {context}: {error}")
            }
            Err(error) => judge_failure(actor, &error, &workspace, &context),
        }
    }
    order
}

/// The oracle: nothing is deleted that its own operation did not return, or that the other has
/// refreshed where that could be seen.
fn judge(task: Task, deletion: &Deletion, context: &str) {
    let told = format!("{task:?} in {context}: {deletion:?}");
    assert!(!deletion.purge, "deleted for good: {told}");
    assert!(deletion.looked, "deleted without a look since the last try: {told}");
    assert!(
        task == Task::Gc || !deletion.changed_before,
        "deleted although the other changed it: {told}"
    );
    if task.creates() {
        assert!(deletion.returned, "rolled back what no operation of its own returned: {told}");
    } else {
        assert!(deletion.seen, "deleted what it never saw: {told}");
    }
    let other = deletion.maker.is_some_and(|maker| maker != deletion.actor);
    assert!(!(task.creates() && other), "rolled back what the other made: {told}");
}

/// What a program leaves behind when it fails, it names.
fn judge_failure(actor: Actor, error: &Error, workspace: &Workspace, context: &str) {
    let Some((uid, maker)) = workspace.find(&branch_of("shop")) else { return };
    if maker == Some(actor) && !workspace.is_late(&uid) {
        let name = branch_of("shop").short();
        let named = error.reasons().iter().any(|reason| {
            reason.contains(&name) && (reason.contains("left") || reason.contains("kept"))
        });
        assert!(named, "left without a word: {context}: {error}");
    }
}

/// Plays until `wanted` different orders were seen, with the seeds from `first` on.
async fn explore(wanted: usize, first: u64) -> Count {
    let network = Network::new(Workspace::new(Timestamp::now(), false));
    let (mut orders, mut count) = (HashSet::new(), Count::default());
    for seed in first.. {
        let pair = PAIRS[usize::try_from(seed).expect("a small number") % PAIRS.len()];
        orders.insert(play(&network, pair, seed, &mut count).await);
        if orders.len() >= wanted {
            break;
        }
    }
    count
}

#[tokio::test(start_paused = true)]
async fn nobody_deletes_what_the_other_made_or_keeps_alive() {
    let count = tokio::task::LocalSet::new().run_until(explore(10_000, 0)).await;

    // Orders in which nothing happens show nothing.
    let Count { deletions, rolled_back, reused, failed, .. } = count;
    assert!(deletions > 3000 && rolled_back > 1000 && reused > 1500 && failed > 3000, "{count:?}");
}

#[tokio::test(start_paused = true)]
#[ignore = "takes minutes; `make soak` plays it"]
async fn nobody_deletes_what_the_other_made_or_keeps_alive_in_many_more_orders() {
    tokio::task::LocalSet::new().run_until(explore(200_000, 1 << 32)).await;
}
