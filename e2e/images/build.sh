#!/usr/bin/env bash
# Makes images for real nodes, without an engine or a registry, into a cache outside the repository, and
# prints the path of each one's tarball, in the order of the names.
#
#   build.sh [llama-server] [toolbox]
#
#   llama-server   berth.dev/e2e/llama-server:1, a static llama-server and nothing else. Mount the model.
#   toolbox        berth.dev/e2e/toolbox:1, what tests run in pods: see e2e/cluster/toolbox. Sleeps by itself.
#
# Both run as user 65532, with a read-only root if asked to.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -gt 0 ] || { echo "usage: build.sh llama-server|toolbox ..." >&2; exit 2; }

cluster=$("$here/../cluster/build.sh")
cache=$(dirname "$cluster") # images are made anew with the tool that makes them
export CGO_ENABLED=0

for name in "$@"; do
  case $name in
    llama-server)
      server=$("$here/../engines/llama-server.sh")
      # The folder's name is the version and the way it was built.
      output=$cache/$(basename "$(dirname "$server")").tar
      [ -f "$output" ] || "$cluster" image --output "$output" --name berth.dev/e2e/llama-server:1 \
        --file "$server:/llama-server" --entrypoint /llama-server --user 65532
      ;;
    toolbox)
      output=$cache/toolbox.tar
      if [ ! -f "$output" ]; then
        partial=$cache/toolbox.$$
        (cd "$here/../cluster" && go build -trimpath -ldflags "-s -w" -o "$partial" ./toolbox >&2)
        "$cluster" image --output "$output" --name berth.dev/e2e/toolbox:1 \
          --file "$partial:/toolbox" --entrypoint /toolbox --entrypoint sleep --user 65532
        rm -f "$partial"
      fi
      ;;
    *) echo "build.sh: there is no image $name; there are llama-server and toolbox" >&2; exit 2 ;;
  esac
  echo "$output"
done
