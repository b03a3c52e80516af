//! What keeps secrets and the files of others where they belong, from the outside.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::thread;

use insta::assert_snapshot;

use crate::apps::{App, bundle};
use crate::forge::Forge;
use crate::own::Own;

/// Names that a terminal or a CI system would act on.
const HOSTILE: [&str; 8] = [
    "\u{1b}[2J\u{1b}]0;owned\u{7}",
    "a\u{9b}31mb",
    "a\r\nb\u{8}\u{8}",
    "a\u{7f}b",
    "invoice\u{202e}fdp",
    "\n::stop-commands::x",
    "a\n  ::add-mask::b\n",
    "##[error]a ##vso[task.setvariable]b",
];

#[test]
fn no_name_that_is_given_steers_the_terminal_or_ci() {
    let forge = Forge::with_project("hostile-cli");
    let commands: [&[&str]; 14] = [
        &["branch", "get"],
        &["branch", "create"],
        &["branch", "delete", "--yes"],
        &["branch", "list", "--project"],
        &["creds", "mint"],
        &["creds", "mint", "dev", "--endpoint"],
        &["creds", "env", "dev", "--database"],
        &["creds", "exec", "dev", "--"],
        &["migrate", "--only"],
        &["deploy", "--only"],
        &["local", "logs"],
        &["-p"],
        &["-t"],
        &["gen", "--project"],
    ];
    for command in commands {
        for name in HOSTILE {
            for format in ["text", "json"] {
                let mut run = forge.command(&format!("-o {format}"));
                run.args(command).arg(name);
                if command.len() == 1 {
                    run.args(["branch", "list"]);
                }
                let output = run.output().unwrap();
                let code = output.status.code();
                assert!(code.is_some_and(|code| code != 101), "{command:?} {name:?}: {code:?}");
                for text in [&output.stdout, &output.stderr] {
                    refuse_steering(
                        &String::from_utf8_lossy(text),
                        &format!("{command:?} {name:?}"),
                    );
                }
            }
        }
    }
}

fn refuse_steering(text: &str, what: &str) {
    let steers = |c: char| (c.is_control() && c != '\n' && c != '\t') || c == '\u{202e}';
    assert!(!text.contains(steers), "{what}: {text:?}");
    assert!(!text.lines().any(|line| line.trim_start().starts_with("::")), "{what}: {text}");
    assert!(!text.contains("##[") && !text.contains("##vso["), "{what}: {text}");
}

#[test]
fn what_an_app_says_cannot_steer_the_terminal_or_ci() {
    let forge = Forge::new();
    bundle(&forge, "loud", &[], &[("loud-app", App::Crashes)]);
    forge.write(
        "apps/loud-app/app.py",
        "print('\\x1b[2J gone\\n::stop-commands::x\\n##[error]y\\u202e', flush=True)\nraise SystemExit(3)\n",
    );
    for format in ["text", "json"] {
        let output = forge.output(&format!("deploy -o {format}"));
        assert_eq!(output.status.code(), Some(11));
        for text in [&output.stdout, &output.stderr] {
            refuse_steering(&String::from_utf8_lossy(text), "deploy");
        }
        let logs = forge.succeed(&format!("local logs loud-app -o {format}"));
        refuse_steering(&logs, "local logs");
        assert!(logs.contains("gone"), "{logs}");
    }
}

#[test]
fn a_token_is_not_sent_over_an_open_line() {
    let forge = Forge::offline();
    let run = |host: &str| {
        let mut command = forge.command("branch list --project shop");
        command.env("DATABRICKS_HOST", host).env("DATABRICKS_TOKEN", "dapi-0123456789");
        forge.shown(&command.output().unwrap())
    };
    assert_snapshot!(run("http://workspace.example.test"), @r"
        --- stderr
        error: `http://workspace.example.test` is not encrypted, so no secret is sent there
          why: it is set by DATABRICKS_HOST
          try: write `https://`
        --- exit 13
        ");
    assert!(run("http://me:s3cret@10.255.255.1:8765").ends_with("--- exit 13"));

    // On this machine it is.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("http://{}", listener.local_addr().unwrap());
    let heard = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let lines = BufReader::new(stream).lines().map(Result::unwrap);
        lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    });
    run(&host);
    assert!(heard.join().unwrap().contains("dapi-0123456789"));
}

#[test]
fn an_app_cannot_name_a_file_outside_the_logs() {
    let forge = Forge::new();
    let victim = forge.path().join("victim.log");
    for name in ["../../../../victim", "/tmp/victim", "a/../../../../../victim"] {
        bundle(&forge, "escape", &[], &[("escape-app", App::Healthy)]);
        let text = forge.read("databricks.yml");
        forge.write("databricks.yml", &text.replace("name: escape-app", &format!("name: {name}")));
        fs::write(&victim, "precious").unwrap();
        for command in ["deploy", "deploy --dry-run"] {
            let shown = forge.run(command);
            assert!(shown.contains(&format!("an app cannot be called `{name}`")), "{shown}");
            assert!(shown.ends_with("--- exit 2"), "{shown}");
        }
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }
}

#[test]
fn a_link_out_of_the_source_is_not_uploaded() {
    let forge = Forge::new();
    bundle(&forge, "link", &[], &[("link-app", App::Healthy)]);
    forge.write("databrickscfg.copy", "client_secret = s3cret\n");
    let app = forge.path().join("apps/link-app");
    symlink("app.py", app.join("inside.py")).unwrap();
    forge.succeed("deploy");
    symlink("../../databrickscfg.copy", app.join("settings.cfg")).unwrap();
    let git = |arguments: &[&str]| {
        let output =
            std::process::Command::new("git").args(arguments).current_dir(forge.path()).output();
        assert!(output.unwrap().status.success(), "git {arguments:?}");
    };

    for tracked in [false, true] {
        if tracked {
            git(&["init", "-q"]);
            git(&["add", "."]);
        }
        let shown = forge.run("deploy");
        assert!(shown.contains("`settings.cfg` leads out of the source"), "{shown}");
        assert!(shown.ends_with("--- exit 13"), "{shown}");
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}

#[test]
fn logs_are_for_the_user_alone() {
    let forge = Own::start();
    bundle(&forge, "modes", &[], &[("modes-app", App::Healthy)]);
    let logs = forge.path().join(".databricks/lakeforge/local/logs");
    fs::create_dir_all(&logs).unwrap();
    fs::write(logs.join("modes-app.log"), "old").unwrap();
    forge.succeed("deploy");

    for file in [
        logs.join("modes-app.log"),
        forge.data().join("server.log"),
        forge.data().join("apps/modes-app/log"),
    ] {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn the_id_of_a_project_is_checked_before_it_is_asked_for() {
    let forge = Forge::new();
    assert_snapshot!(forge.run("-p local branch list --project x/y"), @r"
        --- stderr
        error: the id `x/y` may hold only lower-case letters, digits and hyphens
        --- exit 2
        ");
}
