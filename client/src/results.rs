//! Where results go: the options that name files and gates, and the writing of the files.
//!
//! Application, above L4. `client load` and `client merge` share these options. All files are
//! looked at before the first connection, so that ten minutes of load do not end in a typing
//! error; each is replaced as a whole (`out_file`).
//!
//! Deliberately not here: what goes to standard output (`print`).

use std::path::PathBuf;

use clap::Args;

use crate::condition::Condition;
use crate::csv_file;
use crate::hdr_log;
use crate::out_file::{self, OutFile, check_distinct};
use crate::report::{Measurements, Report};

/// What to make of the result.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Results {
    /// Write the report to FILE as JSON, too; FILE is replaced at once, as a whole
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write a row for each second and one for all to FILE as CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,

    /// Write all times to FILE as a HdrHistogram log, for `client merge` and other tools
    #[arg(long, value_name = "FILE")]
    hdr: Option<PathBuf>,

    /// Exit with 3 if this is true of the result, or nothing was measured to tell; may be repeated.
    /// METRIC OP VALUE: p99>5ms, service.max>1s, rate<10k, failures>0, silence>100ms, fairness<0.9
    #[arg(long, value_name = "GATE")]
    pub(crate) fail_if: Vec<Condition>,
}

/// The files that were asked for.
#[derive(Debug)]
pub(crate) struct Files {
    json: Option<OutFile>,
    csv: Option<OutFile>,
    hdr: Option<OutFile>,
}

impl Results {
    /// Whether `--hdr` wants the histogram of every interval.
    pub(crate) fn keeps_histograms(&self) -> bool {
        self.hdr.is_some()
    }

    /// Looks at all files that will be written.
    ///
    /// # Errors
    ///
    /// In words, which option's file cannot be written.
    pub(crate) fn files(&self) -> Result<Files, String> {
        let open = |option, path: &Option<PathBuf>| {
            let path = path.as_ref();
            path.map(|path| OutFile::new(option, path)).transpose()
        };
        let files = Files {
            json: open("--json", &self.json)?,
            csv: open("--csv", &self.csv)?,
            hdr: open("--hdr", &self.hdr)?,
        };
        check_distinct([&files.json, &files.csv, &files.hdr].into_iter().flatten())?;
        Ok(files)
    }
}

impl Files {
    /// Writes all of them, also when one fails.
    ///
    /// # Errors
    ///
    /// In words, which of them could not be written.
    pub(crate) fn write(&self, report: &Report, measured: Measurements) -> Result<(), String> {
        let written = [
            write(&self.json, || out_file::json(report)),
            write(&self.csv, || csv_file::write(report)),
            write(&self.hdr, || hdr_log::write(report, measured)),
        ];
        let errors: Vec<String> = written.into_iter().filter_map(Result::err).collect();
        if errors.is_empty() {
            return Ok(());
        }
        Err(errors.join("\nerror: "))
    }
}

fn write(file: &Option<OutFile>, content: impl FnOnce() -> Vec<u8>) -> Result<(), String> {
    file.as_ref().map_or(Ok(()), |file| file.write(&content()))
}
