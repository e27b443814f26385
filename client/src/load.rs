//! One run: starts the connections, watches over them, ends them, and keeps the books.
//!
//! Application on L4. The books are shared by all threads of whatever style drives the
//! connections: a slot for each connection with one writer, locks around what is rare or done once
//! a batch. The main thread is the supervisor: it wakes every few milliseconds to end the run when
//! it is due, to shut down connections whose reply is overdue, to close an interval each second,
//! to show progress, to notice Ctrl-C, and to measure how late it woke: that is the lag that every
//! reply has to bear, too.
//!
//! Deliberately not here: what a connection does (`connection`), who runs it (`style`), how the
//! result is shown (`report`).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use crate::arguments::{self, Extent};
use crate::clock::{Clock, nanoseconds};
use crate::failure::{Failure, FailureBook, Phase, words_of};
use crate::gate::{Gate, Presence};
use crate::hostile;
use crate::measure::{Times, process_cpu_time};
use crate::net::{SocketAddr, ToSocketAddrs};
use crate::pacing;
use crate::progress::Progress;
use crate::recorder::Recorder;
use crate::slot::{Entry, Slot, State, Totals, lock};
use crate::thread;
use crate::timeline::Timeline;

/// How often the supervisor wakes.
const TICK: Duration = Duration::from_millis(10);
/// How often it looks for overdue replies: every connection is looked at then. A reply that comes
/// between two looks is not found to be late, so if the time-out is short they are nearer.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOKS_IN_TIMEOUT: u64 = 20;
/// How long an interval of the recorder lasts.
const INTERVAL_NS: u64 = 1_000_000_000;

/// How a run ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Complete,
    /// By this signal.
    Interrupted(i32),
}

/// One end of the measured window.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Border {
    pub(crate) at_ns: u64,
    pub(crate) cpu: Duration,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) bytes: u64,
}

/// The books at one moment: the columns agree with one another.
#[derive(Debug)]
pub(crate) struct Books {
    /// Of each connection: what `totals` sums up.
    pub(crate) entries: Vec<Entry>,
    pub(crate) totals: Totals,
    pub(crate) failures: FailureBook,
}

impl Books {
    /// Connections that came up, whatever became of them.
    pub(crate) fn connected(&self) -> u64 {
        let came = [State::Open, State::Closed, State::Failed];
        let came: u64 = came
            .map(|state| self.totals.connections_in(state))
            .iter()
            .sum();
        came - self.failures.never_connected()
    }
}

/// A run and its books.
pub(crate) struct Load {
    pub(crate) settings: arguments::Load,
    pub(crate) clock: Clock,
    /// When the clock was set, as others count time.
    begun: SystemTime,
    extent: Extent,
    addresses: OnceLock<Vec<SocketAddr>>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) recorder: Recorder,
    /// Of those that misbehave, who are in none of the other books.
    pub(crate) hostile: hostile::Book,
    timeline: Mutex<Timeline>,
    failures: Mutex<FailureBook>,
    connect_times: Mutex<Times>,
    lag: Mutex<Times>,
    gate: Gate,
    stop: AtomicBool,
    /// When the first connection was to be made, and when all were up.
    connecting_since_ns: OnceLock<u64>,
    started_ns: OnceLock<u64>,
    window_start: OnceLock<Border>,
    window_end: OnceLock<Border>,
}

/// What connections tell and ask.
impl Load {
    pub(crate) fn presence(&self) -> Presence<'_> {
        Presence::new(self, &self.gate)
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        self.addresses.get().map_or(&[], Vec::as_slice)
    }

    pub(crate) fn record_connect(&self, time_ns: u64) {
        lock(&self.connect_times).record_ns(time_ns);
    }

    /// When connection `number` is to be made, all of them evenly over the time of `--ramp`.
    pub(crate) fn turn_ns(&self, number: u32) -> u64 {
        let ramp_ns = self.settings.pace.ramp.map_or(0, nanoseconds);
        let share = u128::from(ramp_ns) * u128::from(number);
        let share = share / self.slots.len() as u128;
        self.connecting_since_ns.get().unwrap_or(&0) + share as u64
    }

    /// Parks until all connections are up; when that was.
    pub(crate) fn wait_for_start(&self) -> u64 {
        self.gate.wait();
        let started_ns = self.started_ns();
        started_ns.expect("the gate is opened after the start was noted")
    }

    /// When all connections were up, if they are.
    pub(crate) fn started_ns(&self) -> Option<u64> {
        self.started_ns.get().copied()
    }

    /// When sending ends, if time ends it.
    pub(crate) fn end_ns(&self) -> u64 {
        match (self.extent, self.started_ns()) {
            (Extent::Duration(duration), Some(started_ns)) => {
                started_ns + self.warmup_ns() + nanoseconds(duration)
            }
            _ => u64::MAX,
        }
    }

    fn warmup_ns(&self) -> u64 {
        self.settings.pace.warmup.map_or(0, nanoseconds)
    }

    /// Whether a connection that has sent `sent` messages sends no more.
    #[inline]
    pub(crate) fn is_enough(&self, sent: u64) -> bool {
        match self.extent {
            Extent::Messages(messages) => sent >= messages,
            // Relaxed: nothing else is told by it.
            Extent::Duration(_) => self.stop.load(Ordering::Relaxed),
        }
    }

    /// Enters the failure in the books, with the messages that were under way, and ends the
    /// connection.
    pub(crate) fn fail(&self, slot: &Slot, failure: Failure) {
        log::info!(
            "{} failed, {}: {}",
            failure.phase,
            failure.cause,
            failure.detail
        );
        // Both under the lock, so that `books` sees both or none.
        let mut failures = lock(&self.failures);
        failures.enter(failure, slot.fail());
    }

    /// The connection of this number cannot be started.
    pub(crate) fn fail_start(&self, number: u32, failure: Failure) {
        let _presence = self.presence();
        self.fail(&self.slots[number as usize], failure);
    }

    /// Fails all connections at once, before the first.
    pub(crate) fn fail_all(&self, failure: Failure) {
        let mut failures = lock(&self.failures);
        failures.enter_many(failure, self.slots.len() as u64, 0);
        for slot in &self.slots {
            slot.fail();
        }
        self.gate.end_all();
    }

    /// Looks the server's name up; if that fails, so do all connections, and nobody may be
    /// started.
    pub(crate) fn resolve(&self) -> bool {
        let name = &self.settings.connect;
        let failure = match name.to_socket_addrs().map(Iterator::collect::<Vec<_>>) {
            Ok(addresses) if !addresses.is_empty() => {
                let result = self.addresses.set(addresses);
                result.expect("the name is resolved once");
                let _ = self.connecting_since_ns.set(self.clock.now_ns());
                return true;
            }
            Ok(_) => {
                let detail = format!("`{name}` has no address");
                Failure::new(Phase::Resolve, "no address", detail)
            }
            Err(error) => Failure::new(Phase::Resolve, words_of(&error), format!("`{name}`")),
        };
        self.fail_all(failure);
        false
    }

    /// All are up: lets them send. The window is opened now or, by the supervisor, after the
    /// warm-up.
    pub(crate) fn start(&self) {
        if self.warmup_ns() == 0 {
            self.open_window();
        }
        let opened_ns = self.window_start.get().map(|start| start.at_ns);
        let _ = self
            .started_ns
            .set(opened_ns.unwrap_or_else(|| self.clock.now_ns()));
        self.gate.open();
    }

    fn open_window(&self) {
        let start = self.border();
        if self.window_start.set(start).is_ok() {
            self.recorder.open(start.at_ns);
        }
    }

    fn border(&self) -> Border {
        let totals = self.totals();
        Border {
            at_ns: self.clock.now_ns(),
            cpu: process_cpu_time(),
            sent: totals.sent,
            answered: totals.answered,
            bytes: totals.answered_bytes,
        }
    }

    /// Sending is over: the measured time, too. Only the first call does something.
    pub(crate) fn end_window(&self) {
        if self.window_start.get().is_none() || self.window_end.get().is_some() {
            return;
        }
        // Relaxed: as in `is_enough`.
        self.stop.store(true, Ordering::Relaxed);
        let end = self.border();
        if self.window_end.set(end).is_ok() {
            self.recorder.close(end.at_ns);
        }
    }
}

/// What the report and the progress ask.
impl Load {
    pub(crate) fn extent(&self) -> Extent {
        self.extent
    }

    /// The sums of all slots now; while the connections work, each is a little older or newer.
    pub(crate) fn totals(&self) -> Totals {
        Totals::of(&self.slots)
    }

    /// All that is counted, so that it balances.
    pub(crate) fn books(&self) -> Books {
        let failures = lock(&self.failures);
        let entries: Vec<Entry> = self.slots.iter().map(Slot::entry).collect();
        Books {
            totals: Totals::of_entries(entries.iter().copied()),
            entries,
            failures: failures.clone(),
        }
    }

    /// Connections that have failed so far.
    pub(crate) fn failed(&self) -> u64 {
        lock(&self.failures).connections()
    }

    pub(crate) fn with_connect_times<T>(&self, look: impl FnOnce(&Times) -> T) -> T {
        look(&lock(&self.connect_times))
    }

    pub(crate) fn with_lag<T>(&self, look: impl FnOnce(&Times) -> T) -> T {
        look(&lock(&self.lag))
    }

    /// The intervals so far; whoever asks first has them.
    pub(crate) fn take_timeline(&self) -> Timeline {
        std::mem::take(&mut *lock(&self.timeline))
    }

    /// When the window was opened, as others count time; if it was not, when the run began.
    pub(crate) fn window_started(&self) -> SystemTime {
        let start = self.window_start.get();
        self.begun + Duration::from_nanos(start.map_or(0, |start| start.at_ns))
    }

    /// How long the connections took to come up.
    pub(crate) fn connect_elapsed(&self) -> Duration {
        let started_ns = self.started_ns();
        Duration::from_nanos(started_ns.unwrap_or_else(|| self.clock.now_ns()))
    }

    /// The window so far, if it was opened.
    pub(crate) fn window(&self) -> Option<(Border, Border)> {
        let start = *self.window_start.get()?;
        let end = self.window_end.get().copied();
        Some((start, end.unwrap_or_else(|| self.border())))
    }
}

/// The run itself.
impl Load {
    pub(crate) fn new(settings: arguments::Load) -> Load {
        let connections = settings.measured_connections();
        Load {
            hostile: hostile::Book::new(&settings.hostile, settings.connections),
            extent: settings.extent(),
            timeline: Mutex::new(Timeline::new(settings.results.keeps_histograms())),
            begun: SystemTime::now(),
            clock: Clock::new(),
            addresses: OnceLock::new(),
            slots: (0..connections).map(|_| Slot::new()).collect(),
            recorder: Recorder::new(settings.pace.rate.is_some()),
            failures: Mutex::default(),
            connect_times: Mutex::new(Times::new()),
            lag: Mutex::new(Times::new()),
            gate: Gate::new(connections),
            stop: AtomicBool::new(false),
            connecting_since_ns: OnceLock::new(),
            started_ns: OnceLock::new(),
            window_start: OnceLock::new(),
            window_end: OnceLock::new(),
            settings,
        }
    }

    /// Runs to the end, or until a signal arrives in `signal`.
    pub(crate) fn run(self: &Arc<Load>, signal: &AtomicUsize, progress: &mut Progress) -> Outcome {
        if self.settings.pace.rate.is_some() {
            pacing::sharpen_timers();
        }
        let join = self.settings.style.style.start(self);
        let gang = hostile::start(self);
        let outcome = self.supervise(signal, progress);
        progress.finish();
        if outcome == Outcome::Complete {
            gang.stop();
            // The connections report failures; a panic is a mistake of this program.
            if let Err(panic) = join() {
                std::panic::resume_unwind(panic);
            }
        } else {
            // OS threads work on while the report is made: what they do is not in the window.
            self.end_window();
        }
        // What came since the last full second.
        self.close_interval(self.clock.now_ns());
        outcome
    }

    fn supervise(&self, signal: &AtomicUsize, progress: &mut Progress) -> Outcome {
        let timeout_ns = nanoseconds(self.settings.timeout);
        let look_every_ns = nanoseconds(LOOK_EVERY).min(timeout_ns / LOOKS_IN_TIMEOUT);
        let mut looked_ns = 0;
        let mut interval_start_ns = None;
        let mut before_ns = self.clock.now_ns();
        while self.gate.is_anybody_running() {
            let tick_ns = self.tick_ns(before_ns);
            thread::sleep(Duration::from_nanos(tick_ns));
            let now_ns = self.clock.now_ns();
            let late_ns = (now_ns - before_ns).saturating_sub(tick_ns);
            // A signal's number is all that the handler leaves; nothing else is published with it.
            let signal = signal.load(Ordering::Relaxed);
            if signal != 0 {
                return Outcome::Interrupted(signal as i32);
            }
            if let Some(started_ns) = self.started_ns()
                && self.window_start.get().is_none()
                && now_ns.saturating_sub(started_ns) >= self.warmup_ns()
            {
                self.open_window();
            }
            if let Some(start) = self.window_start.get() {
                let interval_start_ns = interval_start_ns.get_or_insert(start.at_ns);
                self.watch_window(start, now_ns, late_ns, interval_start_ns);
            }
            if now_ns - looked_ns >= look_every_ns {
                looked_ns = now_ns;
                // Who was late himself has perhaps not read yet what has come in time.
                let fair_ns = now_ns - late_ns;
                for slot in &self.slots {
                    slot.shut_down_if_overdue(fair_ns, timeout_ns);
                }
            }
            progress.update(self);
            before_ns = self.clock.now_ns();
        }
        Outcome::Complete
    }

    /// How long the supervisor sleeps: a tick, or less if the window is to begin or end before.
    fn tick_ns(&self, now_ns: u64) -> u64 {
        let borders = [
            self.started_ns()
                .map(|started_ns| started_ns + self.warmup_ns()),
            Some(self.end_ns()),
        ];
        let left_ns = borders
            .into_iter()
            .flatten()
            .filter_map(|border_ns| border_ns.checked_sub(now_ns));
        // A border that is now has been seen, or is seen after this tick.
        left_ns
            .filter(|left_ns| *left_ns > 0)
            .fold(nanoseconds(TICK), u64::min)
    }

    /// Ends the window and its intervals when they are due; the supervisor came `late_ns`
    /// after its time.
    fn watch_window(&self, start: &Border, now_ns: u64, late_ns: u64, interval_start_ns: &mut u64) {
        if let Some(end) = self.window_end.get() {
            // A connection has ended it: what comes from now on is in an interval of its own.
            if *interval_start_ns < end.at_ns {
                *interval_start_ns = end.at_ns;
                self.close_interval(end.at_ns);
            }
            return;
        }
        lock(&self.lag).record_ns(late_ns);
        if let Extent::Duration(duration) = self.extent
            && now_ns.saturating_sub(start.at_ns) >= nanoseconds(duration)
        {
            self.end_window();
            let end_ns = self.window_end.get().map_or(now_ns, |end| end.at_ns);
            *interval_start_ns = end_ns;
            return self.close_interval(end_ns);
        }
        let elapsed_ns = now_ns.saturating_sub(*interval_start_ns);
        if elapsed_ns >= INTERVAL_NS {
            // The next one is due at a full second again, however late this one was, so that the
            // intervals of several machines fit together.
            *interval_start_ns = now_ns - elapsed_ns % INTERVAL_NS;
            self.close_interval(now_ns);
        }
    }

    /// Takes note of what came since the last time, to tell the course of the run.
    fn close_interval(&self, now_ns: u64) {
        let mut interval = self.recorder.close_interval(now_ns);
        let Some(start) = self.window_start.get() else {
            return;
        };
        if let Some(end) = self.window_end.get() {
            if interval.start_ns < end.at_ns {
                interval.end_ns = interval.end_ns.min(end.at_ns);
            } else if interval.response().is_empty() {
                return;
            }
        }
        interval.count_from(start.at_ns);
        lock(&self.timeline).push(interval);
    }
}
