//! The files that a run writes: found writable before the run, replaced as a whole after it.
//!
//! Application, above L4. Rests on rename(2), which puts one file in the place of another at once:
//! whoever reads `--json` while it is written finds the old report or the new one, never half of
//! one. A pipe or a terminal cannot be replaced and is written to, and so is `/dev/stdout`,
//! wherever it leads.
//!
//! Deliberately not here: what is in the files (`report`, `csv_file`, `hdr_log`).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::failure::words_of;

/// A file that an option names.
#[derive(Debug)]
pub(crate) struct OutFile {
    option: &'static str,
    path: PathBuf,
}

impl OutFile {
    /// Finds out before the run whether the file can be written after it, by beginning to.
    ///
    /// # Errors
    ///
    /// In words, if `path` is a directory, or is in none, or in one in which we may not write.
    pub(crate) fn new(option: &'static str, path: &Path) -> Result<OutFile, String> {
        let file = OutFile {
            option,
            path: path.to_owned(),
        };
        if path.is_dir() {
            return Err(file.words(&io::ErrorKind::IsADirectory.into()));
        }
        let directory = directory_of(path);
        if !directory.is_dir() {
            let missing = format!("there is no directory {}", directory.display());
            return Err(file.words(&io::Error::other(missing)));
        }
        if is_replaced(path) {
            // Also a file system that is read-only or a name that is too long is told by this.
            let partial = partial_beside(&target_of(path));
            let begun = File::create(&partial).and_then(|_| fs::remove_file(&partial));
            begun.map_err(|error| file.words(&error))?;
        }
        Ok(file)
    }

    /// Writes beside the file and puts it in the file's place, so that nobody reads half of it.
    ///
    /// # Errors
    ///
    /// In words, what the system says; an earlier file is still there then.
    pub(crate) fn write(&self, content: &[u8]) -> Result<(), String> {
        let written = replace(&self.path, content);
        written.map_err(|error| self.words(&error))
    }

    fn words(&self, error: &io::Error) -> String {
        format!("{} {}: {error}", self.option, self.path.display())
    }
}

/// Two options that name one file would leave the report of only one of them.
///
/// # Errors
///
/// In words, the two options.
pub(crate) fn check_distinct<'a>(
    files: impl IntoIterator<Item = &'a OutFile>,
) -> Result<(), String> {
    let mut seen: Vec<&OutFile> = Vec::new();
    for file in files {
        let target = target_of(&file.path);
        let other = seen.iter().find(|other| target_of(&other.path) == target);
        if let (Some(other), true) = (other, is_replaced(&file.path)) {
            let (path, theirs) = (file.path.display(), other.path.display());
            let also = if file.path == other.path {
                String::new()
            } else {
                format!(", which is also {theirs}")
            };
            return Err(format!(
                "{} and {} are both {path}{also}: give each a file of its own",
                other.option, file.option
            ));
        }
        seen.push(file);
    }
    Ok(())
}

/// Prints `text` on our own output. Who closed that does not want to read it.
///
/// # Errors
///
/// In words, why it could not be printed otherwise.
pub(crate) fn print(text: &str) -> Result<(), String> {
    let mut output = io::stdout().lock();
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!(
            "the output cannot be written: {}",
            words_of(&error)
        )),
        _ => Ok(()),
    }
}

/// The content of a file of `--json`.
pub(crate) fn json(content: &impl Serialize) -> Vec<u8> {
    let text = serde_json::to_vec_pretty(content);
    let mut text = text.expect("what we write has only what JSON can say");
    text.push(b'\n');
    text
}

/// Whether the file is a regular one, or will be.
fn is_replaced(path: &Path) -> bool {
    !is_standard_output(path) && fs::metadata(path).map_or(true, |metadata| metadata.is_file())
}

/// Our own output may lead into a regular file, which must not be replaced below it; nor must the
/// link by which the system names our output, which is everybody's.
fn is_standard_output(path: &Path) -> bool {
    STANDARD_OUTPUT.iter().any(|name| path == Path::new(name))
}

/// What the system calls our own output.
const STANDARD_OUTPUT: [&str; 3] = ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    if is_standard_output(path) {
        let mut output = io::stdout().lock();
        return output.write_all(content).and_then(|()| output.flush());
    }
    if !is_replaced(path) {
        return fs::write(path, content);
    }
    let path = target_of(path);
    let partial = partial_beside(&path);
    let written = File::create(&partial)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&partial, &path));
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written
}

/// The one name of a file that has several: where a link leads the file is replaced, and not the
/// link.
fn target_of(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| {
        // It is not there yet, but its directory is.
        let directory = fs::canonicalize(directory_of(path));
        match (directory, path.file_name()) {
            (Ok(directory), Some(name)) => directory.join(name),
            _ => path.to_owned(),
        }
    })
}

/// Where a file is written before it takes the place of `target`.
fn partial_beside(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    directory_of(target).join(name)
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}
