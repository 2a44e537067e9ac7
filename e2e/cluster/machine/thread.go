// Package machine is a machine within the machine: a network, processes and mounts of its own, which the
// kernel takes away with the last of its processes, whatever ends them.
//
//	thread.go   an OS thread that is in other namespaces than the rest of the process
//	network.go  the network: loopback, one address, no way out
//	init.go     the machine's first process, and its mounts
//	boot.go     starting it, and starting processes in it
//	cgroup.go   what of it the kernel does not take away by itself
//	records.go  who is to clean up after whom
package machine

import (
	"errors"
	"runtime"
	"sync"
)

// Thread is an OS thread that runs what it is given, one thing after the other. What runs on it, and the
// processes and sockets made on it, are in the thread's namespaces.
//
// The kernel kills a child that asked for it (Pdeathsig) when the thread that started it ends, not when the
// process does, and Go ends idle threads as it likes: that too asks for a thread that stays.
type Thread struct {
	work  chan func()
	ended chan struct{}
	once  sync.Once
}

// ErrEnded says that a thread does nothing any more.
var ErrEnded = errors.New("the thread has ended")

// NewThread starts a thread that begins with setup, unless that is nil.
func NewThread(setup func() error) (*Thread, error) {
	t := &Thread{work: make(chan func()), ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Never unlocked: Go ends the thread together with this goroutine, and lends it to no other.
		runtime.LockOSThread()
		if setup != nil {
			if err := setup(); err != nil {
				started <- err
				return
			}
		}
		close(started)
		for {
			select {
			case work := <-t.work:
				work()
			case <-t.ended:
				return
			}
		}
	}()
	return t, <-started
}

// Do runs something on the thread and returns what it returns.
func (t *Thread) Do(something func() error) error {
	result := make(chan error, 1)
	select {
	case t.work <- func() { result <- something() }:
		return <-result
	case <-t.ended:
		return ErrEnded
	}
}

// End ends the thread, and with it what only it holds: namespaces, and children that asked for it.
func (t *Thread) End() { t.once.Do(func() { close(t.ended) }) }
