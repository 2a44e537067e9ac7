package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	// pluginSocket is ours, beside the kubelet's.
	pluginSocket = "berth-gpus.sock"
	// pluginPause is the time between two looks at whether the kubelet is still the same.
	pluginPause = 250 * time.Millisecond
)

// RunGPUPlugin is a device plugin: it offers GPUs to the kubelet, as the vendor's would. A resource that is
// only written into the node's status would be set to nothing when the kubelet starts again, and the pods
// that use it refused.
func RunGPUPlugin() int {
	flags := pflag.NewFlagSet("gpu-plugin", pflag.ExitOnError)
	resource := flags.String("resource", "nvidia.com/gpu", "name of the resource")
	count := flags.Int("count", 1, "how many GPUs there are")
	dir := flags.String("dir", strings.TrimSuffix(pluginapi.DevicePluginPath, "/"), "the kubelet's folder for device plugins")
	_ = flags.Parse(os.Args[1:])
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for ctx.Err() == nil {
		if err := offer(ctx, *dir, *resource, *count); err != nil {
			fmt.Fprintf(os.Stderr, "gpu-plugin: %v\n", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pluginPause):
		}
	}
	return 0
}

// offer serves the kubelet that is there, until there is another: a kubelet that starts removes all sockets
// and waits for new offers.
func offer(ctx context.Context, dir, resource string, count int) error {
	kubelet := filepath.Join(dir, filepath.Base(pluginapi.KubeletSocket))
	present, err := os.Stat(kubelet)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // not yet
	}
	if err != nil {
		return err
	}
	// One from before the power was cut looks the same, and its successor would remove our socket.
	answers, err := net.Dial("unix", kubelet)
	if err != nil {
		return nil // not yet
	}
	_ = answers.Close()
	own := filepath.Join(dir, pluginSocket)
	if err := os.Remove(own); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", own)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	pluginapi.RegisterDevicePluginServer(server, &gpus{count: count, ended: ctx.Done()})
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()

	if err := register(ctx, kubelet, resource); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "gpu-plugin: offering %d of %s\n", count, resource)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pluginPause):
		}
		now, err := os.Stat(kubelet)
		if _, ownErr := os.Stat(own); err != nil || ownErr != nil || !os.SameFile(present, now) {
			return nil
		}
	}
}

// register tells the kubelet where we are.
func register(ctx context.Context, kubelet, resource string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	connection, err := grpc.NewClient("unix://"+kubelet, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	_, err = pluginapi.NewRegistrationClient(connection).Register(ctx, &pluginapi.RegisterRequest{
		Version: pluginapi.Version, Endpoint: pluginSocket, ResourceName: resource,
	})
	if err != nil {
		return fmt.Errorf("the kubelet takes no device plugin: %w", err)
	}
	return nil
}

// gpus is the plugin's answers. They are all healthy, for ever.
type gpus struct {
	pluginapi.UnimplementedDevicePluginServer
	count int
	ended <-chan struct{}
}

func (g *gpus) GetDevicePluginOptions(context.Context, *pluginapi.Empty) (*pluginapi.DevicePluginOptions, error) {
	return &pluginapi.DevicePluginOptions{}, nil
}

func (g *gpus) ListAndWatch(_ *pluginapi.Empty, stream grpc.ServerStreamingServer[pluginapi.ListAndWatchResponse]) error {
	devices := &pluginapi.ListAndWatchResponse{}
	for i := range g.count {
		devices.Devices = append(devices.Devices, &pluginapi.Device{ID: gpuID(i), Health: pluginapi.Healthy})
	}
	if err := stream.Send(devices); err != nil {
		return err
	}
	select {
	case <-stream.Context().Done():
	case <-g.ended:
	}
	return nil
}

// Allocate tells a container which GPUs are its own, in the way in which NVIDIA's plugin does.
func (g *gpus) Allocate(_ context.Context, request *pluginapi.AllocateRequest) (*pluginapi.AllocateResponse, error) {
	response := &pluginapi.AllocateResponse{}
	for _, container := range request.GetContainerRequests() {
		response.ContainerResponses = append(response.ContainerResponses, &pluginapi.ContainerAllocateResponse{
			Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": strings.Join(container.GetDevicesIds(), ",")},
		})
	}
	return response, nil
}

// gpuID is in the form of a GPU's UUID.
func gpuID(index int) string { return fmt.Sprintf("GPU-00000000-0000-4000-8000-%012d", index) }
