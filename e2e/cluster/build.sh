#!/usr/bin/env bash
# Builds berth-cluster into a cache outside the repository, if this very source is not there yet, and prints
# the binary's path as its only line on standard output. Safe when several run at once.
#
#   --real-node   also make the image that `up --real-node` needs, beside the binary
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

real_node=
case $# in
  0) ;;
  1) [ "$1" = --real-node ] || { echo "usage: build.sh [--real-node]" >&2; exit 2; }; real_node=1 ;;
  *) echo "usage: build.sh [--real-node]" >&2; exit 2 ;;
esac

cache=${BERTH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/berth}
hash=$({ go env GOVERSION GOOS GOARCH; find . -type f \( -name '*.go' ! -name '*_test.go' -o -name go.mod -o -name go.sum \
  -o -path './simulate/stages/*.yaml' -o -name build.sh \) -print0 | LC_ALL=C sort -z | xargs -0 sha256sum; } | sha256sum | cut -c1-16)
folder=$cache/cluster-$hash
binary=$folder/berth-cluster
export CGO_ENABLED=0

partial=
trap 'rm -f "$partial"' EXIT

if [ ! -x "$binary" ]; then
  # What `kubectl version` and the clients see; it follows the version of k8s.io/kubernetes in go.mod.
  version=$(sed -n 's/^\tk8s\.io\/kubernetes //p' go.mod)
  minor=${version#v1.} minor=${minor%%.*}
  package=k8s.io/component-base/version
  mkdir -p "$folder"
  partial=$binary.$$
  echo "building berth-cluster (Kubernetes $version); the first time takes several minutes" >&2
  go build -trimpath \
    -ldflags "-s -w -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$minor" \
    -o "$partial" . >&2
  mv "$partial" "$binary"
fi
if [ -n "$real_node" ] && [ ! -f "$folder/pause.tar" ]; then
  partial=$folder/pause.$$
  go build -trimpath -ldflags "-s -w" -o "$partial" ./pause >&2
  "$binary" image --output "$folder/pause.tar" --name berth.dev/e2e/pause:1 \
    --file "$partial:/pause" --entrypoint /pause --user 65532
fi
echo "$binary"
