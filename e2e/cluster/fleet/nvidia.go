package fleet

import (
	"fmt"
	"strconv"
	"strings"
)

// nvidiaCapabilities tells an NVIDIA GPU's compute capability by a word of its product's name. The first
// that fits counts.
var nvidiaCapabilities = []struct {
	word       string
	capability string
}{
	{"RTX-PRO-6000-Blackwell", "12.0"}, {"RTX-5090", "12.0"}, {"B300", "10.3"}, {"B200", "10.0"},
	{"H200", "9.0"}, {"H100", "9.0"}, {"H800", "9.0"}, {"H20", "9.0"}, {"GH200", "9.0"},
	{"L40S", "8.9"}, {"L40", "8.9"}, {"L4", "8.9"}, {"RTX-4090", "8.9"}, {"RTX-6000-Ada", "8.9"},
	{"A100", "8.0"}, {"A800", "8.0"}, {"A30", "8.0"},
	{"A10G", "8.6"}, {"A10", "8.6"}, {"A40", "8.6"}, {"A6000", "8.6"}, {"RTX-3090", "8.6"},
	{"T4", "7.5"}, {"V100", "7.0"},
}

// capability is an NVIDIA GPU's compute capability.
type capability struct{ major, minor int }

// capabilityOf is what the fleet says, or else what the product is known to have.
func capabilityOf(g *GPU) (capability, error) {
	text := g.ComputeCapability
	if text == "" {
		for _, known := range nvidiaCapabilities {
			if strings.Contains(g.Product, known.word) {
				text = known.capability
				break
			}
		}
	}
	if text == "" {
		return capability{}, fmt.Errorf("is missing, and the product %q is not known; say it, such as \"9.0\"", g.Product)
	}
	majorText, minorText, _ := strings.Cut(text, ".")
	major, majorErr := strconv.Atoi(majorText)
	minor, minorErr := strconv.Atoi(minorText)
	c := capability{major, minor}
	if majorErr != nil || minorErr != nil || c.family() == "undefined" {
		return capability{}, fmt.Errorf("%q: must be a compute capability from 7.0 to 12.x, such as \"9.0\"", text)
	}
	return c, nil
}

// family is the architecture's name, as GPU Feature Discovery derives it from the compute capability.
func (c capability) family() string {
	switch {
	case c.major == 7 && c.minor < 5:
		return "volta"
	case c.major == 7:
		return "turing"
	case c.major == 8 && c.minor < 9:
		return "ampere"
	case c.major == 8:
		return "ada-lovelace"
	case c.major == 9:
		return "hopper"
	case c.major == 10 || c.major == 12:
		return "blackwell"
	}
	return "undefined"
}

// nvidiaLabels are what GPU Feature Discovery sets on a node whose GPUs are neither shared nor divided.
func nvidiaLabels(g *GPU) map[string]string {
	compute, _ := capabilityOf(g) // checked when the fleet was parsed
	workstation := strings.Contains(g.Product, "RTX")
	labels := map[string]string{
		"gpu.present":          "true",
		"gpu.product":          g.Product,
		"gpu.memory":           strconv.FormatInt(g.Memory.mebibytes(), 10),
		"gpu.count":            strconv.Itoa(g.Count),
		"gpu.family":           compute.family(),
		"gpu.compute.major":    strconv.Itoa(compute.major),
		"gpu.compute.minor":    strconv.Itoa(compute.minor),
		"gpu.replicas":         "1",
		"gpu.sharing-strategy": "none",
		"gpu.mode":             "compute",
		"gpu.machine":          "Simulated",
		"mig.capable":          strconv.FormatBool(compute.canDivide() && !workstation),
		"mps.capable":          "false",
		"vgpu.present":         "false",

		"cuda.driver-version.full":     "570.172.08",
		"cuda.driver-version.major":    "570",
		"cuda.driver-version.minor":    "172",
		"cuda.driver-version.revision": "08",
		"cuda.runtime-version.full":    "12.8",
		"cuda.runtime-version.major":   "12",
		"cuda.runtime-version.minor":   "8",
	}
	if workstation {
		labels["gpu.mode"] = "graphics"
	}
	prefixed := make(map[string]string, len(labels))
	for key, value := range labels {
		prefixed["nvidia.com/"+key] = value
	}
	return prefixed
}

// canDivide says whether data centre GPUs of the architecture can be divided by MIG.
func (c capability) canDivide() bool {
	return c.major == 8 && c.minor == 0 || c.major >= 9
}
