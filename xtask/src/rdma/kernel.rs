//! The kernel and QEMU: downloaded once as Debian packages, unpacked into the cache, never installed.

use super::image::Archive;
use crate::Result;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Debian's name for its current kernel.
const KERNEL_PACKAGE: &str = "linux-image-amd64";
/// QEMU's packages, where none is installed.
const QEMU_PACKAGES: [&str; 5] =
    ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios", "ipxe-qemu"];
/// Modules that it takes to reach this machine's files.
const BOOT_MODULES: [&str; 5] = ["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"];
/// Where system programs are, which a user's PATH may leave out.
const SYSTEM_PATH: &str = ":/usr/sbin:/sbin";

/// A kernel, ready to boot.
pub(super) struct Kernel {
    /// Uncompressed: emulating the decompression takes seconds.
    pub(super) image: PathBuf,
    pub(super) initrd: PathBuf,
    /// `.../lib/modules/VERSION`.
    pub(super) modules: PathBuf,
}

impl Kernel {
    /// Finds the kernel in the cache, or puts it there.
    pub(super) fn prepare(cache: &Path) -> Result<Kernel> {
        let root = cache.join("kernel");
        if !root.join("initrd").exists() {
            let package = kernel_package()?;
            unpack(&root, &[&package])?;
            make_initrd(&root)?;
        }
        Ok(Kernel {
            image: root.join("vmlinux"),
            initrd: root.join("initrd"),
            modules: only_entry(&root.join("lib/modules"))?,
        })
    }
}

/// QEMU: the installed one, else one from the cache.
pub(super) fn qemu(cache: &Path) -> Result<PathBuf> {
    const NAME: &str = "qemu-system-x86_64";
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) = std::env::split_paths(&path).map(|dir| dir.join(NAME)).find(|file| file.is_file()) {
        return Ok(found);
    }
    let root = cache.join("qemu");
    let program = root.join("usr/bin").join(NAME);
    if !program.exists() {
        unpack(&root, &QEMU_PACKAGES)?;
    }
    Ok(program)
}

fn kernel_package() -> Result<String> {
    let listed = output(system("apt-cache").args(["depends", KERNEL_PACKAGE]))?;
    let listed = String::from_utf8_lossy(&listed);
    let found = listed.lines().find_map(|line| {
        let name = line.trim().strip_prefix("Depends: ")?;
        name.starts_with("linux-image-").then(|| name.to_owned())
    });
    found.ok_or_else(|| format!("apt knows no {KERNEL_PACKAGE}: run apt-get update, on a Debian of amd64"))
}

/// Downloads packages and unpacks them into `target`, whole or not at all.
fn unpack(target: &Path, packages: &[&str]) -> Result<()> {
    let fresh = target.with_extension("new");
    let archives = target.with_extension("deb");
    for folder in [&fresh, &archives] {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).map_err(|cause| format!("can't make {}: {cause}", folder.display()))?;
    }
    eprintln!("xtask rdma: downloading {} (once)", packages.join(", "));
    let mut download = system("apt-get");
    download.args(["-q", "-o", "APT::Sandbox::User=root", "download"]).args(packages).current_dir(&archives);
    output(&mut download)?;
    let entries = fs::read_dir(&archives).map_err(|cause| format!("{}: {cause}", archives.display()))?;
    for archive in entries.flatten() {
        output(system("dpkg").arg("-x").arg(archive.path()).arg(&fresh))?;
    }
    let _ = fs::remove_dir_all(&archives);
    let _ = fs::remove_dir_all(target);
    fs::rename(&fresh, target).map_err(|cause| format!("can't rename {}: {cause}", fresh.display()))
}

fn make_initrd(root: &Path) -> Result<()> {
    let failed = |what: &Path, cause: std::io::Error| format!("can't write {}: {cause}", what.display());
    let lib = root.join("lib");
    if !lib.exists() {
        std::os::unix::fs::symlink("usr/lib", &lib).map_err(|cause| failed(&lib, cause))?;
    }
    let modules = only_entry(&lib.join("modules"))?;
    let version = modules.file_name().unwrap_or_default().to_owned();
    output(system("depmod").arg("-b").arg(root).arg(&version))?;
    let vmlinux = root.join("vmlinux");
    fs::write(&vmlinux, uncompressed(root, &version)?).map_err(|cause| failed(&vmlinux, cause))?;
    let mut archive = Archive::new();
    for directory in ["bin", "sbin", "dev", "proc", "host", "ram", "new"] {
        archive.directory(directory);
    }
    let busybox = output(system("sh").args(["-c", "cat \"$(command -v busybox)\""]))?;
    archive.file("bin/busybox", &busybox, true);
    for (number, module) in boot_modules(root, &version)?.iter().enumerate() {
        let bytes = match module.extension().and_then(OsStr::to_str) {
            Some("xz") => output(system("xz").arg("-dc").arg(module))?,
            Some("zst") => output(system("zstd").arg("-dcq").arg(module))?,
            _ => fs::read(module).map_err(|cause| format!("{}: {cause}", module.display()))?,
        };
        // In the order of loading.
        archive.file(&format!("{}.ko", 100 + number), &bytes, false);
    }
    let initrd = root.join("initrd");
    fs::write(&initrd, archive.finish()).map_err(|cause| failed(&initrd, cause))
}

/// The modules to load at boot, each after those that it needs.
fn boot_modules(root: &Path, version: &OsStr) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = Vec::new();
    for name in BOOT_MODULES {
        let mut show = system("modprobe");
        show.arg("-d").arg(root).arg("-S").arg(version).args(["--show-depends", name]);
        for line in String::from_utf8_lossy(&output(&mut show)?).lines() {
            if let Some(path) = line.strip_prefix("insmod ") {
                let path = PathBuf::from(path.trim());
                if !found.contains(&path) {
                    found.push(path);
                }
            }
        }
    }
    Ok(found)
}

/// The kernel inside of its boot image.
fn uncompressed(root: &Path, version: &OsStr) -> Result<Vec<u8>> {
    let mut name = std::ffi::OsString::from("vmlinuz-");
    name.push(version);
    let path = root.join("boot").join(name);
    let image = fs::read(&path).map_err(|cause| format!("{}: {cause}", path.display()))?;
    let packed = [(&b"\xfd7zXZ\0"[..], "xz"), (&b"\x28\xb5\x2f\xfd"[..], "zstd")];
    for (magic, program) in packed {
        let starts = image.windows(magic.len()).enumerate().filter(|(_, part)| *part == magic);
        for (at, _) in starts.take(4) {
            let part = root.join("packed");
            fs::write(&part, &image[at..])
                .map_err(|cause| format!("can't write {}: {cause}", part.display()))?;
            // What follows the packed kernel makes the program complain after it has unpacked everything.
            let out = system(program).arg("-dc").arg(&part).stderr(Stdio::null()).output();
            let _ = fs::remove_file(&part);
            if let Ok(out) = out
                && out.stdout.starts_with(b"\x7fELF")
            {
                return Ok(out.stdout);
            }
        }
    }
    Ok(image)
}

fn only_entry(folder: &Path) -> Result<PathBuf> {
    let mut entries =
        fs::read_dir(folder).map_err(|cause| format!("{}: {cause}", folder.display()))?.flatten();
    match (entries.next(), entries.next()) {
        (Some(only), None) => Ok(only.path()),
        _ => Err(format!("{} should have one entry: delete the cache and try again", folder.display())),
    }
}

/// A program, looked for among the system's too.
fn system(program: &str) -> Command {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(SYSTEM_PATH);
    let mut command = Command::new(program);
    command.env("PATH", path).stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command.output().map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => {
            format!("{name} is not installed; `xtask rdma` needs the packages {}", super::PACKAGES.join(" "))
        }
        _ => format!("can't start {name}: {cause}"),
    })?;
    if out.status.success() {
        Ok(out.stdout)
    } else {
        Err(format!("{name} failed: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr).trim_end()))
    }
}
