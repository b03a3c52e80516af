//! Files and folders that nobody else may read, written so that a crash leaves the old or the new.

use std::fs::DirBuilder;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::error::{Doing, Result};

/// Makes `folder` and its parents, readable by nobody else.
pub(crate) fn private_folder(folder: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .doing(|| format!("could not make the folder `{}`", folder.display()))
}

/// Writes `content` to `path` through a temporary name, synced, with mode 0600.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
        file.write_all(content)?;
        file.as_file().sync_data()?;
        file.persist(path)?;
        Ok(())
    };
    write().doing(|| format!("could not write `{}`", path.display()))
}
