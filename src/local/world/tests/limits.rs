//! How much there may be of everything.

use super::*;
use crate::wire::roles::{DatabaseSpec, RoleSpec};

/// Does `one` again and again until it is refused; returns how often it was not, and the refusal.
fn until_refused(mut one: impl FnMut(usize) -> Result<Started, Fault>) -> (usize, String) {
    let mut results = (0..).map(&mut one);
    let accepted = results.by_ref().position(|result| result.is_err()).unwrap();
    (accepted, one(accepted).unwrap_err().failure.message)
}

#[test]
fn a_branch_has_at_most_500_roles_and_databases() {
    let mut world = shop();
    let production = name("production");
    let mut role = |number: usize| {
        let spec: RoleSpec = parse(&json!({ "postgres_role": format!("role{number}") }))?;
        world.create_role(&production, None, &spec, false, now())
    };
    let (roles, refusal) = until_refused(&mut role);
    assert_eq!(
        (roles + 1, refusal.as_str()),
        (500, "the branch has 500 roles, the most there may be")
    );

    let owner = format!("{production}/roles/role0");
    let mut database = |number: usize| {
        let spec = json!({ "postgres_database": format!("db{number}"), "role": owner });
        let spec: DatabaseSpec = parse(&spec)?;
        world.create_database(&production, None, &spec, false, now())
    };
    let (databases, refusal) = until_refused(&mut database);
    let told = "the branch has 500 databases, the most there may be";
    assert_eq!((databases + 1, refusal.as_str()), (500, told));
}

#[test]
fn a_project_has_at_most_500_branches_of_which_one_is_protected() {
    let mut world = shop();
    ready(&mut world, "guarded", json!({ "no_expiry": true, "is_protected": true }));
    let mut protect = |branch: &str, protected: bool| {
        let body = json!({ "spec": { "is_protected": protected } });
        world.update_branch(&name(branch), Some("spec.is_protected"), &body, now())
    };
    let told = "the project has 1 protected branch, the most there may be";
    assert_eq!(protect("production", true).unwrap_err().failure.message, told);
    protect("guarded", true).unwrap();
    protect("guarded", false).unwrap();
    protect("production", true).unwrap();
    let spec = json!({ "no_expiry": true, "is_protected": true });
    assert_eq!(create(&mut world, "other", spec).unwrap_err().failure.message, told);

    let one =
        |number: usize| create(&mut world, &format!("b{number}"), json!({ "no_expiry": true }));
    let (branches, refusal) = until_refused(one);
    assert_eq!(branches + 2, 500);
    assert_eq!(refusal, "the project has 500 branches, the most there may be");
}
