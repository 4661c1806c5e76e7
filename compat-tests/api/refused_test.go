package api

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "etched.local/compat-tests/harness"
)

// essence is the exit code and what a refusal says: the error of the last line of the log that has one, else
// the first line of text.
func essence(run Run) string {
	said := ""
	for _, line := range strings.Split(strings.TrimSpace(run.Output), "\n") {
		var entry struct{ Error string }
		if json.Unmarshal([]byte(line), &entry) == nil {
			if entry.Error != "" {
				said = entry.Error
			}
		} else if said == "" {
			said = strings.TrimSpace(line)
		}
	}
	return fmt.Sprintf("exit code %d: %s", run.Code, said)
}

// served are flags under which a server would start.
const served = " --data-dir <data> --listen-client-urls http://<client> --advertise-client-urls http://<client>" +
	" --listen-peer-urls http://<peer> --initial-advertise-peer-urls http://<peer> --initial-cluster default=http://<peer>"

// Starts that no server makes. A `+` stands for flags under which it would start but for these.
var refusedStarts = strings.Split(strings.TrimSpace(`
--nope
--name
nope
--heartbeat-interval=x
--heartbeat-interval=-1
--heartbeat-interval=0
--election-timeout=0
--heartbeat-interval=200 --election-timeout=999
--election-timeout=50001
--max-txn-ops=x
--max-request-bytes=-1
--max-concurrent-streams=4294967296
--max-concurrent-streams=x
--quota-backend-bytes=1.5
--grpc-keepalive-min-time=5
--corrupt-check-time=x
--compact-hash-check-time=0s
--compact-hash-check-time=-1s
--pre-vote=maybe
--snapshot-count=-1
--bcrypt-cost=x
--initial-cluster-state=nope
--initial-cluster-state=
--discovery-fallback=nope
--discovery-fallback=proxy
--v2-deprecation=nope
--metrics=nope --heartbeat-interval=0
--listen-client-urls=nope
--listen-client-urls=http://127.0.0.1
--listen-client-urls=ftp://127.0.0.1:1
--listen-client-urls=http://127.0.0.1:1/path
--listen-client-urls=http://example.com:2379
--listen-peer-urls=http://example.com:2380
--listen-client-http-urls=http://example.com:2380
--listen-metrics-urls=http://example.com:2380
--listen-client-urls=http://127.0.0.1:2379
--listen-client-urls=
--advertise-client-urls=http://:2379
--initial-advertise-peer-urls=http://:2380
--initial-cluster=default=http://127.0.0.1:2380 --discovery-srv=example.com
--initial-cluster=default=http://127.0.0.1:2380 --discovery-endpoints=127.0.0.1:1
--discovery-srv=example.com --discovery-endpoints=127.0.0.1:1
--discovery-token=x
--discovery-endpoints=127.0.0.1:1
--auto-compaction-mode=
--auto-compaction-mode=nope
--enable-distributed-tracing --distributed-tracing-sampling-rate=-1
--enable-distributed-tracing --distributed-tracing-sampling-rate=1000001
--feature-gates=Nope=true
--feature-gates=LeaseCheckpoint
--feature-gates=LeaseCheckpoint=maybe
--feature-gates=LeaseCheckpointPersist=true
--tls-min-version=TLS1.1
--tls-max-version=nope
--tls-min-version=TLS1.3 --tls-max-version=TLS1.2
--tls-min-version=TLS1.3 --cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
--tls-max-version=TLS1.3 --cipher-suites=nope --heartbeat-interval=0
--logger=capnslog
--logger=nope
--log-format=nope
--log-outputs=default,stderr
--log-outputs=
--enable-log-rotation
--enable-log-rotation --log-outputs=a.log,b.log
--enable-log-rotation --log-outputs=a.log --log-rotation-config-json={
--enable-log-rotation --log-outputs=a.log --log-rotation-config-json={"maxsize":true}
--config-file=nope.yaml
--cors=nope
--log-level=nope
+ --auto-compaction-retention=x
+ --auto-compaction-mode=revision --auto-compaction-retention=x
+ --listen-client-http-urls=http://<client>
+ --listen-metrics-urls=https://127.0.0.1:0
+ --initial-cluster=
+ --initial-cluster=other=http://<peer>
+ --initial-cluster=default=http://127.0.0.1:1
+ --initial-cluster=default=nope
+ --initial-cluster=default
+ --initial-cluster=default=http://<peer>,b=http://<peer>
+ --initial-advertise-peer-urls=http://<peer>,http://127.0.0.1:1
+ --auth-token=nope
+ --auth-token=jwt
+ --auth-token=jwt,sign-method=RS256
+ --auth-token=jwt,sign-method=nope,pub-key=x,priv-key=y
+ --auth-token=jwt,sign-method=RS256,pub-key=nope.pem,priv-key=nope.pem
+ --auth-token=jwt,sign-method
+ --auth-token=simple,x
+ --cert-file=nope.pem --key-file=nope.pem --listen-client-urls=https://<client>
+ --listen-client-urls=https://<client>
+ --listen-client-urls=https://<client> --auto-tls --self-signed-cert-validity=x
`), "\n")

// The same by the environment, before flags that are given too.
var refusedVariables = [][2]string{
	{"ETCD_HEARTBEAT_INTERVAL=x", ""}, {"ETCD_HEARTBEAT_INTERVAL=0", ""}, {"ETCD_PRE_VOTE=maybe", ""},
	{"ETCD_NAME=a", "--name=b"}, {"ETCD_CONFIG_FILE=nope.yaml", ""}, {"ETCD_FEATURE_GATES=Nope=true", ""},
	{"ETCD_LISTEN_CLIENT_URLS=http://example.com:1", ""}, {"ETCD_AUTO_COMPACTION_MODE=nope", ""},
	{"ETCD_COMPACT_HASH_CHECK_TIME=0s", ""}, {"ETCD_INITIAL_CLUSTER_STATE=nope", ""},
}

// The same by a config file.
var refusedFiles = []string{
	"heartbeat-interval: 0", "election-timeout: 60000", "initial-cluster-state: nope",
	"listen-client-urls: http://example.com:1", "listen-client-urls: nope", "advertise-client-urls: http://:1",
	"auto-compaction-mode: nope", "feature-gates: Nope=true", "compact-hash-check-time: -1", "tls-min-version: TLS1.1",
	"logger: nope", "log-format: nope", "log-level: nope",
	"distributed-tracing-sampling-rate: -1\nenable-distributed-tracing: true",
}

// Files that are refused in words of the library that reads them.
var unreadableFiles = []string{
	"heartbeat-interval: x", "compact-hash-check-time: 1m", "pre-vote: maybe", "- a", "a: [", "name: [a, b]",
	"quota-backend-bytes: many", "max-concurrent-streams: -1", "client-transport-security: x", "host-whitelist: 5",
}

// alike is whether etched says what etcd says; it may say more behind it. A panic of etcd is a line of the log
// here, and of JSON that is none the library's words do not count.
func alike(etcd, etched string) bool {
	etcd = strings.Replace(etcd, ": panic: ", ": ", 1)
	if words, _, found := strings.Cut(etcd, "log rotation config:"); found {
		etcd = words
	}
	return etched == etcd || strings.HasPrefix(etched, etcd+": ") || strings.HasPrefix(etched, etcd+"log rotation config:")
}

// refused runs such a start on both and compares what they say.
func refused(t *testing.T, through func(string) []string, flags string) {
	t.Helper()
	etcd, etched := EachAlone(t, func(t *testing.T, kind Kind) string {
		run := Refused(t, kind, through, strings.Fields(flags)...)
		if run.Code <= 0 {
			t.Errorf("exit code %d\n%s", run.Code, run.Output)
		}
		return essence(run)
	})
	if !alike(etcd, etched) {
		t.Errorf("DIFFERENCE\n    etcd   %s\n    etched %s", etcd, etched)
	}
}

func TestWrongFlagsAreRefusedInTheWordsOfEtcd(t *testing.T) {
	for _, row := range refusedStarts {
		t.Run(strings.ReplaceAll(row, "/", "|"), func(t *testing.T) {
			flags := row
			if strings.HasPrefix(row, "+") {
				flags = served[1:] + row[1:]
			}
			refused(t, nil, flags)
		})
	}
}

func TestWrongVariablesAreRefusedInTheWordsOfEtcd(t *testing.T) {
	for _, row := range refusedVariables {
		t.Run(strings.ReplaceAll(row[0], "/", "|"), func(t *testing.T) {
			refused(t, func(program string) []string { return []string{"env", row[0], program} }, row[1])
		})
	}
}

// configFile writes a config file and gives the flag that names it.
func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return "--config-file=" + path
}

func TestWrongConfigFilesAreRefusedInTheWordsOfEtcd(t *testing.T) {
	for _, text := range refusedFiles {
		t.Run(strings.ReplaceAll(text, "/", "|"), func(t *testing.T) { refused(t, nil, configFile(t, text)) })
	}
}

func TestConfigFilesThatCannotBeReadAreRefused(t *testing.T) {
	for _, text := range unreadableFiles {
		t.Run(text, func(t *testing.T) {
			flag := configFile(t, text)
			etcd, etched := EachAlone(t, func(t *testing.T, kind Kind) string {
				return fmt.Sprint("exit code ", Refused(t, kind, nil, flag).Code)
			})
			if etcd != etched || etcd != "exit code 1" {
				t.Errorf("DIFFERENCE\n    etcd   %s\n    etched %s", etcd, etched)
			}
		})
	}
}
