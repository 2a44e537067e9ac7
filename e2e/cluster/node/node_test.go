package node

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	"sigs.k8s.io/yaml"
)

func example(t *testing.T) *Node {
	dir := t.TempDir()
	return &Node{
		Name: "real", ID: "berth-1", Dir: dir, CACert: "/pki/ca.crt",
		Kubeconfig: func(user string) string { return "/config/" + user },
		Labels:     map[string]string{"b": "2", "a": "1"}, Resource: "nvidia.com/gpu", GPUs: 4,
	}
}

func TestEverythingIsWrittenBelowTheNodesFolder(t *testing.T) {
	n := example(t)
	if err := n.WriteFiles(); err != nil {
		t.Fatal(err)
	}
	containerd := n.containerdConfig()
	for _, line := range []string{"root = \"" + n.Dir, "conf_dir = \"" + n.Dir} {
		if !strings.Contains(containerd, line) {
			t.Errorf("containerd has no %q:\n%s", line, containerd)
		}
	}
	for _, mount := range n.Machine().Mounts {
		if filepath.Dir(mount.Source) != n.Dir {
			t.Errorf("%s is not ours", mount.Source)
		}
	}
}

func TestKubeletConfigIsWhatTheKubeletReads(t *testing.T) {
	config := &kubeletconfig.KubeletConfiguration{}
	if err := yaml.UnmarshalStrict([]byte(example(t).kubeletConfig()), config); err != nil {
		t.Fatal(err)
	}
	if config.CgroupRoot != "/berth-1" || !*config.CgroupsPerQOS {
		t.Errorf("pods are in the cgroups of others: %q", config.CgroupRoot)
	}
	if config.ResolverConfig == nil || *config.ResolverConfig != "" {
		t.Error("pods ask this machine's name servers")
	}
	if config.EvictionHard["memory.available"] != "0%" {
		t.Errorf("pods are evicted: %v", config.EvictionHard)
	}
}

func TestNetworkConfigIsJSON(t *testing.T) {
	config := map[string]any{}
	if err := json.Unmarshal([]byte(example(t).networkConfig()), &config); err != nil {
		t.Fatal(err)
	}
}

func TestKubeletSetsLabelsInOrder(t *testing.T) {
	services := example(t).Services()
	if !slices.Contains(services[0].Args, "--node-labels=a=1,b=2") {
		t.Errorf("got %v", services[0].Args)
	}
}

func TestNodeWithoutGPUsHasNoPlugin(t *testing.T) {
	n := example(t)
	n.GPUs = 0
	for _, service := range n.Services() {
		if service.Name == "gpu-plugin" {
			t.Error("it has one")
		}
	}
}

// fakeKubelet takes device plugins.
type fakeKubelet struct {
	pluginapi.UnimplementedRegistrationServer
	registered chan *pluginapi.RegisterRequest
}

func (k *fakeKubelet) Register(_ context.Context, request *pluginapi.RegisterRequest) (*pluginapi.Empty, error) {
	k.registered <- request
	return &pluginapi.Empty{}, nil
}

func (k *fakeKubelet) serve(t *testing.T, dir string) *grpc.Server {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(dir, "kubelet.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pluginapi.RegisterRegistrationServer(server, k)
	go func() { _ = server.Serve(listener) }()
	return server
}

func TestPluginOffersItsGPUsToEachNewKubelet(t *testing.T) {
	dir, err := os.MkdirTemp("", "plugin") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	kubelet := &fakeKubelet{registered: make(chan *pluginapi.RegisterRequest)}
	for range 2 {
		server := kubelet.serve(t, dir)
		ended := make(chan error)
		go func() { ended <- offer(ctx, dir, "nvidia.com/gpu", 2) }()
		request := <-kubelet.registered
		if request.GetResourceName() != "nvidia.com/gpu" {
			t.Errorf("got %v", request)
		}
		connection, err := grpc.NewClient("unix://"+filepath.Join(dir, request.GetEndpoint()),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		plugin := pluginapi.NewDevicePluginClient(connection)
		stream, err := plugin.ListAndWatch(ctx, &pluginapi.Empty{})
		if err != nil {
			t.Fatal(err)
		}
		devices, err := stream.Recv()
		if err != nil || len(devices.GetDevices()) != 2 || devices.GetDevices()[0].GetID() == devices.GetDevices()[1].GetID() {
			t.Fatalf("got %v, %v", devices, err)
		}
		ids := []string{gpuID(0), gpuID(1)}
		answer, err := plugin.Allocate(ctx, &pluginapi.AllocateRequest{
			ContainerRequests: []*pluginapi.ContainerAllocateRequest{{DevicesIds: ids}},
		})
		if err != nil || answer.GetContainerResponses()[0].GetEnvs()["NVIDIA_VISIBLE_DEVICES"] != strings.Join(ids, ",") {
			t.Errorf("got %v, %v", answer, err)
		}
		// A kubelet that starts anew removes all sockets.
		server.Stop()
		_ = os.Remove(filepath.Join(dir, "kubelet.sock"))
		if err := <-ended; err != nil {
			t.Error(err)
		}
		_ = connection.Close()
	}
}
