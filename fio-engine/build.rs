//! Makes Rust declarations of the fio that the engine is to be loaded into, from its own headers.
//!
//! An ioengine works on fio's structures themselves, whose layout changes from version to version: so nothing of it is
//! kept in this repository, and the headers must be those of the installed version.

use std::env;
use std::path::{Path, PathBuf};

/// What the engine uses of fio; the types that these need come along.
const TYPES: &str = "thread_data|ioengine_ops|io_u|fio_file|fio_option|fio_q_status|fio_ioengine_flags|fio_ddir|\
                     td_ddir|fio_filetype|fio_file_flags|fio_fallocate_mode|opt_category|opt_category_group|fio_opt_type";
const FUNCTIONS: &str =
    "log_err|log_info|fio_gettime|io_u_queued|fill_io_buffer|get_start_offset|get_rand_file_size";
const VARIABLES: &str = "FIO_IOOPS_VERSION|read_only";

fn main() {
    println!("cargo::rerun-if-env-changed=FIO_ROOT");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(errdetails_takes_job, has_cancel)");
    // fio closes an engine's library when the last job that uses it has ended, while its threads may still have
    // thread-local values of ours to drop.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    let root = match root() {
        Ok(root) => root,
        Err(text) => {
            println!("cargo::error={text}");
            return;
        }
    };
    println!("cargo::rerun-if-changed={}", root.join("config-host.h").display());
    match generate(&root) {
        Ok(text) => describe(&text),
        Err(text) => println!("cargo::error={text}"),
    }
}

/// The folder of fio's configured sources.
fn root() -> Result<PathBuf, String> {
    let advice =
        "`cargo xtask fio` fetches the sources of the installed fio and builds the engine against them";
    let root = env::var_os("FIO_ROOT").map(PathBuf::from).ok_or_else(|| {
        format!(
            "FIO_ROOT is not set: it names the folder of fio's sources, configured (./configure). {advice}"
        )
    })?;
    for (file, meaning) in
        [("fio.h", "no fio sources"), ("config-host.h", "not configured: run ./configure there")]
    {
        if !root.join(file).is_file() {
            let place = root.join(file);
            return Err(format!("FIO_ROOT: there is no {}: {meaning}. {advice}", place.display()));
        }
    }
    root.canonicalize().map_err(|cause| format!("FIO_ROOT={}: {cause}", root.display()))
}

fn generate(root: &Path) -> Result<String, String> {
    let pointer_bits: u32 = env::var("CARGO_CFG_TARGET_POINTER_WIDTH")
        .ok()
        .and_then(|bits| bits.parse().ok())
        .ok_or("cargo did not say how wide a pointer is")?;
    let header =
        "#include \"fio.h\"\n#include \"ioengines.h\"\n#include \"optgroup.h\"\n#include \"log.h\"\n";
    let bindings = bindgen::Builder::default()
        .header_contents("engine.h", header)
        .clang_args(["-std=gnu99", "-D_GNU_SOURCE", "-D_LARGEFILE_SOURCE", "-D_FILE_OFFSET_BITS=64"])
        .clang_args(["-DFIO_INTERNAL".to_owned(), format!("-DBITS_PER_LONG={pointer_bits}")])
        .clang_args(["-include", "config-host.h", "-I"])
        .clang_arg(root.display().to_string())
        .allowlist_type(TYPES)
        .allowlist_function(FUNCTIONS)
        .allowlist_var(VARIABLES)
        // Its parts are packed and aligned in a way that can't be said in Rust; nothing here looks inside.
        .opaque_type("thread_stat")
        .layout_tests(true)
        .derive_debug(false)
        .generate_comments(false)
        .generate()
        .map_err(|cause| format!("the headers in {} can't be read: {cause}", root.display()))?;
    let target = Path::new(&env::var_os("OUT_DIR").ok_or("cargo named no OUT_DIR")?).join("fio.rs");
    let text = bindings.to_string();
    std::fs::write(&target, &text).map_err(|cause| format!("{}: {cause}", target.display()))?;
    Ok(text)
}

/// Tells the crate in which of the known ways this version of fio differs from others.
fn describe(bindings: &str) {
    let member = |name: &str| {
        let start = bindings.find(&format!("pub {name}: ::std::option::Option<"))?;
        bindings[start..].split(",\n    pub ").next()
    };
    if member("errdetails").is_some_and(|text| text.contains("thread_data")) {
        println!("cargo::rustc-cfg=errdetails_takes_job");
    }
    if member("cancel").is_some() {
        println!("cargo::rustc-cfg=has_cancel");
    }
}
