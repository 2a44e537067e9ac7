package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// Everything that a cluster leaves in its folder, by what happens to it in the end.
var (
	alwaysRemoved = []string{"etcd", "pki", "node"}
	keptWithLogs  = []string{"logs", "config", "audit.log", "kubeconfig"}
)

// makeDir makes the folder for a cluster's files: a temporary one, or the one that was asked for.
func makeDir(dir string) (string, error) {
	if dir == "" {
		made, err := os.MkdirTemp("", "berth-cluster-")
		if err != nil {
			return "", err
		}
		dir = made
	} else if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return "", fmt.Errorf("--dir %s is not empty; give one that is, or that does not exist", dir)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for _, name := range []string{"logs", "config"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// cleanUp removes what a cluster wrote, but nothing else that may be in its folder by now.
func cleanUp(dir string, keepLogs bool) {
	remove := alwaysRemoved
	if keepLogs {
		fmt.Fprintf(os.Stderr, "berth-cluster: logs are in %s\n", dir)
	} else {
		remove = append(remove, keptWithLogs...)
	}
	for _, name := range remove {
		_ = os.RemoveAll(filepath.Join(dir, name))
	}
	_ = os.Remove(dir) // only if nothing is left in it
}
