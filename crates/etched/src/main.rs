//! The etched server.

use std::process::ExitCode;

// Requests allocate and free many small pieces, often on one thread for another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    etched::command::main()
}
