//! What has to be installed, by the names of Debian's packages, and installing it: each package is named first.

use crate::{Common, Result, child};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a build of the workspace needs besides the Rust toolchain.
pub(crate) const BUILD: &[&str] = &["cmake", "gcc", "libc6-dev", "libclang-dev"];

/// What the tests need besides.
pub(crate) const TEST: &[&str] =
    &["e2fsprogs", "g++", "git", "libibverbs-dev", "librdmacm-dev", "strace", "util-linux", "valgrind"];

/// Time for a question to the package database.
const QUERY_TIME: Duration = Duration::from_secs(60);

/// Sees to it that the packages are installed.
///
/// # Errors
/// With `--no-install`, without apt or without rights: a sentence with the command or the list.
pub(crate) fn ensure(packages: &[&str], common: &Common) -> Result<()> {
    let mut wanted = packages.to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    if !has_program("apt-get") || !has_program("dpkg-query") {
        println!("This system has no apt. What this command needs, by the names of Debian's packages:");
        println!("    {}", wanted.join(" "));
        println!("Going on in the hope that it is there under other names.");
        return Ok(());
    }
    let missing: Vec<&str> = wanted.into_iter().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let root = is_root();
    let prefix = if root { "" } else { "sudo " };
    if common.no_install {
        return Err(format!(
            "these packages are missing; install them with\n    {prefix}apt-get install --no-install-recommends {list}"
        ));
    }
    if !root && !has_program("sudo") {
        return Err(format!(
            "these packages are missing, and there is neither root nor sudo; as root, run\n    \
             apt-get install --no-install-recommends {list}"
        ));
    }
    println!("Installing Debian packages: {list}");
    install(&missing, root)
}

fn install(missing: &[&str], root: bool) -> Result<()> {
    let apt = |arguments: &[&str]| {
        let mut command = if root { Command::new("apt-get") } else { Command::new("sudo") };
        if !root {
            command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        }
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        // A sudo that has to ask needs the terminal; in CI there is none, and it fails at once.
        if root {
            command.stdin(Stdio::null())
        } else {
            &mut command
        };
        child::run_interactive(&mut command)
    };
    // The lists may be missing (fresh image) or old: then the first try fails, and the second has new ones.
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(missing);
    if has_lists() && apt(&arguments).is_ok() {
        return Ok(());
    }
    apt(&["update", "-qq"])
        .map_err(|cause| format!("the lists of packages can't be renewed: {cause}; is there a network?"))?;
    apt(&arguments).map_err(|cause| format!("the packages can't be installed: {cause}"))
}

fn has_lists() -> bool {
    std::fs::read_dir("/var/lib/apt/lists").is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    })
}

fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f=${db:Status-Status}", package]);
    child::output(&mut query, QUERY_TIME).is_ok_and(|status| status == "installed")
}

pub(crate) fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(Path::new("/proc/self")).is_ok_and(|metadata| metadata.uid() == 0)
}
