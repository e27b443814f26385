//! What is shown while a comparison goes on, on standard error: a bar on a terminal, a line for
//! each step elsewhere.
//!
//! Application, above L4. Deliberately not here: results. They come at the end, side by side.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

pub(crate) enum Progress {
    None,
    Lines { done: usize, all: usize },
    Bar(ProgressBar),
}

impl Progress {
    /// Of `all` steps, none of which is done.
    pub(crate) fn new(all: usize, quiet: bool) -> Progress {
        if quiet {
            return Progress::None;
        }
        if !io::stderr().is_terminal() {
            return Progress::Lines { done: 0, all };
        }
        let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Progress::Bar(ProgressBar::new(all as u64).with_style(style))
    }

    /// The next step begins; if it `is_skipped` it is over at once.
    pub(crate) fn step(&mut self, model: &str, what: &str, is_skipped: bool) {
        match self {
            Progress::None => {}
            Progress::Lines { done, all } => {
                *done += 1;
                if !is_skipped {
                    let _ = writeln!(io::stderr(), "{done}/{all}  {model}: {what}");
                }
            }
            Progress::Bar(bar) => {
                bar.inc(1);
                bar.set_message(format!("{model}: {what}"));
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Progress::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
