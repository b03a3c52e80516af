//! Random names and secrets.

use std::fmt::Write as _;

use ring::rand::{SecureRandom, SystemRandom};

/// Words of the readable part of unique ids; short, so that unix socket paths stay short.
const FIRST: [&str; 16] = [
    "calm", "cold", "cool", "dark", "dry", "fast", "icy", "late", "long", "old", "quiet", "red",
    "soft", "still", "warm", "wild",
];
const SECOND: [&str; 16] = [
    "bird", "bush", "cell", "dew", "field", "fog", "glade", "hill", "lake", "leaf", "mist", "moon",
    "rain", "sea", "star", "tree",
];

/// Returns `N` random bytes.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// Returns `count` random bytes (32 at most) as lower-case hexadecimal digits.
pub(crate) fn hex(count: usize) -> String {
    to_hex(&bytes::<32>()[..count.min(32)])
}

/// Writes `bytes` as lower-case hexadecimal digits.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

/// Returns a random UUID, version 4.
pub(crate) fn uuid() -> String {
    let mut bytes = bytes::<16>();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = to_hex(&bytes);
    let (a, rest) = digits.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    format!("{a}-{b}-{c}-{d}-{e}")
}

/// Returns a unique id such as `br-quiet-lake-1a2b3c4d`.
pub(crate) fn readable(prefix: &str) -> String {
    let [first, second] = bytes::<2>();
    let (first, second) = (FIRST[usize::from(first) % 16], SECOND[usize::from(second) % 16]);
    format!("{prefix}-{first}-{second}-{}", hex(4))
}

/// Returns a random number of 53 bits, as JSON carries it everywhere.
pub(crate) fn number() -> u64 {
    u64::from_be_bytes(bytes()) >> 11
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_documented_shape() {
        let uuid = uuid();
        assert_eq!(uuid.len(), 36);
        assert_eq!(&uuid[14..15], "4");
        assert_eq!(uuid.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);

        let branch = readable("br");
        assert_eq!(branch.split('-').count(), 4);
        assert_eq!(branch.rsplit('-').next().unwrap().len(), 8);
    }
}
