//! Files that generators write: as a whole or not at all.

use std::io::Write;
use std::path::Path;

use crate::error::{Error, Kind, Result};

/// Writes `text` beside `path` and renames it, so that nobody sees half a file.
pub(super) fn replace(path: &Path, text: &str) -> Result<()> {
    // Through a link the file it leads to is replaced, not the link.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let permissions = std::fs::metadata(path).ok().map(|file| file.permissions());
    let file = beside(path, text, permissions)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Writes `text` to `path` unless something is there, and returns whether it was written.
pub(crate) fn create(path: &Path, text: &str) -> Result<bool> {
    if path.symlink_metadata().is_ok() {
        return Ok(false);
    }
    match beside(path, text, None)?.persist_noclobber(path) {
        Ok(_) => Ok(true),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.error.into()),
    }
}

fn beside(
    path: &Path,
    text: &str,
    permissions: Option<std::fs::Permissions>,
) -> Result<tempfile::NamedTempFile> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".lakeforge-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let fresh = || std::fs::Permissions::from_mode(0o666);
        builder.permissions(permissions.clone().unwrap_or_else(fresh));
    }
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    if let Some(permissions) = permissions {
        file.as_file().set_permissions(permissions)?;
    }
    file.as_file().sync_all()?;
    Ok(file)
}

/// Returns `path` relative to `root` with `/` between its parts, or as it is outside of it.
///
/// Fails for a path that could not be written on one line of a comment.
pub(crate) fn relative(root: &Path, path: &Path) -> Result<String> {
    let shown = match path.strip_prefix(root) {
        Ok(inside) => inside
            .components()
            .map(|part| part.as_os_str().to_string_lossy())
            .collect::<Vec<_>>()
            .join("/"),
        Err(_) => path.display().to_string(),
    };
    if shown.is_empty() || shown.contains(char::is_control) {
        return Err(Error::new(
            Kind::Usage,
            format!("`{}` cannot be written", shown.escape_debug()),
        ));
    }
    Ok(shown)
}

/// Quotes `text` for a shell where that is needed.
pub(super) fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
