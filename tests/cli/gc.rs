//! `lakeforge gc` from the outside: what a plan lets go, what is kept and why.

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
        ],
    );
    forge.succeed("branch create pr-7 --from pr-4");
    forge.write("open.txt", "2\r\n7\r\n");

    assert_snapshot!(even(&forge.run("gc --open-prs open.txt --grace 1ms")), @r#"
        --- stdout
                BRANCH  CREATED  REASON
        keep  heap/dev  [LENGTH] ago  not a pull request's branch
        keep  heap/pr-05  [LENGTH] ago  not a pull request's branch
        delete  heap/pr-1  [LENGTH] ago  its pull request is not open
        keep  heap/pr-2  [LENGTH] ago  its pull request is open
        keep  heap/pr-3  [LENGTH] ago  protected
        keep  heap/pr-4  [LENGTH] ago  others were copied from it
        keep  heap/pr-6-x  [LENGTH] ago  not a pull request's branch
        keep  heap/pr-7  [LENGTH] ago  its pull request is open
        keep  heap/production  [LENGTH] ago  default branch
        9 branches: 1 to delete, 8 kept; nothing was changed, --apply deletes
        --- exit 0
        "#);
    assert_snapshot!(even(&forge.run("gc --open-prs open.txt")), @r#"
        --- stdout
              BRANCH  CREATED  REASON
        keep  heap/dev  [LENGTH] ago  not a pull request's branch
        keep  heap/pr-05  [LENGTH] ago  not a pull request's branch
        keep  heap/pr-1  [LENGTH] ago  younger than the grace period
        keep  heap/pr-2  [LENGTH] ago  its pull request is open
        keep  heap/pr-3  [LENGTH] ago  protected
        keep  heap/pr-4  [LENGTH] ago  younger than the grace period
        keep  heap/pr-6-x  [LENGTH] ago  not a pull request's branch
        keep  heap/pr-7  [LENGTH] ago  its pull request is open
        keep  heap/production  [LENGTH] ago  default branch
        9 branches: 0 to delete, 9 kept
        --- exit 0
        "#);
    let before = forge.branches("heap");
    assert_snapshot!(even(&forge.run("gc --open-prs open.txt --grace 1ms --apply")), @r#"
        --- stdout
                BRANCH  CREATED  REASON
        keep  heap/dev  [LENGTH] ago  not a pull request's branch
        keep  heap/pr-05  [LENGTH] ago  not a pull request's branch
        delete  heap/pr-1  [LENGTH] ago  its pull request is not open
        keep  heap/pr-2  [LENGTH] ago  its pull request is open
        keep  heap/pr-3  [LENGTH] ago  protected
        keep  heap/pr-4  [LENGTH] ago  others were copied from it
        keep  heap/pr-6-x  [LENGTH] ago  not a pull request's branch
        keep  heap/pr-7  [LENGTH] ago  its pull request is open
        keep  heap/production  [LENGTH] ago  default branch
        --- stderr
        error: needs consent: delete 1 of 9 branches?
          why: there is no terminal to ask
          try: add `--yes`
        --- exit 9
        "#);
    assert_eq!(forge.branches("heap"), before);
    assert_snapshot!(even(&forge.run("-q gc --open-prs open.txt --grace 1ms --apply --yes")), @r#"
        --- stdout
                BRANCH  CREATED  REASON
        keep  heap/dev  [LENGTH] ago  not a pull request's branch
        keep  heap/pr-05  [LENGTH] ago  not a pull request's branch
        delete  heap/pr-1  [LENGTH] ago  its pull request is not open
        keep  heap/pr-2  [LENGTH] ago  its pull request is open
        keep  heap/pr-3  [LENGTH] ago  protected
        keep  heap/pr-4  [LENGTH] ago  others were copied from it
        keep  heap/pr-6-x  [LENGTH] ago  not a pull request's branch
        keep  heap/pr-7  [LENGTH] ago  its pull request is open
        keep  heap/production  [LENGTH] ago  default branch
        heap/pr-1  deleted
        9 branches: 1 deleted, 8 kept
        --- exit 0
        "#);

    let after: Vec<_> = before.into_iter().filter(|name| name != "heap/pr-1").collect();
    assert_eq!(forge.branches("heap"), after);
    let again = forge.json_lines("gc --open-prs open.txt --grace 1ms --apply --yes");
    assert_eq!(again.last().unwrap()["deleted"], 0);
}

#[test]
fn every_way_to_write_the_list_is_understood() {
    let forge = Forge::with_project("lists");
    make(&forge, &["pr-1", "pr-2"]);

    for list in [
        "2",
        "2\n",
        "\u{feff}2\r\n\r\n999\r\n",
        "  2  \n2\n",
        "#2\n",
        "[2, 999]",
        "[{\"number\": 2}, {\"number\": 999}]\n",
        "[\r\n  {\"number\": 2}\r\n]\r\n",
    ] {
        assert_eq!(goes(&forge, list), ["lists/pr-1"], "{list:?}");
    }
    assert_eq!(goes(&forge, "1\n2\n"), [""; 0]);
    assert_eq!(
        deleted(&forge.json_lines("gc --no-open-prs --grace 1ms")),
        ["lists/pr-1", "lists/pr-2"]
    );
    assert_eq!(
        deleted(&forge.json_lines("gc --no-open-prs --grace 1ms --prefix feature-")),
        [""; 0]
    );
    assert_eq!(deleted(&forge.json_lines("gc --no-open-prs --grace 1ms --project lists")).len(), 2);
}

#[test]
fn a_list_in_doubt_deletes_nothing() {
    let forge = Forge::with_project("doubt");
    forge.succeed("branch create pr-1");
    let before = forge.branches("doubt");
    let apply = |list: &str| forge.run(&format!("gc --open-prs {list} --grace 1ms --apply --yes"));

    for (name, text) in [
        ("empty.txt", ""),
        ("blank.txt", "\r\n \n"),
        ("brackets.json", "[]"),
        ("words.txt", "2\nHTTP 502 Bad Gateway\n"),
        ("negative.txt", "-2\n"),
        ("half.json", "[{\"number\": 2}, {\"num"),
        ("other.json", "[{\"id\": 2}]"),
        ("object.json", "{\"message\": \"API rate limit exceeded\"}"),
        ("huge.txt", "99999999999999999999999\n"),
    ] {
        forge.write(name, text);
        let shown = apply(name);
        assert!(shown.ends_with("--- exit 2"), "{name}: {shown}");
        assert!(shown.contains("open pull requests"), "{name}: {shown}");
    }
    assert_snapshot!(apply("empty.txt"), @r#"
        --- stderr
        error: the list of open pull requests is empty
          why: taken at its word, every pull request's branch would go
          try: --no-open-prs, if really none is open
        --- exit 2
        "#);
    assert_snapshot!(apply("words.txt"), @r#"
        --- stderr
        error: the list of open pull requests is not understood
          why: line 2 is not a number: `HTTP 502 Bad Gateway`
          try: write one number per line, or what `gh pr list --json number` prints
        --- exit 2
        "#);
    assert_snapshot!(apply("object.json"), @r#"
        --- stderr
        error: the list of open pull requests is not understood
          why: it is not an array
          try: write one number per line, or what `gh pr list --json number` prints
        --- exit 2
        "#);
    assert_snapshot!(apply("missing.txt"), @r#"
        --- stderr
        error: the list of open pull requests cannot be read
          why: missing.txt: No such file or directory (os error 2)
        --- exit 2
        "#);
    assert_snapshot!(forge.run("gc --apply --yes"), @r#"
        --- stderr
        error: the following required arguments were not provided:
          --open-prs <FILE>

        Usage: lakeforge gc --apply --yes --data-dir <DIR> --open-prs <FILE>

        For more information, try '--help'.
        --- exit 2
        "#);
    assert_snapshot!(forge.run("gc --no-open-prs --grace 1ms --apply --yes --project doubbt"), @r#"
        --- stderr
        error: could not list branches of `doubbt`
          why: there is no project `doubbt`
          why: project id not found [TRACE] (404 NOT_FOUND)
          try: did you mean `doubt`?
        --- exit 6
        "#);
    assert_eq!(forge.branches("doubt"), before);
}

#[test]
fn the_answer_in_json_is_a_line_per_branch_and_a_summary() {
    let forge = Forge::with_project("lines");
    forge.succeed("branch create pr-1");

    let plan = forge.json_lines("gc --no-open-prs --grace 1ms");
    let applied = forge.json_lines("gc --no-open-prs --grace 1ms --apply --yes");

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

/// Creates branches of the test's only project, all at the same time.
fn make(forge: &Forge, branches: &[&str]) {
    thread::scope(|scope| {
        for branch in branches {
            scope.spawn(move || forge.succeed(&format!("branch create {branch}")));
        }
    });
}

/// Returns what the plan lets go when the list is read from standard input.
fn goes(forge: &Forge, list: &str) -> Vec<String> {
    let mut child = forge
        .command("-q -o json gc --open-prs - --grace 1ms")
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
