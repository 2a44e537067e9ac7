package fleet

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// amdProduct is what AMD's node labeller reads of a GPU from the driver.
type amdProduct struct {
	deviceID     string
	computeUnits int
}

// amdProducts are the AMD GPUs that fleets can have, by the name that the labeller writes.
var amdProducts = map[string]amdProduct{
	"AMD_Instinct_MI210":      {"740f", 104},
	"AMD_Instinct_MI250X":     {"7408", 110},
	"AMD_Instinct_MI300X_OAM": {"74a1", 304},
	"AMD_Instinct_MI325X_OAM": {"74a5", 304},
}

func amdProductNames() string {
	return strings.Join(slices.Sorted(maps.Keys(amdProducts)), ", ")
}

// amdLabels are what AMD's node labeller sets: each property under amd.com, under its older name beta.amd.com,
// and there once more with the number of GPUs that have it.
func amdLabels(g *GPU) map[string]string {
	product := amdProducts[g.Product]
	labels := map[string]string{}
	for property, value := range map[string]string{
		"gpu.product-name": g.Product,
		"gpu.device-id":    product.deviceID,
		"gpu.family":       "AI",
		"gpu.cu-count":     strconv.Itoa(product.computeUnits),
		"gpu.simd-count":   strconv.Itoa(4 * product.computeUnits),
		// The labeller rounds: 196592 MiB are written as 192G.
		"gpu.vram":           fmt.Sprintf("%.0fG", math.Round(float64(g.Memory.mebibytes())/1024)),
		"gpu.driver-version": "6.12.12",
	} {
		labels["amd.com/"+property] = value
		labels["beta.amd.com/"+property] = value
		labels["beta.amd.com/"+property+"."+value] = strconv.Itoa(g.Count)
	}
	return labels
}
