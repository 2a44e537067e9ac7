package image

import (
	"archive/tar"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func write(t *testing.T, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func build(t *testing.T, args ...string) string {
	t.Helper()
	output := filepath.Join(t.TempDir(), "image.tar")
	if err := Run(append([]string{"--output", output, "--name", "berth.dev/e2e/test:1"}, args...)); err != nil {
		t.Fatal(err)
	}
	return output
}

func TestSameInputGivesSameBytes(t *testing.T) {
	program := write(t, "program", "hello", 0o755)
	args := []string{"--file", program + ":/bin/program", "--entrypoint", "/bin/program", "--user", "65532"}
	first, err := os.ReadFile(build(t, args...))
	if err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(program, later, later); err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(build(t, args...))
	if err != nil || !slices.Equal(first, second) {
		t.Errorf("they differ, %v", err)
	}
}

func TestImageHoldsWhatItWasGiven(t *testing.T) {
	output := build(t,
		"--file", write(t, "program", "hello", 0o755)+":/usr/bin/program",
		"--file", write(t, "config", "a: 1", 0o600)+":/etc/config",
		"--file", write(t, "secret", "x", 0o600)+":/etc/secret:0400",
		"--entrypoint", "/usr/bin/program", "--entrypoint", "serve", "--env", "A=1", "--user", "65532")
	image, err := tarball.ImageFromPath(output, nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.OS != "linux" || config.Architecture == "" || config.Config.User != "65532" ||
		!slices.Equal(config.Config.Entrypoint, []string{"/usr/bin/program", "serve"}) ||
		!slices.Equal(config.Config.Env, []string{"A=1"}) {
		t.Errorf("got %+v", config)
	}
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("got %v, %v", layers, err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	modes := map[string]int64{}
	for reader := tar.NewReader(content); ; {
		header, err := reader.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		modes[header.Name] = header.Mode
		if header.Uid != 0 || !header.ModTime.Equal(created) {
			t.Errorf("%s: %+v", header.Name, header)
		}
	}
	for name, mode := range map[string]int64{
		"usr/": 0o755, "usr/bin/": 0o755, "usr/bin/program": 0o755, "etc/": 0o755, "etc/config": 0o644, "etc/secret": 0o400,
	} {
		if modes[name] != mode {
			t.Errorf("%s has mode %o, want %o", name, modes[name], mode)
		}
	}
}

func TestImageIsBuiltOnAnother(t *testing.T) {
	base := build(t, "--file", write(t, "a", "a", 0o644)+":/a", "--env", "A=1", "--entrypoint", "/a")
	image, err := tarball.ImageFromPath(build(t, "--base", base, "--file", write(t, "b", "b", 0o644)+":/b"), nil)
	if err != nil {
		t.Fatal(err)
	}
	layers, _ := image.Layers()
	config, _ := image.ConfigFile()
	if len(layers) != 2 || config.Config.Entrypoint[0] != "/a" || config.Config.Env[0] != "A=1" {
		t.Errorf("got %d layers, %+v", len(layers), config.Config)
	}
}

func TestWrongFilesAreRefused(t *testing.T) {
	for _, text := range []string{"a", "a:b", "a:/", "a:/b/../c", "a:/b:9", "a:/b:0644:c", "/not/there:/a"} {
		if _, _, err := parseFile(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
