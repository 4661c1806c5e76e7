//! The command from outside: what it prints, what it logs and how it ends.
//!
//! Expected texts and exit codes were taken from etcd 3.7.1, except where a comment says otherwise.

use std::process::{Command, Output};

use serde_json::Value;

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let directory = tempfile::tempdir().expect("a temporary folder");
    Command::new(env!("CARGO_BIN_EXE_etched"))
        .args(arguments)
        .current_dir(directory.path())
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// The lines of the log.
fn log(output: &Output) -> Vec<Value> {
    let lines = text(&output.stderr);
    lines.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// The first line on stderr of an argument that cannot be read.
#[track_caller]
fn bad_argument(arguments: &[&str], expected: &str) {
    let output = run(arguments, &[]);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    let stderr = text(&output.stderr);
    let (first, usage) = stderr.split_once('\n').expect("a line and the usage");
    assert_eq!(first, expected, "{arguments:?}");
    assert!(usage.starts_with("Usage:"), "{arguments:?}");
    assert!(output.stdout.is_empty());
}

/// The reason why settings are refused; the last line of the log names it.
#[track_caller]
fn refused_with(arguments: &[&str], environment: &[(&str, &str)], expected: &str) {
    let output = run(arguments, environment);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    let log = log(&output);
    let last = log.last().expect("a line");
    assert_eq!(last["level"], "warn", "{arguments:?}");
    assert_eq!(last["msg"], "failed to verify flags", "{arguments:?}");
    assert_eq!(last["error"], expected, "{arguments:?}");
    assert_eq!(log[log.len() - 2]["msg"], "Running: ", "{arguments:?}");
}

#[test]
fn arguments_that_cannot_be_read_are_told_as_etcd_tells_them() {
    for (argument, expected) in [
        ("--nosuch", "flag provided but not defined: -nosuch"),
        ("-nosuch=1", "flag provided but not defined: -nosuch"),
        ("--discovery=x", "flag provided but not defined: -discovery"),
        ("---x", "bad flag syntax: ---x"),
        ("-=x", "bad flag syntax: -=x"),
        ("--name", "flag needs an argument: -name"),
        ("--heartbeat-interval=x", "invalid value \"x\" for flag -heartbeat-interval: parse error"),
        (
            "--heartbeat-interval=-1",
            "invalid value \"-1\" for flag -heartbeat-interval: parse error",
        ),
        (
            "--max-wals=99999999999999999999999",
            "invalid value \"99999999999999999999999\" for flag -max-wals: value out of range",
        ),
        (
            "--max-concurrent-streams=x",
            "invalid value \"x\" for flag -max-concurrent-streams: strconv.ParseUint: parsing \
             \"x\": invalid syntax",
        ),
        (
            "--max-concurrent-streams=4294967296",
            "invalid value \"4294967296\" for flag -max-concurrent-streams: strconv.ParseUint: \
             parsing \"4294967296\": value out of range",
        ),
        (
            "--quota-backend-bytes=1.5",
            "invalid value \"1.5\" for flag -quota-backend-bytes: parse error",
        ),
        ("--pre-vote=maybe", "invalid boolean value \"maybe\" for -pre-vote: parse error"),
        (
            "--grpc-keepalive-min-time=5",
            "invalid value \"5\" for flag -grpc-keepalive-min-time: parse error",
        ),
        (
            "--initial-cluster-state=foo",
            "invalid value \"foo\" for flag -initial-cluster-state: invalid value",
        ),
        (
            "--v2-deprecation=foo",
            "invalid value \"foo\" for flag -v2-deprecation: invalid value \"foo\"",
        ),
        (
            "--feature-gates=Foo=true",
            "invalid value \"Foo=true\" for flag -feature-gates: unrecognized feature gate: Foo",
        ),
        (
            "--listen-client-urls=127.0.0.1:2379",
            "invalid value \"127.0.0.1:2379\" for flag -listen-client-urls: parse \
             \"127.0.0.1:2379\": first path segment in URL cannot contain colon",
        ),
        (
            "--cors=foo",
            "invalid value \"foo\" for flag -cors: URL scheme must be http, https, unix, or \
             unixs: foo",
        ),
    ] {
        bad_argument(&[argument], expected);
    }
}

#[test]
fn a_flag_takes_the_next_word_unless_it_is_a_switch() {
    bad_argument(
        &["--max-wals", "--name"],
        "invalid value \"--name\" for flag -max-wals: parse error",
    );
    refused_with(&["--pre-vote", "false"], &[], "\"false\" is not a valid flag");
    refused_with(&["--snapshot", "x"], &[], "\"x\" is not a valid flag");
}

#[test]
fn reading_stops_at_the_first_word_at_a_dash_and_behind_two() {
    refused_with(&["--name", "a", "word", "--nosuch"], &[], "\"word\" is not a valid flag");
    refused_with(&["-"], &[], "\"-\" is not a valid flag");
    refused_with(&["-name=x", "--", "--nosuch"], &[], "\"--nosuch\" is not a valid flag");
    refused_with(&["--version", "word"], &[], "\"word\" is not a valid flag");
}

#[test]
fn the_version_is_printed_in_lines_that_scripts_know() {
    let output = run(&["--version"], &[]);
    assert_eq!(output.status.code(), Some(0));
    let lines = text(&output.stdout);
    let names: Vec<_> = lines.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(lines.lines().next(), Some("etcd Version: 3.7.1"));
    assert_eq!(
        names,
        ["etcd Version", "Git SHA", "Go Version", "Go OS/Arch", "etched Version"],
        "etcd has the first four"
    );
    assert!(output.stderr.is_empty());
}

#[test]
fn help_goes_to_stdout_and_the_usage_to_stderr() {
    for argument in ["-h", "--help"] {
        let output = run(&[argument], &[]);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stderr).starts_with("Usage:"));
        assert!(text(&output.stdout).contains("\nMember:\n  --name 'default'\n"));
    }
}

#[test]
fn settings_that_do_not_fit_together_are_refused_in_the_words_of_etcd() {
    for (arguments, expected) in [
        (
            &["--listen-client-urls=http://foo:1"][..],
            "expected IP in URL for binding (http://foo:1)",
        ),
        (
            &["--initial-advertise-peer-urls=http://:1"],
            "--initial-advertise-peer-urls \"http://:1\" must be \"host:port\" (unexpected empty \
             host (http://:1))",
        ),
        (
            &["--advertise-client-urls=http://:1"],
            "--advertise-client-urls \"http://:1\" must be in the format \"host:port\", \
             \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" (unexpected empty host \
             (http://:1))",
        ),
        (
            &["--election-timeout=1"],
            "--election-timeout[1ms] should be at least as 5 times as --heartbeat-interval[100ms]",
        ),
        (
            &["--election-timeout=60000"],
            "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
        ),
        (&["--heartbeat-interval=0"], "--heartbeat-interval must be >0 (set to 0ms)"),
        (&["--election-timeout=0"], "--election-timeout must be >0 (set to 0ms)"),
        (&["--auto-compaction-mode=x"], "unknown auto-compaction-mode \"x\""),
        (&["--auto-compaction-mode="], "undefined auto-compaction-mode"),
        (
            &["--feature-gates=LeaseCheckpointPersist=true"],
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate \
             LeaseCheckpoint",
        ),
        (&["--compact-hash-check-time=0s"], "--compact-hash-check-time must be >0 (set to 0s)"),
        (&["--tls-min-version=x"], "unexpected TLS version \"x\" (must be one of: TLS1.2, TLS1.3)"),
        (
            &["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            &["--tls-min-version=TLS1.3", "--cipher-suites=x"],
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (&["--log-format=x"], "unknown log format: x, supported values json, console"),
        (&["--logger=capnslog"], "--logger=capnslog is removed in v3.5"),
        (&["--logger=x"], "unknown logger option \"x\""),
        (&["--log-outputs=default,stderr"], "multi logoutput for \"default\" is not supported yet"),
        (
            &["--log-outputs=no/such/folder"],
            "open sink \"no/such/folder\": open no/such/folder: no such file or directory",
        ),
        (&["--log-outputs=foo://x"], "open sink \"foo://x\": no sink found for scheme \"foo\""),
        (
            &["--enable-log-rotation"],
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
        ),
        (&["--discovery-token=x"], "both --discovery-token and --discovery-endpoints must be set"),
        (
            &["--discovery-endpoints=x", "--discovery-token=y", "--initial-cluster=a=http://a:1"],
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
             \"discovery-endpoints\" or \"discovery-srv\"",
        ),
        (
            &["--discovery-fallback=proxy"],
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
        ),
        (
            &["--enable-distributed-tracing", "--distributed-tracing-sampling-rate=-1"],
            "distributed tracing configurition is not valid: (tracing sampling rate must be \
             positive)",
        ),
        (&["--config-file=no/such/file"], "open no/such/file: no such file or directory"),
    ] {
        refused_with(arguments, &[], expected);
    }
}

#[test]
fn mistakes_that_etcd_only_sees_while_it_starts_are_refused_at_once() {
    // etcd: level fatal, msg "discovery failed", the same error and exit code.
    refused_with(
        &["--auto-compaction-retention=x"],
        &[],
        "error parsing CompactionRetention: time: invalid duration \"x\"",
    );
    refused_with(
        &[
            "--listen-client-http-urls=http://127.0.0.1:23790",
            "--listen-client-urls=http://127.0.0.1:23790",
            "--advertise-client-urls=http://127.0.0.1:23790",
        ],
        &[],
        "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url \
         http://127.0.0.1:23790",
    );
    // etcd ends with a nil pointer.
    refused_with(
        &["--auto-compaction-retention=-5m"],
        &[],
        "--auto-compaction-retention must not be negative (set to -5m)",
    );
}

#[test]
fn own_client_urls_need_own_advertised_ones() {
    let output = run(&["--listen-client-urls=http://127.0.0.1:23790"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let log = log(&output);
    let last = log.last().unwrap();
    assert_eq!(last["msg"], "advertise client URLs are not set");
    assert_eq!(
        last["error"],
        "--advertise-client-urls is required when --listen-client-urls is set explicitly"
    );
}

#[test]
fn an_unknown_log_level_ends_with_the_code_of_a_panic() {
    // etcd panics with this text; here it is a line of the log.
    let output = run(&["--log-level=x"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(log(&output).last().unwrap()["error"], "unrecognized level: \"x\"");
}

#[test]
fn a_variable_that_an_argument_shadows_is_fatal() {
    for value in ["x", ""] {
        let output = run(&["--name=y"], &[("ETCD_NAME", value)]);
        assert_eq!(output.status.code(), Some(1));
        let log = log(&output);
        let last = log.last().unwrap();
        assert_eq!(last["level"], "fatal");
        assert_eq!(last["environment-variable"], "ETCD_NAME");
        assert_eq!(
            last["msg"],
            "conflicting environment variable is shadowed by corresponding command-line flag \
             (either unset environment variable or disable flag))"
        );
    }
}

#[test]
fn variables_set_flags_and_unknown_ones_are_named_without_their_value() {
    let variables = [
        ("ETCD_ELECTION_TIMEOUT", "1"),
        ("ETCD_ROOT_PASSWORD", "hidden"),
        ("ETCD_WAL_DIR", ""),
        ("ETCD_VERSION", "3"),
        ("HOME", "/"),
    ];
    let output = run(&[], &variables);
    let log = log(&output);
    let of = |msg: &str| log.iter().filter(|line| line["msg"] == msg).collect::<Vec<_>>();
    assert_eq!(of("cannot set special environment variable")[0]["key"], "ETCD_VERSION");
    let used = of("recognized and used environment variable");
    assert_eq!(used.len(), 1);
    assert_eq!(used[0]["variable-name"], "ETCD_ELECTION_TIMEOUT");
    assert_eq!(used[0]["variable-value"], "1");
    let unknown = of("unrecognized environment variable");
    let names: Vec<_> = unknown.iter().map(|line| &line["environment-variable"]).collect();
    // An empty variable counts as not there, and so as one that nobody used. etcd logs the value too.
    assert_eq!(names, ["ETCD_ROOT_PASSWORD", "ETCD_WAL_DIR"]);
    assert!(!text(&output.stderr).contains("hidden"));
    assert!(log.last().unwrap()["error"].as_str().unwrap().starts_with("--election-timeout[1ms]"));
}

#[test]
fn a_bad_value_in_a_variable_is_refused() {
    refused_with(
        &[],
        &[("ETCD_HEARTBEAT_INTERVAL", "100 # ms")],
        "invalid value \"100 # ms\" for ETCD_HEARTBEAT_INTERVAL: parse error",
    );
    refused_with(
        &["--name=a"],
        &[("ETCD_CONFIG_FILE", "no/such/file")],
        "open no/such/file: no such file or directory",
    );
}

#[test]
fn what_is_still_to_come_is_refused_with_a_sentence() {
    refused_with(
        &["--enable-distributed-tracing", "--distributed-tracing-sampling-rate=5"],
        &[],
        "--enable-distributed-tracing=true is refused: this version of etched does not support distributed tracing yet (leave it at \
         false); --distributed-tracing-sampling-rate=5 is refused: this version of etched does not support distributed tracing yet \
         (leave it at 0)",
    );
    refused_with(
        &["--feature-gates=LeaseCheckpoint=true"],
        &[],
        "feature gate LeaseCheckpoint=true is refused: this version of etched does not support \
         checkpoints of leases yet",
    );
    for command in ["gateway", "grpc-proxy"] {
        let expected =
            format!("etcd's command {command} is not part of this version of etched yet");
        refused_with(&[command, "start"], &[], &expected);
    }
}

#[test]
fn tls_without_a_certificate_is_refused_in_the_words_of_etcd() {
    let https = "https://127.0.0.1:23790";
    refused_with(
        &[&format!("--listen-client-urls={https}"), &format!("--advertise-client-urls={https}")],
        &[],
        "TLS key/cert (--cert-file, --key-file) must be provided for client url \
         https://127.0.0.1:23790 with HTTPS scheme",
    );
    refused_with(
        &[&format!("--listen-metrics-urls={https}")],
        &[],
        "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
    );
}

#[test]
fn secrets_among_the_arguments_are_not_logged() {
    let output = run(
        &["--discovery-password=hidden", "--discovery-user", "root:hidden", "--election-timeout=1"],
        &[],
    );
    let log = log(&output);
    let running = log.iter().find(|line| line["msg"] == "Running: ").unwrap();
    assert_eq!(running["args"][1], "--discovery-password=***");
    assert_eq!(running["args"][2], "--discovery-user");
    assert_eq!(running["args"][3], "***");
    assert!(!text(&output.stderr).contains("hidden"));
}

#[test]
fn nothing_starts_from_a_restore_that_has_not_ended() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let unfinished = folder.path().join("member.restore");
    std::fs::create_dir(&unfinished).expect("a temporary folder");
    let data_dir = folder.path().to_str().expect("UTF-8");
    let output = run(
        &[
            "--data-dir",
            data_dir,
            "--listen-client-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://127.0.0.1:0",
            "--listen-peer-urls=http://127.0.0.1:0",
        ],
        &[],
    );
    assert_eq!(output.status.code(), Some(1));
    let log = log(&output);
    let error = log.last().expect("a line")["error"].as_str().expect("a reason").to_owned();
    assert!(error.starts_with("a restore into this data directory has not ended"), "{error}");
    assert!(error.ends_with("member.restore") && unfinished.exists(), "{error}");
    assert!(!folder.path().join("member").exists());
}
