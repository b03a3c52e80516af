//! The manual: help of every command, its examples, and what `completions` prints.

use std::fs;
use std::path::Path;

use insta::assert_snapshot;

use crate::forge::Forge;

#[test]
fn the_help_of_every_command_is_this() {
    let forge = Forge::offline();
    let manual: Vec<String> = commands(&forge, "")
        .iter()
        .map(|command| format!("$ lakeforge {command}--help\n{}", help(&forge, command)))
        .chain(["exit-codes", "environment"].map(|topic| {
            format!("$ lakeforge help {topic}\n{}", forge.succeed(&format!("help {topic}")))
        }))
        .collect();
    assert_snapshot!(manual.join("\n"));
}

#[test]
fn every_example_in_the_help_is_understood() {
    let forge = Forge::offline();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/single");
    for file in ["databricks.yml", "lakeforge.yml"] {
        forge.write(file, &fs::read_to_string(example.join(file)).unwrap());
    }
    for command in commands(&forge, "").iter().filter(|command| !command.is_empty()) {
        let help = help(&forge, command);
        let Some((_, examples)) = help.split_once("\nExample:\n") else {
            panic!("`{command}` has no example");
        };
        let ours: Vec<String> = examples.lines().flat_map(calls).collect();
        assert!(!ours.is_empty(), "no call of lakeforge in the example of `{command}`");
        for call in ours {
            // Whatever they do without a workspace, they are not refused for how they are written.
            let output = forge
                .command(&call)
                .env("LAKEFORGE_POSTGRES_BIN", "/nonexistent")
                .output()
                .unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(!stderr.contains("Usage:"), "{call}: {stderr}");
            assert!(!stderr.contains("invalid value"), "{call}: {stderr}");
        }
    }
}

#[test]
fn an_unknown_command_or_flag_is_answered_with_the_nearest() {
    let forge = Forge::offline();
    assert_snapshot!(forge.run("brnach list"), @r#"
        --- stderr
        error: unrecognized subcommand 'brnach'

          tip: a similar subcommand exists: 'branch'

        Usage: lakeforge [OPTIONS] <COMMAND>

        For more information, try '--help'.
        --- exit 2
        "#);
    assert_snapshot!(forge.run("branch lst"), @r#"
        --- stderr
        error: unrecognized subcommand 'lst'

          tip: a similar subcommand exists: 'list'

        Usage: lakeforge branch [OPTIONS] <COMMAND>

        For more information, try '--help'.
        --- exit 2
        "#);
    assert_snapshot!(forge.run("branch list --projct shop"), @r#"
        --- stderr
        error: unexpected argument '--projct' found

          tip: a similar argument exists: '--project'

        Usage: lakeforge branch list --project <NAME>

        For more information, try '--help'.
        --- exit 2
        "#);
    assert_snapshot!(forge.run("branch list -o yaml"), @r#"
        --- stderr
        error: invalid value 'yaml' for '--output <FORMAT>'
          [possible values: text, json]

        For more information, try '--help'.
        --- exit 2
        "#);
}

#[test]
fn a_topic_is_told_among_the_options_of_every_command() {
    let forge = Forge::offline();
    let text = forge.succeed("help exit-codes");
    for arguments in ["-q help exit-codes", "-o json help exit-codes", "help exit-codes -t dev"] {
        assert_eq!(forge.succeed(arguments), text, "{arguments}");
    }
    assert_eq!(forge.output("help exit-code").status.code(), Some(2));
    assert_eq!(forge.output("creds exec x/y -- help exit-codes").status.code(), Some(125));
}

#[test]
fn a_usage_error_in_json_is_json() {
    let forge = Forge::offline();
    let error = forge.json_error("branch create");
    assert_eq!(error["code"], "USAGE");
    assert_eq!(forge.output("-o json branch create").status.code(), Some(2));
}

#[test]
fn completions_in_the_repository_are_what_the_program_prints() {
    let forge = Forge::offline();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("completions");
    for (shell, file) in [
        ("bash", "lakeforge.bash"),
        ("zsh", "_lakeforge"),
        ("fish", "lakeforge.fish"),
        ("powershell", "lakeforge.ps1"),
    ] {
        let kept = fs::read_to_string(folder.join(file)).unwrap();
        assert_eq!(forge.succeed(&format!("completions {shell}")), kept, "completions/{file}");
    }
}

/// Returns the command lines of `parent` and of all below it, each ending in a space if not empty.
pub(crate) fn commands(forge: &Forge, parent: &str) -> Vec<String> {
    let mut all = vec![parent.to_owned()];
    let help = help(forge, parent);
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return all };
    for line in list.lines().take_while(|line| !line.is_empty()) {
        let name = line.split_whitespace().next().unwrap();
        let is_entry = line.starts_with("  ") && !line.starts_with("   ");
        if is_entry && name != "help" {
            all.extend(commands(forge, &format!("{parent}{name} ")));
        }
    }
    all
}

fn help(forge: &Forge, command: &str) -> String {
    let output = forge
        .command(&format!("{command}--help"))
        .env_remove("LAKEFORGE_LOCAL_DIR")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", forge.shown(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the arguments of each call of `lakeforge` in a line of shell.
fn calls(line: &str) -> Vec<String> {
    line.match_indices("lakeforge ")
        .filter(|(at, _)| *at == 0 || line[..*at].ends_with([' ', '(']))
        .map(|(at, word)| {
            let rest = &line[at + word.len()..];
            let mut quoted = false;
            let end = rest.find(|c| {
                quoted ^= c == '\'';
                !quoted && matches!(c, ')' | '|' | '&' | '>')
            });
            rest[..end.unwrap_or(rest.len())].trim().to_owned()
        })
        .collect()
}
