//! The data folder: whose it is, who may hold it, and what happens to a folder that is none.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use insta::assert_snapshot;
use serde_json::Value;

use crate::apps::{App, bundle};
use crate::forge::Forge;
use crate::http::{Admin, send};
use crate::own::{self, Own};

const MARKER: &str = "lakeforge-workspace.json";
/// Everything that takes a data folder.
const COMMANDS: [&str; 7] = [
    "local reset --yes",
    "local reset --dry-run",
    "local start --port 0",
    "local start --port 0 --postgres-bin missing",
    "local serve --port 0",
    "local stop",
    "local status",
];

/// Kind, mode, time of the last change, and content.
type Facts = (String, u32, (i64, i64), Vec<u8>);

/// Returns everything in and below `folder`, itself included.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut found = BTreeMap::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(path) = todo.pop() {
        let facts = fs::symlink_metadata(&path).unwrap();
        let content = match facts.file_type() {
            kind if kind.is_file() => fs::read(&path).unwrap(),
            kind if kind.is_symlink() => {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            }
            _ => {
                todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                Vec::new()
            }
        };
        let kind = format!("{:?}", facts.file_type());
        found.insert(path, (kind, facts.mode(), (facts.mtime(), facts.mtime_nsec()), content));
    }
    found
}

/// Writes files below `folder`.
fn fill(folder: &Path, files: &[(&str, &str)]) {
    for (name, content) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// Runs every command on the data folder `path` from within `from`: each is refused, and `folder` stays as it is.
fn assert_left_alone(forge: &Forge, folder: &Path, path: &str, from: &Path) {
    let before = tree(folder);
    for command in COMMANDS {
        let output =
            forge.command(command).args(["--data-dir", path]).current_dir(from).output().unwrap();
        let shown = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(13), "{command} --data-dir {path}: {shown}");
        assert!(shown.contains("is no embedded workspace, and stays as it is"), "{shown}");
        assert!(tree(folder) == before, "{command} --data-dir {path} changed something");
    }
}

/// A repository with every name in it that a workspace has, too.
fn repository(folder: &Path) {
    fill(
        folder,
        &[
            (".git/HEAD", "ref: refs/heads/main"),
            ("apps/portal/app.py", "print(1)"),
            ("apps/portal/process", "1\n1\n"),
            ("files/tree/notes.txt", "n"),
            ("files/scratch/draft.txt", "d"),
            ("keys/signing.pem", "k"),
            ("objects/apps/README.md", "r"),
            ("objects/settings/workspace.json", r#"{"workspace_id":1,"network":1,"port":1}"#),
            ("postgres/clusters/mydata/PG_VERSION", "15"),
            ("postgres/.new-thing/file", "n"),
            ("tls/ca.pem", "c"),
            ("databrickscfg", "[prod]\nhost = https://prod.test\n"),
            ("lock", "1"),
            ("server.json", r#"{"pid":1,"host":"http://127.0.0.1:1"}"#),
            ("server.log", "l"),
        ],
    );
}

#[test]
fn a_folder_that_is_no_workspace_is_refused_and_nothing_in_it_changed() {
    let forge = Forge::offline();
    let at = |name: &str| forge.path().join(name);
    repository(&at("repository"));
    fill(&at("home"), &[(".bashrc", ""), (".ssh/id", "key"), ("Documents/thesis.txt", "t")]);
    fill(&at("marked"), &[(MARKER, "{}"), ("objects/x.json", "{}")]);
    fill(&at("other"), &[(MARKER, r#"{"format":"something-else","version":1}"#), ("apps/x", "x")]);
    symlink("repository", at("link")).unwrap();
    fs::write(at("file"), "f").unwrap();

    for name in ["repository", "home", "marked", "other", "file"] {
        assert_left_alone(&forge, &at(name), name, forge.path());
    }
    assert_left_alone(&forge, &at("repository"), "link", forge.path());
    assert_left_alone(&forge, &at("repository"), ".", &at("repository"));
    assert_left_alone(&forge, &at("repository"), "..", &at("repository/apps"));
    assert_snapshot!(forge.run("local reset --yes --data-dir home"), @r"
        --- stderr
        error: `[DIR]/home` is no embedded workspace, and stays as it is
          why: it holds `.bashrc` and 2 more, and no `lakeforge-workspace.json`
          try: choose a new or an empty folder with --data-dir
        --- exit 13
        ");
}

#[test]
fn an_empty_folder_becomes_a_workspace_and_goes_with_it() {
    let forge = Own::start();
    let data = forge.data();
    let mode = |name: &str| fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("."), mode("lock"), mode(MARKER)], [0o711, 0o600, 0o600]);
    forge.succeed("local reset --yes");
    assert!(!data.exists());

    fs::create_dir(data).unwrap();
    fs::set_permissions(data, fs::Permissions::from_mode(0o711)).unwrap();
    assert_eq!(forge.run("local stop"), forge.run("local stop"));
    assert_snapshot!(forge.run("local reset --yes"), @r"
        --- stdout
        nothing to delete: there is no workspace in [DATA]
        --- exit 0
        ");
    assert_eq!(fs::read_dir(data).unwrap().count(), 0);
    forge.succeed("local start --port 0");
    assert!(data.join(MARKER).exists());
}

#[test]
fn a_workspace_from_before_there_were_markers_is_known_by_what_only_servers_write() {
    let forge = Own::start();
    let data = forge.data();
    let marker = data.join(MARKER);
    forge.succeed("local stop");
    fs::remove_file(&marker).unwrap();

    // With anything else in it nobody can tell whose the rest is.
    fs::write(data.join("thesis.txt"), "t").unwrap();
    assert_left_alone(&forge, data, &data.display().to_string(), forge.path());
    fs::remove_file(data.join("thesis.txt")).unwrap();
    let profiles = fs::read_to_string(data.join("databrickscfg")).unwrap();
    fs::write(data.join("databrickscfg"), "[prod]\n").unwrap();
    assert_left_alone(&forge, data, &data.display().to_string(), forge.path());
    fs::write(data.join("databrickscfg"), profiles).unwrap();

    forge.succeed("local start");
    assert!(marker.exists());
    forge.succeed("local stop");
    fs::remove_file(&marker).unwrap();
    forge.succeed("local reset --yes");
    assert!(!data.exists());
}

#[test]
fn of_many_starts_at_once_one_has_started_it() {
    let forge = Own(Forge::offline());
    let start = || {
        forge
            .command("-q local start --port 0 -o json")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    };
    let starts: Vec<_> = (0..8).map(|_| start().unwrap()).collect();

    let answers: Vec<Value> = starts
        .into_iter()
        .map(|start| {
            let output = start.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            serde_json::from_slice(&output.stdout).unwrap()
        })
        .collect();

    let started = answers.iter().filter(|answer| answer["started"] == true).count();
    assert_eq!(started, 1, "{answers:?}");
    let pid = own::status(&forge)["pid"].clone();
    assert!(answers.iter().all(|answer| answer["pid"] == pid), "{answers:?}");
}

#[test]
fn stop_signals_no_process_but_the_server() {
    let forge = Own::start();
    forge.succeed("local stop");
    let path = forge.data().join("lock");
    let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    // As left by a killed server whose number the system gave away again, while somebody else clears up.
    let lock = fs::File::open(&path).unwrap();
    lock.lock().unwrap();
    for text in [format!("{}\n1\n", stranger.id()), stranger.id().to_string()] {
        fs::write(&path, text).unwrap();
        let mut stop = forge
            .command("local stop")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();

        // Long enough for a signal; should it be slower, it has nothing to signal.
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(stop.try_wait().unwrap().is_none(), "somebody still holds the folder");
        assert!(stranger.try_wait().unwrap().is_none(), "a stranger was ended");
        lock.unlock().unwrap();
        assert!(stop.wait().unwrap().success());
        lock.lock().unwrap();
    }
    lock.unlock().unwrap();
    assert!(stranger.try_wait().unwrap().is_none());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn stop_where_nothing_can_be_written_and_nothing_runs_is_done() {
    let forge = Own::start();
    forge.succeed("local stop");
    let data = forge.data();
    // Root may write everywhere: the program is run as somebody who may not.
    let nobody = 65_534;
    let root = rustix::process::geteuid().is_root();
    if root {
        tree(data).keys().for_each(|path| lchown(path, Some(nobody), Some(nobody)).unwrap());
    }
    fs::set_permissions(data.join("lock"), fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(data, fs::Permissions::from_mode(0o500)).unwrap();
    let program = forge.path().join("lakeforge");
    fs::copy(crate::forge::PROGRAM, &program).unwrap();

    let mut stop = Command::new(&program);
    stop.args(["local", "stop", "--data-dir"]).arg(data).env_clear().current_dir("/");
    if root {
        stop.uid(nobody).gid(nobody);
    }
    let output = stop.output().unwrap();

    let shown = forge.shown(&output);
    fs::set_permissions(data, fs::Permissions::from_mode(0o711)).unwrap();
    assert_snapshot!(shown, @r"
        --- stdout
        not running
        --- stderr
        Stopping the embedded workspace
        --- exit 0
        ");
}

/// Says who it is and what it can read of the data folder, and writes into its own.
const CURIOUS: &str = r#"
import json, os, pathlib
data = pathlib.Path.cwd().parents[3]
def readable(path):
    try:
        return [entry.name for entry in path.iterdir()] if path.is_dir() else path.read_text()
    except OSError:
        return None
names = ["databrickscfg", "server.log", "server.json", "lock", "objects", "keys", "tls/ca.key", "files", "postgres", "apps", "."]
facts = {
    "user": os.getuid(), "groups": os.getgroups(), "home": os.environ["HOME"] == os.getcwd(),
    "there": all((data / name).exists() for name in ["databrickscfg", "tls/ca.key", "keys"]),
    "read": [name for name in names if readable(data / name) is not None],
    "log": readable(data / "apps/curious-app/log") is not None,
}
pathlib.Path("answers.json").write_text(json.dumps({"/healthz": {"body": json.dumps(facts)}}))
"#;

#[test]
fn an_app_of_roots_is_somebody_else_who_reads_nothing_but_its_own() {
    let forge = Forge::new();
    bundle(&forge, "curious", &[], &[("curious-app", App::Healthy)]);
    let program = forge.read("apps/curious-app/app.py");
    forge.write("apps/curious-app/app.py", &format!("{CURIOUS}{program}"));
    forge.succeed("deploy");

    let admin = Admin::of(&forge);
    let url = format!("{}/healthz", admin.app("curious-app")["url"].as_str().unwrap());
    let answer = send("GET", &url, &[("Authorization", &admin.bearer())], "");

    let facts: Value = serde_json::from_str(&answer.body).unwrap();
    let user = rustix::process::geteuid();
    assert_eq!(facts["there"], true);
    if user.is_root() {
        assert!(facts["user"].as_u64().unwrap() != 0 && facts["home"] == true, "{facts}");
        assert!(!facts["groups"].as_array().unwrap().contains(&Value::from(0)), "{facts}");
        assert_eq!(
            (&facts["read"], &facts["log"]),
            (&Value::Array(Vec::new()), &Value::from(false))
        );
    } else {
        assert_eq!(facts["user"], user.as_raw());
    }
}
