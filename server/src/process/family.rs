//! The children of one parent: who they are, what they have reported, how they ended.
//!
//! Man pages: fork(2), waitpid(2), kill(2). Deliberately not here: what children are for, and what
//! is done when one has died.

use crate::process::books::Books;
use crate::process::deaths::Deaths;
use crate::process::fork::{self, Pid};
use crate::stop::Stop;
use crate::summary::Summary;
use crate::wait;
use log::{debug, warn};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// How much longer than the drain time-out children may take to stop. They cut off their last
/// connections themselves; a child that does not get so far hangs.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Every child that has not been seen to end.
#[derive(Debug)]
pub(crate) struct Family<'a> {
    stop: &'a Stop,
    deaths: Deaths,
    books: Books,
    children: HashMap<Pid, Child>,
    /// What all children, also the former ones, have reported, except for their peaks.
    pub(crate) summary: Summary,
}

/// A child, as its parent sees it.
#[derive(Clone, Debug)]
pub(crate) struct Child {
    pub(crate) pid: Pid,
    /// What its parent knows it by.
    pub(crate) number: u64,
    pub(crate) since: Instant,
    /// How many entries it has made in the books.
    pub(crate) entries: u64,
    /// The most connections that it has had at once.
    pub(crate) peak: usize,
}

impl<'a> Family<'a> {
    /// A family without children, which will be asked to stop when `stop` says so.
    ///
    /// # Errors
    ///
    /// If there are no pipes to be had.
    pub(crate) fn new(stop: &'a Stop) -> io::Result<Family<'a>> {
        Ok(Family {
            stop,
            deaths: Deaths::watch()?,
            books: Books::open()?,
            children: HashMap::new(),
            summary: Summary::default(),
        })
    }

    /// Has a new child do `work`, with a stop of its own. Each connection is reported when it ends
    /// (see [`Summary::count`]); the summary that `work` returns repeats those.
    ///
    /// # Errors
    ///
    /// What fork reports.
    pub(crate) fn fork(
        &mut self,
        number: u64,
        work: impl FnOnce(&Stop) -> io::Result<Summary>,
    ) -> io::Result<()> {
        let pid = fork::fork(self.stop, |stop| {
            self.books.report_from_here()?;
            work(stop)?.failure.map_or(Ok(()), Err)
        })?;
        debug!("process {pid} is born as number {number}");
        let (since, entries, peak) = (Instant::now(), 0, 0);
        self.children.insert(
            pid,
            Child {
                pid,
                number,
                since,
                entries,
                peak,
            },
        );
        Ok(())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.children.len()
    }

    /// Waits for whatever may be of interest to a parent: a stop, a death, an entry in the books,
    /// `listener`, or that `timeout` is over.
    ///
    /// # Errors
    ///
    /// If it cannot be waited.
    pub(crate) fn wait(
        &self,
        listener: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let (deaths, books) = (Some(self.deaths.as_fd()), Some(self.books.as_fd()));
        wait::wait_for_any([Some(self.stop.as_fd()), deaths, books, listener], timeout)?;
        Ok(())
    }

    /// The children that have ended since it was last asked, and how. Afterwards the books hold all
    /// they had to say.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub(crate) fn take_the_dead(&mut self) -> io::Result<Vec<(Child, ExitStatus)>> {
        let dead = self.deaths.take()?;
        for (pid, mut entry) in self.books.take()? {
            let peak = std::mem::take(&mut entry.peak);
            if let Some(child) = self.children.get_mut(&pid) {
                child.entries += 1;
                child.peak = child.peak.max(peak);
            }
            self.summary.add(entry);
        }
        // Process 1, which we may be in a container, is told of the end of other orphans, too.
        let ours = dead
            .into_iter()
            .filter_map(|(pid, end)| Some((self.children.remove(&pid)?, end)));
        Ok(ours.collect())
    }

    /// Enters into the books that a child ended as `end` and not in order.
    pub(crate) fn count_error(&mut self, end: ExitStatus) {
        *self.summary.errors.entry(describe(end)).or_default() += 1;
    }

    /// Asks all to stop and waits until they have, telling `bury` of each. A child that has
    /// not stopped when `drain_timeout` and a little more has passed is killed.
    ///
    /// # Errors
    ///
    /// If it cannot be waited.
    pub(crate) fn see_out(
        &mut self,
        drain_timeout: Duration,
        mut bury: impl FnMut(&mut Self, Child, ExitStatus),
    ) -> io::Result<()> {
        let begin = Instant::now();
        let mut patience = drain_timeout.checked_add(LAST_WORDS);
        self.children.keys().copied().for_each(fork::order_to_stop);
        while !self.children.is_empty() {
            let rest = patience.map(|patience| patience.saturating_sub(begin.elapsed()));
            if rest == Some(Duration::ZERO) {
                warn!("{} processes do not stop: they are killed", self.count());
                self.children.keys().copied().for_each(fork::kill);
                patience = None;
            }
            // Not for the stop, which has come.
            let fds = [self.deaths.as_fd(), self.books.as_fd()];
            wait::wait_for_any(fds.map(Some), rest.filter(|_| patience.is_some()))?;
            for (child, end) in self.take_the_dead()? {
                bury(self, child, end);
            }
        }
        Ok(())
    }
}

/// An end that was not in order, in the words of the summary.
fn describe(end: ExitStatus) -> String {
    match end.signal() {
        Some(signal) => match signal_hook::low_level::signal_name(signal) {
            Some(name) => format!("killed by {name}"),
            None => format!("killed by signal {signal}"),
        },
        None => "failed".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_have_names() {
        // Goal: a user reads what killed a child. Method: a signal with a name, one without, and
        // an exit.
        let killed = ExitStatus::from_raw(libc::SIGKILL);
        assert_eq!(describe(killed), "killed by SIGKILL");
        assert_eq!(describe(ExitStatus::from_raw(60)), "killed by signal 60");
        assert_eq!(describe(ExitStatus::from_raw(1 << 8)), "failed");
    }
}
