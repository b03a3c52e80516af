//! The state as the last server left it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::deployments::{self, DeploymentRecord, deployment_uid, id_of};
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
            self.put_branch(branch);
        }
    }

    fn load_deployments(&mut self, records: Vec<DeploymentRecord>) {
        for DeploymentRecord { app, deployment } in records {
            if self.apps.contains_key(&app) {
                deployments::insert(self.deployments.entry(app).or_default(), deployment);
            } else {
                let uid = deployment_uid(&app, &id_of(&deployment));
                self.touch(Shelf::Deployments, uid);
            }
        }
    }

    /// Makes an object what it was: `content` as it was committed, nothing when it was not there.
    pub(crate) fn restore(
        &mut self,
        shelf: Shelf,
        uid: &str,
        content: Option<&RawValue>,
    ) -> serde_json::Result<()> {
        match shelf {
            Shelf::Settings => {
                if let Some(settings) = read(content)? {
                    self.settings = settings;
                }
            }
            Shelf::Identities => put(&mut self.identities, uid, read(content)?),
            Shelf::Operations => {
                self.operations.remove(uid);
                self.operations.extend(read(content)?.map(|was| (uid.to_owned(), was)));
            }
            Shelf::Apps => put(&mut self.apps, uid, read(content)?),
            Shelf::Permissions => put(&mut self.permissions, uid, read(content)?),
            Shelf::Projects => {
                let was: Option<super::ProjectRecord> = read(content)?;
                self.projects.retain(|_, project| project.uid != uid);
                self.projects.extend(was.map(|was| (was.id.clone(), was)));
            }
            Shelf::Branches => {
                let was = read(content)?;
                self.drop_branch(uid);
                if let Some(was) = was {
                    self.put_branch(was);
                }
                // What becomes what it was has not changed.
                self.touched.retain(|touched| *touched != (shelf, uid.to_owned()));
            }
            Shelf::Deployments => self.restore_deployment(uid, read(content)?),
        }
        Ok(())
    }

    fn put_branch(&mut self, branch: super::BranchRecord) {
        if branch.delete_time.is_none() {
            self.live.insert((branch.project.clone(), branch.id.clone()), branch.uid.clone());
        }
        self.branches.insert(branch.uid.clone(), branch);
    }

    fn restore_deployment(&mut self, uid: &str, was: Option<DeploymentRecord>) {
        let Some((app, id)) = uid.rsplit_once('.') else { return };
        let all = self.deployments.entry(app.to_owned()).or_default();
        all.retain(|deployment| id_of(deployment) != id);
        if let Some(DeploymentRecord { deployment, .. }) = was {
            deployments::insert(all, deployment);
        }
        if all.is_empty() {
            self.deployments.remove(app);
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

fn read<T: DeserializeOwned>(content: Option<&RawValue>) -> serde_json::Result<Option<T>> {
    content.map(|content| serde_json::from_str(content.get())).transpose()
}

fn put<T>(objects: &mut BTreeMap<String, T>, key: &str, was: Option<T>) {
    objects.remove(key);
    objects.extend(was.map(|was| (key.to_owned(), was)));
}

fn keyed<T>(objects: Vec<T>, key: impl Fn(&T) -> String) -> BTreeMap<String, T> {
    objects.into_iter().map(|object| (key(&object), object)).collect()
}
