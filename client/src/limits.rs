//! Whether the machine allows as many connections as were asked for, checked before the first one.
//!
//! Application, above L4. Rests on getrlimit(2), ip(7) (`ip_local_port_range`) and proc(5)
//! (`max_map_count`, `meminfo`). A run that finds out half-way gives errors that look like the
//! server's, or is ended by the system; so it does not start, and the remedy is named.
//!
//! Deliberately not here: the server's limits, which only the server knows.

use std::fs;
use std::io;
use std::ops::RangeInclusive;

use rlimit::Resource;
use runtime::poller::{ENVIRONMENT_VARIABLE, Kind};

/// Descriptors besides the connections: the standard three, the poller, wakers, a name look-up,
/// files.
pub(crate) const SPARE_DESCRIPTORS: u64 = 32;

/// What an OS thread takes of the kernel's book of a process's memory: its stack and the one for
/// signals, each with a guard. Where no line is left for the latter std ends the process.
const MAPPINGS_PER_THREAD: u64 = 4;
/// Mappings besides those: the program, its libraries, its heaps.
const SPARE_MAPPINGS: u64 = 1024;

/// How many lines that book may have; only Linux tells it so.
const MAPPINGS_FILE: &str = "/proc/sys/vm/max_map_count";

/// How much memory the machine has; only Linux tells it so.
const MEMORY_FILE: &str = "/proc/meminfo";

/// Which local ports the kernel gives to connections; only Linux tells it so.
const PORT_RANGE_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// So many sockets can have descriptors that select(2) has room for.
pub(crate) const CONNECTIONS_OF_SELECT_MAX: u32 =
    libc::FD_SETSIZE as u32 - SPARE_DESCRIPTORS as u32;

/// What a run asks of the machine.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Needs {
    pub(crate) connections: u32,
    /// Ports that connections which come and go leave behind.
    pub(crate) lingering_ports: u32,
    /// Whether green threads drive some of the connections, for which the runtime's poller waits.
    pub(crate) poller: bool,
    /// OS threads that drive the connections.
    pub(crate) threads: u64,
    /// What is kept of the messages in flight.
    pub(crate) memory_bytes: u64,
}

/// Raises the soft limit of descriptors as far as the connections need.
///
/// # Errors
///
/// What stands in the way of that, one remedy for each.
pub(crate) fn prepare(needs: &Needs) -> Result<(), Vec<String>> {
    let Needs {
        connections,
        lingering_ports,
        poller,
        threads,
        memory_bytes,
    } = *needs;
    let mut obstacles = Vec::new();
    match raise_descriptor_limit(connections) {
        Ok(None) => {}
        Ok(Some(obstacle)) => obstacles.push(obstacle),
        // Not knowing the limit is no reason to refuse: the connections will tell.
        Err(error) => log::warn!("the limit of descriptors cannot be raised: {error}"),
    }
    // A name that is none is told when the runtime starts.
    if poller && let Ok(kind) = Kind::from_environment() {
        obstacles.extend(poller_obstacle(connections, kind));
    }
    let range = fs::read_to_string(PORT_RANGE_FILE)
        .ok()
        .and_then(|text| port_range(&text));
    obstacles.extend(range.and_then(|range| port_obstacle(connections, lingering_ports, &range)));
    let mappings = fs::read_to_string(MAPPINGS_FILE).ok();
    let mappings = mappings.and_then(|text| text.trim().parse().ok());
    obstacles.extend(mappings.and_then(|mappings| thread_obstacle(threads, mappings)));
    let memory = fs::read_to_string(MEMORY_FILE).ok();
    let memory = memory.and_then(|text| memory_in(&text));
    obstacles.extend(memory.and_then(|memory| memory_obstacle(memory_bytes, memory)));
    if obstacles.is_empty() {
        Ok(())
    } else {
        Err(obstacles)
    }
}

fn raise_descriptor_limit(connections: u32) -> io::Result<Option<String>> {
    let needed = u64::from(connections) + SPARE_DESCRIPTORS;
    let (soft, hard) = Resource::NOFILE.get()?;
    if soft >= needed {
        return Ok(None);
    }
    if hard < needed {
        return Ok(Some(format!(
            "{connections} connections need {needed} descriptors, but the limit is {hard}: \
             raise the limit with `ulimit -n {needed}` (as root, or in limits.conf), \
             or ask for at most {} with --connections",
            hard.saturating_sub(SPARE_DESCRIPTORS)
        )));
    }
    Resource::NOFILE.set(needed, hard)?;
    log::info!("raised the limit of descriptors from {soft} to {needed}");
    Ok(None)
}

/// select watches small descriptors only; the other pollers watch any.
fn poller_obstacle(connections: u32, kind: Kind) -> Option<String> {
    let most = CONNECTIONS_OF_SELECT_MAX;
    (kind == Kind::Select && connections > most).then(|| {
        format!(
            "{connections} connections need a poller that watches them all, and {}, which \
             {ENVIRONMENT_VARIABLE} names, watches descriptors below {} (FD_SETSIZE) only: do \
             without {ENVIRONMENT_VARIABLE}, or ask for at most {most} with --connections",
            kind.name(),
            libc::FD_SETSIZE
        )
    })
}

/// The two numbers of the kernel's file.
fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse);
    let (first, last) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(first..=last)
}

/// All connections go to one address and port, so each needs a local port of its own. Hostile ones
/// that come and go leave ports behind that nobody can use for a while: `lingering`.
fn port_obstacle(connections: u32, lingering: u32, range: &RangeInclusive<u16>) -> Option<String> {
    let ports = range.len();
    let needed = connections as usize + lingering as usize;
    if needed <= ports {
        return None;
    }
    let for_hostile = match lingering {
        0 => String::new(),
        lingering => format!(", and {lingering} more for hostile ones that come and go"),
    };
    let connections_max = ports.saturating_sub(lingering as usize);
    let (first, last) = (range.start(), range.end());
    let remedy = if needed <= 64_512 {
        "widen the range with `sysctl -w net.ipv4.ip_local_port_range='1024 65535'`, or ask for"
    } else {
        "no range has that many: run several clients from several addresses, or ask for"
    };
    Some(format!(
        "{connections} connections to one address need as many local ports{for_hostile}, \
         and the system has {ports} ({first} to {last}): {remedy} at most {connections_max} \
         with --connections"
    ))
}

/// So many OS threads in a process that may have so many mappings.
fn thread_obstacle(threads: u64, mappings: u64) -> Option<String> {
    let needed = threads * MAPPINGS_PER_THREAD + SPARE_MAPPINGS;
    (threads > 0 && needed > mappings).then(|| {
        let most = mappings.saturating_sub(SPARE_MAPPINGS) / MAPPINGS_PER_THREAD;
        format!(
            "{threads} OS threads need {needed} memory mappings, and the system allows {mappings}, \
             which are enough for {most}: raise the limit with \
             `sysctl -w vm.max_map_count={needed}`, ask for fewer --connections, or use \
             --style green, which needs no OS threads"
        )
    })
}

/// The machine's memory in bytes, from the kernel's file.
fn memory_in(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// More than the machine has is asked for by mistake; what is used of it by others is not counted.
fn memory_obstacle(needed: u64, memory: u64) -> Option<String> {
    (needed > memory).then(|| {
        format!(
            "the messages in flight on all connections take {needed} bytes of memory, and the \
             machine has {memory}: ask for a smaller --depth or --size, or for fewer --connections"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_file_is_read() {
        // Goal: the form of the kernel's file, and nothing else, is understood. Method: texts.
        assert_eq!(port_range("32768\t60999\n"), Some(32768..=60999));
        assert_eq!(port_range("32768"), None);
        assert_eq!(port_range("many\tports\n"), None);
    }

    #[test]
    fn too_few_ports_are_told_with_the_remedy() {
        // Goal: the exact border, and the remedy on each side of what can be had. Method: calls it
        // there.
        assert_eq!(port_obstacle(100, 0, &(1000..=1099)), None);
        assert_eq!(port_obstacle(90, 10, &(1000..=1099)), None);
        let lingering = port_obstacle(91, 10, &(1000..=1099)).unwrap();
        assert!(lingering.contains("and 10 more"), "{lingering}");
        assert!(lingering.contains("at most 90 with"), "{lingering}");
        let small = port_obstacle(101, 0, &(1000..=1099)).unwrap();
        assert!(
            small.contains("sysctl -w net.ipv4.ip_local_port_range"),
            "{small}"
        );
        let large = port_obstacle(70_000, 0, &(1024..=65_535)).unwrap();
        assert!(large.contains("several clients"), "{large}");
    }

    #[test]
    fn more_memory_than_there_is_is_told() {
        // Goal: the kernel's file is understood, and the exact border. Method: texts, and calls.
        let text = "MemFree: 7 kB\nMemTotal:       24576 kB\nMemTotal: 1 kB\n";
        assert_eq!(memory_in(text), Some(24576 * 1024));
        assert_eq!(memory_in("MemTotal: many kB\n"), None);
        assert_eq!(memory_obstacle(1000, 1000), None);
        let obstacle = memory_obstacle(1001, 1000).unwrap();
        assert!(
            obstacle.contains("--depth") && obstacle.contains("has 1000"),
            "{obstacle}"
        );
    }

    #[test]
    fn what_select_cannot_watch_is_told() {
        // Goal: the exact border, and no word of the other pollers. Method: calls it there.
        assert_eq!(
            poller_obstacle(CONNECTIONS_OF_SELECT_MAX, Kind::Select),
            None
        );
        assert_eq!(poller_obstacle(u32::MAX, Kind::Poll), None);
        let obstacle = poller_obstacle(CONNECTIONS_OF_SELECT_MAX + 1, Kind::Select).unwrap();
        assert!(obstacle.contains("without RUNTIME_POLLER"), "{obstacle}");
    }

    #[test]
    fn too_many_threads_are_told_with_the_remedy() {
        // Goal: the exact border, and no word where there are no threads. Method: calls it there.
        assert_eq!(thread_obstacle(0, 1), None);
        assert_eq!(thread_obstacle(16_126, 65_530), None);
        let obstacle = thread_obstacle(16_127, 65_530).unwrap();
        assert!(
            obstacle.contains("vm.max_map_count=65532") && obstacle.contains("enough for 16126"),
            "{obstacle}"
        );
    }
}
