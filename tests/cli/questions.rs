//! Questions at a terminal: Enter answers them, what was typed ahead does not.

use crate::forge::Forge;
use crate::terminal::Terminal;

const QUESTION: &str = "[y/N]";

/// Starts `init`, which asks before it writes, and has `typed_ahead` typed before.
fn init(forge: &Forge, typed_ahead: &str) -> Terminal {
    let mut terminal = Terminal::run(&forge.command("init --project shop"), typed_ahead);
    terminal.wait_for(QUESTION);
    terminal
}

fn has_written(forge: &Forge) -> bool {
    forge.path().join("databricks.yml").exists()
}

#[test]
fn yes_and_enter_agree() {
    for keys in ["y\r", "YES\r", "nope\ry\r", "ax\x7f\x7fy\r"] {
        let forge = Forge::offline();
        let mut terminal = init(&forge, "");
        terminal.press(keys);
        let (exit, screen) = terminal.end();
        assert_eq!((exit, has_written(&forge)), (Some(0), true), "{keys:?}: {screen}");
    }
}

#[test]
fn a_key_without_enter_does_nothing() {
    let forge = Forge::offline();
    let mut terminal = init(&forge, "");
    terminal.press("y");
    terminal.wait_for(&format!("{QUESTION} › y"));
    assert!(!has_written(&forge));
    terminal.press("\x7f\r");
    let (exit, screen) = terminal.end();
    assert_eq!((exit, has_written(&forge)), (Some(9), false), "{screen}");
    assert!(screen.contains("error: declined; nothing was changed"), "{screen}");
}

#[test]
fn what_was_typed_before_the_question_is_no_answer() {
    for typed_ahead in ["y\n", "y", "y\ny\ny\n"] {
        let forge = Forge::offline();
        let mut terminal = init(&forge, typed_ahead);
        terminal.press("\r");
        let (exit, screen) = terminal.end();
        assert_eq!((exit, has_written(&forge)), (Some(9), false), "{typed_ahead:?}: {screen}");
    }
}

#[test]
fn anything_but_yes_declines() {
    // Escape and a key that follows at once are one sequence: Enter comes twice.
    for keys in ["n\r", "\r", "\x1b\r\r", "\x04\r", "no way\r\r"] {
        let forge = Forge::offline();
        let mut terminal = init(&forge, "");
        terminal.press(keys);
        let (exit, screen) = terminal.end();
        assert_eq!((exit, has_written(&forge)), (Some(9), false), "{keys:?}: {screen}");
    }
}

#[test]
fn an_interrupted_question_ends_on_a_line_of_its_own_and_gives_the_terminal_back() {
    let forge = Forge::offline();
    let mut terminal = init(&forge, "");
    terminal.press("\x03");
    terminal.wait_for("\r\nerror: interrupted\r\n  why: nothing was changed\r\n");
    assert!(terminal.is_cooked());
    assert_eq!(terminal.end().0, Some(130));

    let mut terminal = init(&forge, "");
    terminal.terminate();
    terminal.wait_for("\r\nerror: terminated\r\n  why: nothing was changed\r\n");
    assert!(terminal.is_cooked());
    assert_eq!(terminal.end().0, Some(143));
    assert!(!has_written(&forge));
}

#[test]
fn a_terminal_that_goes_away_agrees_to_nothing() {
    let forge = Forge::offline();
    // Whichever is seen first: that nobody answers, or the signal.
    let exit = init(&forge, "").hang_up();
    assert!(matches!(exit, Some(9 | 143)), "{exit:?}");
    assert!(!has_written(&forge));
}

#[test]
fn a_branch_is_deleted_by_yes_and_enter_alone() {
    let forge = Forge::with_project("asked");
    forge.succeed("branch create asked/kept --ttl 1d");
    let ask = |typed_ahead: &str| {
        let mut terminal = Terminal::run(&forge.command("branch delete asked/kept"), typed_ahead);
        terminal.wait_for(QUESTION);
        terminal
    };

    let mut terminal = ask("y\n");
    terminal.press("y");
    terminal.wait_for(&format!("{QUESTION} › y"));
    terminal.press("\x03");
    assert_eq!(terminal.end().0, Some(130));
    assert!(forge.branches("asked").contains(&"asked/kept".to_owned()));

    let mut terminal = ask("");
    terminal.press("y\r");
    let (exit, screen) = terminal.end();
    assert_eq!(exit, Some(0), "{screen}");
    assert!(!forge.branches("asked").contains(&"asked/kept".to_owned()));
}
