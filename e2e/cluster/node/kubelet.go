package node

import "fmt"

// kubeletConfig keeps to what kubeadm writes for a node, but for this:
//
//   - cgroups of either version, by files, all below one that is ours; without cgroupsPerQOS the kubelet
//     would leave the place to containerd;
//   - swap and a full disk are the machine's matter: nothing is evicted for them, no image is removed;
//   - names are looked up in the cluster only, never where this machine looks them up;
//   - status and lease are renewed more often, so that tests wait less: the lease every three seconds.
func (n *Node) kubeletConfig() string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://%s
address: %s
readOnlyPort: 0
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: %q}
authorization: {mode: Webhook}
clusterDNS: [%s]
clusterDomain: cluster.local
resolvConf: ""
cgroupDriver: cgroupfs
cgroupRoot: /%s
cgroupsPerQOS: true
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
evictionHard: {memory.available: 0%%, nodefs.available: 0%%, nodefs.inodesFree: 0%%, imagefs.available: 0%%, imagefs.inodesFree: 0%%}
imageGCHighThresholdPercent: 100
nodeStatusUpdateFrequency: 5s
nodeLeaseDurationSeconds: 12
syncFrequency: 10s
serializeImagePulls: false
shutdownGracePeriod: 0s
`, ContainerdSocket, Address, n.CACert, DNSService, n.ID)
}
