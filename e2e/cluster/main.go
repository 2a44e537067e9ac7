// berth-cluster is a Kubernetes control plane with simulated GPU nodes, for tests and demonstrations: one
// static binary that needs no container engine, no image and no network. With root, containerd and runc it
// adds a node that really runs pods.
//
// It becomes any of its components by its first argument (components.go), and starts a whole cluster of
// them with `up` (up.go, realnode.go). README.md tells how to use it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"berth.dev/e2e/cluster/image"
)

const usage = `berth-cluster: a Kubernetes control plane with simulated GPU nodes, and a real one if asked for

  berth-cluster up --fleet FLEET.yaml [flags]                      start a cluster and run it until told to stop
  berth-cluster nodes apply --kubeconfig FILE --fleet FLEET.yaml   create or update nodes on a running cluster
  berth-cluster clean --dir DIR                                    remove what a killed cluster left behind
  berth-cluster image --output TAR --name NAME:TAG [flags]         write an OCI image
  berth-cluster COMPONENT [flags]                                  be etcd, kube-apiserver, kube-controller-manager,
                                                                   kube-scheduler, kwok, kubelet, kube-proxy, coredns

With a real node (up --real-node):

  berth-cluster node restart SERVICE --dir DIR    kubelet, containerd, kube-proxy, coredns or gpu-plugin
  berth-cluster node pause|resume SERVICE --dir DIR
  berth-cluster node reboot --dir DIR             cut its power, and start it again
  berth-cluster node exec --dir DIR -- COMMAND    run a command on the node
  berth-cluster forward --dir DIR --to IP:PORT    reach an address of the cluster's network from here

With --help after up, nodes apply, image …: their flags.
`

func main() {
	if code, found := runComponent(os.Args); found {
		os.Exit(code)
	}
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "berth-cluster: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) > 0 && args[0] == "up":
		return runUp(args[1:])
	case len(args) > 1 && args[0] == "nodes" && args[1] == "apply":
		return runNodesApply(context.Background(), args[2:])
	case len(args) > 0 && args[0] == "clean":
		return runClean(args[1:])
	case len(args) > 0 && args[0] == "image":
		return image.Run(args[1:])
	case len(args) > 0 && args[0] == "node":
		return runNode(args[1:])
	case len(args) > 0 && args[0] == "forward":
		return runForward(args[1:])
	case len(args) > 0 && (args[0] == "help" || args[0] == "--help" || args[0] == "-h"):
		fmt.Print(usage)
		return nil
	}
	fmt.Fprint(os.Stderr, usage)
	return errors.New("say what to do: up, nodes apply, clean, image, node, forward, or a component")
}
