package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Spec is what a machine is made of.
type Spec struct {
	// Hostname is the machine's name.
	Hostname string `json:"hostname"`
	// Mounts are folders of ours that the machine sees in the place of others.
	Mounts []Mount `json:"mounts"`
	// Files are contents that the machine sees in the place of a file's own.
	Files map[string]string `json:"files"`
	// FilesDir is a folder to keep them in.
	FilesDir string `json:"filesDir"`
}

// Mount is a folder that is seen in another's place.
type Mount struct {
	Source string `json:"source"`
	Target string `json:"target"`
}

// Hidden are the folders that a machine does not share with this one, but for those under Mounts.
func (s *Spec) Hidden() []string {
	hidden := []string{"/run", "/proc", "/var/run"}
	for _, mount := range s.Mounts {
		hidden = append(hidden, mount.Target)
	}
	return hidden
}

// Check says whether the machine sees a path as we see it.
func (s *Spec) Check(path string) error {
	for _, hidden := range s.Hidden() {
		if path == hidden || strings.HasPrefix(path, hidden+"/") {
			return fmt.Errorf("%s lies in %s, of which a real node has its own", path, hidden)
		}
	}
	return nil
}

// readyFD is where the first process says that all mounts are there.
const readyFD = 3

// RunInit is the machine's first process. It gets a Spec as its argument, makes the mounts, says so, and
// then only waits for the processes that others left behind. When it ends, the kernel ends all the others.
func RunInit() int {
	if err := becomeInit(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "machine-init: %v\n", err)
		return 1
	}
	reap()
	return 0
}

func becomeInit(args []string) error {
	if len(args) != 1 || os.Getpid() != 1 {
		return errors.New("this is for the first process of a machine only")
	}
	// A signal that nobody waits for does nothing to a first process, except for the runtime's own handlers.
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	spec := &Spec{}
	if err := json.Unmarshal([]byte(args[0]), spec); err != nil {
		return err
	}
	if err := spec.mount(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
		return fmt.Errorf("hostname: %w", err)
	}
	ready := os.NewFile(readyFD, "ready")
	if _, err := ready.Write([]byte{1}); err != nil {
		return err
	}
	return ready.Close()
}

// mount makes the mounts. They are seen by this machine only.
func (s *Spec) mount() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("/proc: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("/run: %w", err)
	}
	for _, mount := range s.Mounts {
		for _, dir := range []string{mount.Source, mount.Target} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
		if err := bind(mount.Source, mount.Target); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(s.FilesDir, 0o755); err != nil {
		return err
	}
	for path, content := range s.Files {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			continue // this kernel has no such setting
		}
		source := filepath.Join(s.FilesDir, strings.ReplaceAll(strings.Trim(path, "/"), "/", "."))
		if err := os.WriteFile(source, []byte(content), 0o644); err != nil {
			return err
		}
		if err := bind(source, path); err != nil {
			return err
		}
	}
	// Mounts that a pod or the kubelet makes reach those who share them, as on any node.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("cannot make mounts shared: %w", err)
	}
	return nil
}

func bind(source, target string) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot mount %s on %s: %w", source, target, err)
	}
	return nil
}

// reap waits for every process that was left to us, for ever.
func reap() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		switch {
		case err == unix.EINTR || pid > 0:
		default: // there is none
			select {
			case <-children:
			case <-time.After(time.Second):
			}
		}
	}
}
