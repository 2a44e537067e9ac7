#!/usr/bin/env bash
# Installs what `berth-cluster up --real-node` needs of Debian or Ubuntu: containerd with ctr, runc, network
# plugins, nft and nsenter. Needs root. Does nothing where everything is there already.
set -euo pipefail

packages=(containerd runc containernetworking-plugins nftables util-linux)

missing=()
for package in "${packages[@]}"; do
  dpkg-query --show --showformat '${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

[ "$(id -u)" = 0 ] || { echo "install-real-node.sh: run it as root; it installs ${missing[*]}" >&2; exit 1; }
command -v apt-get >/dev/null || { echo "install-real-node.sh: knows apt-get only; install ${missing[*]} in your system's way" >&2; exit 1; }

# Where there is systemd, the package starts a containerd of its own. Nothing here uses it; one that was
# there before is somebody's.
stop_service=
case " ${missing[*]} " in
  *" containerd "*) [ -d /run/systemd/system ] && stop_service=1 ;;
esac

export DEBIAN_FRONTEND=noninteractive
install() { apt-get install --yes --quiet --no-install-recommends "${missing[@]}" >&2; }
install || { apt-get update --quiet >&2; install; }
[ -z "$stop_service" ] || systemctl disable --now containerd >&2
