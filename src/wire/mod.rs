//! JSON shapes of the workspace's REST API, one file per resource; no behaviour.
//!
//! Client and emulator share these types, so the tests at the foot of each file read examples
//! recorded from public documentation rather than what this crate itself would write.

pub(crate) mod apps;
pub(crate) mod failure;
pub(crate) mod identity;
pub(crate) mod instances;
pub(crate) mod limits;
pub(crate) mod names;
pub(crate) mod postgres;
pub(crate) mod roles;
pub(crate) mod workspace;
