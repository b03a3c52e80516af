//! Signed tokens: workspace access tokens and database credentials, both Ed25519 JWTs.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error as JwtError, ErrorKind};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::disk::{private_folder, write_private};
use super::ids;
use crate::error::{Doing, Error, Kind, Result};
use crate::secret::Secret;
use crate::time::Ttl;
use crate::wire::names::EndpointName;

/// Life of a workspace access token.
pub(crate) const ACCESS_LIFE: Duration = Duration::from_secs(3600);
/// Scope of a token that is good for everything.
pub(crate) const EVERYTHING: &str = "all-apis";
/// Audience of database credentials.
const DATABASE: &str = "lakebase";

/// The keys that sign what this workspace hands out.
pub(crate) struct Keys {
    private: EncodingKey,
    public: DecodingKey,
    x: String,
    kid: String,
    issuer: String,
    audience: String,
    /// What mock salts are made of.
    seed: Secret<[u8; 32]>,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is no JWT at all: a personal access token, a password.
    NotJwt,
    /// It was signed by somebody else, or changed on the way.
    Foreign,
    /// It was good once.
    Expired,
    /// It will be good, by a clock that differs from the one it was issued by.
    Early,
    /// It is good for something else: another audience, endpoint or identity.
    Elsewhere,
}

/// Whom a workspace access token is for, and what it is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Login name of the identity.
    pub(crate) user: String,
    /// Words with blanks between them.
    pub(crate) scope: String,
    /// When it ends.
    pub(crate) expires: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    iat: i64,
    #[serde(default)]
    nbf: i64,
    exp: i64,
    jti: String,
    scope: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    endpoints: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    endpoint_uids: Vec<String>,
}

impl Keys {
    /// Reads the signing key of `folder`, or makes one.
    ///
    /// `workspace` is the audience of access tokens.
    pub(crate) fn open(folder: &Path, workspace: u64, issuer: String) -> Result<Self> {
        // A second server in one process finds the provider installed already.
        let _ = PROVIDER.install_default();
        private_folder(folder)?;
        let path = folder.join("token.der");
        if !path.exists() {
            let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
                .map_err(|_| Error::new(Kind::Failed, "could not make a signing key"))?;
            write_private(&path, key.as_ref())?;
        }
        let der = std::fs::read(&path).doing(|| format!("could not read `{}`", path.display()))?;
        let pair = Ed25519KeyPair::from_pkcs8(&der).map_err(|error| {
            Error::new(Kind::Failed, format!("`{}` is not a signing key", path.display()))
                .why(error.to_string())
        })?;
        let public = pair.public_key().as_ref();
        Ok(Keys {
            private: EncodingKey::from_ed_der(&der),
            public: DecodingKey::from_ed_der(public),
            x: URL_SAFE_NO_PAD.encode(public),
            kid: ids::to_hex(&public[..8]),
            issuer,
            audience: workspace.to_string(),
            seed: Secret::new(Sha256::digest([b"mock salts", &der[..]].concat()).into()),
        })
    }

    /// Returns the salt that a role without a password seems to have: the same each time, as a real one.
    ///
    /// Source: PostgreSQL 18 `src/backend/libpq/auth-scram.c`, `mock_scram_secret`.
    pub(crate) fn mock_salt(&self, branch: &str, role: &str) -> [u8; 16] {
        let digest = Sha256::new().chain_update(self.seed.expose()).chain_update(branch);
        let digest = digest.chain_update([0]).chain_update(role).finalize();
        *digest.first_chunk().expect("a digest has 32 bytes")
    }

    /// Mints a workspace access token for the identity `user`, good for `scope`: words with blanks between them.
    pub(crate) fn access_token(&self, user: &str, scope: &str, now: Timestamp) -> Secret<String> {
        self.forwarded_token(user, scope, now, None)
    }

    /// Mints a workspace access token that does not outlive the one it stands for, which ends at `until`.
    pub(crate) fn forwarded_token(
        &self,
        user: &str,
        scope: &str,
        now: Timestamp,
        until: Option<Timestamp>,
    ) -> Secret<String> {
        let longest = Ttl(ACCESS_LIFE).after(now);
        let expires = until.map_or(longest, |until| until.min(longest));
        self.sign(&self.claims(&self.audience, user, scope, now, expires))
    }

    /// Mints a database credential for one identity and `endpoints`, each with its uid.
    pub(crate) fn credential(
        &self,
        user: &str,
        endpoints: &[(EndpointName, String)],
        now: Timestamp,
        expires: Timestamp,
    ) -> Secret<String> {
        let mut claims = self.claims(DATABASE, user, "postgres", now, expires);
        claims.endpoints = endpoints.iter().map(|(name, _)| name.to_string()).collect();
        claims.endpoint_uids = endpoints.iter().map(|(_, uid)| uid.clone()).collect();
        self.sign(&claims)
    }

    /// Returns whom a workspace access token is for, and what it is good for.
    pub(crate) fn holder(&self, token: &str, now: Timestamp) -> Result<Holder, Refused> {
        let claims = self.verify(token, &self.audience, now)?;
        let expires = Timestamp::from_second(claims.exp).map_err(|_| Refused::Foreign)?;
        Ok(Holder { user: claims.sub, scope: claims.scope, expires })
    }

    /// Returns the identity that a database credential is for; refuses one that is not for this endpoint.
    pub(crate) fn check_credential(
        &self,
        token: &str,
        endpoint_uid: &str,
        now: Timestamp,
    ) -> Result<String, Refused> {
        let claims = self.verify(token, DATABASE, now)?;
        if !claims.endpoint_uids.iter().any(|uid| uid == endpoint_uid) {
            return Err(Refused::Elsewhere);
        }
        Ok(claims.sub)
    }

    /// Returns the public key as a JSON Web Key Set.
    pub(crate) fn key_set(&self) -> Value {
        json!({ "keys": [{
            "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig",
            "kid": self.kid, "x": self.x,
        }] })
    }

    fn claims(
        &self,
        audience: &str,
        user: &str,
        scope: &str,
        now: Timestamp,
        expires: Timestamp,
    ) -> Claims {
        Claims {
            iss: self.issuer.clone(),
            aud: audience.to_owned(),
            sub: user.to_owned(),
            iat: now.as_second(),
            nbf: now.as_second(),
            exp: expires.as_second(),
            jti: ids::uuid(),
            scope: scope.to_owned(),
            endpoints: Vec::new(),
            endpoint_uids: Vec::new(),
        }
    }

    fn sign(&self, claims: &Claims) -> Secret<String> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        let token = jsonwebtoken::encode(&header, claims, &self.private);
        Secret::new(token.expect("a key that was read can sign"))
    }

    fn verify(&self, token: &str, audience: &str, now: Timestamp) -> Result<Claims, Refused> {
        let mut validation = Validation::new(Algorithm::EdDSA);
        // Below, because the crate knows no clock but the machine's.
        validation.validate_exp = false;
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.public, &validation);
        let claims = decoded.map_err(|error| match error.kind() {
            ErrorKind::InvalidAudience => Refused::Elsewhere,
            // What begins as a JWT and does not go on as one was changed on the way.
            _ if jsonwebtoken::decode_header(token).is_err() => Refused::NotJwt,
            _ => Refused::Foreign,
        })?;
        match now.as_second() {
            now if claims.claims.exp <= now => Err(Refused::Expired),
            now if claims.claims.nbf > now => Err(Refused::Early),
            _ => Ok(claims.claims),
        }
    }
}

/// Ed25519 by ring: the only algorithm these tokens use.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| match algorithm {
        Algorithm::EdDSA => Ed25519KeyPair::from_pkcs8(key.as_bytes())
            .map(|pair| Box::new(Ed25519Signer(pair)) as Box<dyn JwtSigner>)
            .map_err(|_| ErrorKind::InvalidEddsaKey.into()),
        _ => Err(JwtError::from(ErrorKind::InvalidAlgorithm)),
    },
    verifier_factory: |algorithm, key| match algorithm {
        Algorithm::EdDSA => {
            let public = key.try_get_as_bytes()?.to_vec();
            Ok(Box::new(Ed25519Verifier(UnparsedPublicKey::new(&ED25519, public))))
        }
        _ => Err(JwtError::from(ErrorKind::InvalidAlgorithm)),
    },
    key_utils: KeyUtils::new_unimplemented(),
};

struct Ed25519Signer(Ed25519KeyPair);

impl Signer<Vec<u8>> for Ed25519Signer {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

impl JwtSigner for Ed25519Signer {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

struct Ed25519Verifier(UnparsedPublicKey<Vec<u8>>);

impl Verifier<Vec<u8>> for Ed25519Verifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        self.0.verify(message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Ed25519Verifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> (tempfile::TempDir, Keys) {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(folder.path(), 42, "http://127.0.0.1/oidc".to_owned()).unwrap();
        (folder, keys)
    }

    fn primary() -> [(EndpointName, String); 1] {
        let name = "projects/shop/branches/dev/endpoints/primary".parse().unwrap();
        [(name, "ep-1".to_owned())]
    }

    #[test]
    fn a_token_names_its_holder_also_after_a_restart() {
        let (folder, keys) = keys();
        let now = Timestamp::now();
        let token = keys.access_token("ada@example.test", EVERYTHING, now);

        let again = Keys::open(folder.path(), 42, "http://127.0.0.1/oidc".to_owned()).unwrap();

        let holder = again.holder(token.expose(), now).unwrap();
        assert_eq!((holder.user.as_str(), holder.scope.as_str()), ("ada@example.test", EVERYTHING));
        assert_eq!(holder.expires.as_second(), (now + ACCESS_LIFE).as_second());
        assert_eq!(again.key_set(), keys.key_set());
    }

    #[test]
    fn a_forwarded_token_ends_with_the_one_it_stands_for_and_after_an_hour_at_most() {
        let (_folder, keys) = keys();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        for (until, left) in [(None, 3600), (Some(40), 40), (Some(7200), 3600)] {
            let until = until.map(|seconds| now + Duration::from_secs(seconds));
            let token = keys.forwarded_token("ada", "postgres", now, until);
            let holder = keys.holder(token.expose(), now).unwrap();
            assert_eq!(holder.expires, now + Duration::from_secs(left));
        }
        // A clock at the end of time panics nowhere.
        keys.access_token("ada", EVERYTHING, Timestamp::MAX);
    }

    #[test]
    fn every_wrong_password_is_told_from_the_others() {
        let (_folder, keys) = keys();
        let (_other_folder, other) = self::keys();
        let now = Timestamp::now();
        let mint = |keys: &Keys, expires| keys.credential("ada", &primary(), now, expires);
        let soon = now + Duration::from_secs(300);
        let check = |token: &str, endpoint: &str| keys.check_credential(token, endpoint, now);
        let ada = || Ok("ada".to_owned());

        let good = mint(&keys, soon);
        assert_eq!(check(good.expose(), "ep-1"), ada());
        assert_eq!(check(good.expose(), "ep-2"), Err(Refused::Elsewhere));
        assert_eq!(keys.holder(good.expose(), now), Err(Refused::Elsewhere));
        let expired = mint(&keys, now - Duration::from_secs(1));
        assert_eq!(check(expired.expose(), "ep-1"), Err(Refused::Expired));
        let at = |now| keys.check_credential(good.expose(), "ep-1", now);
        assert_eq!(at(now - Duration::from_secs(2)), Err(Refused::Early));
        assert_eq!(at(soon - Duration::from_secs(2)), ada());
        assert_eq!(at(soon), Err(Refused::Expired));
        let foreign = mint(&other, soon);
        assert_eq!(check(foreign.expose(), "ep-1"), Err(Refused::Foreign));
        let access = keys.access_token("ada", EVERYTHING, now);
        assert_eq!(check(access.expose(), "ep-1"), Err(Refused::Elsewhere));
        for password in ["dapi0123456789abcdef", "", "a.b.c", "secret"] {
            assert_eq!(check(password, "ep-1"), Err(Refused::NotJwt), "{password}");
        }
    }

    #[test]
    fn a_changed_token_is_foreign() {
        let (_folder, keys) = keys();
        let now = Timestamp::now();
        let token = keys.credential("ada", &primary(), now, now + Duration::from_secs(300));
        let [header, claims, signature] =
            token.expose().split('.').collect::<Vec<_>>().try_into().unwrap();
        let mut forged: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        forged["sub"] = json!("eve");
        let forged = URL_SAFE_NO_PAD.encode(forged.to_string());

        let result = keys.check_credential(&format!("{header}.{forged}.{signature}"), "ep-1", now);

        assert_eq!(result, Err(Refused::Foreign));
    }

    #[test]
    fn a_mock_salt_is_the_same_each_time_and_nobody_elses() {
        let (folder, keys) = keys();
        let again = Keys::open(folder.path(), 42, "http://127.0.0.1/oidc".to_owned()).unwrap();
        let (_other_folder, other) = self::keys();
        let salt = keys.mock_salt("br-1", "nobody");

        assert_eq!(salt, again.mock_salt("br-1", "nobody"));
        for different in [
            keys.mock_salt("br-1", "nobody2"),
            keys.mock_salt("br-2", "nobody"),
            other.mock_salt("br-1", "nobody"),
        ] {
            assert_ne!(salt, different);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_text_is_a_token_that_this_workspace_did_not_sign(
            text in "[a-zA-Z0-9._=-]{0,80}|.{0,40}",
            claims in ".{0,60}",
            header in prop::sample::select(vec![
                r#"{"alg":"none"}"#, r#"{"alg":"HS256"}"#, r#"{"alg":"EdDSA","jwk":{}}"#, r#"{}"#, "[]", "",
            ]),
        ) {
            let (_folder, keys) = keys();
            let [header, claims] = [header.as_bytes(), claims.as_bytes()].map(|part| URL_SAFE_NO_PAD.encode(part));
            for token in [text, format!("{header}.{claims}."), format!("{header}.{claims}.{claims}"), format!("{header}..")] {
                let now = Timestamp::now();
                prop_assert!(keys.holder(&token, now).is_err());
                prop_assert!(keys.check_credential(&token, "ep-1", now).is_err());
            }
        }

        #[test]
        fn a_token_with_one_character_changed_is_refused(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_.-]") {
            let (_folder, keys) = keys();
            let now = Timestamp::now();
            let good = keys.credential("ada", &primary(), now, now + Duration::from_secs(300));
            let mut changed = good.expose().clone();
            let at = at.index(changed.len());
            changed.replace_range(at..=at, &to);

            let same = changed == *good.expose();
            prop_assert_eq!(keys.check_credential(&changed, "ep-1", now).is_ok(), same);
        }
    }
}
