//! The rules of the state machine, one test each.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::identities::IdentityKind;
use super::*;
use crate::local::fault::Fault;
use crate::local::folder::OwnedFolder;
use crate::local::store::Store;
use crate::local::tokens::EVERYTHING;
use crate::wire::names::{BranchName, ProjectName};
use crate::wire::postgres::{BranchSpec, BranchState, EndpointSpec, EndpointState};

mod limits;
mod readers;
mod undo;

fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

fn later(hours: i64) -> Timestamp {
    now() + SignedDuration::from_hours(hours)
}

fn ada() -> Caller {
    Caller {
        user_name: "ada@example.test".to_owned(),
        kind: IdentityKind::User,
        admin: true,
        app: None,
        scope: EVERYTHING.to_owned(),
        expires: None,
    }
}

fn world() -> World {
    World::new(Settings { workspace_id: 1, network: 0x1234, port: 8765 }, 15)
}

/// A world with the project `shop`, whose branch is ready.
fn shop() -> World {
    let mut world = world();
    let started = create_project(&mut world, "shop", json!({})).unwrap();
    finish(&mut world, &started);
    world
}

fn create_project(world: &mut World, id: &str, body: Value) -> Result<Started, Fault> {
    world.create_project(Some(id), parse(&body)?, &ada(), now())
}

fn finish(world: &mut World, started: &Started) {
    match &started.work {
        Work::CreateRoot(uid) => world.finish_branch(uid, Ok(None), now()),
        Work::CreateChild(uid) => {
            world.finish_branch(uid, Ok(Some(("0/1A2B3C4".to_owned(), now()))), now());
        }
        _ => {}
    }
}

fn create(world: &mut World, id: &str, spec: Value) -> Result<Started, Fault> {
    let spec: BranchSpec = parse(&spec)?;
    world.source_uid("shop", &spec)?;
    world.create_branch("shop", Some(id), &spec, false, None, now())
}

fn ready(world: &mut World, id: &str, spec: Value) {
    let started = create(world, id, spec).unwrap();
    finish(world, &started);
}

fn dev() -> BranchName {
    name("dev")
}

fn name(id: &str) -> BranchName {
    ProjectName::new("shop").branch(id)
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Fault>) -> (u16, String, String) {
    let fault = result.unwrap_err();
    let message = fault.failure.message.split(" [TraceId").next().unwrap().to_owned();
    (fault.status, fault.failure.error_code, message)
}

fn text<T: std::fmt::Debug>(result: Result<T, Fault>) -> String {
    let (status, code, message) = refusal(result);
    format!("{status} {code} {message}")
}

#[test]
fn a_project_starts_with_production_and_primary() {
    let mut world = world();
    let started = create_project(&mut world, "shop", json!({})).unwrap();
    assert_eq!(
        world.get_branch(&name("production")).unwrap().status.current_state,
        BranchState::Init
    );
    let operation = world.operation(&started.operation, Some("projects/shop")).unwrap();
    assert!(!operation.done);

    finish(&mut world, &started);

    let branch = world.get_branch(&name("production")).unwrap();
    assert_eq!(branch.status.current_state, BranchState::Ready);
    assert!(branch.status.default && branch.status.source_branch.is_none());
    let endpoint = world.get_endpoint(&name("production").endpoint("primary")).unwrap();
    assert_eq!(endpoint.status.current_state, EndpointState::Active);
    let operation = world.operation(&started.operation, None).unwrap();
    assert_eq!(operation.response.unwrap()["status"]["owner"], "ada@example.test");
    assert_eq!(
        operation.metadata["@type"],
        "type.googleapis.com/databricks.postgres.v1.ProjectOperationMetadata"
    );
}

#[test]
fn ids_are_checked_in_the_platforms_words() {
    let mut world = shop();

    let missing = world.create_project(None, ProjectBody::default(), &ada(), now());
    assert_eq!(
        text(missing),
        "400 INVALID_PARAMETER_VALUE Field 'project_id' is required, expected non-default value (not \"\")!"
    );
    assert_eq!(refusal(create_project(&mut world, "7up", json!({}))).0, 400);
    assert_eq!(
        text(create_project(&mut world, "shop", json!({}))),
        "409 ALREADY_EXISTS project with such id already exists in the workspace"
    );
    assert_eq!(text(world.get_project("nope")), "404 NOT_FOUND project id not found");
    assert_eq!(text(world.get_branch(&dev())), "404 NOT_FOUND branch id not found");
    assert_eq!(
        text(world.get_endpoint(&name("production").endpoint("x"))),
        "404 NOT_FOUND endpoint id not found"
    );
}

#[test]
fn a_branch_needs_exactly_one_expiration() {
    let mut world = shop();

    assert_eq!(
        text(create(&mut world, "dev", json!({}))),
        "400 INVALID_PARAMETER_VALUE Expiration must be specified when creating a branch"
    );
    for spec in [
        json!({ "ttl": "60s", "no_expiry": true }),
        json!({ "no_expiry": false }),
        json!({ "expire_time": "2026-11-20T11:59:59Z" }),
    ] {
        assert_eq!(refusal(create(&mut world, "dev", spec)).0, 400);
    }
    assert!(
        text(create(&mut world, "dev", json!({ "ttl": "2592001s" })))
            .ends_with("expiration time exceeds the maximum expiration time")
    );
    ready(&mut world, "dev", json!({ "ttl": "3600s" }));
    assert_eq!(world.get_branch(&dev()).unwrap().status.expire_time, Some(later(1)));
}

#[test]
fn a_branch_starts_from_the_default_branch_and_says_where_it_really_starts() {
    let mut world = shop();

    ready(&mut world, "dev", json!({ "no_expiry": true }));

    let status = world.get_branch(&dev()).unwrap().status;
    assert_eq!(status.source_branch, Some(name("production")));
    assert_eq!(status.source_branch_lsn.as_deref(), Some("0/1A2B3C4"));
    assert_eq!(status.source_branch_time, Some(now()));
}

#[test]
fn a_source_of_another_project_or_moment_is_refused() {
    let mut world = shop();
    let foreign =
        json!({ "source_branch": "projects/other/branches/production", "no_expiry": true });
    assert_eq!(
        text(create(&mut world, "dev", foreign)),
        "400 BAD_REQUEST source_branch field must point to the branch from the same Project"
    );
    let unknown = json!({ "source_branch": "projects/shop/branches/nope", "no_expiry": true });
    assert_eq!(text(create(&mut world, "dev", unknown)), "404 NOT_FOUND branch id not found");
    for time in ["2026-11-20T12:00:01Z", "2026-11-13T11:59:59Z"] {
        let spec = json!({ "source_branch_time": time, "no_expiry": true });
        assert_eq!(refusal(create(&mut world, "dev", spec)).1, "INVALID_PARAMETER_VALUE", "{time}");
    }
    let no_position = json!({ "source_branch_lsn": "yesterday", "no_expiry": true });
    assert!(text(create(&mut world, "dev", no_position)).contains("Invalid source_branch_lsn"));
    let spec = parse(&json!({ "source_branch_time": "2026-11-20T10:00:00Z", "no_expiry": true }));
    let before_birth =
        world.create_branch("shop", Some("dev"), &spec.unwrap(), false, Some(later(-1)), now());
    assert!(text(before_birth).contains("2026-11-20T11:00:00Z"));
}

#[test]
fn children_of_expiring_branches_are_refused_and_parents_cannot_expire() {
    let mut world = shop();
    ready(&mut world, "dev", json!({ "ttl": "3600s" }));
    ready(&mut world, "stable", json!({ "no_expiry": true }));
    ready(&mut world, "leaf", json!({ "source_branch": name("stable"), "no_expiry": true }));

    let below = json!({ "source_branch": dev(), "no_expiry": true });
    assert!(
        text(create(&mut world, "x", below))
            .ends_with("Branches with an expiration date cannot have child branches")
    );
    let ttl = json!({ "spec": { "ttl": "60s" } });
    for id in ["production", "stable"] {
        let result = world.update_branch(&name(id), Some("spec.expiration"), &ttl, now());
        assert_eq!(refusal(result).1, "BAD_REQUEST", "{id}");
    }
    world.update_branch(&name("leaf"), Some("spec.ttl"), &ttl, now()).unwrap();
}

#[test]
fn protection_and_expiry_exclude_each_other() {
    let mut world = shop();
    let both = json!({ "ttl": "60s", "is_protected": true });
    assert_eq!(refusal(create(&mut world, "dev", both)).1, "BAD_REQUEST");
    ready(&mut world, "dev", json!({ "ttl": "3600s" }));
    let protect = json!({ "spec": { "is_protected": true } });
    let masked = world.update_branch(&dev(), Some("spec.is_protected"), &protect, now());
    assert_eq!(refusal(masked).1, "BAD_REQUEST");

    let both = json!({ "spec": { "is_protected": true, "no_expiry": true } });
    world.update_branch(&dev(), Some("spec.is_protected,spec.no_expiry"), &both, now()).unwrap();

    assert_eq!(
        text(world.delete_branch(&dev(), false, now())),
        "400 BAD_REQUEST cannot delete protected branch"
    );
    assert_eq!(refusal(world.delete_project("shop", true, now())).1, "BAD_REQUEST");
}

#[test]
fn a_mask_limits_what_a_patch_changes() {
    let mut world = shop();
    ready(&mut world, "dev", json!({ "ttl": "3600s" }));
    let body = json!({ "spec": { "is_protected": true, "ttl": "7200s" } });

    world.update_branch(&dev(), Some("spec.expiration"), &body, now()).unwrap();

    let status = world.get_branch(&dev()).unwrap().status;
    assert_eq!((status.is_protected, status.expire_time), (false, Some(later(2))));
    assert_eq!(
        text(world.update_branch(&dev(), Some("spec.source_branch"), &body, now())),
        "400 INVALID_PARAMETER_VALUE Unknown field path in update_mask: 'spec.source_branch'"
    );
}

#[test]
fn root_branches_and_parents_are_not_deleted() {
    let mut world = shop();
    ready(&mut world, "dev", json!({ "no_expiry": true }));
    ready(&mut world, "leaf", json!({ "source_branch": dev(), "no_expiry": true }));

    let fault = world.delete_branch(&name("production"), false, now()).unwrap_err();
    assert_eq!(
        fault.failure.message,
        "Cannot delete root branch 'projects/shop/branches/production'. Root branches cannot be deleted independently."
    );
    assert!(fault.failure.is_managed_by_parent());
    assert!(fault.failure.request_id().is_some());
    assert_eq!(refusal(world.delete_branch(&dev(), false, now())).1, "BAD_REQUEST");
    world.delete_branch(&name("leaf"), false, now()).unwrap();
    world.delete_branch(&dev(), false, now()).unwrap();
}

#[test]
fn the_default_branch_can_be_moved_and_is_then_kept() {
    let mut world = shop();
    ready(&mut world, "main", json!({ "no_expiry": true }));
    ready(&mut world, "brief", json!({ "ttl": "60s" }));
    let body = |id| json!({ "spec": { "default_branch": name(id) } });
    let mask = Some("spec.default_branch");
    assert_eq!(refusal(world.update_project("shop", mask, &body("brief"), now())).1, "BAD_REQUEST");

    world.update_project("shop", mask, &body("main"), now()).unwrap();

    assert!(world.get_branch(&name("main")).unwrap().status.default);
    assert_eq!(
        text(world.delete_branch(&name("main"), false, now())),
        "400 BAD_REQUEST cannot delete default branch"
    );
}

#[test]
fn a_deleted_branch_can_be_undeleted_or_its_id_used_again() {
    let mut world = shop();
    ready(&mut world, "dev", json!({ "ttl": "3600s" }));
    let uid = world.get_branch(&dev()).unwrap().uid;
    let deleted = world.delete_branch(&dev(), false, now()).unwrap();
    assert_eq!(deleted.work, Work::Retire(vec![uid.clone()]));
    assert_eq!(
        world.operation(&deleted.operation, None).unwrap().response.unwrap()["@type"],
        "type.googleapis.com/google.protobuf.Empty"
    );
    let hidden = world.list_branches("shop", &PageRequest::default()).unwrap().branches;
    assert_eq!(hidden.len(), 1);
    let shown = PageRequest { show_deleted: true, ..PageRequest::default() };
    let shown = world.list_branches("shop", &shown).unwrap().branches;
    assert_eq!(shown[0].status.current_state, BranchState::Deleted);
    assert_eq!(shown[0].status.purge_time, Some(later(7 * 24)));

    world.undelete_branch(&dev(), now()).unwrap();
    assert_eq!(world.get_branch(&dev()).unwrap().uid, uid);

    world.delete_branch(&dev(), false, now()).unwrap();
    ready(&mut world, "dev", json!({ "no_expiry": true }));
    assert_ne!(world.get_branch(&dev()).unwrap().uid, uid);
    assert_eq!(refusal(world.undelete_branch(&dev(), now())).1, "BAD_REQUEST");
    assert_eq!(world.sweep(later(7 * 24)).1, [uid]);
    assert!(world.get_branch(&dev()).is_ok());
}

#[test]
fn expired_branches_go_by_themselves() {
    let mut world = shop();
    ready(&mut world, "dev", json!({ "ttl": "3600s" }));
    let uid = world.get_branch(&dev()).unwrap().uid;
    assert_eq!(world.sweep(now()), (vec![], vec![]));

    assert_eq!(world.sweep(later(1)), (vec![uid], vec![]));

    assert_eq!(refusal(world.get_branch(&dev())).0, 404);
}

#[test]
fn a_deleted_project_keeps_its_id_until_it_is_purged() {
    let mut world = shop();
    let deleted = world.delete_project("shop", false, now()).unwrap();
    assert!(matches!(deleted.work, Work::Retire(_)));
    assert_eq!(refusal(world.get_project("shop")).0, 404);
    assert_eq!(refusal(world.get_branch(&name("production"))).0, 404);
    assert_eq!(refusal(create_project(&mut world, "shop", json!({}))).0, 409);
    assert_eq!(world.list_projects(&PageRequest::default()).unwrap().projects.len(), 0);
    let all = PageRequest { show_deleted: true, ..PageRequest::default() };
    assert!(world.list_projects(&all).unwrap().projects[0].purge_time.is_some());

    world.undelete_project("shop", now()).unwrap();
    assert!(world.get_branch(&name("production")).is_ok());

    world.delete_project("shop", false, now()).unwrap();
    let purged = world.delete_project("shop", true, now()).unwrap();
    assert!(matches!(purged.work, Work::Remove(uids) if uids.len() == 1));
    create_project(&mut world, "shop", json!({})).unwrap();
}

#[test]
fn a_deleted_project_is_purged_after_a_week() {
    let mut world = shop();
    world.delete_project("shop", false, now()).unwrap();

    let (_, removed) = world.sweep(later(7 * 24));

    assert_eq!(removed.len(), 1);
    create_project(&mut world, "shop", json!({})).unwrap();
}

#[test]
fn a_branch_under_way_is_neither_deleted_nor_copied() {
    let mut world = shop();
    create(&mut world, "dev", json!({ "no_expiry": true })).unwrap();

    let (status, _, message) = refusal(world.delete_branch(&dev(), false, now()));
    assert_eq!(status, 409);
    assert!(message.contains("reconciliation"));
    let below = json!({ "source_branch": dev(), "no_expiry": true });
    assert_eq!(refusal(create(&mut world, "x", below)).0, 409);
    assert_eq!(refusal(world.delete_project("shop", true, now())).0, 409);
}

#[test]
fn a_branch_that_could_not_be_made_is_gone_and_its_operation_says_why() {
    let mut world = shop();
    let started = create(&mut world, "dev", json!({ "no_expiry": true })).unwrap();
    let Work::CreateChild(uid) = &started.work else { panic!("{started:?}") };

    world.finish_branch(uid, Err(Fault::internal("disk full").failure), now());

    assert_eq!(refusal(world.get_branch(&dev())).0, 404);
    let operation = world.operation(&started.operation, None).unwrap();
    assert!(operation.done);
    assert_eq!(operation.error.unwrap().message, "disk full");
}

#[test]
fn a_second_read_write_endpoint_is_refused_and_replacing_changes_the_first() {
    let mut world = shop();
    let production = name("production");
    let spec: EndpointSpec = parse(&json!({
        "endpoint_type": "ENDPOINT_TYPE_READ_WRITE", "autoscaling_limit_max_cu": 4.0, "no_suspension": true,
    }))
    .unwrap();
    let mut create = |id, replace| {
        world.create_endpoint(&production, Some(id), &spec, replace, now()).map(|_| ())
    };
    assert_eq!(
        text(create("primary", false)),
        "409 ALREADY_EXISTS endpoint with such id already exists"
    );
    assert_eq!(
        text(create("second", true)),
        "409 ALREADY_EXISTS read_write endpoint already exists"
    );

    create("primary", true).unwrap();

    let status = world.get_endpoint(&production.endpoint("primary")).unwrap().status;
    assert_eq!(status.settings.autoscaling_limit_max_cu, Some(4.0));
    assert_eq!(status.settings.no_suspension, Some(true));
    assert_eq!(status.settings.suspend_timeout_duration, None);
}

#[test]
fn the_read_write_endpoint_lives_as_long_as_its_branch() {
    let mut world = shop();
    let primary = name("production").endpoint("primary");

    let fault = world.delete_endpoint(&primary, now()).unwrap_err();

    assert!(fault.failure.is_managed_by_parent());
    assert!(fault.failure.message.starts_with("Cannot delete read-write endpoint 'projects/shop/"));
}

#[test]
fn endpoint_settings_are_kept_within_bounds() {
    let mut world = shop();
    let primary = name("production").endpoint("primary");
    for spec in [
        json!({ "autoscaling_limit_min_cu": 0.25 }),
        json!({ "autoscaling_limit_max_cu": 64.0 }),
        json!({ "autoscaling_limit_min_cu": 8.0 }),
        json!({ "suspend_timeout_duration": "59s" }),
        json!({ "no_suspension": false }),
        json!({ "no_suspension": true, "suspend_timeout_duration": "60s" }),
    ] {
        let body = json!({ "spec": spec });
        let result = world.update_endpoint(&primary, Some("*"), &body, now());
        assert_eq!(refusal(result).1, "INVALID_PARAMETER_VALUE", "{body}");
    }
    let body = json!({ "spec": { "disabled": true, "suspend_timeout_duration": "60s" } });
    let started =
        world.update_endpoint(&primary, Some("spec.disabled,spec.suspension"), &body, now());
    assert!(matches!(started.unwrap().work, Work::Adjust(_)));
    assert!(world.get_endpoint(&primary).unwrap().status.disabled);
}

#[test]
fn callers_may_do_what_they_were_granted() {
    let mut world = shop();
    let eve = Caller {
        user_name: "eve@example.test".to_owned(),
        admin: false,
        kind: IdentityKind::User,
        app: None,
        scope: EVERYTHING.to_owned(),
        expires: None,
    };
    assert_eq!(refusal(world.require_use(&eve, "shop")).0, 403);
    let grant = |level: &str| {
        vec![parse(&json!({ "user_name": "eve@example.test", "permission_level": level })).unwrap()]
    };

    world.grant("database-projects/shop", grant("CAN_USE"), true).unwrap();
    world.require_use(&eve, "shop").unwrap();
    assert_eq!(refusal(world.require_manage(&eve, "shop")).0, 403);

    world.grant("database-projects/shop", grant("CAN_MANAGE"), false).unwrap();
    world.require_manage(&eve, "shop").unwrap();
    let list = world.access("database-projects/shop");
    assert_eq!(list["access_control_list"].as_array().unwrap().len(), 1);
    world.grant("database-projects/shop", grant("CAN_USE"), false).unwrap();
    world.require_manage(&eve, "shop").unwrap();
    let unknown = world.grant("database-projects/shop", grant("CAN_CREATE"), false);
    assert_eq!(refusal(unknown).1, "INVALID_PARAMETER_VALUE");

    world.delete_project("shop", true, now()).unwrap();
    create_project(&mut world, "shop", json!({})).unwrap();
    assert_eq!(refusal(world.require_use(&eve, "shop")).0, 403);
}

#[test]
fn an_app_goes_through_its_states() {
    let mut world = shop();
    let body = json!({ "name": "portal", "resources": [{ "name": "db", "postgres": {
        "branch": name("production"), "permission": "CAN_CONNECT_AND_CREATE",
        "database": "projects/shop/branches/production/databases/databricks-postgres",
    } }] });
    world.create_app(&body, true, &ada(), now()).unwrap();
    assert_eq!(
        text(world.create_app(&body, true, &ada(), now())),
        "409 RESOURCE_ALREADY_EXISTS An app with the same name already exists: portal"
    );
    let deploy = json!({ "source_code_path": "/Workspace/x" });
    let stopped = world.begin_deployment("portal", &deploy, &ada(), now());
    assert_eq!(refusal(stopped).1, "BAD_REQUEST");

    world.start_app("portal", now()).unwrap();
    let deployment = world.begin_deployment("portal", &deploy, &ada(), now()).unwrap();
    let second = world.begin_deployment("portal", &deploy, &ada(), now());
    assert_eq!(refusal(second).0, 409);
    world.finish_deployment("portal", &id_of(&deployment), Ok(()), now());

    let app = world.get_app("portal").unwrap();
    assert_eq!(app["active_deployment"]["status"]["state"], "SUCCEEDED");
    assert_eq!(app["default_source_code_path"], "/Workspace/x");
    world.stop_app("portal", now()).unwrap();
    assert!(world.get_app("portal").unwrap().get("active_deployment").is_none());
    let principal = world.identity(&world.app("portal").unwrap().client_id).unwrap().caller();
    world.require_use(&principal, "shop").unwrap();

    world.delete_app("portal", now()).unwrap();
    assert_eq!(refusal(world.delete_app("portal", now())).1, "BAD_REQUEST");
    world.remove_app("portal");
    assert_eq!(refusal(world.get_app("portal")).0, 404);
    assert!(world.identity(&principal.user_name).is_none());
}

/// Returns an app's body with a database of `project`.
fn attached_to(project: &str) -> Value {
    json!({ "name": "portal", "resources": [{ "name": "db", "postgres": {
        "branch": format!("projects/{project}/branches/production"), "permission": "CAN_CONNECT_AND_CREATE",
        "database": format!("projects/{project}/branches/production/databases/databricks-postgres"),
    } }] })
}

#[test]
fn a_database_is_attached_by_who_manages_it_and_stays_so_for_who_manages_the_app() {
    let mut world = shop();
    world.ensure_identities();
    let eve = world.member().unwrap().caller();
    world.create_app(&json!({ "name": "portal" }), false, &ada(), now()).unwrap();
    let grant = |level: &str| {
        vec![parse(&json!({ "user_name": eve.user_name, "permission_level": level })).unwrap()]
    };
    world.grant("apps/portal", grant("CAN_MANAGE"), true).unwrap();
    let update = |world: &mut World, caller: &Caller| {
        world.update_app("portal", &attached_to("shop"), Some("resources"), caller, now())
    };
    let deploy = |world: &mut World, caller: &Caller| {
        let body = json!({ "source_code_path": format!("/Users/{}/portal", eve.user_name) });
        let deployment = world.begin_deployment("portal", &body, caller, now())?;
        world.finish_deployment("portal", &id_of(&deployment), Ok(()), now());
        Ok::<_, Fault>(())
    };

    for level in ["", "CAN_USE"] {
        if !level.is_empty() {
            world.grant("database-projects/shop", grant(level), true).unwrap();
        }
        assert_eq!(refusal(update(&mut world, &eve)).1, "PERMISSION_DENIED");
        let created = world.create_app(
            &json!({ "name": "other", "resources": attached_to("shop")["resources"] }),
            true,
            &eve,
            now(),
        );
        assert_eq!(refusal(created).1, "PERMISSION_DENIED");
    }
    assert!(world.app("portal").unwrap().resources.is_empty());
    update(&mut world, &ada()).unwrap();
    // Somebody else's attachment stays when the same is said again.
    update(&mut world, &eve).unwrap();
    deploy(&mut world, &eve).unwrap();

    // Another project of the same name is another project.
    world.delete_project("shop", true, now()).unwrap();
    let started = create_project(&mut world, "shop", json!({})).unwrap();
    finish(&mut world, &started);
    let principal = world.identity(&world.app("portal").unwrap().client_id).unwrap().caller();
    assert_eq!(refusal(world.require_use(&principal, "shop")).0, 403);
    assert_eq!(refusal(world.attachments("portal")).1, "PERMISSION_DENIED");
    assert_eq!(refusal(update(&mut world, &eve)).1, "PERMISSION_DENIED");
    assert_eq!(refusal(deploy(&mut world, &eve)).1, "PERMISSION_DENIED");
    let source = json!({ "source_code_path": "/Workspace/x" });
    world.begin_deployment("portal", &source, &ada(), now()).unwrap();
    world.require_use(&principal, "shop").unwrap();
}

#[test]
fn a_deployment_needs_its_source_to_be_readable() {
    let mut world = world();
    world.ensure_identities();
    let eve = world.member().unwrap().caller();
    world.create_app(&json!({ "name": "portal" }), false, &ada(), now()).unwrap();
    let body = json!({ "source_code_path": "/Workspace/Users/ada@example.test/x" });

    let refused = world.begin_deployment("portal", &body, &eve, now());

    assert_eq!(refusal(refused).1, "RESOURCE_DOES_NOT_EXIST");
    assert!(world.app("portal").unwrap().pending.is_none());
}

#[test]
fn a_grant_to_a_group_holds_for_its_members() {
    let mut world = shop();
    world.ensure_identities();
    let eve = world.member().unwrap().caller();
    let grant = |group: &str| {
        vec![parse(&json!({ "group_name": group, "permission_level": "CAN_MANAGE" })).unwrap()]
    };
    world.grant("database-projects/shop", grant("admins"), true).unwrap();
    assert_eq!(refusal(world.require_use(&eve, "shop")).0, 403);
    world.grant("database-projects/shop", grant("users"), true).unwrap();
    world.require_manage(&eve, "shop").unwrap();
}

#[test]
fn a_stopped_app_cancels_its_deployment() {
    let mut world = world();
    world.create_app(&json!({ "name": "portal" }), false, &ada(), now()).unwrap();
    let deploy = json!({ "source_code_path": "/Workspace/x", "env_vars": [{ "name": "A", "value": "secret" }] });
    let deployment = world.begin_deployment("portal", &deploy, &ada(), now()).unwrap();
    let id = id_of(&deployment);

    world.stop_app("portal", now()).unwrap();
    world.finish_deployment("portal", &id, Ok(()), now());

    let (all, _) = world.list_deployments("portal", &PageRequest::default()).unwrap();
    assert_eq!(serde_json::to_value(&all[0]).unwrap()["status"]["state"], "CANCELLED");
    assert_eq!(all[0].env_vars[0].value, None);
}

#[test]
fn an_app_cannot_name_a_branch_that_is_not_there() {
    let mut world = shop();
    let body = json!({ "name": "portal", "resources": [{ "name": "db", "postgres": {
        "branch": "projects/shop/branches/nope", "permission": "CAN_CONNECT_AND_CREATE",
        "database": "projects/shop/branches/nope/databases/databricks-postgres",
    } }] });

    assert_eq!(
        text(world.create_app(&body, true, &ada(), now())),
        "404 NOT_FOUND branch id not found"
    );
    assert!(world.get_app("portal").is_err());
}

#[tokio::test]
async fn a_killed_server_finds_its_state_and_its_unfinished_work() {
    let folder = tempfile::tempdir().unwrap();
    let settings = || Settings { workspace_id: 1, network: 1, port: 1 };
    let store = Store::open(&OwnedFolder::of_test(folder.path())).unwrap();
    let mut world = World::load(&store, settings, 15).unwrap();
    let started = create_project(&mut world, "shop", json!({})).unwrap();
    finish(&mut world, &started);
    let started = create(&mut world, "dev", json!({ "ttl": "3600s" })).unwrap();
    store.commit(world.take_changes()).await.unwrap();
    store.settle().await.unwrap();

    let mut world =
        World::load(&Store::open(&OwnedFolder::of_test(folder.path())).unwrap(), settings, 15)
            .unwrap();

    let work = world.resume(now());
    assert_eq!(work, std::slice::from_ref(&started.work));
    assert_eq!(world.get_branch(&dev()).unwrap().status.current_state, BranchState::Init);
    finish(&mut world, &started);
    assert!(world.operation(&started.operation, None).unwrap().done);
}

#[tokio::test]
async fn branches_without_a_project_are_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let settings = || Settings { workspace_id: 1, network: 1, port: 1 };
    let store = Store::open(&OwnedFolder::of_test(folder.path())).unwrap();
    let mut world = shop();
    let changes = world.take_changes();
    let torn = changes.into_iter().filter(|change| change.shelf != Shelf::Projects).collect();
    store.commit(torn).await.unwrap();
    store.settle().await.unwrap();

    let mut world = World::load(&store, settings, 15).unwrap();

    assert_eq!(world.branch_uids().count(), 0);
    let cleared = world.take_changes();
    assert!(
        cleared.iter().any(|change| change.shelf == Shelf::Branches && change.content.is_none())
    );
}
