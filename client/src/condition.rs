//! Conditions on a result, as `--fail-if` and `--find-max` take them: `p99>5ms`.
//!
//! Application, above L4. A condition is METRIC OP VALUE: what is measured, one of `< <= > >=`, and
//! a number with the unit that the metric has. It is read before the run, and whatever is wrong
//! with its words is told with the place and with what would be right.
//!
//! Deliberately not here: `and` and `or`. Each option holds one condition, and may come again.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::measure::Times;

/// What a condition may be about, for `--help` and for the error about any other word.
pub(crate) const METRICS: &str = "\
\x20 p50 p90 p99 p99.9 (any pN), min, mean, max     response time, from when a message was due
  service.p99 ...  connect.p99 ...  lag.p99 ...  service time, connecting, the client's own lag
  silence                                        longest time without any reply (ns us ms s min)
  rate                                           replies a second: 5000, 5k, 1.5M
  failures                                       connections that failed
  fairness                                       Jain's index, 0 to 1";

/// One condition, as it was written and as it is understood.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    text: String,
    metric: Metric,
    operator: Operator,
    /// In nanoseconds if the metric is a time.
    limit: f64,
}

#[derive(Copy, Clone, Debug, PartialEq)]
enum Metric {
    Time(Kind, Statistic),
    Silence,
    Rate,
    Failures,
    Fairness,
}

/// Whose times.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Kind {
    Response,
    Service,
    Connect,
    Lag,
}

#[derive(Copy, Clone, Debug, PartialEq)]
enum Statistic {
    Quantile(f64),
    Min,
    Mean,
    Max,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Operator {
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
}

/// What a number of this metric is counted in.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Unit {
    #[serde(rename = "ns")]
    Nanoseconds,
    #[serde(rename = "1/s")]
    PerSecond,
    #[serde(rename = "connections")]
    Connections,
    #[serde(rename = "index")]
    Index,
}

/// What conditions are asked of. What was not measured is not there.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Figures<'a> {
    pub(crate) response: Option<&'a Times>,
    pub(crate) service: Option<&'a Times>,
    pub(crate) connect: Option<&'a Times>,
    pub(crate) lag: Option<&'a Times>,
    pub(crate) silence_ns: Option<u64>,
    pub(crate) rate: Option<f64>,
    pub(crate) failures: u64,
    pub(crate) fairness: Option<f64>,
}

impl Condition {
    /// What the metric is in this result; nothing if there was no sample to tell it from.
    pub(crate) fn value(&self, figures: &Figures<'_>) -> Option<f64> {
        match self.metric {
            Metric::Time(kind, statistic) => {
                let times = match kind {
                    Kind::Response => figures.response,
                    Kind::Service => figures.service,
                    Kind::Connect => figures.connect,
                    Kind::Lag => figures.lag,
                };
                statistic.of(times?)
            }
            Metric::Silence => figures.silence_ns.map(|silence_ns| silence_ns as f64),
            Metric::Rate => figures.rate,
            Metric::Failures => Some(figures.failures as f64),
            Metric::Fairness => figures.fairness,
        }
    }

    /// Whether the condition is true of `value`.
    pub(crate) fn is_true_of(&self, value: f64) -> bool {
        match self.operator {
            Operator::Less => value < self.limit,
            Operator::LessOrEqual => value <= self.limit,
            Operator::More => value > self.limit,
            Operator::MoreOrEqual => value >= self.limit,
        }
    }

    pub(crate) fn is_about_failures(&self) -> bool {
        self.metric == Metric::Failures
    }

    /// Whether less of it is better.
    pub(crate) fn is_upper_bound(&self) -> bool {
        matches!(self.operator, Operator::Less | Operator::LessOrEqual)
    }

    pub(crate) fn limit(&self) -> f64 {
        self.limit
    }

    pub(crate) fn unit(&self) -> Unit {
        self.metric.unit()
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.text)
    }
}

impl Statistic {
    fn of(self, times: &Times) -> Option<f64> {
        let summary = times.summary()?;
        Some(match self {
            Statistic::Quantile(quantile) => times.quantile_ns(quantile)? as f64,
            Statistic::Min => summary.min as f64,
            Statistic::Mean => summary.mean,
            Statistic::Max => summary.max as f64,
        })
    }
}

impl Metric {
    fn unit(self) -> Unit {
        match self {
            Metric::Time(..) | Metric::Silence => Unit::Nanoseconds,
            Metric::Rate => Unit::PerSecond,
            Metric::Failures => Unit::Connections,
            Metric::Fairness => Unit::Index,
        }
    }

    fn named(name: &str) -> Option<Metric> {
        let (kind, statistic) = match name {
            "silence" => return Some(Metric::Silence),
            "rate" => return Some(Metric::Rate),
            "failures" => return Some(Metric::Failures),
            "fairness" => return Some(Metric::Fairness),
            _ => match name.split_once('.') {
                Some(("response", statistic)) => (Kind::Response, statistic),
                Some(("service", statistic)) => (Kind::Service, statistic),
                Some(("connect", statistic)) => (Kind::Connect, statistic),
                Some(("lag", statistic)) => (Kind::Lag, statistic),
                _ => (Kind::Response, name),
            },
        };
        let statistic = match statistic {
            "min" => Statistic::Min,
            "mean" => Statistic::Mean,
            "max" => Statistic::Max,
            _ => Statistic::Quantile(quantile(statistic)?),
        };
        Some(Metric::Time(kind, statistic))
    }
}

/// The share that `p99.9` stands for.
fn quantile(name: &str) -> Option<f64> {
    let digits = name.strip_prefix('p')?;
    // A number may also be written in ways that nobody means here: `p1e1`, `p+5`, `pinf`.
    let plain = digits.starts_with(|first: char| first.is_ascii_digit())
        && digits
            .chars()
            .all(|digit| digit.is_ascii_digit() || digit == '.');
    let percent: f64 = plain.then(|| digits.parse().ok()).flatten()?;
    (percent > 0.0 && percent < 100.0).then_some(percent / 100.0)
}

impl Unit {
    /// By how much a number with this suffix is multiplied; nothing if the unit has no such suffix.
    fn factor(self, suffix: &str) -> Option<f64> {
        Some(match (self, suffix) {
            (Unit::Nanoseconds, "ns") => 1.0,
            (Unit::Nanoseconds, "us" | "\u{b5}s" | "\u{3bc}s") => 1e3,
            (Unit::Nanoseconds, "ms") => 1e6,
            (Unit::Nanoseconds, "s") => 1e9,
            (Unit::Nanoseconds, "min") => 60e9,
            (Unit::PerSecond, "" | "/s") => 1.0,
            (Unit::PerSecond, "k" | "k/s") => 1e3,
            (Unit::PerSecond, "M" | "M/s") => 1e6,
            (Unit::Connections | Unit::Index, "") => 1.0,
            _ => return None,
        })
    }

    fn suffixes(self) -> &'static str {
        match self {
            Unit::Nanoseconds => "a time needs a unit: ns, us, ms, s or min",
            Unit::PerSecond => "a rate is a number, with k or M if it is large",
            Unit::Connections => "failures are counted: a number and nothing after it",
            Unit::Index => "fairness is a number and nothing after it",
        }
    }
}

/// What is wrong with a condition's words, and from which character on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrongWords {
    text: String,
    /// Counted in characters, so that the mark stands under the right one.
    at: usize,
    what: String,
}

impl fmt::Display for WrongWords {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WrongWords { text, at, what } = self;
        write!(
            formatter,
            "{what}, at character {}\n\n    {text}\n    {:at$}^\n\n\
             A condition is METRIC OP VALUE, for example p99>5ms. OP is < <= > or >=. METRIC:\n\
             {METRICS}",
            at + 1,
            ""
        )
    }
}

impl std::error::Error for WrongWords {}

impl FromStr for Condition {
    type Err = WrongWords;

    fn from_str(text: &str) -> Result<Condition, WrongWords> {
        let wrong = |rest: &str, what: String| WrongWords {
            text: text.to_owned(),
            at: text.chars().count() - rest.chars().count(),
            what,
        };
        let start = text.trim_start();
        let (name, rest) = split_where(start, |letter| {
            letter.is_whitespace() || "<>=!".contains(letter)
        });
        let metric = Metric::named(name).ok_or_else(|| match name {
            "" => wrong(start, "there is no metric".to_owned()),
            _ => wrong(start, format!("`{name}` is not a metric")),
        })?;
        let rest = rest.trim_start();
        let (operator, rest) = operator(rest)
            .ok_or_else(|| wrong(rest, format!("`{name}` must be followed by < <= > or >=")))?;
        let rest = rest.trim_start();
        let (digits, suffix) =
            split_where(rest, |letter| !(letter.is_ascii_digit() || letter == '.'));
        let number: f64 = digits
            .parse()
            .map_err(|_| wrong(rest, "a number must follow".to_owned()))?;
        let unit = metric.unit();
        let factor = unit
            .factor(suffix.trim())
            .ok_or_else(|| wrong(suffix.trim_start(), unit.suffixes().to_owned()))?;
        if metric == Metric::Fairness && number > 1.0 {
            return Err(wrong(rest, "fairness is at most 1".to_owned()));
        }
        Ok(Condition {
            text: text.trim().to_owned(),
            metric,
            operator,
            limit: number * factor,
        })
    }
}

fn split_where(text: &str, is_border: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(is_border).unwrap_or(text.len()))
}

fn operator(text: &str) -> Option<(Operator, &str)> {
    // The longer ones first: each of them begins like a shorter one.
    let operators = [
        ("<=", Operator::LessOrEqual),
        (">=", Operator::MoreOrEqual),
        ("<", Operator::Less),
        (">", Operator::More),
    ];
    let mut operators = operators.into_iter();
    operators.find_map(|(word, operator)| Some((operator, text.strip_prefix(word)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(text: &str) -> Condition {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    /// 1 to 1000 ms, once each.
    fn times() -> Times {
        let mut times = Times::new();
        for ms in 1..=1000 {
            times.record_ns(ms * 1_000_000);
        }
        times
    }

    #[test]
    fn each_metric_has_its_value() {
        // Goal: every metric looks at its own figure, with any unit and with spaces. Method:
        // figures that all differ, and a limit just below and just above each.
        let response = times();
        let single = |ms: u64| {
            let mut times = Times::new();
            times.record_ns(ms * 1_000_000);
            times
        };
        let (service, connect, lag) = (single(2000), single(3000), single(4000));
        let figures = Figures {
            response: Some(&response),
            service: Some(&service),
            connect: Some(&connect),
            lag: Some(&lag),
            silence_ns: Some(7_500),
            rate: Some(1234.5),
            failures: 3,
            fairness: Some(0.75),
        };
        for (below, above) in [
            ("p50>499ms", "p50 > 502 ms"),
            ("p90>899ms", "p90>902ms"),
            ("p99>989ms", "p99>992ms"),
            ("p99.9>998ms", "p99.9>1001ms"),
            ("p12.5>124ms", "p12.5>126ms"),
            ("response.p99>989ms", "response.p99>0.992s"),
            ("min>999us", "min>1002us"),
            ("mean>500000\u{b5}s", "mean>502000\u{3bc}s"),
            ("max>999ms", "max>1002ms"),
            ("service.p99>1999ms", "service.max>2003ms"),
            ("connect.p50>2999ms", "connect.mean>0.06min"),
            ("lag.min>3.99s", "lag.max>4.01s"),
            ("silence>7499ns", "silence>7.501us"),
            ("rate>1.2k", "rate>1.3k/s"),
            ("rate>1234", "rate>0.1M"),
            ("failures>2", " failures  >  3 "),
            ("fairness>0.7", "fairness>.8"),
        ] {
            for (text, expected) in [(below, true), (above, false)] {
                let condition = condition(text);
                let value = condition.value(&figures).expect(text);
                assert_eq!(condition.is_true_of(value), expected, "{text}: {value}");
            }
        }
    }

    #[test]
    fn each_operator_means_what_it_says() {
        // Goal: the borders belong to `<=` and `>=` only. Method: below, at and above the limit.
        for (text, expected) in [
            ("failures<5", [true, false, false]),
            ("failures<=5", [true, true, false]),
            ("failures>5", [false, false, true]),
            ("failures>=5", [false, true, true]),
        ] {
            let condition = condition(text);
            let found = [4.0, 5.0, 6.0].map(|value| condition.is_true_of(value));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn nothing_is_made_of_no_samples() {
        // Goal: what was not measured has no value, failures excepted. Method: empty figures, and
        // empty times.
        let empty = Times::new();
        let without = Figures::default();
        let with = Figures {
            response: Some(&empty),
            ..without
        };
        for text in [
            "p99>1s",
            "max<1s",
            "service.p99<1s",
            "rate<5",
            "silence<1s",
            "fairness<1",
        ] {
            assert_eq!(condition(text).value(&without), None, "{text}");
            assert_eq!(condition(text).value(&with), None, "{text}");
        }
        assert_eq!(condition("failures>0").value(&without), Some(0.0));
    }

    #[test]
    fn wrong_words_are_told_with_their_place() {
        // Goal: every kind of mistake names its place and what would be right. Method: one of each;
        // the mark's column is the position.
        for (text, at, what) in [
            ("", 0, "no metric"),
            (">5ms", 0, "no metric"),
            ("p100>5ms", 0, "`p100`"),
            ("p0>5ms", 0, "`p0`"),
            ("p1e1>5ms", 0, "`p1e1`"),
            ("  latency>5ms", 2, "`latency`"),
            ("server.p99>5ms", 0, "`server.p99`"),
            ("P99>5ms", 0, "`P99`"),
            ("p99", 3, "followed by"),
            ("p99=5ms", 3, "followed by"),
            ("p99 5ms", 4, "followed by"),
            ("p99!=5ms", 3, "followed by"),
            ("p99>", 4, "number"),
            ("p99>>5ms", 4, "number"),
            ("p99>-5ms", 4, "number"),
            ("p99>1.2.3ms", 4, "number"),
            ("p99>5", 5, "unit"),
            ("p99>5 hours", 6, "unit"),
            ("silence>5k", 9, "unit"),
            ("rate>5ms", 6, "k or M"),
            ("failures>5%", 10, "counted"),
            ("fairness<1s", 10, "nothing after"),
            ("fairness<1.5", 9, "at most 1"),
        ] {
            let error = text.parse::<Condition>().expect_err(text);
            assert_eq!(error.at, at, "{error}");
            assert!(error.what.contains(what), "{error}");
            let shown = error.to_string();
            assert!(
                shown.contains(&format!("\n    {}^\n", " ".repeat(at))),
                "{shown}"
            );
            assert!(
                shown.contains("p99.9") && shown.contains("fairness"),
                "{shown}"
            );
        }
    }
}
