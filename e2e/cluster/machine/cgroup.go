package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupPatience is how long killed processes have to leave their cgroups.
const cgroupPatience = 10 * time.Second

// MakeCgroups makes a cgroup of a name at the root of every hierarchy.
func MakeCgroups(name string) error {
	mountInfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, root := range cgroupRoots(string(mountInfo)) {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("cannot make a cgroup: %w", err)
		}
		if err := divide(root); err != nil {
			return err
		}
		// In version 1, a new one may use no CPU and no memory until it is told which.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			all, err := os.ReadFile(filepath.Join(root, file))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(root, name, file), all, 0)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// divide lets cgroups below the root of version 2 have limits of their own, for what the kubelet asks for.
// Where version 1 does that, version 2 has none of these.
func divide(root string) error {
	controllers, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // version 1
	}
	if err != nil {
		return err
	}
	for _, controller := range []string{"cpu", "cpuset", "io", "memory", "pids"} {
		if !slices.Contains(strings.Fields(string(controllers)), controller) {
			continue
		}
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
			return err
		}
	}
	return nil
}

// RemoveCgroups removes the cgroups of a name from the root of every hierarchy, with all below them. It
// kills what still runs in them: it is nobody else's.
func RemoveCgroups(name string) error {
	mountInfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	until := time.Now().Add(cgroupPatience)
	for _, root := range cgroupRoots(string(mountInfo)) {
		top := filepath.Join(root, name)
		for {
			err := removeTree(top)
			if err == nil {
				break
			}
			if time.Now().After(until) {
				return fmt.Errorf("cannot remove the cgroup: %w", err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

// cgroupRoots are the places where hierarchies of cgroups are mounted, by /proc/self/mountinfo.
func cgroupRoots(mountInfo string) []string {
	var roots []string
	for line := range strings.Lines(mountInfo) {
		// 36 35 98:0 /in/it /mount/point options - type source superoptions
		before, after, found := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if found && len(fields) > 4 && len(kind) > 0 && (kind[0] == "cgroup" || kind[0] == "cgroup2") {
			roots = append(roots, fields[4])
		}
	}
	return roots
}

// removeTree removes a cgroup and those below it, the innermost first, and kills who is in them.
func removeTree(top string) error {
	var dirs []string
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		members, _ := os.ReadFile(filepath.Join(dirs[i], "cgroup.procs"))
		for _, member := range strings.Fields(string(members)) {
			if pid, err := strconv.Atoi(member); err == nil && pid > 1 {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		if err := unix.Rmdir(dirs[i]); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%s: %w", dirs[i], err)
		}
	}
	return nil
}
