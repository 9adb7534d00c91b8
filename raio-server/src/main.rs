//! The `raio-server` command: serves files, directories and devices to raio clients.

#![deny(unsafe_code)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
