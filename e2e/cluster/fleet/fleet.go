// Package fleet describes simulated GPU nodes in YAML and turns the description into Kubernetes Nodes.
package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	strictjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Fleet is the nodes of a cluster, as a fleet file describes them.
type Fleet struct {
	Nodes []Group `json:"nodes"`
}

// Group is a number of nodes that differ in their names only.
type Group struct {
	// Name is the prefix of the nodes' names: h100 gives h100-000, h100-001 and so on.
	Name string `json:"name"`
	// Count is how many nodes there are.
	Count int `json:"count"`
	// GPU is what each node holds. Without it they are CPU nodes.
	GPU *GPU `json:"gpu,omitempty"`

	// CPU, Memory and EphemeralStorage are a node's capacity. All of it is allocatable.
	CPU              Amount `json:"cpu"`
	Memory           Amount `json:"memory"`
	EphemeralStorage Amount `json:"ephemeralStorage"`

	// Region and Zone become the topology.kubernetes.io labels, Rack becomes topology.berth.dev/rack.
	Region string `json:"region,omitempty"`
	Zone   string `json:"zone,omitempty"`
	Rack   string `json:"rack,omitempty"`

	// Labels, Annotations and Taints come on top, and win over what the other fields lead to.
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Taints      []Taint           `json:"taints,omitempty"`
}

// GPU is the devices of one node, all alike.
type GPU struct {
	// Vendor is nvidia or amd.
	Vendor string `json:"vendor"`
	// Product is the product's name as the vendor's labels write it: NVIDIA-H100-80GB-HBM3,
	// AMD_Instinct_MI300X_OAM.
	Product string `json:"product"`
	// Count is how many a node has.
	Count int `json:"count"`
	// Memory is what one GPU has.
	Memory Amount `json:"memory"`
	// ComputeCapability is needed for NVIDIA products that this package does not know: "9.0".
	ComputeCapability string `json:"computeCapability,omitempty"`
}

// Taint is a node's taint.
type Taint struct {
	Key    string `json:"key"`
	Value  string `json:"value,omitempty"`
	Effect string `json:"effect"`
}

// Amount is a Kubernetes quantity, such as 2Ti or 192, with or without quotes.
type Amount struct {
	text string
}

// UnmarshalJSON keeps the text. It is checked later, where the error can say which field it is.
func (a *Amount) UnmarshalJSON(data []byte) error {
	if bytes.HasPrefix(data, []byte(`"`)) {
		return json.Unmarshal(data, &a.text)
	}
	a.text = string(data)
	return nil
}

// Quantity is the amount. It must have been checked by Parse.
func (a Amount) Quantity() resource.Quantity {
	return resource.MustParse(a.text)
}

// Load reads a fleet file.
func Load(path string) (*Fleet, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the fleet: %w", err)
	}
	fleet, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("fleet %s:\n%w", path, err)
	}
	return fleet, nil
}

// Parse reads a fleet, and says of every field that is wrong where it is and what it should be.
func Parse(text []byte) (*Fleet, error) {
	asJSON, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, err
	}
	fleet := &Fleet{}
	unknown, err := strictjson.UnmarshalStrict(asJSON, fleet)
	if err != nil {
		return nil, err
	}
	if len(unknown) > 0 {
		return nil, errors.Join(unknown...)
	}
	return fleet, fleet.check()
}

// check finds everything that is wrong with the fleet's values.
func (f *Fleet) check() error {
	var wrong problems
	if len(f.Nodes) == 0 {
		wrong.add("nodes", "at least one group of nodes is needed")
	}
	names := map[string]int{}
	for i, group := range f.Nodes {
		at := fmt.Sprintf("nodes[%d]", i)
		group.check(at, &wrong)
		if earlier, taken := names[group.Name]; taken {
			wrong.add(at+".name", "%q is the name of nodes[%d] already", group.Name, earlier)
		} else {
			names[group.Name] = i
		}
	}
	return errors.Join(wrong...)
}

func (g *Group) check(at string, wrong *problems) {
	if faults := validation.IsDNS1123Label(g.Name); len(faults) > 0 {
		wrong.add(at+".name", "%q: %s", g.Name, strings.Join(faults, "; "))
	}
	if g.Count < 1 || g.Count > maxGroup {
		wrong.add(at+".count", "%d: must be between 1 and %d", g.Count, maxGroup)
	}
	g.CPU.check(at+".cpu", wrong)
	g.Memory.check(at+".memory", wrong)
	g.EphemeralStorage.check(at+".ephemeralStorage", wrong)
	for i, taint := range g.Taints {
		switch taint.Effect {
		case "NoSchedule", "PreferNoSchedule", "NoExecute":
		default:
			wrong.add(fmt.Sprintf("%s.taints[%d].effect", at, i),
				"%q: must be NoSchedule, PreferNoSchedule or NoExecute", taint.Effect)
		}
	}
	if g.GPU != nil {
		g.GPU.check(at+".gpu", wrong)
	}
}

func (g *GPU) check(at string, wrong *problems) {
	if g.Count < 1 {
		wrong.add(at+".count", "%d: must be at least 1; leave gpu out for a CPU node", g.Count)
	}
	if faults := validation.IsValidLabelValue(g.Product); g.Product == "" || len(faults) > 0 {
		wrong.add(at+".product", "%q: must be the product's name as a label has it, such as NVIDIA-H100-80GB-HBM3", g.Product)
	}
	g.Memory.check(at+".memory", wrong)
	switch g.Vendor {
	case "nvidia":
		if _, err := capabilityOf(g); err != nil {
			wrong.add(at+".computeCapability", "%s", err)
		}
	case "amd":
		if _, known := amdProducts[g.Product]; !known {
			wrong.add(at+".product", "%q: not one of %s; add it to fleet/amd.go", g.Product, amdProductNames())
		}
	default:
		wrong.add(at+".vendor", "%q: must be nvidia or amd", g.Vendor)
	}
}

func (a Amount) check(at string, wrong *problems) {
	if a.text == "" {
		wrong.add(at, "is missing; it is a quantity such as 192 or 2Ti")
		return
	}
	quantity, err := resource.ParseQuantity(a.text)
	if err != nil || quantity.Sign() <= 0 {
		wrong.add(at, "%q: must be a quantity above zero, such as 192 or 2Ti", a.text)
	}
}

// problems collects what is wrong, each with the path of its field.
type problems []error

func (p *problems) add(at, format string, args ...any) {
	*p = append(*p, fmt.Errorf("%s: %s", at, fmt.Sprintf(format, args...)))
}
