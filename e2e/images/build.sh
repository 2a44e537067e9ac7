#!/usr/bin/env bash
# Makes images for real nodes, without an engine or a registry, into a cache outside the repository, and
# prints the path of each one's tarball, in the order of the names.
#
#   build.sh [llama-server] [toolbox] [operator] [fetch]
#
#   llama-server   berth.dev/e2e/llama-server:1, a static llama-server and nothing else, where llama.cpp's own
#                  images have it: /app/llama-server. Mount the model.
#   toolbox        berth.dev/e2e/toolbox:1, what tests run in pods: see e2e/cluster/toolbox. Sleeps by itself.
#   operator       berth-operator:VERSION as the chart names it, of the sources as they are. Static as that of
#                  `make image`, by the same script, but compiled without optimisation, with cargo's own folder in
#                  the cache: some minutes at first, then seconds to a minute, as an optimised build takes ten.
#   fetch          berth-fetch:VERSION, in the same way.
#
# All run as user 65532, with a read-only root if asked to.
set -euo pipefail
shopt -s inherit_errexit # a program that does not compile is not its older image
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -gt 0 ] || { echo "usage: build.sh llama-server|toolbox|operator|fetch ..." >&2; exit 2; }

cluster=$("$here/../cluster/build.sh")
kept=${BERTH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/berth}
cache=$(dirname "$cluster") # images are made anew with the tool that makes them
export CGO_ENABLED=0

# own_image PACKAGE: compiles and packs a program of ours. One at a time: clones share the folder.
own_image() (
  package=$1
  cd "$here/../.."
  folder=$kept/operator-image
  mkdir -p "$folder"
  exec 9>"$folder/lock"
  flock 9
  host=$(rustc -vV | sed -n 's/^host: //p')
  case $host in
    x86_64-*) architecture=amd64 ;;
    aarch64-*) architecture=arm64 ;;
    *) echo "build.sh: no image for $host" >&2; exit 1 ;;
  esac
  variable=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$host")_RUSTFLAGS
  env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR="$folder/target" \
    "$variable=-Ctarget-feature=+crt-static --cfg getrandom_backend=\"linux_getrandom\"" \
    CARGO_PROFILE_DEV_DEBUG=false CARGO_PROFILE_DEV_STRIP=symbols \
    nice cargo build --quiet --locked --package "$package" --bin "$package" --target "$host" >&2 9>&-
  binary=$folder/target/$host/debug/$package
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
  output=$folder/$package-$({ cat "$binary" .ci/image; echo "$version"; } | sha256sum | cut -c1-16).tar
  if [ ! -f "$output" ]; then
    # Images of older sources; one that somebody still reads is not that old.
    find "$folder" -maxdepth 1 -name "$package-*.tar" -mmin +180 -delete
    .ci/image "$binary" "docker.io/library/$package:$version" "$architecture" "$output" >/dev/null
  fi
  echo "$output"
)

for name in "$@"; do
  case $name in
    llama-server)
      server=$("$here/../engines/llama-server.sh")
      # The folder's name is the version and the way it was built.
      output=$cache/$(basename "$(dirname "$server")")-app.tar
      [ -f "$output" ] || "$cluster" image --output "$output" --name berth.dev/e2e/llama-server:1 \
        --file "$server:/app/llama-server" --entrypoint /app/llama-server --user 65532
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
    operator | fetch) output=$(own_image "berth-$name") ;;
    *) echo "build.sh: there is no image $name; there are llama-server, toolbox, operator and fetch" >&2; exit 2 ;;
  esac
  echo "$output"
done
