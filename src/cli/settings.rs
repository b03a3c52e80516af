//! Settings that every command shares, and the only place that reads the environment.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;

use crate::secret::{Secret, secret_in};
use crate::ui::{ColorChoice, Facts, Output};

/// Options of every command.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Shape of the answer
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
    /// Say nothing but the answer, warnings and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Explain what is done: each request (-v), everything (-vv)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Colour the output
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t)]
    color: Color,
    /// Profile of ~/.databrickscfg, or `local` for the embedded workspace
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Target of databricks.yml
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) target: Option<String>,
    /// Value of a bundle variable (can be repeated)
    #[arg(long, global = true, value_name = "NAME=VALUE")]
    pub(crate) var: Vec<String>,
    /// Folder that holds databricks.yml or lakeforge.yml [default: found upwards from here]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "DATABRICKS_BUNDLE_ROOT",
        hide_env = true
    )]
    pub(crate) root: Option<PathBuf>,
    /// Data folder of the embedded workspace
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

impl Global {
    /// Returns the shape of the answer.
    pub(crate) fn output(&self) -> Output {
        match self.output {
            Format::Text => Output::Text,
            Format::Json => Output::Json,
        }
    }

    /// Returns the secrets among the bundle variables, as far as they can be told.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = Secret<String>> {
        let pairs = self.var.iter().filter_map(|var| var.split_once('='));
        pairs.filter_map(|(name, value)| secret_in(name, value))
    }

    /// Returns what `--color` says.
    pub(crate) fn color(&self) -> ColorChoice {
        match self.color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

/// The environment as it was at start; a variable that is not UTF-8 counts as unset.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    values: BTreeMap<String, String>,
    unreadable: Vec<String>,
}

impl Environment {
    /// Reads the environment of the process.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the environment"
    )]
    pub(crate) fn read() -> Self {
        let mut environment = Environment::default();
        for (name, value) in std::env::vars_os() {
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => drop(environment.values.insert(name, value)),
                (Ok(name), Err(_)) => environment.unreadable.push(name),
                (Err(_), _) => {}
            }
        }
        environment
    }

    /// Returns the variable `name`, unless it is unset or empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns the names of the variables that are not UTF-8.
    pub(crate) fn unreadable(&self) -> impl Iterator<Item = &str> {
        self.unreadable.iter().map(String::as_str)
    }

    /// Returns the variables whose names start with `prefix`, without it.
    pub(crate) fn with_prefix(&self, prefix: &str) -> BTreeMap<String, String> {
        self.values
            .iter()
            .filter_map(|(name, value)| {
                Some((name.strip_prefix(prefix)?.to_owned(), value.clone()))
            })
            .collect()
    }

    /// Returns the secrets in it, as far as they can be told: variables named like one, and the
    /// passwords inside addresses.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = Secret<String>> {
        self.values.iter().filter_map(|(name, value)| secret_in(name, value))
    }

    /// Returns the names of its variables.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Returns what is known about the terminal.
    pub(crate) fn terminal(&self, color: ColorChoice) -> Facts {
        Facts {
            stdin_terminal: std::io::stdin().is_terminal(),
            stdout_terminal: std::io::stdout().is_terminal(),
            stderr_terminal: std::io::stderr().is_terminal(),
            ci: self.get("CI").is_some_and(|value| value != "false" && value != "0"),
            github: self.get("GITHUB_ACTIONS").is_some(),
            no_color: self.get("NO_COLOR").is_some(),
            dumb: self.get("TERM") == Some("dumb"),
            color,
        }
    }
}
