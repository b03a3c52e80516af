//! Steps on stderr: a live line each on a terminal, plain lines and a heartbeat elsewhere.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::watch;

use super::plain::{plain, plain_json};
use super::{Facts, Output, write_stderr};
use crate::error::{Error, Kind, Result};
use crate::secret::{Mask, Secret};
use crate::time::human;

/// How often a silent wait says that it still goes on where no live line shows it.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Which signal asked the program to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// Ctrl-C.
    Interrupted,
    /// SIGTERM or SIGHUP.
    Terminated,
}

impl From<Interrupt> for Error {
    fn from(signal: Interrupt) -> Self {
        match signal {
            Interrupt::Interrupted => Error::new(Kind::Interrupted, "interrupted"),
            Interrupt::Terminated => Error::new(Kind::Terminated, "terminated"),
        }
    }
}

/// Where steps, notices and warnings go; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Steps(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    mode: Mode,
    /// Whether everything that is written is JSON.
    json: bool,
    /// Whether GitHub Actions reads it.
    github: bool,
    mask: Mask,
    active: Mutex<BTreeMap<u64, (String, Instant)>>,
    next: AtomicU64,
    beating: AtomicBool,
    signal: watch::Sender<Option<Interrupt>>,
    winds_down: AtomicBool,
    would_leave: Mutex<Option<Error>>,
    /// How many things have to end before an interrupted wait may.
    holds: watch::Sender<usize>,
}

#[derive(Debug)]
enum Mode {
    Silent,
    Lines,
    Live(MultiProgress),
}

impl Steps {
    /// Creates the steps for a terminal; `quiet` silences them.
    pub(super) fn new(facts: &Facts, output: Output, quiet: bool) -> Self {
        let mode = match (quiet, facts.can_draw() && output == Output::Text) {
            (true, _) => Mode::Silent,
            (false, true) => Mode::Live(MultiProgress::new()),
            (false, false) => Mode::Lines,
        };
        Steps(Arc::new(Inner {
            mode,
            json: output == Output::Json,
            github: facts.github,
            mask: Mask::default(),
            active: Mutex::default(),
            next: AtomicU64::new(0),
            beating: AtomicBool::new(false),
            signal: watch::Sender::new(None),
            winds_down: AtomicBool::new(false),
            would_leave: Mutex::default(),
            holds: watch::Sender::new(0),
        }))
    }

    /// Returns what is hidden in all that is written here.
    pub(crate) fn mask(&self) -> &Mask {
        &self.0.mask
    }

    /// Asks GitHub Actions to hide `secret` wherever a job shows it; does nothing elsewhere.
    pub(crate) fn announce_secret(&self, secret: &Secret<String>) {
        if self.0.github {
            // A line end of the secret's own would begin another command.
            let data =
                secret.expose().replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
            self.suspended(|| write_stderr(&format!("::add-mask::{data}\n")));
        }
    }

    /// Returns `text` as it may be shown: without secrets, and unable to steer a terminal.
    pub(super) fn shown(&self, text: &str) -> String {
        plain(&self.0.mask.text(text)).into_owned()
    }

    /// Starts a step that lasts until the answer is dropped or finished.
    pub(crate) fn start(&self, text: impl Into<String>) -> Step {
        self.begin(None, text.into())
    }

    /// Starts one of several parallel steps, named `lane` (an app, a branch).
    pub(crate) fn lane(&self, lane: impl Into<String>, text: impl Into<String>) -> Step {
        self.begin(Some(lane.into()), text.into())
    }

    /// Says something that is not a step.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        self.line(text.as_ref());
    }

    /// Says something the user should act on; `quiet` does not silence it.
    pub(crate) fn warn(&self, text: impl AsRef<str>) {
        let label = console::style("warning:").yellow().bold().for_stderr();
        self.suspended(|| write_stderr(&format!("{label} {}\n", self.shown(text.as_ref()))));
    }

    /// Runs `write` while no live line is drawn.
    pub(crate) fn suspended<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.0.mode {
            Mode::Live(bars) => bars.suspend(write),
            Mode::Silent | Mode::Lines => write(),
        }
    }

    /// Takes live lines off the screen until one of them changes.
    pub(super) fn clear(&self) {
        if let Mode::Live(bars) = &self.0.mode {
            // A terminal that cannot be written to cannot be asked either.
            let _ = bars.clear();
        }
    }

    /// Waits for `work`, unless a signal comes first: then fails with `Interrupted` or `Terminated`.
    ///
    /// A command that calls this is trusted to clean up and end by itself.
    pub(crate) async fn unless_interrupted<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let given_up = async {
            let signal = self.signalled().await;
            let mut holds = self.0.holds.subscribe();
            // An error would mean that the sender is gone, and it lives as long as these steps.
            let _ = holds.wait_for(|count| *count == 0).await;
            signal
        };
        tokio::select! {
            biased;
            done = work => Ok(done),
            signal = given_up => Err(signal.into()),
        }
    }

    /// Waits for a signal. A command that calls this is trusted to clean up and end by itself.
    pub(crate) async fn signalled(&self) -> Interrupt {
        self.0.winds_down.store(true, Ordering::Relaxed);
        let mut signal = self.0.signal.subscribe();
        let seen = signal.wait_for(Option::is_some).await.ok().and_then(|signal| *signal);
        seen.expect("the sender lives as long as these steps")
    }

    /// Returns the signal that came, if one did.
    pub(crate) fn signal(&self) -> Option<Interrupt> {
        *self.0.signal.borrow()
    }

    /// Keeps [`Steps::unless_interrupted`] waiting until the answer is dropped: for what must have
    /// ended before the command does, such as a child.
    pub(crate) fn hold(&self) -> Hold {
        self.0.holds.send_modify(|count| *count += 1);
        Hold(self.clone())
    }

    /// Tells everything that waits in [`Steps::unless_interrupted`] to stop.
    ///
    /// Returns whether the command cleans up by itself.
    pub(crate) fn interrupt(&self, signal: Interrupt) -> bool {
        self.0.signal.send_replace(Some(signal));
        self.0.winds_down.load(Ordering::Relaxed)
    }

    /// Notes what the program says when it ends now: the reasons and the hint of `error`.
    pub(crate) fn would_leave(&self, error: Error) {
        *self.0.would_leave.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// Returns the failure of a program that `signal` ends at once, with what was noted last.
    pub(crate) fn leave(&self, signal: Interrupt) -> Error {
        let noted = self.0.would_leave.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(noted) = noted else { return signal.into() };
        let error = noted.reasons().iter().fold(signal.into(), Error::why);
        match noted.hint_text() {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    fn begin(&self, lane: Option<String>, text: String) -> Step {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let step = Step { steps: self.clone(), id, bar: self.bar(lane.as_deref()), lane };
        step.say(text);
        step
    }

    fn bar(&self, lane: Option<&str>) -> Option<ProgressBar> {
        let Mode::Live(bars) = &self.0.mode else { return None };
        let bar = bars.add(ProgressBar::new_spinner());
        let style = ProgressStyle::with_template("{spinner} {prefix:.bold}{msg} {elapsed:.dim}")
            .expect("the template is a constant");
        bar.set_style(style);
        if let Some(lane) = lane {
            bar.set_prefix(self.shown(&format!("{lane}: ")));
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Some(bar)
    }

    fn line(&self, text: &str) {
        if !matches!(self.0.mode, Mode::Silent) {
            self.suspended(|| write_stderr(&format!("{}\n", self.shown(text))));
        }
    }

    fn active(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, (String, Instant)>> {
        self.0.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread that speaks up during long waits, once.
    fn keep_beating(&self) {
        if self.0.beating.swap(true, Ordering::Relaxed) {
            return;
        }
        let inner = Arc::downgrade(&self.0);
        std::thread::spawn(move || beat(&inner));
    }
}

fn beat(inner: &Weak<Inner>) {
    loop {
        std::thread::sleep(HEARTBEAT);
        let Some(inner) = inner.upgrade() else { return };
        let steps = Steps(inner);
        let late: Vec<String> = steps
            .active()
            .values()
            .filter(|(_, since)| since.elapsed() >= HEARTBEAT)
            .map(|(text, since)| format!("… {text} ({})", human(since.elapsed())))
            .collect();
        for text in late {
            steps.line(&text);
        }
    }
}

/// What must have ended before an interrupted command does.
#[derive(Debug)]
pub(crate) struct Hold(Steps);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.0.holds.send_modify(|count| *count -= 1);
    }
}

impl io::Write for Steps {
    /// Writes lines of the log, each in one piece, between the live lines.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let text = self.0.mask.text(&text);
        let text = if self.0.json { plain_json(&text) } else { plain(&text) };
        self.suspended(|| io::stderr().lock().write_all(text.as_bytes()))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

/// Something that is going on; ends when dropped.
#[derive(Debug)]
pub(crate) struct Step {
    steps: Steps,
    id: u64,
    bar: Option<ProgressBar>,
    lane: Option<String>,
}

impl Step {
    /// Says what is being done now.
    pub(crate) fn say(&self, text: impl Into<String>) {
        let text = text.into();
        match &self.bar {
            Some(bar) => bar.set_message(self.steps.shown(&text)),
            None => {
                let text = self.prefixed(&text);
                let mut active = self.steps.active();
                let known = active.insert(self.id, (text.clone(), Instant::now()));
                drop(active);
                if known.is_none_or(|(before, _)| before != text) {
                    self.steps.line(&text);
                }
                if matches!(self.steps.0.mode, Mode::Lines) {
                    self.steps.keep_beating();
                }
            }
        }
    }

    /// Ends the step with a line that stays.
    pub(crate) fn finish(self, text: impl AsRef<str>) {
        let text = self.prefixed(text.as_ref());
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.steps.line(&text);
    }

    fn prefixed(&self, text: &str) -> String {
        match &self.lane {
            Some(lane) => format!("{lane}: {text}"),
            None => text.to_owned(),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.steps.active().remove(&self.id);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_ends_a_wait_and_the_command_is_known_to_clean_up() {
        let steps = Steps::new(&Facts::default(), Output::Text, true);
        assert!(!steps.interrupt(Interrupt::Interrupted), "nothing waits yet");

        let waiting = steps.unless_interrupted(std::future::pending::<()>());
        let error = waiting.await.unwrap_err();

        assert_eq!(error.kind(), Kind::Interrupted);
        assert!(steps.interrupt(Interrupt::Interrupted));
    }

    #[test]
    fn a_program_that_ends_at_once_says_what_it_leaves_behind() {
        let steps = Steps::new(&Facts::default(), Output::Text, true);
        assert!(steps.leave(Interrupt::Interrupted).reasons().is_empty());

        let noted = Error::new(Kind::Conflict, "no").why("left behind: shop/a").hint("delete it");
        steps.would_leave(noted);
        let error = steps.leave(Interrupt::Terminated);

        assert_eq!((error.kind(), error.message()), (Kind::Terminated, "terminated"));
        assert_eq!(error.reasons(), ["left behind: shop/a"]);
        assert_eq!(error.hint_text(), Some("delete it"));
    }

    #[tokio::test]
    async fn an_interrupted_wait_ends_when_what_it_holds_has_ended() {
        let steps = Steps::new(&Facts::default(), Output::Text, true);
        let (ended, end) = tokio::sync::oneshot::channel();
        let work = async {
            let hold = steps.hold();
            steps.signalled().await;
            ended.send(()).unwrap();
            tokio::task::yield_now().await;
            drop(hold);
            std::future::pending::<()>().await;
        };
        steps.interrupt(Interrupt::Terminated);

        let error = steps.unless_interrupted(work).await.unwrap_err();

        assert_eq!(error.kind(), Kind::Terminated);
        assert!(end.await.is_ok(), "what was held saw the signal first");
    }
}
