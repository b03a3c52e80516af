//! Branches: create, restore, list, get, delete; in one project or in all at once.

mod create;
mod delete;
mod lineage;
mod list;
mod make;

pub(crate) use create::{Create, Created, Expiry, Outcome, create};
pub(crate) use delete::{DeletePlan, Deleted, delete, plan_delete, remove, unprotect};
pub(crate) use list::{Detail, get, list};
