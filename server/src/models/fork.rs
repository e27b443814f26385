//! A process for each connection: the parent accepts and forks, the child serves and exits.
//!
//! Right when a connection should be able to do whatever a process can, blocking and crashing
//! included, without harm to the others, and when what it does is worth a fork. It reads like a
//! server for one client, because in the child it is.
//!
//! Wrong when connections are many or short: a fork costs hundreds of microseconds, and each
//! process some hundred KiB, a process id and the attention of the kernel's scheduler. What
//! children know is gone with them, unless they write it to somebody, as ours do their books.
//!
//! Two descriptors lead to each socket after the fork. The parent closes its copy at once: as long
//! as it is open the peer never sees the end of the stream. The child closes its copy of the
//! listener, or the port would stay taken for as long as the child lives.
//!
//! A child that has ended stays in the table of processes, as a zombie, until its parent asks how
//! it ended. So the parent waits for the listener, for the news of a death, and for the stop, all
//! at the same time.
//!
//! Man pages: fork(2), accept(2), waitpid(2), poll(2). Deliberately not here: the wrapper of fork
//! (`process::fork`), the books and deaths of children (`process::family`), the echo itself and
//! how one connection is drained (`models::blocking`, `blocking`).

use crate::accept_error::{Fault, PAUSE_MAX, Shortages};
use crate::blocking::drain::Drain;
use crate::blocking::service::Service;
use crate::ending::Ending;
use crate::listen::QUEUE_LENGTH;
use crate::models::blocking;
use crate::options::Options;
use crate::process::family::{Child, Family};
use crate::stop::Stop;
use crate::summary::Summary;
use log::{debug, info, warn};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::ExitStatus;
use std::time::Instant;

/// What the parent knows.
#[derive(Debug)]
struct Parent<'a> {
    options: &'a Options,
    stop: &'a Stop,
    /// None in a child, and when nobody is accepted any more.
    listener: Option<TcpListener>,
    family: Family<'a>,
    last_number: u64,
    peak: usize,
    shortages: Shortages,
    /// Until when nobody is accepted, unless a child ends before.
    pause: Option<Instant>,
    /// Who was accepted when there was no process to be had.
    waiting: Option<(TcpStream, SocketAddr)>,
}

/// Serves until `stop` says so, sees the connections out, and gives back the books.
pub(crate) fn serve(listener: TcpListener, options: &Options, stop: &Stop) -> io::Result<Summary> {
    listener.set_nonblocking(true)?;
    let mut parent = Parent {
        options,
        stop,
        listener: Some(listener),
        family: Family::new(stop)?,
        last_number: 0,
        peak: 0,
        shortages: Shortages::default(),
        pause: None,
        waiting: None,
    };
    let failure = parent.accept_loop().err();
    parent.accept_the_queued();
    parent.listener = None;
    parent.refuse_who_waits();
    parent.family.see_out(options.drain_timeout, bury)?;
    Ok(Summary {
        peak: parent.peak,
        failure,
        ..parent.family.summary
    })
}

impl Parent<'_> {
    /// Gives every connection a process of its own.
    fn accept_loop(&mut self) -> io::Result<()> {
        while !self.stop.is_requested() {
            let pause = self
                .pause
                .map(|until| until.saturating_duration_since(Instant::now()));
            let listener = self.listener.as_ref().filter(|_| self.may_accept());
            self.family.wait(listener.map(AsFd::as_fd), pause)?;
            for (child, end) in self.family.take_the_dead()? {
                // What was lacking may have been freed.
                self.pause = None;
                bury(&mut self.family, child, end);
            }
            if self.may_accept() {
                self.accept_ready()?;
            }
        }
        Ok(())
    }

    fn may_accept(&self) -> bool {
        self.has_room() && self.pause.is_none_or(|until| until <= Instant::now())
    }

    fn has_room(&self) -> bool {
        let limit = self.options.max_connections;
        limit.is_none_or(|limit| self.family.count() < limit.get())
    }

    /// Accepts one connection, if there is one. `false` means that there is none.
    fn accept_ready(&mut self) -> io::Result<bool> {
        self.pause = None;
        let accepted = match (self.waiting.take(), &self.listener) {
            (Some(client), _) => Ok(client),
            (None, Some(listener)) => listener.accept(),
            (None, None) => return Ok(false),
        };
        match accepted {
            Ok((stream, peer)) => self.start(stream, peer),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => match Fault::of(&error) {
                Fault::Peer => {}
                Fault::Shortage => self.pause(&error),
                Fault::Listener => return Err(error),
            },
        }
        Ok(true)
    }

    /// Starts the process of a connection, which lives as long as the connection does.
    fn start(&mut self, stream: TcpStream, peer: SocketAddr) {
        let (number, options) = (self.last_number + 1, self.options);
        let listener = &mut self.listener;
        let mut client = Some((stream, peer));
        let started = self.family.fork(number, |stop| {
            drop(listener.take());
            let (stream, peer) = client.take().expect("each process has a copy");
            serve_one(number, stream, peer, options, stop)
        });
        match started {
            Ok(()) => {
                self.last_number = number;
                self.peak = self.peak.max(self.family.count());
                if !self.has_room() {
                    let open = self.family.count();
                    info!("{open} connections, which is the limit: the next wait until one ends");
                }
            }
            Err(error) => {
                self.waiting = client;
                self.pause(&error);
            }
        }
    }

    /// Accepts nobody until a child ends, but not for long.
    fn pause(&mut self, error: &io::Error) {
        self.shortages.note(self.family.count(), error);
        self.pause = Some(Instant::now() + PAUSE_MAX);
    }

    /// Takes in those who have connected before the stop, and who cannot know that nobody accepted
    /// them.
    fn accept_the_queued(&mut self) {
        // Bounded, or a flood of clients would never let the server stop.
        for _ in 0..QUEUE_LENGTH {
            if !self.has_room() {
                break;
            }
            match self.accept_ready() {
                Ok(true) if self.pause.is_none() => {}
                Ok(_) => break,
                Err(error) => {
                    debug!("the listen queue is left: {error}");
                    break;
                }
            }
        }
    }

    /// Closes the connection for which there was no process to be had until the end.
    fn refuse_who_waits(&mut self) {
        if self.waiting.take().is_some() {
            let number = self.last_number + 1;
            let books = &mut self.family.summary;
            books.count(number, &Ending::NeverStarted, 0, 0);
        }
    }
}

/// Serves one connection to its end, in a process that has nothing else to do.
fn serve_one(
    number: u64,
    stream: TcpStream,
    peer: SocketAddr,
    options: &Options,
    stop: &Stop,
) -> io::Result<Summary> {
    let service = Service::new(options, None);
    service.number_from(number);
    let drain = Drain::start(&service, options.drain_timeout, stop);
    if let Err(error) = &drain {
        // It can be served all the same. When the server stops its parent will have to kill it.
        warn!("connection {number} would not hear of a stop: {error}");
    }
    blocking::start(service.welcome(stream, peer), &service);
    Ok(match drain {
        Ok(drain) => drain.finish(None),
        Err(_) => service.summary(None),
    })
}

/// Sees whether a child that has ended has told what became of its connection.
fn bury(family: &mut Family<'_>, child: Child, end: ExitStatus) {
    let Child {
        number,
        pid,
        entries,
        ..
    } = child;
    if entries == 0 {
        warn!("connection {number} ended with its process {pid} ({end}); what it did is not known");
        family.summary.served += 1;
        family.count_error(end);
    }
}
