package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"berth.dev/e2e/cluster/machine"
)

// stopGrace is how long a component has to end by itself.
const stopGrace = 5 * time.Second

// process is a running component.
type process struct {
	name    string
	logFile string
	pid     int
	// ended is closed when the process is gone; outcome says how it ended, from then on.
	ended   chan struct{}
	outcome string
}

// processes starts components, notices when one dies, and stops them all.
type processes struct {
	logDir string
	home   string
	// thread starts the components, in its network, and lives as long as they.
	thread  *machine.Thread
	running []*process // in the order of their start
	died    chan *process
}

func newProcesses(logDir, home string, thread *machine.Thread) *processes {
	return &processes{logDir: logDir, home: home, thread: thread, died: make(chan *process, len(components))}
}

// start starts a component of this very binary. Its output goes to a log file of its name.
func (p *processes) start(name string, args []string) (*process, error) {
	// Not even kill -9 of this process leaves a child behind.
	started, err := p.launch(p.thread, name, "", args, syscall.SIGKILL)
	if err != nil {
		return nil, err
	}
	p.running = append(p.running, started)
	go func() {
		<-started.ended
		p.died <- started
	}()
	return started, nil
}

// launch starts a program on a thread, or without one this very binary under a name, which is also that of
// its log file. What was in the file stays there.
func (p *processes) launch(thread *machine.Thread, name, program string, args []string, whenParentDies syscall.Signal) (*process, error) {
	if program == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		program, args = self, append([]string{name}, args...)
	}
	started := &process{
		name:    name,
		logFile: filepath.Join(p.logDir, name+".log"),
		ended:   make(chan struct{}),
	}
	log, err := os.OpenFile(started.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
	if err != nil {
		return nil, err
	}
	defer log.Close()

	command := exec.Command(program, args...)
	command.Stdout, command.Stderr = log, log
	// Nothing of the user's own home and settings reaches the cluster.
	command.Env = append(os.Environ(), "HOME="+p.home, "KUBECONFIG=")
	command.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: whenParentDies,
		Setpgid:   true, // Ctrl-C reaches this process only, which stops the others in order
	}
	if err := thread.Do(command.Start); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", name, err)
	}
	started.pid = command.Process.Pid
	go func() {
		_ = command.Wait()
		started.outcome = command.ProcessState.String()
		close(started.ended)
	}()
	return started, nil
}

// stop stops all components, those started last first.
func (p *processes) stop() {
	for i := len(p.running) - 1; i >= 0; i-- {
		running := p.running[i]
		if running.end(syscall.SIGTERM, stopGrace) || running.end(syscall.SIGKILL, stopGrace) {
			continue
		}
		fmt.Fprintf(os.Stderr, "berth-cluster: %s (pid %d) does not end\n", running.name, running.pid)
	}
}

// end signals a process unless it is gone already, and says whether it is gone in time.
func (p *process) end(signal syscall.Signal, within time.Duration) bool {
	select {
	case <-p.ended:
		return true
	default:
	}
	_ = syscall.Kill(p.pid, signal)
	select {
	case <-p.ended:
		return true
	case <-time.After(within):
		return false
	}
}

// unexpected is the error of a component that died, with the end of what it had to say.
func (p *process) unexpected() error {
	return fmt.Errorf("%s died (%s); the end of %s:\n%s", p.name, p.outcome, p.logFile, tail(p.logFile, 20))
}

// tail is the last lines of a file, as far as it can be read.
func tail(path string, lines int) string {
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	const enough = 16 << 10
	if info, err := file.Stat(); err == nil && info.Size() > enough {
		_, _ = file.Seek(-enough, io.SeekEnd)
	}
	text, _ := io.ReadAll(file)
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
