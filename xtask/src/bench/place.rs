//! Where measuring happens: folders, the file that is read, cores, and programs that run on one of them.

use crate::{Result, child, target};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The server's core, and the client's.
pub(crate) const SERVER_CORE: usize = 0;
pub(crate) const CLIENT_CORE: usize = 1;
/// Length of the file: larger than the processor's caches, small enough to stay in the page cache.
pub(crate) const FILE_BYTES: u64 = 256 << 20;
/// What a run may take beyond the time that it was asked to measure.
const SLACK_TIME: Duration = Duration::from_secs(15);

/// Folders and programs.
#[derive(Debug)]
pub(crate) struct Place {
    /// target/bench: results, and the file.
    pub(crate) folder: PathBuf,
    /// target/release.
    pub(crate) release: PathBuf,
    /// Where fio finds our engine; `None` where it is not built.
    pub(crate) engine: Option<PathBuf>,
    /// Seconds of one run.
    pub(crate) seconds: f64,
}

impl Place {
    /// Makes the folder and the file. The folder is on a disk's file system even where /tmp is memory.
    pub(crate) fn prepare(seconds: f64) -> Result<Place> {
        let folder = work_folder("bench")?;
        let place = Place { folder, release: target().join("release"), engine: None, seconds };
        place.make_file().map_err(|cause| format!("can't write {}: {cause}", place.file().display()))?;
        Ok(place)
    }

    /// The file that is read and written.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("data.img")
    }

    /// Writes the file if it is not there, and reads it, so that it is in the page cache.
    fn make_file(&self) -> std::io::Result<()> {
        let path = self.file();
        if std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() == FILE_BYTES) {
            std::io::copy(&mut std::fs::File::open(&path)?, &mut std::io::sink())?;
            return Ok(());
        }
        let mut file = std::fs::File::create(&path)?;
        let mut block = vec![0_u8; 1 << 20];
        let mut word = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..FILE_BYTES >> 20 {
            for bytes in block.chunks_exact_mut(8) {
                word ^= word << 13;
                word ^= word >> 7;
                word ^= word << 17;
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            file.write_all(&block)?;
        }
        file.sync_all()
    }

    /// One of our programs, on a core.
    pub(crate) fn ours(&self, name: &str, core: usize) -> Command {
        pinned(&self.release.join(name), core)
    }

    /// The program that does only what can't be avoided: both sides in one process, each on its core.
    pub(crate) fn minimal(&self) -> Command {
        let mut command = Command::new(self.release.join("minimal"));
        command.args(["--time", &self.seconds.to_string()]);
        command.args(["--server-core", &SERVER_CORE.to_string(), "--client-core", &CLIENT_CORE.to_string()]);
        command
    }

    /// Runs a client to its end and returns what it wrote to stdout.
    pub(crate) fn client(&self, command: &mut Command) -> Result<String> {
        child::output(command, Duration::from_secs_f64(self.seconds) + SLACK_TIME)
    }
}

/// A folder in target, made if it is not there.
pub(crate) fn work_folder(name: &str) -> Result<PathBuf> {
    let folder = target().join(name);
    std::fs::create_dir_all(&folder).map_err(|cause| format!("can't make {}: {cause}", folder.display()))?;
    Ok(folder)
}

/// A program on a core.
pub(crate) fn pinned(program: &Path, core: usize) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &core.to_string()]).arg(program);
    command
}

/// A port that is free now.
pub(crate) fn free_port() -> Result<u16> {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    address.map(|address| address.port()).map_err(|cause| format!("no free port: {cause}"))
}
