//! Where the tests find the product's programs, built from the sources as they are now.
//!
//! Test support. `cargo test` builds the tests, not the programs of other packages, so a test that
//! starts `server` could meet yesterday's. Here cargo is asked to bring the program up to date
//! first, once a process, with the profile and for the target that the test itself was built with:
//! both are read from where the running test executable lies
//! (`TARGET-DIR/[TARGET/]PROFILE/deps/NAME`).
//!
//! Deliberately not here: starting the programs, which each test does in its own way. And no build
//! at all if `TESTS_BINARIES` names a directory: the programs in it are taken as they are, which is
//! how the tests run where there is no cargo (an emulator, an installed copy).

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The up-to-date `server` program.
///
/// # Panics
///
/// If it cannot be built; the panic carries what cargo said.
pub fn server() -> PathBuf {
    static SERVER: Program = Program::new();
    found(SERVER.get_or_init(|| program("server")))
}

/// The up-to-date `client` program.
///
/// # Panics
///
/// If it cannot be built; the panic carries what cargo said.
pub fn client() -> PathBuf {
    static CLIENT: Program = Program::new();
    found(CLIENT.get_or_init(|| program("client")))
}

/// The up-to-date example of the runtime with this name.
///
/// # Panics
///
/// If it cannot be built; the panic carries what cargo said.
pub fn example(name: &str) -> PathBuf {
    static EXAMPLES: Program = Program::new();
    let build_all = || {
        let executable = env::current_exe().expect("a running test has a path");
        let build = build_of(&executable);
        run_cargo("runtime", &["--examples"], &build)?;
        Ok(build.programs.join("examples"))
    };
    let directory = found(EXAMPLES.get_or_init(build_all));
    directory.join(format!("{name}{}", env::consts::EXE_SUFFIX))
}

/// Where the program is, or why it could not be built: a build that fails is not tried again by
/// every test of the process.
type Program = OnceLock<Result<PathBuf, String>>;

fn found(program: &Result<PathBuf, String>) -> PathBuf {
    match program {
        Ok(path) => path.clone(),
        Err(message) => panic!("{message}"),
    }
}

/// What the path of a test executable tells of its build.
struct Build {
    target_directory: PathBuf,
    target: Option<String>,
    profile: String,
    /// Where this build's programs are put.
    programs: PathBuf,
}

fn program(package: &str) -> Result<PathBuf, String> {
    let file_name = format!("{package}{}", env::consts::EXE_SUFFIX);
    if let Some(directory) = env::var_os("TESTS_BINARIES") {
        return existing(
            Path::new(&directory).join(&file_name),
            "which TESTS_BINARIES names",
        );
    }
    let executable = env::current_exe().expect("a running test has a path");
    let build = build_of(&executable);
    run_cargo(package, &["--bin", package], &build)?;
    existing(
        build.programs.join(&file_name),
        "which cargo has just built",
    )
}

fn existing(path: PathBuf, origin: &str) -> Result<PathBuf, String> {
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!("no {}, {origin}", path.display()))
    }
}

/// The target directory is told from a target's subdirectory by what cargo puts there: a
/// `CACHEDIR.TAG` if cargo itself made the directory, and what it knows of the compiler anyway.
fn build_of(executable: &Path) -> Build {
    let deps = executable.parent().expect("a test lies in `deps`");
    let programs = if deps.ends_with("deps") {
        deps.parent().expect("above `deps`")
    } else {
        deps
    };
    let name = |path: &Path| {
        let name = path.file_name().expect("a directory of a build has a name");
        name.to_str()
            .expect("cargo's directories have plain names")
            .to_owned()
    };
    let above = programs
        .parent()
        .expect("a profile's directory lies in the target directory");
    let marks = ["CACHEDIR.TAG", ".rustc_info.json"];
    let is_target_directory = marks.iter().any(|mark| above.join(mark).exists());
    let (target_directory, target) = if is_target_directory {
        (above, None)
    } else {
        (
            above
                .parent()
                .expect("a target lies in the target directory"),
            Some(name(above)),
        )
    };
    // The one profile whose directory is named otherwise.
    let profile = match name(programs).as_str() {
        "debug" => "dev".to_owned(),
        other => other.to_owned(),
    };
    Build {
        target_directory: target_directory.to_owned(),
        target,
        profile,
        programs: programs.to_owned(),
    }
}

fn run_cargo(package: &str, what: &[&str], build: &Build) -> Result<(), String> {
    // The cargo that runs this test, or else the one that compiled it.
    let cargo = env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let mut command = Command::new(cargo);
    command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(["build", "--quiet", "--package", package])
        .args(what)
        .args(["--profile", &build.profile])
        .arg("--target-dir")
        .arg(&build.target_directory)
        .stdin(Stdio::null());
    if let Some(target) = &build.target {
        command.args(["--target", target]);
    }
    // What cargo tells a test about the test's own package must not look like a changed environment
    // to the build scripts of this build: they would run again, every time.
    for (name, _) in env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
        let exact = [
            "CARGO_CRATE_NAME",
            "CARGO_PRIMARY_PACKAGE",
            "CARGO_TARGET_TMPDIR",
        ];
        if of_package.iter().any(|prefix| name.starts_with(prefix)) || exact.contains(&name) {
            command.env_remove(name);
        }
    }
    let output = command.output().expect("cargo can be started");
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "`cargo build --package {package}` failed ({}):\n{said}",
        output.status
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_is_read_from_the_path_of_the_test() {
        // Goal: profile, target and directories are told from each layout that cargo makes.
        // Method: lays out directories with and without a target's level and asks for each.
        let root = env::temp_dir().join(format!("tests-binaries-{}", std::process::id()));
        let deps_plain = root.join("debug/deps");
        let deps_cross = root.join("aarch64-unknown-linux-gnu/release/deps");
        std::fs::create_dir_all(&deps_plain).unwrap();
        std::fs::create_dir_all(&deps_cross).unwrap();
        std::fs::write(root.join("CACHEDIR.TAG"), "").unwrap();

        let plain = build_of(&deps_plain.join("client-0123"));
        assert_eq!((plain.profile.as_str(), plain.target), ("dev", None));
        assert_eq!(plain.target_directory, root);
        assert_eq!(plain.programs, root.join("debug"));

        let cross = build_of(&deps_cross.join("client-0123"));
        assert_eq!(cross.profile, "release");
        assert_eq!(cross.target.as_deref(), Some("aarch64-unknown-linux-gnu"));
        assert_eq!(cross.target_directory, root);
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn the_programs_are_there_once_asked_for() {
        // Goal: both programs exist after the call. Method: asks for them and looks.
        assert!(client().is_file());
        assert!(server().is_file());
    }
}
