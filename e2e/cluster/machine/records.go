package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Records is a folder with one file for each machine that runs, or did and was not cleaned up after. The
// file is locked as long as its owner lives, so a file that is not locked is a task for whoever finds it.
type Records struct{ dir string }

// Record says what a machine leaves behind.
type Record struct {
	// ID is also the name of its cgroups.
	ID string `json:"id"`
	// Dir is the cluster's folder.
	Dir string `json:"dir"`
	// PID is that of berth-cluster, for people.
	PID int `json:"pid"`

	file *os.File
}

// ErrRuns says that the owner of a record lives.
var ErrRuns = errors.New("it still runs")

// AllRecords are those of this (outer) machine.
func AllRecords() *Records { return &Records{dir: "/run/berth-cluster"} }

// Add writes a record and holds it until Remove, or until this process ends.
func (r *Records) Add(id, dir string) (*Record, error) {
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return nil, err
	}
	record := &Record{ID: id, Dir: dir, PID: os.Getpid()}
	text, err := json.Marshal(record)
	if err != nil {
		return nil, err
	}
	// Under its name only when it is locked: nobody shall take it for an abandoned one.
	partial := filepath.Join(r.dir, "."+id)
	if record.file, err = os.Create(partial); err != nil {
		return nil, err
	}
	if err := record.lock(); err != nil {
		return nil, err
	}
	if _, err := record.file.Write(text); err != nil {
		return nil, err
	}
	return record, os.Rename(partial, r.path(id))
}

// Remove takes the record away: everything is cleaned up.
func (r *Records) Remove(record *Record) {
	_ = os.Remove(r.path(record.ID))
	_ = record.file.Close()
}

// List is all records, whether they are held or not.
func (r *Records) List() ([]*Record, error) {
	entries, err := os.ReadDir(r.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var records []*Record
	for _, entry := range entries {
		id, isRecord := strings.CutSuffix(entry.Name(), ".json")
		if !isRecord {
			continue
		}
		text, err := os.ReadFile(r.path(id))
		if errors.Is(err, fs.ErrNotExist) {
			continue // cleaned up by another just now
		}
		record := &Record{}
		if err == nil {
			err = json.Unmarshal(text, record)
		}
		if err != nil || record.ID != id {
			return nil, fmt.Errorf("%s is no record of ours: %w", r.path(id), err)
		}
		records = append(records, record)
	}
	return records, nil
}

// Take makes an abandoned record ours, or returns ErrRuns.
func (r *Records) Take(record *Record) error {
	file, err := os.Open(r.path(record.ID))
	if err != nil {
		return err
	}
	record.file = file
	if err := record.lock(); err != nil {
		_ = file.Close()
		return err
	}
	// Between our opening and our locking another may have cleaned up.
	if _, err := os.Stat(r.path(record.ID)); err != nil {
		_ = file.Close()
		return err
	}
	return nil
}

func (r *Record) lock() error {
	err := unix.Flock(int(r.file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrRuns
	}
	return err
}

func (r *Records) path(id string) string { return filepath.Join(r.dir, id+".json") }
