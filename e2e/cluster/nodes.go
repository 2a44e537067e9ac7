package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/retry"

	"berth.dev/e2e/cluster/fleet"
)

const (
	// nodeWriters is how many nodes are written at the same time.
	nodeWriters = 32
	// pollPause is the time between two looks at something that is about to happen.
	pollPause = 100 * time.Millisecond
)

// runNodesApply brings the nodes of a fleet to a running cluster, and returns when they are Ready.
func runNodesApply(ctx context.Context, args []string) error {
	flags := pflag.NewFlagSet("nodes apply", pflag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", os.Getenv("KUBECONFIG"), "kubeconfig of the cluster")
	fleetFile := flags.String("fleet", "", "fleet file with the nodes")
	timeout := flags.Duration("timeout", time.Minute, "how long the nodes have to become Ready")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *kubeconfig == "" || *fleetFile == "" {
		return errors.New("nodes apply needs --kubeconfig and --fleet")
	}
	wanted, err := fleet.Load(*fleetFile)
	if err != nil {
		return err
	}
	client, err := connect(*kubeconfig)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	nodes := wanted.BuildNodes()
	if err := applyNodes(ctx, client, nodes); err != nil {
		return err
	}
	return waitNodesReady(ctx, client, nodes)
}

// connect is a client that does not slow itself down.
func connect(kubeconfig string) (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	config.UserAgent = "berth-cluster/" + rest.DefaultKubernetesUserAgent()
	return kubernetes.NewForConfig(config)
}

// applyNodes creates nodes, or brings those that exist to what the fleet says. Labels, annotations, taints
// and resources of a node that the fleet does not name are left alone.
func applyNodes(ctx context.Context, client kubernetes.Interface, nodes []*corev1.Node) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(nodeWriters)
	for _, node := range nodes {
		group.Go(func() error {
			// A kubelet registers its node together with the status, and so may we.
			_, err := client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) {
				err = updateNode(ctx, client, node)
			}
			if err != nil {
				return fmt.Errorf("node %s: %w", node.Name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

func updateNode(ctx context.Context, client kubernetes.Interface, wanted *corev1.Node) error {
	nodes := client.CoreV1().Nodes()
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		node, err := nodes.Get(ctx, wanted.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		node.Labels = merged(node.Labels, wanted.Labels)
		node.Annotations = merged(node.Annotations, wanted.Annotations)
		for _, taint := range wanted.Spec.Taints {
			node.Spec.Taints = withTaint(node.Spec.Taints, taint)
		}
		if node, err = nodes.Update(ctx, node, metav1.UpdateOptions{}); err != nil {
			return err
		}
		node.Status.Capacity = merged(node.Status.Capacity, wanted.Status.Capacity)
		node.Status.Allocatable = merged(node.Status.Allocatable, wanted.Status.Allocatable)
		_, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
		return err
	})
}

// merged is the present map with the wanted values.
func merged[M ~map[K]V, K comparable, V any](present, wanted M) M {
	if present == nil {
		return wanted
	}
	maps.Copy(present, wanted)
	return present
}

// withTaint sets a taint in the place of one with the same key and effect.
func withTaint(taints []corev1.Taint, taint corev1.Taint) []corev1.Taint {
	for i := range taints {
		if taints[i].MatchTaint(&taint) {
			taints[i].Value = taint.Value
			return taints
		}
	}
	return append(taints, taint)
}

// waitNodesReady returns when KWOK has made every one of the nodes Ready. A node that is told not to be
// Ready is not waited for.
func waitNodesReady(ctx context.Context, client kubernetes.Interface, nodes []*corev1.Node) error {
	for {
		list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			return fmt.Errorf("while waiting for the nodes: %w", err)
		}
		ready := map[string]bool{}
		for i := range list.Items {
			ready[list.Items[i].Name] = isReady(&list.Items[i])
		}
		waiting := ""
		for _, node := range nodes {
			if !ready[node.Name] && !staysAway(node) {
				waiting = node.Name
				break
			}
		}
		if waiting == "" {
			return nil
		}
		if !pause(ctx) {
			return fmt.Errorf("node %s is not Ready in time; kwok.log says what KWOK did", waiting)
		}
	}
}

func isReady(node *corev1.Node) bool {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// staysAway says whether a node is told not to be Ready, or has no KWOK.
func staysAway(node *corev1.Node) bool {
	const ready = "simulate.berth-e2e.dev/ready"
	return node.Annotations[ready] == "false" || node.Labels[ready] == "false" ||
		node.Annotations[fleet.FakeNodeAnnotation] != fleet.FakeNodeValue
}

// pause waits a moment, and says whether there is time left.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pollPause):
		return true
	}
}
