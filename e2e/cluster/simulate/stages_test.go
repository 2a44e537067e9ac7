package simulate

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kwok/pkg/apis/internalversion"
	"sigs.k8s.io/kwok/pkg/utils/lifecycle"
)

// When two stages match, KWOK throws a die. So for every state and behaviour, there must be one stage at
// most: the one named here.
func TestOneStagePlays(t *testing.T) {
	pods := podLifecycle(t)
	const calm, anyOther = "", "*"
	for state, expected := range map[string]map[string]string{
		"bound": {
			"image-pull": "pod-blocked", "config-error": "pod-blocked", "unexpected-admission": "pod-refused",
			anyOther: "pod-start",
		},
		"blocked": {
			"image-pull": "", "config-error": "", "unexpected-admission": "",
			anyOther: "pod-start",
		},
		"loading": {
			"never-ready": "pod-hold", "crash": "pod-crash", "crash-loop": "pod-crash", "evict": "pod-evict",
			"complete": "pod-complete",
			anyOther:   "pod-ready",
		},
		"loaded": {
			"never-ready": "pod-unready", "crash": "pod-crash", "crash-loop": "pod-crash", "evict": "pod-evict",
			"complete": "pod-complete",
			anyOther:   "pod-gates-open",
		},
		"ready": {
			"never-ready": "pod-unready", "crash": "pod-crash", "crash-loop": "pod-crash", "evict": "pod-evict",
			"complete": "pod-complete",
			anyOther:   "",
		},
		"ready, gate shut": {
			"never-ready": "pod-unready", "crash": "pod-crash", "crash-loop": "pod-crash", "evict": "pod-evict",
			"complete": "pod-complete",
			anyOther:   "pod-gates-shut",
		},
		"backing off": {
			"crash": "", "crash-loop": "", "image-pull": "", "config-error": "", "unexpected-admission": "",
			"evict":  "pod-evict",
			anyOther: "pod-start",
		},
		"failed":                {anyOther: ""},
		"deleted":               {"stuck-terminating": "", anyOther: "pod-delete"},
		"deleted, finalizer":    {"stuck-terminating": "", anyOther: "pod-terminate"},
		"terminated, finalizer": {anyOther: ""},
	} {
		for _, behaviour := range []string{
			calm, "never-ready", "crash", "crash-loop", "evict", "complete",
			"image-pull", "config-error", "unexpected-admission", "stuck-terminating",
		} {
			want, named := expected[behaviour]
			if !named {
				want = expected[anyOther]
			}
			for _, asLabel := range []bool{false, true} {
				pod := podIn(t, state)
				if behaviour != calm {
					set := map[string]string{"simulate.berth-e2e.dev/behaviour": behaviour}
					if asLabel {
						pod.Labels = set
					} else {
						pod.Annotations = set
					}
				}
				if got := matching(t, pods, pod); len(got) > 1 || (len(got) == 1) != (want != "") || len(got) == 1 && got[0] != want {
					t.Errorf("%s, behaviour %q: stages %v, expected %q", state, behaviour, got, want)
				}
			}
		}
	}
}

// A Job's pods end by themselves; those of others do not.
func TestJobsComplete(t *testing.T) {
	pod := podIn(t, "loading")
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "fill"}}
	if got := matching(t, podLifecycle(t), pod); len(got) != 1 || got[0] != "pod-complete" {
		t.Errorf("stages %v", got)
	}
}

func podLifecycle(t *testing.T) lifecycle.Lifecycle {
	t.Helper()
	stages, err := loadStages()
	if err != nil {
		t.Fatal(err)
	}
	pods, err := lifecycle.NewLifecycle(stages[internalversion.StageResourceRef{APIGroup: "v1", Kind: "Pod"}])
	if err != nil {
		t.Fatal(err)
	}
	return pods
}

func matching(t *testing.T, stages lifecycle.Lifecycle, pod *corev1.Pod) []string {
	t.Helper()
	event := &lifecycle.Event{Labels: pod.Labels, Annotations: pod.Annotations, Data: pod}
	matched, err := stages.ListAllPossible(context.Background(), event)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, stage := range matched {
		names = append(names, stage.Name())
	}
	return names
}

// podIn is a pod on a simulated node in one of the states that it goes through.
func podIn(t *testing.T, state string) *corev1.Pod {
	t.Helper()
	now := metav1.Now()
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}
	waiting := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
	}
	pod := &corev1.Pod{Spec: corev1.PodSpec{NodeName: "h100-000"}}
	is := func(phase corev1.PodPhase, containers corev1.ContainerState, containersReady, ready corev1.ConditionStatus) {
		pod.Status = corev1.PodStatus{
			Phase:     phase,
			StartTime: &now,
			Conditions: []corev1.PodCondition{
				{Type: corev1.ContainersReady, Status: containersReady},
				{Type: corev1.PodReady, Status: ready},
			},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "engine", State: containers}},
		}
	}
	switch state {
	case "bound":
		pod.Status.Phase = corev1.PodPending
	case "blocked":
		is(corev1.PodPending, waiting("ImagePullBackOff"), "False", "False")
	case "loading":
		is(corev1.PodRunning, running, "False", "False")
	case "loaded":
		is(corev1.PodRunning, running, "True", "False")
	case "ready":
		is(corev1.PodRunning, running, "True", "True")
	case "ready, gate shut":
		is(corev1.PodRunning, running, "True", "True")
		pod.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/gate"}}
	case "backing off":
		is(corev1.PodRunning, waiting("CrashLoopBackOff"), "False", "False")
	case "failed":
		is(corev1.PodFailed, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1}}, "False", "False")
	case "deleted":
		is(corev1.PodRunning, running, "True", "True")
		pod.DeletionTimestamp = &now
	case "deleted, finalizer":
		is(corev1.PodRunning, running, "True", "True")
		pod.DeletionTimestamp, pod.Finalizers = &now, []string{"example.com/hold"}
	case "terminated, finalizer":
		is(corev1.PodFailed, corev1.ContainerState{}, "False", "False")
		pod.DeletionTimestamp, pod.Finalizers = &now, []string{"example.com/hold"}
	default:
		t.Fatalf("no state %q", state)
	}
	return pod
}
