//! One run: starts the connections, watches over them, ends them, and keeps the books.
//!
//! Application on L4. All green threads are of one worker, so the books are plain cells. The main
//! green thread is the supervisor: it wakes every few milliseconds to end the run when it is due,
//! to shut down connections whose reply is overdue, to show progress, to notice Ctrl-C, and to
//! measure how late it woke: that is the lag that every reply has to bear, too.
//!
//! Deliberately not here: what a connection does (`connection`), how the result is shown
//! (`report`).

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::arguments::{self, Extent};
use crate::connection;
use crate::failure::{Failure, FailureBook, Phase, words_of};
use crate::measure::{Times, process_cpu_time};
use crate::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use crate::progress::Progress;
use crate::thread::{self, JoinHandle, Thread};

/// How often the supervisor wakes.
const TICK: Duration = Duration::from_millis(10);
/// How often it looks for overdue replies: every connection is looked at then.
const OVERDUE_TICKS: u32 = 5;

/// How a run ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Complete,
    /// By this signal.
    Interrupted(i32),
}

/// How far a connection has come.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Connecting,
    Open,
    /// Ended in order.
    Closed,
    Failed,
}

/// What the supervisor sees of a connection.
pub(crate) struct Slot {
    state: Cell<State>,
    stream: RefCell<Option<Rc<TcpStream>>>,
    in_flight: Cell<bool>,
    /// Since when the server owes something: a reply, or the end.
    waiting_since: Cell<Option<Instant>>,
    timed_out: Cell<bool>,
}

impl Slot {
    fn new() -> Slot {
        Slot {
            state: Cell::new(State::Connecting),
            stream: RefCell::new(None),
            in_flight: Cell::new(false),
            waiting_since: Cell::new(None),
            timed_out: Cell::new(false),
        }
    }

    pub(crate) fn connected(&self, stream: &Rc<TcpStream>) {
        self.state.set(State::Open);
        *self.stream.borrow_mut() = Some(Rc::clone(stream));
    }

    #[inline]
    pub(crate) fn begin_message(&self, now: Instant) {
        self.in_flight.set(true);
        self.waiting_since.set(Some(now));
    }

    #[inline]
    pub(crate) fn end_message(&self) {
        self.in_flight.set(false);
    }

    pub(crate) fn begin_close(&self, now: Instant) {
        self.waiting_since.set(Some(now));
    }

    /// Whether the supervisor has shut the connection down.
    pub(crate) fn timed_out(&self) -> bool {
        self.timed_out.get()
    }

    /// The connection is over; its descriptor is closed with the last owner of the stream.
    pub(crate) fn end(&self, state: State) {
        self.state.set(state);
        self.in_flight.set(false);
        self.waiting_since.set(None);
        self.stream.borrow_mut().take();
    }

    fn shut_down_if_overdue(&self, now: Instant, timeout: Duration) {
        let overdue = self
            .waiting_since
            .get()
            .is_some_and(|since| now - since >= timeout);
        if overdue && !self.timed_out.get() {
            self.timed_out.set(true);
            if let Some(stream) = &*self.stream.borrow() {
                // If this fails the connection is over already, and its reader knows.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

/// One end of the measured window.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Border {
    pub(crate) at: Instant,
    pub(crate) cpu: Duration,
    pub(crate) answered: u64,
    pub(crate) bytes: u64,
}

/// A run and its books.
pub(crate) struct Load {
    pub(crate) settings: arguments::Load,
    extent: Extent,
    addresses: OnceCell<Vec<SocketAddr>>,
    pub(crate) slots: Vec<Slot>,

    sent: Cell<u64>,
    answered: Cell<u64>,
    answered_bytes: Cell<u64>,
    failures: RefCell<FailureBook>,
    connect_times: RefCell<Times>,
    latency: RefCell<Times>,
    lag: RefCell<Times>,

    begun: Instant,
    /// Connections that are not yet up and have not failed.
    coming: Cell<u32>,
    /// Connections that are up and wait for the others.
    waiting: RefCell<Vec<Thread>>,
    /// Connections that may still send.
    exchanging: Cell<u32>,
    /// Connections whose green thread has not ended.
    running: Cell<u32>,
    stop: Cell<bool>,
    window_start: Cell<Option<Border>>,
    window_end: Cell<Option<Border>>,
}

/// A connection's presence in the counts by which the others wait for it. It is given up even when
/// the green thread panics: the run then ends, and tells the panic, instead of waiting for ever.
pub(crate) struct Presence<'a> {
    load: &'a Load,
    coming: bool,
    exchanging: bool,
}

impl Presence<'_> {
    /// The connection is up or has failed; the last one starts the measured window.
    pub(crate) fn arrive(&mut self) {
        if std::mem::take(&mut self.coming) {
            self.load.coming.set(self.load.coming.get() - 1);
            if self.load.coming.get() == 0 {
                self.load.start();
            }
        }
    }

    /// The connection sends no more; the last one ends the measured window, if time has not.
    pub(crate) fn finish_exchange(&mut self) {
        if std::mem::take(&mut self.exchanging) {
            self.load.exchanging.set(self.load.exchanging.get() - 1);
            if self.load.exchanging.get() == 0 {
                self.load.end_window();
            }
        }
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.arrive();
        self.finish_exchange();
        self.load.running.set(self.load.running.get() - 1);
    }
}

/// What connections tell and ask.
impl Load {
    pub(crate) fn presence(&self) -> Presence<'_> {
        Presence {
            load: self,
            coming: true,
            exchanging: true,
        }
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        self.addresses.get().map_or(&[], Vec::as_slice)
    }

    pub(crate) fn record_connect(&self, time: Duration) {
        self.connect_times.borrow_mut().record(time);
    }

    /// Parks until all connections are up.
    pub(crate) fn wait_for_start(&self) {
        if self.coming.get() > 0 {
            self.waiting.borrow_mut().push(thread::current());
        }
        while self.coming.get() > 0 {
            thread::park();
        }
    }

    fn start(&self) {
        self.window_start.set(Some(self.border()));
        for thread in self.waiting.take() {
            thread.unpark();
        }
    }

    fn border(&self) -> Border {
        Border {
            at: Instant::now(),
            cpu: process_cpu_time(),
            answered: self.answered.get(),
            bytes: self.answered_bytes.get(),
        }
    }

    fn end_window(&self) {
        if self.window_end.get().is_none() {
            self.window_end.set(Some(self.border()));
        }
    }

    #[inline]
    pub(crate) fn count_sent(&self) {
        self.sent.set(self.sent.get() + 1);
    }

    #[inline]
    pub(crate) fn count_answered(&self, bytes: usize, time: Duration) {
        self.answered.set(self.answered.get() + 1);
        self.answered_bytes
            .set(self.answered_bytes.get() + bytes as u64);
        self.latency.borrow_mut().record(time);
    }

    /// Whether a connection that has had `answered` replies may end.
    #[inline]
    pub(crate) fn is_enough(&self, answered: u64) -> bool {
        match self.extent {
            Extent::Messages(messages) => answered >= messages,
            Extent::Duration(_) => self.stop.get(),
        }
    }

    /// Enters the failure in the books, with the message that was under way, and ends the
    /// connection.
    pub(crate) fn fail(&self, slot: &Slot, failure: Failure) {
        log::info!(
            "{} failed, {}: {}",
            failure.phase,
            failure.cause,
            failure.detail
        );
        let messages = u64::from(slot.in_flight.get());
        self.failures.borrow_mut().enter(failure, messages);
        slot.end(State::Failed);
    }
}

/// What the report and the progress ask.
impl Load {
    pub(crate) fn extent(&self) -> Extent {
        self.extent
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.get()
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answered.get()
    }

    /// Messages that wait for their reply now, counted one by one: the books are checked against
    /// it.
    pub(crate) fn in_flight(&self) -> u64 {
        self.slots
            .iter()
            .filter(|slot| slot.in_flight.get())
            .count() as u64
    }

    pub(crate) fn connections_in(&self, state: State) -> u64 {
        self.slots
            .iter()
            .filter(|slot| slot.state.get() == state)
            .count() as u64
    }

    pub(crate) fn failures(&self) -> std::cell::Ref<'_, FailureBook> {
        self.failures.borrow()
    }

    pub(crate) fn times(&self) -> [&RefCell<Times>; 3] {
        [&self.connect_times, &self.latency, &self.lag]
    }

    /// How long the connections took to come up.
    pub(crate) fn connect_elapsed(&self) -> Duration {
        self.window_start
            .get()
            .map_or_else(|| self.begun.elapsed(), |start| start.at - self.begun)
    }

    pub(crate) fn connected(&self) -> u64 {
        u64::from(self.settings.connections)
            - self.connections_in(State::Connecting)
            - self.failures.borrow().never_connected()
    }

    /// The window so far, if it was opened.
    pub(crate) fn window(&self) -> Option<(Border, Border)> {
        let start = self.window_start.get()?;
        Some((
            start,
            self.window_end.get().unwrap_or_else(|| self.border()),
        ))
    }
}

/// The run itself.
impl Load {
    pub(crate) fn new(settings: arguments::Load) -> Load {
        let connections = settings.connections;
        Load {
            extent: settings.extent(),
            settings,
            addresses: OnceCell::new(),
            slots: (0..connections).map(|_| Slot::new()).collect(),
            sent: Cell::new(0),
            answered: Cell::new(0),
            answered_bytes: Cell::new(0),
            failures: RefCell::default(),
            connect_times: RefCell::new(Times::new()),
            latency: RefCell::new(Times::new()),
            lag: RefCell::new(Times::new()),
            begun: Instant::now(),
            coming: Cell::new(connections),
            waiting: RefCell::default(),
            exchanging: Cell::new(connections),
            running: Cell::new(connections),
            stop: Cell::new(false),
            window_start: Cell::new(None),
            window_end: Cell::new(None),
        }
    }

    /// Fails all connections at once, before the first.
    pub(crate) fn fail_all(&self, failure: Failure) {
        let connections = u64::from(self.settings.connections);
        self.failures
            .borrow_mut()
            .enter_many(failure, connections, 0);
        for slot in &self.slots {
            slot.end(State::Failed);
        }
        self.running.set(0);
    }

    /// Runs to the end, or until a signal arrives in `signal`.
    pub(crate) fn run(self: &Rc<Load>, signal: &AtomicUsize, progress: &mut Progress) -> Outcome {
        let handles: Rc<RefCell<Vec<JoinHandle<()>>>> = Rc::default();
        let starter = {
            let (load, handles) = (Rc::clone(self), Rc::clone(&handles));
            thread::spawn(move || load.start_connections(&handles))
        };
        let outcome = self.supervise(signal, progress);
        progress.finish();
        if outcome == Outcome::Complete {
            let handles = handles.take();
            for handle in std::iter::once(starter).chain(handles) {
                // The connections report failures; a panic is a mistake of this program.
                if let Err(panic) = handle.join() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
        outcome
    }

    fn start_connections(self: &Rc<Load>, handles: &RefCell<Vec<JoinHandle<()>>>) {
        match self
            .settings
            .connect
            .to_socket_addrs()
            .map(Iterator::collect::<Vec<_>>)
        {
            Ok(addresses) if !addresses.is_empty() => {
                self.addresses
                    .set(addresses)
                    .expect("the name is resolved once");
            }
            Ok(_) => {
                let detail = format!("`{}` has no address", self.settings.connect);
                return self.fail_all(Failure::new(Phase::Resolve, "no address", detail));
            }
            Err(error) => {
                let detail = format!("`{}`", self.settings.connect);
                return self.fail_all(Failure::new(Phase::Resolve, words_of(&error), detail));
            }
        }
        for number in 0..self.settings.connections {
            let load = Rc::clone(self);
            let name = format!("connection {number}");
            let spawned = thread::Builder::new()
                .name(name.clone())
                .spawn(move || connection::run(&load, number));
            match spawned {
                Ok(handle) => handles.borrow_mut().push(handle),
                Err(error) => {
                    // No memory for a stack; the other connections go on without this one.
                    let _presence = self.presence();
                    let failure = Failure::system(Phase::Connect, &error, name);
                    self.fail(&self.slots[number as usize], failure);
                }
            }
        }
    }

    fn supervise(&self, signal: &AtomicUsize, progress: &mut Progress) -> Outcome {
        let mut ticks = 0u32;
        let mut before = Instant::now();
        while self.running.get() > 0 {
            thread::sleep(TICK);
            let now = Instant::now();
            // A signal's number is all that the handler leaves; nothing else is published with it.
            let signal = signal.load(Ordering::Relaxed);
            if signal != 0 {
                return Outcome::Interrupted(signal as i32);
            }
            if let Some(start) = self.window_start.get() {
                if self.window_end.get().is_none() {
                    self.lag
                        .borrow_mut()
                        .record((now - before).saturating_sub(TICK));
                }
                if let Extent::Duration(duration) = self.extent
                    && !self.stop.get()
                    && now - start.at >= duration
                {
                    self.stop.set(true);
                    self.end_window();
                }
            }
            ticks = ticks.wrapping_add(1);
            if ticks.is_multiple_of(OVERDUE_TICKS) {
                for slot in &self.slots {
                    slot.shut_down_if_overdue(now, self.settings.timeout);
                }
            }
            progress.update(self, now);
            before = Instant::now();
        }
        Outcome::Complete
    }
}
