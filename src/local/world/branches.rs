//! Branches: creation from a source, expiry, protection, soft deletion and its undoing.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::databases::DatabaseRecord;
use super::endpoints::EndpointRecord;
use super::lineage::Source;
use super::mask::{Fields, Mask};
use super::operations::{empty, response};
use super::projects::{KEPT_AFTER_DELETION, checked_id};
use super::roles::RoleRecord;
use super::{PageRequest, Started, Work, World};
use crate::local::fault::{Answer, Fault};
use crate::local::ids;
use crate::local::store::Shelf;
use crate::wire::failure::Failure;
use crate::wire::limits::LONGEST_BRANCH_LIFE;
use crate::wire::names::{BranchName, PRIMARY_ENDPOINT, ProjectName, ROOT_BRANCH};
use crate::wire::postgres::{
    Body, Branch, BranchList, BranchSpec, BranchState, BranchStatus, EndpointState,
};

const MOST_BRANCHES: usize = 500;
const MOST_PROTECTED: usize = 1;

/// A branch as it is kept, with its endpoints, so that both change together.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BranchRecord {
    /// Id of the project.
    pub(crate) project: String,
    /// Id in paths.
    pub(crate) id: String,
    /// Unique id: the name of its cluster.
    pub(crate) uid: String,
    /// When it was created.
    pub(crate) create_time: Timestamp,
    /// When it last changed.
    pub(crate) update_time: Timestamp,
    /// When it was deleted.
    pub(crate) delete_time: Option<Timestamp>,
    /// When its data goes for good.
    pub(crate) purge_time: Option<Timestamp>,
    /// Where it is in its life cycle.
    pub(crate) state: BranchState,
    /// When `state` began.
    pub(crate) state_change_time: Timestamp,
    /// Whether it may neither be deleted nor expire.
    pub(crate) protected: bool,
    /// When it will be deleted.
    pub(crate) expire_time: Option<Timestamp>,
    /// Where its data comes from; nothing for the root branch of a project that began empty.
    pub(crate) source: Option<Source>,
    /// Bytes a reader sees, when last measured.
    pub(crate) logical_size_bytes: Option<u64>,
    /// Its computes.
    pub(crate) endpoints: Vec<EndpointRecord>,
    /// Roles of its cluster, as they were last seen; the first is the owner of a new one.
    #[serde(default)]
    pub(crate) roles: Vec<RoleRecord>,
    /// Databases of its cluster, as they were last seen.
    #[serde(default)]
    pub(crate) databases: Vec<DatabaseRecord>,
    /// The operation that makes its cluster, while it runs.
    pub(crate) operation: Option<String>,
}

const FIELDS: Fields = Fields {
    leaves: &["spec.ttl", "spec.expire_time", "spec.no_expiry", "spec.is_protected"],
    groups: &[("spec.expiration", &["spec.ttl", "spec.expire_time", "spec.no_expiry"])],
    lists: &[],
};

impl World {
    /// Creates the branch `id`, or changes it when it is there and `replace` is set.
    ///
    /// `oldest` is the earliest moment its source can be copied at, when one was asked for.
    pub(crate) fn create_branch(
        &mut self,
        project: &str,
        id: Option<&str>,
        spec: &BranchSpec,
        replace: bool,
        oldest: Option<Timestamp>,
        now: Timestamp,
    ) -> Answer<Started> {
        self.project(project)?;
        let id = checked_id("branch_id", id)?;
        let expiry = expiration(spec, now)?;
        if self.uid(project, id).is_some() {
            if !replace {
                return Err(Fault::taken("branch with such id already exists"));
            }
            let name = ProjectName::new(project).branch(id);
            return self.change_branch(&name, expiry, spec.is_protected, now);
        }
        let Some(expire_time) = expiry else {
            return Err(Fault::invalid("Expiration must be specified when creating a branch"));
        };
        let protected = spec.is_protected.unwrap_or(false);
        if protected && expire_time.is_some() {
            return Err(Fault::bad_request("Protected branches cannot have an expiration date"));
        }
        if protected {
            self.check_protection(project)?;
        }
        if self.live_of(project).count() >= MOST_BRANCHES {
            let text = format!("the project has {MOST_BRANCHES} branches, the most there may be");
            return Err(Fault::exhausted(text));
        }
        let source = self.source_of(project, spec, oldest, now)?;
        let copied = &self.branches[&source.uid];
        let (roles, databases) = (copied.roles.clone(), copied.databases.clone());
        let mut branch = BranchRecord::new(project, id, now);
        branch.expire_time = expire_time;
        branch.protected = protected;
        branch.source = Some(source);
        branch.roles = roles;
        branch.databases = databases;
        let settings = self.project(project)?.default_endpoint_settings.clone();
        branch.endpoints = vec![EndpointRecord::new(PRIMARY_ENDPOINT, settings, now)];
        let operation = self.begin("Branch", branch.name(), now);
        branch.operation = Some(operation.clone());
        let work = Work::CreateChild(branch.uid.clone());
        self.insert_branch(branch);
        Ok(Started { operation, work })
    }

    /// Returns a branch as it goes over the wire.
    pub(crate) fn get_branch(&self, name: &BranchName) -> Answer<Branch> {
        Ok(self.wire_branch(self.branch(&name.project, &name.branch)?))
    }

    /// Returns a page of the branches of a project.
    pub(crate) fn list_branches(&self, project: &str, request: &PageRequest) -> Answer<BranchList> {
        self.project(project)?;
        let key = |branch: &&BranchRecord| format!("{} {}", branch.id, branch.uid);
        let (page, next_page_token) = if request.show_deleted {
            let all = self.branches.values().filter(|branch| branch.project == project);
            let mut all: Vec<&BranchRecord> = all.collect();
            all.sort_by(|one, other| (&one.id, &one.uid).cmp(&(&other.id, &other.uid)));
            request.cut(all.into_iter(), key)?
        } else {
            request.cut(self.live_of(project), key)?
        };
        let branches = page.into_iter().map(|branch| self.wire_branch(branch)).collect();
        Ok(BranchList { branches, next_page_token })
    }

    /// Changes the fields that `mask` names.
    pub(crate) fn update_branch(
        &mut self,
        name: &BranchName,
        mask: Option<&str>,
        body: &Value,
        now: Timestamp,
    ) -> Answer<Started> {
        self.branch(&name.project, &name.branch)?;
        let mask = Mask::parse(mask, &FIELDS, body)?;
        let mut spec = super::parse::<Body<BranchSpec>>(body)?.spec;
        spec.ttl = spec.ttl.filter(|_| mask.has("spec.ttl"));
        spec.expire_time = spec.expire_time.filter(|_| mask.has("spec.expire_time"));
        spec.no_expiry = spec.no_expiry.filter(|_| mask.has("spec.no_expiry"));
        let protected = spec.is_protected.filter(|_| mask.has("spec.is_protected"));
        let expiry = expiration(&spec, now)?;
        self.change_branch(name, expiry, protected, now)
    }

    fn change_branch(
        &mut self,
        name: &BranchName,
        expiry: Option<Option<Timestamp>>,
        protected: Option<bool>,
        now: Timestamp,
    ) -> Answer<Started> {
        let branch = self.branch(&name.project, &name.branch)?;
        let uid = branch.uid.clone();
        let protected = protected.unwrap_or(branch.protected);
        let expire_time = expiry.unwrap_or(branch.expire_time);
        if expire_time.is_some() {
            if protected {
                let text = "Protected branches cannot have an expiration date";
                return Err(Fault::bad_request(text));
            }
            if self.is_default(branch) {
                return Err(Fault::bad_request(
                    "The default branch cannot have an expiration date",
                ));
            }
            if self.has_children(branch) {
                let text = "Branches with child branches cannot have an expiration date";
                return Err(Fault::bad_request(text));
            }
        }
        if protected && !branch.protected {
            self.check_protection(&name.project)?;
        }
        self.with_branch(&uid, |branch| {
            branch.protected = protected;
            branch.expire_time = expire_time;
            branch.update_time = now;
        });
        let answer = response(&self.get_branch(name)?);
        let operation = self.finished("Branch", name, answer, now);
        Ok(Started { operation, work: Work::Nothing })
    }

    /// Refuses to protect one more branch of a project.
    ///
    /// Source: limits of the Terraform provider's documentation, read 2026-08.
    fn check_protection(&self, project: &str) -> Answer<()> {
        if self.live_of(project).filter(|branch| branch.protected).count() < MOST_PROTECTED {
            return Ok(());
        }
        Err(Fault::exhausted("the project has 1 protected branch, the most there may be"))
    }

    /// Deletes a branch: for good with `purge`, else so that it can be undeleted.
    pub(crate) fn delete_branch(
        &mut self,
        name: &BranchName,
        purge: bool,
        now: Timestamp,
    ) -> Answer<Started> {
        self.project(&name.project)?;
        let Some(uid) = self.uid(&name.project, &name.branch) else {
            // What is deleted already may still be purged.
            let deleted = self.deleted_uid(name).filter(|_| purge);
            let uid = deleted.ok_or_else(|| Fault::missing("branch"))?;
            self.drop_branch(&uid);
            let operation = self.finished("Branch", name, empty(), now);
            return Ok(Started { operation, work: Work::Remove(vec![uid]) });
        };
        let branch = &self.branches[&uid];
        if branch.protected {
            return Err(Fault::bad_request("cannot delete protected branch"));
        }
        if branch.is_root() {
            return Err(Fault::managed_by_parent(format!(
                "Cannot delete root branch '{name}'. Root branches cannot be deleted independently."
            )));
        }
        if self.is_default(branch) {
            return Err(Fault::bad_request("cannot delete default branch"));
        }
        if self.has_children(branch) {
            return Err(Fault::bad_request("cannot delete branch with child branches"));
        }
        if branch.busy() {
            return Err(Fault::busy(name));
        }
        let work = if purge {
            self.drop_branch(&uid);
            Work::Remove(vec![uid])
        } else {
            self.retire_branch(&uid, now);
            Work::Retire(vec![uid])
        };
        let operation = self.finished("Branch", name, empty(), now);
        Ok(Started { operation, work })
    }

    fn retire_branch(&mut self, uid: &str, now: Timestamp) {
        self.with_branch(uid, |branch| {
            branch.delete_time = Some(now);
            branch.purge_time = Some(now + KEPT_AFTER_DELETION);
            branch.expire_time = None;
            branch.update_time = now;
            branch.enter(BranchState::Deleted, now);
        });
        if let Some(branch) = self.branches.get(uid) {
            self.live.remove(&(branch.project.clone(), branch.id.clone()));
        }
    }

    /// Brings back the branch of that name that was deleted last.
    pub(crate) fn undelete_branch(&mut self, name: &BranchName, now: Timestamp) -> Answer<Started> {
        self.project(&name.project)?;
        if self.uid(&name.project, &name.branch).is_some() {
            return Err(Fault::bad_request("branch is not deleted"));
        }
        let uid = self.deleted_uid(name).ok_or_else(|| Fault::missing("branch"))?;
        self.with_branch(&uid, |branch| {
            branch.delete_time = None;
            branch.purge_time = None;
            branch.update_time = now;
            branch.enter(BranchState::Ready, now);
        });
        self.live.insert((name.project.clone(), name.branch.clone()), uid.clone());
        let answer = response(&self.get_branch(name)?);
        let operation = self.finished("Branch", name, answer, now);
        Ok(Started { operation, work: Work::Revive(vec![uid]) })
    }

    fn deleted_uid(&self, name: &BranchName) -> Option<String> {
        self.branches
            .values()
            .filter(|branch| branch.project == name.project && branch.id == name.branch)
            .filter(|branch| branch.delete_time.is_some())
            .max_by_key(|branch| branch.delete_time)
            .map(|branch| branch.uid.clone())
    }

    /// Reports that the cluster of a branch is there, or why it could not be made.
    ///
    /// A branch that could not be made is gone again, and so is the project it was the first of.
    pub(crate) fn finish_branch(
        &mut self,
        uid: &str,
        result: Result<Option<(String, Timestamp)>, Failure>,
        now: Timestamp,
    ) {
        let Some(branch) = self.branches.get(uid) else { return };
        let Some(operation) = branch.operation.clone() else { return };
        let (name, root) = (branch.name(), branch.is_root());
        let start = match result {
            Ok(start) => start,
            Err(failure) => {
                match root {
                    true => self.drop_project(&name.project),
                    false => self.drop_branch(uid),
                }
                return self.finish(&operation, Err(failure));
            }
        };
        self.with_branch(uid, |branch| {
            branch.operation = None;
            branch.enter(BranchState::Ready, now);
            for endpoint in &mut branch.endpoints {
                endpoint.state = EndpointState::Active;
                endpoint.last_active_time = Some(now);
            }
            if let (Some(source), Some((lsn, time))) = (&mut branch.source, start) {
                source.lsn = Some(lsn);
                source.time = Some(time);
            }
        });
        let answer = match root {
            true => self.get_project(&name.project).map(|project| response(&project)),
            false => self.get_branch(&name).map(|branch| response(&branch)),
        };
        self.finish(&operation, answer.map_err(|fault| fault.failure));
    }

    /// Deletes the branches that have expired and purges what was deleted long ago.
    ///
    /// Returns the branches whose endpoints are to be closed, and those whose clusters are to be removed.
    pub(crate) fn sweep(&mut self, now: Timestamp) -> (Vec<String>, Vec<String>) {
        let expired: Vec<String> = self
            .branches
            .values()
            .filter(|branch| branch.delete_time.is_none() && !branch.busy())
            .filter(|branch| branch.expire_time.is_some_and(|time| time <= now))
            .map(|branch| branch.uid.clone())
            .collect();
        for uid in &expired {
            self.retire_branch(uid, now);
        }
        let mut purged: Vec<String> = self
            .branches
            .values()
            .filter(|branch| branch.purge_time.is_some_and(|time| time <= now))
            .map(|branch| branch.uid.clone())
            .collect();
        for uid in &purged {
            self.drop_branch(uid);
        }
        purged.extend(self.purge_projects(now));
        (expired, purged)
    }

    /// Returns a live branch of a live project.
    pub(crate) fn branch(&self, project: &str, id: &str) -> Answer<&BranchRecord> {
        self.project(project)?;
        let uid = self.uid(project, id).ok_or_else(|| Fault::missing("branch"))?;
        Ok(&self.branches[&uid])
    }

    /// Returns the uid of a live branch.
    pub(super) fn uid(&self, project: &str, id: &str) -> Option<String> {
        self.live.get(&(project.to_owned(), id.to_owned())).cloned()
    }

    /// Returns a branch by uid, deleted ones included.
    pub(crate) fn branch_by_uid(&self, uid: &str) -> Option<&BranchRecord> {
        self.branches.get(uid)
    }

    /// Says whether the cluster `name` belongs to a branch or to an endpoint, deleted ones included.
    pub(crate) fn owns_cluster(&self, name: &str) -> bool {
        self.branches.contains_key(name)
            || self.branches.values().any(|branch| branch.endpoint_by_uid(name).is_some())
    }

    /// Returns every branch that can be connected to: ready, not deleted, nor its project.
    pub(crate) fn open_branches(&self) -> impl Iterator<Item = &BranchRecord> {
        self.live
            .values()
            .filter_map(|uid| self.branches.get(uid))
            .filter(|branch| branch.operation.is_none() && self.project(&branch.project).is_ok())
    }

    /// Returns the uids of every branch, deleted ones included.
    #[cfg(test)]
    pub(crate) fn branch_uids(&self) -> impl Iterator<Item = &String> {
        self.branches.keys()
    }

    /// Returns how many live branches there are.
    pub(crate) fn count_branches(&self) -> usize {
        self.open_branches().count()
    }

    /// Changes a branch in place.
    pub(crate) fn with_branch(&mut self, uid: &str, change: impl FnOnce(&mut BranchRecord)) {
        if self.branches.contains_key(uid) {
            // Before the change, so that one that breaks off is undone.
            self.touch(Shelf::Branches, uid);
        }
        self.branches.get_mut(uid).map(change);
    }

    pub(super) fn insert_branch(&mut self, branch: BranchRecord) {
        self.live.insert((branch.project.clone(), branch.id.clone()), branch.uid.clone());
        self.touch(Shelf::Branches, &branch.uid);
        self.branches.insert(branch.uid.clone(), branch);
    }

    /// Removes a branch from the state; its cluster is somebody else's matter.
    pub(super) fn drop_branch(&mut self, uid: &str) {
        let Some(branch) = self.branches.remove(uid) else { return };
        let key = (branch.project, branch.id);
        if self.live.get(&key).is_some_and(|live| live == uid) {
            self.live.remove(&key);
        }
        self.touch(Shelf::Branches, uid);
    }

    /// Returns the live branches of a project, by their ids.
    pub(super) fn live_of(&self, project: &str) -> impl Iterator<Item = &BranchRecord> {
        let first = (project.to_owned(), String::new());
        let live = self.live.range(first..).take_while(move |((of, _), _)| of == project);
        live.map(|(_, uid)| &self.branches[uid])
    }

    /// Returns the uids of all branches of a project, deleted ones included.
    pub(super) fn uids_of(&self, project: &str) -> Vec<String> {
        let all = self.branches.values().filter(|branch| branch.project == project);
        all.map(|branch| branch.uid.clone()).collect()
    }

    fn is_default(&self, branch: &BranchRecord) -> bool {
        self.projects
            .get(&branch.project)
            .is_some_and(|project| project.default_branch == branch.id)
    }

    fn has_children(&self, branch: &BranchRecord) -> bool {
        let copies = |other: &BranchRecord| {
            other.source.as_ref().is_some_and(|source| source.uid == branch.uid)
        };
        self.live_of(&branch.project).any(copies)
    }

    fn wire_branch(&self, branch: &BranchRecord) -> Branch {
        let name = branch.name();
        let ready = branch.operation.is_none();
        // That of a root branch is in another project.
        let source = branch.source.as_ref().filter(|_| !branch.is_root());
        Branch {
            branch_id: Some(branch.id.clone()),
            uid: branch.uid.clone(),
            parent: Some(name.parent()),
            create_time: Some(branch.create_time),
            update_time: Some(branch.update_time),
            status: BranchStatus {
                branch_id: branch.id.clone(),
                current_state: branch.state,
                pending_state: (!ready).then_some(BranchState::Ready),
                state_change_time: Some(branch.state_change_time),
                default: self.is_default(branch) && branch.delete_time.is_none(),
                is_protected: branch.protected,
                logical_size_bytes: branch.logical_size_bytes,
                source_branch: source.map(|source| name.parent().branch(&source.id)),
                source_branch_lsn: source.and_then(|source| source.lsn.clone()),
                source_branch_time: source.and_then(|source| source.time),
                expire_time: branch.expire_time,
                delete_time: branch.delete_time,
                purge_time: branch.purge_time,
            },
            name,
        }
    }
}

impl BranchRecord {
    /// Creates a branch whose cluster is still to be made.
    pub(super) fn new(project: &str, id: &str, now: Timestamp) -> Self {
        BranchRecord {
            project: project.to_owned(),
            id: id.to_owned(),
            uid: ids::readable("br"),
            create_time: now,
            update_time: now,
            delete_time: None,
            purge_time: None,
            state: BranchState::Init,
            state_change_time: now,
            protected: false,
            expire_time: None,
            source: None,
            logical_size_bytes: None,
            endpoints: Vec::new(),
            roles: Vec::new(),
            databases: Vec::new(),
            operation: None,
        }
    }

    /// Returns whether it is the first branch of its project, which lives and dies with that.
    pub(super) fn is_root(&self) -> bool {
        self.id == ROOT_BRANCH
    }

    /// Says whether its cluster, or one of a read-only endpoint, is being made.
    pub(super) fn busy(&self) -> bool {
        self.operation.is_some() || self.endpoints.iter().any(|each| each.operation.is_some())
    }

    /// Returns an endpoint by uid.
    pub(crate) fn endpoint_by_uid(&self, uid: &str) -> Option<&EndpointRecord> {
        self.endpoints.iter().find(|endpoint| endpoint.uid == uid)
    }

    /// Returns its full name.
    pub(crate) fn name(&self) -> BranchName {
        ProjectName::new(&self.project).branch(&self.id)
    }

    fn enter(&mut self, state: BranchState, now: Timestamp) {
        self.state = state;
        self.state_change_time = now;
    }
}

/// Reads the one-of group of expiry: nothing when it is not given, else the moment or never.
fn expiration(spec: &BranchSpec, now: Timestamp) -> Answer<Option<Option<Timestamp>>> {
    let given = [spec.ttl.is_some(), spec.expire_time.is_some(), spec.no_expiry.is_some()];
    if given.into_iter().filter(|given| *given).count() > 1 {
        return Err(Fault::invalid("only one of ttl, expire_time and no_expiry can be set"));
    }
    let time = match (spec.ttl, spec.expire_time, spec.no_expiry) {
        (Some(ttl), ..) => ttl.after(now),
        (_, Some(time), _) => time,
        (.., Some(true)) => return Ok(Some(None)),
        (.., Some(false)) => return Err(Fault::invalid("no_expiry can only be true")),
        _ => return Ok(None),
    };
    if time <= now {
        return Err(Fault::invalid("expiration time must be in the future"));
    }
    if time > now + LONGEST_BRANCH_LIFE {
        return Err(Fault::invalid("expiration time exceeds the maximum expiration time"));
    }
    Ok(Some(Some(time)))
}
