package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"berth.dev/e2e/cluster/fleet"
	"berth.dev/e2e/cluster/machine"
	"berth.dev/e2e/cluster/node"
)

// upOptions is the flags of `up`.
type upOptions struct {
	fleetFile              string
	dir                    string
	keepLogs               bool
	stopOnStdinEOF         bool
	startTimeout           time.Duration
	nodeMonitorGracePeriod time.Duration
	realNode               realNodeOptions

	etcdArgs, apiserverArgs, controllerManagerArgs, schedulerArgs, kwokArgs []string
}

func parseUp(args []string) (*upOptions, error) {
	o := &upOptions{}
	flags := pflag.NewFlagSet("up", pflag.ContinueOnError)
	flags.StringVar(&o.fleetFile, "fleet", "", "fleet file with the cluster's nodes")
	flags.StringVar(&o.dir, "dir", "", "folder for the cluster's files, empty or not there yet (default: a temporary one)")
	flags.BoolVar(&o.keepLogs, "keep-logs", false, "keep logs, audit log and configuration after a clean stop too")
	flags.BoolVar(&o.stopOnStdinEOF, "stop-on-stdin-eof", false, "stop when standard input ends: with the process that holds the other end")
	flags.DurationVar(&o.startTimeout, "start-timeout", 2*time.Minute, "how long the start may take")
	flags.DurationVar(&o.nodeMonitorGracePeriod, "node-monitor-grace-period", 50*time.Second,
		"how long a node may be silent before it counts as lost; with less than 30s pass --kwok-arg=--node-lease-duration-seconds too")
	o.realNode.addFlags(flags)
	more := func(into *[]string, component string) {
		flags.StringArrayVar(into, component+"-arg", nil, "one more flag for "+component+", as it stands; may be repeated")
	}
	more(&o.etcdArgs, "etcd")
	more(&o.apiserverArgs, "apiserver")
	more(&o.controllerManagerArgs, "controller-manager")
	more(&o.schedulerArgs, "scheduler")
	more(&o.kwokArgs, "kwok")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("up takes flags only, not %q", flags.Arg(0))
	}
	if o.fleetFile == "" && !o.realNode.wanted {
		return nil, errors.New("up needs --fleet FILE; fleets/demo.yaml is one")
	}
	return o, o.realNode.check()
}

// ready is the line that `up` prints when the cluster can be used.
type ready struct {
	Kubeconfig string `json:"kubeconfig"`
	Server     string `json:"server"`
	Dir        string `json:"dir"`
	AuditLog   string `json:"auditLog"`
	PID        int    `json:"pid"`
	// Node is the real node, if there is one.
	Node *readyNode `json:"node,omitempty"`
}

// errStopped says that `up` was told to stop, which is how it should end.
var errStopped = errors.New("told to stop")

// runUp starts a cluster, says where it is, and runs it until it is told to stop or a component dies.
func runUp(args []string) error {
	options, err := parseUp(args)
	if err != nil {
		return err
	}
	wanted := &fleet.Fleet{}
	if options.fleetFile != "" {
		if wanted, err = fleet.Load(options.fleetFile); err != nil {
			return err
		}
	}
	if options.realNode.wanted {
		if err := node.CheckRequirements(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	watchForStop(cancel, options.stopOnStdinEOF)

	dir, err := makeDir(options.dir)
	if err != nil {
		return err
	}
	begun := time.Now()
	thread, err := newClusterThread(options)
	if err != nil {
		cleanUp(dir, false)
		return err
	}
	processes := newProcesses(filepath.Join(dir, "logs"), filepath.Join(dir, "config"), thread)
	go func() {
		cancel((<-processes.died).unexpected())
	}()
	var real *realNode
	if options.realNode.wanted {
		if real, err = newRealNode(dir, &options.realNode, processes, cancel); err != nil {
			cleanUp(dir, false)
			return err
		}
	}

	starting, cancelStarting := context.WithTimeoutCause(ctx, options.startTimeout,
		fmt.Errorf("not ready within %s", options.startTimeout))
	plane, err := start(starting, dir, options, wanted, processes, real)
	if cause := context.Cause(ctx); cause != nil {
		err = cause // a component died, or a stop was asked for; what start says of it is only a consequence
	} else if cause := context.Cause(starting); cause != nil {
		err = errors.Join(cause, err)
	}
	cancelStarting()
	if err == nil {
		fmt.Fprintf(os.Stderr, "berth-cluster: ready after %.1f s, %s\n", time.Since(begun).Seconds(), dir)
		err = json.NewEncoder(os.Stdout).Encode(ready{
			Kubeconfig: plane.kubeconfig, Server: plane.server, Dir: dir, AuditLog: plane.auditLog, PID: os.Getpid(),
			Node: real.ready(),
		})
	}
	if err == nil {
		<-ctx.Done()
		err = context.Cause(ctx)
	}

	real.stop()
	processes.stop()
	if errors.Is(err, errStopped) {
		err = nil
	}
	keepLogs := options.keepLogs || err != nil
	err = errors.Join(err, real.cleanUp(keepLogs))
	cleanUp(dir, keepLogs)
	return err
}

// newClusterThread is the thread that starts the components: with a real node, in a network of their own.
func newClusterThread(options *upOptions) (*machine.Thread, error) {
	if options.realNode.wanted {
		return machine.NewThread(machine.IsolateNetwork(node.Address, node.ServiceAddresses))
	}
	return machine.NewThread(nil)
}

// watchForStop cancels on Ctrl-C and SIGTERM, and on the end of standard input if asked to.
func watchForStop(cancel context.CancelCauseFunc, onStdinEOF bool) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// Whoever reads our one line may be gone by now. That shows as an error of the write.
	signal.Ignore(syscall.SIGPIPE)
	go func() {
		<-signals
		cancel(errStopped)
	}()
	if onStdinEOF {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel(errStopped)
		}()
	}
}

// start brings up the control plane, one part after what it needs, and the fleet's nodes.
func start(ctx context.Context, dir string, options *upOptions, wanted *fleet.Fleet, processes *processes, real *realNode) (*controlPlane, error) {
	plane, err := prepareControlPlane(dir, &ports{}, options, real.node())
	if err != nil {
		return nil, err
	}
	if real != nil {
		if err := real.powerOn(plane.apiPort); err != nil {
			return nil, err
		}
	}
	if _, err := processes.start("etcd", plane.etcd()); err != nil {
		return nil, err
	}
	if err := waitForPort(ctx, processes.thread, plane.etcdPort); err != nil {
		return nil, fmt.Errorf("waiting for etcd: %w", err)
	}
	if _, err := processes.start("kube-apiserver", plane.apiserver()); err != nil {
		return nil, err
	}
	client, err := connect(plane.kubeconfig)
	if err != nil {
		return nil, err
	}
	if err := waitForAPI(ctx, client); err != nil {
		return nil, err
	}
	for _, component := range []struct {
		name string
		args []string
	}{
		{"kube-controller-manager", plane.controllerManager()},
		{"kube-scheduler", plane.scheduler()},
		{"kwok", plane.kwok()},
	} {
		if _, err := processes.start(component.name, component.args); err != nil {
			return nil, err
		}
	}
	nodes := wanted.BuildNodes()
	if err := applyNodes(ctx, client, nodes); err != nil {
		return nil, err
	}
	if err := waitNodesReady(ctx, client, nodes); err != nil {
		return nil, err
	}
	if real != nil {
		if err := real.waitReady(ctx, client); err != nil {
			return nil, err
		}
	}
	return plane, waitForServiceAccount(ctx, client)
}

// waitForPort returns when something listens on a loopback port of the thread's network.
func waitForPort(ctx context.Context, thread *machine.Thread, port int) error {
	for {
		connection, err := thread.Dial(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return connection.Close()
		}
		if !pause(ctx) {
			return err
		}
	}
}

// waitForAPI returns when the API server says that it is ready.
func waitForAPI(ctx context.Context, client kubernetes.Interface) error {
	for {
		_, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		if err == nil {
			return nil
		}
		if !pause(ctx) {
			return fmt.Errorf("waiting for the API server: %w", err)
		}
	}
}

// waitForServiceAccount returns when pods can be created: they need a ServiceAccount, which the
// controller-manager makes some time after the API server is ready.
func waitForServiceAccount(ctx context.Context, client kubernetes.Interface) error {
	for {
		_, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		if err == nil {
			return nil
		}
		if !pause(ctx) {
			return fmt.Errorf("waiting for the ServiceAccount default: %w", err)
		}
	}
}
