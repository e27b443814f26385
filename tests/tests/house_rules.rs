//! The house rules that no lint knows, read off the sources themselves.
//!
//! Goal of all of them: a rule that is broken is told with its file and line before a reviewer has
//! to. Method: the sources are cut into words (`tests::sources`) and searched; no code is run.
//!
//! Layers are told by module, from the crate's root on. `runtime/ARCHITECTURE.md` ends with a table
//! of files, each row beginning with "| `src/...` |", which must name exactly the files there are.
//!
//! Deliberately not here: what rustfmt and clippy check (`make lint`), and what takes judgement.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use tests::sources::{self, Source};

/// The modules of the runtime and their layers. Imports go down, or stay in their own module.
const LAYERS: [(&str, u8); 18] = [
    ("sys", 0),
    ("poller", 1),
    ("context", 1),
    ("selector", 2),
    ("reactor", 2),
    ("timer", 2),
    ("coroutine", 2),
    ("sched", 3),
    ("builder", 4),
    ("net", 4),
    ("thread", 4),
    ("sync", 4),
    ("os", 4),
    ("time", 4),
    ("io", 4),
    ("process", 4),
    ("executor", 4),
    ("fs", 4),
];

/// What is drawn as resting on a neighbour within its layer. Layer 4 is one world: std's modules
/// know one another, too.
const NEIGHBOURS: [(&str, &str); 2] = [("reactor", "selector"), ("reactor", "timer")];

/// What a module may not know although it lies below: each is to be studied without the other.
const STRANGERS: [(&str, &str); 4] = [
    ("reactor", "context"),
    ("selector", "context"),
    ("timer", "poller"),
    ("coroutine", "poller"),
];

/// Calls of the system outside of `sys`: the file, what it says, and why it may.
const EXCEPTIONS: [(&str, &str, &str); 22] = [
    (
        "server/src/fd_room.rs",
        "libc::fcntl",
        "asks which descriptors are taken, which no std type tells; it never waits",
    ),
    (
        "server/src/process/fork.rs",
        "libc::sigemptyset",
        "blocks signals while a child is not yet ready for them; it never waits",
    ),
    (
        "server/src/process/fork.rs",
        "libc::sigaddset",
        "blocks signals while a child is not yet ready for them; it never waits",
    ),
    (
        "server/src/process/fork.rs",
        "libc::pthread_sigmask",
        "blocks signals while a child is not yet ready for them; it never waits",
    ),
    (
        "server/src/process/fork.rs",
        "libc::fork",
        "starts another process of the same program, which std cannot; no runtime is there yet",
    ),
    (
        "server/src/process/fork.rs",
        "libc::prctl",
        "has a child end with its parent, which no std type does; it never waits",
    ),
    (
        "server/src/process/fork.rs",
        "libc::kill",
        "sends a signal to a child that std did not start; it never waits",
    ),
    (
        "server/src/process/deaths.rs",
        "libc::waitpid",
        "reaps children that std did not start; it never waits (WNOHANG)",
    ),
    (
        "server/src/farewell.rs",
        "libc::ioctl",
        "asks how much the peer has yet to acknowledge, which no std type tells; it never waits",
    ),
    (
        "server/src/ring/kernel.rs",
        "libc::syscall",
        "makes the two calls of io_uring, for which the C library has no functions",
    ),
    (
        "server/src/ring/mapping.rs",
        "libc::mmap",
        "shares the rings of io_uring with the kernel; it never waits",
    ),
    (
        "server/src/ring/mapping.rs",
        "libc::munmap",
        "ends what mmap began; it never waits",
    ),
    (
        "server/src/wait.rs",
        "libc::poll",
        "waits for several descriptors where there is no runtime: that is for blocking models",
    ),
    (
        "client/src/measure.rs",
        "libc::getrusage",
        "asks how much of the CPU this process has had, which no std type tells; it never waits",
    ),
    (
        "client/src/compare/system.rs",
        "libc::getrusage",
        "asks how much of the CPU the servers that were compared have had; it never waits",
    ),
    (
        "client/src/compare/system.rs",
        "libc::kill",
        "stops the servers that were compared; it never waits",
    ),
    (
        "client/src/compare/system.rs",
        "libc::sched_getaffinity",
        "asks which processors there are for server and client; it never waits",
    ),
    (
        "client/src/compare/system.rs",
        "libc::CPU_ISSET",
        "reads a set of processors in memory; it does not enter the kernel",
    ),
    (
        "client/src/compare/system.rs",
        "libc::CPU_SET",
        "writes a set of processors in memory; it does not enter the kernel",
    ),
    (
        "client/src/compare/system.rs",
        "libc::sched_setaffinity",
        "keeps server and client on processors of their own; it never waits",
    ),
    (
        "client/src/compare/system.rs",
        "libc::prctl",
        "lets no server outlive the comparison; it never waits",
    ),
    (
        "client/src/compare/system.rs",
        "libc::waitpid",
        "reaps what a server has left behind, after killing it",
    ),
];

const COLUMNS_MAX: usize = 100;
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const EXAMPLE_LINES_MAX: usize = 60;

/// Fails with every violation in a line of its own, as editors can follow them.
fn none(rule: &str, violations: &[String]) {
    assert!(
        violations.is_empty(),
        "{rule}:\n  {}",
        violations.join("\n  ")
    );
}

/// The files of the product: the three crates, the examples among them.
fn product() -> Vec<Source> {
    let crates = ["runtime", "server", "client"];
    crates.into_iter().flat_map(sources::below).collect()
}

/// Everything, the tests and the benchmarks included.
fn all() -> Vec<Source> {
    let mut all = product();
    all.extend(sources::below("tests"));
    all
}

fn layer(module: &str) -> Option<u8> {
    let found = LAYERS.iter().find(|(name, _)| *name == module);
    found.map(|(_, layer)| *layer)
}

/// What is wrong with module `from` using `to`, if anything is.
fn objection(from: &str, to: &str) -> Option<String> {
    let below = layer(from).expect("the module of a file has a layer");
    let Some(above) = layer(to) else {
        // Not a module: something that lib.rs exports from the upper layers.
        return (below < 4).then(|| format!("L{below} {from} uses what lib.rs exports, {to}"));
    };
    if from == to || below == 4 && above <= 4 {
        return None;
    }
    if STRANGERS.contains(&(from, to)) {
        return Some(format!("{from} must not know {to}"));
    }
    let neighbours = NEIGHBOURS.contains(&(from, to));
    (above >= below && !neighbours).then(|| format!("L{below} {from} uses L{above} {to}"))
}

#[test]
fn imports_go_downward() {
    // Goal: the layers hold. Method: resolves each path that begins with crate, super or self.
    let mut violations = Vec::new();
    for source in sources::below("runtime/src") {
        let Some(module) = source.module().first().cloned() else {
            continue;
        };
        if layer(&module).is_none() {
            violations.push(format!("{}: give {module} a layer in LAYERS", source.path));
            continue;
        }
        for (name, line) in source.names_in_crate() {
            if let Some(objection) = objection(&module, &name) {
                violations.push(format!("{}:{line}: {objection}", source.path));
            }
        }
    }
    none("imports go downward only", &violations);
}

#[test]
fn the_rule_of_layers_is_what_the_design_draws() {
    // Goal: the rule itself is right. Method: one pair of modules of each sort.
    for (from, to) in [
        ("sys", "poller"),
        ("poller", "context"),
        ("poller", "selector"),
        ("timer", "selector"),
        ("selector", "reactor"),
        ("reactor", "coroutine"),
        ("coroutine", "poller"),
        ("coroutine", "reactor"),
        ("sched", "net"),
        ("sched", "timeout"),
    ] {
        assert!(objection(from, to).is_some(), "{from} may use {to}");
    }
    for (from, to) in [
        ("poller", "poller"),
        ("poller", "sys"),
        ("selector", "poller"),
        ("reactor", "timer"),
        ("sched", "coroutine"),
        ("net", "thread"),
        ("thread", "timeout"),
    ] {
        assert_eq!(objection(from, to), None);
    }
}

/// What enters the kernel at `position`, if anything does there.
fn kernel_entry(source: &Source, position: usize) -> Option<String> {
    let name = source.text_at(position + 2);
    if source.reads(position, &["libc", "::"]) {
        let called = source.text_at(position + 3) == "(";
        let imported = source.reads(position.wrapping_sub(1), &["use"]);
        return (called || imported).then(|| format!("libc::{name}"));
    }
    let assembly = ["asm", "naked_asm", "global_asm"];
    if assembly.contains(&source.text_at(position)) && source.text_at(position + 1) == "!" {
        let end = (position..source.words.len()).find(|at| source.text_at(*at) == ")");
        let enters = |at: usize| {
            let text = source.text_at(at);
            text.contains("syscall") || text.contains("svc ") || text.contains("int 0x80")
        };
        let enters = (position..end.unwrap_or(position)).any(enters);
        return enters.then(|| "assembly that enters the kernel".to_owned());
    }
    let foreign = source.reads(position, &["extern"])
        && source.text_at(position + 1).starts_with('"')
        && source.text_at(position + 2) == "{";
    foreign.then(|| "a block of foreign functions".to_owned())
}

#[test]
fn system_calls_are_made_in_sys_only() {
    // Goal: one place for system calls, but for the server's models, whose subject they are.
    // Method: looks for libc's functions, for foreign ones and for assembly that enters the kernel;
    // an exception that nobody needs any more fails, too.
    let mut violations = Vec::new();
    let mut needed = BTreeSet::new();
    for source in product() {
        let apart = ["runtime/src/sys/", "server/src/models/"];
        if apart.iter().any(|path| source.path.starts_with(path)) {
            continue;
        }
        for (position, word) in source.product() {
            let Some(entry) = kernel_entry(&source, position) else {
                continue;
            };
            let excepted = EXCEPTIONS
                .iter()
                .find(|(path, what, _)| *path == source.path && *what == entry);
            match excepted {
                Some(exception) => drop(needed.insert(exception)),
                None => violations.push(format!("{}:{}: {entry}", source.path, word.line)),
            }
        }
    }
    for exception in EXCEPTIONS.iter().filter(|all| !needed.contains(all)) {
        violations.push(format!("{exception:?} is no longer needed"));
    }
    none("system calls are made in sys only", &violations);
}

#[test]
fn what_enters_the_kernel_is_seen() {
    // Goal: the rule above is not blind. Method: a snippet of each sort, and harmless neighbours.
    let entries = |text: &str| {
        let source = Source::new("runtime/src/net/tcp.rs", text);
        let entries = (0..source.words.len()).filter_map(|at| kernel_entry(&source, at));
        entries.count()
    };
    assert_eq!(entries("fn f() { unsafe { libc::recv(0, p, 1, 0) } }"), 1);
    assert_eq!(entries("use libc::recv;"), 1);
    assert_eq!(entries("fn f() { asm!(\"mov rax, 1\", \"syscall\") }"), 1);
    assert_eq!(entries("unsafe extern \"C\" { fn recv(fd: i32); }"), 1);
    assert_eq!(
        entries("fn f() { asm!(\"mov rsp, rax\", in(\"rax\") to) } // syscall"),
        0
    );
    assert_eq!(
        entries("extern \"C\" fn f(a: libc::c_int) -> bool { a == libc::EAGAIN }"),
        0
    );
}

#[test]
fn every_file_says_what_it_is() {
    // Goal: whoever opens a file learns what it is for. Method: its first line is `//!`; in the
    // runtime it names the module's layer, and the header ends with what is not there.
    let mut violations = Vec::new();
    for source in all() {
        let header: Vec<&str> = source
            .text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect();
        let Some(first) = header.first() else {
            violations.push(format!("{}:1: no //! header", source.path));
            continue;
        };
        let module = source.module().first().cloned();
        let in_runtime = source.path.starts_with("runtime/src/") && !source.is_test();
        let (true, Some(layer)) = (in_runtime, module.as_deref().and_then(layer)) else {
            continue;
        };
        if !first.starts_with(&format!("//! L{layer}. ")) {
            violations.push(format!(
                "{}:1: does not begin `//! L{layer}. `",
                source.path
            ));
        }
        if !header.join(" ").to_lowercase().contains("not here") {
            violations.push(format!("{}:1: does not say what is not here", source.path));
        }
    }
    none("every file opens with //! and its layer", &violations);
}

#[test]
fn files_and_functions_fit_the_eye() {
    // Goal: nothing grows beyond what can be read at once. Method: counts lines and columns.
    let mut violations = Vec::new();
    for source in all() {
        let path = &source.path;
        let lines = source.product_lines();
        if !source.is_test() && lines > FILE_LINES_MAX {
            violations.push(format!("{path}: {lines} lines without tests"));
        }
        for function in source.functions() {
            let (at, lines, name) = (function.lines.start, function.lines.len(), function.name);
            if lines > FUNCTION_LINES_MAX {
                violations.push(format!("{path}:{at}: {name} has {lines} lines"));
            }
        }
        for (index, line) in source.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                violations.push(format!("{path}:{}: {columns} columns", index + 1));
            }
        }
        if path.starts_with("runtime/examples/") && source.text.lines().count() > EXAMPLE_LINES_MAX
        {
            violations.push(format!(
                "{path}: an example of over {EXAMPLE_LINES_MAX} lines"
            ));
        }
    }
    none(
        "files under 500 lines, functions under 70, 100 columns",
        &violations,
    );
}

#[test]
fn nothing_is_unwrapped_outside_of_tests() {
    // Goal: the environment's faults are errors and our own have words. Method: looks for the
    // method; clippy does, too, but not inside of macros and examples.
    let mut violations = Vec::new();
    for source in product() {
        for (position, word) in source.product() {
            if source.reads(position, &[".", "unwrap", "(", ")"]) {
                violations.push(format!("{}:{}", source.path, word.line));
            }
        }
    }
    none("no unwrap() outside of tests", &violations);
}

/// The names that stand left of `=` in the named tables of a Cargo.toml, or of a lock file.
fn keys(manifest: &str, wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let text = fs::read_to_string(sources::project().join(manifest))
        .expect("the project has its manifests");
    let mut keys = BTreeSet::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some(table) = line.strip_prefix('[') {
            inside = wanted(table.trim_end_matches(']'));
        } else if let (true, Some((key, _))) = (inside, line.split_once('=')) {
            keys.insert(key.trim().trim_end_matches(".workspace").to_owned());
        }
    }
    keys
}

#[test]
fn the_runtime_stands_on_three_crates() {
    // Goal: the reactor and the switch are this project's own. Method: reads the manifest and the
    // product's lock file, in which none of the runtimes and wrappers may turn up either.
    let dependencies = keys("runtime/Cargo.toml", |table| {
        table.ends_with("dependencies") && !table.ends_with("dev-dependencies")
            || table.contains("dependencies.")
    });
    let allowed = ["libc", "log", "slab"].map(str::to_owned);
    assert_eq!(dependencies, BTreeSet::from(allowed));

    let lock = fs::read_to_string(sources::project().join("Cargo.lock")).unwrap();
    for refused in [
        "mio",
        "polling",
        "tokio",
        "corosensei",
        "nix",
        "rustix",
        "may",
    ] {
        let entry = format!("name = \"{refused}\"");
        assert!(!lock.contains(&entry), "{refused} is in Cargo.lock");
    }
}

#[test]
fn the_file_map_is_complete() {
    // Goal: the map in ARCHITECTURE.md can be trusted. Method: compares its rows with the files.
    let text = fs::read_to_string(sources::project().join("runtime/ARCHITECTURE.md")).unwrap();
    let mut mapped = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let row = line
            .strip_prefix("| `src/")
            .and_then(|row| row.split_once("` |"));
        if let Some((path, rest)) = row {
            let path = format!("src/{path}");
            assert!(
                rest.trim_matches([' ', '|']).len() > 10,
                "{path} is listed without a word"
            );
            assert!(
                mapped.insert(path, index + 1).is_none(),
                "listed twice: {line}"
            );
        }
    }
    let files: BTreeSet<String> = sources::below("runtime/src")
        .into_iter()
        .filter_map(|source| source.path.strip_prefix("runtime/").map(str::to_owned))
        .collect();
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| !mapped.contains_key(*file)) {
        violations.push(format!("runtime/{file} is not in the map"));
    }
    for (file, line) in mapped.iter().filter(|(file, _)| !files.contains(*file)) {
        violations.push(format!(
            "runtime/ARCHITECTURE.md:{line}: {file} does not exist"
        ));
    }
    none("the file map lists exactly the source files", &violations);
}
