//! Logs of what a command ran: for the user alone, without secrets, inside their folder.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::bundle::Bundle;
use crate::error::{Error, Kind, Result};
use crate::secret::{Mask, Stream};

/// Longest name of a file, without what we add to it.
const LONGEST_NAME: usize = 200;
/// How much of the end of a log is read to show its last lines.
const END: u64 = 64 * 1024;

/// A name of the bundle that is one part of a path, whatever the bundle says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileName(String);

impl FileName {
    /// Checks `name`, which is that of `what`.
    ///
    /// Fails with `Usage` for a name that would lead elsewhere.
    pub(super) fn check(what: &str, name: &str) -> Result<Self> {
        let strange = |c: char| matches!(c, '/' | '\\') || c.is_control();
        let wrong = if name.is_empty() {
            "it is empty"
        } else if name.len() > LONGEST_NAME {
            "it is too long"
        } else if name.starts_with('.') {
            "it starts with a dot"
        } else if name.contains(strange) {
            "it holds a slash, a backslash or a control character"
        } else {
            return Ok(FileName(name.to_owned()));
        };
        Err(Error::new(Kind::Usage, format!("{what} cannot be called `{name}`"))
            .code("NAME_NOT_ALLOWED")
            .why(wrong))
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the folder of what `lakeforge` keeps of the target of `bundle`.
///
/// Fails with `Usage` for a target whose name would lead elsewhere.
pub(super) fn folder_of(bundle: &Bundle) -> Result<PathBuf> {
    let target = FileName::check("a target", &bundle.target.name)?;
    Ok(bundle.root.join(".databricks/lakeforge").join(target.0))
}

/// A log that is written.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    mask: Mask,
}

impl Log {
    /// Begins the log `name` in `folder` anew.
    ///
    /// Only the user may read it. Fails where a link stands in its place.
    pub(super) fn create(folder: &Path, name: &FileName, mask: &Mask) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let path = path(folder, name);
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)?;
        // One that is there already may be open to others.
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.set_len(0)?;
        Ok(Log { path, file, mask: mask.clone() })
    }

    /// Adds `text`, which is whole.
    pub(super) fn write(&self, text: &str) -> io::Result<()> {
        (&self.file).write_all(self.mask.text(text).as_bytes())
    }

    /// Adds all that `said` says, until its end.
    pub(super) fn write_all(&self, mut said: impl Read) -> io::Result<()> {
        let (mut stream, mut chunk): (Stream, _) = (self.mask.stream(), [0; 8192]);
        loop {
            match said.read(&mut chunk) {
                Ok(0) => return (&self.file).write_all(&stream.finish()),
                Ok(count) => (&self.file).write_all(&stream.push(&chunk[..count]))?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns its last `count` lines.
    pub(super) fn last_lines(&self, count: usize) -> Vec<String> {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            let start = file.metadata()?.len().saturating_sub(END);
            file.seek(SeekFrom::Start(start))?;
            let mut end = Vec::new();
            file.read_to_end(&mut end)?;
            Ok(end)
        };
        let end = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&end);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect()
    }
}

/// Returns where the log `name` is.
pub(super) fn path(folder: &Path, name: &FileName) -> PathBuf {
    folder.join(format!("{name}.log"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn log(folder: &Path, mask: &Mask) -> io::Result<Log> {
        Log::create(folder, &FileName::check("an app", "shop").unwrap(), mask)
    }

    #[test]
    fn a_name_cannot_lead_out_of_the_folder() {
        for name in ["shop", "shop-pr-7", "Shop_1.x", "ünï"] {
            assert!(FileName::check("an app", name).is_ok(), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "../victim",
            "../../../../../victim",
            "/etc/x",
            "a/b",
            "a\\b",
            "a\nb",
            ".hidden",
        ] {
            let error = FileName::check("an app", name).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{name}");
        }
        assert!(FileName::check("an app", &"x".repeat(300)).is_err());
    }

    #[test]
    fn a_log_is_the_users_own_and_follows_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let (logs, victim) = (folder.path().join("logs"), folder.path().join("victim"));
        let file = logs.join("shop.log");
        log(&logs, &Mask::default()).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&logs), mode(&file)), (0o700, 0o600));

        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        log(&logs, &Mask::default()).unwrap();
        assert_eq!(mode(&file), 0o600);

        std::fs::write(&victim, "precious").unwrap();
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(&victim, &file).unwrap();
        assert!(log(&logs, &Mask::default()).is_err());
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[test]
    fn a_log_holds_no_secret_and_its_end_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let mask = Mask::default();
        mask.hide(&Secret::new("dapi-0123456789".to_owned()));
        let log = log(folder.path(), &mask).unwrap();
        log.write("token dapi-0123456789\n").unwrap();
        let text: String = (1..=30).map(|number| format!("line {number}\n")).collect();
        log.write_all(text.as_bytes()).unwrap();
        log.write_all(&b"dapi-0123\n456789\nZGFwaS0wMTIzNDU2Nzg5\n"[..]).unwrap();

        assert_eq!(log.last_lines(3), ["line 30", "***", "***"]);
        assert_eq!(log.last_lines(100).len(), 33);
        assert_eq!(log.last_lines(100)[0], "token ***");
    }
}
