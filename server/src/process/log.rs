//! Which process a line of the log is from: each counts its own connections, so that a number alone
//! would not tell.
//!
//! Deliberately not here: what is logged, and where to (`env_logger`).

use crate::process::fork;
use log::{Log, Metadata, Record};

/// Logs as `Inner` does, and has the lines of children begin with their process.
#[derive(Debug)]
pub(crate) struct NamedByProcess<Inner>(pub(crate) Inner);

impl<Inner: Log> Log for NamedByProcess<Inner> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !fork::is_child() {
            return self.0.log(record);
        }
        let (process, text) = (std::process::id(), record.args());
        let named = format_args!("process {process}: {text}");
        let mut same = Record::builder();
        same.metadata(record.metadata().clone())
            .module_path(record.module_path())
            .file(record.file())
            .line(record.line());
        self.0.log(&same.args(named).build());
    }

    fn flush(&self) {
        self.0.flush();
    }
}
