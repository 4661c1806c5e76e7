//! What a person at a terminal sees first.

use std::fmt::Write;

use crate::help::{ETCD_VERSION, ETCHED_VERSION};
use crate::settings::Settings;
use crate::urls::{Url, join};

/// Where the server listens, where its data lies, and how to end it.
pub fn text(settings: &Settings) -> String {
    let member = &settings.member;
    let data_dir = std::path::absolute(&member.data_dir);
    let data_dir = data_dir.as_ref().unwrap_or(&member.data_dir).display().to_string();
    let mut text = format!("\n  etched {ETCHED_VERSION}, speaks etcd {ETCD_VERSION}\n\n");
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "  {name:<9} {value}");
        }
    };
    line("clients", &join(&member.listen_client_urls));
    line("http", &join(&member.listen_client_http_urls));
    line("metrics", &join(&settings.monitoring.listen_metrics_urls));
    line("data", &data_dir);
    if let Some(wal_dir) = &member.wal_dir {
        line("log", &wal_dir.display().to_string());
    }
    if settings.unsafe_features.no_fsync {
        line("UNSAFE", "never waits for the disk: a power failure loses data");
    }
    if let Some(url) = member.listen_client_urls.first() {
        line("try", &try_it(url));
    }
    text.push_str("  end       Ctrl-C\n\n");
    text
}

fn try_it(url: &Url) -> String {
    match url.as_str() {
        "http://localhost:2379" | "http://127.0.0.1:2379" => "etcdctl put greeting hello".into(),
        other => format!("etcdctl --endpoints={other} put greeting hello"),
    }
}
