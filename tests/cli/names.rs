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

    forge.write("prs.json", "[]");
    let shown = forge.run("deploy -t locla");
    assert_snapshot!(shown, @r#"
        --- stderr
        error: `databricks.yml` has no target `locla`
          try: did you mean `local`?
        --- exit 2
        "#);
    for command in [
        "smoke",
        "migrate",
        "branch list",
        "branch list --project shop -p local",
        "creds mint dev",
        "gc --prs prs.json",
    ] {
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

#[test]
fn a_name_below_apps_that_is_no_app_is_refused() {
    let forge = bundle("projects/shop/branches/production");
    forge.write(
        "lakeforge.yml",
        "projects: {shop: {endpoints: []}}\napps:\n  wbe: {migrate: {command: make, directory: .}}\n",
    );

    let shown = forge.run("-q migrate");
    assert_snapshot!(shown, @r#"
        --- stderr
        error: lakeforge.yml:3:3: the bundle has no app `wbe`
          try: did you mean `web`?
        --- exit 2
        "#);
    for command in ["migrate --dry-run", "smoke", "deploy", "deploy --dry-run", "destroy"] {
        assert_eq!(forge.run(&format!("-q {command}")), shown, "{command}");
    }
}

#[test]
fn an_app_is_known_by_its_key_its_name_and_its_name_without_the_suffix() {
    let forge = bundle("projects/shop/branches/production");
    let apps = forge.read("resources/apps.yml");
    let apps = apps.replace("shop-web", "shop-web${var.app_name_suffix}");
    forge.write("resources/apps.yml", &apps);
    forge.write(
        "resources/variables.yml",
        "variables: {app_name_suffix: {default: -pr-7}}\n\
         targets:\n  other: {resources: {apps: {admin: {name: shop-admin}}}}\n",
    );
    for name in ["web", "shop-web", "shop-web-pr-7"] {
        forge.write(
            "lakeforge.yml",
            &format!(
                "projects: {{shop: {{endpoints: []}}}}\n\
                 apps: {{{name}: {{migrate: {{command: make, directory: .}}}}, admin: , shop-admin: }}\n"
            ),
        );
        for only in ["", "--only web", "--only shop-web", "--only shop-web-pr-7"] {
            let plan = forge.json(&format!("migrate --dry-run {only}"));
            assert_eq!(plan["migrations"][0]["app"], "web", "{name} {only}");
        }
    }

    forge.write("lakeforge.yml", "projects: {shop: {endpoints: []}}\napps: [web, shop-web]\n");
    assert_snapshot!(forge.run("-q migrate --dry-run"), @r#"
        --- stderr
        error: lakeforge.yml:2:13: `shop-web` is the app `web`
          why: what is known of it is at lakeforge.yml:2:8
          try: keep one of them
        --- exit 2
        "#);
}

#[test]
fn a_misspelt_key_of_the_bundle_stops_before_anything_is_planned() {
    let forge = bundle("projects/shop/branches/production");
    let apps = forge.read("resources/apps.yml");
    for (right, wrong, place) in
        [("resources:\n  apps", "resorces:\n  apps", "1:1"), ("  apps:", "  app:", "2:3")]
    {
        forge.write("resources/apps.yml", &apps.replacen(right, wrong, 1));
        for command in ["deploy", "deploy --dry-run", "destroy", "smoke", "migrate", "gen"] {
            let shown = forge.run(&format!("-q {command}"));
            let start =
                format!("--- stderr\nerror: resources/apps.yml:{place}: nothing knows the key");
            assert!(shown.starts_with(&start), "{command}: {shown}");
            assert!(shown.contains("\n  try: did you mean `"), "{command}: {shown}");
            assert!(shown.ends_with("--- exit 2"), "{command}: {shown}");
        }
    }
}

#[test]
fn a_key_that_nothing_knows_is_told_and_the_users_own_is_not() {
    let forge = bundle("projects/shop/branches/production");
    forge.write("resources/more.yml", "x-mine: {a: 1}\nquite_new: {}\n");

    let shown = forge.run("migrate --dry-run");

    assert!(
        shown.contains("warning: resources/more.yml:2:1: nothing knows the key `quite_new`\n"),
        "{shown}"
    );
    assert!(!shown.contains("x-mine"), "{shown}");
    assert!(shown.ends_with("--- exit 0"), "{shown}");
}

#[test]
fn a_generated_file_that_the_bundle_does_not_include_is_told_as_that() {
    let forge = bundle("projects/shop/branches/production");
    let root = forge.read("databricks.yml");
    forge.write("databricks.yml", &root.replace("resources/*.yml", "resources/apps.yml"));

    let shown = forge.run("-q deploy");

    assert_snapshot!(shown, @r#"
        --- stderr
        error: the bundle does not include `resources/lakebase.yml`
          why: what `gen` wrote there would be missing
          try: add `resources/lakebase.yml` to `include:` of databricks.yml
        --- exit 2
        "#);
    assert!(forge.run("gen").contains("warning: the bundle does not include"));
}

#[test]
fn a_bundle_with_a_byte_order_mark_is_read() {
    let forge = bundle("projects/shop/branches/production");
    let root = forge.read("databricks.yml");
    forge.write("databricks.yml", &format!("\u{feff}{root}"));

    forge.succeed("migrate --dry-run");
    forge.succeed("gen --check");
}

#[test]
fn a_profile_file_that_is_not_one_is_told_with_its_line() {
    let forge = Forge::offline();
    forge.write("databrickscfg", "[shop-dev\nhost = https://shop.test\n");

    assert_snapshot!(forge.run("branch list --project shop -p shop-dev"), @r#"
        --- stderr
        error: [DIR]/databrickscfg:1: `[` is not closed
          try: write `[NAME]` for a profile and `key = value` below it
        --- exit 2
        "#);
    forge.write("databrickscfg", "[shop-dev]\nhost = https://shop.test\ntoken dapi-secret\n");
    let shown = forge.run("branch list --project shop -p shop-dev");
    assert!(shown.contains("databrickscfg:3: neither a profile nor a key with a value"), "{shown}");
    assert!(!shown.contains("dapi-secret"), "{shown}");
}

#[test]
fn a_dry_run_refuses_the_folder_that_the_run_would_miss() {
    let forge = bundle("projects/shop/branches/production");
    forge.write(
        "lakeforge.yml",
        "projects: {shop: {endpoints: []}}\napps: {web: {migrate: {command: make, directory: gone}}}\n",
    );
    let dry = forge.run("migrate --dry-run");
    assert_snapshot!(dry, @r#"
        --- stderr
        error: resources/apps.yml:3:5: `web` cannot be migrated
          why: the folder `[DIR]/gone` is not there
        --- exit 2
        "#);
    assert_eq!(forge.run("migrate"), dry);

    let dry = forge.run("init databricks.yml --project shop --yes --dry-run");
    assert!(dry.contains("databricks.yml` is not a folder"), "{dry}");
    assert_eq!(forge.run("init databricks.yml --project shop --yes"), dry);
}

#[test]
fn a_generated_file_that_is_missing_is_told_before_its_projects_look_deleted() {
    let forge = Forge::with_project("missing");
    std::fs::remove_file(forge.path().join("resources/lakebase.yml")).unwrap();

    assert_snapshot!(forge.run("deploy --yes --dry-run"), @r#"
        --- stderr
        warning: databricks.yml:2:11: no file is called `resources/*.yml`
        error: `resources/lakebase.yml` is missing
          why: the bundle has no project `missing`, which belongs there
          try: lakeforge gen
        --- exit 2
        "#);
    forge.succeed("gen");
    forge.succeed("deploy --dry-run");

    let forge = bundle("${resources.postgres_projects.lakebase_project_shop.id}/branches/dev");
    std::fs::remove_file(forge.path().join("resources/lakebase.yml")).unwrap();
    assert_snapshot!(forge.run("deploy"), @r#"
        --- stderr
        error: resources/apps.yml:9:21: `${resources.postgres_projects.lakebase_project_shop.id}` refers to a resource that is not there
          why: known: apps
          try: lakeforge gen
        --- exit 2
        "#);
}
