package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"berth.dev/e2e/cluster/machine"
	"berth.dev/e2e/cluster/node"
)

const (
	// restartPause is how long a service that died stays away, as systemd would have it.
	restartPause = time.Second
	// quickDeaths in a row, each within quickDeath of the start, mean that a service cannot run.
	quickDeaths = 5
	quickDeath  = 5 * time.Second
)

// powerOn lets the API server be reached from outside, and starts the node, with containerd and its images,
// then all other services. They need not wait for the API server: they ask until it is there.
func (r *realNode) powerOn(apiPort int) error {
	api := fmt.Sprintf("127.0.0.1:%d", apiPort)
	var err error
	if r.listener, err = net.Listen("tcp", api); err != nil {
		return err
	}
	go r.processes.thread.Forward(r.listener, api)
	return r.boot()
}

// boot starts the machine and everything in it, and again when it dies.
func (r *realNode) boot() error {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.stopping {
		return nil
	}
	log, err := os.OpenFile(filepath.Join(r.processes.logDir, "machine.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
	if err != nil {
		return err
	}
	defer log.Close()
	// Those of the last boot would be taken for containers that run.
	if err := errors.Join(machine.RemoveCgroups(r.config.ID), machine.MakeCgroups(r.config.ID)); err != nil {
		return err
	}
	m, err := machine.Boot(r.processes.thread, r.config.Machine(), log)
	if err != nil {
		return err
	}
	r.machine = m
	r.state.Boots++
	r.state.Init = m.PID
	r.state.Services = map[string]int{}
	if err := r.state.write(r.config.Dir); err != nil {
		return err
	}
	r.services.Go(func() { r.keep(m, r.config.Containerd()) })
	go r.bootServices(m)
	go func() {
		<-m.Ended
		r.services.Wait()
		m.Inside.End()
		if err := r.boot(); err != nil {
			r.fail(fmt.Errorf("the real node does not come back: %w", err))
		}
	}()
	return nil
}

// bootServices waits for containerd, and starts what needs it.
func (r *realNode) bootServices(m *machine.Machine) {
	if err := r.waitForContainerd(m); err != nil {
		if !r.over(m) {
			r.fail(err)
		}
		return
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.stopping || r.machine != m {
		return
	}
	for _, service := range r.config.Services() {
		r.services.Go(func() { r.keep(m, service) })
	}
}

// waitForContainerd returns when containerd answers and, the first time, has all images.
func (r *realNode) waitForContainerd(m *machine.Machine) error {
	for {
		err := m.Inside.Do(func() error {
			connection, err := net.Dial("unix", node.ContainerdSocket)
			if err == nil {
				_ = connection.Close()
			}
			return err
		})
		if err == nil {
			break
		}
		select {
		case <-m.Ended:
			return errors.New("the real node died while it started")
		case <-time.After(20 * time.Millisecond):
		}
	}
	for _, image := range r.images {
		if err := importImage(m, image); err != nil {
			return err
		}
	}
	r.images = nil // they are on its disk
	return nil
}

// importImage gives an image to the node's containerd.
func importImage(m *machine.Machine, tarball string) error {
	file, err := os.Open(tarball)
	if err != nil {
		return err
	}
	defer file.Close()
	var output strings.Builder
	command := exec.Command("/usr/bin/ctr", "--address", node.ContainerdSocket, "--namespace", "k8s.io", "images", "import", "-")
	command.Stdin = file
	command.Stdout, command.Stderr = &output, &output
	if err := m.Inside.Do(command.Start); err != nil {
		return err
	}
	if err := command.Wait(); err != nil {
		return fmt.Errorf("cannot import %s: %w: %s", tarball, err, output.String())
	}
	return nil
}

// keep runs a service, and again when it ends, as long as the machine runs.
func (r *realNode) keep(m *machine.Machine, service node.Service) {
	for deaths := 0; ; {
		begun := time.Now()
		// Without a signal for the death of this process: it would come too early for a process in another
		// process namespace, and the machine ends with us anyway.
		started, err := r.processes.launch(m.Inside, service.Name, service.Program, service.Args, 0)
		if err != nil {
			if !r.over(m) {
				r.fail(err)
			}
			return
		}
		r.note(service.Name, started.pid)
		<-started.ended
		r.note(service.Name, 0)
		if time.Since(begun) > quickDeath {
			deaths = 0
		}
		if deaths++; deaths == quickDeaths {
			r.fail(started.unexpected())
			return
		}
		select {
		case <-m.Ended:
			return
		case <-time.After(restartPause):
		}
		if r.over(m) {
			return
		}
		fmt.Fprintf(os.Stderr, "berth-cluster: %s on the real node ended (%s) and is started again\n", service.Name, started.outcome)
	}
}

// over says whether a machine is not the one that runs now.
func (r *realNode) over(m *machine.Machine) bool {
	select {
	case <-m.Ended:
		return true
	default:
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.stopping
}

// note writes down which process a service is; 0 is none.
func (r *realNode) note(service string, pid int) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if pid == 0 {
		delete(r.state.Services, service)
	} else {
		r.state.Services[service] = pid
	}
	if err := r.state.write(r.config.Dir); err != nil && !r.stopping {
		r.fail(err)
	}
}
