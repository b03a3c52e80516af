//! Bundle variables that the generated resources use, so that targets can differ.

use serde::Serialize;

/// A variable with its default; declared in the generated file unless the bundle does so itself.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Variable {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) default: u32,
}

/// Version of PostgreSQL.
pub(super) const PG_VERSION: Variable = Variable {
    name: "lakebase_pg_version",
    description: "Major version of PostgreSQL of new projects",
    default: 17,
};

/// Lower limit of compute.
pub(super) const MIN_CU: Variable = Variable {
    name: "lakebase_min_cu",
    description: "Smallest compute of an endpoint, in CU",
    default: 2,
};

/// Upper limit of compute.
pub(super) const MAX_CU: Variable = Variable {
    name: "lakebase_max_cu",
    description: "Largest compute of an endpoint, in CU",
    default: 8,
};

/// All of them, in the order in which they are declared.
pub(super) const ALL: [Variable; 3] = [PG_VERSION, MIN_CU, MAX_CU];
