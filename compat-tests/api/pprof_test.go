package api

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"

	. "etched.local/compat-tests/harness"
)

func TestProfilesAreServedWhenAskedFor(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for _, path := range []string{
			"", "cmdline", "goroutine?debug=1", "threadcreate?debug=1", "heap?debug=1", "nope", "allocs?debug=1", "block?debug=1",
			"mutex?debug=1", "symbol", "trace?seconds=1",
		} {
			answer, body := request(c, "GET", "/debug/pprof/"+path)
			c.NoteUnder(path, answer.Status)
			if body == "" {
				c.Errorf("%q is empty", path)
			}
		}
		redirect, _ := request(c, "GET", "/debug/pprof?a=b")
		c.NoteUnder("without a slash", redirect.Status+"\n"+redirect.Header.Get("Location"))
		answer, _ := request(c, "GET", "/debug/pprof/cmdline")
		c.NoteUnder("type of cmdline", answer.Header.Get("Content-Type"))
		answer, body := request(c, "GET", "/debug/pprof/profile?seconds=1")
		c.NoteUnder("profile", answer.Status+"\n"+answer.Header.Get("Content-Type")+"\n"+answer.Header.Get("Content-Disposition"))
		reader, err := gzip.NewReader(bytes.NewBufferString(body))
		if err != nil {
			c.Fatal(err)
		}
		profile, err := io.ReadAll(reader)
		if err != nil || !strings.Contains(string(profile), "nanoseconds") {
			c.Errorf("no profile of times: %v", err)
		}
	}, "--enable-pprof")
}
