//! A login to an endpoint: whether SQL works, and if not, whether it is still waking up.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::{Config, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::creds::Connection;
use crate::error::{Error, Kind, Result};

/// Longest time for one login and one query; a compute that sleeps deeply takes 30 s.
const ONE_TRY: Duration = Duration::from_secs(35);

/// Why a login did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The compute is on its way; trying again will help.
    Starting(String),
    /// The server said no to this caller.
    Refused(String),
    /// The server is not known to be the one it should be; it was told nothing.
    Unknown(String),
}

/// Why a query did not work.
#[derive(Debug)]
enum Failure {
    /// Postgres, or the way to it.
    Postgres(tokio_postgres::Error),
    /// The certificate of the embedded workspace's authority cannot be read.
    Authority(pem::Error),
    /// The client broke over what the server sent.
    Broken,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Postgres(error) => match error.as_db_error() {
                Some(said) => said.fmt(f),
                None => f.write_str(&innermost(error)),
            },
            Failure::Authority(error) => {
                write!(f, "the certificate of the embedded workspace cannot be read: {error}")
            }
            Failure::Broken => f.write_str("the answer is not understood"),
        }
    }
}

/// Logs in and runs `SELECT 1`.
pub(super) async fn probe(connection: &Connection, limit: Duration) -> Result<(), Refusal> {
    let limit = limit.min(ONE_TRY);
    match tokio::time::timeout(limit, select_one(connection)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => Err(classify(&failure)),
        Err(_) => Err(Refusal::Starting(format!("no answer within {} s", limit.as_secs()))),
    }
}

async fn select_one(connection: &Connection) -> Result<(), Failure> {
    with_client(connection, "SELECT 1").await
}

/// Logs in and runs `statements`.
///
/// Fails with what the server said.
pub(super) async fn run(connection: &Connection, statements: &str) -> Result<()> {
    let done = with_client(connection, statements).await;
    done.map_err(|failure| Error::new(Kind::Failed, failure.to_string()))
}

async fn with_client(connection: &Connection, statements: &str) -> Result<(), Failure> {
    let mut config = Config::new();
    config
        .host(&connection.host)
        .port(connection.port)
        .user(&connection.user)
        .dbname(&connection.database)
        .password(connection.token.expose())
        .application_name("lakeforge")
        .ssl_mode(SslMode::Require);
    let tls = tls_config(connection.authority.as_deref()).map_err(Failure::Authority)?;
    let tls = MakeRustlsConnect::new(tls);
    let statements = statements.to_owned();
    let work = async move {
        let (client, task) = config.connect(tls).await?;
        let driver = AbortOnDrop(tokio::spawn(task));
        let answer = client.batch_execute(&statements).await;
        drop(driver);
        answer
    };
    // A task of its own: what a server sends must not take this process down.
    let mut work = AbortOnDrop(tokio::spawn(work));
    match (&mut work.0).await {
        Ok(answer) => answer.map_err(Failure::Postgres),
        Err(_) => Err(Failure::Broken),
    }
}

/// A task that ends with whoever waits for it.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells a compute that wakes up from a refusal, and from somebody else who listens in its place.
///
/// Source: PostgreSQL documentation, "PostgreSQL Error Codes", read 2026-08.
fn classify(failure: &Failure) -> Refusal {
    let Failure::Postgres(error) = failure else { return Refusal::Unknown(failure.to_string()) };
    let Some(said) = error.as_db_error() else {
        let text = innermost(error);
        return if is_stranger(error) { Refusal::Unknown(text) } else { Refusal::Starting(text) };
    };
    let text = format!("{} ({})", said.message(), said.code().code());
    if is_starting(said.code()) { Refusal::Starting(text) } else { Refusal::Refused(text) }
}

/// Returns whether the certificate that was shown is not one that was asked for.
fn is_stranger(error: &tokio_postgres::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn is_starting(code: &SqlState) -> bool {
    matches!(code.code().get(..2), Some("08" | "53" | "57"))
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Returns how to speak TLS: with a certificate that is verified, on this machine by the embedded
/// workspace's own authority, whose certificate is in the file `authority`.
fn tls_config(authority: Option<&Path>) -> Result<ClientConfig, pem::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3");
    let mut roots = RootCertStore::empty();
    match authority {
        Some(file) => {
            let own: Vec<_> = CertificateDer::pem_file_iter(file)?.collect::<Result<_, _>>()?;
            roots.add_parsable_certificates(own);
        }
        None => {
            let public = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned();
            roots.add_parsable_certificates(public);
        }
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

impl Refusal {
    /// Turns a final refusal into a failure.
    pub(super) fn into_error(self, endpoint: &str) -> Error {
        match self {
            Refusal::Starting(why) => {
                Error::new(Kind::TimedOut, format!("`{endpoint}` does not take SQL yet"))
                    .code("ENDPOINT_NOT_READY")
                    .why(why)
            }
            Refusal::Unknown(why) => {
                Error::new(Kind::Refused, format!("`{endpoint}` is not answered by its Postgres"))
                    .code("CERTIFICATE_UNKNOWN")
                    .why(why)
                    .why("the password was not sent")
                    .hint("for an embedded workspace: -p local, and --data-dir with its folder")
            }
            Refusal::Refused(why) => Error::new(
                Kind::Denied,
                format!("`{endpoint}` refuses the login"),
            )
            .code("LOGIN_REFUSED")
            .why(why)
            .hint(
                "give this identity a Postgres role in the project, or log in as another with -p",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn waking_up_is_told_from_refused() {
        for (code, starting) in [
            (SqlState::CANNOT_CONNECT_NOW, true),
            (SqlState::ADMIN_SHUTDOWN, true),
            (SqlState::TOO_MANY_CONNECTIONS, true),
            (SqlState::CONNECTION_FAILURE, true),
            (SqlState::INVALID_PASSWORD, false),
            (SqlState::INVALID_AUTHORIZATION_SPECIFICATION, false),
            (SqlState::UNDEFINED_DATABASE, false),
        ] {
            assert_eq!(is_starting(&code), starting, "{code:?}");
        }
    }

    fn connection(port: u16, authority: Option<&Path>) -> Connection {
        Connection {
            host: "127.0.0.1".to_owned(),
            port,
            user: "me".to_owned(),
            database: "databricks_postgres".to_owned(),
            endpoint: "projects/p/branches/b/endpoints/primary".parse().unwrap(),
            token: "the-password".to_owned().into(),
            expire_time: jiff::Timestamp::MAX,
            authority: authority.map(Path::to_owned),
        }
    }

    #[tokio::test]
    async fn nobody_listening_counts_as_starting() {
        let refusal = probe(&connection(1, None), Duration::from_secs(5)).await.unwrap_err();

        assert!(matches!(refusal, Refusal::Starting(_)), "{refusal:?}");
    }

    /// A listener that speaks TLS with a certificate of its own, and what it was told.
    struct Rogue {
        port: u16,
        certificate: tempfile::NamedTempFile,
        heard: Arc<Mutex<Vec<u8>>>,
    }

    impl Rogue {
        /// Starts one that answers whatever it hears, after the first packet, with the next of `replies`.
        async fn start(replies: Vec<Vec<u8>>, patience: Duration) -> Self {
            let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
            let certificate = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(certificate.path(), own.cert.pem()).unwrap();
            let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der());
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![own.cert.der().clone()], key.unwrap())
                .unwrap();
            let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
            let kept = Arc::clone(&heard);
            tokio::spawn(async move {
                for reply in replies.iter().cycle() {
                    let (stream, _) = listener.accept().await.unwrap();
                    // Whoever does not trust it leaves.
                    if let Err(error) = converse(stream, &tls, reply, patience, &kept).await {
                        tracing::debug!("{error}");
                    }
                }
            });
            Rogue { port, certificate, heard }
        }
    }

    async fn converse(
        mut stream: tokio::net::TcpStream,
        tls: &tokio_rustls::TlsAcceptor,
        reply: &[u8],
        patience: Duration,
        heard: &Mutex<Vec<u8>>,
    ) -> io::Result<()> {
        let mut packet = [0; 1024];
        stream.read_exact(&mut packet[..8]).await?;
        stream.write_all(b"S").await?;
        let mut stream = tls.accept(stream).await?;
        let count = stream.read(&mut packet).await?;
        heard.lock().unwrap().extend_from_slice(&packet[..count]);
        stream.write_all(reply).await?;
        stream.flush().await?;
        // A password would come now.
        let more = tokio::time::timeout(patience, stream.read(&mut packet));
        let count = more.await.unwrap_or(Ok(0))?;
        heard.lock().unwrap().extend_from_slice(&packet[..count]);
        stream.shutdown().await
    }

    /// Asks for a password in the clear.
    const ASKS: &[u8] = b"R\0\0\0\x08\0\0\0\x03";

    #[tokio::test]
    async fn a_stranger_on_this_machine_is_told_nothing() {
        let start = || Rogue::start(vec![ASKS.to_vec()], Duration::from_secs(20));
        let (rogue, other) = (start().await, start().await);
        for authority in [None, Some(other.certificate.path())] {
            let asked = connection(rogue.port, authority);
            let refusal = probe(&asked, Duration::from_secs(20)).await.unwrap_err();
            assert!(matches!(refusal, Refusal::Unknown(_)), "{refusal:?}");
            assert_eq!(refusal.into_error("e").kind(), Kind::Refused);
        }
        assert_eq!(rogue.heard.lock().unwrap().len(), 0);

        // It would have heard the password of whoever trusts it.
        let trusting = connection(rogue.port, Some(rogue.certificate.path()));
        probe(&trusting, Duration::from_secs(20)).await.unwrap_err();
        let heard = rogue.heard.lock().unwrap().clone();
        assert!(heard.windows(12).any(|part| part == b"the-password"), "{heard:?}");
    }

    #[tokio::test]
    async fn an_authority_that_cannot_be_read_is_no_authority() {
        let refusal =
            probe(&connection(1, Some(Path::new("/nonexistent"))), ONE_TRY).await.unwrap_err();
        assert!(matches!(refusal, Refusal::Unknown(_)), "{refusal:?}");
    }

    /// Returns a message of Postgres.
    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind], &length.to_be_bytes()[..], body].concat()
    }

    /// Replies: errors with any fields, known messages with any body, any bytes.
    fn reply() -> impl Strategy<Value = Vec<u8>> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
        let text = "[ -~]{0,6}";
        let error =
            proptest::collection::vec(("[SVCMDHPWFLRa-z]", text), 0..8).prop_map(|fields| {
                let fields = fields.iter().map(|(field, value)| format!("{field}{value}\0"));
                message(b'E', format!("{}\0", fields.collect::<String>()).as_bytes())
            });
        let severe = ("[A-Z0-9]{0,7}", text).prop_map(|(code, said)| {
            message(b'E', format!("SFATAL\0VFATAL\0C{code}\0M{said}\0\0").as_bytes())
        });
        let login = message(b'R', &[0, 0, 0, 0]);
        let known =
            ("[A-Za-z0-9]", bytes()).prop_map(|(kind, body)| message(kind.as_bytes()[0], &body));
        let after = proptest::collection::vec(
            prop_oneof![known.clone(), error.clone(), severe.clone()],
            0..4,
        )
        .prop_map(move |rest| [login.clone(), rest.concat()].concat());
        prop_oneof![error, severe, known, after, bytes()]
    }

    #[test]
    fn nothing_that_a_server_sends_breaks_the_client() {
        const REPLIES: usize = 1000;
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let replies: Vec<Vec<u8>> =
            (0..REPLIES).map(|_| reply().new_tree(&mut runner).unwrap().current()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rogue = Rogue::start(replies.clone(), Duration::ZERO).await;
            let asked = connection(rogue.port, Some(rogue.certificate.path()));
            for reply in &replies {
                let answered = probe(&asked, Duration::from_secs(20)).await;
                let broken = Refusal::Unknown(Failure::Broken.to_string());
                assert_ne!(answered, Err(broken), "{:?}", String::from_utf8_lossy(reply));
            }
        });
    }

    #[test]
    fn a_code_of_any_length_is_read() {
        for (code, starting) in
            [("", false), ("5", false), ("57", true), ("57P03", true), ("é", false)]
        {
            assert_eq!(is_starting(&SqlState::from_code(code)), starting, "{code:?}");
        }
    }
}
