// Package node is a real node's software, as command lines and configuration files: containerd, the kubelet,
// kube-proxy and CoreDNS, and a device plugin that offers GPUs that are not there.
//
// It only writes down what to run. Who runs it, and in which surroundings, is not its business; it counts on
// the folders of Mounts, which a real node has to itself.
package node

import (
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/labels"

	"berth.dev/e2e/cluster/machine"
)

const (
	// Address is the node's address, and with it that of the API server and of the DNS server. It exists in
	// the cluster's own network only, as all of these.
	Address = "10.200.255.1"
	// PodAddresses are those of the node's pods. Simulated pods have others.
	PodAddresses = "10.200.0.0/24"
	// ServiceAddresses are the ClusterIPs.
	ServiceAddresses = "10.96.0.0/16"
	// APIService is the ClusterIP of kubernetes.default, the first of them.
	APIService = "10.96.0.1"
	// DNSService is the ClusterIP of the cluster's DNS.
	DNSService = "10.96.0.10"

	// PauseImage is what keeps a pod's namespaces. The cluster's build makes it.
	PauseImage = "berth.dev/e2e/pause:1"

	// ContainerdSocket is in the node's own /run.
	ContainerdSocket = "/run/containerd/containerd.sock"

	// pluginDir is where Debian puts the network plugins.
	pluginDir = "/usr/lib/cni"
)

// Node is one real node.
type Node struct {
	// Name is the node's name.
	Name string
	// ID tells it from others on the same machine: its cgroups have this name.
	ID string
	// Dir is the folder for all that it writes.
	Dir string
	// CACert is the file with the authority of the API server's clients and of itself.
	CACert string
	// Kubeconfig is the file with which a user reaches the API server.
	Kubeconfig func(user string) string
	// Labels are those that the kubelet does not set by itself.
	Labels map[string]string
	// Resource and GPUs are what the device plugin offers, if it is anything.
	Resource string
	GPUs     int
}

// User is the kubelet's name towards the API server.
func (n *Node) User() string { return "system:node:" + n.Name }

// Machine is the surroundings of the node's processes.
func (n *Node) Machine() *machine.Spec {
	return &machine.Spec{
		Hostname: n.Name,
		Mounts: []machine.Mount{
			{Source: n.path("kubelet"), Target: "/var/lib/kubelet"}, // the device plugins' sockets have no other place
			{Source: n.path("log"), Target: "/var/log"},             // nor have the containers' logs
		},
		Files:    kernelSettings,
		FilesDir: n.path("kernel"),
	}
}

// kernelSettings are what the kubelet would change, for the whole machine, if it did not find them so.
var kernelSettings = map[string]string{
	"/proc/sys/vm/overcommit_memory":      "1",
	"/proc/sys/vm/panic_on_oom":           "0",
	"/proc/sys/kernel/panic":              "10",
	"/proc/sys/kernel/panic_on_oops":      "1",
	"/proc/sys/kernel/keys/root_maxkeys":  "1000000",
	"/proc/sys/kernel/keys/root_maxbytes": "25000000",
}

// path is a file or folder of the node's own.
func (n *Node) path(name string) string { return filepath.Join(n.Dir, name) }

// DataDir is a folder for what pods may want on the node's disk.
func (n *Node) DataDir() string { return n.path("data") }

// WriteFiles writes all configuration.
func (n *Node) WriteFiles() error {
	for _, dir := range []string{"cni", "data", "containerd"} {
		if err := os.MkdirAll(n.path(dir), 0o755); err != nil {
			return err
		}
	}
	for name, content := range map[string]string{
		"containerd.toml":  n.containerdConfig(),
		"cni/10-pods.conf": n.networkConfig(),
		"kubelet.yaml":     n.kubeletConfig(),
		"kube-proxy.yaml":  n.proxyConfig(),
		"coredns.Corefile": n.dnsConfig(),
	} {
		if err := os.WriteFile(n.path(name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Service is one of the node's processes.
type Service struct {
	Name string
	// Program is a path, or empty for this very binary under the service's name.
	Program string
	Args    []string
}

// Containerd runs containers. It must be there before the others.
func (n *Node) Containerd() Service {
	return Service{Name: "containerd", Program: "/usr/bin/containerd", Args: []string{"--config", n.path("containerd.toml")}}
}

// Services are all others, in no order.
func (n *Node) Services() []Service {
	services := []Service{
		{Name: "kubelet", Args: []string{
			"--config=" + n.path("kubelet.yaml"),
			"--kubeconfig=" + n.Kubeconfig(n.User()),
			"--hostname-override=" + n.Name,
			"--node-ip=" + Address,
			"--node-labels=" + labels.Set(n.Labels).String(),
			"--root-dir=/var/lib/kubelet",
		}},
		{Name: "kube-proxy", Args: []string{"--config=" + n.path("kube-proxy.yaml")}},
		{Name: "coredns", Args: []string{n.path("coredns.Corefile")}},
	}
	if n.GPUs > 0 {
		services = append(services, Service{Name: "gpu-plugin", Args: []string{
			"--resource=" + n.Resource,
			fmt.Sprintf("--count=%d", n.GPUs),
		}})
	}
	return services
}
