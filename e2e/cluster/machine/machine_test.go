package machine

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestCgroupRootsOfBothVersions(t *testing.T) {
	const mountInfo = `20 1 254:0 / / rw,relatime - ext4 /dev/vda rw
25 20 0:22 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
27 25 0:24 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`
	want := []string{"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"}
	if got := cgroupRoots(mountInfo); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestRemoveTreeRemovesTheInnermostFirst(t *testing.T) {
	top := filepath.Join(t.TempDir(), "berth-1")
	if err := os.MkdirAll(filepath.Join(top, "kubepods", "pod1"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := removeTree(top); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(top); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if err := removeTree(top); err != nil {
		t.Errorf("what is not there cannot be removed: %v", err)
	}
}

func TestSpecRefusesWhatTheMachineDoesNotSee(t *testing.T) {
	spec := &Spec{Mounts: []Mount{{Source: "/tmp/x", Target: "/var/lib/kubelet"}}}
	for _, path := range []string{"/run", "/run/x", "/var/run/x", "/var/lib/kubelet/x"} {
		if spec.Check(path) == nil {
			t.Errorf("%s is taken", path)
		}
	}
	for _, path := range []string{"/tmp/x", "/runner/x", "/var/lib/kubelets"} {
		if err := spec.Check(path); err != nil {
			t.Error(err)
		}
	}
}

func TestRecordIsHeldUntilItsOwnerIsGone(t *testing.T) {
	records := &Records{dir: filepath.Join(t.TempDir(), "records")}
	if all, err := records.List(); err != nil || len(all) != 0 {
		t.Fatalf("got %v, %v", all, err)
	}
	owner, err := records.Add("berth-1", "/tmp/x")
	if err != nil {
		t.Fatal(err)
	}
	all, err := records.List()
	if err != nil || len(all) != 1 || all[0].Dir != "/tmp/x" || all[0].PID != os.Getpid() {
		t.Fatalf("got %v, %v", all, err)
	}
	if err := records.Take(all[0]); !errors.Is(err, ErrRuns) {
		t.Errorf("a held record is taken: %v", err)
	}
	_ = owner.file.Close() // as the kernel does for a killed process
	if err := records.Take(all[0]); err != nil {
		t.Fatal(err)
	}
	other, _ := records.List()
	if err := records.Take(other[0]); !errors.Is(err, ErrRuns) {
		t.Errorf("two clean up: %v", err)
	}
	records.Remove(all[0])
	if all, err := records.List(); err != nil || len(all) != 0 {
		t.Errorf("got %v, %v", all, err)
	}
}

func TestForwardCopiesBothWaysUntilBothHaveEnded(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		connection, err := echo.Accept()
		if err != nil {
			return
		}
		// It answers only when all has been said.
		said, _ := io.ReadAll(connection)
		_, _ = connection.Write(said)
		_ = connection.Close()
	}()
	outer, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer outer.Close()
	thread, err := NewThread(nil)
	if err != nil {
		t.Fatal(err)
	}
	go thread.Forward(outer, echo.Addr().String())
	connection, err := net.Dial("tcp", outer.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if _, err := connection.Write([]byte("ahoy")); err != nil {
		t.Fatal(err)
	}
	_ = connection.(*net.TCPConn).CloseWrite()
	if answer, err := io.ReadAll(connection); err != nil || string(answer) != "ahoy" {
		t.Errorf("got %q, %v", answer, err)
	}
}

func TestThreadSaysWhyItDoesNotStart(t *testing.T) {
	wrong := errors.New("no")
	if _, err := NewThread(func() error { return wrong }); !errors.Is(err, wrong) {
		t.Errorf("got %v", err)
	}
}

func TestEndedThreadDoesNothing(t *testing.T) {
	thread, err := NewThread(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := thread.Do(func() error { return nil }); err != nil {
		t.Error(err)
	}
	thread.End()
	thread.End()
	if err := thread.Do(func() error { return nil }); !errors.Is(err, ErrEnded) {
		t.Errorf("got %v", err)
	}
}
