package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"berth.dev/e2e/cluster/machine"
)

// runClean removes what a cluster with a real node left behind that was killed.
func runClean(args []string) error {
	flags := pflag.NewFlagSet("clean", pflag.ContinueOnError)
	dir := flags.String("dir", "", "the cluster's folder")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *dir == "" {
		return errors.New("clean needs --dir, the cluster's folder")
	}
	absolute, err := filepath.Abs(*dir)
	if err != nil {
		return err
	}
	records := machine.AllRecords()
	all, err := records.List()
	if err != nil {
		return err
	}
	for _, record := range all {
		if record.Dir != absolute {
			continue
		}
		switch err := cleanAfter(records, record); {
		case errors.Is(err, machine.ErrRuns):
			return fmt.Errorf("the cluster in %s runs; stop process %d first", absolute, record.PID)
		case err != nil:
			return err
		}
		cleanUp(absolute, false)
		return nil
	}
	return fmt.Errorf("no real node is known to have been left in %s; other clusters leave nothing but their folder", absolute)
}

// sweep cleans up after all clusters with a real node that were killed. Their logs stay.
func sweep(records *machine.Records) error {
	all, err := records.List()
	if err != nil {
		return err
	}
	for _, record := range all {
		err := cleanAfter(records, record)
		if errors.Is(err, machine.ErrRuns) || errors.Is(err, fs.ErrNotExist) {
			continue // it is well, or another has cleaned up
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "berth-cluster: cleaned up after a killed cluster; its logs are in %s\n", record.Dir)
	}
	return nil
}

// cleanAfter removes an abandoned node, unless somebody has the record.
func cleanAfter(records *machine.Records, record *machine.Record) error {
	if err := records.Take(record); err != nil {
		return err
	}
	if err := removeNode(record); err != nil {
		return err
	}
	records.Remove(record)
	return nil
}

// removeNode removes a node's cgroups and files. Its processes, mounts and network are gone with the process
// that started it; the kernel sees to that.
func removeNode(record *machine.Record) error {
	if err := machine.RemoveCgroups(record.ID); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(record.Dir, "node"))
}
