//! Finding and removing the branches that no open pull request needs.
//!
//! Only what is proved unneeded goes: any doubt and any failed look-up keeps a branch.

mod apply;
mod open_prs;
mod plan;

pub(crate) use apply::{Removed, Summary, apply, look};
pub(crate) use open_prs::OpenPullRequests;
pub(crate) use plan::{Decision, Plan, Rules};
