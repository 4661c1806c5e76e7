#!/usr/bin/env python3
"""Runs etcd's own black-box suite, go.etcd.io/etcd/tests/v3/common, on etched.

    run.py [--server PATH | --oracle] [--tls KIND] [--all] [--jobs N] [--only REGEX] [--record] [-v]

The suite is compiled from the Go module beside this file (nothing of it is copied) and finds its
three programs by name in one folder: `etcd` is the server under test, `etcdctl` and `etcdutl` are
etcd's own. `--oracle` runs real etcd as the server, which is how the lists are checked.

It uses fixed ports, so every test function gets a network, pid and mount namespace of its own
(inside.py) and a working folder shaped as it expects: <x>/tests/common beside <x>/tests/fixtures.

  cases.txt  every case of the suite with its outcome on real etcd (`--oracle --all --record`)
  skip.txt   cases that wait for a later part, with the part's number and the reason

`--tls TLS` and `--tls AutoTLS` run the cases of one member once more with TLS for clients and peers, by
given certificates or by generated ones. etcd's own variants with TLS have three members; secured/ makes
those with one. What is expected is cases.txt with the other name.

A case is a leaf of the test tree. Each case of cases.txt is reported once: passed, failed or
skipped. One that neither ran nor stands in skip.txt has failed, and so has one that the suite skips
on our server but not on etcd: nothing vanishes silently.
"""

import argparse
import concurrent.futures
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from fnmatch import translate

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SUITE = "go.etcd.io/etcd/tests/v3/common"
TLS_KINDS = ("TLS", "AutoTLS")
# How the suite calls a cluster without TLS, and those that it has with three members only.
PLAIN, OF_THREE = "NoTLS", re.compile(r"^Peer\w*TLS")
# Not run over TLS: TestAuthority chooses TLS itself, and in the others clients log in, which the suite's own
# client (e2e.NewEtcdctl) does without TLS, so that they fail on etcd as well.
NOT_OVER_TLS = re.compile(r"^TestAuth(?!Enable$|JWTOnly$)")
TEST_TIMEOUT_SECONDS = 240
STALL_SECONDS = 45
RESULT = re.compile(r"^\s*--- (PASS|FAIL|SKIP): (.+) \(([0-9.]+)s\)$")


class SkipRule:
    """One line of skip.txt: `<part> <pattern> <reason>`; the pattern is a glob per path element."""

    def __init__(self, line):
        self.part, self.pattern, self.reason = line.split(None, 2)
        self.elements = [re.compile(translate(e)) for e in self.pattern.split("/")]
        self.used = False

    def covers(self, case):
        """Whether `case` is what the pattern names or lies below it."""
        names = case.split("/")
        return len(names) >= len(self.elements) and all(
            element.match(name) for element, name in zip(self.elements, names)
        )

    def go_regex(self):
        """The same pattern for `-test.skip`, where elements are matched one by one."""
        globs = ["^" + re.escape(e).replace(r"\*", ".*") + "$" for e in self.pattern.split("/")]
        return "/".join(globs)


def read_lines(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as file:
        return [line.strip() for line in file if line.strip() and not line.startswith("#")]


def read_cases(tests, tls):
    """The cases of these test functions with their outcome on etcd."""
    cases = dict(reversed(line.split(" ", 1)) for line in read_lines("cases.txt"))
    if tls:
        names = {case: case.split("/") for case in cases}
        cases = {"/".join(tls if name == PLAIN else name for name in names[case]): outcome
                 for case, outcome in cases.items() if not any(map(OF_THREE.match, names[case]))}
    return {case: outcome for case, outcome in cases.items() if case.split("/")[0] in tests}


def build(out, tls):
    """Compiles the suite through the Go module here, and the programs it calls through the one of
    compat-tests, into `out`."""
    os.makedirs(out, exist_ok=True)
    listed = subprocess.run(
        ["go", "list", "-m", "-f", "{{.Dir}}", "go.etcd.io/etcd/tests/v3"],
        cwd=HERE, check=True, capture_output=True, text=True,
    ).stdout.strip()
    module, package, suite = HERE, SUITE, os.path.join(out, "common.test")
    if tls:
        module, package = secured(os.path.join(listed, "common"), os.path.join(out, "secured")), "."
        suite = os.path.join(out, "common-tls.test")
    subprocess.run(["go", "test", "-c", "-tags", "e2e", "-o", suite, package], cwd=module, check=True)
    for name, package in (
        ("etcd", "go.etcd.io/etcd/server/v3"),
        ("etcdctl", "go.etcd.io/etcd/etcdctl/v3"),
        ("etcdutl", "go.etcd.io/etcd/etcdutl/v3"),
    ):
        subprocess.run(["go", "build", "-o", os.path.join(out, name), package],
                       cwd=os.path.dirname(HERE), check=True)
    return suite, os.path.join(listed, "fixtures")


def secured(suite, folder):
    """A copy of the suite's package, in a module of its own, with our choice of clusters instead of its own: a
    file in Go's module cache cannot be replaced for one build."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(suite, folder, copy_function=shutil.copyfile)
    os.chmod(folder, 0o755)
    for name in ("go.mod", "go.sum", "secured/e2e_test.go"):
        shutil.copyfile(os.path.join(HERE, name), os.path.join(folder, os.path.basename(name)))
    return folder


class Bench:
    """Where one run's tests find their programs and leave their logs."""

    def __init__(self, built, server, logs, tls):
        self.suite, self.fixtures = build(built, tls)
        self.environment = {**os.environ, "SUITE_TLS": tls or ""}
        self.logs = os.path.join(logs, tls) if tls else logs
        logs = self.logs
        os.makedirs(logs, exist_ok=True)
        self.bin = tempfile.mkdtemp(prefix="etched-suite-bin-")
        os.symlink(server or os.path.join(built, "etcd"), os.path.join(self.bin, "etcd"))
        for name in ("etcdctl", "etcdutl"):
            os.symlink(os.path.join(built, name), os.path.join(self.bin, name))

    def tests(self):
        listed = subprocess.run([self.suite, "-test.list", "."], check=True, capture_output=True,
                                text=True, cwd=self._workplace(self.bin), env=self.environment)
        return [line for line in listed.stdout.split() if line.startswith("Test")]

    def _workplace(self, scratch):
        """The folder the suite wants to stand in; it finds its fixtures beside it."""
        common = os.path.join(scratch, "tests", "common")
        os.makedirs(common, exist_ok=True)
        fixtures = os.path.join(scratch, "tests", "fixtures")
        if not os.path.lexists(fixtures):
            os.symlink(self.fixtures, fixtures)
        return common

    def run(self, test, skip):
        """Runs one test function; returns {case: (outcome, seconds)}.

        The suite waits without a limit for what `etcdctl` prints. Now and then, on real etcd too,
        an etcdctl that ended well is never heard: its last words are lost on the pseudo terminal.
        Only then, with no client left that could wait for the server, the test is run again."""
        results = self.attempt(test, skip)
        if results is None:
            print(f"again {test}: its etcdctl ended, but the suite lost what it printed", flush=True)
            results = self.attempt(test, skip)
        return results or {test: ("FAIL", STALL_SECONDS)}

    def attempt(self, test, skip):
        """One run in namespaces of its own; None when the suite waits for a client that is gone."""
        scratch = tempfile.mkdtemp(prefix="etched-suite-")
        command = [
            "setpriv", "--pdeathsig", "KILL",  # a run does not outlive this process
            "unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]),
            "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc",
            sys.executable, os.path.join(HERE, "inside.py"), scratch,
            self.suite, "-bin-dir", self.bin, "-test.run", f"^{test}$", "-test.v=test2json",
            f"-test.timeout={TEST_TIMEOUT_SECONDS}s",
        ]
        if skip:
            command += ["-test.skip", "|".join(skip)]
        log_path = os.path.join(self.logs, test + ".log")
        began = time.monotonic()
        with open(log_path, "wb") as log:
            child = subprocess.Popen(command, cwd=self._workplace(scratch), stdout=log,
                                     stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                     env={**self.environment, "TMPDIR": scratch})
            status, lost = self._wait(child, scratch, log_path)
        shutil.rmtree(scratch, ignore_errors=True)
        if lost:
            return None
        results = parse(log_path)
        if status != 0 and not any(outcome == "FAIL" for outcome, _ in results.values()):
            results[test] = ("FAIL", time.monotonic() - began)  # a crash or a time-out
        return results

    def _wait(self, child, scratch, log_path):
        """Waits for a run; its status, and whether it stood still with no client left."""
        deadline = time.monotonic() + TEST_TIMEOUT_SECONDS + 20
        while True:
            try:
                return child.wait(5), False
            except subprocess.TimeoutExpired:
                quiet = time.time() - os.stat(log_path).st_mtime
                lost = quiet > STALL_SECONDS and not clients_in(scratch)
                if lost or time.monotonic() > deadline:
                    child.send_signal(signal.SIGKILL)  # --kill-child takes the namespace along
                    return child.wait(), lost

    def close(self):
        shutil.rmtree(self.bin, ignore_errors=True)


def clients_in(scratch):
    """Processes of etcdctl that work in a run's folder."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm", encoding="ascii") as comm:
                is_client = comm.read().strip() == "etcdctl"
            if is_client and os.readlink(f"/proc/{pid}/cwd").startswith(scratch):
                found.append(pid)
        except OSError:
            continue  # it ended meanwhile
    return found


def parse(log_path):
    """Leaves of the test tree, and inner nodes that failed without a failed child."""
    outcomes = {}
    with open(log_path, encoding="utf-8", errors="replace") as log:
        for line in log:
            # test2json form: a line of the test runner starts with ^V, whatever came before it
            match = RESULT.match(line.rsplit("\x16", 1)[-1].rstrip("\r\n"))
            if match:
                outcomes[match[2]] = (match[1], float(match[3]))
    parents = {name.rsplit("/", 1)[0] for name in outcomes if "/" in name}
    parents |= {p.rsplit("/", i)[0] for p in parents for i in range(1, p.count("/") + 1)}
    failed = [name for name, (outcome, _) in outcomes.items() if outcome == "FAIL"]
    return {
        name: result for name, result in outcomes.items()
        if name not in parents
        or (result[0] == "FAIL" and not any(f.startswith(name + "/") for f in failed))
    }


def excerpt(log_path, lines=20):
    """The part of a log worth printing: what the tests say, without what they narrate."""
    with open(log_path, encoding="utf-8", errors="replace") as log:
        said = [line.rstrip()[:400] for line in log if line.strip()
                and not re.match(r"\s*(logger\.go|testing\.go|\x16?=== |\x16?--- (PASS|SKIP)|.*not supported by RangeStream)", line)]
    crash = next((i for i, line in enumerate(said) if line.startswith("panic: ")), None)
    return said[crash:crash + lines] if crash is not None else said[-lines:]


def options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--server", default=os.environ.get("ETCHED_BIN")
                        or os.path.join(ROOT, "target", "release", "etched"))
    parser.add_argument("--oracle", action="store_true", help="run real etcd as the server")
    parser.add_argument("--tls", choices=TLS_KINDS, help="one member, everything over TLS")
    parser.add_argument("--all", action="store_true", help="do not apply skip.txt")
    parser.add_argument("--record", action="store_true", help="write cases.txt from this run")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default=".", help="regular expression over test functions")
    parser.add_argument("-v", "--verbose", action="store_true", help="also print skipped cases")
    parser.add_argument("--built", default=os.path.join(ROOT, "target", "compat", "etcd"))
    parser.add_argument("--logs", default=os.path.join(ROOT, "target", "compat", "suite-logs"))
    return parser.parse_args()


def plan(tests, cases, rules):
    """Which test functions run at all, and which cases wait for a later part."""
    waiting = {}
    for case in cases:
        rule = next((rule for rule in rules if rule.covers(case)), None)
        if rule:
            rule.used = True
            waiting[case] = rule
    idle = {test for test in tests
            if (below := [c for c in cases if c.split("/")[0] == test])
            and all(c in waiting for c in below)}
    return [test for test in tests if test not in idle], waiting


def only_over_tls(tests, cases):
    """What can be run over TLS, with one member, and how many cases that leaves out."""
    left = {case: outcome for case, outcome in cases.items() if not NOT_OVER_TLS.match(case)}
    names = {case.split("/")[0] for case in left}
    return [test for test in tests if test in names], left, len(cases) - len(left)


def execute(bench, tests, skip, jobs):
    """Runs the tests, `jobs` at a time, and prints each case as it is known."""
    outcomes = {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(bench.run, test, skip): test for test in tests}
        for done in concurrent.futures.as_completed(running):
            results = done.result()
            outcomes.update(results)
            for case, (outcome, spent) in results.items():
                if outcome != "SKIP":
                    print(f"{outcome.lower():4}  {case}  ({spent:.2f} s)", flush=True)
            if any(outcome == "FAIL" for outcome, _ in results.values()):
                log = os.path.join(bench.logs, running[done] + ".log")
                print("\n".join("      | " + line for line in excerpt(log)))
                print(f"      log: {os.path.relpath(log, ROOT)}", flush=True)
    return outcomes


def missing(outcomes, expected, waiting):
    """Cases that etcd passes and that were not tried here, unless something above them failed."""
    for case, on_etcd in expected.items():
        outcome = outcomes.get(case, ("NONE", 0))[0]
        below_failure = any(case.startswith(name + "/") for name, (outcome, _) in outcomes.items()
                            if outcome == "FAIL")
        if case in waiting or below_failure or outcome in ("PASS", "FAIL"):
            continue
        if outcome == "NONE" or on_etcd == "pass":
            yield case, "neither run nor in skip.txt" if outcome == "NONE" else "skipped by the suite"


def report(outcomes, expected, waiting, left_out, verbose):
    """Prints what is missing and the closing line; true when nothing failed."""
    if left_out:
        print(f"{left_out:4} cases are not run over TLS: their client logs in without it, or they choose it")
    lost = dict(missing(outcomes, expected, waiting))
    for case, why in lost.items():
        print(f"fail  {case}: {why}")
    if verbose:
        for case, rule in waiting.items():
            print(f"wait  {case}: part {rule.part}, {rule.reason}")
    parts = {}
    for rule in waiting.values():
        parts[(rule.part, rule.reason)] = parts.get((rule.part, rule.reason), 0) + 1
    for (part, reason), count in sorted(parts.items()):
        print(f"{count:4} cases wait for part {part}: {reason}")
    count = {o: sum(1 for outcome, _ in outcomes.values() if outcome == o)
             for o in ("PASS", "FAIL")}
    failed = count["FAIL"] + len(lost)
    own = sum(1 for case, (outcome, _) in outcomes.items() if outcome == "SKIP" and case not in lost)
    print(f"{own:4} cases are skipped by the suite itself, on etcd too")
    print(f"suite: {count['PASS']} passed, {failed} failed, {own + len(waiting) + left_out} skipped")
    return failed == 0


def main():
    opts = options()
    if opts.tls and opts.record:
        sys.exit("cases.txt is recorded without --tls")
    if not opts.oracle and not os.access(opts.server, os.X_OK):
        sys.exit(f"{opts.server} is not there; build it with `cargo build --release`")
    server = None if opts.oracle else os.path.realpath(opts.server)
    bench = Bench(opts.built, server, opts.logs, opts.tls)
    try:
        tests, left_out = [test for test in bench.tests() if re.search(opts.only, test)], 0
        cases = {} if opts.record else read_cases(tests, opts.tls)
        if opts.tls:
            tests, cases, left_out = only_over_tls(tests, cases)
        rules = [] if opts.all else [SkipRule(line) for line in read_lines("skip.txt")]
        chosen, waiting = plan(tests, cases, rules)
        outcomes = execute(bench, chosen, [rule.go_regex() for rule in rules], opts.jobs)
    finally:
        bench.close()
    if opts.record:
        with open(os.path.join(HERE, "cases.txt"), "w", encoding="utf-8") as file:
            file.writelines(f"{outcomes[case][0].lower()} {case}\n" for case in sorted(outcomes))
    whole = opts.only == "." and not opts.tls
    stale = [rule.pattern for rule in rules if not rule.used and whole]
    for pattern in stale:
        print(f"fail  skip.txt: {pattern} covers no case")
    sys.exit(0 if report(outcomes, cases, waiting, left_out, opts.verbose) and not stale else 1)


if __name__ == "__main__":
    main()
