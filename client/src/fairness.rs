//! How evenly the server has treated the connections.
//!
//! Application, above L4; arithmetic only. Rests on Jain, Chiu, Hawe: "A Quantitative Measure of
//! Fairness" (DEC-TR-301, 1984): the square of the sum over n times the sum of the squares. It is 1
//! when all have got the same, and 1/n when one has got all; k served alike among n make k/n.
//!
//! Deliberately not here: who is counted (`report`).

use serde::{Deserialize, Serialize};

/// The answered messages of all connections that came up, compared.
#[derive(Copy, Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Fairness {
    pub(crate) connections: u64,
    pub(crate) answered: u64,
    /// What the connection has got that got least ...
    pub(crate) least: u64,
    /// ... and most.
    pub(crate) most: u64,
    pub(crate) jain: f64,
}

impl Fairness {
    /// Of what each connection has got; nothing if none has got anything.
    pub(crate) fn of(counts: impl IntoIterator<Item = u64>) -> Option<Fairness> {
        let (mut connections, mut answered, mut squares) = (0, 0, 0.0);
        let (mut least, mut most) = (u64::MAX, 0);
        for count in counts {
            connections += 1;
            answered += count;
            squares += (count as f64).powi(2);
            least = least.min(count);
            most = most.max(count);
        }
        (answered > 0).then(|| Fairness {
            connections,
            answered,
            least,
            most,
            jain: index(connections, answered, squares),
        })
    }

    /// Of the connections of both: it is as if one run had had them all.
    pub(crate) fn and(&self, other: &Fairness) -> Fairness {
        let connections = self.connections + other.connections;
        let answered = self.answered + other.answered;
        Fairness {
            connections,
            answered,
            least: self.least.min(other.least),
            most: self.most.max(other.most),
            jain: index(connections, answered, self.squares() + other.squares()),
        }
    }

    /// The sum of the squares, which the index has in it.
    fn squares(&self) -> f64 {
        (self.answered as f64).powi(2) / (self.connections as f64 * self.jain)
    }
}

fn index(connections: u64, answered: u64, squares: f64) -> f64 {
    // The last digit of a fraction must not make more than all of it.
    ((answered as f64).powi(2) / (connections as f64 * squares)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_jains() {
        // Goal: the values that the definition gives. Method: all alike, k of n alike, one has all,
        // a mixture worked out by hand, nobody has anything.
        for (counts, least, most, jain) in [
            (&[7, 7, 7, 7][..], 7, 7, 1.0),
            (&[5, 5, 0, 0, 0], 0, 5, 0.4),
            (&[0, 0, 0, 9], 0, 9, 0.25),
            (&[1, 2, 3], 1, 3, 36.0 / 42.0),
            (&[1], 1, 1, 1.0),
        ] {
            let fairness = Fairness::of(counts.iter().copied()).unwrap();
            assert_eq!((fairness.least, fairness.most), (least, most), "{counts:?}");
            assert!((fairness.jain - jain).abs() < 1e-12, "{fairness:?}");
            assert_eq!(fairness.connections, counts.len() as u64);
        }
        assert_eq!(Fairness::of([]), None);
        assert_eq!(Fairness::of([0, 0]), None);
    }

    #[test]
    fn two_runs_add_up_to_one() {
        // Goal: merged fairness is that of all connections together. Method: counts of very
        // different size, in one and in two parts.
        let counts = [3, 900_000, 17, 40_000_000, 1, 0];
        let whole = Fairness::of(counts).unwrap();
        let (left, right) = counts.split_at(2);
        let [left, right] = [left, right].map(|part| Fairness::of(part.iter().copied()).unwrap());
        let merged = left.and(&right);
        assert_eq!(merged.connections, whole.connections);
        assert_eq!(merged.answered, whole.answered);
        assert_eq!((merged.least, merged.most), (whole.least, whole.most));
        assert!((merged.jain - whole.jain).abs() < 1e-9, "{merged:?}");
    }
}
