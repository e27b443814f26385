//! How many connections select can watch: it knows descriptors below `FD_SETSIZE` only, of which
//! there are 1,024.
//!
//! A connection gets the smallest descriptor that nobody has. So there is room for as many as there
//! are small ones, less those that are open already, by the server or by whoever started it, and
//! those that the server will open. One connection more would get a descriptor that cannot be
//! watched, and could only be closed; at the limit it waits in the listen queue.
//!
//! Man pages: select(2), fcntl(2) (F_GETFD). Deliberately not here: who keeps to the limit.

use std::num::NonZeroUsize;
use std::os::fd::RawFd;

/// As many as there ever may be.
const CONNECTIONS_MAX: usize = 1000;

/// What the server opens after it has begun to listen: the parts of a poller, and a spare or two.
const FOR_THE_SERVER: usize = 8;

/// What each worker opens: its copy of the listener, and what wakes it.
const FOR_A_WORKER: usize = 2;

/// The most connections that select can watch in a process with so many workers.
pub(crate) fn connections_max(workers: NonZeroUsize) -> NonZeroUsize {
    let all = 0..libc::FD_SETSIZE as RawFd;
    let free = all.filter(|fd| !is_open(*fd)).count();
    let reserved = FOR_THE_SERVER + FOR_A_WORKER * workers.get();
    let room = free.saturating_sub(reserved).min(CONNECTIONS_MAX);
    // The one that has no room is told so when it comes.
    NonZeroUsize::new(room).unwrap_or(NonZeroUsize::MIN)
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: the call touches no memory of ours, and changes nothing.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn what_is_open_takes_room() {
        // Goal: descriptors that others have are not promised to connections. Method: opens more
        // than enough for the limit to be felt, and then two hundred more. Tests that run beside
        // this one have a few.
        let of = |workers| connections_max(NonZeroUsize::new(workers).unwrap()).get();
        let open = |count| -> Vec<File> {
            let files = (0..count).map(|_| File::open("/dev/null").unwrap());
            files.collect()
        };
        let _first = open(300);
        let before = of(1);
        assert!((500..=1024 - 300).contains(&before), "{before}");
        let _second = open(200);
        let after = of(1);
        assert!((150..=250).contains(&(before - after)), "{after}");
        assert!(of(100) + 150 < after);
        assert_eq!(of(1024), 1);
    }
}
