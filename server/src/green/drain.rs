//! A graceful stop of green threads: the steps of `drain`, in one that parks between them.
//!
//! Deliberately not here: the accept loop, which has ended before, and what the steps are good for.

use crate::drain::{GRACE, LAST_WORDS, Phase};
use crate::green::service::Service;
use log::{info, warn};
use runtime::net::Shutdown;
use std::time::{Duration, Instant};

/// Sees all connections out, which takes `timeout` and the last words at most.
pub(crate) fn drain(service: &Service, timeout: Duration) {
    if service.admission.open() == 0 {
        return;
    }
    let begin = Instant::now();
    info!(
        "{} connections may finish for {timeout:?}",
        service.admission.open()
    );
    if service.wait_until_empty(begin, timeout.min(GRACE)) {
        return;
    }
    info!(
        "no more is read: {} connections answer what has arrived",
        service.admission.open()
    );
    service.shut_down(Shutdown::Read, Phase::Finishing);
    if service.wait_until_empty(begin, timeout) {
        return;
    }
    warn!(
        "{} connections are cut off after {timeout:?}",
        service.admission.open()
    );
    service.shut_down(Shutdown::Both, Phase::CutOff);
    service.wait_until_empty(Instant::now(), LAST_WORDS);
}
