//! `client compare`: starts the server in each of its models, loads each alike, and shows the
//! numbers side by side.
//!
//! Application, above L4. `models` asks the server what it has; `process` runs it; `audience`,
//! `strace` and `trial` measure, each with a server of its own; `results` keeps what they found,
//! `table` prints it, `plots`, `charts` and `page` make the report. In a round every model is
//! loaded once, and every second round goes backwards, so that what changes on the machine
//! meanwhile touches all of them alike.
//!
//! Deliberately not here: green threads. This program sleeps while others work.

mod arguments;
mod audience;
mod charts;
mod machine;
mod models;
mod page;
mod palette;
mod picture;
mod plots;
mod process;
mod procfs;
mod progress;
mod results;
mod strace;
mod system;
mod table;
mod trial;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

pub(crate) use arguments::Compare;
use machine::Machine;
use models::Model;
use process::{Server, Signal, Trouble};
use progress::Progress;
use results::{Comparison, ModelResult, Settings};
use trial::{Burden, Extent, Scratch};

use crate::limits::{self, Needs};
use crate::out_file::{self, OutFile};
use crate::{EXIT_FAILED, EXIT_SIGNAL, end_with_the_next, note_signals};

/// The command line asks for what there is not. clap ends with the same for what it refuses.
const EXIT_USAGE: u8 = 2;

/// How a comparison ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Ending {
    /// Every model that this system has was measured.
    Complete,
    /// A model failed.
    Failed,
    /// By this signal.
    Interrupted(usize),
}

impl Ending {
    fn code(self) -> ExitCode {
        match self {
            Ending::Complete => ExitCode::SUCCESS,
            Ending::Failed => ExitCode::from(EXIT_FAILED),
            Ending::Interrupted(signal) => ExitCode::from(EXIT_SIGNAL.saturating_add(signal as u8)),
        }
    }
}

/// Compares, prints the table, writes the report.
///
/// # Errors
///
/// If it could not begin, or the report could not be written.
pub(crate) fn run(options: &Compare) -> Result<ExitCode, String> {
    let uncaught = |error: io::Error| format!("signals cannot be caught: {error}");
    // While anything runs a second signal changes nothing: the first one has it stopped, and who
    // ended at once would leave a server behind that is not our own child but strace's.
    let signal = Signal(note_signals().map_err(uncaught)?);
    let outputs = Outputs::prepare(options)?;
    let server = models::find_server(options.server.as_deref())?;
    let all = match models::of_server(&server, &signal) {
        Ok(all) => all,
        Err(Trouble::Interrupted(signal)) => return Ok(Ending::Interrupted(signal).code()),
        Err(Trouble::Failed(words) | Trouble::Lacking(words)) => return Err(words),
    };
    let models = match models::chosen(all, &options.models) {
        Ok(models) => models,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let most = options.steps().into_iter().max();
    let most = most.unwrap_or(options.connections);
    let needs = Needs {
        connections: most,
        ..Needs::default()
    };
    limits::prepare(&needs).map_err(|obstacles| obstacles.join("\nerror: "))?;
    #[cfg(target_os = "linux")]
    if let Err(error) = system::adopt_orphans() {
        log::warn!("orphans of a server will not be found: {error}");
    }

    let mut run = Run::new(options, server, models, signal)?;
    // What is done here is done on the client's side.
    #[cfg(target_os = "linux")]
    if let Err(error) = system::pin(&run.comparison.settings.client_processors) {
        log::warn!("this program cannot be kept on a processor: {error}");
    }
    let ending = run.measure();
    let Run {
        comparison,
        scratch,
        ..
    } = run;
    drop(scratch);
    end_with_the_next(matches!(ending, Ending::Interrupted(_))).map_err(uncaught)?;
    let printed = out_file::print(&table::text(&comparison));
    outputs.write(&comparison)?;
    printed?;
    Ok(ending.code())
}

/// The files that are written at the end.
struct Outputs<'a> {
    options: &'a Compare,
    html: OutFile,
    svg: Option<OutFile>,
    json: Option<OutFile>,
}

impl Outputs<'_> {
    /// Finds out whether they can be written before minutes are spent on what goes into them.
    fn prepare(options: &Compare) -> Result<Outputs<'_>, String> {
        let html = OutFile::new("--html", &options.html)?;
        let svg = options.svg.as_deref();
        let svg = svg.map(|path| OutFile::new("--svg", path)).transpose()?;
        let json = options.json.as_deref();
        let json = json.map(|path| OutFile::new("--json", path)).transpose()?;
        out_file::check_distinct(
            [Some(&html), svg.as_ref(), json.as_ref()]
                .into_iter()
                .flatten(),
        )?;
        Ok(Outputs {
            options,
            html,
            svg,
            json,
        })
    }

    fn write(&self, comparison: &Comparison) -> Result<(), String> {
        let drawing = |error: charts::Error| format!("the charts cannot be drawn: {error}");
        if let Some(file) = &self.json {
            file.write(&out_file::json(comparison))?;
        }
        let figures = plots::figures(comparison).map_err(drawing)?;
        self.html
            .write(page::html(comparison, &figures).as_bytes())?;
        if let Some(file) = &self.svg
            && let Some(picture) = picture::svg(comparison).map_err(drawing)?
        {
            file.write(picture.as_bytes())?;
        }
        let path = &self.options.html;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let _ = writeln!(io::stdout(), "\nreport: {}", path.display());
        Ok(())
    }
}

/// A comparison on its way.
struct Run<'a> {
    options: &'a Compare,
    server: PathBuf,
    scratch: Scratch,
    signal: Signal,
    comparison: Comparison,
}

impl Run<'_> {
    fn new(
        options: &Compare,
        server: PathBuf,
        models: Vec<Model>,
        signal: Signal,
    ) -> Result<Run<'_>, String> {
        let (server_processors, client_processors) = shares(options.server_processors.get());
        let mut notes = Vec::new();
        if server_processors.is_empty() {
            notes.push(
                "server and client were not kept on processors of their own: they share what \
                 there is"
                    .to_owned(),
            );
        }
        let words: Vec<String> = std::env::args().skip(1).collect();
        let settings = Settings {
            command: format!("client {}", words.join(" ")),
            connections: options.connections,
            steps: options.steps(),
            size_bytes: options.size_bytes,
            duration_s: options.duration.as_secs_f64(),
            rounds: options.rounds,
            server_processors,
            client_processors,
        };
        let models = models.into_iter().map(|model| ModelResult {
            name: model.name,
            about: model.about,
            ..ModelResult::default()
        });
        Ok(Run {
            options,
            server,
            scratch: Scratch::new()?,
            signal,
            comparison: Comparison {
                interrupted: false,
                settings,
                machine: Machine::this(),
                models: models.collect(),
                notes,
            },
        })
    }

    /// Measures everything, or as much as there is time for.
    fn measure(&mut self) -> Ending {
        let stopped = self.measure_all();
        if let Err(signal) = stopped {
            self.comparison.interrupted = true;
            return Ending::Interrupted(signal);
        }
        let models = &self.comparison.models;
        let failed = models.iter().any(|model| model.failure.is_some());
        let nothing = models.iter().all(|model| model.steps.is_empty());
        if failed || nothing {
            Ending::Failed
        } else {
            Ending::Complete
        }
    }

    /// # Errors
    ///
    /// The signal that came meanwhile.
    fn measure_all(&mut self) -> Result<(), usize> {
        let strace = strace::obstacle();
        let loads = self.options.rounds as usize * self.options.steps().len();
        let steps = loads + if strace.is_none() { 2 } else { 1 };
        let all = steps * self.comparison.models.len();
        let progress = &mut Progress::new(all, self.options.quiet);
        for index in 0..self.comparison.models.len() {
            self.attempt(progress, index, "memory", Run::gather)?;
            if strace.is_none() {
                self.attempt(progress, index, "system calls", Run::count)?;
            }
        }
        self.comparison.notes.extend(strace);
        for round in 0..self.options.rounds {
            for connections in self.options.steps() {
                let count = self.comparison.models.len();
                for index in 0..count {
                    // Backwards every second time.
                    let index = if round % 2 == 0 {
                        index
                    } else {
                        count - 1 - index
                    };
                    let rounds = self.options.rounds;
                    let what =
                        format!("{connections} connections, round {} of {rounds}", round + 1);
                    self.attempt(progress, index, &what, |run, index| {
                        run.load(index, connections)
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Does something with a model that has not failed so far, and notes what comes of it.
    fn attempt(
        &mut self,
        progress: &mut Progress,
        index: usize,
        what: &str,
        attempt: impl FnOnce(&mut Self, usize) -> Result<(), Trouble>,
    ) -> Result<(), usize> {
        let model = &self.comparison.models[index];
        let is_skipped = model.lacking.is_some() || model.failure.is_some();
        progress.step(&model.name, what, is_skipped);
        if is_skipped {
            return Ok(());
        }
        let result = attempt(self, index);
        let model = &mut self.comparison.models[index];
        match result {
            Ok(()) => {}
            Err(Trouble::Interrupted(signal)) => return Err(signal),
            Err(Trouble::Failed(reason)) => model.failure = Some(reason),
            Err(Trouble::Lacking(reason)) => model.lacking = Some(reason),
        }
        Ok(())
    }

    fn command(&self, index: usize) -> Command {
        let mut command = Command::new(&self.server);
        let name = &self.comparison.models[index].name;
        command.args(["--listen", "127.0.0.1:0", "--model", name]);
        command.env_remove("RUST_LOG");
        command
    }

    fn burden(&self, connections: u32) -> Burden {
        Burden {
            connections,
            size_bytes: self.options.size_bytes,
            extent: Extent::Duration(self.options.duration),
        }
    }

    fn start(&self, index: usize) -> Result<Server, Trouble> {
        let processors = &self.comparison.settings.server_processors;
        Server::start(self.command(index), processors, &self.signal)
    }

    fn gather(&mut self, index: usize) -> Result<(), Trouble> {
        let mut server = self.start(index)?;
        let audience = audience::gather(&mut server, self.options.connections, &self.signal)?;
        server.stop()?;
        self.comparison.models[index].audience = Some(audience);
        Ok(())
    }

    fn count(&mut self, index: usize) -> Result<(), Trouble> {
        let settings = &self.comparison.settings;
        let calls = strace::count(
            &self.command(index),
            self.burden(self.options.connections),
            (&settings.server_processors, &settings.client_processors),
            &self.scratch,
            &self.signal,
        )?;
        self.comparison.models[index].system_calls = Some(calls);
        Ok(())
    }

    fn load(&mut self, index: usize, connections: u32) -> Result<(), Trouble> {
        let mut server = self.start(index)?;
        let burden = self.burden(connections);
        let client_processors = &self.comparison.settings.client_processors;
        let loaded = trial::load(
            &mut server,
            burden,
            client_processors,
            &self.scratch,
            &self.signal,
        )?;
        let usage = server.stop()?;
        let model = &mut self.comparison.models[index];
        loaded.check(unserved(model, connections))?;
        model.add(connections, loaded.trial(usage)?);
        Ok(())
    }
}

/// How many of so many connections a model leaves waiting.
fn unserved(model: &ModelResult, connections: u32) -> u32 {
    match &model.audience {
        Some(audience) if audience.served < audience.asked => {
            connections.saturating_sub(audience.served)
        }
        _ => 0,
    }
}

/// Processors for the server, and one for the client; none if there are too few to divide.
fn shares(wanted: usize) -> (Vec<usize>, Vec<usize>) {
    let mut all = system::processors();
    if all.len() < 2 {
        return (Vec::new(), Vec::new());
    }
    let client = all.split_off(all.len() - 1);
    all.truncate(wanted);
    (all, client)
}
