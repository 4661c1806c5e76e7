//! The folder and the server that the scenarios of a group work on, one after another.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::server::Server;

/// The programs that a run calls, built before.
pub(super) struct Programs {
    /// The servers, in the order of the table's columns.
    pub(super) servers: [PathBuf; 2],
    /// Our load generator.
    pub(super) load: PathBuf,
    /// etcd's.
    pub(super) benchmark: PathBuf,
}

/// A data folder and the server on it, if one runs. Both end with it.
pub(super) struct Store {
    binary: PathBuf,
    folder: PathBuf,
    server: Option<Server>,
}

impl Store {
    /// An empty folder of that path for a server that is not started yet.
    pub(super) fn new(binary: &Path, folder: PathBuf) -> Result<Self, String> {
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self { binary: binary.to_owned(), folder, server: None })
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Where a scenario may put what it needs beside the data.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn start(&mut self) -> Result<(), String> {
        self.start_under(&[])
    }

    pub(super) fn start_under(&mut self, wrapper: &[String]) -> Result<(), String> {
        self.server = Some(Server::start_under(wrapper, &self.binary, &self.data_dir())?);
        Ok(())
    }

    pub(super) fn server(&self) -> Result<&Server, String> {
        self.server.as_ref().ok_or_else(|| "no server runs".to_owned())
    }

    /// Asks the server to end, and waits for it; gives how long that took.
    pub(super) fn stop(&mut self) -> Result<Duration, String> {
        self.server.take().ok_or("no server runs")?.stop()
    }

    /// Ends the server at once.
    pub(super) fn kill(&mut self) -> Result<Duration, String> {
        self.server.take().ok_or("no server runs")?.kill()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.server = None;
        // What cannot be removed lies under the target folder, where the next run does not look.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
