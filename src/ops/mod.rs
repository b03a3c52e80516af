//! What the commands do: one file per command, and what several of them share.

pub(crate) mod branch;
pub(crate) mod change;
pub(crate) mod child;
pub(crate) mod confirm;
pub(crate) mod creds;
pub(crate) mod deploy;
pub(crate) mod destroy;
pub(crate) mod drift;
pub(crate) mod gc;
pub(crate) mod init;
mod log;
pub(crate) mod migrate;
#[cfg(test)]
mod model;
pub(crate) mod names;
mod parallel;
mod protection;
pub(crate) mod scaffold;
pub(crate) mod smoke;
mod sql;
