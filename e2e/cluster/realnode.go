package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"

	corev1 "k8s.io/api/core/v1"

	"berth.dev/e2e/cluster/fleet"
	"berth.dev/e2e/cluster/machine"
	"berth.dev/e2e/cluster/node"
)

const (
	// restartPause is how long a service that died stays away, as systemd would have it.
	restartPause = time.Second
	// quickDeaths in a row, each within quickDeath of the start, mean that a service cannot run.
	quickDeaths = 5
	quickDeath  = 5 * time.Second
)

// realNodeOptions is the flags of `up` for the real node.
type realNodeOptions struct {
	wanted    bool
	name      string
	gpus      int
	product   string
	memory    string
	labels    []string
	images    []string
	allLabels map[string]string
	resource  string
}

func (o *realNodeOptions) addFlags(flags *pflag.FlagSet) {
	flags.BoolVar(&o.wanted, "real-node", false, "add a node that really runs pods: containerd, kubelet, kube-proxy and cluster DNS; needs root")
	flags.StringVar(&o.name, "real-node-name", "real", "name of the real node")
	flags.IntVar(&o.gpus, "real-gpus", 4, "how many GPUs the real node says that it has; 0 is none")
	flags.StringVar(&o.product, "real-gpu-product", "NVIDIA-L4", "their product, as GPU Feature Discovery writes it")
	flags.StringVar(&o.memory, "real-gpu-memory", "23034Mi", "memory of each")
	flags.StringArrayVar(&o.labels, "real-label", nil, "NAME=VALUE, one more label for the real node; may be repeated")
	flags.StringArrayVar(&o.images, "image", nil, "tarball of an image for the real node; may be repeated")
}

// check completes the options.
func (o *realNodeOptions) check() error {
	if !o.wanted {
		if len(o.images) > 0 {
			return errors.New("--image is for the real node; give --real-node too")
		}
		return nil
	}
	if faults := validation.IsDNS1123Subdomain(o.name); len(faults) > 0 {
		return fmt.Errorf("--real-node-name %q: %s", o.name, strings.Join(faults, "; "))
	}
	o.allLabels = map[string]string{}
	if o.gpus > 0 {
		gpu, err := fleet.NewGPU("nvidia", o.product, o.gpus, o.memory)
		if err != nil {
			return fmt.Errorf("--real-gpu-product, --real-gpu-memory: %w", err)
		}
		o.resource = string(gpu.ResourceName())
		maps.Copy(o.allLabels, gpu.Labels())
	}
	for _, label := range o.labels {
		name, value, found := strings.Cut(label, "=")
		if !found || len(validation.IsQualifiedName(name)) > 0 || len(validation.IsValidLabelValue(value)) > 0 {
			return fmt.Errorf("--real-label %s: must be NAME=VALUE", label)
		}
		o.allLabels[name] = value
	}
	for _, image := range o.images {
		if _, err := os.Stat(image); err != nil {
			return fmt.Errorf("--image: %w", err)
		}
	}
	return nil
}

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
	// containerd is closed when the first containerd has all images; before, no other service is started.
	containerd chan struct{}
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
		images:     append([]string{pause}, options.images...),
		processes:  processes,
		fail:       fail,
		records:    machine.AllRecords(),
		containerd: make(chan struct{}),
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

// powerOn lets the API server be reached from outside, and starts the node, with containerd and its images,
// then all other services. They need not wait for the API server: they ask until it is there.
func (r *realNode) powerOn(apiPort int) error {
	api := fmt.Sprintf("127.0.0.1:%d", apiPort)
	var err error
	if r.listener, err = net.Listen("tcp", api); err != nil {
		return err
	}
	go r.processes.thread.Forward(r.listener, api)
	return r.boot()
}

// boot starts the machine and everything in it, and again when it dies.
func (r *realNode) boot() error {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.stopping {
		return nil
	}
	log, err := os.OpenFile(filepath.Join(r.processes.logDir, "machine.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
	if err != nil {
		return err
	}
	defer log.Close()
	// Those of the last boot would be taken for containers that run.
	if err := errors.Join(machine.RemoveCgroups(r.config.ID), machine.MakeCgroups(r.config.ID)); err != nil {
		return err
	}
	m, err := machine.Boot(r.processes.thread, r.config.Machine(), log)
	if err != nil {
		return err
	}
	r.machine = m
	r.state.Boots++
	r.state.Init = m.PID
	r.state.Services = map[string]int{}
	if err := r.state.write(r.config.Dir); err != nil {
		return err
	}
	r.services.Go(func() { r.keep(m, r.config.Containerd()) })
	go r.bootServices(m)
	go func() {
		<-m.Ended
		r.services.Wait()
		if err := r.boot(); err != nil {
			r.fail(fmt.Errorf("the real node does not come back: %w", err))
		}
	}()
	return nil
}

// bootServices waits for containerd, and starts what needs it.
func (r *realNode) bootServices(m *machine.Machine) {
	if err := r.waitForContainerd(m); err != nil {
		if !r.over(m) {
			r.fail(err)
		}
		return
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.stopping || r.machine != m {
		return
	}
	for _, service := range r.config.Services() {
		r.services.Go(func() { r.keep(m, service) })
	}
}

// waitForContainerd returns when containerd answers and, the first time, has all images.
func (r *realNode) waitForContainerd(m *machine.Machine) error {
	for {
		err := m.Inside.Do(func() error {
			connection, err := net.Dial("unix", node.ContainerdSocket)
			if err == nil {
				_ = connection.Close()
			}
			return err
		})
		if err == nil {
			break
		}
		select {
		case <-m.Ended:
			return errors.New("the real node died while it started")
		case <-time.After(20 * time.Millisecond):
		}
	}
	for _, image := range r.images {
		if err := importImage(m, image); err != nil {
			return err
		}
	}
	r.images = nil // they are on its disk
	return nil
}

// importImage gives an image to the node's containerd.
func importImage(m *machine.Machine, tarball string) error {
	file, err := os.Open(tarball)
	if err != nil {
		return err
	}
	defer file.Close()
	var output strings.Builder
	command := exec.Command("/usr/bin/ctr", "--address", node.ContainerdSocket, "--namespace", "k8s.io", "images", "import", "-")
	command.Stdin = file
	command.Stdout, command.Stderr = &output, &output
	if err := m.Inside.Do(command.Start); err != nil {
		return err
	}
	if err := command.Wait(); err != nil {
		return fmt.Errorf("cannot import %s: %w: %s", tarball, err, output.String())
	}
	return nil
}

// keep runs a service, and again when it ends, as long as the machine runs.
func (r *realNode) keep(m *machine.Machine, service node.Service) {
	for deaths := 0; ; {
		begun := time.Now()
		// Without a signal for the death of this process: it would come too early for a process in another
		// process namespace, and the machine ends with us anyway.
		started, err := r.processes.launch(m.Inside, service.Name, service.Program, service.Args, 0)
		if err != nil {
			if !r.over(m) {
				r.fail(err)
			}
			return
		}
		r.note(service.Name, started.pid)
		<-started.ended
		r.note(service.Name, 0)
		if time.Since(begun) > quickDeath {
			deaths = 0
		}
		if deaths++; deaths == quickDeaths {
			r.fail(started.unexpected())
			return
		}
		select {
		case <-m.Ended:
			return
		case <-time.After(restartPause):
		}
		if r.over(m) {
			return
		}
		fmt.Fprintf(os.Stderr, "berth-cluster: %s on the real node ended (%s) and is started again\n", service.Name, started.outcome)
	}
}

// over says whether a machine is not the one that runs now.
func (r *realNode) over(m *machine.Machine) bool {
	select {
	case <-m.Ended:
		return true
	default:
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.stopping
}

// note writes down which process a service is; 0 is none.
func (r *realNode) note(service string, pid int) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if pid == 0 {
		delete(r.state.Services, service)
	} else {
		r.state.Services[service] = pid
	}
	if err := r.state.write(r.config.Dir); err != nil && !r.stopping {
		r.fail(err)
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
