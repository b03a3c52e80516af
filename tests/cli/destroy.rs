//! `lakeforge destroy` from the outside, and what `deploy` does with what the bundle no longer has.

use insta::assert_snapshot;
use serde_json::Value;

use crate::apps::{App, bundle};
use crate::forge::Forge;
use crate::http::Admin;

/// Makes the projects of the bundle ones that may be destroyed, and says what they hold.
fn projects(forge: &Forge, text: &str) {
    forge.write("lakeforge.yml", &format!("projects: {text}\n"));
    forge.succeed("gen");
}

/// Returns the record of the deployment of the bundle `name`, as the workspace keeps it.
fn record(admin: &Admin, name: &str) -> Option<Value> {
    let me = admin.get("/api/2.0/preview/scim/v2/Me").expect(200);
    let user = me["userName"].as_str().unwrap();
    let path = format!("/Workspace/Users/{user}/.bundle/{name}/local/lakeforge/deployed.json");
    let answer = admin.get(&format!("/api/2.0/workspace/export?direct_download=true&path={path}"));
    (answer.status == 200).then(|| answer.json())
}

fn status(admin: &Admin, path: &str) -> u16 {
    admin.get(&format!("/api/2.0/{path}")).status
}

#[test]
fn destroy_deletes_what_was_deployed_and_nothing_else() {
    let forge = Forge::new();
    bundle(&forge, "destroy-gone", &["destroy-gone"], &[("gone-app", App::Healthy)]);
    projects(&forge, "{destroy-gone: {prevent_destroy: false, endpoints: [], branches: [dev]}}");
    forge.succeed("deploy");
    let admin = Admin::of(&forge);
    let record = |name| record(&admin, name);
    let names: Vec<Value> = record("destroy-gone").unwrap()["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["name"].clone())
        .collect();
    assert_eq!(
        names,
        [
            "projects/destroy-gone",
            "projects/destroy-gone/branches/dev",
            "projects/destroy-gone/branches/dev/endpoints/primary",
            "gone-app"
        ]
    );

    assert_snapshot!(forge.run("destroy --dry-run"), @r"
        --- stdout
        ACTION  RESOURCE                                            NAME
        delete  apps.gone_app                                       gone-app
        delete  postgres_branches.lakebase_branch_destroy_gone_dev  projects/destroy-gone/branches/dev
        delete  postgres_projects.lakebase_project_destroy_gone     projects/destroy-gone
        --- stderr
        → with the built-in engine, for the embedded workspace alone
        → bundle `destroy-gone`, target `local`, [HOST]
        error: the deletion has to be confirmed by name
          why: `projects/destroy-gone` takes its branches along: dev, production
          try: --confirm destroy-gone
        --- exit 13
        ");
    assert_snapshot!(forge.run("destroy --yes"), @r"
        --- stderr
        → with the built-in engine, for the embedded workspace alone
        → bundle `destroy-gone`, target `local`, [HOST]
        error: the deletion has to be confirmed by name
          why: `projects/destroy-gone` takes its branches along: dev, production
          try: --confirm destroy-gone
        --- exit 13
        ");
    assert_eq!(status(&admin, "apps/gone-app"), 200);
    assert_snapshot!(forge.run("destroy --confirm destroy-gone"), @r"
        --- stderr
        → with the built-in engine, for the embedded workspace alone
        → bundle `destroy-gone`, target `local`, [HOST]
        warning: delete apps.gone_app gone-app
        warning: delete postgres_branches.lakebase_branch_destroy_gone_dev projects/destroy-gone/branches/dev
        warning: delete postgres_projects.lakebase_project_destroy_gone projects/destroy-gone
        error: needs consent: delete 3 resources and `/Workspace/Users/[ID]/.bundle/destroy-gone/local`?
          why: there is no terminal to ask
          try: add `--yes`
        --- exit 9
        ");
    assert_snapshot!(forge.run("destroy --confirm destroy-gone --yes"), @r"
        --- stdout
        deleted apps.gone_app gone-app
        deleted postgres_branches.lakebase_branch_destroy_gone_dev projects/destroy-gone/branches/dev
        deleted postgres_projects.lakebase_project_destroy_gone projects/destroy-gone
        --- stderr
        → with the built-in engine, for the embedded workspace alone
        → bundle `destroy-gone`, target `local`, [HOST]
        Deleting apps.gone_app `gone-app`
        Deleting postgres_projects.lakebase_project_destroy_gone `projects/destroy-gone`
        --- exit 0
        ");

    assert_eq!(status(&admin, "apps/gone-app"), 404);
    assert_eq!(status(&admin, "postgres/projects/destroy-gone"), 404);
    assert!(record("destroy-gone").is_none());
    assert_snapshot!(forge.run("destroy --yes"), @r"
        --- stderr
        → with the built-in engine, for the embedded workspace alone
        → bundle `destroy-gone`, target `local`, [HOST]
        nothing is deployed here
        --- exit 0
        ");
}

#[test]
fn destroy_spares_what_is_guarded() {
    let forge = Forge::new();
    bundle(&forge, "destroy-guard", &["destroy-guard"], &[("guard-app", App::Healthy)]);
    forge.succeed("deploy");

    assert_snapshot!(forge.run("destroy --yes --confirm destroy-guard"), @r"
        --- stderr
        → with the built-in engine, for the embedded workspace alone
        → bundle `destroy-guard`, target `local`, [HOST]
        error: the deployment holds what must not be destroyed
          why: guarded by `lifecycle.prevent_destroy`: projects/destroy-guard
          try: deploy once with `prevent_destroy: false` for it in lakeforge.yml
        --- exit 13
        ");
    let admin = Admin::of(&forge);
    assert_eq!(status(&admin, "apps/guard-app"), 200);

    // Without its block the project is still guarded, as it was when it was deployed.
    std::fs::remove_file(forge.path().join("resources/lakebase.yml")).unwrap();
    let shown = forge.run("destroy --yes --confirm destroy-guard --as-deployed");
    assert!(shown.contains("`lifecycle.prevent_destroy`: projects/destroy-guard"), "{shown}");
    assert!(shown.ends_with("--- exit 13"), "{shown}");
    assert_eq!(status(&admin, "postgres/projects/destroy-guard"), 200);
}

#[test]
fn destroy_takes_a_protected_branch_only_by_name() {
    let forge = Forge::new();
    forge.bundle(&["destroy-kept"]);
    projects(
        &forge,
        "{destroy-kept: {prevent_destroy: false, endpoints: [], branches: {dev: {protected: true}}}}",
    );
    forge.succeed("deploy");

    assert_snapshot!(forge.run("destroy --yes --confirm destroy-kept"), @r"
        --- stderr
        → with the built-in engine, for the embedded workspace alone
        → bundle `destroy-kept`, target `local`, [HOST]
        error: the deletion has to be confirmed by name
          why: `projects/destroy-kept/branches/dev` is protected
          try: --confirm destroy-kept/dev
        --- exit 13
        ");
    let admin = Admin::of(&forge);
    assert_eq!(status(&admin, "postgres/projects/destroy-kept/branches/dev"), 200);
    forge.succeed("destroy --yes --confirm destroy-kept --confirm destroy-kept/dev");
    assert_eq!(status(&admin, "postgres/projects/destroy-kept"), 404);
}

#[test]
fn destroy_and_deploy_stop_when_the_inputs_say_something_else() {
    let forge = Forge::new();
    forge.bundle(&["destroy-input"]);
    projects(&forge, "{destroy-input: {prevent_destroy: false, branches: [dev, old]}}");
    forge.succeed("deploy");
    forge.write(
        "lakeforge.yml",
        "projects: {destroy-input: {prevent_destroy: false, branches: [dev, new]}}\n",
    );

    assert_snapshot!(forge.run("deploy"), @r"
        --- stderr
        error: lakeforge.yml and `resources/lakebase.yml` do not agree
          why: only lakeforge.yml: projects/destroy-input/branches/new, projects/destroy-input/branches/new/endpoints/primary, projects/destroy-input/branches/new/endpoints/readonly
          why: only `resources/lakebase.yml`: projects/destroy-input/branches/old, projects/destroy-input/branches/old/endpoints/primary, projects/destroy-input/branches/old/endpoints/readonly
          try: lakeforge gen
        --- exit 13
        ");
    let shown = forge.run("destroy --yes --confirm destroy-input");
    assert!(shown.contains("only lakeforge.yml: projects/destroy-input/branches/new"), "{shown}");
    assert!(shown.ends_with("--- exit 13"), "{shown}");
    assert!(forge.run("deploy --project destroy-input --branches dev,old").ends_with("exit 0"));

    forge.succeed("gen");
    assert_snapshot!(forge.run("destroy --yes --confirm destroy-input"), @r"
        --- stderr
        → with the built-in engine, for the embedded workspace alone
        → bundle `destroy-input`, target `local`, [HOST]
        error: the bundle and the last deployment ([TIME] by [ID]) do not agree
          why: only the bundle: projects/destroy-input/branches/new, projects/destroy-input/branches/new/endpoints/primary, projects/destroy-input/branches/new/endpoints/readonly
          why: only the last deployment ([TIME] by [ID]): projects/destroy-input/branches/old, projects/destroy-input/branches/old/endpoints/primary, projects/destroy-input/branches/old/endpoints/readonly
          try: --as-deployed
        --- exit 13
        ");
    forge.succeed("destroy --yes --confirm destroy-input --as-deployed");
    assert_eq!(status(&Admin::of(&forge), "postgres/projects/destroy-input"), 404);
}

#[test]
fn deploy_deletes_what_the_bundle_no_longer_has_after_consent() {
    let forge = Forge::new();
    forge.bundle(&["destroy-less"]);
    projects(&forge, "{destroy-less: {endpoints: [], branches: [dev, old]}}");
    forge.succeed("deploy");
    projects(&forge, "{destroy-less: {endpoints: [], branches: [dev, new]}}");

    assert_snapshot!(forge.run("deploy"), @r"
        --- stderr
        → with the built-in engine, for the embedded workspace alone
        only the bundle: projects/destroy-less/branches/new, projects/destroy-less/branches/new/endpoints/primary
        only the last deployment ([TIME] by [ID]): projects/destroy-less/branches/old, projects/destroy-less/branches/old/endpoints/primary
        → bundle `destroy-less`, target `local`, [HOST]
        warning: delete postgres_branches.lakebase_branch_destroy_less_old projects/destroy-less/branches/old
        error: needs consent: delete or recreate 1 resources?
          why: there is no terminal to ask
          try: add `--yes`
        --- exit 9
        ");
    let admin = Admin::of(&forge);
    let branch = |id| status(&admin, &format!("postgres/projects/destroy-less/branches/{id}"));
    assert_eq!((branch("old"), branch("new")), (200, 404));

    forge.succeed("deploy --yes");
    assert_eq!((branch("old"), branch("new")), (404, 200));
    let kept = record(&admin, "destroy-less").unwrap().to_string();
    assert!(kept.contains("branches/new") && !kept.contains("branches/old"), "{kept}");

    forge.write("lakeforge.yml", "");
    forge.write("resources/lakebase.yml", "resources: {}\n");
    assert_snapshot!(forge.run("deploy --yes"), @r"
        --- stderr
        → with the built-in engine, for the embedded workspace alone
        only the bundle: nothing
        only the last deployment ([TIME] by [ID]): projects/destroy-less, projects/destroy-less/branches/dev, projects/destroy-less/branches/dev/endpoints/primary, projects/destroy-less/branches/new, projects/destroy-less/branches/new/endpoints/primary
        → bundle `destroy-less`, target `local`, [HOST]
        error: the deletion has to be confirmed by name
          why: `projects/destroy-less` takes its branches along: dev, new, production
          try: --confirm destroy-less
        --- exit 13
        ");
    assert_eq!(branch("new"), 200);
}

#[test]
fn destroy_knows_what_another_machine_deployed() {
    let here = Forge::new();
    here.bundle(&["destroy-there"]);
    projects(&here, "{destroy-there: {prevent_destroy: false, endpoints: []}}");
    here.succeed("deploy");

    let there = Forge::new();
    for file in ["databricks.yml", "lakeforge.yml", "resources/lakebase.yml"] {
        there.write(file, &here.read(file));
    }
    there.succeed("destroy --yes --confirm destroy-there");
    assert_eq!(status(&Admin::of(&there), "postgres/projects/destroy-there"), 404);
}
