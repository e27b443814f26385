//! What is shown while the run goes on, on standard error: a bar on a terminal, a line a second
//! elsewhere.
//!
//! Application, above L4. Deliberately not here: threads. The supervisor calls often, and most
//! calls return at once.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::arguments::Extent;
use crate::load::Load;
use crate::slot::State;

const LINE_EVERY: Duration = Duration::from_secs(1);
const BAR_EVERY: Duration = Duration::from_millis(100);

pub(crate) struct Progress {
    form: Form,
    begun: Instant,
    last: Instant,
    answered: u64,
}

enum Form {
    None,
    Lines,
    Bar(ProgressBar),
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Progress {
        let form = if quiet {
            Form::None
        } else if stderr().is_terminal() {
            let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            Form::Bar(ProgressBar::new(1).with_style(style))
        } else {
            Form::Lines
        };
        let now = Instant::now();
        Progress {
            form,
            begun: now,
            last: now,
            answered: 0,
        }
    }

    pub(crate) fn update(&mut self, load: &Load) {
        let now = Instant::now();
        let since = now - self.last;
        let every = match self.form {
            Form::None => return,
            Form::Lines => LINE_EVERY,
            Form::Bar(_) => BAR_EVERY,
        };
        if since < every {
            return;
        }
        let words = self.words(load, since);
        match &self.form {
            Form::None => {}
            Form::Lines => {
                let elapsed = (now - self.begun).as_secs_f64();
                // Who closed our standard error does not want to see it.
                let _ = writeln!(stderr(), "{elapsed:6.1} s  {words}");
            }
            Form::Bar(bar) => {
                let (done, all) = share(load);
                bar.set_length(all);
                bar.set_position(done.min(all));
                bar.set_message(words);
            }
        }
        self.last = now;
        self.answered = load.totals().answered;
    }

    fn words(&self, load: &Load, since: Duration) -> String {
        let connected = load.totals().connections_in(State::Open);
        let failed = load.failed();
        let mut words = if load.window().is_none() {
            let all = HumanCount(load.slots.len() as u64);
            format!("connecting: {} of {all}", HumanCount(connected))
        } else {
            let rate = (load.totals().answered - self.answered) as f64 / since.as_secs_f64();
            let answered = HumanCount(load.totals().answered);
            format!("{answered} answered  {}/s", HumanCount(rate as u64))
        };
        if failed > 0 {
            words += &format!("  {} failed", HumanCount(failed));
        }
        words
    }

    /// Leaves nothing of the bar, so that the report begins on a clean line.
    pub(crate) fn finish(&self) {
        if let Form::Bar(bar) = &self.form {
            bar.finish_and_clear();
        }
    }
}

/// How much of how much is done.
fn share(load: &Load) -> (u64, u64) {
    match load.extent() {
        Extent::Messages(messages) => (
            load.totals().answered,
            messages.saturating_mul(load.slots.len() as u64),
        ),
        Extent::Duration(duration) => {
            let elapsed = load
                .window()
                .map_or(0, |(start, end)| end.at_ns - start.at_ns);
            (elapsed / 1_000_000, duration.as_millis() as u64)
        }
    }
}
