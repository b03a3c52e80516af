//! The state as the last server left it.

use jiff::Timestamp;
use serde_json::Value;

use super::deployments::{DeploymentRecord, deployment_uid, id_of};
use super::operations::{empty, response};
use super::{OperationRecord, Settings, Work, World};
use crate::error::Result;
use crate::local::store::{Shelf, Store};
use crate::wire::failure::Failure;
use crate::wire::names::{BranchName, EndpointName, ProjectName};

impl World {
    /// Reads the state from `store`; `settings` are those of a new workspace, used when there is none.
    pub(crate) fn load(
        store: &Store,
        settings: impl FnOnce() -> Settings,
        postgres_major: u32,
    ) -> Result<World> {
        let known = store.load(Shelf::Settings)?.pop();
        let fresh = known.is_none();
        let mut world = World::new(known.unwrap_or_else(settings), postgres_major);
        if fresh {
            world.touch_settings();
        }
        world.identities =
            keyed(store.load(Shelf::Identities)?, |identity: &super::IdentityRecord| {
                identity.id.to_string()
            });
        world.projects = keyed(store.load(Shelf::Projects)?, |project: &super::ProjectRecord| {
            project.id.clone()
        });
        world.permissions =
            keyed(store.load(Shelf::Permissions)?, |list: &super::AccessList| list.uid.clone());
        world.apps = keyed(store.load(Shelf::Apps)?, |app: &super::AppRecord| app.name.clone());
        let operations: Vec<OperationRecord> = store.load(Shelf::Operations)?;
        world.operations =
            operations.into_iter().map(|operation| (operation.id.clone(), operation)).collect();
        world.load_branches(store.load(Shelf::Branches)?);
        world.load_deployments(store.load(Shelf::Deployments)?);
        Ok(world)
    }

    /// Takes branches over; one without a project is what an unfinished creation or purge left.
    fn load_branches(&mut self, branches: Vec<super::BranchRecord>) {
        for branch in branches {
            let uid = branch.uid.clone();
            if !self.projects.contains_key(&branch.project) {
                self.touch(Shelf::Branches, uid);
                continue;
            }
            if branch.delete_time.is_none() {
                self.live.insert((branch.project.clone(), branch.id.clone()), uid.clone());
            }
            self.branches.insert(uid, branch);
        }
    }

    fn load_deployments(&mut self, records: Vec<DeploymentRecord>) {
        for DeploymentRecord { app, deployment } in records {
            if self.apps.contains_key(&app) {
                self.deployments.entry(app).or_default().push(deployment);
            } else {
                let uid = deployment_uid(&app, &id_of(&deployment));
                self.touch(Shelf::Deployments, uid);
            }
        }
        for deployments in self.deployments.values_mut() {
            deployments.sort_by_key(|deployment| deployment.create_time);
        }
    }

    /// Returns the work that a killed server left undone, and ends the operations that have none left.
    pub(crate) fn resume(&mut self, now: Timestamp) -> Vec<Work> {
        let clusters =
            self.branches.values().filter(|branch| branch.operation.is_some()).map(|branch| {
                match branch.source {
                    Some(_) => Work::CreateChild(branch.uid.clone()),
                    None => Work::CreateRoot(branch.uid.clone()),
                }
            });
        let standbys = self.branches.values().flat_map(|branch| {
            let begun = branch.endpoints.iter().filter(|endpoint| endpoint.operation.is_some());
            begun.map(|endpoint| Work::CreateStandby {
                branch: branch.uid.clone(),
                endpoint: endpoint.uid.clone(),
            })
        });
        let work = clusters.chain(standbys).collect();
        self.settle_catalogs();
        let owned: Vec<&String> = self
            .branches
            .values()
            .flat_map(|branch| {
                let endpoints = branch.endpoints.iter().map(|endpoint| &endpoint.operation);
                endpoints.chain([&branch.operation]).flatten()
            })
            .collect();
        let loose: Vec<OperationRecord> = self
            .operations
            .values()
            .filter(|operation| !operation.done && !owned.contains(&&operation.id))
            .cloned()
            .collect();
        for operation in loose {
            let result = self.outcome(&operation);
            self.finish(&operation.id, result);
        }
        self.fail_pending_deployments(now);
        work
    }

    /// Says how an operation ended whose last step was not written down: by what its resource is now.
    fn outcome(&self, operation: &OperationRecord) -> std::result::Result<Value, Failure> {
        let name = &operation.resource;
        let found = match operation.kind.as_str() {
            "Project" => name
                .parse::<ProjectName>()
                .ok()
                .and_then(|name| self.get_project(&name.project).ok())
                .map(|project| response(&project)),
            "Branch" => name
                .parse::<BranchName>()
                .ok()
                .and_then(|name| self.get_branch(&name).ok())
                .map(|branch| response(&branch)),
            "Role" | "Database" => self.catalog_object(name),
            _ => name
                .parse::<EndpointName>()
                .ok()
                .and_then(|name| self.get_endpoint(&name).ok())
                .map(|endpoint| response(&endpoint)),
        };
        Ok(found.unwrap_or_else(empty))
    }
}

fn keyed<T>(objects: Vec<T>, key: impl Fn(&T) -> String) -> std::collections::BTreeMap<String, T> {
    objects.into_iter().map(|object| (key(&object), object)).collect()
}
