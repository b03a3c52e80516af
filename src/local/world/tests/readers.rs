//! The rules of read-only endpoints.

use super::*;
use crate::wire::postgres::EndpointType;

/// Creates the read-only endpoint `id` of `branch`, with `more` in its spec.
fn reader(world: &mut World, branch: &BranchName, id: &str, more: Value) -> Result<Started, Fault> {
    let mut spec = json!({ "endpoint_type": "ENDPOINT_TYPE_READ_ONLY" });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.create_endpoint(branch, Some(id), &parse::<EndpointSpec>(&spec)?, false, now())
}

fn ready_reader(world: &mut World, branch: &BranchName, id: &str) {
    let started = reader(world, branch, id, json!({})).unwrap();
    let Work::CreateStandby { branch, endpoint } = &started.work else { panic!("{started:?}") };
    world.finish_endpoint(branch, endpoint, Ok(()), now());
}

#[test]
fn a_read_only_endpoint_goes_from_init_to_active_and_is_deleted_alone() {
    let mut world = shop();
    let production = name("production");
    let started = reader(&mut world, &production, "readers", json!({})).unwrap();
    let readers = production.endpoint("readers");
    let status = world.get_endpoint(&readers).unwrap().status;
    assert_eq!((status.current_state, status.hosts), (EndpointState::Init, None));
    assert!(!world.operation(&started.operation, None).unwrap().done);
    assert_eq!(refusal(world.delete_endpoint(&readers, now())).0, 409);
    assert_eq!(refusal(world.delete_project("shop", true, now())).0, 409);
    assert_eq!(world.resume(now()), std::slice::from_ref(&started.work));

    let Work::CreateStandby { branch, endpoint } = &started.work else { panic!("{started:?}") };
    world.finish_endpoint(branch, endpoint, Ok(()), now());

    let status = world.get_endpoint(&readers).unwrap().status;
    assert_eq!(status.current_state, EndpointState::Active);
    assert_eq!(status.endpoint_type, EndpointType::ReadOnly);
    assert!(world.operation(&started.operation, None).unwrap().done);
    let taken = reader(&mut world, &production, "readers", json!({}));
    assert_eq!(text(taken), "409 ALREADY_EXISTS endpoint with such id already exists");
    let retyped =
        world.create_endpoint(&production, Some("readers"), &EndpointSpec::default(), true, now());
    assert_eq!(text(retyped), "400 INVALID_PARAMETER_VALUE endpoint_type cannot be changed");
    let deleted = world.delete_endpoint(&readers, now()).unwrap();
    assert_eq!(deleted.work, Work::RemoveStandby(endpoint.clone()));
    assert_eq!(refusal(world.get_endpoint(&readers)).0, 404);
}

#[test]
fn a_read_only_endpoint_that_could_not_be_made_is_gone() {
    let mut world = shop();
    let started = reader(&mut world, &name("production"), "readers", json!({})).unwrap();
    let Work::CreateStandby { branch, endpoint } = &started.work else { panic!("{started:?}") };

    let failure = Fault::internal("disk full").failure;
    world.finish_endpoint(branch, endpoint, Err(failure), now());

    assert_eq!(refusal(world.get_endpoint(&name("production").endpoint("readers"))).0, 404);
    let operation = world.operation(&started.operation, None).unwrap();
    assert_eq!(operation.error.unwrap().message, "disk full");
    assert!(world.get_endpoint(&name("production").endpoint("primary")).is_ok());
}

#[test]
fn read_only_endpoints_count_as_active_computes() {
    let mut world = shop();
    ready(&mut world, "dev", json!({ "no_expiry": true }));
    let full = |result| {
        let (status, code, _) = refusal(result);
        assert_eq!((status, code.as_str()), (400, "QUOTA_EXCEEDED"));
    };
    for number in 1..20 {
        ready_reader(&mut world, &dev(), &format!("r{number}"));
    }
    full(reader(&mut world, &dev(), "one-more", json!({})));

    for number in 1..=20 {
        ready_reader(&mut world, &name("production"), &format!("r{number}"));
    }
    full(reader(&mut world, &name("production"), "one-more", json!({})));
}

#[test]
fn several_computes_need_equal_bounds_and_no_suspension() {
    let mut world = shop();
    let production = name("production");
    for group in [json!({ "min": 1, "max": 2 }), json!({ "min": 5, "max": 5 }), json!({ "min": 2 })]
    {
        let spec = json!({ "group": group, "no_suspension": true });
        assert_eq!(refusal(reader(&mut world, &production, "readers", spec)).0, 400, "{group}");
    }
    let group = json!({ "min": 2, "max": 2, "enable_readable_secondaries": true });
    let sleepy = reader(&mut world, &production, "readers", json!({ "group": group }));
    assert_eq!(refusal(sleepy).0, 400);

    let spec = json!({ "group": group, "no_suspension": true });
    reader(&mut world, &production, "readers", spec).unwrap();

    let status = world.get_endpoint(&production.endpoint("readers")).unwrap().status;
    assert_eq!(json!(status.settings.group), group);
}
