#!/usr/bin/env bash
# Proves a real node in one go: an engine answers through a Service found by its name, kubelet, containerd and
# the whole node go down and come back, and in the end nothing is left, not even after kill -9. Says how long
# each step takes. Needs root and kubectl; without root it is skipped, and says so.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [ "$(id -u)" != 0 ]; then
  echo "SKIPPED: a real node needs root" >&2
  exit 0
fi
"$here/install-real-node.sh"
cluster=$("$here/build.sh" --real-node)
mapfile -t images < <("$here/../images/build.sh" toolbox llama-server)
model=$("$here/../images/tiny-gguf.py")

work=$(mktemp -d -t berth-smoke-XXXXXX)
dir=$work/cluster
export KUBECONFIG=$dir/kubeconfig
pid=
cleanup() {
  if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; fi
  [ -z "${passed:-}" ] && { echo "FAILED; files are in $work" >&2; return; }
  rm -rf "$work"
}
trap cleanup EXIT

fail() { echo "$*" >&2; exit 1; }
now() { date +%s%N; }
begun=$(now)
done_() { # done_ WHAT: says how long the step took that ends here
  local end; end=$(now)
  awk -v ns=$((end - begun)) -v what="$*" 'BEGIN { printf "%7.1f s  %s\n", ns / 1e9, what }'
  begun=$(now)
}
# until_ SECONDS COMMAND...: tries until it succeeds
until_() {
  local end=$((SECONDS + $1)); shift
  until "$@" >"$work/last" 2>&1; do
    [ $SECONDS -lt $end ] || { cat "$work/last" >&2; fail "in vain: $*"; }
    sleep 0.2
  done
}

start() {
  rm -f "$work/ready"
  local arguments=(up --real-node --real-gpus 4 --fleet "$here/fleets/demo.yaml" --dir "$dir" --keep-logs)
  for image in "${images[@]}"; do arguments+=(--image "$image"); done
  "$cluster" "${arguments[@]}" >"$work/ready" 2>"$work/up.log" &
  pid=$!
  until [ -s "$work/ready" ]; do
    kill -0 "$pid" 2>/dev/null || { cat "$work/up.log" >&2; fail "the cluster does not start"; }
    sleep 0.05
  done
  state=$dir/node/state.json
  id=$(sed -n 's/^cgroupRoot: \///p' "$dir/node/kubelet.yaml")
  init=$(sed 's/.*"init":\([0-9]*\).*/\1/' "$state")
  network=$(readlink "/proc/$init/ns/net")
  processes=$(readlink "/proc/$init/ns/pid")
}

# nothing_left: no process, mount, network or cgroup of the last cluster
nothing_left() {
  local found
  found=$(find /proc -maxdepth 3 -path '/proc/[0-9]*/ns/*' \( -lname "$network" -o -lname "$processes" \) 2>/dev/null || true)
  [ -z "$found" ] || { echo "processes: $found"; return 1; }
  found=$(grep -s -l -F "$dir" /proc/[0-9]*/mountinfo || true)
  [ -z "$found" ] || { echo "mounts: $found"; return 1; }
  # Our own command lines have the folder only as part of the work folder's path.
  found=$(grep -s -l -F "$dir/" /proc/[0-9]*/cmdline || true)
  [ -z "$found" ] || { echo "command lines: $found"; return 1; }
}
no_cgroup() {
  local found
  found=$(find /sys/fs/cgroup -maxdepth 2 -name "$id"; ls /run/berth-cluster | grep -F "$id" || true)
  [ -z "$found" ] || { echo "cgroups or records: $found"; return 1; }
}

apply() {
  # The node's disk is the cluster's own folder; the engine's namespace has the strictest standard there is.
  mkdir -p "$dir/node/data/model"
  cp "$model" "$dir/node/data/model/tiny.gguf"
  kubectl apply -f - <<EOF
apiVersion: v1
kind: Namespace
metadata:
  name: models
  labels: {pod-security.kubernetes.io/enforce: restricted}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: model}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadOnlyMany]
  storageClassName: smoke
  claimRef: {namespace: models, name: model}
  hostPath: {path: $dir/node/data/model, type: Directory}
  nodeAffinity:
    required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [real]}]}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: model, namespace: models}
spec:
  accessModes: [ReadOnlyMany]
  storageClassName: smoke
  resources: {requests: {storage: 1Gi}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: engine, namespace: models}
spec:
  selector: {matchLabels: {app: engine}}
  template:
    metadata: {labels: {app: engine}}
    spec:
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      nodeSelector: {nvidia.com/gpu.product: NVIDIA-L4, kubernetes.io/hostname: real}
      containers:
        - name: engine
          image: berth.dev/e2e/llama-server:1
          imagePullPolicy: Never
          args: [--model, /model/tiny.gguf, --host, 0.0.0.0, --port, "8080", --metrics, --threads, "1", --no-warmup]
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {httpGet: {path: /health, port: http}, periodSeconds: 1}
          resources: {limits: {nvidia.com/gpu: 1}}
          securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
          volumeMounts: [{name: model, mountPath: /model, readOnly: true}]
      volumes: [{name: model, persistentVolumeClaim: {claimName: model, readOnly: true}}]
---
apiVersion: v1
kind: Service
metadata: {name: engine, namespace: models}
spec:
  selector: {app: engine}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: client, namespace: models}
spec:
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec:
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      nodeSelector: {kubernetes.io/hostname: real}
      containers:
        - name: client
          image: berth.dev/e2e/toolbox:1
          imagePullPolicy: Never
          securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
EOF
}

from_pod() { kubectl --namespace models exec deploy/client -- /toolbox fetch --timeout 10s "$@"; }
ask='{"messages":[{"role":"user","content":"Where is the ship?"}],"max_tokens":24,"temperature":0'
chat() { from_pod --data "$ask}" http://engine.models.svc.cluster.local/v1/chat/completions | grep '"completion_tokens"'; }
stream() {
  from_pod --times --data "$ask,\"stream\":true}" http://engine/v1/chat/completions >"$work/stream"
  grep -q 'data: \[DONE\]' "$work/stream" && [ "$(grep -c 'data: {' "$work/stream")" -gt 10 ]
}
engine() { kubectl --namespace models get pods --selector app=engine --output jsonpath='{range .items[*]}{.metadata.uid} {.status.containerStatuses[0].restartCount} {.status.podIP}{end}'; }
gpus() { [ "$(kubectl get node real --output jsonpath='{.status.allocatable.nvidia\.com/gpu}')" = 4 ]; }
heartbeat() { kubectl --namespace kube-node-lease get lease real --output jsonpath='{.spec.renewTime}'; }
beats_again() { [[ $(heartbeat) > "$1" ]]; }
unchanged() { # unchanged SERVICE: the service is back, the node Ready with its GPUs, and the engine's pod the same
  until_ 60 beats_again "$1"
  kubectl wait node/real --for condition=Ready --timeout 60s >/dev/null
  until_ 30 gpus
  until_ 30 chat
  [ "$(engine)" = "$pod" ] || fail "the engine's pod was [$pod] and is [$(engine)]"
}

start
done_ "cluster up: control plane, ten simulated nodes, a real one with DNS"
gpus || fail "no GPUs"
! "$cluster" node exec --dir "$dir" -- ip route get 192.0.2.1 >/dev/null 2>&1 || fail "there is a way out of the network"

apply >/dev/null
kubectl --namespace models rollout status deployment/engine --timeout 90s >/dev/null
kubectl --namespace models rollout status deployment/client --timeout 90s >/dev/null
done_ "engine and client Ready, with the model from a PersistentVolumeClaim"
until_ 30 chat
done_ "chat completion from another pod, by the Service's DNS name"
until_ 10 stream
done_ "streamed: $(grep -c 'data: {' "$work/stream") pieces, first after $(awk 'NR==1 {print $1}' "$work/stream") ms, last after $(awk 'END {print $1}' "$work/stream") ms"
[ -n "$(find /sys/fs/cgroup -path "*/$id/*/cgroup.procs" -exec cat {} +)" ] || fail "the pods are not in our cgroups"
from_pod --serviceaccount https://kubernetes.default.svc/version >"$work/version" 2>&1 || fail "no API in the pod: $(cat "$work/version")"
kubectl --namespace models logs deploy/engine >"$work/engine.log"
[ -s "$work/engine.log" ] || fail "no logs"
done_ "API server from a pod; logs and exec through the API server"

pod=$(engine)
until_ 20 heartbeat
beat=$(heartbeat)
"$cluster" node restart kubelet --dir "$dir"
unchanged "$beat"
done_ "kubelet restarted: same pod, same GPUs"
beat=$(heartbeat)
"$cluster" node restart kubelet --kill --dir "$dir"
unchanged "$beat"
done_ "kubelet killed: same pod, same GPUs"
"$cluster" node restart containerd --dir "$dir"
until_ 30 kubectl --namespace models logs deploy/engine --tail 1
unchanged "$(heartbeat)"
done_ "containerd restarted: same pod, same GPUs"

"$cluster" node reboot --dir "$dir"
init=$(sed 's/.*"init":\([0-9]*\).*/\1/' "$state")
processes=$(readlink "/proc/$init/ns/pid")
until_ 120 chat
until_ 30 gpus
done_ "node rebooted: the engine answers again"

kill "$pid"
wait "$pid" || fail "up did not end well: $(cat "$work/up.log")"
pid=
nothing_left || fail "something is left"
no_cgroup || fail "something is left"
[ -d "$dir/logs/pods" ] || fail "the pods' logs are not kept"
done_ "stopped: no process, mount, network, cgroup or record is left"

rm -rf "$dir"
start
apply >/dev/null
kubectl --namespace models rollout status deployment/client --timeout 90s >/dev/null
done_ "up once more, with pods"
! "$cluster" clean --dir "$dir" 2>/dev/null || fail "clean takes a running cluster"
kill -9 "$pid"
{ wait "$pid" || true; } 2>/dev/null # it is known to be killed
pid=
until_ 5 nothing_left
done_ "kill -9: no process, mount or network is left"
"$cluster" clean --dir "$dir"
no_cgroup || fail "something is left"
[ ! -e "$dir" ] || fail "the folder is left: $(ls "$dir")"
done_ "cleaned: no cgroup, record or folder is left"
passed=1
