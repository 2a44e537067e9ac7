package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"berth.dev/e2e/cluster/node"
)

// auditPolicy writes down who asked for what, each request once. What was in it is left out.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
`

// schedulerConfig lets the scheduler ask as often as it likes: a client's limit must not be mistaken for the
// scheduler's own speed.
const schedulerConfig = `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection:
  leaderElect: false
clientConnection:
  kubeconfig: %q
  qps: 2000
  burst: 2000
`

// controlPlane is the command lines of a cluster's components.
type controlPlane struct {
	dir        string
	server     string // URL of the API server
	kubeconfig string // the admin's
	auditLog   string
	access     *access
	options    *upOptions
	node       *node.Node // the real one, or nil

	etcdPort, etcdPeerPort, apiPort int
}

// prepareControlPlane takes ports and writes all files that the components start from.
func prepareControlPlane(dir string, ports *ports, options *upOptions, realNode *node.Node) (*controlPlane, error) {
	c := &controlPlane{
		dir:        dir,
		kubeconfig: filepath.Join(dir, "kubeconfig"),
		auditLog:   filepath.Join(dir, "audit.log"),
		options:    options,
		node:       realNode,
	}
	for _, port := range []*int{&c.etcdPort, &c.etcdPeerPort, &c.apiPort} {
		var err error
		if *port, err = ports.take(); err != nil {
			return nil, err
		}
	}
	c.server = fmt.Sprintf("https://127.0.0.1:%d", c.apiPort)
	var err error
	users := users
	if c.node != nil {
		users = append(slices.Clone(users), usersOfNode(c.node)...)
		c.node.Kubeconfig = c.kubeconfigOf
	}
	if c.access, err = makeAccess(filepath.Join(dir, "pki"), users); err != nil {
		return nil, err
	}
	if c.node != nil {
		c.node.CACert = c.access.caCert
		if err := c.node.WriteFiles(); err != nil {
			return nil, err
		}
	}
	for _, user := range users {
		path := c.kubeconfigOf(user.name)
		if err := c.access.writeKubeconfig(path, c.server, user.name); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(c.config("audit-policy.yaml"), []byte(auditPolicy), 0o600); err != nil {
		return nil, err
	}
	scheduler := fmt.Sprintf(schedulerConfig, c.kubeconfigOf("system:kube-scheduler"))
	return c, os.WriteFile(c.config("scheduler.yaml"), []byte(scheduler), 0o600)
}

// config is the path of one of the components' files.
func (c *controlPlane) config(name string) string { return filepath.Join(c.dir, "config", name) }

// kubeconfigOf is where a user's kubeconfig is: the admin's is the one to hand out.
func (c *controlPlane) kubeconfigOf(user string) string {
	if user == "admin" {
		return c.kubeconfig
	}
	return c.config(user + ".kubeconfig")
}

func (c *controlPlane) etcd() []string {
	client := fmt.Sprintf("http://127.0.0.1:%d", c.etcdPort)
	peer := fmt.Sprintf("http://127.0.0.1:%d", c.etcdPeerPort)
	return append([]string{
		"--name=berth",
		"--data-dir=" + filepath.Join(c.dir, "etcd"),
		"--listen-client-urls=" + client,
		"--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=berth=" + peer,
		"--unsafe-no-fsync", // a test's data need not outlive the machine
		"--log-level=warn",
	}, c.options.etcdArgs...)
}

func (c *controlPlane) apiserver() []string {
	a := c.access
	reached := []string{
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		"--endpoint-reconciler-type=none", // no simulated pod asks the API server
		"--authorization-mode=RBAC",
	}
	if c.node != nil {
		reached = []string{
			"--bind-address=0.0.0.0", // of the cluster's own network
			"--advertise-address=" + node.Address,
			"--authorization-mode=Node,RBAC",
			"--kubelet-client-certificate=" + a.kubeletClientCert,
			"--kubelet-client-key=" + a.kubeletClientKey,
			"--kubelet-preferred-address-types=InternalIP", // nobody knows the node by its name
		}
	}
	return slices.Concat([]string{
		fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", c.etcdPort),
		fmt.Sprintf("--secure-port=%d", c.apiPort),
		"--cert-dir=" + filepath.Join(c.dir, "pki"),
		"--tls-cert-file=" + a.servingCert,
		"--tls-private-key-file=" + a.servingKey,
		"--token-auth-file=" + a.tokens,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + a.serviceAccountKey,
		"--service-account-signing-key-file=" + a.serviceAccountKey,
		"--service-cluster-ip-range=" + node.ServiceAddresses,
		"--allow-privileged=true",
		"--audit-policy-file=" + c.config("audit-policy.yaml"),
		"--audit-log-path=" + c.auditLog,
		"--audit-log-maxsize=100000", // MB: one file, so that nothing written is ever rotated away
		"--profiling=false",
	}, reached, c.options.apiserverArgs)
}

func (c *controlPlane) controllerManager() []string {
	kubeconfig := c.kubeconfigOf("system:kube-controller-manager")
	var faster []string
	if c.node != nil {
		faster = []string{"--pvclaimbinder-sync-period=1s"} // the default makes pods wait up to 15 s for a volume
	}
	return slices.Concat([]string{
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--secure-port=0",
		"--leader-elect=false",
		"--controllers=*,-nodeipam",
		"--use-service-account-credentials",
		"--service-account-private-key-file=" + c.access.serviceAccountKey,
		"--root-ca-file=" + c.access.caCert,
		"--node-monitor-grace-period=" + c.options.nodeMonitorGracePeriod.String(),
		"--kube-api-qps=2000", // the default makes tests measure the client's limit
		"--kube-api-burst=2000",
		"--profiling=false",
	}, faster, c.options.controllerManagerArgs)
}

func (c *controlPlane) scheduler() []string {
	return append([]string{
		"--config=" + c.config("scheduler.yaml"),
		"--secure-port=0",
	}, c.options.schedulerArgs...)
}

func (c *controlPlane) kwok() []string {
	return append([]string{"--kubeconfig=" + c.kubeconfigOf("kwok")}, c.options.kwokArgs...)
}
