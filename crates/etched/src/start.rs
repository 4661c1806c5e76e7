//! Where a server starts.

use std::process::ExitCode;

use tracing::error;

use crate::settings::Settings;

/// Runs a server with these settings until it ends.
pub fn start(settings: Settings) -> ExitCode {
    let data_dir = settings.member.data_dir.display().to_string();
    error!(level = "fatal", "data-dir" = data_dir, "the server part is not linked into etched yet");
    ExitCode::FAILURE
}
