package node

import (
	"fmt"
	"os"
	"strings"
)

// programs are what a real node needs of this machine. install-real-node.sh installs them.
var programs = []string{
	"/usr/bin/containerd", "/usr/bin/ctr", "/usr/bin/containerd-shim-runc-v2", "/usr/sbin/runc", "/usr/sbin/nft",
	pluginDir + "/loopback", pluginDir + "/ptp", pluginDir + "/host-local",
}

// CheckRequirements says why there can be no real node on this machine, if there can be none.
func CheckRequirements() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("a real node (--real-node) needs root: namespaces, mounts, containerd; run it as root, or leave it out")
	}
	var missing []string
	for _, program := range programs {
		if _, err := os.Stat(program); err != nil {
			missing = append(missing, program)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("a real node (--real-node) needs %s; e2e/cluster/install-real-node.sh installs them", strings.Join(missing, ", "))
	}
	return nil
}
