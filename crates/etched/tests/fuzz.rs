//! Config files, arguments and variables with anything in them.

#![allow(clippy::unwrap_used, reason = "helpers of tests are outside the lint's own exception")]

use etched::environment::{self, Environment};
use etched::go_values::{GoDuration, parse_signed, parse_unsigned};
use etched::settings::logging;
use etched::urls::Url;
use etched::values::Values;
use etched::{Settings, config_file, flags};
use etched_fuzz::{Target, outcome, shape};

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

/// The settings that the values mean, as far as they mean any.
fn settled(values: &Values) -> u64 {
    match logging(values).and_then(|logging| Settings::new(values, logging)) {
        Ok(settings) => {
            assert!(settings.member.election_ticks() > 0);
            shape(&[1, values.changed().count()])
        }
        Err(refused) => outcome(&refused.to_string()),
    }
}

fn names() -> Vec<String> {
    let keys = flags::all().filter_map(|flag| flag.yaml).map(|key| format!("\n{key}: "));
    let marks = [
        "&a ", "*a", "[", "]", "{", "}", "|\n  ", "!!str ", "<<: ", "- ", "'", "\"", "#", "---\n",
        "? ",
    ];
    keys.chain(marks.map(str::to_owned)).collect()
}

#[test]
fn fuzzed_config_files_are_settings_or_an_error() {
    let seeds = [
        "name: s1\ndata-dir: /var/lib/etched\nlisten-client-urls: http://127.0.0.1:2379,http://127.0.0.1:4001\n",
        "auto-compaction-mode: revision\nauto-compaction-retention: \"1000\"\nsocket-options:\n  reuse-port: yes\n",
        "log-outputs: [stderr]\nclient-transport-security:\n  cert-file: a\n  allowed-cn: [x, y]\ncors: '*'\n",
        "{\"name\": \"json\", \"quota-backend-bytes\": 8589934592, \"feature-gates\": \"AllAlpha=true\"}",
        "a: &a [1, 2]\nb: *a\nelection-timeout: 1_000\nauth-token: jwt,pub-key=a,sign-method=RS256,ttl=1h\n",
    ];
    let target = Target::new(FOLDER, "config").seeds(seeds).words(&names());
    // Text of YAML costs some twenty times itself until it is settings.
    target.memory(512 << 10, 512).run(|input| {
        match config_file::read(&String::from_utf8_lossy(input)) {
            Ok(values) => settled(&values),
            Err(error) => outcome(&error.to_string()),
        }
    });
}

/// Lines are arguments; those with `ETCD_` in front are variables.
#[test]
fn fuzzed_arguments_and_variables_are_settings_or_an_error() {
    let seeds = [
        "--name=s1\n--data-dir\ndata\n-listen-client-urls=http://127.0.0.1:1\n--advertise-client-urls=http://a:1",
        "--election-timeout=1000\n--heartbeat-interval\n100\nETCD_NAME=env\nETCD_LOG_LEVEL=debug",
        "--feature-gates=AllAlpha=true,LeaseCheckpoint=false\n--log-rotation-config-json={\"maxsize\":100}\n--enable-log-rotation",
        "--auth-token=jwt,pub-key=a,priv-key=b,sign-method=RS256,ttl=10m\n--auto-compaction-retention=10h",
        "--cors=http://a:1,*\n--host-whitelist=a,b\n--initial-cluster=s1=http://a:1,s2=http://b:2\n--cipher-suites=A,B",
    ];
    let mut words: Vec<String> = flags::all().map(|flag| format!("\n--{}=", flag.name)).collect();
    words.extend(flags::all().map(|flag| format!("\n{}=", flag.variable())));
    let target = Target::new(FOLDER, "arguments").seeds(seeds).words(&words);
    target.memory(512 << 10, 512).run(|input| {
        let text = String::from_utf8_lossy(input);
        let (variables, arguments): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with("ETCD_"));
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        let environment: Environment = variables
            .iter()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut values = Values::default();
        if let Err(error) = flags::parse(&arguments, &mut values) {
            return outcome(&error.to_string());
        }
        flags::without_secrets(&arguments);
        match environment::apply(&environment, &mut values) {
            Ok(()) => settled(&values),
            Err(error) => outcome(&error.to_string()),
        }
    });
}

#[test]
fn fuzzed_urls_read_back_as_they_are_printed() {
    let seeds = [
        "http://127.0.0.1:2379",
        "HTTPS://[::1]:2379",
        "unix:///run/a%20b",
        "unixs://localhost:1",
        "http://a@b:1?q#f",
    ];
    let words = ["http://", "https://", "unix:", "[", "]", "%41", "%c3", "@", ":", "//", ","];
    Target::new(FOLDER, "urls").seeds(seeds).words(&words).bytes_max(256).run(|input| {
        let text = String::from_utf8_lossy(input);
        let _ = Url::parse_list(&text);
        match Url::parse(&text) {
            Ok(url) => {
                let _ = (url.host(), url.port(), url.socket_path());
                let again = Url::parse(url.as_str()).expect("what is printed can be read");
                assert_eq!(again.as_str(), url.as_str());
                assert_eq!((again.host(), again.port()), (url.host(), url.port()));
                shape(&[1, url.scheme() as usize, usize::from(url.bind_address().is_some())])
            }
            Err(error) => outcome(&error.to_string()),
        }
    });
}

#[test]
fn fuzzed_durations_and_numbers_read_back_as_they_are_printed() {
    let seeds =
        ["1h15m30.918273645s", "-1.5h", ".5s", "3\u{b5}s", "0x1F", "0b1_1", "-9223372036854775808"];
    let words = ["ns", "us", "\u{3bc}s", "ms", "s", "m", "h", ".", "9223372036", "0x", "_"];
    Target::new(FOLDER, "numbers").seeds(seeds).words(&words).bytes_max(256).run(|input| {
        let text = String::from_utf8_lossy(input);
        if let Ok(number) = parse_signed(&text) {
            assert_eq!(parse_signed(&number.to_string()), Ok(number));
        }
        if let Ok(number) = parse_unsigned(&text, 32) {
            assert!(u32::try_from(number).is_ok());
        }
        match GoDuration::parse(&text) {
            Ok(duration) => {
                assert_eq!(GoDuration::parse(&duration.to_string()), Ok(duration));
                shape(&[1, duration.0.unsigned_abs() as usize])
            }
            Err(error) => outcome(&error.to_string()),
        }
    });
}
