//! Standbys that follow a real Postgres.

use super::*;

const NOTES: &str = "SELECT n FROM notes ORDER BY n";
const PATIENCE: Duration = Duration::from_secs(120);

impl Bench {
    /// Opens a session on the standby `reader` of `primary`, waking it.
    async fn connect_reader(&self, primary: &str) -> Client {
        self.connect_at(&self.engine.wake_standby(primary, "reader").await.unwrap()).await
    }

    /// Runs `query` on the standby `reader` of `primary`.
    async fn read(&self, primary: &str, query: &str) -> String {
        first_column(&self.connect_reader(primary).await, query).await.unwrap()
    }

    fn runs(&self, cluster: &str) -> bool {
        self.engine.0.cluster(cluster).unwrap().address().is_some()
    }
}

/// Asks until the answer is yes.
async fn until(mut done: impl AsyncFnMut() -> bool) {
    let limit = std::time::Instant::now() + PATIENCE;
    while !done().await {
        assert!(std::time::Instant::now() < limit, "waited too long");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_reads_what_was_committed_before_and_since_and_writes_nothing() {
    let bench = bench().await;
    bench.root_with_notes().await;

    let reader = bench.connect_reader("root").await;

    assert_eq!(first_column(&reader, NOTES).await.unwrap(), "1 2");
    bench.ask("root", "INSERT INTO notes VALUES (3); CREATE ROLE late LOGIN").await;
    assert_eq!(bench.read("root", NOTES).await, "1 2 3", "a new session sees it at once");
    until(async || first_column(&reader, NOTES).await.unwrap() == "1 2 3").await;
    assert_eq!(bench.read("root", "SELECT 1 FROM pg_roles WHERE rolname = 'late'").await, "1");
    let refused = reader.batch_execute("INSERT INTO notes VALUES (4)").await.unwrap_err();
    assert_eq!(
        refused.as_db_error().unwrap().message(),
        "cannot execute INSERT in a read-only transaction"
    );
    bench.engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_sleeps_by_itself_and_wakes_with_what_happened_meanwhile() {
    let bench = bench().await;
    bench.root_with_notes().await;
    assert_eq!(bench.read("root", NOTES).await, "1 2");
    let session = bench.connect("root").await;

    bench.engine.suspend("root").await.unwrap();

    assert!(session.batch_execute("SELECT 1").await.is_err(), "its sessions end");
    assert!(!bench.engine.is_running("root"), "for its clients it sleeps");
    assert!(bench.runs("root"), "and runs for the standby");
    assert_eq!(bench.read("root", NOTES).await, "1 2");
    bench.engine.suspend("reader").await.unwrap();
    assert!(!bench.engine.is_running("reader"));
    until(async || !bench.runs("root")).await;

    bench.ask("root", "INSERT INTO notes VALUES (3)").await;
    bench.engine.suspend("root").await.unwrap();
    assert_eq!(bench.read("root", NOTES).await, "1 2 3");
    assert!(!bench.engine.is_running("root"));
    bench.engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_of_a_child_follows_the_child() {
    let bench = bench().await;
    bench.root_with_notes().await;
    bench.engine.create_child("root", "child", Moment::Now).await.unwrap();
    bench.ask("child", "DELETE FROM notes WHERE n = 1").await;
    bench.ask("root", "INSERT INTO notes VALUES (3)").await;

    assert_eq!(bench.read("child", NOTES).await, "2");
    bench.ask("child", "INSERT INTO notes VALUES (10)").await;
    assert_eq!(bench.read("child", NOTES).await, "2 10");

    bench.engine.remove("child").await.unwrap();
    assert_eq!(bench.folders("clusters"), ["root"]);
    let error = bench.engine.wake_standby("child", "reader").await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    bench.engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_cannot_go_on_is_made_again() {
    let bench = bench().await;
    let engine = &bench.engine;
    bench.root_with_notes().await;
    assert_eq!(bench.read("root", NOTES).await, "1 2");
    engine.suspend("reader").await.unwrap();

    bench
        .ask("root", "CREATE TABLE big (t text); ALTER TABLE big ALTER t SET STORAGE EXTERNAL")
        .await;
    let load = "INSERT INTO big SELECT repeat('x', 100000) FROM generate_series(1, 800)";
    bench.ask("root", load).await;
    engine.maintain().await.unwrap();
    engine.set_retention("root", Duration::ZERO).unwrap();
    engine.maintain().await.unwrap();
    let reader = engine.0.cluster("reader").unwrap();
    let last = *wal::segments(&reader.wal()).unwrap().last().unwrap();
    let kept = wal::segments(&engine.0.cluster("root").unwrap().wal()).unwrap();
    assert!(!kept.contains(&last), "the log it would go on with is gone");
    bench.ask("root", "INSERT INTO notes VALUES (3)").await;
    assert_eq!(bench.read("root", NOTES).await, "1 2 3");

    engine.suspend("reader").await.unwrap();
    std::fs::remove_file(reader.data().join("global/pg_control")).unwrap();
    assert_eq!(bench.read("root", NOTES).await, "1 2 3", "a broken one too");
    bench.engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_and_its_primary_survive_each_others_death() {
    let bench = bench().await;
    bench.root_with_notes().await;
    let session = bench.connect_reader("root").await;

    bench.kill("root");
    until(async || !bench.runs("root")).await;
    bench.engine.tend_standbys();
    bench.ask("root", "INSERT INTO notes VALUES (3)").await;
    until(async || first_column(&session, NOTES).await.unwrap() == "1 2 3").await;

    bench.kill("reader");
    until(async || !bench.runs("reader")).await;
    assert_eq!(bench.read("root", NOTES).await, "1 2 3");
    bench.kill("reader");
    until(async || !bench.runs("reader")).await;
    bench.engine.suspend("root").await.unwrap();
    bench.engine.tend_standbys();
    until(async || !bench.runs("root")).await;
    bench.engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_outlives_a_killed_server_and_leaves_nothing_when_removed() {
    let bench = bench().await;
    bench.root_with_notes().await;
    assert_eq!(bench.read("root", NOTES).await, "1 2");
    let half_made = bench.folder.path().join("postgres/clusters/half-made/data");
    std::fs::create_dir_all(half_made).unwrap();

    // The first engine stays as it is, with its computes running: that of a server killed just now.
    let second = open(bench.folder.path()).await;

    assert_eq!(bench.folders("clusters"), ["reader", "root"]);
    bench.engine.close().await;
    let bench = Bench { engine: second, folder: bench.folder };
    assert!(!bench.runs("reader") && !bench.runs("root"));
    bench.ask("root", "INSERT INTO notes VALUES (3)").await;
    assert_eq!(bench.read("root", NOTES).await, "1 2 3");
    for _ in 0..2 {
        bench.engine.remove("reader").await.unwrap();
    }
    assert_eq!(bench.folders("clusters"), ["root"]);
    bench.engine.suspend("root").await.unwrap();
    assert!(!bench.runs("root"), "nothing needs it any more");
    bench.engine.close().await;
}
