//! A graceful stop of blocked threads: the steps of `drain`, on an OS thread of its own.
//!
//! It sleeps until the stop is requested. Where connections must be taken in one after the other,
//! those in the queue are still being accepted while it works, so it has finished only when there
//! is no connection and will be none.
//!
//! Man pages: shutdown(2). Deliberately not here: what the steps are good for.

use crate::blocking::service::Service;
use crate::drain::{GRACE, LAST_WORDS, Phase};
use crate::stop::Stop;
use crate::summary::Summary;
use log::{error, info, warn};
use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The thread that sees the connections out.
#[derive(Debug)]
pub(crate) struct Drain {
    thread: JoinHandle<()>,
    service: Arc<Service>,
    stop: Stop,
}

impl Drain {
    /// Starts the thread, which begins to work when `stop` says so.
    ///
    /// # Errors
    ///
    /// If there is no thread to be had.
    pub(crate) fn start(
        service: &Arc<Service>,
        timeout: Duration,
        stop: &Stop,
    ) -> io::Result<Drain> {
        let (service, stop) = (Arc::clone(service), stop.clone());
        let builder = thread::Builder::new().name("drain".into());
        let thread = builder.spawn({
            let (service, stop) = (Arc::clone(&service), stop.clone());
            move || {
                stop.wait();
                drain(&service, timeout);
            }
        })?;
        Ok(Drain {
            thread,
            service,
            stop,
        })
    }

    /// To be called when nobody is accepted any more, because of the stop or of `failure`. Blocks
    /// until the connections have been seen out, and gives back the books.
    pub(crate) fn finish(self, failure: Option<io::Error>) -> Summary {
        self.service.close();
        drop(self.stop.when_dropped());
        if self.thread.join().is_err() {
            error!("the stop was not graceful: its thread panicked");
        }
        self.service.summary(failure)
    }
}

/// Sees all connections out, which takes `timeout` and the last words at most.
fn drain(service: &Service, timeout: Duration) {
    let begin = Instant::now();
    if service.open() > 0 {
        let open = service.open();
        info!("{open} connections may finish for {timeout:?}");
    }
    if service.wait_until_empty(begin, timeout.min(GRACE)) {
        return;
    }
    let open = service.open();
    info!("no more is read: {open} connections answer what has arrived");
    service.shut_down(Shutdown::Read, Phase::Finishing);
    if service.wait_until_empty(begin, timeout) {
        return;
    }
    let open = service.open();
    if open > 0 {
        warn!("{open} connections are cut off after {timeout:?}");
    }
    service.shut_down(Shutdown::Both, Phase::CutOff);
    service.wait_until_empty(Instant::now(), LAST_WORDS);
}
