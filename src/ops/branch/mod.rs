//! Branches: create, restore, list, get, delete; in one project or in all at once.

mod create;
mod delete;
mod ensure;
mod lineage;
mod list;
mod plan;
mod request;
mod roll_back;

#[cfg(test)]
pub(crate) use create::create_until;
pub(crate) use create::{create, plan_create};
pub(crate) use delete::{DeletePlan, Deleted, delete, plan_delete, remove};
pub(crate) use list::{Detail, get, list};
pub(crate) use request::{Create, Created, Expiry, Outcome};
