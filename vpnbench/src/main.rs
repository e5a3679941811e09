//! Parse, dispatch, print the error, exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    vpnbench::cli::main()
}
