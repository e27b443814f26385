//! `churn`: connects and leaves in order, without a word, again and again.
//!
//! Application on L4. Rests on tcp(7): who ends first keeps the port in TIME_WAIT for a minute. A
//! reset would not, but that is another kind (`reset`), which takes another way through a server.
//! So the rate is bounded instead, for all connections of the kind together, to what the ports of a
//! minute allow (`Kind::connects_per_s_max`).
//!
//! Deliberately not here: what is common to all kinds (`peer`).

use super::peer::Peer;

pub(super) fn run(peer: &Peer) -> ! {
    loop {
        drop(peer.connect());
        peer.acted();
    }
}
