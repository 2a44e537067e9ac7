package node

import "fmt"

// proxyConfig makes ClusterIPs work. Settings of connection tracking that belong to the whole machine are
// left as they are.
func (n *Node) proxyConfig() string {
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: %s
clientConnection: {kubeconfig: %q}
clusterCIDR: %s
detectLocalMode: ClusterCIDR
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`, n.Name, n.Kubeconfig(ProxyUser), PodAddresses)
}

// dnsConfig answers for the cluster's names. Others are refused: there is nobody to ask.
func (n *Node) dnsConfig() string {
	return fmt.Sprintf(`.:53 {
    bind %s
    errors
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa {
        kubeconfig %s
        pods insecure
        ttl 5
    }
    cache 5
}
`, Address, n.Kubeconfig(DNSUser))
}

// The names of the node's processes towards the API server, beside the kubelet's.
const (
	ProxyUser = "system:kube-proxy"
	DNSUser   = "coredns"
)
