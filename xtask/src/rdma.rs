//! `cargo xtask rdma -- COMMAND`: runs a command of this machine where RDMA devices exist, on a machine that has none.
//!
//! Boots Debian's own kernel in QEMU (emulation: neither KVM nor root is needed) with this machine's files as the root,
//! and soft-RoCE devices on two interfaces: rdma0 (10.77.0.1, fd77::1) and rdma1 (10.77.0.2, fd77::2), joined by a bridge.
//! Traffic crosses it if the client binds its source address to the other end. `ip link set cable0 down` takes the
//! carrier away, `ip link set switch down` cuts in silence. What the command writes outside of `--writable` directories is
//! lost; stdin is empty.

mod image;
mod kernel;

use crate::{Common, Result, child, packages};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Debian packages that are needed here. QEMU itself is unpacked into the cache where none is installed (installing it
/// would remove another QEMU in some places), and needs all the libraries here: they are what its package depends on.
pub(crate) const PACKAGES: &[&str] = &[
    "binutils",
    "busybox-static",
    "iproute2",
    "kmod",
    "libaio1",
    "libbpf1",
    "libcapstone4",
    "libfdt1",
    "libfuse3-3",
    "libglib2.0-0",
    "libgmp10",
    "libgnutls30",
    "libhogweed6",
    "libibverbs1",
    "libjpeg62-turbo",
    "libnettle8",
    "libnuma1",
    "libpixman-1-0",
    "libpmem1",
    "libpng16-16",
    "librdmacm1",
    "libsasl2-2",
    "libseccomp2",
    "libslirp0",
    "libudev1",
    "liburing2",
    "libvdeplug2",
    "libzstd1",
    "xz-utils",
    "zlib1g",
];

/// Where the guest's process 1 comes from.
const GUEST: &str = include_str!("../rdma/guest");
/// The kernel looks for its module loader in the root that it started with.
const MODPROBE: &str = "#!/bin/busybox sh\nexec chroot /new /sbin/modprobe \"$@\"\n";
/// Variables that the command keeps.
const ENVIRONMENT: [&str; 4] = ["PATH", "HOME", "LANG", "TERM"];
/// Without being told that the time-stamp counters of emulated processors agree (they are the host's), the kernel reads
/// the time from a device, which costs 10 us a look: a hundred times as much as on a machine.
const KERNEL_ARGUMENTS: &str =
    "console=ttyS0 quiet panic=-1 reboot=t mitigations=off tsc=reliable clocksource=tsc";
/// Fifos for the guest's output, and whether it is for errors.
const RELAYED: [(&str, bool); 2] = [("out", false), ("err", true)];
/// Exit status when the guest was stopped for its time.
const EXIT_TIME_OVER: i32 = 124;
/// A boot takes 5 s, and some times as much on a busy machine. One in many never ends (an emulated processor of a machine
/// with more to do than it can misses its time), and is made again so often.
const BOOT_TIME: Duration = Duration::from_secs(120);
const BOOTS_MAX: u32 = 3;
/// No small program takes longer.
const START_TIME: Duration = Duration::from_secs(60);

/// Options of `cargo xtask rdma`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Kind of device: rxe (RoCEv2), or none.
    #[arg(long, default_value = "rxe")]
    pub(crate) device: String,
    /// Share this directory for writing, at the same path (repeatable).
    #[arg(long, value_name = "DIR")]
    pub(crate) writable: Vec<PathBuf>,
    /// Load this kernel module first (repeatable): sch_netem, null_blk, ...
    #[arg(long, value_name = "NAME")]
    pub(crate) module: Vec<String>,
    /// The guest's memory.
    #[arg(long, value_name = "SIZE", default_value = "2G")]
    pub(crate) memory: String,
    /// The guest's processors.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) processors: u32,
    /// Stop the guest after so many seconds (exit status 124).
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) timeout: u64,
    /// Show the kernel's console at the end.
    #[arg(long)]
    pub(crate) verbose: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

impl Options {
    /// The usual machine, for a command that ends within this time.
    pub(crate) fn new(command: Vec<OsString>, time: Duration) -> Options {
        Options {
            device: "rxe".into(),
            writable: Vec::new(),
            module: Vec::new(),
            memory: "2G".into(),
            processors: 2,
            timeout: time.as_secs(),
            verbose: false,
            command,
        }
    }
}

/// Runs the command in a guest and returns its exit status; its output goes to ours.
///
/// # Errors
/// A sentence: what is missing, or why the guest did not start.
pub(crate) fn run(options: &Options, common: &Common) -> Result<i32> {
    packages::ensure(PACKAGES, common)?;
    boot(options)
}

/// As [`run`], where the packages are there.
///
/// # Errors
/// As [`run`].
pub(crate) fn boot(options: &Options) -> Result<i32> {
    let guest = Guest::prepare(options)?;
    guest.run(options)
}

/// Everything that a boot needs, in a folder that goes away with it.
struct Guest {
    folder: tempfile::TempDir,
    qemu: PathBuf,
    kernel: PathBuf,
    /// Directories shared for writing, without links in their names.
    writable: Vec<PathBuf>,
}

impl Guest {
    fn prepare(options: &Options) -> Result<Guest> {
        if !matches!(options.device.as_str(), "rxe" | "siw" | "none") {
            return Err(format!("unknown device {:?}: it is rxe, siw or none", options.device));
        }
        let cache = cache_folder()?;
        let (qemu, kernel) = {
            // One run prepares, others wait.
            let _lock = lock(&cache)?;
            (kernel::qemu(&cache)?, kernel::Kernel::prepare(&cache)?)
        };
        let mut writable = Vec::new();
        for directory in &options.writable {
            let found = fs::canonicalize(directory)
                .map_err(|cause| format!("--writable {}: {cause}", directory.display()))?;
            writable.push(found);
        }
        let folder =
            tempfile::tempdir().map_err(|cause| format!("can't make a temporary folder: {cause}"))?;
        let initrd = folder.path().join("initrd");
        let failed = |cause: io::Error| format!("can't write {}: {cause}", initrd.display());
        // A second archive over the first: what the guest does in this run.
        let mut archive = fs::read(&kernel.initrd).map_err(failed)?;
        let mut run = image::Archive::new();
        run.directory("sbin");
        run.file("init", GUEST.as_bytes(), true);
        run.file("sbin/modprobe", MODPROBE.as_bytes(), true);
        let settings = format!(
            "device={} tree={} modules={}\n",
            options.device,
            quoted(kernel.modules.as_os_str()),
            quoted(OsStr::new(&options.module.join(" ")))
        );
        run.file("settings", settings.as_bytes(), false);
        let listed: Vec<u8> = writable
            .iter()
            .flat_map(|directory| directory.as_os_str().as_bytes().iter().copied().chain([b'\n']))
            .collect();
        run.file("writable", &listed, false);
        run.file("command", &script(&options.command)?, false);
        archive.extend(run.finish());
        fs::write(&initrd, archive).map_err(failed)?;
        Ok(Guest { folder, qemu, kernel: kernel.image, writable })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, options: &Options) -> Result<i32> {
        for (name, _) in RELAYED {
            make_fifo(&self.path(name))?;
        }
        let outcome = self.boot_until_up(options);
        let console = fs::read(self.path("console")).unwrap_or_default();
        if options.verbose {
            let _ = io::stderr().write_all(&console);
        }
        if !outcome? {
            eprintln!("xtask rdma: stopped after {} seconds", options.timeout);
            return Ok(EXIT_TIME_OVER);
        }
        let status = fs::read_to_string(self.path("status")).unwrap_or_default();
        // The first line says that it was up.
        status.lines().last().unwrap_or_default().trim().parse().map_err(|_| {
            let text = String::from_utf8_lossy(&console);
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(20)..].join("\n");
            format!("the guest did not report an exit status; the end of its console:\n{last}")
        })
    }

    /// Runs QEMU until the guest has come up and ended; false where the time was over.
    fn boot_until_up(&self, options: &Options) -> Result<bool> {
        for boot in 1..=BOOTS_MAX {
            match self.boot_with_relays(options)? {
                End::Done => return Ok(true),
                End::TimeOver => return Ok(false),
                End::NeverUp => {
                    eprintln!(
                        "xtask rdma: the guest did not come up within {BOOT_TIME:?} (boot {boot} of {BOOTS_MAX})"
                    );
                }
            }
        }
        Err("the guest never came up: is this machine too busy?".into())
    }

    /// Runs QEMU to its end; what the guest says meanwhile goes to our own output.
    fn boot_with_relays(&self, options: &Options) -> Result<End> {
        let relays = RELAYED.map(|(name, is_error)| {
            let path = self.path(name);
            std::thread::spawn(move || relay(&path, is_error))
        });
        let outcome = self.boot(options);
        for (name, _) in RELAYED {
            // Opened for both, a fifo never blocks: the relays end even if QEMU never opened theirs.
            let _ = File::options().read(true).write(true).open(self.path(name));
        }
        for relay in relays {
            let _ = relay.join();
        }
        outcome
    }

    fn boot(&self, options: &Options) -> Result<End> {
        let mut command = Command::new(&self.qemu);
        command
            .args(["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-nodefaults", "-nographic"])
            .args(["-no-reboot", "-smp", &options.processors.to_string(), "-m", &options.memory])
            .args(["-append", KERNEL_ARGUMENTS])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(self.path("initrd"))
            .arg("-serial")
            .arg(chardev("file:", &self.path("console"), ""))
            .args(["-device", "virtio-serial"]);
        // Files go by virtio-9p; stdout, stderr and the exit status by virtio-serial.
        share(&mut command, "root", Path::new("/"), ",readonly=on");
        for (number, directory) in self.writable.iter().enumerate() {
            share(&mut command, &format!("w{number}"), directory, "");
        }
        for port in ["out", "err", "status"] {
            command
                .arg("-chardev")
                .arg(chardev(&format!("file,id={port},path="), &self.path(port), ""))
                .args(["-device", &format!("virtserialport,chardev={port}")]);
        }
        command.stdin(Stdio::null());
        let is_up = || fs::metadata(self.path("status")).is_ok_and(|status| status.len() > 0);
        wait(child::Running::start(&mut command)?, Duration::from_secs(options.timeout), is_up)
    }
}

/// How a run of QEMU has ended.
enum End {
    Done,
    TimeOver,
    /// The guest did not come up.
    NeverUp,
}

fn wait(mut qemu: child::Running, limit: Duration, is_up: impl Fn() -> bool) -> Result<End> {
    let start = Instant::now();
    let mut has_come_up = false;
    loop {
        match qemu.child().try_wait() {
            Ok(Some(status)) if status.success() => return Ok(End::Done),
            Ok(Some(status)) => {
                let how = status.signal().map_or(String::new(), |signal| format!(" (signal {signal})"));
                return Err(format!("QEMU failed: {status}{how}"));
            }
            Ok(None) if start.elapsed() >= limit => {
                qemu.end();
                return Ok(End::TimeOver);
            }
            Ok(None) => {
                has_come_up = has_come_up || is_up();
                if !has_come_up && start.elapsed() >= BOOT_TIME {
                    qemu.end();
                    return Ok(End::NeverUp);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(cause) => return Err(format!("can't wait for QEMU: {cause}")),
        }
    }
}

/// What the guest's shell runs: here, with our environment.
fn script(command: &[OsString]) -> Result<Vec<u8>> {
    let here = std::env::current_dir().map_err(|cause| format!("no current directory: {cause}"))?;
    let mut text = format!("cd {} || exit 125\n", quoted(here.as_os_str()));
    for name in ENVIRONMENT {
        if let Some(value) = std::env::var_os(name) {
            text.push_str(&format!("export {name}={}\n", quoted(&value)));
        }
    }
    text.push_str("exec");
    for word in command {
        text.push(' ');
        text.push_str(&quoted(word));
    }
    text.push('\n');
    Ok(text.into_bytes())
}

/// A word for the shell.
fn quoted(word: &OsStr) -> String {
    let lossless = String::from_utf8_lossy(word.as_bytes());
    format!("'{}'", lossless.replace('\'', r"'\''"))
}

fn share(command: &mut Command, tag: &str, directory: &Path, options: &str) {
    let options = format!(",security_model=none,multidevs=remap{options}");
    command
        .arg("-fsdev")
        .arg(chardev(&format!("local,id={tag},path="), directory, &options))
        .args(["-device", &format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}")]);
}

/// An option of QEMU with a path in it, where a comma stands twice.
fn chardev(before: &str, path: &Path, after: &str) -> OsString {
    let mut bytes = before.as_bytes().to_vec();
    for byte in path.as_os_str().as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    bytes.extend_from_slice(after.as_bytes());
    OsString::from_vec(bytes)
}

fn make_fifo(path: &Path) -> Result<()> {
    child::run(Command::new("mkfifo").arg(path), START_TIME)
}

/// Copies what QEMU writes to our own output as it comes.
fn relay(path: &Path, is_error: bool) {
    let Ok(mut from) = File::open(path) else { return };
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let part = &buffer[..count];
        let written = if is_error {
            io::stderr().write_all(part)
        } else {
            let mut out = io::stdout();
            out.write_all(part).and_then(|()| out.flush())
        };
        if written.is_err() {
            return;
        }
    }
}

fn cache_folder() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(PathBuf::from(home).join(".cache"))
    });
    let folder =
        base.ok_or("neither XDG_CACHE_HOME nor HOME is set: no place for the kernel")?.join("raio-rdma");
    fs::create_dir_all(&folder).map_err(|cause| format!("can't make {}: {cause}", folder.display()))?;
    fs::canonicalize(&folder).map_err(|cause| format!("{}: {cause}", folder.display()))
}

fn lock(cache: &Path) -> Result<File> {
    let path = cache.join("lock");
    let file = File::create(&path).map_err(|cause| format!("can't make {}: {cause}", path.display()))?;
    file.lock().map_err(|cause| format!("can't lock {}: {cause}", path.display()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        let word = "it's $HOME \"and\" `more`";
        let script = format!("printf %s {}", quoted(OsStr::new(word)));
        let out = Command::new("sh").arg("-c").arg(script).output().expect("there is a shell");
        assert_eq!(String::from_utf8_lossy(&out.stdout), word);
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        assert_eq!(chardev("file,path=", Path::new("/a,b"), ",x=1"), "file,path=/a,,b,x=1");
    }
}
