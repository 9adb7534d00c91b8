//! Compiles C programs against `libraio.h` and the library, which it builds, and runs them.
#![allow(dead_code, clippy::unwrap_used, reason = "each test program uses a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Time for one program, under valgrind on a busy machine.
const PROGRAM_TIME: Duration = Duration::from_secs(240);

/// The library as it is now, of the same profile as this test. Cargo builds no library for tests that can't link with it
/// as Rust does, so it is asked to; where nothing has changed that is done at once.
pub fn library() -> PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(build).clone()
}

fn build() -> PathBuf {
    // This program is TARGET/PROFILE/deps/NAME.
    let program = std::env::current_exe().unwrap();
    let mut folders = program.ancestors().skip(2);
    let (folder, target) = (folders.next().unwrap(), folders.next().unwrap());
    let profile = match folder.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        other => other,
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--package", "libraio", "--profile", profile, "--target-dir"])
        .arg(target);
    // What a cargo sets for its tests must not reach another cargo, or it builds things anew.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder.join("libraio.so")
}

/// A file of this package.
pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A compiled program, and the folder in which it finds its library.
pub struct Program {
    folder: Arc<TempDir>,
    name: &'static str,
}

impl Program {
    /// Compiles a C source of this package, warnings being errors.
    pub fn compile(name: &'static str) -> Program {
        Program::compile_with(name, &["gcc", "-std=gnu11"])
    }

    /// Compiles with another compiler or language.
    pub fn compile_with(name: &'static str, compiler: &[&str]) -> Program {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        for link in ["libraio.so", "libraio.so.0"] {
            std::os::unix::fs::symlink(library(), folder.path().join(link)).unwrap();
        }
        let program = Program { folder, name };
        let output = Command::new(compiler[0])
            .args(&compiler[1..])
            .args(["-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-I"])
            .arg(source("include"))
            .arg(source(name))
            .arg("-L")
            .arg(program.folder.path())
            .arg("-lraio")
            .arg("-o")
            .arg(program.path())
            .output()
            .unwrap_or_else(|cause| panic!("{}: {cause}; is it installed?", compiler[0]));
        assert!(output.status.success(), "{name}:\n{}", String::from_utf8_lossy(&output.stderr));
        program
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("program")
    }

    /// Starts it.
    pub fn start<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S], variables: &[(&str, &str)]) -> Run {
        let mut command = Command::new(self.path());
        command.args(arguments);
        self.start_command(command, variables)
    }

    /// Starts it under memcheck.
    pub fn start_checked<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: &[S],
        variables: &[(&str, &str)],
    ) -> Run {
        let mut command = Command::new("valgrind");
        command
            .args(["--quiet", "--error-exitcode=99", "--child-silent-after-fork=yes", "--leak-check=full"])
            .args(["--errors-for-leak-kinds=definite", "--show-leak-kinds=definite", "--track-fds=no"])
            .arg(format!("--suppressions={}", source("tests/c/valgrind.supp").display()))
            .arg(self.path())
            .args(arguments);
        self.start_command(command, variables)
    }

    fn start_command(&self, mut command: Command, variables: &[(&str, &str)]) -> Run {
        let child = command
            .env("LD_LIBRARY_PATH", self.folder.path())
            .env_remove("RAIO_LOG")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its children, too, end with it when the test gives it up.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|cause| panic!("{:?}: {cause}; is it installed?", command.get_program()));
        Run {
            child,
            _folder: Arc::clone(&self.folder),
            name: self.name,
            started: Instant::now(),
            ended: false,
        }
    }

    /// Runs it to its end, which must be a good one; its output.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> String {
        self.start(arguments, &[]).end()
    }
}

/// A running program.
pub struct Run {
    child: Child,
    /// Where its library is.
    _folder: Arc<TempDir>,
    name: &'static str,
    started: Instant,
    ended: bool,
}

impl Run {
    /// Waits until the program says this word, and keeps it waiting.
    pub fn meet(&mut self, word: &str) {
        let mut line = String::new();
        // Byte by byte, so that nothing is taken that belongs to the next meeting.
        let output = self.child.stdout.as_mut().unwrap();
        let mut reader = BufReader::with_capacity(1, output);
        let _ = reader.read_line(&mut line);
        if line.trim() != word {
            self.fail(&format!("it was to say {word:?}, but said {line:?}"));
        }
    }

    /// Lets it go on.
    pub fn go_on(&mut self) {
        let _ = self.child.stdin.as_mut().unwrap().write_all(b"go on\n");
    }

    /// Waits for a good end, without a word on standard error; the output.
    pub fn end(self) -> String {
        let (output, words) = self.finish();
        assert!(words.is_empty(), "{words}");
        output
    }

    /// Waits for a good end; what it said on standard error.
    pub fn end_with_words(self) -> String {
        self.finish().1
    }

    fn finish(mut self) -> (String, String) {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if self.started.elapsed() > PROGRAM_TIME {
                self.fail("it hangs");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        self.ended = true;
        let (output, words) = self.words();
        let (name, signal) = (self.name, status.signal());
        assert!(status.success(), "{name}: {status}, signal {signal:?}\n{output}\n{words}");
        (output, words)
    }

    fn words(&mut self) -> (String, String) {
        let (mut output, mut words) = (String::new(), String::new());
        let _ = self.child.stdout.take().map(|mut pipe| pipe.read_to_string(&mut output));
        let _ = self.child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut words));
        (output, words)
    }

    fn fail(&mut self, what: &str) -> ! {
        self.kill();
        let (output, words) = self.words();
        panic!("{}: {what}\n{output}\n{words}", self.name);
    }

    fn kill(&mut self) {
        let group = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.child.wait();
        self.ended = true;
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
        }
    }
}
