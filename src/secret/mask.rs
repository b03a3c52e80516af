//! What is hidden in everything that is written: each known secret, as it is and encoded.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use aho_corasick::AhoCorasick;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::Secret;

/// What stands where a secret stood.
const HIDDEN: &str = "***";
/// Shortest text that is hidden; something shorter occurs everywhere.
const SHORTEST: usize = 6;
/// Most bytes that are held back because a secret may go on in what follows.
const MOST_HELD: usize = 64 * 1024;

/// RFC 3986: what `quote(…, safe="")` of Python leaves as it is.
const UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// What other encoders leave too: `encodeURIComponent`, `quote` of Python, HTML forms.
const ENCODERS: [AsciiSet; 4] = [
    UNRESERVED,
    UNRESERVED.remove(b'!').remove(b'\'').remove(b'(').remove(b')').remove(b'*'),
    UNRESERVED.remove(b'/'),
    UNRESERVED.add(b'~').remove(b'*'),
];

/// The secrets known so far; cheap to clone, all clones know the same.
///
/// A secret is found raw, in base64 of both alphabets whatever stands before it, URL-encoded, and
/// escaped for JSON; also when it is broken into lines.
#[derive(Clone, Default)]
pub(crate) struct Mask(Arc<RwLock<Arc<Patterns>>>);

#[derive(Default)]
struct Patterns {
    /// Every form of every secret without white space, in order.
    forms: BTreeSet<Vec<u8>>,
    search: Option<AhoCorasick>,
    longest: usize,
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mask(***)")
    }
}

impl Mask {
    /// Hides `secret` in everything that is written from now on.
    pub(crate) fn hide(&self, secret: &Secret<String>) {
        let known = self.patterns();
        let mut forms = forms_of(secret.expose());
        if let Ok(decoded) = percent_decode_str(secret.expose()).decode_utf8() {
            forms.extend(forms_of(&decoded));
        }
        if forms.is_subset(&known.forms) {
            return;
        }
        let mut shared = self.0.write().unwrap_or_else(PoisonError::into_inner);
        forms.extend(shared.forms.iter().cloned());
        *shared = Arc::new(Patterns::new(forms));
    }

    /// Returns `text` without the secrets in it.
    pub(crate) fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.patterns().search.is_none() {
            return Cow::Borrowed(text);
        }
        let mut stream = self.stream();
        let mut bytes = stream.push(text.as_bytes());
        bytes.extend(stream.finish());
        Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns what takes the secrets out of something that comes bit by bit.
    pub(crate) fn stream(&self) -> Stream {
        Stream { mask: self.clone(), held: Vec::new(), secret: Vec::new(), inside: false }
    }

    fn patterns(&self) -> Arc<Patterns> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Patterns {
    fn new(forms: BTreeSet<Vec<u8>>) -> Self {
        let search = AhoCorasick::new(&forms).expect("tokens fit an automaton");
        let longest = forms.iter().map(Vec::len).max().unwrap_or_default();
        Patterns { search: (!forms.is_empty()).then_some(search), longest, forms }
    }

    /// Returns whether `end` is the beginning of a form that goes on.
    fn goes_on(&self, end: &[u8]) -> bool {
        let from = self.forms.range::<[u8], _>((Bound::Included(end), Bound::Unbounded));
        from.take_while(|form| form.starts_with(end)).any(|form| form.len() > end.len())
    }
}

/// Takes the secrets out of something that comes bit by bit.
pub(crate) struct Stream {
    mask: Mask,
    /// What came and is not passed on yet.
    held: Vec<u8>,
    /// Which of it belongs to a secret.
    secret: Vec<bool>,
    /// Whether what was passed on last was a secret.
    inside: bool,
}

impl Stream {
    /// Adds `bytes` and returns what can be passed on: all but what may be the beginning of a secret.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        self.secret.resize(self.held.len(), false);
        let patterns = self.mask.patterns();
        let Some(search) = &patterns.search else { return self.pass_on(self.held.len()) };
        let black = |(_, byte): &(usize, u8)| !byte.is_ascii_whitespace();
        let (places, text): (Vec<usize>, Vec<u8>) =
            self.held.iter().copied().enumerate().filter(black).unzip();
        for found in search.find_overlapping_iter(&text) {
            self.secret[places[found.start()]..=places[found.end() - 1]].fill(true);
        }
        let last = text.len().saturating_sub(patterns.longest.saturating_sub(1));
        let open = (last..text.len()).find(|&start| patterns.goes_on(&text[start..]));
        match open.map(|start| places[start]) {
            Some(place) if self.held.len() - place <= MOST_HELD => self.pass_on(place),
            _ => self.pass_on(self.held.len()),
        }
    }

    /// Returns whether something is held back.
    pub(crate) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Returns what is left when nothing more comes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.flush()
    }

    /// Returns what is held back, when it has waited long enough for what follows.
    pub(crate) fn flush(&mut self) -> Vec<u8> {
        self.pass_on(self.held.len())
    }

    fn pass_on(&mut self, count: usize) -> Vec<u8> {
        let mut passed = Vec::with_capacity(count);
        for (byte, secret) in self.held.drain(..count).zip(self.secret.drain(..count)) {
            match (secret, self.inside) {
                (true, false) => passed.extend_from_slice(HIDDEN.as_bytes()),
                (true, true) => {}
                (false, _) => passed.push(byte),
            }
            self.inside = secret;
        }
        passed
    }
}

/// Returns every form of `secret` that is looked for, without white space.
fn forms_of(secret: &str) -> BTreeSet<Vec<u8>> {
    let mut forms = vec![secret.to_owned()];
    let json = serde_json::to_string(secret).expect("a string is JSON");
    forms.push(json[1..json.len() - 1].to_owned());
    for kept in ENCODERS.iter().chain([NON_ALPHANUMERIC]) {
        let upper = utf8_percent_encode(secret, kept).to_string();
        forms.push(lower_hex(&upper));
        forms.push(upper);
    }
    for before in 0..3 {
        let plain = base64_inside(&STANDARD_NO_PAD, secret, before);
        forms.push(plain.replace('+', "%2B").replace('/', "%2F"));
        forms.push(base64_inside(&URL_SAFE_NO_PAD, secret, before));
        forms.push(plain);
    }
    let squeeze = |form: String| -> Vec<u8> {
        form.into_bytes().into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect()
    };
    // A short secret's encodings are longer than it is and still say nothing.
    if squeeze(secret.to_owned()).len() < SHORTEST {
        return BTreeSet::new();
    }
    forms.into_iter().map(squeeze).filter(|form| form.len() >= SHORTEST).collect()
}

/// Returns `text`, which is URL-encoded, with its escapes in lower case.
fn lower_hex(text: &str) -> String {
    let mut parts = text.split('%');
    let mut lower = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        lower.push('%');
        lower.push_str(&part[..2].to_ascii_lowercase());
        lower.push_str(&part[2..]);
    }
    lower
}

/// Returns those digits of the base64 of `secret` that are the same whatever follows it, when
/// `before` bytes, modulo three, stand before it.
fn base64_inside(engine: &impl Engine, secret: &str, before: usize) -> String {
    let mut bytes = vec![0; before];
    bytes.extend_from_slice(secret.as_bytes());
    let digits = engine.encode(&bytes);
    // Digits hold six bits each: the first ones hold bits of what stands before, the last one of
    // what follows.
    let first = (before * 8).div_ceil(6);
    let end = bytes.len() * 8 / 6;
    digits[first.min(end)..end].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask(secret: &str) -> Mask {
        let mask = Mask::default();
        mask.hide(&Secret::new(secret.to_owned()));
        mask
    }

    /// Passes `text` through in pieces of these sizes, in turn.
    fn through(mask: &Mask, text: &[u8], sizes: &[usize]) -> Vec<u8> {
        let (mut stream, mut rest, mut passed) = (mask.stream(), text, Vec::new());
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*size).min(rest.len()));
            passed.extend(stream.push(piece));
            rest = after;
        }
        passed.extend(stream.finish());
        passed
    }

    /// Breaks `text` into lines of `width` characters, as `fold` does.
    fn folded(text: &str, width: usize) -> String {
        let all: Vec<char> = text.chars().collect();
        let lines: Vec<String> = all.chunks(width).map(|line| line.iter().collect()).collect();
        lines.join("\n")
    }

    /// Writes `secret`, with `around` on both sides where that is encoded too, in one of the ways.
    fn written(secret: &str, around: &str, way: usize) -> String {
        let inside = format!("{around}{secret}{around}");
        match way {
            0 => secret.to_owned(),
            1 => base64::engine::general_purpose::STANDARD.encode(inside),
            2 => base64::engine::general_purpose::URL_SAFE.encode(inside),
            3 => utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string(),
            4..8 => utf8_percent_encode(secret, &ENCODERS[way - 4]).to_string(),
            _ => serde_json::to_string(secret).unwrap(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn no_encoding_line_break_or_piece_lets_a_secret_through(
            secret in "[a-zA-Z0-9+/=._~!*'\"\\\\ @:-]{12,60}",
            around in "[a-z:]{0,7}",
            way in 0..9_usize,
            width in 1..90_usize,
            sizes in proptest::collection::vec(1..40_usize, 1..5),
        ) {
            prop_assume!(secret.trim() == secret);
            let encoded = written(&secret, &around, way);
            let text = format!("said {}\nthe end\n", folded(&encoded, width));
            let shown = through(&mask(&secret), text.as_bytes(), &sizes);
            let shown = String::from_utf8(shown).unwrap();

            prop_assert!(shown.contains("***"), "{text:?} became {shown:?}");
            prop_assert!(shown.ends_with("the end\n"), "{shown:?}");
            // A digit of base64 on each side may hold bits of the secret, never a whole byte.
            let left = shown.len() - "said ***\nthe end\n".len();
            let most = if way == 1 || way == 2 { around.len() * 4 + 12 } else { 2 };
            prop_assert!(left <= most + most / width + 1, "{text:?} became {shown:?}");
        }

        #[test]
        fn what_holds_no_secret_passes_as_it_is(
            text in proptest::collection::vec(any::<u8>(), 0..400),
            sizes in proptest::collection::vec(1..40_usize, 1..5),
        ) {
            let mask = mask("a secret that no random bytes hold");
            prop_assert_eq!(through(&mask, &text, &sizes), text);
        }
    }

    #[test]
    fn all_secrets_are_hidden_also_those_learnt_late_and_those_in_each_other() {
        let mask = mask("dapi-0123456789");
        let mut stream = mask.stream();
        let first = stream.push(b"one dapi-0123456789 ");
        mask.hide(&Secret::new("456789-and-more".to_owned()));
        mask.hide(&Secret::new("tiny".to_owned()));
        let mut all = first;
        all.extend(stream.push(b"two dapi-0123456789-and-more tiny"));
        all.extend(stream.finish());

        assert_eq!(String::from_utf8(all).unwrap(), "one *** two *** tiny");
        assert_eq!(mask.text("{\"x\":\"dapi-0123456789\"}"), "{\"x\":\"***\"}");
        assert_eq!(format!("{mask:?}"), "Mask(***)");
    }

    #[test]
    fn a_password_of_an_address_is_hidden_decoded_too() {
        assert_eq!(mask("p%40ss%2Fword").text("p@ss/word p%40ss%2fword"), "*** ***");
    }

    #[test]
    fn what_waits_for_more_is_bounded_and_given_up_in_the_end() {
        let mask = mask("dapi-0123456789");
        let mut stream = mask.stream();
        let mut passed = stream.push(b"dapi");
        assert!(passed.is_empty(), "it may go on");
        passed.extend(stream.push(&vec![b'\n'; 2 * MOST_HELD]));
        assert_eq!(passed.len(), 4 + 2 * MOST_HELD);

        assert_eq!(stream.push(b"say dapi"), b"say ");
        assert_eq!(stream.flush(), b"dapi");
        assert!(stream.finish().is_empty());
    }
}
