# shellcheck shell=bash
# Starting a testbed.

# can_machines: real machines need root, namespaces and an overlay of /. Prints the reason when they cannot be.
can_machines() {
  ((EUID == 0)) || { echo "real machines need root"; return 1; }
  local dir why
  command -v unshare >/dev/null || { echo "unshare is missing"; return 1; }
  unshare --mount --uts --ipc --pid --net --cgroup --fork true 2>/dev/null || { echo "namespaces cannot be made here"; return 1; }
  [[ -n $(cgroup_mounts) ]] || { echo "no control groups are mounted at /sys/fs/cgroup"; return 1; }
  why=$(mkdir "/sys/fs/cgroup/$(cgroup_mounts | head -n 1 | sed 's|.*/sys/fs/cgroup/*||')/drover-probe-$$" 2>&1) || { echo "control groups cannot be made here: $why"; return 1; }
  rmdir "/sys/fs/cgroup/$(cgroup_mounts | head -n 1 | sed 's|.*/sys/fs/cgroup/*||')/drover-probe-$$"
  command -v dpkg-query >/dev/null || { echo "the machines need Debian's packages; this machine has no dpkg"; return 1; }
  mkdir -p "$DROVER_STATE"
  dir=$(mktemp -d "$DROVER_STATE/probe.XXXXXX")
  mkdir "$dir"/{upper,work,root}
  # shellcheck disable=SC2016
  why=$(unshare --mount --pid --net --fork sh -c '
    mount --make-rprivate / && mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root" &&
    mount -t proc proc "$1/root/proc" && mount -t sysfs sysfs "$1/root/sys" && ip link add probe type bridge' - "$dir" 2>&1) ||
    { rm -rf "$dir"; rmdir "$DROVER_STATE" 2>/dev/null || true; echo "a machine's root or network cannot be made here: ${why//$'\n'/ }"; return 1; }
  rm -rf "$dir"
  rmdir "$DROVER_STATE" 2>/dev/null || true
}

up_machines() { # up_machines COUNT
  local count=$1 started between number node nodes=() mine=() why
  why=$(can_machines) || die "$why (an API server alone with make-believe nodes: testbed up --embedded)"
  ((count >= 1 && count <= max_machines)) || die "between 1 and $max_machines machines, not $count"
  install_packages
  build_parts etcd kubernetes
  make_pause_image

  started=$(now_ms)
  mkdir -p "$state"
  if known && [[ $(<"$state/mode") == machines ]]; then
    load
    if ! control_plane_runs; then say "removing what is left of an earlier run"; clean; fi
  elif known || [[ -n $(ls -A "$state") ]]; then
    # shellcheck disable=SC2310
    if known && { load; control_plane_runs; }; then die "testbed '$name' runs embedded; end it first: testbed down --name $name"; fi
    clean
  fi
  if ! known; then
    clean_orphans
    mkdir -p "$state"
    chmod 0755 "$state"
    save_kernel_settings
    slot_lock
    pick_slot
    use_mode machines
    echo machines > "$state/mode"
    make_bridge
    slot_unlock
    cgroup_make "$cgroup/control-plane"
    say "testbed $name: $count machines on $machine_net.0/24, API server at $api"
    start_control_plane
    between=$(now_ms)
    say "  control plane ready         $(seconds $((between - started)))"
  else
    pki=$state/pki
    between=$(now_ms)
  fi

  for ((number = 1; number <= count; number++)); do
    node=node-$number
    nodes+=("$node")
    ! machine_runs "$node" || continue
    provision "$number"
    route_to "$number"
    power_on "$node"
    mine+=("$node")
  done
  wait_for 120 "nodes to be Ready (see: testbed status, testbed logs node-1 -u kubelet)" nodes_ready "${nodes[@]}"
  wait_for 30 "the default service account" default_account_there
  if ((${#mine[@]})); then
    say "  ${#mine[@]} machines Ready            $(seconds $(($(now_ms) - between)))"
    say "  together                    $(seconds $(($(now_ms) - started)))"
  else
    say "testbed $name runs already, ${#nodes[@]} machines Ready"
  fi
  say "export KUBECONFIG=$state/kubeconfig"
}
