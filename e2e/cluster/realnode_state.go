package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// nodeState is how the node's processes are found by other commands.
type nodeState struct {
	Boots int `json:"boots"`
	// Init is the machine's first process.
	Init     int            `json:"init"`
	Services map[string]int `json:"services"`
}

func nodeStatePath(nodeDir string) string { return filepath.Join(nodeDir, "state.json") }

func (s *nodeState) write(nodeDir string) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	path := nodeStatePath(nodeDir)
	if err := os.WriteFile(path+".new", text, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func readNodeState(dir string) (*nodeState, error) {
	text, err := os.ReadFile(nodeStatePath(filepath.Join(dir, "node")))
	if err != nil {
		return nil, fmt.Errorf("there is no cluster with a real node: %w", err)
	}
	state := &nodeState{}
	return state, json.Unmarshal(text, state)
}
