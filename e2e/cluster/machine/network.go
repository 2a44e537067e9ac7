package machine

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dialTimeout is for connections within this very machine, which take no time.
const dialTimeout = 5 * time.Second

// IsolateNetwork gives the calling thread a network of its own: a loopback, and a bridge that nothing is
// connected to, with the machine's address. Nothing leads out of it.
//
// The route to the virtual addresses is needed although nothing is there: a local process finds a route
// first, and only then is the destination rewritten to one that exists.
func IsolateNetwork(address, virtualAddresses string) func() error {
	return func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("cannot make a network namespace: %w", err)
		}
		loopback, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("no loopback: %w", err)
		}
		if err := netlink.LinkSetUp(loopback); err != nil {
			return fmt.Errorf("cannot switch the loopback on: %w", err)
		}
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "berth0"}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return fmt.Errorf("cannot add a bridge: %w", err)
		}
		own, err := netlink.ParseAddr(address + "/32")
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(bridge, own); err != nil {
			return fmt.Errorf("cannot set the address %s: %w", address, err)
		}
		if err := netlink.LinkSetUp(bridge); err != nil {
			return fmt.Errorf("cannot switch the bridge on: %w", err)
		}
		destination, err := netlink.ParseIPNet(virtualAddresses)
		if err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: bridge.Index, Dst: destination, Scope: netlink.SCOPE_LINK}); err != nil {
			return fmt.Errorf("cannot add a route to %s: %w", virtualAddresses, err)
		}
		return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) // that of this thread's network
	}
}

// Dial connects from the thread's network. The address must be an IP address with a port: looking a name up
// would be done by other threads.
func (t *Thread) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var connection net.Conn
	err := t.Do(func() (err error) {
		dialer := net.Dialer{Timeout: dialTimeout}
		connection, err = dialer.DialContext(ctx, network, address)
		return err
	})
	return connection, err
}

// Forward answers every connection to the listener with one from the thread's network to the address,
// until the listener is closed.
func (t *Thread) Forward(listener net.Listener, address string) {
	for {
		outer, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer outer.Close()
			inner, err := t.Dial(context.Background(), "tcp", address)
			if err != nil {
				return // as if nobody listened
			}
			defer inner.Close()
			join(outer.(*net.TCPConn), inner.(*net.TCPConn))
		}()
	}
}

// join copies both ways until both ends have said all.
func join(a, b *net.TCPConn) {
	var group sync.WaitGroup
	pass := func(to, from *net.TCPConn) {
		_, err := io.Copy(to, from)
		if err != nil {
			// A connection that broke is broken on both sides.
			_ = to.Close()
			_ = from.Close()
			return
		}
		_ = to.CloseWrite()
	}
	group.Go(func() { pass(a, b) })
	group.Go(func() { pass(b, a) })
	group.Wait()
}
