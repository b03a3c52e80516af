//! A login to an endpoint: whether SQL works, and if not, whether it is still waking up.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
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
}

/// Logs in and runs `SELECT 1`.
pub(super) async fn probe(connection: &Connection, limit: Duration) -> Result<(), Refusal> {
    let limit = limit.min(ONE_TRY);
    match tokio::time::timeout(limit, select_one(connection)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(classify(&error)),
        Err(_) => Err(Refusal::Starting(format!("no answer within {} s", limit.as_secs()))),
    }
}

async fn select_one(connection: &Connection) -> Result<(), tokio_postgres::Error> {
    with_client(connection, "SELECT 1").await
}

/// Logs in and runs `statements`.
///
/// Fails with what the server said.
pub(super) async fn run(connection: &Connection, statements: &str) -> Result<()> {
    with_client(connection, statements).await.map_err(|error| {
        let said = error.as_db_error().map_or_else(|| innermost(&error), ToString::to_string);
        Error::new(Kind::Failed, said)
    })
}

async fn with_client(
    connection: &Connection,
    statements: &str,
) -> Result<(), tokio_postgres::Error> {
    let mut config = Config::new();
    config
        .host(&connection.host)
        .port(connection.port)
        .user(&connection.user)
        .dbname(&connection.database)
        .password(connection.token.expose())
        .application_name("lakeforge")
        .ssl_mode(SslMode::Require);
    let tls = MakeRustlsConnect::new(tls_config(&connection.host));
    let (client, task) = config.connect(tls).await?;
    let driver = tokio::spawn(task);
    let answer = client.batch_execute(statements).await;
    drop(client);
    driver.abort();
    answer
}

/// Tells a compute that wakes up from a refusal.
///
/// Source: PostgreSQL documentation, "PostgreSQL Error Codes", read 2026-08.
fn classify(error: &tokio_postgres::Error) -> Refusal {
    let Some(said) = error.as_db_error() else {
        return Refusal::Starting(innermost(error));
    };
    let text = format!("{} ({})", said.message(), said.code().code());
    if is_starting(said.code()) { Refusal::Starting(text) } else { Refusal::Refused(text) }
}

fn is_starting(code: &SqlState) -> bool {
    let class = &code.code()[..2];
    class == "08" || class == "57" || class == "53"
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Returns how to speak TLS to `host`: with a verified certificate, or on this machine with any,
/// because there the certificate is the embedded workspace's own.
fn tls_config(host: &str) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3");
    if host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
        let any = Arc::new(AnyCertificate(provider));
        return builder.dangerous().with_custom_certificate_verifier(any).with_no_client_auth();
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    builder.with_root_certificates(roots).with_no_client_auth()
}

/// Takes any certificate, as `sslmode=require` does; used on loopback alone.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
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

    #[tokio::test]
    async fn nobody_listening_counts_as_starting() {
        let connection = Connection {
            host: "127.0.0.1".to_owned(),
            port: 1,
            user: "me".to_owned(),
            database: "databricks_postgres".to_owned(),
            endpoint: "projects/p/branches/b/endpoints/primary".parse().unwrap(),
            token: "t".to_owned().into(),
            expire_time: jiff::Timestamp::MAX,
        };

        let refusal = probe(&connection, Duration::from_secs(5)).await.unwrap_err();

        assert!(matches!(refusal, Refusal::Starting(_)), "{refusal:?}");
    }
}
