package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// Machine is one that runs.
type Machine struct {
	// Inside is a thread in the machine's namespaces.
	Inside *Thread
	// PID is that of the machine's first process, as seen from here.
	PID int
	// Ended is closed when the first process is gone, and with it all others.
	Ended chan struct{}
}

// Boot starts a machine in the network of a thread. The machine's own complaints go to log.
func Boot(network *Thread, spec *Spec, log *os.File) (*Machine, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	argument, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	ready, saysReady, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	command := exec.Command(self, "machine-init", string(argument))
	command.Stdout, command.Stderr = log, log
	command.ExtraFiles = []*os.File{saysReady}
	command.Dir = "/"
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL, // not even kill -9 of this process leaves anything of the machine behind
		Setpgid:    true,
	}
	err = network.Do(command.Start)
	_ = saysReady.Close()
	if err != nil {
		return nil, fmt.Errorf("cannot start a machine: %w", err)
	}
	m := &Machine{PID: command.Process.Pid, Ended: make(chan struct{})}
	go func() {
		_ = command.Wait()
		close(m.Ended)
	}()
	if n, _ := io.ReadFull(ready, make([]byte, 1)); n != 1 {
		m.Kill()
		return nil, errors.New("the machine did not start; machine.log says why")
	}
	m.Inside, err = NewThread(func() error { return enter(m.PID) })
	if err != nil {
		m.Kill()
		return nil, err
	}
	return m, nil
}

// Kill ends all of the machine's processes at once, as cutting the power would.
func (m *Machine) Kill() {
	_ = unix.Kill(m.PID, unix.SIGKILL)
	<-m.Ended
	if m.Inside != nil {
		m.Inside.End() // it holds the machine's mounts
	}
}

// EnterNetwork moves the calling thread into the network of a process.
func EnterNetwork(pid int) error { return enterOne(pid, "net", unix.CLONE_NEWNET) }

// enter moves the calling thread into the namespaces of a process. Of the processes' namespace only the
// thread's children become part.
func enter(pid int) error {
	// Threads share their root and working folder, unless they say that they do not.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("cannot part from the other threads: %w", err)
	}
	return errors.Join(
		enterOne(pid, "net", unix.CLONE_NEWNET),
		enterOne(pid, "uts", unix.CLONE_NEWUTS),
		enterOne(pid, "ipc", unix.CLONE_NEWIPC),
		enterOne(pid, "pid", unix.CLONE_NEWPID),
		enterOne(pid, "mnt", unix.CLONE_NEWNS), // the last: the others are found by their path out here
	)
}

func enterOne(pid int, kind string, flag int) error {
	path := fmt.Sprintf("/proc/%d/ns/%s", pid, kind)
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.Setns(int(file.Fd()), flag); err != nil {
		return fmt.Errorf("cannot enter %s: %w", path, err)
	}
	return nil
}
