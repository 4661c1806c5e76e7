package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"
)

// isolate runs this program again in namespaces of its own and gives its exit status. When this
// process ends, however it ends, the kernel ends all of them.
func isolate(arguments []string) int {
	runtime.LockOSThread() // Pdeathsig watches the thread, not the process
	command := exec.Command("/proc/self/exe", arguments...)
	command.Stdin, command.Stdout, command.Stderr = nil, os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Geteuid() != 0 { // an ordinary user needs a user namespace in which it is root
		command.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		command.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		command.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	err := command.Run()
	if err == nil {
		return 0
	}
	if command.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "crash: namespaces:", err)
		return 1
	}
	return max(command.ProcessState.ExitCode(), 1)
}

// settleIn makes the namespaces usable: mounts stay inside, /proc shows these processes, and the
// loopback device is up.
func settleIn() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("/proc: %w", err)
	}
	return loopbackUp()
}

// interfaceFlags is the kernel's struct ifreq for the two flag requests.
type interfaceFlags struct {
	name  [16]byte
	flags uint16
	_     [22]byte
}

func loopbackUp() error {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(socket)
	request := interfaceFlags{name: [16]byte{'l', 'o'}}
	for _, call := range []uintptr{syscall.SIOCGIFFLAGS, syscall.SIOCSIFFLAGS} {
		request.flags |= syscall.IFF_UP
		_, _, failure := syscall.Syscall(syscall.SYS_IOCTL, uintptr(socket), call, uintptr(unsafe.Pointer(&request)))
		if failure != 0 {
			return fmt.Errorf("loopback device: %w", failure)
		}
	}
	return nil
}
