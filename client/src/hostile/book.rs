//! What the misbehaving connections did and met, by kind.
//!
//! Application, above L4. They act some thousand times a second at most, so a lock around each
//! kind's counts costs nothing.
//!
//! Deliberately not here: the measured connections' books (`slot`, `failure`).

use std::sync::Mutex;

use super::{Kind, Options};
use crate::slot::lock;

/// The counts of one kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Connections that came up: more than there are at once, where a kind connects again.
    pub(crate) connects: u64,
    /// Connections that did not come up.
    pub(crate) refused: u64,
    /// How often the kind did what it is there for.
    pub(crate) acts: u64,
    /// Connections that the server ended, in whichever way, or never answered.
    pub(crate) ended: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    /// Answers that were wrong, or never came.
    pub(crate) failures: u64,
    pub(crate) first_refusal: Option<String>,
    pub(crate) first_failure: Option<String>,
}

impl Tally {
    pub(crate) fn refuse(&mut self, words: impl FnOnce() -> String) {
        self.refused += 1;
        self.first_refusal.get_or_insert_with(words);
    }

    pub(crate) fn fail(&mut self, words: String) {
        log::info!("a hostile connection failed: {words}");
        self.failures += 1;
        self.first_failure.get_or_insert(words);
    }
}

/// All kinds of a run, in the order in which they were named.
#[derive(Debug)]
pub(crate) struct Book(Vec<Page>);

#[derive(Debug)]
struct Page {
    kind: Kind,
    connections: u32,
    tally: Mutex<Tally>,
}

impl Book {
    pub(crate) fn new(options: &Options, connections: u32) -> Book {
        let counts = options.counts(connections).into_iter();
        let pages = counts.map(|(kind, connections)| Page {
            kind,
            connections,
            tally: Mutex::default(),
        });
        Book(pages.collect())
    }

    /// Changes the counts of the share at this position.
    pub(crate) fn enter(&self, share: usize, change: impl FnOnce(&mut Tally)) {
        change(&mut lock(&self.0[share].tally));
    }

    /// How many of which kind were asked for.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (Kind, u32)> {
        self.0.iter().map(|page| (page.kind, page.connections))
    }

    /// The counts as they are now.
    pub(crate) fn tallies(&self) -> impl Iterator<Item = (Kind, u32, Tally)> {
        self.0
            .iter()
            .map(|page| (page.kind, page.connections, lock(&page.tally).clone()))
    }
}
