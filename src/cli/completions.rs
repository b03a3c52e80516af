//! `lakeforge completions`: the line a shell needs.

use crate::error::Result;
use crate::ui;

/// Print the completion script of a shell
///
/// The script asks `lakeforge` itself at each TAB, so it never goes out of date.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lakeforge completions zsh > \"${fpath[1]}/_lakeforge\"")]
pub(crate) struct Completions {
    /// Shell to complete in
    shell: Shell,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    Powershell,
}

impl Completions {
    pub(super) fn run(self) -> Result<()> {
        let script = match self.shell {
            Shell::Bash => include_str!("../../completions/lakeforge.bash"),
            Shell::Zsh => include_str!("../../completions/_lakeforge"),
            Shell::Fish => include_str!("../../completions/lakeforge.fish"),
            Shell::Powershell => include_str!("../../completions/lakeforge.ps1"),
        };
        ui::write_stdout(script)
    }
}
