package hub

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// repository is what a folder held when it was read.
type repository struct {
	name   string
	commit string
	files  map[string]*file
}

// file is a file of a repository.
type file struct {
	path  string // with slashes
	place string // on disk
	size  int64
	// Both checksums that the hub knows: git's, and that of the content.
	blob, sha256 string
	// large files are in LFS: they are named by SHA-256 and sent from elsewhere.
	large bool
}

// largeFiles are the endings of names that are in LFS, as the hub's own .gitattributes has them.
var largeFiles = []string{".bin", ".gguf", ".safetensors"}

// readAll reads all repositories, by their names.
func readAll(root string) (map[string]*repository, error) {
	folders, err := filepath.Glob(filepath.Join(root, "*", "*"))
	if err != nil {
		return nil, err
	}
	all := map[string]*repository{}
	for _, folder := range folders {
		if info, err := os.Stat(folder); err != nil || !info.IsDir() {
			return nil, errors.Join(fmt.Errorf("%s is no folder of a repository", folder), err)
		}
		name, err := filepath.Rel(root, folder)
		if err != nil {
			return nil, err
		}
		if all[filepath.ToSlash(name)], err = read(filepath.ToSlash(name), folder); err != nil {
			return nil, err
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no folder ORG/NAME", root)
	}
	return all, nil
}

func read(name, folder string) (*repository, error) {
	files := map[string]*file{}
	err := filepath.WalkDir(folder, func(place string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		path, err := filepath.Rel(folder, place)
		if err != nil {
			return err
		}
		path = filepath.ToSlash(path)
		files[path], err = describe(path, place)
		return err
	})
	// The same files have the same commit.
	commit := sha1.New()
	for _, path := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(commit, "%s %s\n", files[path].blob, path)
	}
	return &repository{name: name, commit: digits(commit), files: files}, err
}

func describe(path, place string) (*file, error) {
	content, err := os.Open(place)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	info, err := content.Stat()
	if err != nil {
		return nil, err
	}
	blob, sum := sha1.New(), sha256.New()
	fmt.Fprintf(blob, "blob %d\x00", info.Size())
	if _, err := io.Copy(io.MultiWriter(blob, sum), content); err != nil {
		return nil, err
	}
	large := slices.ContainsFunc(largeFiles, func(end string) bool { return strings.HasSuffix(path, end) })
	return &file{path: path, place: place, size: info.Size(), blob: digits(blob), sha256: digits(sum), large: large}, nil
}

func digits(of hash.Hash) string {
	return hex.EncodeToString(of.Sum(nil))
}

type object = map[string]any

// info is the hub's answer about a revision; sizes and checksums only if asked for.
func (r *repository) info(blobs bool) object {
	siblings := []object{}
	for _, file := range r.sorted() {
		sibling := object{"rfilename": file.path}
		if blobs {
			sibling["size"], sibling["blobId"] = file.size, file.blob
		}
		if blobs && file.large {
			sibling["lfs"] = object{"sha256": file.sha256, "size": file.size, "pointerSize": pointerSize}
		}
		siblings = append(siblings, sibling)
	}
	return object{"id": r.name, "modelId": r.name, "sha": r.commit, "siblings": siblings}
}

// tree is the hub's list of a revision's files, those of folders among them.
func (r *repository) tree() []object {
	entries := []object{}
	for _, file := range r.sorted() {
		entry := object{"type": "file", "path": file.path, "size": file.size, "oid": file.blob}
		if file.large {
			entry["lfs"] = object{"oid": file.sha256, "size": file.size, "pointerSize": pointerSize}
		}
		entries = append(entries, entry)
	}
	return entries
}

// pointerSize is how long the text is that git has in place of a large file; nobody looks.
const pointerSize = 134

func (r *repository) sorted() []*file {
	return slices.SortedFunc(maps.Values(r.files), func(a, b *file) int { return strings.Compare(a.path, b.path) })
}
