package node

import "fmt"

// containerdConfig is for containerd 1.6, which Debian 12 has; 1.7 reads it too.
//
//   - restrict_oom_score_adj: some machines do not let even root make a process less likely to be killed.
//   - The stream server answers exec and attach; its port is a free one of the loopback.
func (n *Node) containerdConfig() string {
	return fmt.Sprintf(`version = 2
root = %q
state = "/run/containerd"

[grpc]
address = %q

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = %q
restrict_oom_score_adj = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = %q
conf_dir = %q

[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runc"
snapshotter = "overlayfs"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
`, n.path("containerd"), ContainerdSocket, PauseImage, pluginDir, n.path("cni"))
}

// networkConfig connects each pod with the node by a wire of its own. On a bridge, the answers of pods to
// each other would pass by kube-proxy's rules.
func (n *Node) networkConfig() string {
	return fmt.Sprintf(`{
  "cniVersion": "0.4.0",
  "name": "pods",
  "type": "ptp",
  "ipam": {
    "type": "host-local",
    "ranges": [[{"subnet": %q}]],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dataDir": %q
  }
}
`, PodAddresses, n.path("addresses"))
}
