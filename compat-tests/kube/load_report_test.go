//go:build load

package kube

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// ticksPerSecond is the unit of times in /proc/PID/stat; Linux fixes it for users.
const ticksPerSecond = 100

// phaseResult is what a phase says of itself.
type phaseResult struct {
	latencies []time.Duration
	note      string
}

// cost is what a phase took.
type cost struct {
	seconds, cpu, peakMiB float64
}

type phaseMeter struct {
	pid   int
	cpu   float64
	began time.Time
}

// startMeter begins a phase: the peak of the process's memory counts from now on.
func startMeter(t *testing.T, pid int) phaseMeter {
	t.Helper()
	// 5 sets the peak back to what is resident now.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
	return phaseMeter{pid: pid, cpu: cpuSeconds(t, pid), began: time.Now()}
}

func (m phaseMeter) stop(t *testing.T) cost {
	t.Helper()
	return cost{time.Since(m.began).Seconds(), cpuSeconds(t, m.pid) - m.cpu, peakMiB(t, m.pid)}
}

func cpuSeconds(t *testing.T, pid int) float64 {
	t.Helper()
	text := string(need(os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))))
	// The second field, a name in parentheses, may hold spaces; user and system time are the 14th and 15th.
	var user, system float64
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	need(fmt.Sscan(fields[11], &user))
	need(fmt.Sscan(fields[12], &system))
	return (user + system) / ticksPerSecond
}

func peakMiB(t *testing.T, pid int) float64 {
	t.Helper()
	for line := range strings.Lines(string(need(os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))))) {
		if rest, found := strings.CutPrefix(line, "VmHWM:"); found {
			var kibibytes float64
			need(fmt.Sscan(rest, &kibibytes))
			return kibibytes / 1024
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

// report is one server's figures, a row a phase.
type report struct{ rows []row }

type row struct {
	phase    string
	cost     cost
	p50, p99 float64
	note     string
}

func (r *report) add(phase string, c cost, result phaseResult) {
	sorted := slices.Sorted(slices.Values(result.latencies))
	at := func(q float64) float64 {
		if len(sorted) == 0 {
			return 0
		}
		return sorted[int(q*float64(len(sorted)-1))].Seconds() * 1000
	}
	r.rows = append(r.rows, row{phase, c, at(0.5), at(0.99), result.note})
}

func (r *report) last() string {
	l := r.rows[len(r.rows)-1]
	return fmt.Sprintf("%.1f s, CPU %.2f s, peak %.0f MiB, p50 %.2f ms, p99 %.2f ms; %s", l.cost.seconds, l.cost.cpu, l.cost.peakMiB, l.p50, l.p99, l.note)
}

// printTable prints both servers' figures with their ratio, as a table of Markdown.
func printTable(etcd, etched *report) {
	if etcd == nil || etched == nil || len(etcd.rows) != len(etched.rows) {
		return // one of them failed and has said so
	}
	fmt.Println("| phase | figure | etched | etcd | ratio |\n| --- | --- | --- | --- | --- |")
	for i, other := range etcd.rows {
		own := etched.rows[i]
		for _, figure := range []struct {
			name      string
			own, etcd float64
		}{
			{"time, s", own.cost.seconds, other.cost.seconds},
			{"server CPU, s", own.cost.cpu, other.cost.cpu},
			{"peak memory, MiB", own.cost.peakMiB, other.cost.peakMiB},
			{"p50, ms", own.p50, other.p50},
			{"p99, ms", own.p99, other.p99},
		} {
			if figure.etcd > 0 {
				fmt.Printf("| %s | %s | %.3g | %.3g | %.2f |\n", own.phase, figure.name, figure.own, figure.etcd, figure.own/figure.etcd)
			}
		}
		fmt.Printf("| %s | | %s | %s | |\n", own.phase, own.note, other.note)
	}
}
