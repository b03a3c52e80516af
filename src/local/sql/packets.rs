//! The few packets of Postgres' start-up that the listener has to understand.
//!
//! Source: PostgreSQL 18 documentation, 54.7 "Message Formats", read 2026-11-20.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::scram::{Exchange, MECHANISM, Verifier};
use crate::secret::Secret;

/// Longest start-up packet, as in Postgres itself.
const PACKET_BYTES: u32 = 10_000;
/// Longest password message; tokens are one or two kilobytes.
const PASSWORD_BYTES: u32 = 64 << 10;

const CANCEL: u32 = 80_877_102;
const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// The first packet of a connection, or of the encrypted part of one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum First {
    /// Asks for TLS.
    Tls,
    /// Asks for Kerberos encryption.
    Gss,
    /// Asks to cancel what the session with this key (process number and secret) is doing.
    Cancel {
        /// The key as it came with the session.
        key: Vec<u8>,
    },
    /// Starts a session; the whole packet as it came.
    Start(Vec<u8>),
}

/// What a session asks for in its start-up packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// Role to log in as.
    pub(super) user: String,
    /// Database to use; the role's name unless given.
    pub(super) database: String,
}

/// A refusal in Postgres' own words: class and sentence.
pub(super) type Fault = (&'static str, String);

/// Reads the first packet; none when it is no packet of this protocol or the client is gone.
pub(super) async fn read_first(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<First>> {
    let Ok(length) = from.read_u32().await else { return Ok(None) };
    if !(8..=PACKET_BYTES).contains(&length) {
        return Ok(None);
    }
    let code = from.read_u32().await?;
    let mut body = vec![0; length as usize - 8];
    from.read_exact(&mut body).await?;
    Ok(match code {
        TLS if body.is_empty() => Some(First::Tls),
        GSS if body.is_empty() => Some(First::Gss),
        CANCEL if body.len() >= 8 => Some(First::Cancel { key: body }),
        TLS | GSS | CANCEL => None,
        version => {
            let mut packet = Vec::with_capacity(body.len() + 8);
            packet.extend(length.to_be_bytes());
            packet.extend(version.to_be_bytes());
            packet.extend(body);
            Some(First::Start(packet))
        }
    })
}

/// Reads who wants what from a start-up packet.
///
/// A name given twice is refused: Postgres would take the second, and which was checked must be
/// beyond doubt.
pub(super) fn parse_start(packet: &[u8]) -> Result<Start, Fault> {
    let fault = |text: &str| ("08P01", text.to_owned());
    let (head, body) = packet.split_at_checked(8).ok_or_else(|| fault("invalid startup packet"))?;
    if head[4..6] != [0, 3] {
        return Err(("0A000", "unsupported frontend protocol".to_owned()));
    }
    let (mut user, mut database) = (None, None);
    let mut words = body.split(|byte| *byte == 0);
    loop {
        let name = words.next().unwrap_or_default();
        if name.is_empty() {
            break;
        }
        let value = words.next().ok_or_else(|| fault("invalid startup packet layout"))?;
        let kept = match name {
            b"user" => &mut user,
            b"database" => &mut database,
            _ => continue,
        };
        let value = std::str::from_utf8(value).map_err(|_| fault("a name is not valid UTF-8"))?;
        if kept.replace(value.to_owned()).is_some() {
            return Err(fault("a parameter is given twice in the startup packet"));
        }
    }
    // What is left is the end after the last terminator and nothing more.
    if words.next() != Some(b"") || words.next().is_some() {
        return Err(fault("invalid startup packet layout: expected terminator as last byte"));
    }
    let user = user.filter(|name| !name.is_empty()).ok_or_else(|| {
        ("28000", "no PostgreSQL user name specified in startup packet".to_owned())
    })?;
    let database = database.filter(|name| !name.is_empty()).unwrap_or_else(|| user.clone());
    Ok(Start { user, database })
}

/// Asks the client for its password in clear, which TLS hides, and reads it.
///
/// None when the client goes away, as `psql` does to ask its user.
pub(super) async fn ask_password(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> io::Result<Result<Option<Secret<String>>, Fault>> {
    say(client, 3, &[]).await?;
    let mut body = match read_password(client).await? {
        Ok(Some(body)) => body,
        Ok(None) => return Ok(Ok(None)),
        Err(fault) => return Ok(Err(fault)),
    };
    let fault = || Ok(Err(("08P01", "invalid password packet".to_owned())));
    if body.is_empty() || body.pop() != Some(0) || body.contains(&0) {
        return fault();
    }
    match String::from_utf8(body) {
        Ok(password) => Ok(Ok(Some(Secret::new(password)))),
        Err(_) => fault(),
    }
}

/// Lets the client prove by SCRAM that it knows the password of `verifier`.
///
/// False when the client goes away, as `psql` does to ask its user; a fault when the password is wrong.
pub(super) async fn check_password(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    user: &str,
    verifier: Verifier,
) -> io::Result<Result<bool, Fault>> {
    let wrong =
        || Ok(Err(("28P01", format!("password authentication failed for user \"{user}\""))));
    let fault = || Ok(Err(("08P01", "malformed SCRAM message".to_owned())));
    say(client, 10, format!("{MECHANISM}\0\0").as_bytes()).await?;
    let body = match read_password(client).await? {
        Ok(Some(body)) => body,
        Ok(None) => return Ok(Ok(false)),
        Err(fault) => return Ok(Err(fault)),
    };
    // The mechanism, a zero byte, the length of the message in four bytes, the message.
    let first = body.strip_prefix(MECHANISM.as_bytes()).and_then(|rest| rest.strip_prefix(b"\0"));
    let Some((_, first)) = first.and_then(|rest| rest.split_at_checked(4)) else { return fault() };
    let Some((exchange, answer)) = Exchange::begin(verifier, first) else { return fault() };
    say(client, 11, answer.as_bytes()).await?;
    let last = match read_password(client).await? {
        Ok(Some(last)) => last,
        Ok(None) => return Ok(Ok(false)),
        Err(fault) => return Ok(Err(fault)),
    };
    let Some(proof) = exchange.finish(&last) else { return wrong() };
    say(client, 12, proof.as_bytes()).await?;
    Ok(Ok(true))
}

/// Sends an authentication request of the kind `code`.
async fn say(client: &mut (impl AsyncWrite + Unpin), code: u32, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len() + 8).unwrap_or(u32::MAX);
    let packet = [&b"R"[..], &length.to_be_bytes(), &code.to_be_bytes(), body].concat();
    client.write_all(&packet).await?;
    client.flush().await
}

/// Reads the client's answer to an authentication request; none when it is gone.
async fn read_password(
    client: &mut (impl AsyncRead + Unpin),
) -> io::Result<Result<Option<Vec<u8>>, Fault>> {
    let Ok(kind) = client.read_u8().await else { return Ok(Ok(None)) };
    let length = client.read_u32().await?;
    if kind != b'p' || !(5..=PASSWORD_BYTES).contains(&length) {
        return Ok(Err(("08P01", "expected password response".to_owned())));
    }
    let mut body = vec![0; length as usize - 4];
    client.read_exact(&mut body).await?;
    Ok(Ok(Some(body)))
}

/// Returns the packet that asks a server to cancel what the session with `key` is doing.
pub(super) fn cancel(key: &[u8]) -> Vec<u8> {
    let length = u32::try_from(key.len() + 8).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &CANCEL.to_be_bytes(), key].concat()
}

/// Returns a fatal error as Postgres sends it.
pub(super) fn fatal(sqlstate: &str, message: &str) -> Vec<u8> {
    let mut fields = Vec::new();
    for (kind, text) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', sqlstate), (b'M', message)] {
        fields.push(kind);
        fields.extend(text.bytes().filter(|byte| *byte != 0));
        fields.push(0);
    }
    fields.push(0);
    let length = u32::try_from(fields.len() + 4).unwrap_or(u32::MAX);
    let mut packet = vec![b'E'];
    packet.extend(length.to_be_bytes());
    packet.extend(fields);
    packet
}

/// Follows what a server says from the start-up packet until it is ready for queries.
#[derive(Default)]
pub(super) struct Greeting {
    /// Bytes not yet understood, since their packet is not complete.
    rest: Vec<u8>,
    /// Key of the session, once it came.
    pub(super) key: Option<Vec<u8>>,
    /// Whether the server is ready for queries.
    pub(super) ready: bool,
}

impl Greeting {
    /// Takes in what the server sent next.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.rest.extend(bytes);
        while !self.ready {
            let Some((head, body)) = self.rest.split_at_checked(5) else { return };
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let Some(body) = body.get(..length.saturating_sub(4)) else { return };
            match head[0] {
                b'K' => self.key = Some(body.to_vec()),
                b'Z' => self.ready = true,
                _ => {}
            }
            self.rest.drain(..=length.max(4));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 8).unwrap();
        [&length.to_be_bytes()[..], &[0, 3, 0, 0], body].concat()
    }

    #[test]
    fn a_start_names_user_and_database() {
        let full = start(b"user\0ana@shop.test\0database\0shop\0options\0-c x=y\0\0");
        let short = start(b"user\0ana\0\0");

        assert_eq!(
            parse_start(&full),
            Ok(Start { user: "ana@shop.test".to_owned(), database: "shop".to_owned() })
        );
        assert_eq!(parse_start(&short).map(|start| start.database).as_deref(), Ok("ana"));
    }

    #[test]
    fn a_start_that_could_be_read_in_two_ways_is_refused() {
        for (body, state) in [
            (&b"user\0ana\0user\0root\0\0"[..], "08P01"),
            (b"user\0ana\0", "08P01"),
            (b"user\0ana\0\0extra\0", "08P01"),
            (b"user", "08P01"),
            (b"user\0\xff\0\0", "08P01"),
            (b"database\0shop\0\0", "28000"),
            (b"", "08P01"),
        ] {
            assert_eq!(parse_start(&start(body)).map_err(|fault| fault.0), Err(state), "{body:?}");
        }
        assert_eq!(parse_start(&[0, 0, 0, 8, 0, 2, 0, 0]).map_err(|fault| fault.0), Err("0A000"));
    }

    #[test]
    fn a_greeting_is_understood_in_pieces_of_any_size() {
        let said = [
            &[b'R', 0, 0, 0, 8, 0, 0, 0, 0][..],
            &[b'K', 0, 0, 0, 12, 0, 0, 0, 7, 1, 2, 3, 4],
            &[b'Z', 0, 0, 0, 5, b'I'],
        ]
        .concat();
        for size in 1..=said.len() {
            let mut greeting = Greeting::default();
            said.chunks(size).for_each(|piece| greeting.take(piece));
            assert!(greeting.ready, "{size}");
            assert_eq!(greeting.key.as_deref(), Some(&[0, 0, 0, 7, 1, 2, 3, 4][..]));
        }
    }
}
