//! Whatever a client sends before it is logged in is understood or refused, and never breaks anything.

use proptest::prelude::*;
use tokio::runtime::Builder;

use super::packets::{First, Greeting, ask_password, check_password, parse_start, read_first};
use super::scram::{Exchange, Verifier};

/// Runs what never waits for anything but memory.
fn now<T>(work: impl Future<Output = T>) -> T {
    Builder::new_current_thread().build().unwrap().block_on(work)
}

/// Returns the packet that starts with its own length.
fn framed(code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 8).unwrap();
    [&length.to_be_bytes()[..], &code.to_be_bytes(), body].concat()
}

/// A client that sends `sent` and reads nothing.
fn client(sent: &[u8]) -> impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + use<'_> {
    tokio::io::join(sent, tokio::io::sink())
}

/// Returns a password message with `body`.
fn password(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&b"p"[..], &length.to_be_bytes(), body].concat()
}

/// Bytes among which those that mean something to the protocol are frequent.
fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    let telling = prop::sample::select(b"\0\x03\x04\xd2\x16\x2f\xffpnrcvi=,user".to_vec());
    prop::collection::vec(prop_oneof![telling, any::<u8>()], 0..most)
}

/// The code of a first packet: a request that is known, a version, or anything.
fn code() -> impl Strategy<Value = u32> {
    let known = prop::sample::select(vec![80_877_102, 80_877_103, 80_877_104, 196_608, 196_610]);
    prop_oneof![known, any::<u32>()]
}

proptest! {
    #[test]
    fn any_first_bytes_are_a_packet_or_nothing(sent in bytes(64)) {
        let _ = now(read_first(&mut &sent[..]));
    }

    #[test]
    fn a_first_packet_is_taken_whole_and_nothing_after_it(code in code(), body in bytes(40), more in bytes(8)) {
        let packet = framed(code, &body);
        let sent = [&packet[..], &more].concat();
        let mut rest = &sent[..];

        let first = now(read_first(&mut rest)).unwrap();

        prop_assert_eq!(rest, &more[..], "what follows belongs to whoever reads next");
        match first {
            Some(First::Start(whole)) => prop_assert_eq!(whole, packet),
            Some(First::Cancel { key }) => prop_assert_eq!(key, body),
            Some(First::Tls | First::Gss) => prop_assert!(body.is_empty()),
            None => prop_assert!((80_877_102..=80_877_104).contains(&code)),
        }
    }

    #[test]
    fn a_packet_longer_than_postgres_takes_is_not_read(length in 10_001_u32.., code in code()) {
        let sent = [length.to_be_bytes(), code.to_be_bytes()].concat();
        let mut rest = &sent[..];

        prop_assert_eq!(now(read_first(&mut rest)).unwrap(), None);
        prop_assert_eq!(rest.len(), 4, "only the length was read");
    }

    #[test]
    fn a_start_that_is_taken_names_one_user(body in bytes(80)) {
        if let Ok(start) = parse_start(&framed(196_608, &body)) {
            let words: Vec<&[u8]> = body.split(|byte| *byte == 0).collect();
            let users = words.chunks(2).filter(|pair| pair[0] == b"user").count();
            prop_assert_eq!(users, 1);
            prop_assert!(!start.user.is_empty() && !start.database.is_empty());
        }
    }

    #[test]
    fn any_answer_to_the_question_for_a_password_is_one_or_none(sent in bytes(64), body in bytes(64)) {
        let _ = now(ask_password(&mut client(&sent)));
        if let Ok(Ok(Some(secret))) = now(ask_password(&mut client(&password(&body)))) {
            let clear = [secret.expose().as_bytes(), b"\0"].concat();
            prop_assert_eq!(clear, body);
        }
    }

    #[test]
    fn no_made_up_exchange_proves_a_password(first in bytes(64), last in bytes(64), nonce in "[ -~]{0,20}") {
        for begin in [first, format!("SCRAM-SHA-256\0\0\0\0\x10n,,n=,r={nonce}").into_bytes()] {
            let sent = [password(&begin), password(&last)].concat();
            let proven = now(check_password(&mut client(&sent), "ada", Verifier::of("secret")));
            prop_assert!(!matches!(proven, Ok(Ok(true))));
        }
    }

    #[test]
    fn any_text_is_a_verifier_or_none(text in ".{0,80}", parts in "SCRAM-SHA-256\\$[0-9]{1,12}:[A-Za-z0-9+/=]{0,9}\\$[A-Za-z0-9+/=]{0,9}:[A-Za-z0-9+/=]{0,9}") {
        for text in [text, parts] {
            if let Some(verifier) = Verifier::parse(&text) {
                // What it was made of decides nothing: a proof is still wanted.
                let (exchange, _) = Exchange::begin(verifier, b"n,,n=,r=x").unwrap();
                prop_assert!(exchange.finish(b"c=biws,r=x,p=").is_none());
            }
        }
    }

    #[test]
    fn any_greeting_is_followed_to_its_end(said in bytes(200), size in 1_usize..50) {
        let mut greeting = Greeting::default();
        for piece in said.chunks(size) {
            greeting.take(piece);
        }
    }
}
