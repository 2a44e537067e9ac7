package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"berth.dev/e2e/cluster/fleet"
)

// realNodeOptions is the flags of `up` for the real node.
type realNodeOptions struct {
	wanted    bool
	name      string
	gpus      int
	product   string
	memory    string
	labels    []string
	images    []string
	allLabels map[string]string
	resource  string
}

func (o *realNodeOptions) addFlags(flags *pflag.FlagSet) {
	flags.BoolVar(&o.wanted, "real-node", false, "add a node that really runs pods: containerd, kubelet, kube-proxy and cluster DNS; needs root")
	flags.StringVar(&o.name, "real-node-name", "real", "name of the real node")
	flags.IntVar(&o.gpus, "real-gpus", 4, "how many GPUs the real node says that it has; 0 is none")
	flags.StringVar(&o.product, "real-gpu-product", "NVIDIA-L4", "their product, as GPU Feature Discovery writes it")
	flags.StringVar(&o.memory, "real-gpu-memory", "23034Mi", "memory of each")
	flags.StringArrayVar(&o.labels, "real-label", nil, "NAME=VALUE, one more label for the real node; may be repeated")
	flags.StringArrayVar(&o.images, "image", nil, "tarball of an image for the real node; may be repeated")
}

// check completes the options.
func (o *realNodeOptions) check() error {
	if !o.wanted {
		if len(o.images) > 0 {
			return errors.New("--image is for the real node; give --real-node too")
		}
		return nil
	}
	if faults := validation.IsDNS1123Subdomain(o.name); len(faults) > 0 {
		return fmt.Errorf("--real-node-name %q: %s", o.name, strings.Join(faults, "; "))
	}
	o.allLabels = map[string]string{}
	if o.gpus > 0 {
		gpu, err := fleet.NewGPU("nvidia", o.product, o.gpus, o.memory)
		if err != nil {
			return fmt.Errorf("--real-gpu-product, --real-gpu-memory: %w", err)
		}
		o.resource = string(gpu.ResourceName())
		maps.Copy(o.allLabels, gpu.Labels())
	}
	for _, label := range o.labels {
		name, value, found := strings.Cut(label, "=")
		if !found || len(validation.IsQualifiedName(name)) > 0 || len(validation.IsValidLabelValue(value)) > 0 {
			return fmt.Errorf("--real-label %s: must be NAME=VALUE", label)
		}
		o.allLabels[name] = value
	}
	for _, image := range o.images {
		if _, err := os.Stat(image); err != nil {
			return fmt.Errorf("--image: %w", err)
		}
	}
	return nil
}
