//! `cargo xtask`: all set-up and automation, in Rust, with nothing but cargo needed to start it.
//!
//! A command is a module with its arguments and a `run`. `child` runs programs under a time limit and ends what it
//! started; `packages` installs what is missing, by the names of Debian's packages.

#![deny(unsafe_code)]

mod bench;
#[expect(unsafe_code, reason = "a hook between fork and exec, and system calls; each says why it is sound")]
mod child;
mod compile;
mod counts;
mod demo;
mod fio;
mod fio_matrix;
mod fuzz;
mod memcheck;
mod packages;
mod rdma;
mod rdma_test;
mod server;
mod test;
mod tidy;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// A sentence for the person at the terminal is the whole error.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// Set-up and automation of this project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Don't install packages: print the command that would, and stop
    #[arg(long, global = true)]
    pub(crate) no_install: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build, serve a file, copy it there and back, run fio against it, and say what was measured
    Demo(demo::Arguments),
    /// Measure this stack beside its peers
    Bench(bench::Arguments),
    /// Run every test
    Test(test::Arguments),
    /// Build the engine for the installed fio
    Fio(fio::Arguments),
    /// Run a command in a virtual machine that has RDMA devices (soft-RoCE)
    Rdma(rdma::Options),
}

fn main() -> ExitCode {
    let Cli { common, command } = Cli::parse();
    let done = match &command {
        Command::Demo(arguments) => demo::run(arguments, &common),
        Command::Bench(arguments) => bench::run(arguments, &common),
        Command::Test(arguments) => test::run(arguments, &common),
        Command::Fio(arguments) => fio::run(arguments, &common),
        Command::Rdma(options) => match rdma::run(options, &common) {
            // What the command says is what we say.
            Ok(status) => return ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)),
            Err(sentence) => Err(sentence),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("cargo xtask: {sentence}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root folder.
pub(crate) fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).unwrap_or(here)
}

/// Cargo's folder for what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}
