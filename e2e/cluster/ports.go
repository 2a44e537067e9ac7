package main

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports are taken below the range that the kernel gives to outgoing connections, so that none of those
// takes a port between our choice and the component's start.
const (
	firstPort = 20000
	lastPort  = 32000
)

// ports hands out loopback ports that nobody listens on, and reserves them among all berth-cluster
// processes of this network namespace while this process lives.
type ports struct {
	reserved []net.Listener
}

// take finds a free port. The reservation is an abstract socket named after the port: unlike a file, it is
// gone with the process, however that ends.
func (p *ports) take() (int, error) {
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		reservation, err := net.Listen("unix", fmt.Sprintf("@berth-cluster/port/%d", port))
		if err != nil {
			continue // another cluster has it
		}
		probe, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			_ = reservation.Close()
			continue // something else listens there
		}
		_ = probe.Close()
		p.reserved = append(p.reserved, reservation)
		return port, nil
	}
	return 0, fmt.Errorf("no free loopback port between %d and %d", firstPort, lastPort)
}
