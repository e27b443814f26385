//! `client compare` end to end: the product's own server, and scripts that break the rules.
//!
//! Every run has a mark in its environment, which all that it starts inherit; so it is found out
//! whether anything was left running. Man pages: proc(5) (`environ`), kill(2).
//!
//! Deliberately not here: whether the numbers are right. They are the machine's; their parts have
//! unit tests in the client.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    reason = "all of this is test code, the helpers too"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::binaries;

/// Longer than any of these runs takes on a busy machine; only a hang gets here.
const DEADLINE: Duration = Duration::from_secs(120);

/// The variable that marks all processes of a run.
const MARK: &str = "CLIENT_COMPARE_TEST";

/// Small enough for a machine that does other things, too.
const SHORT: [&str; 6] = [
    "--connections",
    "20",
    "--duration",
    "300ms",
    "--rounds",
    "1",
];

/// A directory that goes away with what is in it, and the mark of what runs there.
struct Place {
    directory: PathBuf,
    mark: String,
}

impl Place {
    fn new(name: &str) -> Place {
        let mark = format!("{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(format!("client-compare-test-{mark}"));
        fs::create_dir(&directory).unwrap();
        Place { directory, mark }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// `client compare words...`, with the report in this place.
    fn compare(&self, words: &[&str]) -> Child {
        // It finds the server beside itself.
        assert_eq!(binaries::server().parent(), binaries::client().parent());
        let mut command = Command::new(binaries::client());
        command.arg("compare").args(words);
        command.arg("--html").arg(self.file("report.html"));
        command.arg("--json").arg(self.file("report.json"));
        command.env(MARK, &self.mark).env_remove("RUST_LOG");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// As `compare`, to its end, after which nothing of it may run.
    fn run(&self, words: &[&str]) -> Ended {
        self.finish(self.compare(words))
    }

    fn finish(&self, child: Child) -> Ended {
        let process = child.id();
        let (tx, rx) = mpsc::channel();
        thread::spawn(move || tx.send(child.wait_with_output()));
        let Ok(output) = rx.recv_timeout(DEADLINE) else {
            signal(process, libc::SIGKILL);
            panic!("client compare did not end");
        };
        let output = output.unwrap();
        assert_eq!(self.still_running(), Vec::<String>::new());
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The command lines of all processes with this place's mark.
    fn still_running(&self) -> Vec<String> {
        let wanted = format!("{MARK}={}", self.mark);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment
                .split(|byte| *byte == 0)
                .any(|one| one == wanted.as_bytes())
            {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push(String::from_utf8_lossy(&line).replace('\0', " "));
            }
        }
        found
    }

    /// Waits until something with this command line runs here.
    fn wait_for(&self, line: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.still_running().iter().any(|one| one.trim() == line) {
            assert!(Instant::now() < deadline, "{line} was not started");
            thread::yield_now();
        }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&fs::read(self.file("report.json")).unwrap()).unwrap()
    }

    fn html(&self) -> String {
        fs::read_to_string(self.file("report.html")).unwrap()
    }

    /// A program that is a server of its own making: `arms` are those of a shell's `case` over the
    /// name of the model, and `$SERVER` is the true server.
    fn script(&self, models: &[&str], arms: &str) -> PathBuf {
        let list: Vec<String> = models
            .iter()
            .map(|model| format!("          - {model}: What {model} is"))
            .collect();
        let script = format!(
            "#!/bin/sh\nSERVER='{}'\nif [ \"$1\" = --help ]; then cat <<'END'\n      --model \
             <NAME>\n{}\nEND\nexit; fi\nfor last; do :; done\ncase $last in\n{arms}\nesac\n",
            binaries::server().display(),
            list.join("\n")
        );
        let path = self.file("server.sh");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    /// The row of the table that begins with this name.
    #[track_caller]
    fn row(&self, name: &str) -> Vec<&str> {
        let mut rows = self
            .stdout
            .lines()
            .map(|line| line.split_whitespace().collect());
        let row = rows.find(|row: &Vec<&str>| row.first() == Some(&name));
        row.unwrap_or_else(|| panic!("no row {name}:\n{}{}", self.stdout, self.stderr))
    }
}

fn signal(process: u32, number: i32) {
    // SAFETY: kill(2) takes numbers only; the child has not been reaped, so the number is its own.
    let result = unsafe { libc::kill(process as libc::pid_t, number) };
    assert_eq!(result, 0, "kill: {}", std::io::Error::last_os_error());
}

/// Fails unless every element that begins ends, in order.
#[track_caller]
fn assert_well_formed(markup: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = markup;
    while let Some(at) = rest.find('<') {
        let end = at + rest[at..].find('>').expect("every tag ends");
        let tag = &rest[at + 1..end];
        let between = &rest[..at];
        assert!(!between.contains("<"), "{between}");
        let name = tag
            .trim_start_matches('/')
            .split([' ', '\n', '/'])
            .next()
            .unwrap();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "in order");
        } else if !tag.ends_with('/') && !tag.starts_with('!') {
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            open.push(name);
        }
        rest = &rest[end + 1..];
    }
    assert_eq!(open, Vec::<&str>::new());
}

#[track_caller]
fn assert_leads_nowhere(markup: &str) {
    for text in [
        "src=", "href=", "url(", "@import", "<script", "<link", "<iframe", "https:",
    ] {
        assert!(!markup.contains(text), "{text}");
    }
}

#[test]
fn three_models_are_compared() {
    // Goal: a table, a page, a picture and numbers of each model; a model that lets others wait is
    // told by those it serves. Method: a short comparison with the product's server.
    let place = Place::new("three");
    let picture = place.file("report.svg");
    let models = [
        "--models",
        "green,blocking,threads",
        "--svg",
        picture.to_str().unwrap(),
    ];
    let ended = place.run(&[&SHORT[..], &models].concat());
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(
        ended
            .stdout
            .contains(place.file("report.html").to_str().unwrap())
    );
    for (model, served) in [("green", 20), ("blocking", 1), ("threads", 20)] {
        let row = ended.row(model);
        assert!(row.ends_with(&[&served.to_string(), "of", "20"]), "{row:?}");
    }
    let json = place.json();
    for (index, name) in ["green", "blocking", "threads"].into_iter().enumerate() {
        let model = &json["models"][index];
        assert_eq!(model["name"], name);
        let median = &model["steps"][0]["median"];
        for key in ["requests_per_s", "p50_ns", "p99_ns", "cpu_per_request_ns"] {
            assert!(
                median[key].as_f64().unwrap() > 0.0,
                "{name} {key}: {median}"
            );
        }
        assert!(median["curve"].as_array().unwrap().len() > 2);
    }
    // One OS thread that serves all has less to switch than one for each.
    let switches = |index: usize| {
        let median = &json["models"][index]["steps"][0]["median"];
        median["switches_per_request"].as_f64().unwrap()
    };
    assert!(switches(0) < switches(2), "{} {}", switches(0), switches(2));

    let html = place.html();
    assert_well_formed(&html);
    assert_leads_nowhere(&html);
    assert!(!html.contains("http:"));
    for text in [
        "green",
        "blocking",
        "threads",
        "answers 1 at once",
        "prefers-color-scheme",
    ] {
        assert!(html.contains(text), "{text}");
    }
    let svg = fs::read_to_string(&picture).unwrap();
    assert_well_formed(&svg);
    assert_leads_nowhere(&svg);
}

#[test]
fn system_calls_are_counted_or_their_lack_is_told() {
    // Goal: an echo of green threads takes its two calls and little more; without strace there is a
    // note with the remedy. Method: runs with and without strace in PATH.
    let place = Place::new("calls");
    let words = [&SHORT[..], &["--models", "green"]].concat();
    let ended = place.run(&words);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    match place.json()["models"][0]["system_calls"]["per_request"].as_f64() {
        Some(calls) => assert!((1.9..4.0).contains(&calls), "{calls}"),
        None => {
            eprintln!("not counted here, as it is told");
            assert!(ended.stdout.contains("system calls were not counted"));
        }
    }
    let mut command = Command::new(binaries::client());
    command
        .arg("compare")
        .args(&words)
        .arg("--html")
        .arg(place.file("report.html"));
    command.env(MARK, &place.mark).env("PATH", &place.directory);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let ended = place.finish(command.spawn().unwrap());
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(
        ended.stdout.contains("apt-get install strace"),
        "{}",
        ended.stdout
    );
    assert!(ended.row("green").contains(&"-"));
}

#[test]
fn a_sweep_measures_at_each_number_of_connections() {
    // Goal: --sweep adds its steps, and curves over them. Method: one model, briefly.
    let place = Place::new("sweep");
    let words = [
        "--sweep",
        "--models",
        "green",
        "--duration",
        "100ms",
        "--rounds",
        "1",
    ];
    let ended = place.run(&words);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let json = place.json();
    let steps = json["models"][0]["steps"].as_array().unwrap();
    let connections: Vec<u64> = steps
        .iter()
        .map(|step| step["connections"].as_u64().unwrap())
        .collect();
    assert_eq!(connections, [1, 10, 100, 400, 2_000]);
    assert!(place.html().contains("id=\"sweep-throughput\""));
}

#[test]
fn what_cannot_be_compared_is_refused() {
    // Goal: a server that is not there, one that has no models, an unknown model and a report that
    // cannot be written are told before anything runs. Method: one of each.
    let place = Place::new("refused");
    let ended = place.run(&["--server", "/nonexistent/server"]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("/nonexistent/server"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("cargo build"), "{}", ended.stderr);

    let ended = place.run(&["--models", "green,gren"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("`gren`"), "{}", ended.stderr);
    assert!(ended.stderr.contains("epoll"), "{}", ended.stderr);

    let ended = place.run(&["--server", "/bin/true"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("no models"), "{}", ended.stderr);

    let ended = place.run(&["--svg", "/nonexistent/picture.svg"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("--svg"), "{}", ended.stderr);
    assert!(!place.file("report.html").exists());
}

#[test]
fn a_model_that_fails_does_not_hold_up_the_others() {
    // Goal: dying under the load, ending in error, and leaving somebody behind are failures, with
    // the reason; lacking a model is none; the others are measured; all of it is ended. Method: a
    // script that does each of these.
    let place = Place::new("failing");
    let models = ["dying", "lacking", "leaving", "green", "<b>\"'&"];
    let server = place.script(
        &models,
        "dying) echo listening on 127.0.0.1:1; echo 'worn out' >&2; exit 7;;\n\
         lacking) echo 'not with this kernel' >&2; exit 1;;\n\
         leaving) trap 'exit 0' TERM; $SERVER --listen 127.0.0.1:0 --model green &\n\
         while :; do wait; done;;\n\
         green) exec $SERVER --listen 127.0.0.1:0 --model green;;\n\
         *) echo '<i>&\"' >&2; exit 1;;",
    );
    let server = ["--server", server.to_str().unwrap()];
    let ended = place.run(&[&SHORT[..], &server].concat());
    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
    for text in [
        "dying failed: the server ended under the load (exit status: 7): worn out",
        "leaving failed: the server left 1 processes behind",
        "lacking: not with this kernel",
    ] {
        assert!(ended.stdout.contains(text), "{text}:\n{}", ended.stdout);
    }
    assert!(ended.row("green").ends_with(&["20", "of", "20"]));
    assert_eq!(ended.row("dying"), ["dying", "failed"]);
    let html = place.html();
    assert_well_formed(&html);
    assert!(html.contains("worn out") && html.contains("&lt;i&gt;&amp;&quot;"));
    assert!(!html.contains("<i>"));
}

#[test]
fn ctrl_c_stops_everything() {
    // Goal: after SIGINT the exit code is 130, what was measured is reported, and nothing runs on.
    // Method: interrupts a long load.
    let place = Place::new("interrupted");
    let words = [
        "--models",
        "green,threads",
        "--connections",
        "20",
        "--rounds",
        "1",
    ];
    let mut child = place.compare(&[&words[..], &["--duration", "1h"]].concat());
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let (tx, rx) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        while stderr.read_line(&mut line).is_ok_and(|count| count > 0) {
            if line.contains("round 1 of 1") {
                let _ = tx.send(());
            }
            line.clear();
        }
        let _ = stderr.read_to_string(&mut line);
    });
    rx.recv_timeout(DEADLINE).expect("the load begins");
    signal(child.id(), libc::SIGINT);
    let ended = place.finish(child);
    assert_eq!(ended.code, Some(130), "{}", ended.stdout);
    assert!(ended.stdout.contains("(interrupted)"), "{}", ended.stdout);
    assert_eq!(place.json()["interrupted"], true);
    assert_well_formed(&place.html());
    assert!(Path::new(&place.file("report.html")).exists());
}

#[test]
fn a_second_signal_leaves_nothing_behind_either() {
    // Goal: who is impatient loses nothing by it: also a server that strace runs is ended. Method:
    // a server that says nothing where strace is its parent, and two signals at once.
    if Command::new("strace").arg("-V").output().is_err() {
        println!("skipped: there is no strace");
        return;
    }
    let place = Place::new("impatient");
    let arms = "shy) read parent </proc/$PPID/comm\n\
                if [ \"$parent\" = strace ]; then exec sleep 1000; fi\n\
                exec \"$SERVER\" --listen 127.0.0.1:0 ;;";
    let server = place.script(&["shy"], arms);
    let child = place.compare(&[&["--server", server.to_str().unwrap()], &SHORT[..]].concat());
    place.wait_for("sleep 1000");
    signal(child.id(), libc::SIGINT);
    signal(child.id(), libc::SIGTERM);
    let ended = place.finish(child);
    assert!(
        matches!(ended.code, Some(130 | 143)),
        "{}{}",
        ended.stdout,
        ended.stderr
    );
    assert_eq!(place.json()["interrupted"], true);
}

#[test]
fn a_server_that_tells_nothing_can_be_interrupted() {
    // Goal: asking for the models is no wait that only force ends. Method: a server that hangs
    // whatever it is asked, and Ctrl-C.
    let place = Place::new("mute");
    let server = place.file("mute.sh");
    fs::write(&server, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&server, fs::Permissions::from_mode(0o755)).unwrap();
    let child = place.compare(&["--server", server.to_str().unwrap()]);
    place.wait_for("sleep 1000");
    signal(child.id(), libc::SIGINT);
    let ended = place.finish(child);
    assert_eq!(ended.code, Some(130), "{}{}", ended.stdout, ended.stderr);
}
