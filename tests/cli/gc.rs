//! `lakeforge gc` from the outside: what a plan lets go, what is kept and why.

mod faults;

use std::io::Write;
use std::process::Stdio;
use std::thread;

use insta::assert_snapshot;
use serde_json::Value;

use crate::forge::{Forge, assert_snake_case, short_name};

#[test]
fn the_plan_lets_go_only_what_is_surely_unneeded() {
    let forge = Forge::with_project("heap");
    make(
        &forge,
        &[
            "pr-1 --ttl 1d",
            "pr-2 --ttl 1d",
            "pr-3 --protected",
            "pr-4 --no-expiry",
            "pr-05 --ttl 1d",
            "pr-6-x --ttl 1d",
            "pr-8 --ttl 1d",
        ],
    );
    forge.succeed("branch create pr-7 --from pr-4");
    states(&forge, &[(1, "CLOSED"), (2, "OPEN"), (3, "MERGED"), (4, "MERGED"), (5, "CLOSED")]);

    assert_snapshot!(even(&forge.run("gc --prs prs.json --grace 1ms")), @r"
        --- stdout
                BRANCH  CREATED  REASON
        keep  heap/dev  [LENGTH] ago  not a pull request's branch
        keep  heap/pr-05  [LENGTH] ago  not a pull request's branch
        delete  heap/pr-1  [LENGTH] ago  its pull request is closed
        keep  heap/pr-2  [LENGTH] ago  its pull request is open
        keep  heap/pr-3  [LENGTH] ago  protected, or listed in lakeforge.yml
        keep  heap/pr-4  [LENGTH] ago  others were copied from it
        keep  heap/pr-6-x  [LENGTH] ago  not a pull request's branch
        keep  heap/pr-7  [LENGTH] ago  the list does not tell whether its pull request is closed
        keep  heap/pr-8  [LENGTH] ago  the list does not tell whether its pull request is closed
        keep  heap/production  [LENGTH] ago  default branch
        10 branches: 1 to delete, 9 kept; nothing was changed, --apply deletes
        --- stderr
        Reading the branches
        --- exit 0
        ");
    assert_snapshot!(even(&forge.run("gc --prs prs.json")), @r"
        --- stdout
              BRANCH  CREATED  REASON
        keep  heap/dev  [LENGTH] ago  not a pull request's branch
        keep  heap/pr-05  [LENGTH] ago  not a pull request's branch
        keep  heap/pr-1  [LENGTH] ago  younger than the grace period
        keep  heap/pr-2  [LENGTH] ago  its pull request is open
        keep  heap/pr-3  [LENGTH] ago  protected, or listed in lakeforge.yml
        keep  heap/pr-4  [LENGTH] ago  younger than the grace period
        keep  heap/pr-6-x  [LENGTH] ago  not a pull request's branch
        keep  heap/pr-7  [LENGTH] ago  the list does not tell whether its pull request is closed
        keep  heap/pr-8  [LENGTH] ago  the list does not tell whether its pull request is closed
        keep  heap/production  [LENGTH] ago  default branch
        10 branches: 0 to delete, 10 kept
        --- stderr
        Reading the branches
        --- exit 0
        ");
    let before = forge.branches("heap");
    assert_snapshot!(even(&forge.run("gc --prs prs.json --grace 1ms --apply")), @r"
        --- stdout
                BRANCH  CREATED  REASON
        keep  heap/dev  [LENGTH] ago  not a pull request's branch
        keep  heap/pr-05  [LENGTH] ago  not a pull request's branch
        delete  heap/pr-1  [LENGTH] ago  its pull request is closed
        keep  heap/pr-2  [LENGTH] ago  its pull request is open
        keep  heap/pr-3  [LENGTH] ago  protected, or listed in lakeforge.yml
        keep  heap/pr-4  [LENGTH] ago  others were copied from it
        keep  heap/pr-6-x  [LENGTH] ago  not a pull request's branch
        keep  heap/pr-7  [LENGTH] ago  the list does not tell whether its pull request is closed
        keep  heap/pr-8  [LENGTH] ago  the list does not tell whether its pull request is closed
        keep  heap/production  [LENGTH] ago  default branch
        --- stderr
        Reading the branches
        error: needs consent: delete 1 of 10 branches?
          why: there is no terminal to ask
          try: add `--yes`
        --- exit 9
        ");
    assert_eq!(forge.branches("heap"), before);
    assert_snapshot!(even(&forge.run("-q gc --prs prs.json --grace 1ms --apply --yes")), @r"
        --- stdout
                BRANCH  CREATED  REASON
        keep  heap/dev  [LENGTH] ago  not a pull request's branch
        keep  heap/pr-05  [LENGTH] ago  not a pull request's branch
        delete  heap/pr-1  [LENGTH] ago  its pull request is closed
        keep  heap/pr-2  [LENGTH] ago  its pull request is open
        keep  heap/pr-3  [LENGTH] ago  protected, or listed in lakeforge.yml
        keep  heap/pr-4  [LENGTH] ago  others were copied from it
        keep  heap/pr-6-x  [LENGTH] ago  not a pull request's branch
        keep  heap/pr-7  [LENGTH] ago  the list does not tell whether its pull request is closed
        keep  heap/pr-8  [LENGTH] ago  the list does not tell whether its pull request is closed
        keep  heap/production  [LENGTH] ago  default branch
        heap/pr-1  deleted
        10 branches: 1 deleted, 9 kept
        --- exit 0
        ");

    let after: Vec<_> = before.into_iter().filter(|name| name != "heap/pr-1").collect();
    assert_eq!(forge.branches("heap"), after);
    let again = forge.json_lines("gc --prs prs.json --grace 1ms --apply --yes");
    assert_eq!(again.last().unwrap()["deleted"], 0);
}

#[test]
fn every_way_to_write_the_list_is_understood() {
    let forge = Forge::with_project("lists");
    make(&forge, &["pr-1", "pr-2"]);

    for list in [
        r#"[{"number":2,"state":"OPEN"},{"number":1,"state":"CLOSED"}]"#,
        r#"[{"number":1,"state":"MERGED"}]"#,
        r#"{"number":1,"state":"MERGED"}"#,
        r#"[[{"iid":2,"id":1,"state":"locked"}],[{"iid":1,"id":2,"state":"merged"}]]"#,
        "[\r\n  {\"number\": 1, \"state\": \"closed\", \"merged_at\": null}\r\n]\r\n",
    ] {
        assert_eq!(goes(&forge, "--prs", list), ["lists/pr-1"], "{list:?}");
    }
    for list in ["2\nend 1\n", "\u{feff}#2\r\n\r\n 999\r\nend 2\r\n"] {
        assert_eq!(goes(&forge, "--open-prs", list), ["lists/pr-1"], "{list:?}");
    }
    assert_eq!(goes(&forge, "--open-prs", "end 0\n"), [""; 0]);
    assert_eq!(goes(&forge, "--prs", "[]"), [""; 0]);
    states(&forge, &[(1, "CLOSED")]);
    assert_eq!(
        deleted(&forge.json_lines("gc --prs prs.json --grace 1ms --prefix feature-")),
        [""; 0]
    );
    let twice = "gc --prs prs.json --grace 1ms --project lists --project projects/lists";
    assert_eq!(deleted(&forge.json_lines(twice)), ["lists/pr-1"]);
}

/// The list of the open ones that was cut: `1350` is open, and only `135` is left of it.
#[test]
fn a_list_that_could_be_cut_is_refused() {
    let forge = Forge::with_project("cut-list");
    make(&forge, &["pr-1350", "pr-7"]);
    let before = forge.branches("cut-list");
    let apply = |flag: &str, file: &str| {
        forge.run(&format!("gc {flag} {file} --grace 1ms --apply --yes --confirm 2"))
    };

    let open = "1\n2\n12\n130\n1350\n1351\nend 6\n";
    for cut in ["1\n2\n12\n130\n135", "1\n2\n12\n130\n", "1\n2\n12\n130\n1350\n1351\nend 6", ""] {
        assert!(open.starts_with(cut));
        forge.write("open.txt", cut);
        let shown = apply("--open-prs", "open.txt");
        assert!(shown.contains("error: the list of open pull requests is not whole"), "{shown}");
        assert!(shown.ends_with("--- exit 2"), "{shown}");
    }
    forge.write("open.txt", "1\n2\n12\n130\n135\nend 6\n");
    assert_snapshot!(apply("--open-prs", "open.txt"), @r"
        --- stderr
        error: the list of open pull requests is not whole
          why: it holds 5 numbers, and ends with `end 6`
          try: --prs with what `gh pr list --state all --limit 10000 --json number,state` prints
        --- exit 2
        ");
    forge.write("open.txt", "1350\n1351\n");
    assert_snapshot!(apply("--open-prs", "open.txt"), @r"
        --- stderr
        error: the list of open pull requests is not whole
          why: its last line is not `end COUNT`, so that it could be cut
          try: --prs with what `gh pr list --state all --limit 10000 --json number,state` prints
        --- exit 2
        ");
    // What `gh pr list --json number` prints, which stops after 30 unless told otherwise.
    forge.write("open.json", r#"[{"number":1},{"number":2}]"#);
    assert_snapshot!(apply("--prs", "open.json"), @r"
        --- stderr
        error: the list of pull requests is not understood
          why: missing field `state` at line 1 column 13
          try: gh pr list --state all --limit 10000 --json number,state
        --- exit 2
        ");
    forge.write("half.json", r#"[{"number":1350,"state":"CLOSED"},{"number":7,"st"#);
    assert_snapshot!(apply("--prs", "half.json"), @r"
        --- stderr
        error: the list of pull requests is not understood
          why: EOF while parsing a string at line 1 column 49
          try: gh pr list --state all --limit 10000 --json number,state
        --- exit 2
        ");
    assert_eq!(forge.branches("cut-list"), before);
    forge.write("open.txt", open);
    assert_eq!(deleted(&forge.json_lines("gc --open-prs open.txt --grace 1ms")), ["cut-list/pr-7"]);
}

#[test]
fn a_list_in_doubt_deletes_nothing() {
    let forge = Forge::with_project("doubt");
    forge.succeed("branch create pr-1");
    let before = forge.branches("doubt");
    let apply = |list: &str| forge.run(&format!("gc --prs {list} --grace 1ms --apply --yes"));

    for (name, text) in [
        ("empty.txt", ""),
        ("blank.txt", "\r\n \n"),
        ("words.txt", "2\nHTTP 502 Bad Gateway\n"),
        ("other.json", "[{\"id\": 1, \"state\": \"CLOSED\"}]"),
        ("object.json", "{\"message\": \"API rate limit exceeded\"}"),
        ("word.json", "[{\"number\": 1,\n \"state\": \"CLOSE\"}]"),
    ] {
        forge.write(name, text);
        let shown = apply(name);
        assert!(shown.ends_with("--- exit 2"), "{name}: {shown}");
        assert!(shown.contains("error: the list of pull requests is not understood"), "{shown}");
    }
    assert_snapshot!(apply("word.json"), @r"
        --- stderr
        error: the list of pull requests is not understood
          why: unknown variant `CLOSE`, expected one of `OPEN`, `locked`, `open`, `opened`, `CLOSED`, `MERGED`, `closed`, `merged` at line 2 column 17
          try: gh pr list --state all --limit 10000 --json number,state
        --- exit 2
        ");
    assert_snapshot!(apply("missing.txt"), @r"
        --- stderr
        error: the list of pull requests cannot be read
          why: missing.txt: No such file or directory (os error 2)
        --- exit 2
        ");
    assert_snapshot!(forge.run("gc --apply --yes"), @r"
        --- stderr
        error: the following required arguments were not provided:
          <--prs <FILE>|--open-prs <FILE>>

        Usage: lakeforge gc --apply --yes --data-dir <DIR> <--prs <FILE>|--open-prs <FILE>>

        For more information, try '--help'.
        --- exit 2
        ");
    assert_snapshot!(forge.run("gc --prs a --open-prs b"), @r"
        --- stderr
        error: the argument '--prs <FILE>' cannot be used with '--open-prs <FILE>'

        Usage: lakeforge gc --data-dir <DIR> <--prs <FILE>|--open-prs <FILE>>

        For more information, try '--help'.
        --- exit 2
        ");
    states(&forge, &[(1, "CLOSED")]);
    for (prefix, why) in [("''", "the number"), ("pr7", "the number"), ("PR-", "lower-case")] {
        let shown =
            forge.run(&format!("gc --prs prs.json --prefix {prefix} --apply --yes --grace 1ms"));
        assert!(shown.contains(why) && shown.ends_with("--- exit 2"), "{shown}");
    }
    assert_snapshot!(forge.run("gc --prs prs.json --grace 1ms --apply --yes --project doubbt"), @r"
        --- stderr
        Reading the branches
        error: could not list branches of `doubbt`
          why: there is no project `doubbt`
          why: project id not found [TRACE] (404 NOT_FOUND)
          try: did you mean `doubt`?
        --- exit 6
        ");
    assert_eq!(forge.branches("doubt"), before);
}

#[test]
fn the_answer_in_json_is_a_line_per_branch_and_a_summary() {
    let forge = Forge::with_project("lines");
    forge.succeed("branch create pr-1");
    states(&forge, &[(1, "CLOSED")]);

    let plan = forge.json_lines("gc --prs prs.json --grace 1ms");
    let applied = forge.json_lines("gc --prs prs.json --grace 1ms --apply --yes");

    plan.iter().chain(&applied).for_each(assert_snake_case);
    let summary = plan.last().unwrap();
    assert_eq!(summary["type"], "summary");
    assert_eq!(summary["applied"], false);
    assert_eq!(deleted(&plan), ["lines/pr-1"]);
    let summary = applied.last().unwrap();
    assert_eq!(summary["applied"], true);
    assert_eq!(summary["deleted"], 1);
    assert_eq!(summary["failed"], 0);
    assert_eq!(forge.branches("lines"), ["lines/dev", "lines/production"]);
}

#[test]
fn more_than_half_of_a_project_goes_only_when_its_count_is_confirmed() {
    let forge = Forge::with_project("half");
    make(&forge, &["pr-1", "pr-2", "pr-3"]);
    states(&forge, &[(1, "CLOSED"), (2, "MERGED"), (3, "CLOSED")]);
    let before = forge.branches("half");
    let gc = |flags: &str| forge.run(&format!("-q gc --prs prs.json --grace 1ms {flags}"));

    // The plan alone refuses too.
    assert_snapshot!(even(&gc("")), @r"
        --- stdout
                BRANCH  CREATED  REASON
        keep  half/dev  [LENGTH] ago  not a pull request's branch
        delete  half/pr-1  [LENGTH] ago  its pull request is closed
        delete  half/pr-2  [LENGTH] ago  its pull request is closed
        delete  half/pr-3  [LENGTH] ago  its pull request is closed
        keep  half/production  [LENGTH] ago  default branch
        5 branches: 3 to delete, 2 kept; nothing was changed, --apply deletes
        --- stderr
        error: more than half of a project's branches would go
          why: `half`: 3 of 5
          try: look at the plan; if it is right, add `--confirm 3`
        --- exit 13
        ");
    let refused = gc("--apply --yes");
    assert_eq!(even(&refused), even(&gc("--dry-run")));
    assert_snapshot!(error(&gc("--apply --yes --confirm 2")), @r"
        --- stderr
        error: more than half of a project's branches would go
          why: `half`: 3 of 5
          why: --confirm says 2, the plan 3
          try: look at the plan; if it is right, add `--confirm 3`
        --- exit 13
        ");
    let lines = forge.output("-q -o json gc --prs prs.json --grace 1ms --apply --yes").stdout;
    let summary = String::from_utf8(lines).unwrap().lines().last().unwrap().to_owned();
    assert!(summary.starts_with(r#"{"type":"summary","applied":false,"#), "{summary}");
    assert_eq!(forge.branches("half"), before);

    assert!(gc("--apply --yes --confirm 3").ends_with("--- exit 0"));
    assert_eq!(forge.branches("half"), ["half/dev", "half/production"]);
    assert!(gc("--apply --yes --confirm 3").ends_with("--- exit 0"), "the same again");
}

#[test]
fn no_project_named_is_none_looked_at() {
    let theirs = Forge::with_project("far-away");
    theirs.succeed("branch create pr-1");
    let forge = Forge::new();
    states(&forge, &[(1, "CLOSED")]);

    for flags in ["", "--apply --yes", "--dry-run"] {
        let shown = forge.run(&format!("gc --prs prs.json --grace 1ms -p local {flags}"));
        assert_eq!(shown, forge.run("gc --prs prs.json -p local"), "{flags}");
    }
    assert_snapshot!(forge.run("gc --prs prs.json -p local"), @r"
        --- stderr
        error: which projects?
          why: no project is named, and there is no lakeforge.yml that lists any
          try: --project NAME, or --all-projects for those this bundle deployed
        --- exit 2
        ");
    assert_snapshot!(forge.run("gc --prs prs.json -p local --all-projects"), @r"
        --- stderr
        error: there is no databricks.yml here or in a folder above
          try: change to the folder of the bundle, or add `--root DIR`
        --- exit 2
        ");
    forge.write("lakeforge.yml", "gc: {grace: 1s}\n");
    assert!(forge.run("gc --prs prs.json -p local --apply --yes").ends_with("--- exit 2"));
    assert!(theirs.branches("far-away").contains(&"far-away/pr-1".to_owned()));
}

#[test]
fn all_projects_are_those_that_a_deployment_of_this_bundle_holds() {
    let theirs = Forge::with_project("theirs");
    theirs.succeed("branch create pr-1");
    // Deployed to a target that is not the chosen one; another target cannot be read.
    let ours = Forge::new();
    ours.bundle(&["ours-a", "ours-b"]);
    let targets = "targets: {live: {workspace: {profile: local}}, ";
    let bundle = ours.read("databricks.yml").replace("targets: {", targets);
    ours.write("databricks.yml", &bundle);
    ours.succeed("gen");
    ours.succeed("deploy -t live");
    ours.succeed("branch create pr-1 --all");
    let broken = "targets: {broken: {workspace: {root_path: '/${var.nothing}'}}, ";
    ours.write("databricks.yml", &bundle.replace("targets: {", broken));
    std::fs::remove_file(ours.path().join("lakeforge.yml")).unwrap();
    states(&ours, &[(1, "CLOSED")]);

    let gc = "gc --prs prs.json --grace 1ms --all-projects";
    let lines = ours.json_lines(&format!("{gc} --apply --yes"));

    assert_eq!(deleted(&lines), ["ours-a/pr-1", "ours-b/pr-1"]);
    let of = |kind: &str, name: &str| {
        lines
            .iter()
            .any(|line| line["type"] == kind && line["name"].as_str().unwrap().starts_with(name))
    };
    assert!(of("skipped", "projects/theirs") && !of("skipped", "projects/ours"), "{lines:?}");
    assert!(!of("branch", "projects/theirs"), "{lines:?}");
    assert_eq!(theirs.branches("theirs").len(), 3);
    let shown = ours.run(gc);
    assert!(
        shown.contains("\ntheirs  skipped: no deployment of this bundle holds it\n"),
        "{shown}"
    );
    assert!(shown.contains("\nwarning: target `broken` passed over: "), "{shown}");
    assert!(shown.ends_with("--- exit 0"), "{shown}");
}

/// A bundle of another name whose deployments would be where those of the first are, and one that
/// was never deployed.
#[test]
fn a_record_of_another_bundle_proves_nothing() {
    let forge = Forge::with_project("proven");
    forge.succeed("branch create pr-1");
    states(&forge, &[(1, "CLOSED")]);
    let bundle = forge.read("databricks.yml").replace("{name: proven}", "{name: other}");
    let taken = "local: {default: true, workspace: {root_path: '~/.bundle/proven/local', ";
    let taken = bundle.replace("local: {default: true, workspace: {", taken);

    let gc = "-q gc --prs prs.json --grace 1ms --all-projects --apply --yes";
    forge.write("databricks.yml", &bundle);
    assert_snapshot!(error(&forge.run(gc)), @r"
        --- stderr
        error: no project is known to belong to this bundle
          why: no record of a deployment of this bundle is in the workspace, or none holds a project that is there
          try: --project NAME
        --- exit 13
        ");
    forge.write("databricks.yml", &taken);
    assert!(forge.run(gc).ends_with("--- exit 13"));
    assert_eq!(forge.branches("proven").len(), 3);
}

/// Creates branches of the test's only project, all at the same time.
fn make(forge: &Forge, branches: &[&str]) {
    thread::scope(|scope| {
        for branch in branches {
            scope.spawn(move || forge.succeed(&format!("branch create {branch}")));
        }
    });
}

/// Writes the states of pull requests to `prs.json`, as `gh` prints them.
fn states(forge: &Forge, states: &[(u64, &str)]) {
    let one = |(number, state): &(u64, &str)| format!(r#"{{"number":{number},"state":"{state}"}}"#);
    forge.write("prs.json", &format!("[{}]", states.iter().map(one).collect::<Vec<_>>().join(",")));
}

/// Returns what a run said on stderr, and its exit code.
fn error(shown: &str) -> &str {
    &shown[shown.find("--- stderr").unwrap()..]
}

/// Returns what the plan lets go when the list is read from standard input.
fn goes(forge: &Forge, flag: &str, list: &str) -> Vec<String> {
    let mut child = forge
        .command(&format!("-q -o json gc {flag} - --grace 1ms"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{list:?}: {}", forge.shown(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    deleted(&text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>())
}

fn deleted(lines: &[Value]) -> Vec<String> {
    let goes = lines.iter().filter(|line| line["type"] == "branch" && line["deletes"] == true);
    goes.map(|line| short_name(&line["name"])).collect()
}

/// Makes the gaps between columns two wide, because times vary in length.
fn even(text: &str) -> String {
    regex::Regex::new(r"(\S)  +").unwrap().replace_all(text, "$1  ").into_owned()
}
