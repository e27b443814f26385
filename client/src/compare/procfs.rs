//! What /proc tells of a server: who belongs to it, and how much memory all of them have.
//!
//! Application, above L4. Man pages: proc(5) (`stat`, `smaps_rollup`, `status`). Other systems have
//! no such files: there, a server is its one process, and its memory is not known.
//!
//! Deliberately not here: CPU time and context switches. Reading the files of 400 threads would
//! disturb the run that is measured; the kernel tells the sum for nothing when the server has ended
//! (`system`).

use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// A process and all that descend from it, itself first.
pub(crate) fn family(process: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for (child, parent) in processes() {
        children.entry(parent).or_default().push(child);
    }
    let mut family = vec![process];
    let mut next = 0;
    while let Some(member) = family.get(next) {
        family.extend(children.remove(member).unwrap_or_default());
        next += 1;
    }
    family
}

/// Every process of the machine with its parent, as far as they can be seen.
fn processes() -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|process: u32| {
            // A process may end between the listing and the reading: it then belongs to nobody.
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
            Some((process, parent_in(&stat)?))
        })
        .collect()
}

/// The parent in the text of a `stat` file. The name before it may hold spaces and brackets.
fn parent_in(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(1)?.parse().ok()
}

/// How memory was counted.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// A page that several processes share counts for each of them in part.
    Proportional,
    /// A page that several processes share counts for each of them in full.
    Resident,
}

/// The memory of all these processes in bytes; nothing if not even the first one's is known.
pub(crate) fn memory_of(processes: &[u32]) -> Option<(u64, Count)> {
    let first = Path::new("/proc").join(processes.first()?.to_string());
    let sources = [
        ("smaps_rollup", "Pss:", Count::Proportional),
        ("status", "VmRSS:", Count::Resident),
    ];
    let (file, name, count) = sources.into_iter().find(|(file, name, _)| {
        let text = fs::read_to_string(first.join(file));
        text.is_ok_and(|text| kibibytes_in(&text, name).is_some())
    })?;
    let kibibytes: u64 = processes
        .iter()
        .filter_map(|process| fs::read_to_string(format!("/proc/{process}/{file}")).ok())
        .filter_map(|text| kibibytes_in(&text, name))
        .sum();
    Some((kibibytes * 1_024, count))
}

/// The number on the line that begins with `name`.
fn kibibytes_in(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_name() {
        // Goal: a name with spaces and brackets does not shift the fields. Method: texts.
        assert_eq!(parent_in("17 (server) S 4 17 17 0"), Some(4));
        assert_eq!(parent_in("17 (a) S 9 (b) S 5 17"), Some(5));
        assert_eq!(parent_in("17 (server"), None);
        assert_eq!(parent_in(""), None);
    }

    #[test]
    fn memory_is_read_by_name() {
        // Goal: the line with exactly that name counts. Method: a text with its neighbours.
        let text = "00400000-7fff ---p 0 00:00 0 [rollup]\nRss:  900 kB\nPss:    412 kB\n\
                    Pss_Anon:   99 kB\n";
        assert_eq!(kibibytes_in(text, "Pss:"), Some(412));
        assert_eq!(kibibytes_in(text, "Swap:"), None);
        assert_eq!(kibibytes_in("Pss:\n", "Pss:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_family_has_children_and_their_children() {
        // Goal: the whole tree is found, and its memory is known. Method: a shell with a subshell
        // that waits for its input; this process is the root.
        use std::process::{Command, Stdio};
        let mut child = Command::new("sh")
            .args(["-c", "(read line; :); :"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        // The subshell exists a moment after the shell.
        while family(child.id()).len() < 2 {
            std::thread::yield_now();
        }
        let all = family(std::process::id());
        assert!(all.contains(&child.id()));
        let (bytes, _) = memory_of(&family(child.id())).unwrap();
        assert!(bytes > 100_000, "{bytes}");
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
