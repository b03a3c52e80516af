//! A workspace in memory, one call at a time, that remembers who made, saw and changed which branch.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::api::{Call, Error};
use crate::wire::failure::Failure;
use crate::wire::names::{BranchName, ProjectName, ROOT_BRANCH};
use crate::wire::postgres::{Body, Branch, BranchSpec, BranchState};

/// Who sends a call.
pub(super) type Actor = usize;

/// The project in which nothing can be created.
pub(super) const BROKEN: &str = "broken";

/// A deletion that took place.
#[derive(Debug, Clone)]
pub(super) struct Deletion {
    /// Who did it.
    pub(super) actor: Actor,
    /// Who made the branch; nobody, when it was there from the start.
    pub(super) maker: Option<Actor>,
    /// Whether an answer told the actor that its own call made the branch.
    pub(super) returned: bool,
    /// Whether it cannot be undone.
    pub(super) purge: bool,
    /// Whether the actor looked at the branch since it last asked for its deletion.
    pub(super) looked: bool,
    /// Whether the actor had seen the branch.
    pub(super) seen: bool,
    /// Whether somebody else changed it before the actor looked at it last.
    pub(super) changed_before: bool,
    /// Whether somebody else changed it after that, which no client can see.
    pub(super) changed_after: bool,
}

/// What an actor did with a branch, or saw of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Made,
    /// By the answer to the call of this number.
    Seen(u64),
    Changed,
}

/// A change that was begun.
#[derive(Debug, Clone)]
struct Operation {
    name: String,
    branch: BranchName,
    /// Unique id of the branch that it makes, and who asked for it.
    makes: Option<(Actor, String)>,
    done: Option<Value>,
}

/// The state.
#[derive(Debug)]
pub(super) struct Workspace {
    start: Timestamp,
    calls: u64,
    branches: BTreeMap<BranchName, Branch>,
    operations: Vec<Operation>,
    /// What was done with the branches, by their unique ids.
    log: BTreeMap<String, Vec<(Actor, Deed)>>,
    /// Who was told of which branch that its own call made it.
    returned: BTreeSet<(Actor, String)>,
    /// Who looked at which branch since it last asked for its deletion.
    looked: BTreeSet<(Actor, String)>,
    /// The calls whose answers arrived.
    answered: BTreeSet<u64>,
    /// What was made when nobody waited for it any more.
    late: BTreeSet<String>,
    /// What was deleted.
    pub(super) deletions: Vec<Deletion>,
}

impl Workspace {
    /// Creates a workspace with two projects that have the branches `production` and `dev`; where
    /// `old` is set, `shop` has also `pr-7`. All were made two days before `start`.
    pub(super) fn new(start: Timestamp, old: bool) -> Self {
        let mut workspace = Workspace {
            start,
            calls: 0,
            branches: BTreeMap::new(),
            operations: Vec::new(),
            log: BTreeMap::new(),
            returned: BTreeSet::new(),
            looked: BTreeSet::new(),
            answered: BTreeSet::new(),
            late: BTreeSet::new(),
            deletions: Vec::new(),
        };
        for project in ["shop", BROKEN] {
            let project = ProjectName::new(project);
            let root = project.branch(ROOT_BRANCH);
            workspace.insert(root.clone(), None);
            workspace.insert(project.branch("dev"), Some(root.clone()));
            if old && project.project != BROKEN {
                workspace.insert(project.branch("pr-7"), Some(root));
            }
        }
        for branch in workspace.branches.values_mut() {
            branch.status.current_state = BranchState::Ready;
            branch.create_time = Some(start - SignedDuration::from_hours(48));
        }
        workspace
    }

    fn time(&self) -> Timestamp {
        self.start + SignedDuration::from_millis(i64::try_from(self.calls).expect("a short run"))
    }

    /// Adds a branch that is being made, and returns its unique id.
    fn insert(&mut self, name: BranchName, source: Option<BranchName>) -> String {
        let (time, uid) = (self.time(), format!("br-{}-{}", self.calls, self.branches.len()));
        let status = json!({
            "branch_id": name.branch, "default": name.branch == ROOT_BRANCH, "source_branch": source,
            "current_state": "INIT", "source_branch_time": time,
        });
        let branch = json!({
            "name": name, "uid": uid, "create_time": time, "update_time": time, "status": status,
        });
        let branch = serde_json::from_value(branch).expect("a branch");
        self.branches.insert(name, branch);
        uid
    }

    /// Returns the branch that has `name` now: its unique id, and who made it.
    pub(super) fn find(&self, name: &BranchName) -> Option<(String, Option<Actor>)> {
        let uid = self.branches.get(name)?.uid.clone();
        let maker = self.maker(&uid);
        Some((uid, maker))
    }

    fn maker(&self, uid: &str) -> Option<Actor> {
        let log = self.log.get(uid)?;
        log.iter().find(|(_, deed)| *deed == Deed::Made).map(|(actor, _)| *actor)
    }

    fn note(&mut self, actor: Actor, uid: &str, deed: Deed) {
        self.log.entry(uid.to_owned()).or_default().push((actor, deed));
    }

    /// Returns the operations that go on.
    pub(super) fn running(&self) -> Vec<String> {
        let open = self.operations.iter().filter(|operation| operation.done.is_none());
        open.map(|operation| operation.name.clone()).collect()
    }

    /// Ends an operation.
    pub(super) fn finish(&mut self, name: &str) {
        self.calls += 1;
        let found = self.operations.iter_mut().find(|operation| operation.name == name);
        let operation = found.expect("it was begun");
        let branch = self.branches.get_mut(&operation.branch).expect("it is busy, so it stays");
        branch.status.current_state = BranchState::Ready;
        operation.done = Some(serde_json::to_value(branch).expect("plain data"));
    }

    /// Returns the number of the last call.
    pub(super) fn last_call(&self) -> u64 {
        self.calls
    }

    /// Notes that the answer to the call of that number reached `actor`.
    pub(super) fn delivered(&mut self, actor: Actor, call: u64, answer: &Value) {
        self.answered.insert(call);
        let operation =
            self.operations.iter().find(|operation| answer["name"] == operation.name.as_str());
        if let Some((maker, uid)) = operation.and_then(|operation| operation.makes.clone())
            && maker == actor
        {
            self.returned.insert((actor, uid));
        }
    }

    /// Returns whether a branch was made when nobody waited for it any more.
    pub(super) fn is_late(&self, uid: &str) -> bool {
        self.late.contains(uid)
    }

    /// Carries out a call of `actor`, who waits for the answer unless it is `late`.
    pub(super) fn call(&mut self, actor: Actor, call: &Call, late: bool) -> Result<Value, Error> {
        self.calls += 1;
        let path: Vec<&str> = call.path.split('/').collect();
        match (&*call.method, &path[..]) {
            ("GET", ["projects", project]) => Ok(json!({
                "name": format!("projects/{project}"),
                "status": { "default_branch": format!("projects/{project}/branches/production") },
            })),
            ("GET", ["projects", project, "branches"]) => {
                let all = self.branches.values().filter(|branch| branch.name.project == **project);
                let all: Vec<Branch> = all.cloned().collect();
                for branch in &all {
                    self.note(actor, &branch.uid, Deed::Seen(self.calls));
                }
                Ok(json!({ "branches": all }))
            }
            ("POST", ["projects", project, "branches"]) => self.create(actor, project, call, late),
            (method, ["projects", project, "branches", id]) => {
                let name = ProjectName::new(*project).branch(*id);
                match method {
                    "GET" => self.get(actor, &name),
                    "PATCH" => self.update(actor, &name, call),
                    _ => self.delete(actor, &name, call.parameter("purge").is_some(), late),
                }
            }
            ("GET", ["projects", project, "branches", id, "endpoints"]) => {
                self.existing(&ProjectName::new(*project).branch(*id))?;
                Ok(json!({ "endpoints": [] }))
            }
            ("GET", [.., "Me"]) => {
                Ok(json!({ "id": "1", "userName": format!("{actor}@model.test") }))
            }
            // Nobody has deployed anything.
            ("GET", [.., "workspace", "list"]) => {
                Err(refused(404, "RESOURCE_DOES_NOT_EXIST", "Path doesn't exist."))
            }
            ("GET", [.., "operations", _]) => {
                let found = self.operations.iter().find(|operation| operation.name == call.path);
                Ok(found.expect("only what was begun is asked for").wire())
            }
            _ => panic!("nobody asks for {call:?}"),
        }
    }

    fn existing(&mut self, name: &BranchName) -> Result<&mut Branch, Error> {
        self.branches.get_mut(name).ok_or_else(|| refused(404, "NOT_FOUND", "branch id not found"))
    }

    fn get(&mut self, actor: Actor, name: &BranchName) -> Result<Value, Error> {
        let branch = self.existing(name)?.clone();
        self.note(actor, &branch.uid, Deed::Seen(self.calls));
        self.looked.insert((actor, branch.uid.clone()));
        Ok(serde_json::to_value(branch).expect("plain data"))
    }

    fn create(
        &mut self,
        actor: Actor,
        project: &str,
        call: &Call,
        late: bool,
    ) -> Result<Value, Error> {
        if project == BROKEN {
            return Err(refused(403, "PERMISSION_DENIED", "no"));
        }
        let id = call.parameter("branch_id").expect("a branch is created by name");
        let name = ProjectName::new(project).branch(id);
        if self.branches.contains_key(&name) {
            return Err(refused(409, "ALREADY_EXISTS", "branch with such id already exists"));
        }
        let spec = specification(call);
        let uid = self.insert(name.clone(), spec.source_branch.clone());
        let end = self.end(&spec);
        self.existing(&name)?.status.expire_time = end;
        self.note(actor, &uid, Deed::Made);
        self.late.extend(late.then(|| uid.clone()));
        Ok(self.begin(name, Some((actor, uid)), None))
    }

    fn update(&mut self, actor: Actor, name: &BranchName, call: &Call) -> Result<Value, Error> {
        let (end, time) = (self.end(&specification(call)), self.time());
        let branch = self.existing(name)?;
        branch.status.expire_time = end;
        branch.update_time = Some(time);
        let branch = branch.clone();
        self.note(actor, &branch.uid, Deed::Changed);
        let done = serde_json::to_value(branch).expect("plain data");
        Ok(self.begin(name.clone(), None, Some(done)))
    }

    fn delete(
        &mut self,
        actor: Actor,
        name: &BranchName,
        purge: bool,
        late: bool,
    ) -> Result<Value, Error> {
        let branch = self.existing(name)?.clone();
        if branch.status.current_state == BranchState::Init {
            return Err(refused(409, "ABORTED", "busy"));
        }
        let uid = branch.uid;
        let log = self.log.get(&uid).map_or(&[][..], Vec::as_slice);
        // The actor knows the branch since it made it or saw it first.
        let knows = |(who, deed): &(Actor, Deed)| match deed {
            Deed::Made => *who == actor,
            Deed::Seen(call) => *who == actor && self.answered.contains(call),
            Deed::Changed => false,
        };
        let first = log.iter().position(knows).unwrap_or(log.len());
        let last = log.iter().rposition(knows).unwrap_or(first);
        let changed = |part: &[(Actor, Deed)]| {
            part.iter().any(|(other, deed)| *other != actor && *deed == Deed::Changed)
        };
        self.deletions.push(Deletion {
            actor,
            maker: self.maker(&uid),
            returned: self.returned.contains(&(actor, uid.clone())),
            purge,
            looked: self.looked.contains(&(actor, uid.clone())),
            seen: first < log.len(),
            // One that arrives late was sent before the last look, which asked what had become of it.
            changed_before: !late && changed(&log[first..last]),
            changed_after: changed(&log[last..]),
        });
        self.looked.remove(&(actor, uid));
        self.branches.remove(name);
        let empty = json!({ "@type": "type.googleapis.com/google.protobuf.Empty" });
        Ok(self.begin(name.clone(), None, Some(empty)))
    }

    fn end(&self, spec: &BranchSpec) -> Option<Timestamp> {
        spec.ttl.map(|ttl| ttl.after(self.time())).or(spec.expire_time)
    }

    fn begin(
        &mut self,
        branch: BranchName,
        makes: Option<(Actor, String)>,
        done: Option<Value>,
    ) -> Value {
        let name = format!("{branch}/operations/{}", self.operations.len());
        let operation = Operation { name, branch, makes, done };
        let answer = operation.wire();
        self.operations.push(operation);
        answer
    }
}

impl Operation {
    fn wire(&self) -> Value {
        json!({ "name": self.name, "done": self.done.is_some(), "response": self.done })
    }
}

fn specification(call: &Call) -> BranchSpec {
    serde_json::from_value::<Body<BranchSpec>>(call.body.clone()).expect("a branch").spec
}

/// Returns a refusal.
pub(super) fn refused(status: u16, code: &str, message: &str) -> Error {
    let failure =
        Failure { error_code: code.to_owned(), message: message.to_owned(), details: Vec::new() };
    Error::Refused {
        status,
        failure: Box::new(failure),
        retry_after: None,
        request_id: None,
        login_hint: String::new(),
    }
}
