//! The listener with a real client in front and a real compute behind.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio_postgres::Client;
use tokio_postgres::config::{Config, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::*;
use crate::local::postgres::tests::{Bench, OWNER, bench};
use crate::local::tls::Authority;

const PASSWORD: &str = "right-token";
/// How long the listener may take on a slow machine for what takes no time.
const PATIENCE: Duration = Duration::from_secs(60);

struct FakeGate {
    bench: Bench,
    opened: AtomicUsize,
    closed: AtomicUsize,
}

impl Gate for FakeGate {
    async fn method(&self, _endpoint: &EndpointName, _user: &str) -> Result<Method, Refusal> {
        Ok(Method::Token)
    }

    async fn admit(
        &self,
        endpoint: &EndpointName,
        _user: &str,
        _database: &str,
        proof: Proof,
    ) -> Result<PathBuf, Refusal> {
        if !matches!(proof, Proof::Token(password) if password.expose() == PASSWORD) {
            let message = format!("the token is not valid for {endpoint}");
            return Err(Refusal { sqlstate: "28P01", message });
        }
        Ok(self.bench.engine.wake("root").await.unwrap())
    }

    fn opened(&self, _endpoint: &EndpointName) {
        self.opened.fetch_add(1, Ordering::SeqCst);
    }

    fn closed(&self, _endpoint: &EndpointName) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

struct Front {
    address: SocketAddr,
    gate: Arc<FakeGate>,
    tls: MakeRustlsConnect,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<()>,
    _certificates: tempfile::TempDir,
}

/// Starts a compute and a listener in front of it.
async fn front() -> Front {
    front_with(LOGIN_LIMIT).await
}

/// The same, with a limit for logins.
async fn front_with(login_limit: Duration) -> Front {
    let bench = bench().await;
    bench.engine.create_root("root", OWNER).await.unwrap();
    let certificates = tempfile::tempdir().unwrap();
    let authority = Authority::open(certificates.path()).unwrap();
    let config = authority.server_config(&["127.0.0.1".to_owned()]).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.certificate()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();

    let (closed, opened) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let gate = Arc::new(FakeGate { bench, opened, closed });
    let endpoint: EndpointName = "projects/shop/branches/dev/endpoints/primary".parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let served =
        tokio::spawn(serve(listener, endpoint, config, gate.clone(), login_limit, stopped));
    let tls = MakeRustlsConnect::new(client);
    Front { address, gate, tls, stop, served, _certificates: certificates }
}

impl Front {
    fn config(&self) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.address.port()).user(OWNER).password(PASSWORD);
        config.dbname("databricks_postgres").ssl_mode(SslMode::Require);
        config
    }

    async fn connect(&self, config: &Config) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = config.connect(self.tls.clone()).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Sends `bytes` as a client that knows no TLS and returns all that comes back.
    async fn send(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // A connection that is reset has answered nothing.
        let _ = stream.read_to_end(&mut answer).await;
        answer
    }

    async fn close(self) {
        self.stop.send(true).unwrap();
        self.served.await.unwrap();
        assert_eq!(
            self.gate.opened.load(Ordering::SeqCst),
            self.gate.closed.load(Ordering::SeqCst),
        );
        self.gate.bench.engine.close().await;
    }
}

fn state(error: &tokio_postgres::Error) -> &str {
    error.code().map_or("none", |code| code.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_logs_in_and_others_are_refused() {
    let front = front().await;
    let client = front.connect(&front.config()).await.unwrap();

    let row = client.query_one("SELECT current_user::text, current_setting('is_superuser')", &[]);
    let row = row.await.unwrap();
    assert_eq!((row.get(0), row.get(1)), (OWNER, "off"));
    client
        .batch_execute("CREATE TABLE big AS SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
        .await
        .unwrap();
    assert_eq!(client.query("SELECT * FROM big", &[]).await.unwrap().len(), 5000);

    let wrong = front.connect(front.config().password("wrong-token")).await.err().unwrap();
    assert_eq!(state(&wrong), "28P01");
    assert!(!format!("{wrong:?}").contains("wrong-token"));
    let unknown = front.connect(front.config().user("nobody@shop.test")).await.err().unwrap();
    assert_eq!(state(&unknown), "28000", "Postgres' own answer");
    let nowhere = front.connect(front.config().dbname("nowhere")).await.err().unwrap();
    assert_eq!(state(&nowhere), "3D000");
    let plain = front.config().ssl_mode(SslMode::Disable).connect(tokio_postgres::NoTls).await;
    assert_eq!(state(&plain.err().unwrap()), "28000");
    front.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_can_be_cancelled() {
    let front = front().await;
    let client = front.connect(&front.config()).await.unwrap();
    let cancel = client.cancel_token();

    let query = tokio::spawn(async move { client.batch_execute("SELECT pg_sleep(30)").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    cancel.cancel_query(front.tls.clone()).await.unwrap();

    let error = tokio::time::timeout(Duration::from_secs(5), query).await.unwrap().unwrap();
    assert_eq!(state(&error.unwrap_err()), "57014");
    front.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_does_not_break_the_listener() {
    let front = front().await;
    let huge = [&u32::MAX.to_be_bytes()[..], &[0; 100]].concat();
    let ssl_then_garbage = [&[0, 0, 0, 8, 4, 210, 22, 47][..], &[255; 64]].concat();
    for bytes in [&b""[..], b"\0", b"GET / HTTP/1.1\r\n\r\n", &huge, &[0x16, 3, 1, 0, 5], &[0; 8]] {
        assert_eq!(front.send(bytes).await, b"", "{bytes:?}");
    }
    assert_eq!(front.send(&ssl_then_garbage).await.first(), Some(&b'S'));
    let foreign_cancel = [0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 1, 2, 3, 4];
    assert_eq!(front.send(&foreign_cancel).await, b"");
    let gss = [0, 0, 0, 8, 4, 210, 22, 48];
    assert_eq!(front.send(&gss).await, b"N");
    assert_eq!(front.send(&[gss, gss].concat()).await, b"N", "asked once is asked enough");

    let client = front.connect(&front.config()).await.unwrap();
    client.batch_execute("SELECT 1").await.unwrap();
    front.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_its_time_is_cut_off() {
    let front = front_with(Duration::from_millis(300)).await;
    let tls_begun = [&[0, 0, 0, 8, 4, 210, 22, 47][..], &[0x16, 3, 1, 2, 0, 1]].concat();
    for said in [&b""[..], &[0, 0, 0], &[0, 0, 0x20, 0, 0, 3, 0, 0, b'u'], &tls_begun, &[0x16]] {
        let mut stream = TcpStream::connect(front.address).await.unwrap();
        stream.write_all(said).await.unwrap();
        // It says no more and waits: only the server can end this.
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{said:?} is still there");
    }
    front.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_that_never_end_do_not_take_every_place() {
    let front = front().await;
    let mut waiting = Vec::new();
    for _ in 0..MOST_LOGINS {
        waiting.push(TcpStream::connect(front.address).await.unwrap());
    }

    let one_more = front.send(&[0, 0, 0, 8, 4, 210, 22, 47]).await;
    drop(waiting);

    assert_eq!(one_more, packets::fatal("53300", "sorry, too many logins are under way"));
    let limit = Instant::now() + PATIENCE;
    while let Err(error) = front.connect(&front.config()).await {
        assert!(Instant::now() < limit, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    front.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_its_compute_does_and_the_next_one_wakes_it() {
    let front = front().await;
    let client = front.connect(&front.config()).await.unwrap();

    front.gate.bench.engine.suspend("root").await.unwrap();

    assert!(client.batch_execute("SELECT 1").await.is_err());
    assert!(!front.gate.bench.engine.is_running("root"));
    let client = front.connect(&front.config()).await.unwrap();
    client.batch_execute("SELECT 1").await.unwrap();
    front.close().await;
}
