//! The command line of `client compare`.
//!
//! Application, above L4. Deliberately not here: whether the server has the models that are named,
//! which only the server can tell (`models`).

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::arguments::duration;

/// What `client compare --help` adds after the options.
pub(crate) const AFTER_HELP: &str = "\
The server runs on one processor and the client on another, where there are two. In each round every
model is started, loaded and stopped once; what is shown are the medians of the rounds.

Exit codes:
  0    every model that this system has was measured
  1    a model failed, or nothing could be measured
  2    the command line is wrong
  130  Ctrl-C: everything that was started is stopped; 143: SIGTERM, the same

The keys of --json are listed in client/README.md.";

/// The numbers of connections at which `--sweep` measures.
const SWEEP: [u32; 5] = [1, 10, 100, 400, 2_000];

/// The options of `client compare`.
#[derive(Clone, Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Compare {
    /// The models to compare, separated by commas [default: all that the server has]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) models: Vec<String>,

    /// The server's program [default: `server` in the directory of this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) server: Option<PathBuf>,

    /// How many connections load the server
    #[arg(long, value_name = "N", default_value_t = 400)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections: u32,

    /// The size of each message
    #[arg(long = "size", value_name = "BYTES", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=64 * 1024 * 1024))]
    pub(crate) size_bytes: u32,

    /// For how long each model is loaded in each round
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub(crate) duration: Duration,

    /// How often each model is loaded; rounds alternate between the models
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rounds: u32,

    /// Measure at 1, 10, 100, 400 and 2,000 connections, too, and draw the curves
    #[arg(long)]
    pub(crate) sweep: bool,

    /// On how many processors the server may run; the client has another one
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN)]
    pub(crate) server_processors: NonZeroUsize,

    /// Where the report goes
    #[arg(long, value_name = "FILE", default_value = "compare.html")]
    pub(crate) html: PathBuf,

    /// Write the charts to FILE as one picture (SVG), too
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,

    /// Write all numbers to FILE as JSON, too
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Show no progress while it runs
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl Compare {
    /// The numbers of connections to measure at, in ascending order.
    pub(crate) fn steps(&self) -> Vec<u32> {
        let mut steps = vec![self.connections];
        if self.sweep {
            steps.extend(SWEEP);
        }
        steps.sort_unstable();
        steps.dedup();
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        compare: Compare,
    }

    fn parse(words: &[&str]) -> Result<Compare, clap::Error> {
        let words = std::iter::once("compare").chain(words.iter().copied());
        Alone::try_parse_from(words).map(|alone| alone.compare)
    }

    #[test]
    fn models_are_separated_by_commas() {
        // Goal: a list of names is taken apart, and none means all. Method: parses both.
        assert!(parse(&[]).unwrap().models.is_empty());
        let compare = parse(&["--models", "epoll,green"]).unwrap();
        assert_eq!(compare.models, ["epoll", "green"]);
    }

    #[test]
    fn a_sweep_has_the_asked_number_once() {
        // Goal: the steps ascend and none comes twice. Method: a number that is a step of the
        // sweep, one that is not, and no sweep.
        assert_eq!(parse(&["--sweep"]).unwrap().steps(), SWEEP);
        let odd = parse(&["--sweep", "--connections", "50"]).unwrap();
        assert_eq!(odd.steps(), [1, 10, 50, 100, 400, 2_000]);
        assert_eq!(parse(&["--connections", "7"]).unwrap().steps(), [7]);
    }

    #[test]
    fn senseless_words_are_refused() {
        // Goal: nothing that cannot be measured gets past the command line. Method: one each.
        for words in [
            ["--rounds", "0"],
            ["--connections", "0"],
            ["--duration", "0s"],
            ["--size", "0"],
            ["--server-processors", "0"],
        ] {
            assert!(parse(&words).is_err(), "{words:?} was taken");
        }
    }
}
