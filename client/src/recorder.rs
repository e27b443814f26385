//! The times of all replies: the current interval's, and their sum.
//!
//! Application, above L4. The connections record into the current interval, one lock for each
//! batch of replies, which is never held across a wait. The supervisor closes an interval each
//! second: it becomes part of the sum, and whoever draws the course of the run gets it whole.
//!
//! Every reply has two times. *Service*: from when it was sent. *Response*: from when it was meant
//! to be sent. They differ where sending follows a schedule (`--rate`) that the client, held up by
//! a slow reply, could not keep; without a schedule they are the same, and one is kept for both.
//!
//! Besides, the longest silence of the whole server is kept: the longest time inside the window in
//! which no connection had a reply.
//!
//! Deliberately not here: counts (`slot`), and what is shown of it all (`report`).

use std::sync::Mutex;

use crate::measure::Times;
use crate::slot::lock;

/// When a message that has now been answered was to be sent, and when it was.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Departure {
    pub(crate) intended_ns: u64,
    pub(crate) sent_ns: u64,
}

/// The replies of one stretch of time.
#[derive(Debug)]
pub(crate) struct Interval {
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    service: Times,
    /// Nothing where there is no schedule: `response` would be the same as `service`.
    scheduled: Option<Scheduled>,
}

/// What a schedule adds.
#[derive(Debug)]
struct Scheduled {
    response: Times,
    /// How long after it was due each message was sent.
    lateness: Times,
}

impl Interval {
    fn new(is_paced: bool) -> Interval {
        Interval {
            start_ns: 0,
            end_ns: 0,
            service: Times::new(),
            scheduled: is_paced.then(|| Scheduled {
                response: Times::new(),
                lateness: Times::new(),
            }),
        }
    }

    /// One that was recorded elsewhere.
    pub(crate) fn of(start_ns: u64, end_ns: u64, response: Times, service: Times) -> Interval {
        Interval {
            start_ns,
            end_ns,
            service,
            scheduled: Some(Scheduled {
                response,
                lateness: Times::new(),
            }),
        }
    }

    /// An empty one that begins here; others will be added.
    pub(crate) fn at(start_ns: u64) -> Interval {
        Interval::of(start_ns, start_ns, Times::new(), Times::new())
    }

    pub(crate) fn add_lateness(&mut self, times: &Times) {
        if let Some(scheduled) = &mut self.scheduled {
            scheduled.lateness.add(times);
        }
    }

    /// Counts its time from `origin_ns` on; what was before that is its beginning.
    pub(crate) fn count_from(&mut self, origin_ns: u64) {
        self.start_ns = self.start_ns.saturating_sub(origin_ns);
        self.end_ns = self.end_ns.saturating_sub(origin_ns);
    }

    pub(crate) fn service(&self) -> &Times {
        &self.service
    }

    pub(crate) fn response(&self) -> &Times {
        let scheduled = self.scheduled.as_ref();
        scheduled.map_or(&self.service, |scheduled| &scheduled.response)
    }

    pub(crate) fn lateness(&self) -> Option<&Times> {
        Some(&self.scheduled.as_ref()?.lateness)
    }

    /// Takes the replies of `other` in, whose time follows.
    pub(crate) fn add(&mut self, other: &Interval) {
        self.end_ns = other.end_ns;
        self.service.add(&other.service);
        if let (Some(scheduled), Some(more)) = (&mut self.scheduled, &other.scheduled) {
            scheduled.response.add(&more.response);
            scheduled.lateness.add(&more.lateness);
        }
    }
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Recorder {
    is_paced: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// What comes before the window is not measured.
    is_open: bool,
    current: Interval,
    total: Interval,
    silence: Silence,
}

/// The longest time without a reply while the window is open.
#[derive(Copy, Clone, Debug, Default)]
struct Silence {
    /// When the last reply came, or the window was opened; zero while it is not open.
    since_ns: u64,
    longest_ns: u64,
}

impl Silence {
    #[inline]
    fn end(&mut self, now_ns: u64) {
        if self.since_ns != 0 {
            self.longest_ns = self.longest_ns.max(now_ns.saturating_sub(self.since_ns));
            self.since_ns = now_ns.max(self.since_ns);
        }
    }
}

impl Recorder {
    /// `is_paced`: sending follows a schedule, so that response and service time differ.
    pub(crate) fn new(is_paced: bool) -> Recorder {
        Recorder {
            is_paced,
            inner: Mutex::new(Inner {
                is_open: false,
                current: Interval::new(is_paced),
                total: Interval::new(is_paced),
                silence: Silence::default(),
            }),
        }
    }

    /// These were answered at `now_ns`.
    #[inline]
    pub(crate) fn record(&self, now_ns: u64, answered: impl IntoIterator<Item = Departure>) {
        let mut inner = lock(&self.inner);
        if !inner.is_open {
            return;
        }
        inner.silence.end(now_ns);
        let Interval {
            service, scheduled, ..
        } = &mut inner.current;
        for departure in answered {
            let Departure {
                intended_ns,
                sent_ns,
            } = departure;
            service.record_ns(now_ns.saturating_sub(sent_ns));
            if let Some(Scheduled { response, lateness }) = scheduled {
                response.record_ns(now_ns.saturating_sub(intended_ns));
                lateness.record_ns(sent_ns.saturating_sub(intended_ns));
            }
        }
    }

    /// The window begins: the first interval, and the wait for the first reply.
    pub(crate) fn open(&self, now_ns: u64) {
        let mut inner = lock(&self.inner);
        inner.is_open = true;
        inner.current.start_ns = now_ns;
        inner.total.start_ns = now_ns;
        inner.silence.since_ns = now_ns;
    }

    /// The window ends. Replies may still come: they are recorded, but silence is in order now.
    pub(crate) fn close(&self, now_ns: u64) {
        let mut inner = lock(&self.inner);
        inner.silence.end(now_ns);
        inner.silence.since_ns = 0;
    }

    /// Ends the current interval, begins the next, and hands out the one that ended.
    pub(crate) fn close_interval(&self, now_ns: u64) -> Interval {
        // The next one is made before the lock is taken, because it is large.
        let mut next = Interval::new(self.is_paced);
        next.start_ns = now_ns;
        let mut inner = lock(&self.inner);
        let mut ended = std::mem::replace(&mut inner.current, next);
        ended.end_ns = now_ns;
        inner.total.add(&ended);
        ended
    }

    /// Calls `look` with the sum of all intervals that were closed.
    pub(crate) fn with_total<T>(&self, look: impl FnOnce(&Interval) -> T) -> T {
        look(&lock(&self.inner).total)
    }

    /// The longest silence of the window so far, one that still lasts included.
    pub(crate) fn longest_silence_ns(&self, now_ns: u64) -> u64 {
        let mut silence = lock(&self.inner).silence;
        silence.end(now_ns);
        silence.longest_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn departure(intended_ns: u64, sent_ns: u64) -> [Departure; 1] {
        [Departure {
            intended_ns,
            sent_ns,
        }]
    }

    #[test]
    fn the_sum_is_of_all_intervals() {
        // Goal: each reply is in one interval and in the sum. Method: two intervals with known
        // times.
        let recorder = Recorder::new(true);
        recorder.open(1_000);
        recorder.record(2_000, departure(1_000, 1_500));
        let first = recorder.close_interval(10_000);
        recorder.record(12_000, departure(10_000, 11_999));
        let second = recorder.close_interval(20_000);
        let times = |interval: &Interval| {
            let (response, service) = (interval.response(), interval.service());
            (
                response.summary().unwrap().max,
                service.summary().unwrap().max,
            )
        };
        assert_eq!((first.start_ns, first.end_ns), (1_000, 10_000));
        assert_eq!((second.start_ns, second.end_ns), (10_000, 20_000));
        assert_eq!(times(&first), (1_000, 500));
        assert_eq!(times(&second), (2_000, 1));
        recorder.with_total(|total| {
            assert_eq!((total.start_ns, total.end_ns), (1_000, 20_000));
            assert_eq!(total.service().summary().unwrap().count, 2);
            assert_eq!(times(total), (2_000, 500));
            let late = total.lateness().unwrap().summary().unwrap();
            assert!(late.max.abs_diff(1_999) <= 1, "{late:?}");
        });
    }

    #[test]
    fn silence_is_what_lies_between_replies_in_the_window() {
        // Goal: before, between, after the last reply and beyond the window. Method: a history.
        let recorder = Recorder::new(false);
        recorder.record(50, departure(1, 1));
        assert_eq!(recorder.longest_silence_ns(1_000), 0, "not open yet");
        recorder.open(100);
        recorder.record(130, departure(100, 100));
        recorder.record(150, departure(100, 100));
        assert_eq!(recorder.longest_silence_ns(155), 30);
        assert_eq!(recorder.longest_silence_ns(190), 40, "it still lasts");
        recorder.close(200);
        recorder.record(900, departure(100, 100));
        assert_eq!(recorder.longest_silence_ns(1_000), 50);
    }
}
