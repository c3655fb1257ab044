//! The program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    match headwater::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("headwater: {why}");
            ExitCode::FAILURE
        }
    }
}
