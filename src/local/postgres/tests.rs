//! The engine against a real Postgres.

use std::os::unix::fs::PermissionsExt;

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::*;

mod standby;

/// The login that owns the databases of the tests.
pub(crate) const OWNER: &str = "ana@shop.test";

/// An engine in a folder of its own.
pub(crate) struct Bench {
    /// The engine.
    pub(crate) engine: Postgres,
    folder: tempfile::TempDir,
}

/// Opens an engine in a folder of its own.
pub(crate) async fn bench() -> Bench {
    let mut folder = tempfile::Builder::new();
    let folder = folder.prefix("lakeforge-test-").tempdir_in(quick_folder()).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    Bench { engine: open(folder.path()).await, folder }
}

/// Returns a folder in memory where there is room: creating the thousands of files of each test is
/// what takes long on a disk.
pub(crate) fn quick_folder() -> &'static str {
    let memory = "/dev/shm";
    let room = rustix::fs::statvfs(memory).map_or(0, |facts| facts.f_bavail * facts.f_frsize);
    if room > 4 << 30 { memory } else { "/tmp" }
}

async fn open(folder: &Path) -> Postgres {
    let folder = OwnedFolder::of_test(folder.join("postgres"));
    Postgres::open(&folder, Install::find(None).unwrap()).await.unwrap()
}

impl Bench {
    /// Opens a session on `cluster` as the owner, waking it.
    async fn connect(&self, cluster: &str) -> Client {
        self.connect_at(&self.engine.wake(cluster).await.unwrap()).await
    }

    async fn connect_at(&self, socket: &Path) -> Client {
        let port: u16 = socket.extension().unwrap().to_str().unwrap().parse().unwrap();
        let mut config = tokio_postgres::Config::new();
        config.host_path(socket.parent().unwrap()).port(port).user(OWNER);
        let (client, connection) =
            config.dbname("databricks_postgres").connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Runs `query` on `cluster` and returns the first column as text, with blanks between rows.
    async fn ask(&self, cluster: &str, query: &str) -> String {
        first_column(&self.connect(cluster).await, query).await.unwrap()
    }

    /// Creates `root` with the rows 1 and 2.
    async fn root_with_notes(&self) {
        self.engine.create_root("root", OWNER).await.unwrap();
        self.ask("root", "CREATE TABLE notes (n int); INSERT INTO notes VALUES (1), (2)").await;
    }

    async fn notes(&self, cluster: &str) -> String {
        self.ask(cluster, "SELECT n FROM notes ORDER BY n").await
    }

    /// Ends the postmaster of `cluster` as a crash would.
    fn kill(&self, cluster: &str) {
        let file = self.engine.0.cluster(cluster).unwrap().data().join("postmaster.pid");
        let text = std::fs::read_to_string(file).unwrap();
        let pid = text.lines().next().unwrap().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    fn folders(&self, part: &str) -> Vec<String> {
        let folder = self.folder.path().join("postgres").join(part);
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

async fn first_column(client: &Client, query: &str) -> Result<String, tokio_postgres::Error> {
    let messages = client.simple_query(query).await?;
    let text = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("").to_owned()),
        _ => None,
    };
    Ok(messages.iter().filter_map(text).collect::<Vec<_>>().join(" "))
}

/// Lets the clock move on, so that moments before and after are told apart.
async fn moment() -> Timestamp {
    tokio::time::sleep(Duration::from_millis(5)).await;
    let now = Timestamp::now();
    tokio::time::sleep(Duration::from_millis(5)).await;
    now
}

/// Waits until `holds`, which is looked at again and again.
async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let limit = std::time::Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(std::time::Instant::now() < limit, "not seen within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_of_now_has_what_was_committed_and_lives_apart() {
    let bench = bench().await;
    bench.root_with_notes().await;
    let before = Timestamp::now();

    let origin = bench.engine.create_child("root", "child", Moment::Now).await.unwrap();
    bench.ask("child", "DELETE FROM notes WHERE n = 1").await;
    bench.ask("root", "INSERT INTO notes VALUES (3)").await;

    assert_eq!(bench.notes("root").await, "1 2 3");
    assert_eq!(bench.notes("child").await, "2");
    assert!(origin.time >= before && origin.time <= Timestamp::now());
    let again = bench.engine.create_child("root", "child", Moment::Now).await.unwrap();
    assert_eq!(again, origin, "a second call finds the first one's work");
    assert_eq!(bench.notes("child").await, "2");
    bench.engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_brings_back_what_was_deleted() {
    let bench = bench().await;
    bench.root_with_notes().await;
    let before = moment().await;
    bench.ask("root", "DELETE FROM notes").await;
    bench.engine.suspend("root").await.unwrap();

    let origin = bench.engine.create_child("root", "past", Moment::Time(before)).await.unwrap();
    assert_eq!(bench.notes("past").await, "1 2");
    assert!(origin.time <= before, "{origin:?}");
    assert!(origin.time >= bench.engine.oldest_moment("root").await.unwrap());

    let idle = moment().await;
    bench.engine.create_child("root", "idle", Moment::Time(idle)).await.unwrap();
    assert_eq!(bench.notes("idle").await, "");
    let exact = Moment::Lsn(origin.lsn);
    bench.engine.create_child("root", "exact", exact).await.unwrap();
    assert_eq!(bench.notes("exact").await, "1 2");
    bench.engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moments_outside_the_retention_are_refused_and_leave_nothing() {
    let bench = bench().await;
    bench.root_with_notes().await;
    let hour = jiff::SignedDuration::from_hours(1);
    let now = Timestamp::now();

    for at in [
        Moment::Time(now - hour),
        Moment::Time(now + hour),
        Moment::Lsn("0/1".to_owned()),
        Moment::Lsn("FF/0".to_owned()),
    ] {
        let error = bench.engine.create_child("root", "child", at.clone()).await.unwrap_err();
        assert_eq!(error.to_json()["error"]["code"], "OUTSIDE_RETENTION", "{at:?}");
    }
    let garbage = bench.engine.create_child("root", "child", Moment::Lsn("x".to_owned())).await;
    assert_eq!(garbage.unwrap_err().kind(), Kind::Usage);
    let orphan = bench.engine.create_child("gone", "child", Moment::Now).await;
    assert_eq!(orphan.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(bench.folders("clusters"), ["root"]);
    bench.engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_generations_each_have_their_past() {
    let bench = bench().await;
    let engine = &bench.engine;
    bench.root_with_notes().await;
    engine.create_child("root", "child", Moment::Now).await.unwrap();
    bench.ask("child", "INSERT INTO notes VALUES (10)").await;
    let child_with_10 = moment().await;
    bench.ask("child", "DELETE FROM notes").await;
    engine.create_child("child", "grandchild", Moment::Time(child_with_10)).await.unwrap();
    assert_eq!(bench.notes("grandchild").await, "1 2 10");
    bench.ask("grandchild", "INSERT INTO notes VALUES (20)").await;
    let grandchild_with_20 = moment().await;
    bench.ask("grandchild", "DELETE FROM notes").await;

    engine.remove("root").await.unwrap();
    let last = Moment::Time(grandchild_with_20);
    engine.create_child("grandchild", "last", last).await.unwrap();

    assert_eq!(bench.notes("last").await, "1 2 10 20");
    let too_early = engine.create_child("grandchild", "x", Moment::Time(child_with_10)).await;
    assert_eq!(too_early.unwrap_err().to_json()["error"]["code"], "OUTSIDE_RETENTION");
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_made_under_load_is_consistent() {
    let bench = Arc::new(bench().await);
    bench.engine.create_root("root", OWNER).await.unwrap();
    bench
        .ask(
            "root",
            "CREATE TABLE a AS SELECT n, 100 AS v FROM generate_series(1, 50) n; \
             CREATE TABLE b AS SELECT * FROM a",
        )
        .await;
    let writers: Vec<_> = (0..3)
        .map(|_| {
            let bench = bench.clone();
            tokio::spawn(async move {
                let client = bench.connect("root").await;
                for round in 0.. {
                    let row = round % 50 + 1;
                    let text = format!(
                        "BEGIN; UPDATE a SET v = v - 1 WHERE n = {row}; \
                         UPDATE b SET v = v + 1 WHERE n = {row}; COMMIT"
                    );
                    if client.batch_execute(&text).await.is_err() {
                        return;
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;

    let earlier = Timestamp::now();
    let now = bench.engine.create_child("root", "now", Moment::Now).await.unwrap();
    let cluster = bench.engine.0.cluster("root").unwrap();
    let address = cluster.address().unwrap();
    bench
        .engine
        .0
        .bases
        .take(&bench.engine.0.host, &cluster, &address, Blocks::Shared)
        .await
        .unwrap();
    bench.engine.create_child("root", "rebased", Moment::Now).await.unwrap();
    let past = bench.engine.create_child("root", "past", Moment::Time(earlier)).await.unwrap();

    writers.iter().for_each(tokio::task::JoinHandle::abort);
    for cluster in ["now", "rebased", "past", "root"] {
        let sum = "SELECT (SELECT sum(v) FROM a) + (SELECT sum(v) FROM b)";
        assert_eq!(bench.ask(cluster, sum).await, "10000", "{cluster}");
        assert_ne!(bench.ask(cluster, "SELECT sum(v) FROM b").await, "5000", "{cluster}");
    }
    assert!(past.time <= earlier && earlier <= now.time);
    bench.engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_compute_wakes_with_everything_committed() {
    let bench = bench().await;
    bench.root_with_notes().await;
    assert!(bench.engine.is_running("root"));

    bench.kill("root");
    while bench.engine.is_running("root") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (one, two) = tokio::join!(bench.engine.wake("root"), bench.engine.wake("root"));

    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(bench.notes("root").await, "1 2");
    bench.engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pid_file_that_was_cut_off_keeps_nothing_from_starting() {
    let bench = bench().await;
    bench.root_with_notes().await;
    assert_eq!(bench.engine.count_awake(), 1);
    bench.engine.suspend("root").await.unwrap();
    assert_eq!(bench.engine.count_awake(), 0);
    let data = bench.engine.0.cluster("root").unwrap().data();
    std::fs::write(data.join("postmaster.pid"), "").unwrap();

    assert_eq!(bench.notes("root").await, "1 2");
    bench.engine.close().await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_compute_that_is_removed_leaves_no_shared_memory() {
    let bench = bench().await;
    bench.engine.create_root("root", OWNER).await.unwrap();
    let file = bench.engine.0.cluster("root").unwrap().data().join("postmaster.pid");
    let file = std::fs::read_to_string(file).unwrap();
    let segment: Vec<&str> = file.lines().nth(6).unwrap().split_whitespace().collect();
    let kept = || {
        let all = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
        all.lines().any(|line| line.split_whitespace().take(2).eq(segment.iter().copied()))
    };
    assert!(kept(), "the segment is {segment:?}");

    bench.kill("root");
    bench.engine.remove("root").await.unwrap();

    // The processes of the killed compute let go of it one after the other.
    eventually("the segment is gone", async || !kept()).await;
    bench.engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_left_is_cleared_when_opening() {
    let bench = bench().await;
    bench.root_with_notes().await;
    let clusters = bench.folder.path().join("postgres/clusters");
    std::fs::create_dir_all(clusters.join("half-made/data")).unwrap();
    std::fs::create_dir_all(bench.folder.path().join("postgres/bases/.new-x/data")).unwrap();
    let left = clusters.join("root/data/postmaster.pid");
    let left_running = std::fs::read_to_string(&left).unwrap();

    // The first engine stays as it is, with its compute running: that of a server killed just now.
    let second = open(bench.folder.path()).await;

    assert!(!second.is_running("root"));
    assert!(!left.exists(), "stopped cleanly");
    assert_eq!(bench.folders("clusters"), ["root"]);
    assert_eq!(bench.folders("bases"), Vec::<String>::new());
    bench.engine.close().await;
    second.wake("root").await.unwrap();
    assert_ne!(std::fs::read_to_string(&left).unwrap().lines().next(), left_running.lines().next());
    second.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_and_removing_again_changes_nothing() {
    let bench = bench().await;
    bench.root_with_notes().await;
    bench.engine.create_root("root", OWNER).await.unwrap();
    assert_eq!(bench.notes("root").await, "1 2");
    // A half-made child of an earlier try is in the way.
    let leftover = bench.folder.path().join("postgres/clusters/child/data/base");
    std::fs::create_dir_all(&leftover).unwrap();
    bench.engine.create_child("root", "child", Moment::Now).await.unwrap();
    assert_eq!(bench.notes("child").await, "1 2");

    for _ in 0..2 {
        bench.engine.remove("child").await.unwrap();
        bench.engine.remove("root").await.unwrap();
    }

    assert_eq!(bench.folders("clusters"), Vec::<String>::new());
    assert_eq!(bench.engine.wake("root").await.unwrap_err().kind(), Kind::NotFound);
    assert!(bench.engine.remove("../x").await.is_err());
    bench.engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bases_are_taken_shared_and_forgotten() {
    let bench = bench().await;
    let engine = &bench.engine;
    bench.root_with_notes().await;
    bench
        .ask("root", "CREATE TABLE big (t text); ALTER TABLE big ALTER t SET STORAGE EXTERNAL")
        .await;
    let load = "INSERT INTO big SELECT repeat('x', 100000) FROM generate_series(1, 800)";
    bench.ask("root", load).await;
    assert!(engine.logical_size("root").await.unwrap() > 80_000_000);

    engine.maintain().await.unwrap();
    assert_eq!(bench.folders("bases").len(), 1);
    engine.create_child("root", "child", Moment::Now).await.unwrap();
    assert_eq!(engine.0.cluster("child").unwrap().record().bases, bench.folders("bases"));
    engine.set_retention("root", Duration::ZERO).unwrap();
    let wal = engine.0.cluster("root").unwrap().wal();
    let files = || std::fs::read_dir(&wal).unwrap().count();
    let before = files();
    // A copy looks after its source in the background, and maintenance keeps out of the way of that.
    eventually("the log before the base goes", async || {
        engine.maintain().await.unwrap();
        files() < before - 15
    })
    .await;
    bench.ask("root", "INSERT INTO notes VALUES (3)").await;
    engine.create_child("root", "second", Moment::Now).await.unwrap();
    assert_eq!(bench.notes("second").await, "1 2 3");
    engine.remove("root").await.unwrap();
    engine.remove("second").await.unwrap();
    // One more may have been begun for the next copy of `root`.
    eventually("only the base of the child is left", async || {
        bench.folders("bases") == engine.0.cluster("child").unwrap().record().bases
    })
    .await;
    engine.remove("child").await.unwrap();
    assert_eq!(bench.folders("bases").len(), 0);
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_was_copied_has_its_next_copy_ready_until_it_goes() {
    let bench = bench().await;
    let engine = &bench.engine;
    bench.root_with_notes().await;
    bench.ask("root", "CREATE TABLE big AS SELECT n FROM generate_series(1, 600000) n").await;
    engine.create_child("root", "child", Moment::Now).await.unwrap();
    let ready_of = |name: &str| {
        let bases = engine.0.cluster(name).unwrap().record().bases;
        let ready = engine.0.bases.spares.ready();
        bases.last().filter(|id| id.starts_with(name) && ready.contains(id)).cloned()
    };
    let spare = loop {
        if let Some(spare) = ready_of("root") {
            break spare;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    bench.ask("root", "INSERT INTO notes VALUES (3)").await;

    engine.create_child("root", "next", Moment::Now).await.unwrap();

    assert_eq!(engine.0.cluster("next").unwrap().record().bases, std::slice::from_ref(&spare));
    assert_eq!(bench.notes("next").await, "1 2 3");
    assert_eq!(bench.ask("next", "SELECT count(*) FROM big").await, "600000");
    for cluster in ["root", "child", "next"] {
        engine.remove(cluster).await.unwrap();
    }
    assert!(!engine.0.bases.spares.ready().contains(&spare));
    assert_eq!(bench.folders("bases").len(), 0);
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_may_connect_and_create_in_its_database_alone() {
    let bench = bench().await;
    let app = "8f1b2c3d-0000-4000-8000-123456789abc";
    bench.root_with_notes().await;
    for _ in 0..2 {
        let access = Access::ConnectAndCreate { database: "databricks_postgres".to_owned() };
        bench.engine.ensure_login("root", app, access).await.unwrap();
        bench.engine.ensure_login("root", "ben@shop.test", Access::Owner).await.unwrap();
    }

    let held = |role, what| format!("SELECT pg_has_role('{role}', '{what}', 'member')");
    assert_eq!(bench.ask("root", &held(app, "databricks_superuser")).await, "f");
    assert_eq!(bench.ask("root", &held("ben@shop.test", "databricks_superuser")).await, "t");
    let create = format!("SELECT has_schema_privilege('{app}', 'public', 'create')");
    assert_eq!(bench.ask("root", &create).await, "t");
    let refused = bench.engine.ensure_login("root", "pg_x", Access::Owner).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Usage);
    bench.engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_an_earlier_version_is_restricted_before_anybody_gets_in() {
    if Install::find(None).unwrap().major > 15 {
        // There never was a way to these roles.
        return;
    }
    let bench = bench().await;
    bench.root_with_notes().await;
    let root = bench.engine.0.cluster("root").unwrap();
    let superuser = root.address().unwrap().connect(OWN_DATABASE).await.unwrap();
    let loose = format!(
        "SET allow_system_table_mods = on; UPDATE pg_authid SET rolsuper = false \
         WHERE rolname LIKE 'pg\\_%'; GRANT pg_execute_server_program TO \"{OWNER}\""
    );
    superuser.batch_execute(&loose).await.unwrap();
    root.change(|record| record.restricted = false).unwrap();
    bench.ask("root", "COPY notes TO PROGRAM 'cat >/dev/null'").await;
    let before = moment().await;
    bench.ask("root", "INSERT INTO notes VALUES (3)").await;

    bench.engine.suspend("root").await.unwrap();
    bench.engine.wake("root").await.unwrap();
    bench.engine.create_child("root", "past", Moment::Time(before)).await.unwrap();
    bench.engine.create_child("root", "now", Moment::Now).await.unwrap();

    for cluster in ["root", "past", "now"] {
        let client = bench.connect(cluster).await;
        for attempt in [
            "COPY notes TO PROGRAM 'cat >/dev/null'",
            "GRANT pg_execute_server_program TO CURRENT_USER",
            "SET ROLE pg_execute_server_program",
        ] {
            let refused = first_column(&client, attempt).await.unwrap_err();
            assert_eq!(refused.code().unwrap().code(), "42501", "{cluster}: {attempt}");
        }
        assert!(bench.engine.0.cluster(cluster).unwrap().record().restricted);
    }
}
