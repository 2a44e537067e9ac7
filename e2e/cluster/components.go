package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client-go's metrics on /metrics
	_ "k8s.io/component-base/metrics/prometheus/version"  // kubernetes_build_info on /metrics
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	"berth.dev/e2e/cluster/machine"
	"berth.dev/e2e/cluster/node"
	"berth.dev/e2e/cluster/simulate"

	_ "time/tzdata" // CronJobs with a time zone, on machines without a zone database
)

// components are the programs that this binary can become, by the name given as its first argument. Each
// gets the arguments as if it had been started under that name, and returns the exit code.
//
// The lower half is for real nodes only.
var components = map[string]func() int{
	"etcd":                    runEtcd,
	"kube-apiserver":          command(apiserver.NewAPIServerCommand),
	"kube-controller-manager": command(controllermanager.NewControllerManagerCommand),
	"kube-scheduler":          command(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kwok":                    simulate.Run,

	"machine-init": machine.RunInit,
	// Not a context that ends with a signal: the kubelet makes its own, and there can be only one.
	"kubelet":    command(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
	"kube-proxy": command(proxy.NewProxyCommand),
	"coredns":    node.RunDNS,
	"gpu-plugin": node.RunGPUPlugin,
}

// runComponent becomes the component that the first argument names, if it names one.
func runComponent(args []string) (code int, found bool) {
	if len(args) < 2 {
		return 0, false
	}
	run, found := components[args[1]]
	if !found {
		return 0, false
	}
	// cobra, component-base and etcd all read os.Args by themselves.
	os.Args = args[1:]
	return run(), true
}

// command runs one of Kubernetes' own commands the way its own main does.
func command(build func() *cobra.Command) func() int {
	return func() int { return cli.Run(build()) }
}

// runEtcd runs etcd, which ends the process by itself when it fails.
func runEtcd() int {
	etcdmain.Main(os.Args)
	return 0
}
