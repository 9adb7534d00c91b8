//! The engine for the installed fio: fetches the sources of exactly that version, configures them, builds the engine
//! against their headers, and puts it where fio finds it by name (`target/fio/libraio`).
//!
//! The sources come from where the system's packages come from: its own lists are copied into a folder of ours, as
//! lists of sources, so that nothing of the system's set-up changes. `FIO_ROOT` in the environment names configured
//! sources instead, for a fio that is not a package. What was done once is not done again.

use crate::compile::{self, cargo};
use crate::{Common, Result, child, fio_matrix, packages, target};
use clap::Args;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What fetching, configuring and binding to fio needs.
pub(crate) const PACKAGES: &[&str] = &["fio", "dpkg-dev", "libclang-dev", "gcc", "libc6-dev"];

/// Time for a question to a program.
const QUERY_TIME: Duration = Duration::from_secs(60);
/// Time for the sources and the lists that lead to them: about 20 MB.
const FETCH_TIME: Duration = Duration::from_secs(600);
/// Time for unpacking, and for configuring.
const UNPACK_TIME: Duration = Duration::from_secs(300);
/// Time for a release build of the engine and what it stands on.
const BUILD_TIME: Duration = Duration::from_secs(3600);

/// Where the system lists the places that its packages come from.
const SOURCES_FILE: &str = "/etc/apt/sources.list";
const SOURCES_FOLDER: &str = "/etc/apt/sources.list.d";

/// Arguments of `cargo xtask fio`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Run fio with the engine against servers, as the tests do, and say what fails
    #[arg(long)]
    matrix: bool,
    /// With --matrix: every case instead of the quick ones
    #[arg(long, requires = "matrix")]
    full: bool,
    /// With --matrix: only cases whose name contains this; may be given several times
    #[arg(long, value_name = "TEXT", requires = "matrix")]
    only: Vec<String>,
}

/// The engine, built.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    /// As fio tells it: 3.33.
    pub(crate) fio_version: String,
    /// For `--ioengine=external:`.
    pub(crate) library: PathBuf,
    /// For `LD_LIBRARY_PATH` with `--ioengine=libraio`.
    pub(crate) folder: PathBuf,
    /// fio's sources, configured.
    sources: PathBuf,
}

impl Engine {
    /// fio, with the folder in which it finds the engine.
    pub(crate) fn command(&self) -> Command {
        let mut fio = Command::new("fio");
        let mut path = OsString::from(&self.folder);
        if let Some(others) = std::env::var_os("LD_LIBRARY_PATH").filter(|others| !others.is_empty()) {
            path.push(":");
            path.push(others);
        }
        fio.env("LD_LIBRARY_PATH", path);
        fio
    }

    /// Lints and unit tests of the engine's crate, which those of the workspace leave out, and what its library exports.
    ///
    /// # Errors
    /// What the tools say.
    pub(crate) fn check(&self) -> Result<()> {
        // With the whole workspace, all of which but this crate has been built so before.
        let lint = [
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--features",
            "raio/tokio",
            "--",
            "-D",
            "warnings",
        ];
        let test = ["nextest", "run", "--workspace", "--features", "raio/tokio", "-E", "package(fio-engine)"];
        for arguments in [&lint[..], &test[..]] {
            child::output(cargo(arguments).env("FIO_ROOT", &self.sources), BUILD_TIME)?;
        }
        compile::check_exports(&self.library, &["get_ioengine"])
    }
}

/// `cargo xtask fio`.
///
/// # Errors
/// A sentence with what to do.
pub(crate) fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    packages::ensure(&[packages::BUILD, PACKAGES].concat(), common)?;
    let engine = build()?;
    println!("The engine for fio {} is built:", engine.fio_version);
    println!("    {}", engine.library.display());
    println!("    LD_LIBRARY_PATH={} fio --ioengine=libraio ...", engine.folder.display());
    if arguments.matrix { fio_matrix::run_some(&engine, arguments.full, &arguments.only) } else { Ok(()) }
}

/// Builds the engine for the installed fio.
///
/// # Errors
/// A sentence with what to do.
pub(crate) fn build() -> Result<Engine> {
    let fio_version = fio_version()?;
    let sources = match std::env::var_os("FIO_ROOT") {
        Some(folder) => fs::canonicalize(&folder)
            .map_err(|cause| format!("FIO_ROOT={}: {cause}", Path::new(&folder).display()))?,
        None => sources(&fio_version)?,
    };
    check_version(&sources, &fio_version)?;
    // With the rest of the workspace, so that what both stand on has the same features and is built once.
    let mut build = cargo(&["build", "--release", "--quiet", "--workspace", "--lib"]);
    child::run(build.env("FIO_ROOT", &sources), BUILD_TIME)?;
    let target = target();
    let library = target.join("release/libfio_engine.so");
    let folder = target.join("fio");
    install(&library, &folder.join("libraio"))?;
    Ok(Engine { fio_version, library, folder, sources })
}

/// The installed fio's version.
fn fio_version() -> Result<String> {
    let text = child::output(Command::new("fio").arg("--version"), QUERY_TIME)
        .map_err(|cause| format!("{cause}; install fio (as root: apt-get install fio)"))?;
    let version = text.trim().trim_start_matches("fio-").to_owned();
    if version.is_empty() { Err("fio --version says nothing".to_owned()) } else { Ok(version) }
}

/// Headers of another version would make the engine write to the wrong places in fio's memory.
fn check_version(sources: &Path, fio_version: &str) -> Result<()> {
    let Ok(text) = fs::read_to_string(sources.join("FIO-VERSION-GEN")) else { return Ok(()) };
    let found = text.lines().find_map(|line| line.strip_prefix("DEF_VER=fio-"));
    let of = |version: &str| {
        let digits = |c: char| c.is_ascii_digit() || c == '.';
        version.chars().take_while(|c| digits(*c)).collect::<String>()
    };
    match found {
        Some(found) if of(found) != of(fio_version) => Err(format!(
            "the sources in {} are of fio {found}, but the installed fio is {fio_version}: they have to be the same",
            sources.display()
        )),
        _ => Ok(()),
    }
}

/// The configured sources of the installed package, fetched if they are not there.
fn sources(fio_version: &str) -> Result<PathBuf> {
    let advice = "with a fio that is not a package, set FIO_ROOT to the folder of its configured sources";
    let package = child::output(Command::new("dpkg-query").args(["-W", "-f=${Version}", "fio"]), QUERY_TIME)
        .map_err(|cause| format!("the version of the package fio is not known: {cause}; {advice}"))?;
    if !upstream(&package).starts_with(fio_version) && !fio_version.starts_with(upstream(&package)) {
        return Err(format!(
            "the fio that runs is {fio_version}, but the package fio is {package}; {advice}"
        ));
    }
    let home = target().join("fio-src");
    // Versions have no slash, but may have a colon and a tilde, which no tool minds in a path.
    let finished = home.join(package.replace('/', "_")).join("fio");
    if finished.join("config-host.h").is_file() {
        return Ok(finished);
    }
    println!("Fetching the sources of fio {package}");
    fs::create_dir_all(&home).map_err(|cause| format!("{}: {cause}", home.display()))?;
    let work = tempfile::Builder::new()
        .prefix("unfinished-")
        .tempdir_in(&home)
        .map_err(|cause| format!("{}: {cause}", home.display()))?;
    fetch(work.path(), &package)?;
    unpack(work.path())?;
    configure(&work.path().join("fio"))?;
    let place = finished.parent().unwrap_or(&home).to_path_buf();
    // What is there without a configuration is of an interrupted run of an older kind.
    let _ = fs::remove_dir_all(&place);
    // Another run may have been faster; its result is as good.
    if let Err(cause) = fs::rename(work.path(), &place)
        && !finished.join("config-host.h").is_file()
    {
        return Err(format!("{}: {cause}", place.display()));
    }
    Ok(finished)
}

/// A package's version without epoch and Debian's revision.
fn upstream(package: &str) -> &str {
    let version = package.split_once(':').map_or(package, |(_, version)| version);
    version.rsplit_once('-').map_or(version, |(version, _)| version)
}

/// Downloads the source package into the folder.
fn fetch(work: &Path, package: &str) -> Result<()> {
    let failed = |cause: std::io::Error| format!("{}: {cause}", work.display());
    let (parts, lists, cache) = (work.join("parts"), work.join("lists"), work.join("cache"));
    for folder in [&parts, &lists.join("partial"), &cache.join("archives/partial")] {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    copy_sources(&parts)?;
    let option = |name: &str, value: &Path| format!("{name}={}", value.display());
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.current_dir(work).args([
            "-qq".to_owned(),
            "-o".to_owned(),
            "Dir::Etc::SourceList=/dev/null".to_owned(),
            "-o".to_owned(),
            option("Dir::Etc::SourceParts", &parts),
            "-o".to_owned(),
            option("Dir::State::Lists", &lists),
            "-o".to_owned(),
            option("Dir::Cache", &cache),
            // The folder is ours, so there is nobody to whom rights could be given up.
            "-o".to_owned(),
            "APT::Sandbox::User=".to_owned(),
            "-o".to_owned(),
            "Acquire::Retries=2".to_owned(),
            "-o".to_owned(),
            "Acquire::http::Timeout=60".to_owned(),
        ]);
        command.args(arguments);
        child::output(&mut command, FETCH_TIME).map(drop)
    };
    // A place that offers no sources makes this fail; whether ours came with the others shows next.
    let updated = apt(&["update"]);
    let wanted = format!("fio={package}");
    apt(&["source", "--download-only", &wanted]).map_err(|cause| {
        let updated = updated.err().map(|cause| format!("\n{cause}")).unwrap_or_default();
        format!(
            "the sources of fio {package} can't be fetched: {cause}{updated}\nIs there a network? If the system's \
             lists have a newer fio, upgrade it; or set FIO_ROOT to the folder of configured sources"
        )
    })
}

/// Copies the system's lists of places, as places of sources.
fn copy_sources(parts: &Path) -> Result<()> {
    let mut copied = 0;
    let mut copy = |path: &Path| {
        let Some(name) = path.file_name() else { return Ok(()) };
        let text = match path.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => fs::read_to_string(path).map(|text| deb822_as_source(&text)),
            Some("list") => fs::read_to_string(path).map(|text| list_as_source(&text)),
            _ => return Ok(()),
        };
        // A file that this user may not read is none of this user's.
        let Ok(text) = text else { return Ok(()) };
        copied += 1;
        let target = parts.join(name);
        fs::write(&target, text).map_err(|cause| format!("{}: {cause}", target.display()))
    };
    copy(Path::new(SOURCES_FILE))?;
    for entry in fs::read_dir(SOURCES_FOLDER).into_iter().flatten().flatten() {
        copy(&entry.path())?;
    }
    match copied {
        0 => Err(format!("neither {SOURCES_FILE} nor {SOURCES_FOLDER} says where packages come from")),
        _ => Ok(()),
    }
}

/// A file of stanzas, for sources instead of packages.
fn deb822_as_source(text: &str) -> String {
    let lines = text.lines().map(|line| match line.split_once(':') {
        Some((field, _)) if field.eq_ignore_ascii_case("Types") => "Types: deb-src",
        _ => line,
    });
    lines.map(|line| format!("{line}\n")).collect()
}

/// A file of one line for each place, for sources instead of packages.
fn list_as_source(text: &str) -> String {
    let lines = text.lines().filter_map(|line| line.trim_start().strip_prefix("deb "));
    lines.map(|rest| format!("deb-src {rest}\n")).collect()
}

fn unpack(work: &Path) -> Result<()> {
    let entries = fs::read_dir(work).map_err(|cause| format!("{}: {cause}", work.display()))?;
    let description = entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "dsc"))
        .ok_or("apt-get source has fetched no description (.dsc) of the sources")?;
    let mut unpack = Command::new("dpkg-source");
    unpack.current_dir(work).arg("--extract").arg(description).arg("fio");
    child::output(&mut unpack, UNPACK_TIME).map(drop)
}

fn configure(sources: &Path) -> Result<()> {
    let script = sources.join("configure");
    child::output(Command::new(&script).current_dir(sources), UNPACK_TIME)
        .map(drop)
        .map_err(|cause| format!("fio's sources can't be configured: {cause}"))
}

/// Copies the library to the name under which fio asks for it; one in use keeps its old content.
fn install(library: &Path, place: &Path) -> Result<()> {
    let failed = |cause: std::io::Error| format!("{}: {cause}", place.display());
    let new = fs::read(library).map_err(|cause| format!("{}: {cause}", library.display()))?;
    if fs::read(place).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let folder = place.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed)?;
    let fresh = place.with_extension("new");
    fs::copy(library, &fresh).map_err(failed)?;
    fs::rename(&fresh, place).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_packages_become_lists_of_sources() {
        let stanzas =
            "Types: deb\nURIs: http://mirror/debian\nSuites: stable\n\ntypes: deb deb-src\nURIs: file:/x\n";
        let expected =
            "Types: deb-src\nURIs: http://mirror/debian\nSuites: stable\n\nTypes: deb-src\nURIs: file:/x\n";
        assert_eq!(deb822_as_source(stanzas), expected);
        let lines =
            "# comment\ndeb [signed-by=/k] http://mirror stable main\ndeb-src http://mirror stable main\n";
        assert_eq!(list_as_source(lines), "deb-src [signed-by=/k] http://mirror stable main\n");
    }

    #[test]
    fn versions_are_compared_without_debians_part() {
        assert_eq!(upstream("3.33-3"), "3.33");
        assert_eq!(upstream("1:3.36-1ubuntu0.1"), "3.36");
        assert_eq!(upstream("3.39"), "3.39");
    }

    #[test]
    fn sources_of_another_version_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(check_version(folder.path(), "3.33"), Ok(()));
        std::fs::write(folder.path().join("FIO-VERSION-GEN"), "GVF=x\nDEF_VER=fio-3.33\n").unwrap();
        assert_eq!(check_version(folder.path(), "3.33"), Ok(()));
        assert_eq!(check_version(folder.path(), "3.33-12-gabc"), Ok(()));
        assert!(check_version(folder.path(), "3.36").is_err_and(|text| text.contains("3.36")));
    }
}
