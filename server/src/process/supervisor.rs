//! Keeps a fixed number of workers alive, each a process, until they are stopped together.
//!
//! A worker has a place, and whoever dies is replaced in the same place (`backoff` says when). What
//! a worker is to do is given to it as a function; all it gives back are entries in the books.
//!
//! Deliberately not here: sockets.

use crate::process::backoff::{Backoff, DEATHS_MAX};
use crate::process::family::{Child, Family};
use crate::stop::Stop;
use crate::summary::Summary;
use log::{info, warn};
use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// The workers, as their parent sees them.
#[derive(Debug)]
pub(crate) struct Supervisor<'a, Work> {
    stop: &'a Stop,
    work: Work,
    places: Vec<Place>,
    family: Family<'a>,
}

#[derive(Debug)]
struct Place {
    /// When the next worker is to be started, if there is none.
    due: Option<Instant>,
    backoff: Backoff,
    /// The most connections that any of its workers had at once.
    peak: usize,
}

impl<'a, Work> Supervisor<'a, Work>
where
    Work: Fn(usize, &Stop) -> io::Result<Summary>,
{
    /// Prepares `count` places. In each a worker will call `work` with its place, from 0 on, and
    /// with a stop of its own.
    ///
    /// # Errors
    ///
    /// If there are no pipes to be had.
    pub(crate) fn new(count: usize, stop: &'a Stop, work: Work) -> io::Result<Self> {
        let due = Some(Instant::now());
        let place = || Place {
            due,
            backoff: Backoff::default(),
            peak: 0,
        };
        Ok(Supervisor {
            stop,
            work,
            places: std::iter::repeat_with(place).take(count).collect(),
            family: Family::new(stop)?,
        })
    }

    /// Keeps a worker in every place until a stop is requested.
    ///
    /// # Errors
    ///
    /// If the workers of one place die again and again.
    pub(crate) fn keep_alive(&mut self) -> io::Result<()> {
        while !self.stop.is_requested() {
            self.start_the_due()?;
            self.family.wait(None, self.until_next_due())?;
            // Whoever has died is buried, though it be in the wake of the one with whom it ends.
            let mut result = Ok(());
            for (child, end) in self.family.take_the_dead()? {
                let place = self.bury(&child, end);
                if self.stop.is_requested() {
                    info!("{}", Death { child, end });
                } else {
                    let life = child.since.elapsed();
                    result = result.and(self.try_again(place, life, Death { child, end }));
                }
            }
            result?;
        }
        Ok(())
    }

    /// Stops all workers together, and gives back the books of all there ever were.
    ///
    /// # Errors
    ///
    /// If they cannot be waited for.
    pub(crate) fn see_out(
        mut self,
        drain_timeout: Duration,
        failure: Option<io::Error>,
    ) -> io::Result<Summary> {
        let mut last = Vec::new();
        self.family
            .see_out(drain_timeout, |_, child, end| last.push((child, end)))?;
        for (child, end) in last {
            self.bury(&child, end);
            if !end.success() {
                warn!("{}", Death { child, end });
            }
        }
        // Perhaps not at the same moment: what is known is that there were never more.
        let peak = self.places.iter().map(|place| place.peak).sum();
        Ok(Summary {
            peak,
            failure,
            ..self.family.summary
        })
    }

    fn until_next_due(&self) -> Option<Duration> {
        let next = self.places.iter().filter_map(|place| place.due).min();
        next.map(|due| due.saturating_duration_since(Instant::now()))
    }

    fn start_the_due(&mut self) -> io::Result<()> {
        let now = Instant::now();
        for place in 0..self.places.len() {
            if self.places[place].due.is_some_and(|due| due <= now) {
                self.start(place)?;
            }
        }
        Ok(())
    }

    fn start(&mut self, place: usize) -> io::Result<()> {
        self.places[place].due = None;
        match self
            .family
            .fork(place as u64, |stop| (self.work)(place, stop))
        {
            Ok(()) => Ok(()),
            Err(error) => {
                let story = format!("worker {place} cannot be started ({error})");
                self.try_again(place, Duration::ZERO, story)
            }
        }
    }

    /// Enters a death into the books, and tells in which place it was.
    fn bury(&mut self, child: &Child, end: ExitStatus) -> usize {
        let index = usize::try_from(child.number).expect("it was one");
        let place = &mut self.places[index];
        place.peak = place.peak.max(child.peak);
        if !end.success() {
            self.family.count_error(end);
        }
        index
    }

    /// Plans another worker for `place`, unless there have been too many.
    fn try_again(
        &mut self,
        place: usize,
        life: Duration,
        story: impl fmt::Display,
    ) -> io::Result<()> {
        let place = &mut self.places[place];
        let Some(delay) = place.backoff.after(life) else {
            return Err(io::Error::other(format!(
                "{story}, the {DEATHS_MAX}th in a row to die young: no other is tried"
            )));
        };
        match delay {
            Duration::ZERO => warn!("{story}; it is replaced at once"),
            delay => warn!("{story}; it is replaced in {delay:?}"),
        }
        place.due = Some(Instant::now() + delay);
        Ok(())
    }
}

/// What to say of a worker's death.
struct Death {
    child: Child,
    end: ExitStatus,
}

impl fmt::Display for Death {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Child {
            number, pid, since, ..
        } = &self.child;
        let life = since.elapsed();
        write!(
            formatter,
            "worker {number}, process {pid}, ended after {life:.1?}: {}",
            self.end
        )
    }
}
