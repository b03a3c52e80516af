//! The `lakeforge` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(lakeforge::main(std::env::args_os()))
}
