//! libraio.so: its soname, and the two files that programs need beside it.
//!
//! In the folder of the build (target/debug, target/release) appear `libraio.so.0`, the name under which programs find
//! the library at run time, and `pkgconfig/libraio.pc`, with which `PKG_CONFIG_PATH=target/release/pkgconfig` finds
//! library and header where they were built. `pkgconfig/libraio.pc.in` is the template for an installed library.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Changes when a program that was linked before would not run any more.
const SONAME: &str = "libraio.so.0";

fn main() -> io::Result<()> {
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let template = package.join("pkgconfig/libraio.pc.in");
    for file in ["build.rs", "pkgconfig/libraio.pc.in"] {
        println!("cargo:rerun-if-changed={file}");
    }
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{SONAME}");
    // What the libraries inside export for C is none of our interface.
    println!("cargo:rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
    // OUT_DIR is target/PROFILE/build/libraio-HASH/out. Where cargo was told otherwise, nothing is put anywhere.
    let out = PathBuf::from(variable("OUT_DIR"));
    let Some(profile) = out.ancestors().nth(3).filter(|folder| folder.join("build").is_dir()) else {
        return Ok(());
    };
    link(&profile.join(SONAME))?;
    let text = fs::read_to_string(template)?;
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let filled = (lines.join("\n") + "\n")
        .replace("@VERSION@", &variable("CARGO_PKG_VERSION"))
        .replace("@LIBDIR@", &profile.display().to_string())
        .replace("@INCLUDEDIR@", &package.join("include").display().to_string());
    fs::create_dir_all(profile.join("pkgconfig"))?;
    fs::write(profile.join("pkgconfig/libraio.pc"), filled)
}

/// `libraio.so.0`, a link to the library beside it, which cargo is going to make.
fn link(name: &Path) -> io::Result<()> {
    if fs::read_link(name).is_ok_and(|target| target == Path::new("libraio.so")) {
        return Ok(());
    }
    match fs::remove_file(name) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    match std::os::unix::fs::symlink("libraio.so", name) {
        // Another build was faster.
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for build scripts"))
}
