//! The fixture: a folder of its own for each test, and one embedded workspace for all of them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, OnceLock};

use serde_json::Value;
use tempfile::TempDir;

use crate::http::Admin;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_lakeforge");

/// How much room a folder in memory must have to be used: several times what the tests need.
const ROOM: u64 = 8 << 30;

/// An embedded workspace that ends with the test process, because its standard input does, and
/// leaves no folder behind.
pub(crate) struct Workspace {
    folder: PathBuf,
    _server: Child,
}

impl Workspace {
    /// Starts one that no other test uses; `arguments` go to `local serve`.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let folder = open_folder_in(&quick_folder()).keep();
        // A static is never dropped: the shell outlives the server and removes what it wrote.
        let mut server = Command::new("sh")
            .args(["-c", "trap '' INT; \"$@\"; rm -rf \"$0\""])
            .arg(&folder)
            .args([PROGRAM, "local", "serve", "--port", "0", "--until-eof", "--data-dir"])
            .arg(folder.join("workspace"))
            .args(arguments)
            .env("LAKEFORGE_LOG", "lakeforge=error")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("http://127.0.0.1:"), "the server said {line:?}");
        Workspace { folder, _server: server }
    }

    /// Returns its data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("workspace")
    }
}

/// Returns the workspace that all tests share; each uses projects and apps of its own.
pub(crate) fn workspace() -> &'static Workspace {
    static SHARED: OnceLock<Workspace> = OnceLock::new();
    SHARED.get_or_init(|| Workspace::start(&[]))
}

/// Makes a temporary folder that another user can pass through, because Postgres may run as one.
pub(crate) fn open_folder() -> TempDir {
    open_folder_in(&std::env::temp_dir())
}

fn open_folder_in(parent: &Path) -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::Builder::new().prefix("lakeforge-cli-").tempdir_in(parent).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    folder
}

/// Returns a folder in memory where there is room: most of the tests' time is spent on creating
/// the thousands of files of each database.
fn quick_folder() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let room = rustix::fs::statvfs(&memory).map_or(0, |facts| facts.f_bavail * facts.f_frsize);
    if room > ROOM { memory } else { std::env::temp_dir() }
}

/// One test's folder and surroundings.
pub(crate) struct Forge {
    folder: TempDir,
    data: PathBuf,
    // Removed with the test; nothing of its own when the workspace is shared.
    _own: Option<TempDir>,
    /// Projects that go with the test.
    projects: Mutex<Vec<String>>,
}

impl Drop for Forge {
    /// Deletes the projects of the test for good: hundreds of computes that are awake at once, with
    /// their data in memory, are more than a machine has room for.
    fn drop(&mut self) {
        let projects = std::mem::take(self.projects.get_mut().unwrap());
        if projects.is_empty() || std::thread::panicking() {
            return;
        }
        let admin = Admin::of(self);
        for project in projects {
            let path = format!("/api/2.0/postgres/projects/{project}");
            let unprotected = r#"{"spec": {"is_protected": false}}"#;
            let production = format!("{path}/branches/production?update_mask=spec.is_protected");
            admin.send("PATCH", &production, unprotected);
            // It may be gone already, or keep what the test protected.
            admin.send("DELETE", &format!("{path}?purge=true"), "");
        }
    }
}

impl Forge {
    /// Uses the shared workspace.
    pub(crate) fn new() -> Self {
        Forge::at(workspace().data(), None)
    }

    /// Uses no workspace: its data folder is the test's own and empty.
    pub(crate) fn offline() -> Self {
        let own = open_folder_in(&quick_folder());
        Forge::at(own.path().join("workspace"), Some(own))
    }

    /// Uses the shared workspace and deploys a bundle with the project `project`.
    pub(crate) fn with_project(project: &str) -> Self {
        Forge::on(workspace(), &[project])
    }

    /// Uses the shared workspace and deploys a bundle with `projects`.
    pub(crate) fn with_projects(projects: &[&str]) -> Self {
        Forge::on(workspace(), projects)
    }

    /// Uses `workspace` and deploys a bundle with `projects`.
    pub(crate) fn on(workspace: &Workspace, projects: &[&str]) -> Self {
        let forge = Forge::at(workspace.data(), None);
        forge.bundle(projects);
        forge.will_go(projects);
        forge.succeed("gen");
        forge.succeed("deploy");
        forge
    }

    fn at(data: PathBuf, own: Option<TempDir>) -> Self {
        Forge { folder: open_folder(), data, _own: own, projects: Mutex::default() }
    }

    /// Has `projects` deleted when the test ends, if it uses the shared workspace.
    pub(crate) fn will_make(&self, projects: &[&str]) {
        if self._own.is_none() && self.data == workspace().data() {
            self.will_go(projects);
        }
    }

    fn will_go(&self, projects: &[&str]) {
        let projects = projects.iter().map(|project| (*project).to_owned());
        self.projects.lock().unwrap().extend(projects);
    }

    /// Writes a bundle with `projects` and no apps.
    pub(crate) fn bundle(&self, projects: &[&str]) {
        let id = projects[0];
        self.write(
            "databricks.yml",
            &format!(
                "bundle: {{name: {id}}}\ninclude: [resources/*.yml]\n\
                 targets: {{local: {{default: true, workspace: {{profile: local}}}}}}\n"
            ),
        );
        let list: Vec<String> =
            projects.iter().map(|id| format!("{id}: {{endpoints: []}}")).collect();
        let list = list.join(", ");
        self.write("lakeforge.yml", &format!("projects: {{{list}}}\nbranch: {{ttl: 1d}}\n"));
    }

    /// Returns the test's folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the data folder of the test's workspace.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Writes a file of the test's folder.
    pub(crate) fn write(&self, file: &str, text: &str) {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Reads a file of the test's folder.
    pub(crate) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path().join(file)).unwrap()
    }

    /// Prepares a run of the program; its environment is empty but for what is needed.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(words(arguments))
            .current_dir(self.path())
            .env_clear()
            .envs(
                ["PATH", "TMPDIR", "HOME"]
                    .iter()
                    .filter_map(|name| std::env::var_os(name).map(|value| (*name, value))),
            )
            .env("DATABRICKS_CONFIG_FILE", self.path().join("databrickscfg"))
            .env("LAKEFORGE_LOCAL_DIR", &self.data)
            .env("LAKEFORGE_ENGINE", "builtin")
            .stdin(Stdio::null());
        command
    }

    /// Runs the program and returns what it did.
    pub(crate) fn output(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the program, expects success, and returns its stdout.
    pub(crate) fn succeed(&self, arguments: &str) -> String {
        let output = self.output(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`lakeforge {arguments}` failed:\n{stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the program and returns stdout, stderr and exit code in one text, what varies replaced.
    pub(crate) fn run(&self, arguments: &str) -> String {
        self.shown(&self.output(arguments))
    }

    /// Runs the program with `-q -o json`, expects success, and returns its answer.
    pub(crate) fn json(&self, arguments: &str) -> Value {
        let text = self.succeed(&format!("-q -o json {arguments}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
    }

    /// Runs the program with `-q -o json`, expects success, and returns the objects it streamed.
    pub(crate) fn json_lines(&self, arguments: &str) -> Vec<Value> {
        self.succeed(&format!("-q -o json {arguments}"))
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Runs the program with `-q -o json`, expects failure, and returns what stands in `error`.
    pub(crate) fn json_error(&self, arguments: &str) -> Value {
        let output = self.output(&format!("-q -o json {arguments}"));
        assert!(!output.status.success(), "`lakeforge {arguments}` succeeded");
        let mut error: Value = serde_json::from_slice(&output.stderr).unwrap_or_else(|error| {
            panic!("{error} in {:?}", String::from_utf8_lossy(&output.stderr))
        });
        error["error"].take()
    }

    /// Returns the branches of `project` as `project/branch`, in the program's order.
    pub(crate) fn branches(&self, project: &str) -> Vec<String> {
        let list = self.json(&format!("branch list --project {project}"));
        list.as_array().unwrap().iter().map(|branch| short_name(&branch["name"])).collect()
    }

    /// Runs SQL on a branch and returns its rows.
    pub(crate) fn sql(&self, branch: &str, statement: &str) -> String {
        let output = self
            .command(&format!("-q creds exec {branch} -- psql -XAtqc"))
            .arg(statement)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{statement}` on {branch} failed:\n{stderr}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Returns what a run did as one text, what varies replaced.
    pub(crate) fn shown(&self, output: &Output) -> String {
        let mut text = String::new();
        for (name, stream) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            let stream = String::from_utf8_lossy(stream);
            if !stream.is_empty() {
                text.push_str(&format!("--- {name}\n{}\n", stream.trim_end()));
            }
        }
        let exit = output.status.code().map_or("signal".to_owned(), |code| code.to_string());
        text.push_str(&format!("--- exit {exit}"));
        let text = text
            .replace(&format!("/private{}", self.path().display()), "[DIR]")
            .replace(&self.path().display().to_string(), "[DIR]")
            .replace(&self.data.display().to_string(), "[DATA]");
        redact(&text)
    }
}

/// Replaces what differs from run to run: hosts, times, lengths of time, ids.
fn redact(text: &str) -> String {
    let patterns = [
        (r"http://127\.0\.0\.1:\d+", "[HOST]"),
        (r"127\.\d+\.\d+\.\d+(:\d+)?", "[ADDRESS]"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[TIME]"),
        (r"\bport \d+ failed", "port [PORT] failed"),
        (r"\[TraceId: [0-9a-f-]+\]", "[TRACE]"),
        (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "[ID]"),
        (r"\b\d+d ago", "[LENGTH] ago"),
        (r"\b(\d+d \d+h|\d+h \d+m|\d+m \d+s|\d+(\.\d+)?(ms|s))\b", "[LENGTH]"),
    ];
    let mut text = text.to_owned();
    for (pattern, name) in patterns {
        text = regex::Regex::new(pattern).unwrap().replace_all(&text, name).into_owned();
    }
    text
}

/// Returns `shop/dev` for `projects/shop/branches/dev`.
pub(crate) fn short_name(name: &Value) -> String {
    let parts: Vec<&str> = name.as_str().unwrap().split('/').collect();
    assert!(parts.len() == 4 && parts[0] == "projects" && parts[2] == "branches", "{parts:?}");
    format!("{}/{}", parts[1], parts[3])
}

/// Expects every key in `value` to be in snake_case, at any depth.
pub(crate) fn assert_snake_case(value: &Value) {
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                let snake =
                    key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
                assert!(snake, "the key `{key}` is not in snake_case");
                assert_snake_case(inner);
            }
        }
        Value::Array(items) => items.iter().for_each(assert_snake_case),
        _ => {}
    }
}

/// Splits a command line at spaces; single quotes keep a word together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}
