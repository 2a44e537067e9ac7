// Package image writes OCI images as tarballs, without a container engine and without a registry, and the
// same bytes for the same input: `ctr images import`, `podman load` and `docker load` take them.
package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/spf13/pflag"
)

// Spec is what an image is made of.
type Spec struct {
	// Name is the image's name with its tag.
	Name string
	// Base is the tarball of an image to build on, or "empty".
	Base string
	// Files are put into the image, by their absolute paths in it. They belong to root.
	Files map[string]File
	// Entrypoint is the program to run, with its first arguments.
	Entrypoint []string
	// Env is the environment, as NAME=VALUE.
	Env []string
	// User is who runs it: a number, so that Kubernetes can see that it is not root.
	User string
}

// File is a file of this machine.
type File struct {
	Source string
	// Mode is its permissions in the image.
	Mode int64
}

// created is what an image and its files say of their age, so that it does not depend on the day.
var created = time.Unix(0, 0).UTC()

// Run is the command `image`.
func Run(args []string) error {
	spec, output := &Spec{Files: map[string]File{}}, ""
	var files []string
	flags := pflag.NewFlagSet("image", pflag.ContinueOnError)
	flags.StringVar(&output, "output", "", "tarball to write")
	flags.StringVar(&spec.Name, "name", "", "the image's NAME:TAG")
	flags.StringVar(&spec.Base, "base", "empty", "tarball of the image to build on, or empty")
	flags.StringArrayVar(&files, "file", nil, "HOSTPATH:/PATH[:MODE] to put into the image; may be repeated. The mode is 0755 for what this machine may execute, else 0644")
	flags.StringArrayVar(&spec.Entrypoint, "entrypoint", nil, "program to run; repeated: its arguments")
	flags.StringArrayVar(&spec.Env, "env", nil, "NAME=VALUE; may be repeated")
	flags.StringVar(&spec.User, "user", "", "number of the user to run as")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("image takes flags only, not %q", flags.Arg(0))
	}
	if output == "" || spec.Name == "" {
		return errors.New("image needs --output and --name")
	}
	for _, text := range files {
		target, file, err := parseFile(text)
		if err != nil {
			return err
		}
		spec.Files[target] = file
	}
	return spec.Write(output)
}

// parseFile reads HOSTPATH:/PATH[:MODE].
func parseFile(text string) (target string, file File, err error) {
	parts := strings.Split(text, ":")
	if len(parts) < 2 || len(parts) > 3 || !path.IsAbs(parts[1]) || path.Clean(parts[1]) != parts[1] || parts[1] == "/" {
		return "", File{}, fmt.Errorf("--file %s: must be HOSTPATH:/PATH or HOSTPATH:/PATH:MODE", text)
	}
	file.Source = parts[0]
	if len(parts) == 3 {
		if _, err := fmt.Sscanf(parts[2], "%o", &file.Mode); err != nil || file.Mode > 0o7777 {
			return "", File{}, fmt.Errorf("--file %s: the mode must be an octal number such as 0644", text)
		}
		return parts[1], file, nil
	}
	info, err := os.Stat(file.Source)
	if err != nil {
		return "", File{}, fmt.Errorf("--file: %w", err)
	}
	file.Mode = 0o644
	if info.Mode()&0o111 != 0 {
		file.Mode = 0o755
	}
	return parts[1], file, nil
}

// Write builds the image and writes it. The file appears under its name when it is complete.
func (s *Spec) Write(output string) error {
	tag, err := name.NewTag(s.Name, name.StrictValidation)
	if err != nil {
		return err
	}
	image, err := s.build()
	if err != nil {
		return err
	}
	partial, err := os.CreateTemp(filepath.Dir(output), ".image-")
	if err != nil {
		return err
	}
	defer os.Remove(partial.Name()) // unless it has its final name
	if err := tarball.Write(tag, image, partial); err != nil {
		return err
	}
	if err := errors.Join(partial.Chmod(0o644), partial.Close()); err != nil {
		return err
	}
	return os.Rename(partial.Name(), output)
}

func (s *Spec) build() (v1.Image, error) {
	image := empty.Image
	if s.Base != "empty" {
		var err error
		if image, err = tarball.ImageFromPath(s.Base, nil); err != nil {
			return nil, fmt.Errorf("--base %s: %w", s.Base, err)
		}
	}
	content, err := s.layer()
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	})
	if err != nil {
		return nil, err
	}
	image, err = mutate.Append(image, mutate.Addendum{Layer: layer, History: v1.History{
		Created: v1.Time{Time: created}, CreatedBy: "berth-cluster image",
	}})
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	// Without these, containerd does not know whether it can run the image.
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Created = v1.Time{Time: created}
	if len(s.Entrypoint) > 0 {
		config.Config.Entrypoint, config.Config.Cmd = s.Entrypoint, nil
	}
	config.Config.Env = append(config.Config.Env, s.Env...)
	if s.User != "" {
		config.Config.User = s.User
	}
	return mutate.ConfigFile(image, config)
}

// layer is a tar with the files and the folders that lead to them, in the order of their names.
func (s *Spec) layer() ([]byte, error) {
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	written := map[string]bool{}
	for _, target := range slices.Sorted(maps.Keys(s.Files)) {
		for _, dir := range parents(target) {
			if written[dir] {
				continue
			}
			written[dir] = true
			err := writer.WriteHeader(&tar.Header{
				Typeflag: tar.TypeDir, Name: dir[1:] + "/", Mode: 0o755, ModTime: created, Format: tar.FormatPAX,
			})
			if err != nil {
				return nil, err
			}
		}
		file := s.Files[target]
		content, err := os.ReadFile(file.Source)
		if err != nil {
			return nil, err
		}
		err = writer.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg, Name: target[1:], Mode: file.Mode, Size: int64(len(content)),
			ModTime: created, Format: tar.FormatPAX,
		})
		if err != nil {
			return nil, err
		}
		if _, err := writer.Write(content); err != nil {
			return nil, err
		}
	}
	return buffer.Bytes(), writer.Close()
}

// parents are the folders that lead to a path, the outermost first, without the root.
func parents(target string) []string {
	var dirs []string
	for dir := path.Dir(target); dir != "/"; dir = path.Dir(dir) {
		dirs = append(dirs, dir)
	}
	slices.Reverse(dirs)
	return dirs
}
