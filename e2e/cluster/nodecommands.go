package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"berth.dev/e2e/cluster/machine"
)

// runNode disturbs a real node, or runs a command on it.
func runNode(args []string) error {
	flags := pflag.NewFlagSet("node", pflag.ContinueOnError)
	dir := flags.String("dir", "", "the cluster's folder")
	kill := flags.Bool("kill", false, "restart: with SIGKILL instead of SIGTERM")
	timeout := flags.Duration("timeout", time.Minute, "how long it may take")
	if err := flags.Parse(args); err != nil {
		return err
	}
	words := flags.Args()
	if dash := flags.ArgsLenAtDash(); dash >= 0 {
		words = words[:dash]
	}
	if *dir == "" || len(words) == 0 {
		return errors.New("node needs what to do (restart, pause, resume, reboot or exec) and --dir")
	}
	state, err := readNodeState(*dir)
	if err != nil {
		return err
	}
	switch {
	case words[0] == "exec" && len(words) == 1 && flags.NArg() > 1:
		return enterNode(state, flags.Args()[1:])
	case words[0] == "reboot" && len(words) == 1:
		return restart(*dir, *timeout, state.Init, syscall.SIGKILL, func(now *nodeState) bool {
			return now.Boots > state.Boots && len(now.Services) == len(state.Services)
		})
	case len(words) != 2:
		return fmt.Errorf("node %s: see berth-cluster --help", words[0])
	}
	service := words[1]
	pid, runs := state.Services[service]
	if !runs {
		return fmt.Errorf("no service %q runs; there are %s", service, strings.Join(slices.Sorted(maps.Keys(state.Services)), ", "))
	}
	switch words[0] {
	case "restart":
		signal := syscall.SIGTERM
		if *kill {
			signal = syscall.SIGKILL
		}
		return restart(*dir, *timeout, pid, signal, func(now *nodeState) bool {
			return now.Services[service] != 0 && now.Services[service] != pid
		})
	case "pause":
		return syscall.Kill(pid, syscall.SIGSTOP)
	case "resume":
		return syscall.Kill(pid, syscall.SIGCONT)
	}
	return fmt.Errorf("node %s: must be restart, pause, resume, reboot or exec", words[0])
}

// restart signals a process and waits until `up` has started what comes in its place.
func restart(dir string, timeout time.Duration, pid int, signal syscall.Signal, done func(*nodeState) bool) error {
	if err := syscall.Kill(pid, signal); err != nil {
		return err
	}
	for until := time.Now().Add(timeout); time.Now().Before(until); time.Sleep(pollPause / 2) {
		now, err := readNodeState(dir)
		if err != nil {
			return err
		}
		if done(now) {
			return nil
		}
	}
	return fmt.Errorf("it did not come back within %s", timeout)
}

// enterNode becomes a command on the node, in the folder /.
func enterNode(state *nodeState, command []string) error {
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return err
	}
	arguments := append([]string{
		nsenter, fmt.Sprintf("--target=%d", state.Init), "--net", "--uts", "--ipc", "--pid", "--mount", "--",
	}, command...)
	return syscall.Exec(nsenter, arguments, append(os.Environ(), "CONTAINERD_ADDRESS=/run/containerd/containerd.sock", "CONTAINERD_NAMESPACE=k8s.io"))
}

// runForward lets an address of a cluster's network be reached on the loopback, until it is stopped.
func runForward(args []string) error {
	flags := pflag.NewFlagSet("forward", pflag.ContinueOnError)
	dir := flags.String("dir", "", "the cluster's folder")
	to := flags.String("to", "", "IP:PORT of a pod or of a Service")
	if err := flags.Parse(args); err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(*to)
	if *dir == "" || err != nil || net.ParseIP(host) == nil {
		return errors.New("forward needs --dir and --to IP:PORT; names are not looked up")
	}
	state, err := readNodeState(*dir)
	if err != nil {
		return err
	}
	thread, err := machine.NewThread(func() error { return machine.EnterNetwork(state.Init) })
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	err = json.NewEncoder(os.Stdout).Encode(map[string]string{"address": listener.Addr().String()})
	if err != nil {
		return err
	}
	thread.Forward(listener, *to)
	return nil
}
