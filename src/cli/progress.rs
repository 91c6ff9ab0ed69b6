//! How far work is that takes longer than a second: on a terminal only.

use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::sys::signal::SigSet;

/// Work that takes no longer than this shows nothing.
const QUICK: Duration = Duration::from_secs(1);

/// A bar, or none.
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// Work in so many steps, where that is known. `hidden` where nothing is to be shown.
    pub fn begin(steps: Option<u64>, hidden: bool) -> Self {
        if hidden || steps == Some(0) || !io::stderr().is_terminal() {
            return Progress(None);
        }
        let bar = ProgressBar::with_draw_target(steps, ProgressDrawTarget::hidden());
        let template =
            if steps.is_some() { "{pos}/{len} {bar:20} {elapsed} {msg}" } else { "{spinner} {elapsed}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let shown_late = bar.clone();
        // It goes with the process.
        let _ = thread::Builder::new().spawn(move || {
            // A signal is for the thread that works, which may be holding it off.
            let _ = SigSet::all().thread_block();
            thread::sleep(QUICK);
            if !shown_late.is_finished() {
                shown_late.set_draw_target(ProgressDrawTarget::stderr());
                shown_late.enable_steady_tick(Duration::from_millis(200));
            }
        });
        Progress(Some(bar))
    }

    /// Now it is the turn of this one.
    pub fn at(&mut self, what: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(what.to_owned());
        }
    }

    /// So many steps are done.
    pub fn reach(&mut self, steps: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(steps);
        }
    }

    /// A step is done, and `say` says so, above the bar.
    pub fn aside(&mut self, say: impl FnOnce()) {
        match &self.0 {
            Some(bar) => {
                bar.inc(1);
                bar.suspend(say);
            }
            None => say(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
