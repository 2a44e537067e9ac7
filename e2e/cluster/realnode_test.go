package main

import (
	"strings"
	"testing"
)

func TestRealNodeCarriesTheLabelsOfItsGPUs(t *testing.T) {
	options, err := parseUp([]string{"--real-node", "--real-gpus", "2", "--real-label", "team=search"})
	if err != nil {
		t.Fatal(err)
	}
	node := options.realNode
	for key, want := range map[string]string{
		"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": "23034", "nvidia.com/gpu.count": "2", "team": "search",
	} {
		if got := node.allLabels[key]; got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if node.resource != "nvidia.com/gpu" {
		t.Errorf("the resource is %q", node.resource)
	}
}

func TestWrongFlagsOfTheRealNodeAreRefused(t *testing.T) {
	for _, test := range []struct{ args, says string }{
		{"", "--fleet"},
		{"--fleet x --image y", "--real-node"},
		{"--real-node --real-node-name A_b", "--real-node-name"},
		{"--real-node --real-gpu-product unheard-of", "not known"},
		{"--real-node --real-gpu-memory much", "--real-gpu-memory"},
		{"--real-node --real-label x", "NAME=VALUE"},
		{"--real-node --image /not/there", "--image"},
	} {
		if _, err := parseUp(strings.Fields(test.args)); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%q: got %v, want something about %q", test.args, err, test.says)
		}
	}
}

func TestNodeStateIsFoundAgain(t *testing.T) {
	dir := t.TempDir()
	if _, err := readNodeState(dir); err == nil {
		t.Error("there is none")
	}
	if err := (&nodeState{}).write(dir + "/node"); err == nil {
		t.Error("there is no folder")
	}
}
