package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"berth.dev/e2e/cluster/machine"
	"berth.dev/e2e/cluster/node"
)

// realNode is a real node that runs: a machine within the machine, its services, and what they leave behind.
type realNode struct {
	config    *node.Node
	images    []string
	processes *processes
	fail      context.CancelCauseFunc
	records   *machine.Records
	record    *machine.Record

	// listener is where the API server is reached from outside.
	listener net.Listener

	mutex    sync.Mutex
	stopping bool
	state    nodeState
	machine  *machine.Machine
	services sync.WaitGroup
}

// readyNode is what `up` says of the real node.
type readyNode struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	// Netns is the cluster's network, for `nsenter --net=…`.
	Netns string `json:"netns"`
	// DataDir is a folder for hostPath volumes. It goes with the cluster.
	DataDir string `json:"dataDir"`
}

// newRealNode checks that there can be one, cleans up after those whose cluster was killed, and puts down
// what it will leave behind itself.
func newRealNode(dir string, options *realNodeOptions, processes *processes, fail context.CancelCauseFunc) (*realNode, error) {
	pause, err := pauseImage()
	if err != nil {
		return nil, err
	}
	random := make([]byte, 4)
	_, _ = rand.Read(random) // never fails
	r := &realNode{
		config: &node.Node{
			Name: options.name, ID: "berth-" + hex.EncodeToString(random), Dir: filepath.Join(dir, "node"),
			Labels: options.allLabels, Resource: options.resource, GPUs: options.gpus,
		},
		images:    append([]string{pause}, options.images...),
		processes: processes,
		fail:      fail,
		records:   machine.AllRecords(),
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for _, path := range []string{dir, self} {
		if err := r.config.Machine().Check(path); err != nil {
			return nil, err
		}
	}
	if err := sweep(r.records); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.config.Dir, 0o755); err != nil {
		return nil, err
	}
	r.record, err = r.records.Add(r.config.ID, dir)
	return r, err
}

// pauseImage is the image that the build script has put beside this binary.
func pauseImage() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(self), "pause.tar")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("a real node needs the image pause.tar beside %s; 'build.sh --real-node' makes it", self)
	}
	return path, nil
}

// node is the node's configuration, if there is a real node.
func (r *realNode) node() *node.Node {
	if r == nil {
		return nil
	}
	return r.config
}

// ready says where the node is, if there is one.
func (r *realNode) ready() *readyNode {
	if r == nil {
		return nil
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return &readyNode{
		Name: r.config.Name, Address: node.Address, DataDir: r.config.DataDir(),
		Netns: fmt.Sprintf("/proc/%d/ns/net", r.processes.running[0].pid),
	}
}

// waitReady returns when the node is Ready with its GPUs, and the cluster's names can be looked up by way of
// the DNS server's ClusterIP.
func (r *realNode) waitReady(ctx context.Context, client kubernetes.Interface) error {
	if err := node.ApplyDNS(ctx, client); err != nil {
		return err
	}
	for {
		missing := r.missing(ctx, client)
		if missing == "" {
			return nil
		}
		if !pause(ctx) {
			return fmt.Errorf("the real node is not ready: %s; the end of kubelet.log:\n%s",
				missing, tail(filepath.Join(r.processes.logDir, "kubelet.log"), 20))
		}
	}
}

// missing says what is not there yet.
func (r *realNode) missing(ctx context.Context, client kubernetes.Interface) string {
	present, err := client.CoreV1().Nodes().Get(ctx, r.config.Name, metav1.GetOptions{})
	if err != nil {
		return err.Error()
	}
	if !isReady(present) {
		return "its kubelet does not say Ready"
	}
	gpus := present.Status.Allocatable[corev1.ResourceName(r.config.Resource)]
	if r.config.GPUs > 0 && gpus.Cmp(*resource.NewQuantity(int64(r.config.GPUs), resource.DecimalSI)) != 0 {
		return "its GPUs are not there"
	}
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return r.processes.thread.Dial(ctx, network, net.JoinHostPort(node.DNSService, "53"))
	}}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	addresses, err := resolver.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
	if err != nil {
		return err.Error()
	}
	if len(addresses) != 1 || addresses[0] != node.APIService {
		return fmt.Sprintf("kubernetes.default has the addresses %v", addresses)
	}
	return ""
}

// stop ends the node with all that runs on it.
func (r *realNode) stop() {
	if r == nil {
		return
	}
	r.mutex.Lock()
	r.stopping = true
	m := r.machine
	r.mutex.Unlock()
	if m != nil {
		m.Kill()
	}
	r.services.Wait()
	if r.listener != nil {
		_ = r.listener.Close()
	}
}

// cleanUp removes what the kernel does not remove by itself. The pods' logs stay if logs are kept.
func (r *realNode) cleanUp(keepLogs bool) error {
	if r == nil {
		return nil
	}
	if keepLogs {
		_ = os.Rename(filepath.Join(r.config.Dir, "log", "pods"), filepath.Join(r.processes.logDir, "pods"))
	}
	if err := removeNode(r.record); err != nil {
		return err
	}
	r.records.Remove(r.record)
	return nil
}
