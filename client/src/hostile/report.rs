//! What the misbehaving connections did, as data for `--json` and printed.
//!
//! Application, above L4. A section of its own, because nothing of it is in the numbers of the
//! measured connections.
//!
//! Deliberately not here: the rest of the report (`crate::report`, `crate::print`).

use std::fmt::{self, Write};

use indicatif::{DecimalBytes, HumanCount};
use serde::{Deserialize, Serialize};

use super::{Book, Kind};

/// One kind. The keys are a promise, as all of `--json`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Line {
    pub(crate) kind: Kind,
    /// How many there are at a time.
    pub(crate) connections: u32,
    pub(crate) connects: u64,
    pub(crate) refused: u64,
    pub(crate) acts: u64,
    pub(crate) ended_by_server: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) failures: u64,
    pub(crate) first_refusal: Option<String>,
    pub(crate) first_failure: Option<String>,
}

/// The kinds in the order in which they were named; none for a run without them.
pub(crate) fn lines(book: &Book) -> Vec<Line> {
    let tallies = book.tallies();
    let lines = tallies.map(|(kind, connections, tally)| Line {
        kind,
        connections,
        connects: tally.connects,
        refused: tally.refused,
        acts: tally.acts,
        ended_by_server: tally.ended,
        sent_bytes: tally.sent_bytes,
        received_bytes: tally.received_bytes,
        failures: tally.failures,
        first_refusal: tally.first_refusal,
        first_failure: tally.first_failure,
    });
    lines.collect()
}

/// What an act of this kind is.
fn act_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Reset => "reset in mid-message",
        Kind::HalfClose => "half-closed and all answered",
        Kind::Dribble => "sent byte by byte and answered",
        Kind::Deaf => "sent until the kernel took no more",
        Kind::Idle => "connected and silent",
        Kind::Churn => "came and went",
    }
}

/// A table of its own, with what went wrong below it.
pub(crate) fn write(text: &mut String, lines: &[Line]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    write!(text, "\n{:<12}", "hostile")?;
    for column in ["connections", "connects", "refused", "thrown out", "sent"] {
        write!(text, "{column:>13}")?;
    }
    writeln!(text, "  what they did")?;
    for line in lines {
        write!(text, "{:<12}", line.kind)?;
        let counts = [
            line.connections.into(),
            line.connects,
            line.refused,
            line.ended_by_server,
        ];
        for count in counts {
            write!(text, "{:>13}", HumanCount(count).to_string())?;
        }
        let sent = DecimalBytes(line.sent_bytes).to_string();
        writeln!(
            text,
            "{sent:>13}  {}: {}",
            act_of(line.kind),
            HumanCount(line.acts)
        )?;
    }
    for line in lines {
        if let Some(first) = &line.first_refusal {
            writeln!(text, "{:<12}refused, the first one: {first}", line.kind)?;
        }
        if let Some(first) = &line.first_failure {
            let failures = HumanCount(line.failures);
            writeln!(
                text,
                "{:<12}{failures} failures, the first one: {first}",
                line.kind
            )?;
        }
    }
    Ok(())
}
