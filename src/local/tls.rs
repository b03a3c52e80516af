//! The workspace's own certificate authority, and the certificates its listeners show.

use std::fmt;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::error::{Doing, Error, Kind, Result};

/// Name of the authority in its certificate.
const NAME: &str = "lakeforge embedded workspace";
/// Days a listener's certificate is valid; some systems refuse more than 825.
const LEAF_DAYS: i32 = 800;
/// Protocol name in the TLS start, which PostgreSQL 17's direct TLS demands.
const PROTOCOL: &[u8] = b"postgresql";

/// A certificate authority that exists for one data folder alone.
pub(crate) struct Authority {
    certificate: PathBuf,
    signer: Arc<Signer>,
}

/// What signs the certificates of the listeners.
struct Signer {
    issuer: Issuer<'static, KeyPair>,
    /// Key of all listeners; each has a certificate of its own.
    leaf_key: KeyPair,
}

impl Authority {
    /// Opens the authority kept in `folder`, made first when it is missing.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        open(folder).doing(|| format!("could not open the certificates in `{}`", folder.display()))
    }

    /// Returns the path of the authority's certificate, for clients that verify (`sslrootcert`).
    pub(crate) fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Returns the TLS settings of a listener known under `names` (host names and addresses).
    ///
    /// The certificate is made for the first client: a workspace of many branches opens its listeners at once.
    pub(crate) fn server_config(&self, names: &[String]) -> Result<Arc<ServerConfig>> {
        let shown = Leaf {
            names: names.to_vec(),
            signer: Arc::clone(&self.signer),
            certified: OnceLock::new(),
        };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new(Kind::Failed, error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(shown));
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Arc::new(config))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Signer {
    fn new(issuer: Issuer<'static, KeyPair>) -> Result<Arc<Self>> {
        Ok(Arc::new(Signer { issuer, leaf_key: KeyPair::generate().map_err(unusable)? }))
    }

    /// Returns a certificate for `names`, with its key.
    fn certify(&self, names: &[String]) -> Result<Arc<CertifiedKey>> {
        let mut leaf = CertificateParams::new(names).map_err(unusable)?;
        leaf.distinguished_name.push(DnType::CommonName, names.first().map_or(NAME, |name| name));
        leaf.use_authority_key_identifier_extension = true;
        let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
        let (from, to) = (today.saturating_sub(1.day()), today.saturating_add(LEAF_DAYS.days()));
        leaf.not_before = rcgen::date_time_ymd(from.year().into(), month(from), day(from));
        leaf.not_after = rcgen::date_time_ymd(to.year().into(), month(to), day(to));
        let leaf = leaf.signed_by(&self.leaf_key, &self.issuer).map_err(unusable)?;
        let key = PrivateKeyDer::try_from(self.leaf_key.serialize_der())
            .map_err(|error| Error::new(Kind::Failed, error))?;
        let certified = CertifiedKey::from_der(vec![leaf.der().clone()], key, &provider())
            .map_err(|error| Error::new(Kind::Failed, error.to_string()))?;
        Ok(Arc::new(certified))
    }
}

/// The certificate of one listener.
struct Leaf {
    names: Vec<String>,
    signer: Arc<Signer>,
    certified: OnceLock<Arc<CertifiedKey>>,
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf").field("names", &self.names).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Leaf {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(certified) = self.certified.get() {
            return Some(Arc::clone(certified));
        }
        match self.signer.certify(&self.names) {
            Ok(certified) => Some(Arc::clone(self.certified.get_or_init(|| certified))),
            Err(error) => {
                tracing::error!("{error}");
                None
            }
        }
    }
}

/// Reads the authority, whose certificate is written last and so says that the key is there too.
fn open(folder: &Path) -> Result<Authority> {
    let (certificate, key_file) = (folder.join("ca.pem"), folder.join("ca.key"));
    fs::create_dir_all(folder)?;
    let params = authority();
    if certificate.exists() {
        match fs::read_to_string(&key_file) {
            Ok(pem) => {
                let key = KeyPair::from_pem(&pem).map_err(unusable)?;
                return Ok(Authority {
                    certificate,
                    signer: Signer::new(Issuer::new(params, key))?,
                });
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    let key = KeyPair::generate().map_err(unusable)?;
    let signed = params.self_signed(&key).map_err(unusable)?;
    write(&key_file, &key.serialize_pem(), 0o600)?;
    write(&certificate, &signed.pem(), 0o644)?;
    Ok(Authority { certificate, signer: Signer::new(Issuer::new(params, key))? })
}

/// Describes the authority; the same each time, since only its key is kept.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2056, 1, 1);
    params
}

fn month(date: Date) -> u8 {
    date.month().cast_unsigned()
}

fn day(date: Date) -> u8 {
    date.day().cast_unsigned()
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_data()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn unusable(error: rcgen::Error) -> Error {
    Error::new(Kind::Failed, "the certificate cannot be used").why(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_authority_stays_the_same_and_its_key_private() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];

        let first = Authority::open(folder.path()).unwrap();
        let pem = fs::read(first.certificate()).unwrap();
        let second = Authority::open(folder.path()).unwrap();

        assert_eq!(fs::read(second.certificate()).unwrap(), pem);
        let certified = second.signer.certify(&names).unwrap();
        assert!(certified.keys_match().is_ok());
        assert!(second.server_config(&names).is_ok());
        let mode = fs::metadata(folder.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
