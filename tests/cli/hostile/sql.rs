//! What can be said wrongly to an endpoint.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::dice::Dice;

const CANCEL: u32 = 80_877_102;
const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;
const VERSION: u32 = 196_608;

/// An endpoint and a role it knows.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) user: String,
    roots: RootCertStore,
}

type Encrypted = StreamOwned<ClientConnection, TcpStream>;

impl Endpoint {
    /// Describes the endpoint at `address`, whose certificate the authority in `ca` signed.
    pub(crate) fn new(address: SocketAddr, user: &str, ca: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        Endpoint { address, user: user.to_owned(), roots }
    }

    /// Makes one connection that no sane client would make; returns it when it is to stay open.
    pub(crate) fn attack(&self, dice: &mut Dice) -> Option<TcpStream> {
        let mut stream = connect(self.address);
        let kind = dice.below(12);
        match kind {
            0 => say(&mut stream, &noise(dice, 300)),
            1 => {
                let length =
                    *dice.one_of(&[0, 1, 7, 8, 9, 10_000, 10_001, i32::MAX as u32, u32::MAX]);
                let said = [&length.to_be_bytes()[..], &noise(dice, 60)].concat();
                say(&mut stream, &said);
            }
            2 => {
                for _ in 0..1 + dice.below(6) {
                    let code = *dice.one_of(&[TLS, GSS]);
                    say(&mut stream, &packet(code, b""));
                }
            }
            3 => {
                say(&mut stream, &packet(TLS, b""));
                say(&mut stream, &hello(dice));
            }
            4 => say(&mut stream, &hello(dice)),
            5 => {
                let key = noise(dice, 300);
                say(&mut stream, &packet(CANCEL, &key));
            }
            6 => {
                let version = *dice.one_of(&[VERSION, VERSION + 2, 0, 2 << 16, 4 << 16, u32::MAX]);
                say(&mut stream, &packet(version, b"user\0ada\0\0"));
            }
            7 => drop(self.encrypted(stream.try_clone().unwrap(), false)),
            8 | 9 => self.attack_inside(dice, stream.try_clone().unwrap()),
            10 => self.attack_password(dice, stream.try_clone().unwrap()),
            _ => {
                // Says little and waits.
                say(&mut stream, &noise(dice, 4));
                return Some(stream);
            }
        }
        None
    }

    /// Starts TLS, in the way libpq of PostgreSQL 17 does; `named` tells the protocol's name.
    fn encrypted(&self, stream: TcpStream, named: bool) -> Option<Encrypted> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        if named {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        let name = IpAddr::into(self.address.ip());
        let client =
            ClientConnection::new(Arc::new(config), rustls::pki_types::ServerName::IpAddress(name));
        let mut encrypted = StreamOwned::new(client.unwrap(), stream);
        encrypted.flush().ok()?;
        Some(encrypted)
    }

    /// Sends a start-up packet that is wrong, where nobody else can read it.
    fn attack_inside(&self, dice: &mut Dice, stream: TcpStream) {
        let Some(mut stream) = self.encrypted(stream, true) else { return };
        let user = self.user.as_bytes();
        let said = match dice.below(7) {
            0 => noise(dice, 300),
            1 => packet(VERSION, &[b"user\0", user, b"\0database\0\xff\xfe\0\0"].concat()),
            2 => packet(VERSION, &[b"user\0", user].concat()),
            3 => packet(
                VERSION,
                &[&b"user\0"[..], user, b"\0", &b"a\0b\0".repeat(2400), b"\0"].concat(),
            ),
            4 => packet(VERSION, &[b"user\0", user, b"\0user\0postgres\0\0"].concat()),
            5 => packet(*dice.one_of(&[TLS, GSS, CANCEL]), b""),
            _ => packet(CANCEL, &dice.bytes(8)),
        };
        say(&mut stream, &said);
        listen(&mut stream);
    }

    /// Logs in with something that is no password message, or no password.
    fn attack_password(&self, dice: &mut Dice, stream: TcpStream) {
        let Some(mut stream) = self.encrypted(stream, true) else { return };
        say(&mut stream, &packet(VERSION, &[b"user\0", self.user.as_bytes(), b"\0\0"].concat()));
        listen(&mut stream);
        let body = match dice.below(6) {
            0 => noise(dice, 400),
            1 => b"\0".to_vec(),
            2 => [&dice.bytes(40)[..], b"\0"].concat(),
            3 => [token(dice).as_bytes(), b"\0"].concat(),
            4 => b"SCRAM-SHA-256\0\0\0\0\x10n,,n=,r=abcdefgh".to_vec(),
            _ => vec![b'e'; 70_000],
        };
        let kind = *dice.one_of(b"pppQX\0");
        let right = u32::try_from(body.len() + 4).unwrap();
        let length = *dice.one_of(&[right, right, right, 0, 3, u32::MAX]);
        say(&mut stream, &[&[kind][..], &length.to_be_bytes(), &body].concat());
        listen(&mut stream);
    }
}

/// Connects; an answer that does not come is not waited for.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

/// Sends as much as the server takes.
pub(crate) fn say(stream: &mut impl Write, said: &[u8]) {
    // It may have closed the connection already, and rightly.
    let _ = stream.write_all(said).and_then(|()| stream.flush());
}

/// Reads one answer, if there is one.
pub(crate) fn listen(stream: &mut impl Read) -> Vec<u8> {
    let mut answer = vec![0; 4096];
    let count = stream.read(&mut answer).unwrap_or(0);
    answer.truncate(count);
    answer
}

/// Returns up to `most` random bytes.
pub(crate) fn noise(dice: &mut Dice, most: u64) -> Vec<u8> {
    let count = usize::try_from(dice.below(most)).unwrap();
    dice.bytes(count)
}

/// Returns something that looks like a token.
pub(crate) fn token(dice: &mut Dice) -> String {
    let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let header = *dice.one_of(&[
        r#"{"alg":"none"}"#,
        r#"{"alg":"EdDSA","typ":"JWT"}"#,
        r#"{"alg":"HS256"}"#,
        r#"{"alg":"EdDSA","kid":"../../../etc/passwd"}"#,
        "[[[[[[",
    ]);
    let claims =
        *dice.one_of(&[r#"{"sub":"admin","aud":"lakebase","exp":99999999999}"#, "{}", "", "null"]);
    let signature = noise(dice, 80);
    let parts = [encode(header.as_bytes()), encode(claims.as_bytes()), encode(&signature)];
    match dice.below(5) {
        0 => parts[0].clone(),
        1 => format!("{}..", parts[0]),
        2 => ".".repeat(usize::try_from(dice.below(2000)).unwrap()),
        _ => parts.join("."),
    }
}

/// Returns a first packet.
fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 8).unwrap();
    [&length.to_be_bytes()[..], &code.to_be_bytes(), body].concat()
}

/// Returns the beginning of a TLS connection that goes wrong.
fn hello(dice: &mut Dice) -> Vec<u8> {
    let length = *dice.one_of(&[0_u16, 1, 5, 512, 16_384, u16::MAX]);
    [&[0x16, 3, 1][..], &length.to_be_bytes(), &[1, 0], &noise(dice, 600)].concat()
}
