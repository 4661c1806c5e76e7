package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The unit of the times in /proc/PID/stat; Linux fixes it for users.
const ticksPerSecond = 100

// part is one measured stretch of a command.
type part struct {
	Name       string  `json:"name"`
	Operations int64   `json:"operations"`
	Errors     int64   `json:"errors"`
	FirstError string  `json:"first_error,omitempty"`
	Seconds    float64 `json:"seconds"`
	PerSecond  float64 `json:"per_second"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	P999       float64 `json:"p999_ms"`
	Max        float64 `json:"max_ms"`
	// Of the server and of this program, user and system; the server's needs -pid.
	ServerCPU float64 `json:"server_cpu_seconds"`
	LoadCPU   float64 `json:"load_cpu_seconds"`
	// Resident bytes of the server: when the part began, and at most since.
	MemoryBefore float64 `json:"memory_before_bytes"`
	MemoryPeak   float64 `json:"memory_peak_bytes"`
}

// meter is a part that is under way.
type meter struct {
	pid       int
	began     time.Time
	serverCPU float64
	ownCPU    float64
	memory    float64
}

func startMeter(pid int) (*meter, error) {
	m := &meter{pid: pid}
	if pid != 0 {
		// 5 sets the peak back to what is resident now, so that each part has its own.
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
			return nil, err
		}
	}
	var err error
	if m.memory, err = memoryOf(pid, "VmRSS:"); err != nil {
		return nil, err
	}
	if m.serverCPU, err = cpuOf(pid); err != nil {
		return nil, err
	}
	m.ownCPU, err = ownCPU()
	m.began = time.Now()
	return m, err
}

// stop closes the part with what happened in it.
func (m *meter) stop(name string, o *outcome) (part, error) {
	seconds := time.Since(m.began).Seconds()
	p := part{Name: name, Operations: o.operations, Errors: o.errors, Seconds: seconds, MemoryBefore: m.memory}
	if o.first != nil {
		p.FirstError = o.first.Error()
	}
	milliseconds := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	p.PerSecond = float64(o.operations) / seconds
	p.P50, p.P99 = milliseconds(o.latency.quantile(0.5)), milliseconds(o.latency.quantile(0.99))
	p.P999, p.Max = milliseconds(o.latency.quantile(0.999)), milliseconds(o.latency.max)
	own, err := ownCPU()
	if err != nil {
		return p, err
	}
	server, err := cpuOf(m.pid)
	if err != nil {
		return p, err
	}
	p.LoadCPU, p.ServerCPU = own-m.ownCPU, server-m.serverCPU
	p.MemoryPeak, err = memoryOf(m.pid, "VmHWM:")
	return p, err
}

func ownCPU() (float64, error) {
	var usage syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9, err
}

func cpuOf(pid int) (float64, error) {
	if pid == 0 {
		return 0, nil
	}
	path := fmt.Sprintf("/proc/%d/stat", pid)
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses and may hold spaces; user and system
	// time are the 14th and 15th.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("%s is not as expected", path)
	}
	user, err := strconv.ParseFloat(fields[11], 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseFloat(fields[12], 64)
	return (user + system) / ticksPerSecond, err
}

// memoryOf reads a field of the server's status, in bytes.
func memoryOf(pid int, field string) (float64, error) {
	if pid == 0 {
		return 0, nil
	}
	path := fmt.Sprintf("/proc/%d/status", pid)
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, field); found {
			kibibytes, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kibibytes * 1024, err
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, field)
}

// bytesOnDisk adds up the blocks of a folder's files. A file that vanishes meanwhile counts for nothing.
func bytesOnDisk(folder string) (float64, error) {
	var blocks int64
	err := filepath.WalkDir(folder, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil
		}
		if info, err := entry.Info(); err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				blocks += stat.Blocks
			}
		}
		return nil
	})
	return float64(blocks) * 512, err
}
