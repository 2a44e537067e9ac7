// berth-cluster is a Kubernetes control plane with simulated GPU nodes, for tests and demonstrations: one
// static binary that needs no container engine, no image and no network.
//
// It becomes any of its components by its first argument (components.go), and starts a whole cluster of
// them with `up` (up.go). README.md tells how to use it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"
)

const usage = `berth-cluster: a Kubernetes control plane with simulated GPU nodes

  berth-cluster up --fleet FLEET.yaml [flags]                      start a cluster and run it until told to stop
  berth-cluster nodes apply --kubeconfig FILE --fleet FLEET.yaml   create or update nodes on a running cluster
  berth-cluster COMPONENT [flags]                                  be etcd, kube-apiserver, kube-controller-manager,
                                                                   kube-scheduler or kwok

With --help after up or nodes apply: their flags.
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
	case len(args) > 0 && (args[0] == "help" || args[0] == "--help" || args[0] == "-h"):
		fmt.Print(usage)
		return nil
	}
	fmt.Fprint(os.Stderr, usage)
	return errors.New("say what to do: up, nodes apply, or a component")
}
