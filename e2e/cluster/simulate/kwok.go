// Package simulate plays the kubelets of simulated nodes with KWOK: what nodes and pods do is in stages/*.yaml.
package simulate

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"sigs.k8s.io/kwok/pkg/apis/internalversion"
	kwokconfig "sigs.k8s.io/kwok/pkg/config"
	"sigs.k8s.io/kwok/pkg/kwok/controllers"
	kwoklog "sigs.k8s.io/kwok/pkg/log"
	kwokclient "sigs.k8s.io/kwok/pkg/utils/client"

	"berth.dev/e2e/cluster/fleet"
)

// stageFiles say what simulated nodes and pods do, one KWOK Stage a file.
//
//go:embed stages/*.yaml
var stageFiles embed.FS

// Run plays the kubelets of all simulated nodes, until it is told to stop.
//
// It runs KWOK's controllers and leaves KWOK's own command out: that one brings the server that answers
// logs and exec, which needs a newer Kubernetes than the one linked here.
func Run() int {
	flags := pflag.NewFlagSet("kwok", pflag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "kubeconfig of the cluster")
	cidr := flags.String("cidr", "10.244.0.1/16", "where pods get their addresses from")
	leaseSeconds := flags.Uint("node-lease-duration-seconds", 40, "a node's lease, renewed four times as often")
	verbose := flags.Bool("verbose", false, "say which stage is played for which object, and why one is skipped")
	_ = flags.Parse(os.Args[1:])

	level := kwoklog.LevelInfo
	if *verbose {
		level = kwoklog.LevelDebug
	}
	logger := kwoklog.NewLogger(os.Stderr, level)
	ctx, stop := signal.NotifyContext(kwoklog.NewContext(context.Background(), logger), os.Interrupt, syscall.SIGTERM)
	defer stop()

	config, err := kwokControllers(*kubeconfig)
	if err != nil {
		logger.Error("cannot set up KWOK", "err", err)
		return 1
	}
	config.CIDR = *cidr
	config.NodeLeaseDurationSeconds = *leaseSeconds
	controller, err := controllers.NewController(config)
	if err == nil {
		err = controller.Start(ctx)
	}
	if err != nil {
		logger.Error("cannot start KWOK", "err", err)
		return 1
	}
	<-ctx.Done()
	return 0
}

// kwokControllers is what KWOK's controllers need: clients, stages, and enough workers for a thousand nodes.
func kwokControllers(kubeconfig string) (controllers.Config, error) {
	var none controllers.Config
	stages, err := loadStages()
	if err != nil {
		return none, err
	}
	clients, err := kwokclient.NewClientset("", kubeconfig)
	if err != nil {
		return none, err
	}
	config, err := clients.ToRESTConfig()
	if err != nil {
		return none, err
	}
	typed, typedErr := kubernetes.NewForConfig(config)
	dynamic, dynamicErr := clients.ToDynamicClient()
	mapper, mapperErr := clients.ToRESTMapper()
	plain, plainErr := rest.RESTClientFor(config)
	if err := errors.Join(typedErr, dynamicErr, mapperErr, plainErr); err != nil {
		return none, err
	}
	id, err := controllers.Identity()
	if err != nil {
		return none, err
	}
	return controllers.Config{
		Clock:                             clock.RealClock{},
		TypedClient:                       typed,
		DynamicClient:                     dynamic,
		RESTMapper:                        mapper,
		RESTClient:                        plain,
		ImpersonatingTypedClient:          clients.ToImpersonatingTypedClient(),
		ImpersonatingDynamicClient:        clients.ToImpersonatingDynamicClient(),
		ManageNodesWithAnnotationSelector: fleet.FakeNodeAnnotation + "=" + fleet.FakeNodeValue,
		LocalStages:                       stages,
		PodPlayStageParallelism:           16,
		NodePlayStageParallelism:          8,
		NodeLeaseParallelism:              8,
		PodsOnNodeSyncParallelism:         4,
		ID:                                id,
	}, nil
}

// loadStages reads the embedded stages, by the kind of object that they are for.
func loadStages() (map[internalversion.StageResourceRef][]*internalversion.Stage, error) {
	files, err := stageFiles.ReadDir("stages")
	if err != nil {
		return nil, err
	}
	stages := map[internalversion.StageResourceRef][]*internalversion.Stage{}
	for _, file := range files {
		text, err := stageFiles.ReadFile("stages/" + file.Name())
		if err != nil {
			return nil, err
		}
		stage, err := kwokconfig.UnmarshalWithType[*internalversion.Stage](text)
		if err != nil {
			return nil, fmt.Errorf("stages/%s: %w", file.Name(), err)
		}
		stages[stage.Spec.ResourceRef] = append(stages[stage.Spec.ResourceRef], stage)
	}
	return stages, nil
}
