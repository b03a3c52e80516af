//! Finding and removing the branches that no pull request needs any more.
//!
//! Only what is proved unneeded goes: any doubt and any failed look-up keeps a branch.

mod apply;
mod confirm;
mod open_prs;
mod plan;
mod projects;
mod pull_requests;
#[cfg(test)]
mod worlds;

pub(crate) use apply::{Obstacle, Removed, Stage, Summary, apply, look};
pub(crate) use plan::{Decision, Plan, Rules};
pub(crate) use projects::of_bundle;
pub(crate) use pull_requests::PullRequests;
