//! Which models the server has: it is asked, because only it knows.
//!
//! Application, above L4. The server lists them in `--help`, each with a sentence, in the form that
//! clap gives to the values of an option: `- NAME: sentence` below the option.
//!
//! Deliberately not here: whether a model works on this system; the server says that when it is
//! started with it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::compare::process::{Process, Signal, Trouble};

/// A model of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) name: String,
    /// What it is, in the server's own words.
    pub(crate) about: String,
}

/// The server's program: the one that is named, or the one beside this program.
///
/// # Errors
///
/// If it is not there, with what to do about it.
pub(crate) fn find_server(named: Option<&Path>) -> Result<PathBuf, String> {
    let remedy = "build it with `cargo build --release --package server`, or name another \
                  with --server PATH";
    let path = match named {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()
            .map_err(|error| format!("this program does not know where it lies: {error}"))?
            .with_file_name(format!("server{}", std::env::consts::EXE_SUFFIX)),
    };
    if path.is_file() {
        // A name without a directory would be looked for in PATH.
        Ok(std::path::absolute(&path).unwrap_or(path))
    } else {
        Err(format!(
            "there is no server at {}: {remedy}",
            path.display()
        ))
    }
}

/// All models of the server, in its order.
///
/// # Errors
///
/// If the server cannot be run, lists none, or takes too long for that.
pub(crate) fn of_server(server: &Path, signal: &Signal) -> Result<Vec<Model>, Trouble> {
    let mut command = Command::new(server);
    command.arg("--help");
    let help = Process::start(command, &[], signal)?.output()?;
    let models = listed_in(&help);
    if models.is_empty() {
        return Err(Trouble::Failed(format!(
            "{} lists no models under --model: is it the server of this client? Build both with \
             `cargo build --release --package server --package client`",
            server.display()
        )));
    }
    Ok(models)
}

/// The models of this name, in the order of the names; all if there are no names.
///
/// # Errors
///
/// The names that the server does not have.
pub(crate) fn chosen(all: Vec<Model>, names: &[String]) -> Result<Vec<Model>, String> {
    if names.is_empty() {
        return Ok(all);
    }
    let mut chosen: Vec<Model> = Vec::new();
    for name in names {
        match all.iter().find(|model| model.name == *name) {
            None => {
                let known: Vec<&str> = all.iter().map(|model| model.name.as_str()).collect();
                return Err(format!(
                    "the server has no model `{name}`; it has {}",
                    known.join(", ")
                ));
            }
            // A name that comes twice is measured once.
            Some(model) if chosen.contains(model) => {}
            Some(model) => chosen.push(model.clone()),
        }
    }
    Ok(chosen)
}

/// The values of `--model` in the text of `--help`.
fn listed_in(help: &str) -> Vec<Model> {
    let option = help.lines().skip_while(|line| !is_option(line, "--model"));
    let mut models: Vec<Model> = Vec::new();
    for line in option.skip(1) {
        let text = line.trim();
        if text.starts_with("--") || is_option(line, "-") {
            break;
        }
        if let Some((name, about)) = text
            .strip_prefix("- ")
            .and_then(|item| item.split_once(':'))
        {
            models.push(Model {
                name: name.trim().to_owned(),
                about: about.trim().to_owned(),
            });
        } else if let (Some(model), false) = (models.last_mut(), text.is_empty()) {
            // A sentence that was too long for its line; what stands in brackets is no part of it.
            if !text.starts_with('[') {
                model.about.push(' ');
                model.about.push_str(text);
            }
        }
    }
    models
}

/// Whether the line introduces this option, or any if it is only `-`.
fn is_option(line: &str, name: &str) -> bool {
    let mut words = line
        .split([' ', ',', '=', '['])
        .filter(|word| !word.is_empty());
    match name {
        // An option stands to the left of its explanation; `- NAME:` is a value of one.
        "-" => words
            .next()
            .is_some_and(|word| word.len() > 1 && word.starts_with('-')),
        name => line.trim_start().starts_with('-') && words.any(|word| word == name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "\
Sends back every byte.

Usage: server [OPTIONS]

Options:
      --listen <ADDRESS>
          Where to listen

          [default: 127.0.0.1:8080]

      --model <NAME>
          How connections are served

          Possible values:
          - blocking:     One client at a time: the others wait
          - green-workers: Green threads on several workers, and this sentence
            goes on here

          [default: green]

      --upper
          Answer in upper case
          - no:  model

  -h, --help
          Print help
";

    #[test]
    fn the_models_are_read_off_the_help() {
        // Goal: names and sentences, those over two lines too, and nothing of other options.
        // Method: the help of a server.
        let models = listed_in(HELP);
        let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
        assert_eq!(names, ["blocking", "green-workers"]);
        assert_eq!(models[0].about, "One client at a time: the others wait");
        assert!(models[1].about.ends_with("this sentence goes on here"));
        assert!(listed_in("Usage: server\n  -h, --help\n - a: b\n").is_empty());
    }

    #[test]
    fn an_unknown_name_is_told_with_the_known_ones() {
        // Goal: names are taken in their order and once; a wrong one is refused. Method: lists.
        let names = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            chosen(listed_in(HELP), &names)
        };
        let both = names(&["green-workers", "blocking", "blocking"]).unwrap();
        assert_eq!(both.len(), 2);
        assert_eq!(both[0].name, "green-workers");
        assert_eq!(names(&[]).unwrap().len(), 2);
        let refused = names(&["blocking", "epol"]).unwrap_err();
        assert!(refused.contains("`epol`") && refused.contains("green-workers"));
    }

    #[test]
    fn a_server_that_is_not_there_is_told() {
        // Goal: the message has the path and a remedy. Method: a path of nothing.
        let message = find_server(Some(Path::new("/nonexistent/server"))).unwrap_err();
        assert!(message.contains("/nonexistent/server") && message.contains("cargo build"));
    }
}
