//! On what the numbers were measured: processor, kernel, memory, date.
//!
//! Application, above L4. Man pages: proc(5), uname(1). What a system does not tell is left out.
//!
//! Deliberately not here: what was measured.

use std::fs;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) system: String,
    /// UTC.
    pub(crate) date: String,
}

impl Machine {
    pub(crate) fn this() -> Machine {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let processor = value_in(&cpuinfo, "model name")
            .map(str::to_owned)
            .or_else(|| said_by("sysctl", &["-n", "machdep.cpu.brand_string"]))
            .or_else(|| said_by("sysctl", &["-n", "hw.model"]))
            .unwrap_or_else(|| format!("a processor of type {}", std::env::consts::ARCH));
        let kibibytes = value_in(&meminfo, "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        let system = said_by("uname", &["-srm"]).unwrap_or_else(|| std::env::consts::OS.to_owned());
        Machine {
            processor,
            processors,
            memory_bytes: kibibytes.map(|kibibytes| kibibytes * 1_024),
            system,
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        }
    }
}

/// What stands behind the colon on the first line with this name.
fn value_in<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = pairs.find(|(key, _)| key.trim() == name)?;
    Some(value.trim())
}

/// The one line that a program prints, if it is there and knows.
fn said_by(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_whole_name() {
        // Goal: the right line counts. Method: a text with its neighbours.
        let text = "model\t\t: 17\nmodel name\t: A: B\nmodel name\t: C\n";
        assert_eq!(value_in(text, "model name"), Some("A: B"));
        assert_eq!(value_in(text, "name"), None);
    }

    #[test]
    fn this_machine_is_described() {
        // Goal: nothing is empty. Method: asks.
        let machine = Machine::this();
        assert!(!machine.processor.is_empty() && !machine.system.is_empty());
        assert!(machine.processors > 0 && machine.date.ends_with('Z'));
    }
}
