//! Where cases are run: a folder on disk, a server that exports it, and fio with the engine.

use crate::child::Running;
use crate::fio::Engine;
use crate::{Result, server, target};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// No case's fio takes longer, hung servers included.
pub(super) const FIO_TIME: Duration = Duration::from_secs(120);

/// How fio reaches the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Network,
    /// By a socket that names the memory.
    SharedMemory,
}

/// Folder, server and fio.
pub(super) struct Ground {
    pub(super) engine: Engine,
    home: TempDir,
    by: By,
    /// The first is there in every case; others are of the case.
    servers: Vec<Server>,
    /// Names of the cases' folders.
    number: u32,
    /// Sockets that servers have listened at.
    number_of_sockets: u32,
}

/// A raio-server with the exports `data` (a folder), `ro` (the same, read-only), `null` and `memory`.
pub(super) struct Server {
    server: server::Server,
    /// 0 for one that is reached by its socket.
    pub(super) port: u16,
    socket: PathBuf,
}

/// What fio did.
pub(super) struct Ran {
    pub(super) succeeded: bool,
    /// What it wrote to stderr, and to stdout.
    pub(super) text: String,
    /// Its report; null where it got that far only in part.
    pub(super) report: Value,
    pub(super) time: Duration,
}

impl Ground {
    pub(super) fn new(engine: Engine) -> Result<Ground> {
        let target = target();
        // Not the system's folder for temporary files, which may lie in memory: O_DIRECT is among what is tried.
        let home = tempfile::Builder::new()
            .prefix("fio-matrix-")
            .tempdir_in(&target)
            .map_err(|cause| format!("{}: {cause}", target.display()))?;
        Ok(Ground { engine, home, by: By::Network, servers: Vec::new(), number: 0, number_of_sockets: 0 })
    }

    /// From now on cases reach their servers so.
    pub(super) fn reach_by(&mut self, by: By) {
        self.by = by;
        self.servers.clear();
    }

    /// An empty folder and one server, for the next case.
    pub(super) fn prepare(&mut self) -> Result<()> {
        let old = self.data();
        if old.exists() {
            fs::remove_dir_all(&old).map_err(|cause| format!("{}: {cause}", old.display()))?;
        }
        self.number += 1;
        let data = self.data();
        fs::create_dir_all(&data).map_err(|cause| format!("{}: {cause}", data.display()))?;
        self.servers.truncate(1);
        if self.servers.first_mut().is_some_and(Server::is_over) {
            self.servers.clear();
        }
        if self.servers.is_empty() {
            self.start_another()?;
        }
        Ok(())
    }

    /// Ends all servers; the next case starts its own.
    pub(super) fn stop_servers(&mut self) {
        self.servers.clear();
    }

    /// The case's folder, on this machine's disk.
    pub(super) fn data(&self) -> PathBuf {
        self.home.path().join("export").join(format!("case{}", self.number))
    }

    /// A file's name for fio.
    pub(super) fn name(&self, file: &str) -> String {
        self.name_at(0, file)
    }

    /// As [`Ground::name`], at one of several servers.
    pub(super) fn name_at(&self, server: usize, file: &str) -> String {
        self.place(server, &format!("data/case{}/{file}", self.number))
    }

    /// The socket that sample jobs are given.
    pub(super) fn sample_socket(&self) -> PathBuf {
        self.home.path().join("sample.sock")
    }

    /// A file's name at the read-only export.
    pub(super) fn read_only_name(&self, file: &str) -> String {
        self.place(0, &format!("ro/case{}/{file}", self.number))
    }

    /// A path at a server, as a name for fio.
    pub(super) fn place(&self, server: usize, path: &str) -> String {
        match (self.by, self.servers.get(server)) {
            (By::SharedMemory, Some(server)) => {
                // From the folder that fio runs in: the name is short then.
                let socket = server.socket.strip_prefix(self.home.path()).unwrap_or(&server.socket);
                format!("shm\\:///{path}?socket={}", socket.display())
            }
            _ => format!("/127.0.0.1/{}/{path}", self.port_of(server)),
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.port_of(0)
    }

    fn port_of(&self, server: usize) -> u16 {
        self.servers.get(server).map_or(0, |server| server.port)
    }

    pub(super) fn server(&mut self) -> Result<&mut Server> {
        self.servers.first_mut().ok_or_else(|| "there is no server".to_owned())
    }

    /// Starts one more server over the same folder, and says its number.
    pub(super) fn start_another(&mut self) -> Result<usize> {
        let server = match self.by {
            By::Network => self.start("tcp://127.0.0.1:0")?,
            By::SharedMemory => {
                self.number_of_sockets += 1;
                let socket = self.home.path().join(format!("{}.sock", self.number_of_sockets));
                self.start(&format!("shm://{}", socket.display()))?
            }
        };
        self.servers.push(server);
        Ok(self.servers.len() - 1)
    }

    /// Starts a server for one address.
    pub(super) fn start(&self, listen: &str) -> Result<Server> {
        let export = self.home.path().join("export");
        fs::create_dir_all(&export).map_err(|cause| format!("{}: {cause}", export.display()))?;
        Server::start(&mut server_command(), &export, listen)
    }

    /// Ends the server and starts it again at the same address.
    pub(super) fn restart(&mut self) -> Result<()> {
        let listen = match self.by {
            By::Network => format!("tcp://127.0.0.1:{}", self.port()),
            By::SharedMemory => format!("shm://{}", self.server()?.socket.display()),
        };
        if !self.servers.is_empty() {
            self.servers.remove(0).server.end();
        }
        let server = self.start(&listen)?;
        self.servers.insert(0, server);
        Ok(())
    }

    /// Runs fio with the engine; options without dashes.
    pub(super) fn fio(&self, options: &[String]) -> Result<Ran> {
        self.start_fio(options)?.wait()
    }

    /// As [`Ground::fio`]; an end with an error is one of the case.
    pub(super) fn fio_well(&self, options: &[String]) -> Result<Ran> {
        let ran = self.fio(options)?;
        if ran.succeeded {
            return Ok(ran);
        }
        Err(format!("fio {} failed:\n{}", options.join(" "), ran.text.trim_end()))
    }

    /// As [`Ground::fio`]; a good end is an error, and so is one whose message has not all of the texts in it.
    pub(super) fn fio_badly(&self, options: &[String], texts: &[&str]) -> Result<Ran> {
        let ran = self.fio(options)?;
        ran.failed_with(options, texts)?;
        Ok(ran)
    }

    /// Starts fio with the engine.
    pub(super) fn start_fio(&self, options: &[String]) -> Result<StartedFio> {
        let output = tempfile::NamedTempFile::new_in(self.home.path())
            .map_err(|cause| format!("{}: {cause}", self.home.path().display()))?;
        let mut command = self.engine.command();
        command.current_dir(self.home.path()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.args(["--eta=never", "--output-format=json"]);
        command.arg(format!("--output={}", output.path().display()));
        if !options.iter().any(|option| option.ends_with(".fio")) {
            command.args(["--name=case", "--ioengine=libraio"]);
        }
        command.args(options.iter().map(|option| match option.ends_with(".fio") {
            true => option.clone(),
            false => format!("--{option}"),
        }));
        for (name, value) in [("RAIO_HOST", "127.0.0.1".to_owned()), ("RAIO_PORT", self.port().to_string())] {
            command.env(name, value);
        }
        command.env("RAIO_EXPORT", format!("data/case{}", self.number));
        command.env("RAIO_SOCKET", self.sample_socket());
        let mut running = Running::start(&mut command)?;
        let out = collect(running.child().stdout.take());
        let err = collect(running.child().stderr.take());
        Ok(StartedFio { running, out, err, output, begun: Instant::now() })
    }
}

/// fio on its way.
pub(super) struct StartedFio {
    running: Running,
    out: mpsc::Receiver<String>,
    err: mpsc::Receiver<String>,
    output: tempfile::NamedTempFile,
    begun: Instant,
}

impl StartedFio {
    /// Waits for its end.
    pub(super) fn wait(mut self) -> Result<Ran> {
        let status = self.running.wait(FIO_TIME)?;
        let time = self.begun.elapsed();
        // A job's process that outlives fio would keep the pipes open; what came by then is enough.
        let text =
            |pipe: &mpsc::Receiver<String>| pipe.recv_timeout(Duration::from_secs(5)).unwrap_or_default();
        let report = fs::read_to_string(self.output.path()).unwrap_or_default();
        // Notes stand before the report.
        let json = report.find('{').map_or("", |start| &report[start..]);
        let notes = &report[..report.len() - json.len()];
        let text = format!("{}{}{notes}", text(&self.err), text(&self.out));
        let report = serde_json::from_str(json).unwrap_or(Value::Null);
        Ok(Ran { succeeded: status.success(), text, report, time })
    }
}

impl Ran {
    /// That it failed, with all of the texts in what it said.
    pub(super) fn failed_with(&self, options: &[String], texts: &[&str]) -> Result<()> {
        if self.succeeded {
            return Err(format!("fio {} should have failed, and did not", options.join(" ")));
        }
        match texts.iter().find(|text| !self.text.contains(**text)) {
            None => Ok(()),
            Some(missing) => Err(format!(
                "fio {} failed without saying {missing:?}:\n{}",
                options.join(" "),
                self.text.trim_end()
            )),
        }
    }

    /// The sum over all jobs of a number in their reports, as `read/total_ios`.
    pub(super) fn sum(&self, place: &str) -> u64 {
        let jobs = self.report["jobs"].as_array().into_iter().flatten();
        jobs.filter_map(|job| job.pointer(&format!("/{place}")).and_then(Value::as_u64)).sum()
    }

    /// That such a sum has a value.
    pub(super) fn expect(&self, place: &str, value: u64) -> Result<()> {
        match self.sum(place) {
            found if found == value => Ok(()),
            found => Err(format!("{place} is {found} instead of {value}:\n{}", self.text.trim_end())),
        }
    }
}

impl Server {
    /// Starts one with a command that may have a prefix already.
    pub(super) fn start(command: &mut Command, export: &Path, listen: &str) -> Result<Server> {
        let folder = export.display();
        for export in [
            format!("data={folder}"),
            format!("ro={folder}:ro"),
            "null=null:1G".into(),
            "memory=memory:64M".into(),
        ] {
            command.args(["--export", &export]);
        }
        // What it logs about disturbed clients is of no interest, unless a case fails; then it is run by hand.
        let server = server::Server::start_that_tells(command.args(["--listen", listen]))?;
        if let Some(socket) = listen.strip_prefix("shm://") {
            return Ok(Server { server, port: 0, socket: socket.into() });
        }
        let port = server.uri.trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok());
        let port = port.ok_or_else(|| format!("raio-server says a strange address: {}", server.uri))?;
        Ok(Server { server, port, socket: PathBuf::new() })
    }

    /// Ends it at once.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    /// Sends it a signal.
    pub(super) fn signal(&mut self, name: &str) -> Result<()> {
        self.server.signal(name)
    }

    fn is_over(&mut self) -> bool {
        self.server.is_over()
    }
}

/// The server of this build.
pub(super) fn server_command() -> Command {
    Command::new(target().join("release/raio-server"))
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A pipe that breaks gives what came before.
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// Options from a line: words divided by blanks.
pub(super) fn options(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}
