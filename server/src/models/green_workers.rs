//! Green threads on several workers: the whole `green` server once on each of them, at the same
//! time.
//!
//! Right when one processor is not enough. Workers share the listening socket, and nothing else:
//! each has its own poller, its own connections and its own counts, so still nothing needs a lock.
//! The kernel tells all who wait that a connection has come, and the first to accept has it for
//! good.
//!
//! Wrong when connections are few and long: nobody moves them from a busy worker to an idle one.
//!
//! Man pages: accept(2), dup(2). Deliberately not here: the server (see `green`).

use crate::green;
use crate::models::green::serve_here;
use crate::options::Options;
use crate::stop::Stop;
use crate::summary::Summary;
use runtime::net::TcpListener;
use runtime::thread;
use std::io;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;

/// Serves on every worker until `stop` says so, and gives back the books of all.
pub(crate) fn serve(
    listener: std::net::TcpListener,
    options: &Options,
    stop: &Stop,
) -> io::Result<Summary> {
    let shares = green::run(options, options.workers(), |options| {
        serve_shares(listener.into(), options, stop)
    });
    shares?
}

fn serve_shares(listener: TcpListener, options: &Options, stop: &Stop) -> io::Result<Summary> {
    let mut shares = shares(options.max_connections, options.workers()).into_iter();
    let mut own = options.clone();
    own.max_connections = shares.next().flatten();
    let mut servers = Vec::new();
    for (worker, share) in (1..).zip(shares) {
        let (listener, stop) = (listener.try_clone()?, stop.clone());
        let mut options = options.clone();
        options.max_connections = share;
        servers.push(thread::spawn_on(worker, move || {
            // However this worker ends, it does not leave the others behind.
            let _stopping = stop.when_dropped();
            serve_here(listener, &options, &stop)
        }));
    }
    let mut summary = serve_here(listener, &own, stop)?;
    for server in servers {
        match server.join() {
            Ok(books) => summary.add(books?),
            Err(panic) => resume_unwind(panic),
        }
    }
    Ok(summary)
}

/// Divides a limit. Workers for whom nothing is left get no share, and so no server.
pub(crate) fn shares(
    limit: Option<NonZeroUsize>,
    workers: NonZeroUsize,
) -> Vec<Option<NonZeroUsize>> {
    let workers = workers.get();
    match limit.map(NonZeroUsize::get) {
        None => vec![None; workers],
        Some(limit) => (0..workers)
            .filter_map(|worker| {
                NonZeroUsize::new(limit / workers + usize::from(worker < limit % workers))
            })
            .map(Some)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_limit() {
        // Goal: together the workers hold as many as asked for. Method: divides, and adds up.
        for (limit, workers) in [(1, 4), (4, 4), (5, 2), (1000, 3)] {
            let workers = NonZeroUsize::new(workers).unwrap();
            let shares = shares(NonZeroUsize::new(limit), workers);
            let sum: usize = shares.iter().flatten().map(|share| share.get()).sum();
            assert_eq!(sum, limit);
            assert!(shares.len() <= workers.get());
        }
        assert_eq!(shares(None, NonZeroUsize::MIN), [None]);
    }
}
