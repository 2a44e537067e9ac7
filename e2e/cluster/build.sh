#!/usr/bin/env bash
# Builds berth-cluster into a cache outside the repository, if this very source is not there yet, and prints
# the binary's path as its only line on standard output. Safe when several run at once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

cache=${BERTH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/berth}
hash=$({ go env GOVERSION GOOS GOARCH; find . -type f \( -name '*.go' ! -name '*_test.go' -o -name go.mod -o -name go.sum \
  -o -path './simulate/stages/*.yaml' -o -name build.sh \) -print0 | LC_ALL=C sort -z | xargs -0 sha256sum; } | sha256sum | cut -c1-16)
binary=$cache/cluster-$hash/berth-cluster

if [ ! -x "$binary" ]; then
  # What `kubectl version` and the clients see; it follows the version of k8s.io/kubernetes in go.mod.
  version=$(sed -n 's/^\tk8s\.io\/kubernetes //p' go.mod)
  minor=${version#v1.} minor=${minor%%.*}
  package=k8s.io/component-base/version
  mkdir -p "$(dirname "$binary")"
  partial=$binary.$$
  trap 'rm -f "$partial"' EXIT
  echo "building berth-cluster (Kubernetes $version); the first time takes several minutes" >&2
  CGO_ENABLED=0 go build -trimpath \
    -ldflags "-s -w -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$minor" \
    -o "$partial" . >&2
  mv "$partial" "$binary"
fi
echo "$binary"
