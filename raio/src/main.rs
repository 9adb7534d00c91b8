//! The `raio` command: copy, look at, list, measure files on a raio-server.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
