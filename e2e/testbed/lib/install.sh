# shellcheck shell=bash
# Debian packages that the machines run on, and the control plane's own binaries.

packages=(containerd runc containernetworking-plugins iptables conntrack socat buildah busybox-static systemd systemd-sysv dbus
  ethtool ebtables iproute2 util-linux procps openssl curl jq sudo strace)

install_packages() {
  local package status missing=()
  declare -A have=()
  command -v dpkg-query >/dev/null || die "the machines need Debian's packages; this machine has no dpkg"
  while read -r package status; do
    [[ $status != *installed ]] || have[$package]=1
  done < <(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null | sed 's/not-installed/no/')
  for package in "${packages[@]}"; do [[ -n ${have[$package]:-} ]] || missing+=("$package"); done
  ((${#missing[@]})) || return 0
  ((EUID == 0)) || die "packages are missing; as root: apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  local log
  log=$(mktemp)
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    die "apt-get could not install ${missing[*]}"
  fi
  rm -f "$log"
}

# build_parts PART...: the binaries of the control plane, from ../control-plane.
build_parts() {
  local part ready=1
  for part; do [[ -f $bin/$part.stamp ]] || ready=0; done
  if ! command -v go >/dev/null && ((ready)); then return; fi # built elsewhere and brought here
  if ((!ready)); then say "building the control plane (a first build takes some ten minutes)"; fi
  mkdir -p "$bin"
  # Two builds at once would write the same files.
  ( flock 9; "$here/../control-plane/build" "$@" --bin "$bin" >&2 ) 9>"$bin/.lock" || die "the control plane could not be built"
}
