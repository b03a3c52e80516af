//! Names that nobody knows, in the bundle and on the command line: the nearest known one is offered.

use insta::assert_snapshot;

use crate::forge::Forge;

/// A bundle with one project and one app, whose branch is `branch`.
fn bundle(branch: &str) -> Forge {
    let forge = Forge::new();
    forge.bundle(&["shop"]);
    forge.write(
        "resources/apps.yml",
        &format!(
            "resources:\n  apps:\n    web:\n      name: shop-web\n      source_code_path: ../web\n\
             \x20     resources:\n        - name: database\n          postgres:\n\
             \x20           branch: {branch}\n            permission: CAN_CONNECT_AND_CREATE\n"
        ),
    );
    forge.write("web/app.py", "");
    forge.succeed("gen");
    forge
}

#[test]
fn a_target_is_offered() {
    let forge = bundle("projects/shop/branches/production");

    let shown = forge.run("deploy -t locla");
    assert_snapshot!(shown, @r#"
        --- stderr
        error: `databricks.yml` has no target `locla`
          try: did you mean `local`?
        --- exit 2
        "#);
    for command in ["smoke", "migrate", "branch list", "creds mint dev", "gc --no-open-prs"] {
        assert_eq!(forge.run(&format!("{command} -t locla")), shown, "{command}");
    }
}

#[test]
fn an_app_is_offered() {
    let forge = bundle("projects/shop/branches/production");

    assert_snapshot!(forge.run("-q deploy --only wbe"), @r#"
        --- stderr
        error: there is no app `wbe` in the bundle
          why: the bundle has web
          try: --only web
        --- exit 6
        "#);
    assert_snapshot!(forge.run("-q smoke --app wbe"), @r#"
        --- stderr
        error: there is no app `wbe` in the bundle
          why: the bundle has web
          try: --app web
        --- exit 6
        "#);
    assert_snapshot!(forge.run("-q migrate --only wbe"), @r#"
        --- stderr
        error: there is no app `wbe` in the bundle
          why: the bundle has web
          try: --only web
        --- exit 6
        "#);
}

#[test]
fn a_reference_is_offered() {
    let forge =
        bundle("${resources.postgres_projects.lakebase_project_sohp.id}/branches/production");
    assert_snapshot!(forge.run("deploy"), @r#"
        --- stderr
        error: resources/apps.yml:9:21: `${resources.postgres_projects.lakebase_project_sohp.id}` refers to a resource that is not there
          try: did you mean `lakebase_project_shop`?
        --- exit 2
        "#);

    let forge = bundle("projects/shop/branches/${var.lakebase_brnach}");
    forge.write("resources/variables.yml", "variables: {lakebase_branch: {default: dev}}\n");
    assert_snapshot!(forge.run("deploy"), @r#"
        --- stderr
        error: resources/apps.yml:9:21: `${var.lakebase_brnach}` refers to nothing
          try: did you mean `lakebase_branch`?
        --- exit 2
        "#);

    let forge =
        bundle("${resource.postgres_projects.lakebase_project_shop.id}/branches/production");
    assert_snapshot!(forge.run("deploy"), @r#"
        --- stderr
        error: resources/apps.yml:9:21: `${resource.postgres_projects.lakebase_project_shop.id}` is not a reference this bundle knows
          try: did you mean `resources.…`?
        --- exit 2
        "#);
}

#[test]
fn a_key_of_lakeforge_yml_is_offered() {
    let forge = Forge::offline();
    forge.bundle(&["shop"]);
    for (text, place, near) in [
        ("projcts: [shop]\n", "1:1", "projects"),
        ("branch: {tll: 7d}\n", "1:10", "ttl"),
        ("apps:\n  web:\n    helth: /healthz\n", "3:5", "health"),
        ("gc:\n  grase: 24h\n", "2:3", "grace"),
        ("apps:\n  web: {migrate: {comand: make, directory: .}}\n", "2:19", "command"),
    ] {
        forge.write("lakeforge.yml", text);
        let shown = forge.run("gen");
        assert!(shown.contains(&format!("error: lakeforge.yml:{place}: unknown key")), "{shown}");
        assert!(shown.contains(&format!("try: did you mean `{near}`?")), "{shown}");
        assert!(shown.ends_with("--- exit 2"), "{shown}");
    }
}
