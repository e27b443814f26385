//! Which connections have been idle for too long: `--idle-timeout` without a timer for each.
//!
//! A timer that is set again with every message costs more than the message is worth, when nearly
//! none ever fires. So a connection only remembers the round in which something last came or went,
//! and now and then all are looked at. Each look also finds out when the next one is worth while:
//! when the connection that is most idle now would be due. If something has come or gone on it by
//! then, that look finds a later time.
//!
//! Deliberately not here: what becomes of who is due (see `service`).

use crate::ready::Connection;
use std::time::{Duration, Instant};

/// Looks are so much of the time-out apart, or many connections with deadlines of their own would
/// mean a look for each. A time-out is late by as much at most.
const LOOKS_A_TIMEOUT: u32 = 32;

/// The idle time-out of all connections.
#[derive(Debug)]
pub(super) struct Idle {
    timeout: Duration,
    /// Nobody is due before; never, if there is no such time.
    next_look: Option<Instant>,
}

impl Idle {
    pub(super) fn new(timeout: Duration) -> Idle {
        Idle {
            timeout,
            next_look: None,
        }
    }

    /// When to look.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next_look
    }

    /// A connection has come. It is due after all the others.
    pub(super) fn note_new(&mut self, now: Instant) {
        if self.next_look.is_none() {
            self.next_look = now.checked_add(self.timeout);
        }
    }

    /// Whether nothing came or went for too long.
    pub(super) fn is_over(&self, connection: &Connection, now: Instant) -> bool {
        !connection.is_resting && self.rest(connection, now).is_zero()
    }

    /// Adds to `due` who has been idle for too long, if it is time to look.
    pub(super) fn look<'a>(
        &mut self,
        connections: impl Iterator<Item = &'a Connection>,
        now: Instant,
        due: &mut Vec<i32>,
    ) {
        if self.next_look.is_none_or(|at| now < at) {
            return;
        }
        let mut wait = None;
        for connection in connections {
            let mut rest = self.rest(connection, now);
            if self.is_over(connection, now) {
                due.push(connection.fd());
                rest = self.timeout;
            }
            wait = Some(wait.map_or(rest, |wait: Duration| wait.min(rest)));
        }
        let apart = self.timeout / LOOKS_A_TIMEOUT;
        self.next_look = wait.and_then(|wait| now.checked_add(wait.max(apart)));
    }

    /// How much longer it may be idle.
    fn rest(&self, connection: &Connection, now: Instant) -> Duration {
        let idle = now.saturating_duration_since(connection.moved_at);
        self.timeout.saturating_sub(idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    const TIMEOUT: Duration = Duration::from_secs(64);

    fn connection(number: u64) -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Connection::new(number, socket, 1)
    }

    /// Who is due at `now`.
    fn due(idle: &mut Idle, connections: &[Connection], now: Instant) -> Vec<i32> {
        let mut due = Vec::new();
        idle.look(connections.iter(), now, &mut due);
        due
    }

    #[test]
    fn only_the_idle_are_due() {
        // Goal: whoever moves stays, and the next look is when the next may be due. Method: two
        // connections, of which one moves, and a clock of its own.
        let mut idle = Idle::new(TIMEOUT);
        let mut both = [connection(1), connection(2)];
        let begin = Instant::now();
        both[0].moved_at = begin;
        both[1].moved_at = begin + TIMEOUT / 2;
        idle.note_new(begin);
        idle.note_new(begin + TIMEOUT / 4);
        assert_eq!(idle.deadline(), Some(begin + TIMEOUT));
        assert!(due(&mut idle, &both, begin + TIMEOUT / 2).is_empty());
        assert_eq!(due(&mut idle, &both, begin + TIMEOUT), [both[0].fd()]);
        assert!(idle.is_over(&both[0], begin + TIMEOUT));
        assert!(!idle.is_over(&both[1], begin + TIMEOUT));
        assert_eq!(idle.deadline(), Some(begin + TIMEOUT + TIMEOUT / 2));
        both[1].moved_at = begin + TIMEOUT;
        let later = begin + TIMEOUT + TIMEOUT / 2;
        assert!(due(&mut idle, &both[1..], later).is_empty());
        assert_eq!(idle.deadline(), Some(begin + 2 * TIMEOUT));
        assert!(due(&mut idle, &[], begin + 2 * TIMEOUT).is_empty());
        assert_eq!(idle.deadline(), None);
    }

    #[test]
    fn looks_keep_apart() {
        // Goal: many deadlines close together do not mean many looks. Method: one that is due just
        // after a look.
        let mut idle = Idle::new(TIMEOUT);
        let mut one = [connection(1)];
        let begin = one[0].moved_at;
        idle.note_new(begin);
        one[0].moved_at += Duration::from_millis(1);
        assert!(due(&mut idle, &one, begin + TIMEOUT).is_empty());
        let apart = TIMEOUT / LOOKS_A_TIMEOUT;
        assert_eq!(idle.deadline(), Some(begin + TIMEOUT + apart));
    }

    #[test]
    fn an_endless_time_out_ends_nobody() {
        // Goal: the longest --idle-timeout does not overflow. Method: takes it.
        let mut idle = Idle::new(Duration::MAX);
        let one = [connection(1)];
        idle.note_new(Instant::now());
        assert!(due(&mut idle, &one, Instant::now()).is_empty());
        assert_eq!(idle.deadline(), None);
    }
}
