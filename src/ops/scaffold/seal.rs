//! The last line of a generated file: a digest of all above it, by which a change made by hand is seen.

use sha2::{Digest, Sha256};

/// How the last line begins.
const LABEL: &str = "# Text: sha256:";

/// Returns `text` with its seal.
pub(super) fn seal(text: &str) -> String {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let text = format!("{text}{end}");
    let digest = digest(&text);
    format!("{text}{LABEL}{digest}\n")
}

/// Returns whether `text` is as it was sealed; line ends that a checkout changed do not count.
pub(super) fn is_intact(text: &str) -> bool {
    let text = text.replace("\r\n", "\n");
    let Some((above, last)) = text.trim_end().rsplit_once('\n') else { return false };
    last.strip_prefix(LABEL).is_some_and(|found| found == digest(format!("{above}\n")))
}

/// Returns the digest of `bytes` in hexadecimal.
pub(super) fn digest(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_anywhere_breaks_the_seal() {
        let sealed = seal("a: 1\nb: 2\n");

        assert!(is_intact(&sealed) && is_intact(&sealed.replace('\n', "\r\n")));
        for changed in [
            sealed.replace("2", "3"),
            sealed.replace("# Text", "# Texts"),
            format!("{sealed}c: 3\n"),
            "a: 1\nb: 2\n".to_owned(),
            String::new(),
        ] {
            assert!(!is_intact(&changed), "{changed}");
        }
        assert!(is_intact(&seal("no line end")));
    }
}
