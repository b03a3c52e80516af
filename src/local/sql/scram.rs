//! The server's side of SCRAM-SHA-256, with which roles prove that they know their password.
//!
//! Source: RFC 5802, RFC 7677; PostgreSQL 18 documentation, 54.3 "SASL Authentication", read 2026-11-20.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

use crate::local::ids;
use crate::secret::Secret;

/// Name of the mechanism; the variant with channel binding is not offered.
pub(super) const MECHANISM: &str = "SCRAM-SHA-256";
/// Rounds of a new verifier, as Postgres makes them.
const ROUNDS: NonZeroU32 = NonZeroU32::new(4096).expect("it is not zero");

/// What a password is checked with, as `pg_authid.rolpassword` holds it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Verifier {
    rounds: NonZeroU32,
    salt: Vec<u8>,
    stored: Vec<u8>,
    server: Vec<u8>,
}

impl Verifier {
    /// Makes the verifier of `password`, with a salt of its own.
    pub(crate) fn of(password: &str) -> Self {
        let salt = ids::bytes::<16>().to_vec();
        let mut salted = [0; digest::SHA256_OUTPUT_LEN];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, &salt, password.as_bytes(), &mut salted);
        let stored = digest::digest(&digest::SHA256, &sign(&salted, b"Client Key"));
        let server = sign(&salted, b"Server Key");
        Verifier { rounds: ROUNDS, salt, stored: stored.as_ref().to_vec(), server }
    }

    /// Makes a verifier that no password fits: asking a role without a password must look like any other.
    pub(crate) fn of_nothing(salt: [u8; 16]) -> Self {
        Verifier {
            rounds: ROUNDS,
            salt: salt.to_vec(),
            stored: ids::bytes::<32>().to_vec(),
            server: ids::bytes::<32>().to_vec(),
        }
    }

    /// Reads `SCRAM-SHA-256$<rounds>:<salt>$<stored key>:<server key>`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (head, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (rounds, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        Some(Verifier {
            rounds: rounds.parse().ok()?,
            salt: BASE64.decode(salt).ok()?,
            stored: BASE64.decode(stored).ok()?,
            server: BASE64.decode(server).ok()?,
        })
    }

    /// Writes the verifier as Postgres keeps it.
    pub(crate) fn to_secret(&self) -> Secret<String> {
        let Verifier { rounds, salt, stored, server } = self;
        let [salt, stored, server] = [salt, stored, server].map(|bytes| BASE64.encode(bytes));
        Secret::new(format!("SCRAM-SHA-256${rounds}:{salt}${stored}:{server}"))
    }
}

/// An exchange whose first half is done.
pub(super) struct Exchange {
    verifier: Verifier,
    /// The client's first message without its header, and our answer.
    said: String,
    header: String,
    nonce: String,
}

impl Exchange {
    /// Reads the client's first message; returns the exchange and what to answer.
    pub(super) fn begin(verifier: Verifier, first: &[u8]) -> Option<(Self, String)> {
        let first = std::str::from_utf8(first).ok()?;
        // `y` means that the client could bind channels and has seen that we do not.
        let bare = first.strip_prefix("n,,").or_else(|| first.strip_prefix("y,,"))?;
        let (user, rest) = bare.split_once(',')?;
        user.strip_prefix("n=")?;
        let client =
            rest.split(',').next()?.strip_prefix("r=").filter(|nonce| !nonce.is_empty())?;
        let nonce = format!("{client}{}", BASE64.encode(ids::bytes::<18>()));
        let salt = BASE64.encode(&verifier.salt);
        let answer = format!("r={nonce},s={salt},i={}", verifier.rounds);
        let said = format!("{bare},{answer}");
        let header = BASE64.encode(&first[..3]);
        Some((Exchange { verifier, said, header, nonce }, answer))
    }

    /// Checks the client's last message; returns our proof when the password is right.
    pub(super) fn finish(self, last: &[u8]) -> Option<String> {
        let last = std::str::from_utf8(last).ok()?;
        let (plain, proof) = last.rsplit_once(",p=")?;
        let mut fields = plain.split(',');
        if fields.next()?.strip_prefix("c=")? != self.header
            || fields.next()?.strip_prefix("r=")? != self.nonce
        {
            return None;
        }
        let said = format!("{},{plain}", self.said);
        let signature = sign(&self.verifier.stored, said.as_bytes());
        let proof = BASE64.decode(proof).ok().filter(|proof| proof.len() == signature.len())?;
        let key: Vec<u8> = proof.iter().zip(&signature).map(|(one, other)| one ^ other).collect();
        // Digests of secrets: how far they agree tells nothing about either.
        let stored = digest::digest(&digest::SHA256, &key);
        let right = stored.as_ref() == self.verifier.stored;
        right.then(|| format!("v={}", BASE64.encode(sign(&self.verifier.server, said.as_bytes()))))
    }
}

fn sign(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_is_read_as_it_was_written() {
        let verifier = Verifier::of("correct horse");
        let text = verifier.to_secret();

        assert!(Verifier::parse(text.expose()) == Some(verifier));
        for wrong in ["", "md5abc", "SCRAM-SHA-256$0:c2FsdA==$YQ==:YQ==", "SCRAM-SHA-256$4096:a$b"]
        {
            assert!(Verifier::parse(wrong).is_none(), "{wrong}");
        }
    }

    /// Values: RFC 7677, section 3; its password is `pencil`.
    #[test]
    fn the_example_of_the_standard_is_accepted() {
        let mut salted = [0; 32];
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, &salt, b"pencil", &mut salted);
        let stored = digest::digest(&digest::SHA256, &sign(&salted, b"Client Key"));
        let server = sign(&salted, b"Server Key");
        let stored = stored.as_ref().to_vec();
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let exchange = |nonce: &str| Exchange {
            verifier: Verifier {
                rounds: ROUNDS,
                salt: salt.clone(),
                stored: stored.clone(),
                server: server.clone(),
            },
            said: format!(
                "n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
            ),
            header: "biws".to_owned(),
            nonce: nonce.to_owned(),
        };
        let proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let last = format!("c=biws,r={nonce},p={proof}");

        let answer = exchange(nonce).finish(last.as_bytes());

        assert_eq!(answer.as_deref(), Some("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        assert_eq!(exchange("other").finish(last.as_bytes()), None);
        let wrong = last.replace("dHzb", "dHzc");
        assert_eq!(exchange(nonce).finish(wrong.as_bytes()), None);
        assert_eq!(exchange(nonce).finish(b"c=biws"), None);
    }

    #[test]
    fn what_is_no_first_message_is_refused() {
        let nothing = || Verifier::of_nothing([7; 16]);
        for wrong in [&b""[..], b"p=tls-unique,,n=,r=x", b"n,,n=,r=", b"n,,r=x", b"\xff"] {
            assert!(Exchange::begin(nothing(), wrong).is_none(), "{wrong:?}");
        }
        assert!(Exchange::begin(nothing(), b"n,,n=,r=x").is_some());
    }
}
