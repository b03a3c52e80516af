//! What is known about the terminal, gathered once; the decisions are functions of plain booleans.

/// What `--color` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ColorChoice {
    /// Colour where a terminal shows it.
    #[default]
    Auto,
    /// Colour always.
    Always,
    /// No colour.
    Never,
}

/// What was found out about the terminal and its environment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// Whether a person types into stdin.
    pub(crate) stdin_terminal: bool,
    /// Whether stdout goes to a terminal.
    pub(crate) stdout_terminal: bool,
    /// Whether stderr goes to a terminal.
    pub(crate) stderr_terminal: bool,
    /// Whether a CI system runs us.
    pub(crate) ci: bool,
    /// Whether that is GitHub Actions, which hides what it is told to hide.
    pub(crate) github: bool,
    /// Whether `NO_COLOR` is set to something.
    pub(crate) no_color: bool,
    /// Whether `TERM` is `dumb`.
    pub(crate) dumb: bool,
    /// What `--color` says.
    pub(crate) color: ColorChoice,
}

impl Facts {
    /// Returns whether stdout may be coloured.
    pub(crate) fn color_stdout(&self) -> bool {
        self.color_on(self.stdout_terminal)
    }

    /// Returns whether stderr may be coloured.
    pub(crate) fn color_stderr(&self) -> bool {
        self.color_on(self.stderr_terminal)
    }

    /// Returns whether live lines may be drawn on stderr.
    pub(crate) fn can_draw(&self) -> bool {
        self.stderr_terminal && !self.ci && !self.dumb
    }

    /// Returns whether somebody can be asked.
    pub(crate) fn can_ask(&self) -> bool {
        self.stdin_terminal && self.stderr_terminal && !self.ci
    }

    fn color_on(&self, terminal: bool) -> bool {
        match self.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !self.no_color && !self.dumb,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_decides_and_the_user_overrules() {
        let terminal = Facts {
            stdin_terminal: true,
            stdout_terminal: true,
            stderr_terminal: true,
            ..Facts::default()
        };
        for (facts, color, draw, ask) in [
            (terminal.clone(), true, true, true),
            (Facts::default(), false, false, false),
            (Facts { ci: true, ..terminal.clone() }, true, false, false),
            (Facts { no_color: true, ..terminal.clone() }, false, true, true),
            (Facts { dumb: true, ..terminal.clone() }, false, false, true),
            (Facts { color: ColorChoice::Always, ..Facts::default() }, true, false, false),
            (Facts { color: ColorChoice::Never, ..terminal.clone() }, false, true, true),
            (Facts { stdin_terminal: false, ..terminal }, true, true, false),
        ] {
            assert_eq!(
                (facts.color_stderr(), facts.can_draw(), facts.can_ask()),
                (color, draw, ask),
                "{facts:?}"
            );
        }
    }
}
