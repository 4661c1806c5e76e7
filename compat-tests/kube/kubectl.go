package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Said is what a run of kubectl printed and how it ended.
type Said struct {
	Code     int
	Out, Err string
}

// Kubectl runs kubectl in the body's namespace with this text as its standard input, and notes what it
// said.
func (c *Case) Kubectl(input string, args ...string) Said {
	c.Helper()
	said := c.kubectl(input, args...)
	c.Notef("kubectl %s: exit %d\n%s%s", strings.Join(args, " "), said.Code, said.Out, said.Err)
	return said
}

// Does runs kubectl, which must end well and print this.
func (c *Case) Does(want, input string, args ...string) {
	c.Helper()
	said := c.Kubectl(input, args...)
	if said.Code != 0 || strings.TrimSpace(said.Out) != want {
		c.Errorf("kubectl %s: exit %d, %q instead of %q; %s", strings.Join(args, " "), said.Code, said.Out, want, said.Err)
	}
}

// Fails runs kubectl, which must fail and say this among other things.
func (c *Case) Fails(want, input string, args ...string) {
	c.Helper()
	said := c.Kubectl(input, args...)
	if said.Code == 0 || !strings.Contains(said.Err, want) {
		c.Errorf("kubectl %s: exit %d, %q instead of a failure with %q", strings.Join(args, " "), said.Code, said.Out+said.Err, want)
	}
}

func (c *Case) kubectl(input string, args ...string) Said {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.T.Context(), Deadline)
	defer cancel()
	command := exec.CommandContext(ctx, program("kubectl"), append([]string{
		"--server=https://" + c.Apiserver().Address, "--namespace=" + c.Namespace,
		"--certificate-authority=" + c.keys.kube.file,
		"--client-certificate=" + c.admin.certFile, "--client-key=" + c.admin.keyFile,
		"--cache-dir=" + filepath.Join(c.dir, "kubectl"),
	}, args...)...)
	// Nothing of whoever runs the tests: no kubeconfig, no settings.
	command.Env = []string{"HOME=" + c.dir, "PATH=" + os.Getenv("PATH"), "KUBECONFIG=/dev/null"}
	command.Stdin = strings.NewReader(input)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.Fatal(fmt.Errorf("kubectl: %w", err))
	}
	return Said{command.ProcessState.ExitCode(), out.String(), errs.String()}
}
