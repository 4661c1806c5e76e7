//! The etched server.

fn main() {}
