//! A change that is undone leaves exactly what was there, whatever it was and whatever came before.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::wire::failure::Failure;

type Records = BTreeMap<(Shelf, String), String>;
type Disk = BTreeMap<(Shelf, String), Box<RawValue>>;

/// Everything a world knows: each record, the index of live branches, and the order of deployments.
fn records(world: &World) -> (Records, BTreeMap<(String, String), String>, Vec<String>) {
    let deployments = world.deployments.iter().flat_map(|(app, all)| {
        all.iter().map(move |deployment| format!("{app}.{}", id_of(deployment)))
    });
    let deployments: Vec<String> = deployments.collect();
    let uids = [
        (Shelf::Settings, vec!["workspace".to_owned()]),
        (Shelf::Identities, world.identities.keys().cloned().collect()),
        (Shelf::Projects, world.projects.values().map(|project| project.uid.clone()).collect()),
        (Shelf::Branches, world.branches.keys().cloned().collect()),
        (Shelf::Operations, world.operations.keys().cloned().collect()),
        (Shelf::Apps, world.apps.keys().cloned().collect()),
        (Shelf::Deployments, deployments.clone()),
        (Shelf::Permissions, world.permissions.keys().cloned().collect()),
    ];
    let content = |shelf, uid: &str| world.content(shelf, uid).unwrap().get().to_owned();
    let all = uids.into_iter().flat_map(|(shelf, uids)| {
        uids.into_iter().map(move |uid| ((shelf, uid.clone()), content(shelf, &uid)))
    });
    (all.collect(), world.live.clone(), deployments)
}

/// Makes one of many changes; what is refused changes nothing, or something.
fn change(world: &mut World, kind: u8, number: u8, failed: bool) {
    let project = format!("project-{}", number % 3);
    let branch = ProjectName::new(&project).branch(format!("branch-{}", number % 4));
    let reader = branch.endpoint("readers");
    let app = format!("app-{}", number % 3);
    let failure =
        || Failure { error_code: "X".to_owned(), message: "x".to_owned(), ..Failure::default() };
    let hour = later(i64::from(number));
    let uids: Vec<String> = world.branches.keys().cloned().collect();
    let uid = uids.get(usize::from(number) % uids.len().max(1)).cloned().unwrap_or_default();
    let ttl: BranchSpec = parse(&json!({ "ttl": "3600s" })).unwrap();
    let spec: EndpointSpec = parse(&json!({ "endpoint_type": "ENDPOINT_TYPE_READ_ONLY" })).unwrap();
    match kind {
        0 => drop(create_project(world, &project, json!({}))),
        1 => drop(world.delete_project(&project, failed, now())),
        2 => drop(world.undelete_project(&project, now())),
        3 | 4 => {
            drop(world.create_branch(&project, Some(&branch.branch), &ttl, failed, None, now()))
        }
        5 => drop(world.delete_branch(&branch, failed, now())),
        6 => drop(world.undelete_branch(&branch, now())),
        7 | 8 if failed => world.finish_branch(&uid, Err(failure()), now()),
        7 | 8 => world.finish_branch(&uid, Ok(None), now()),
        9 => drop(world.sweep(hour)),
        10 => drop(world.create_endpoint(&branch, Some("readers"), &spec, failed, now())),
        11 => drop(world.delete_endpoint(&reader, now())),
        12 => {
            let known = world.branches.get(&uid).and_then(|branch| branch.endpoints.last());
            let endpoint = known.map(|endpoint| endpoint.uid.clone()).unwrap_or_default();
            let result = if failed { Err(failure()) } else { Ok(()) };
            world.finish_endpoint(&uid, &endpoint, result, now());
        }
        13 => drop(world.create_app(&json!({ "name": app }), failed, &ada(), now())),
        14 => {
            let body = json!({ "source_code_path": "/a" });
            let begun = world.begin_deployment(&app, &body, &ada(), hour);
            if let (Ok(deployment), false) = (begun, failed) {
                world.finish_deployment(&app, &id_of(&deployment), Ok(()), hour);
            }
        }
        15 => drop(world.delete_app(&app, now())),
        16 => world.remove_app(&app),
        17 => drop(world.stop_app(&app, now())),
        18 => {
            let grant = json!({ "user_name": "ana", "permission_level": "CAN_USE" });
            let object = format!("database-projects/{project}");
            drop(world.grant(&object, vec![parse(&grant).unwrap()], failed));
        }
        19 => world.forget_operations(hour),
        20 => world.add_login(&uid, "app", now()),
        _ => {
            world.settings.port = u16::from(number);
            world.touch_settings();
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_undone_has_never_been(
        changes in prop::collection::vec((0..22_u8, any::<u8>(), any::<bool>(), any::<bool>()), 1..120)
    ) {
        let mut world = world();
        world.touch_settings();
        let mut disk = Disk::new();
        keep(&mut disk, world.take_changes());
        for (kind, number, failed, undone) in changes {
            let before = records(&world);
            change(&mut world, kind, number, failed);
            let changes = world.take_changes();
            if undone {
                for Change { shelf, uid, .. } in changes {
                    let was = disk.get(&(shelf, uid.clone())).map(AsRef::as_ref);
                    world.restore(shelf, &uid, was).unwrap();
                }
                prop_assert_eq!(records(&world), before);
                prop_assert!(world.take_changes().is_empty());
            } else {
                keep(&mut disk, changes);
            }
            let kept = disk.iter().map(|(key, content)| (key.clone(), content.get().to_owned()));
            prop_assert_eq!(kept.collect::<Records>(), records(&world).0, "disk and memory differ");
        }
    }
}

fn keep(disk: &mut Disk, changes: Vec<Change>) {
    for Change { shelf, uid, content } in changes {
        match content {
            Some(content) => disk.insert((shelf, uid), content),
            None => disk.remove(&(shelf, uid)),
        };
    }
}
