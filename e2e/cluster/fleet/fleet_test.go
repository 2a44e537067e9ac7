package fleet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

const oneGroup = `
nodes:
  - name: h100
    count: 2
    gpu: {vendor: nvidia, product: NVIDIA-H100-80GB-HBM3, count: 8, memory: 81559Mi}
    cpu: 192
    memory: 2Ti
    ephemeralStorage: 7Ti
    region: eu-de-1
    zone: eu-de-1a
    rack: r1
    labels: {team: search}
    taints: [{key: nvidia.com/gpu, value: present, effect: NoSchedule}]
`

func mustParse(t *testing.T, text string) *Fleet {
	t.Helper()
	fleet, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return fleet
}

// expect compares the given labels only.
func expect(t *testing.T, node *corev1.Node, labels map[string]string) {
	t.Helper()
	for key, want := range labels {
		if got := node.Labels[key]; got != want {
			t.Errorf("%s: label %s is %q, not %q", node.Name, key, got, want)
		}
	}
}

func TestNvidiaNode(t *testing.T) {
	nodes := mustParse(t, oneGroup).BuildNodes()
	if len(nodes) != 2 || nodes[0].Name != "h100-000" || nodes[1].Name != "h100-001" {
		t.Fatalf("wrong nodes: %v", nodes)
	}
	node := nodes[1]
	expect(t, node, map[string]string{
		"kubernetes.io/hostname":          "h100-001",
		"kubernetes.io/os":                "linux",
		"kubernetes.io/arch":              "amd64",
		"topology.kubernetes.io/region":   "eu-de-1",
		"topology.kubernetes.io/zone":     "eu-de-1a",
		"topology.berth.dev/rack":         "r1",
		"team":                            "search",
		"nvidia.com/gpu.present":          "true",
		"nvidia.com/gpu.product":          "NVIDIA-H100-80GB-HBM3",
		"nvidia.com/gpu.memory":           "81559",
		"nvidia.com/gpu.count":            "8",
		"nvidia.com/gpu.family":           "hopper",
		"nvidia.com/gpu.compute.major":    "9",
		"nvidia.com/gpu.compute.minor":    "0",
		"nvidia.com/gpu.replicas":         "1",
		"nvidia.com/gpu.sharing-strategy": "none",
		"nvidia.com/mig.capable":          "true",
	})
	for name, want := range map[corev1.ResourceName]string{
		"cpu": "192", "memory": "2Ti", "ephemeral-storage": "7Ti", "pods": "110", "nvidia.com/gpu": "8",
	} {
		capacity, allocatable := node.Status.Capacity[name], node.Status.Allocatable[name]
		if capacity.String() != want || allocatable.String() != want {
			t.Errorf("%s is %s, allocatable %s, not %s", name, &capacity, &allocatable, want)
		}
	}
	if got := node.Annotations[FakeNodeAnnotation]; got != FakeNodeValue {
		t.Errorf("KWOK will not find the node: its annotation is %q", got)
	}
	if len(node.Spec.Taints) != 1 || node.Spec.Taints[0].Key != "nvidia.com/gpu" {
		t.Errorf("wrong taints: %v", node.Spec.Taints)
	}
	if first := nodes[0].Status.Addresses[0].Address; first == node.Status.Addresses[0].Address {
		t.Errorf("two nodes have the address %s", first)
	}
}

func TestAmdNode(t *testing.T) {
	node := mustParse(t, `
nodes:
  - {name: mi300x, count: 1, cpu: 192, memory: 2Ti, ephemeralStorage: 7Ti,
     gpu: {vendor: amd, product: AMD_Instinct_MI300X_OAM, count: 8, memory: 196592Mi}}
`).BuildNodes()[0]
	expect(t, node, map[string]string{
		"amd.com/gpu.vram":                                      "192G",
		"amd.com/gpu.product-name":                              "AMD_Instinct_MI300X_OAM",
		"amd.com/gpu.family":                                    "AI",
		"amd.com/gpu.cu-count":                                  "304",
		"beta.amd.com/gpu.vram":                                 "192G",
		"beta.amd.com/gpu.vram.192G":                            "8",
		"beta.amd.com/gpu.product-name.AMD_Instinct_MI300X_OAM": "8",
		"beta.amd.com/gpu.simd-count":                           "1216",
		"topology.kubernetes.io/region":                         "",
	})
	if gpus := node.Status.Allocatable["amd.com/gpu"]; gpus.Value() != 8 {
		t.Errorf("%s GPUs are allocatable", &gpus)
	}
}

func TestFamilies(t *testing.T) {
	for product, want := range map[string]struct{ family, divides string }{
		"NVIDIA-H200":             {"hopper", "true"},
		"NVIDIA-A100-SXM4-80GB":   {"ampere", "true"},
		"NVIDIA-A10G":             {"ampere", "false"},
		"NVIDIA-L40S":             {"ada-lovelace", "false"},
		"NVIDIA-GeForce-RTX-4090": {"ada-lovelace", "false"},
		"NVIDIA-B200":             {"blackwell", "true"},
		"Tesla-V100-SXM2-32GB":    {"volta", "false"},
	} {
		labels := nvidiaLabels(&GPU{Product: product, Count: 1, Memory: Amount{"1Gi"}})
		if got := labels["nvidia.com/gpu.family"]; got != want.family {
			t.Errorf("%s is %s, not %s", product, got, want.family)
		}
		if got := labels["nvidia.com/mig.capable"]; got != want.divides {
			t.Errorf("%s: mig.capable is %s, not %s", product, got, want.divides)
		}
	}
}

func TestMistakesAreNamedByTheirPath(t *testing.T) {
	for name, change := range map[string]struct{ from, to, want string }{
		"unknown field":   {"rack: r1", "shelf: r1", `unknown field "nodes[0].shelf"`},
		"nested unknown":  {"vendor: nvidia", "maker: x, vendor: nvidia", `unknown field "nodes[0].gpu.maker"`},
		"wrong vendor":    {"vendor: nvidia", "vendor: intel", `nodes[0].gpu.vendor: "intel": must be nvidia or amd`},
		"not a quantity":  {"memory: 2Ti", "memory: 2TB", `nodes[0].memory: "2TB"`},
		"missing":         {"cpu: 192", "", "nodes[0].cpu: is missing"},
		"no such effect":  {"NoSchedule", "Never", `nodes[0].taints[0].effect: "Never"`},
		"bad name":        {"name: h100", "name: H_100", "nodes[0].name"},
		"no nodes":        {"count: 2", "count: 0", "nodes[0].count: 0: must be between 1 and 1000"},
		"no GPUs":         {"count: 8", "count: 0", "nodes[0].gpu.count: 0"},
		"unknown product": {"NVIDIA-H100-80GB-HBM3", "NVIDIA-X1", "nodes[0].gpu.computeCapability: is missing"},
		"wrong type":      {"count: 2", "count: many", "nodes.count"},
	} {
		_, err := Parse([]byte(strings.Replace(oneGroup, change.from, change.to, 1)))
		if err == nil {
			t.Errorf("%s: no error", name)
		} else if !strings.Contains(err.Error(), change.want) {
			t.Errorf("%s: %q does not say %q", name, err, change.want)
		}
	}
}

func TestTwoGroupsOfOneName(t *testing.T) {
	_, err := Parse([]byte(oneGroup + strings.TrimPrefix(oneGroup, "\nnodes:\n")))
	if err == nil || !strings.Contains(err.Error(), `nodes[1].name: "h100" is the name of nodes[0] already`) {
		t.Errorf("got %v", err)
	}
}

// The fleets that come with the module must stay valid, and hold what their names promise.
func TestShippedFleets(t *testing.T) {
	want := map[string]int{"demo.yaml": 10, "hundred.yaml": 100}
	files, err := os.ReadDir(filepath.Join("..", "fleets"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		fleet, err := Load(filepath.Join("..", "fleets", file.Name()))
		if err != nil {
			t.Error(err)
			continue
		}
		gpuNodes := 0
		for _, group := range fleet.Nodes {
			if group.GPU != nil {
				gpuNodes += group.Count
			}
		}
		if count, named := want[file.Name()]; named && count != gpuNodes {
			t.Errorf("%s has %d GPU nodes, not %d", file.Name(), gpuNodes, count)
		}
	}
}
