//! Positions in the write-ahead log, and the files it is kept in.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Size of a segment file in bytes; every cluster inherits it from the template.
pub(super) const SEGMENT_BYTES: u64 = 4 << 20;

/// A position in the write-ahead log, written `0/1A2B3C4D`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Lsn(pub(super) u64);

impl Lsn {
    /// Returns the number of the segment this position is in.
    pub(super) fn segment(self) -> u64 {
        self.0 / SEGMENT_BYTES
    }

    /// Returns the last position of the same segment.
    pub(super) fn last_of_segment(self) -> Lsn {
        Lsn((self.segment() + 1) * SEGMENT_BYTES - 1)
    }
}

impl FromStr for Lsn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let half = |digits: &str| match digits.len() {
            1..=8 if digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
                u64::from_str_radix(digits, 16).ok()
            }
            _ => None,
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Lsn(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| format!("`{text}` is not a log position such as `0/1A2B3C4D`"))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl TryFrom<String> for Lsn {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> String {
        lsn.to_string()
    }
}

/// Says what is wrong with `text` when it is no position.
pub(crate) fn check_position(text: &str) -> Result<(), String> {
    text.parse::<Lsn>().map(|_| ())
}

/// Returns the number of the segment kept in the file `name`, on whatever timeline; none for other files.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    if name.len() != 24 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let log = u64::from_str_radix(&name[8..16], 16).ok()?;
    let part = u64::from_str_radix(&name[16..], 16).ok()?;
    Some(log * ((1 << 32) / SEGMENT_BYTES) + part)
}

/// Puts into `target` what recovery from segment `first` up to the position `end` needs of `source`.
///
/// Full segments are never written again, so both clusters share them as hard links; the segment that
/// `end` is in may still be written to and is copied as far as `end`. Returns the files that are new and
/// ours alone.
pub(super) fn share(
    source: &Path,
    target: &Path,
    first: u64,
    end: Lsn,
) -> std::io::Result<Vec<std::path::PathBuf>> {
    let mut copies = Vec::new();
    for entry in std::fs::read_dir(source)? {
        let (from, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        let name = name.to_string_lossy();
        let to = target.join(name.as_ref());
        match segment_number(&name) {
            Some(number) if number < first || number > end.segment() => continue,
            Some(number) if number < end.segment() && std::fs::hard_link(&from, &to).is_ok() => {
                continue;
            }
            Some(number) if number == end.segment() => {
                copy_start(&from, &to, end.0 % SEGMENT_BYTES)?;
                copies.push(to);
                continue;
            }
            Some(_) => {}
            None if name.ends_with(".history") => {}
            None => continue,
        }
        std::fs::copy(&from, &to)?;
        copies.push(to);
    }
    Ok(copies)
}

/// Returns the numbers of the segments in `folder`.
pub(super) fn segments(folder: &Path) -> std::io::Result<BTreeSet<u64>> {
    let names = std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name()));
    let numbers = names.map(|name| Ok(segment_number(&name?.to_string_lossy())));
    numbers.filter_map(std::io::Result::transpose).collect()
}

/// Copies the first `bytes` of the segment `from`; the rest of the copy reads as zeros.
fn copy_start(from: &Path, to: &Path, bytes: u64) -> std::io::Result<()> {
    let from = File::open(from)?;
    let mut copy = File::create(to)?;
    copy.set_permissions(from.metadata()?.permissions())?;
    std::io::copy(&mut from.take(bytes), &mut copy)?;
    copy.set_len(SEGMENT_BYTES)
}

/// Deletes the segments of `folder` before segment `first`; returns how many there were.
pub(super) fn prune(folder: &Path, first: u64) -> std::io::Result<usize> {
    let mut removed = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if segment_number(&entry.file_name().to_string_lossy()).is_some_and(|n| n < first) {
            std::fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_and_write_as_postgres_does() {
        let lsn: Lsn = "1/A2B3C4D".parse().unwrap();

        assert_eq!(lsn, Lsn(0x1_0A2B_3C4D));
        assert_eq!(lsn.to_string(), "1/A2B3C4D");
        for text in ["", "1", "/", "1/", "x/1", "1/123456789", "+1/1", "1/ 2"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }

    #[test]
    fn segment_files_are_numbered_over_all_timelines() {
        assert_eq!(segment_number("000000010000000000000001"), Some(1));
        assert_eq!(segment_number("0000000300000001000003FF"), Some(2047));
        assert_eq!(Lsn(SEGMENT_BYTES * 2047 + 5).segment(), 2047);
        for name in ["00000002.history", "archive_status", "00000001000000000000000G", ""] {
            assert_eq!(segment_number(name), None, "{name}");
        }
    }

    #[test]
    fn full_segments_are_shared_and_the_current_one_is_copied() {
        use std::os::unix::fs::MetadataExt;
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in ["000000010000000000000001", "000000010000000000000002"] {
            std::fs::write(source.path().join(name), name).unwrap();
        }
        for name in ["000000010000000000000003", "000000010000000000000004", "00000002.history"] {
            std::fs::write(source.path().join(name), name).unwrap();
        }

        let copies = share(source.path(), target.path(), 2, Lsn(SEGMENT_BYTES * 3 + 1)).unwrap();

        let links = |name| std::fs::metadata(target.path().join(name)).map(|facts| facts.nlink());
        assert!(links("000000010000000000000001").is_err());
        assert_eq!(links("000000010000000000000002").unwrap(), 2);
        assert_eq!(links("000000010000000000000003").unwrap(), 1);
        assert!(links("000000010000000000000004").is_err());
        assert_eq!(links("00000002.history").unwrap(), 1);
        assert_eq!(copies.len(), 2);
    }
}
