package fleet

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// FakeNodeAnnotation and FakeNodeValue mark a node whose kubelet KWOK plays.
	FakeNodeAnnotation = "kwok.x-k8s.io/node"
	FakeNodeValue      = "fake"

	// RackLabel says in which rack a node stands.
	RackLabel = "topology.berth.dev/rack"

	// maxGroup is how many names of three digits there are.
	maxGroup = 1000
	// podsPerNode is the kubelet's default.
	podsPerNode = 110
	// kubeletVersion is that of the control plane.
	kubeletVersion = "v1.35.4"
)

// BuildNodes are the fleet's nodes, with their status as the kubelet and a device plugin would report it,
// but for the conditions, which KWOK adds.
func (f *Fleet) BuildNodes() []*corev1.Node {
	var nodes []*corev1.Node
	for i := range f.Nodes {
		for n := range f.Nodes[i].Count {
			nodes = append(nodes, f.Nodes[i].node(n))
		}
	}
	return nodes
}

// node is the group's nth node.
func (g *Group) node(n int) *corev1.Node {
	name := fmt.Sprintf("%s-%03d", g.Name, n)
	capacity := g.capacity()
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Labels:      g.labels(name),
			Annotations: map[string]string{FakeNodeAnnotation: FakeNodeValue},
		},
		Status: corev1.NodeStatus{
			Capacity:    capacity,
			Allocatable: capacity.DeepCopy(),
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: address(name)},
				{Type: corev1.NodeHostName, Address: name},
			},
			NodeInfo: corev1.NodeSystemInfo{
				Architecture:            "amd64",
				OperatingSystem:         "linux",
				OSImage:                 "Simulated",
				KernelVersion:           "6.8.0",
				ContainerRuntimeVersion: "kwok://0.8.0",
				KubeletVersion:          kubeletVersion,
				KubeProxyVersion:        "",
			},
		},
	}
	maps.Copy(node.Annotations, g.Annotations)
	for _, taint := range g.Taints {
		node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{
			Key: taint.Key, Value: taint.Value, Effect: corev1.TaintEffect(taint.Effect),
		})
	}
	return node
}

// labels are those of the kubelet, of the vendor's labeller, and the group's own.
func (g *Group) labels(name string) map[string]string {
	labels := map[string]string{
		corev1.LabelHostname:   name,
		corev1.LabelOSStable:   "linux",
		corev1.LabelArchStable: "amd64",
	}
	for key, value := range map[string]string{
		corev1.LabelTopologyRegion: g.Region,
		corev1.LabelTopologyZone:   g.Zone,
		RackLabel:                  g.Rack,
	} {
		if value != "" {
			labels[key] = value
		}
	}
	if g.GPU != nil {
		maps.Copy(labels, g.GPU.Labels())
	}
	maps.Copy(labels, g.Labels)
	return labels
}

// capacity is what a node of the group has, its GPUs as an extended resource.
func (g *Group) capacity() corev1.ResourceList {
	capacity := corev1.ResourceList{
		corev1.ResourceCPU:              g.CPU.Quantity(),
		corev1.ResourceMemory:           g.Memory.Quantity(),
		corev1.ResourceEphemeralStorage: g.EphemeralStorage.Quantity(),
		corev1.ResourcePods:             *resource.NewQuantity(podsPerNode, resource.DecimalSI),
	}
	if g.GPU != nil {
		capacity[g.GPU.ResourceName()] = *resource.NewQuantity(int64(g.GPU.Count), resource.DecimalSI)
	}
	return capacity
}

// NewGPU is a node's GPUs as a fleet file would say them.
func NewGPU(vendor, product string, count int, memory string) (*GPU, error) {
	gpu := &GPU{Vendor: vendor, Product: product, Count: count, Memory: Amount{memory}}
	var wrong problems
	gpu.check("gpu", &wrong)
	return gpu, errors.Join(wrong...)
}

// ResourceName is the extended resource that the vendor's device plugin offers.
func (g *GPU) ResourceName() corev1.ResourceName {
	return corev1.ResourceName(g.Vendor + ".com/gpu")
}

// Labels are what the vendor's labeller sets.
func (g *GPU) Labels() map[string]string {
	if g.Vendor == "amd" {
		return amdLabels(g)
	}
	return nvidiaLabels(g)
}

// mebibytes is an amount in whole MiB.
func (a Amount) mebibytes() int64 {
	quantity := a.Quantity()
	return quantity.Value() >> 20
}

// address is a node's own address out of 10.128.0.0/10, the same each time.
func address(name string) string {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(name))
	bits := hash.Sum32()
	return fmt.Sprintf("10.%d.%d.%d", 128+bits>>16&0x3f, bits>>8&0xff, 1+bits&0xff%254)
}
