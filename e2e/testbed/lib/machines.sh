# shellcheck shell=bash
# Machines: each a root of its own laid over this machine's /, in namespaces of its own, with systemd as its first process.
#
#   $state/machines/NODE/   config         what machine/supervise and machine/boot need to know
#                           upper, work    the machine's disk: what differs from this machine's /
#                           containerd, kubelet   real folders, as an overlay cannot lie on an overlay
#                           supervisor, init      process records; images/ what was loaded; boots.log

zones=(a b c)

machine_folder() { echo "$state/machines/$1"; }
machine_names() { local dir; for dir in "$state"/machines/*/; do [[ ! -f $dir/config ]] || basename "$dir"; done | sort -V; }
need_machine() { [[ -f $(machine_folder "$1")/config ]] || die "testbed '$name' has no machine '$1'; it has: $(machine_names | paste -sd' ')"; }
machine_runs() { alive "$(machine_folder "$1")/init"; }

put() { # put MODE FILE: a file of the machine's own, from standard input
  mkdir -p "$(dirname "$upper/$2")"
  cat > "$upper/$2"
  chmod "$1" "$upper/$2"
}

# provision NUMBER lays the machine's disk out, once.
provision() {
  local number=$1 node=node-$1 dir upper unit link
  dir=$(machine_folder "$node") upper=$dir/upper
  [[ ! -f $dir/config ]] || return 0
  rm -rf "$dir"
  mkdir -p "$upper/opt/drover" "$dir"/{work,root,containerd,kubelet,images}
  chmod 0755 "$dir" "$upper"

  cp -r "$here/machine/files/." "$upper/"
  find "$upper" -type d -exec chmod 0755 {} +
  grep -rlE '@[A-Z_]+@' "$upper" | xargs sed -i \
    -e "s|@NODE@|$node|g; s|@ADDRESS@|$(machine_address "$number")|g; s|@ZONE@|${zones[$(((number - 1) % 3))]}|g" \
    -e "s|@POD_CIDR@|$pod_cidr|g; s|@NODE_PODS@|$(machine_pods "$number")|g; s|@API@|$api|g"
  echo "$node" | put 0644 etc/hostname
  printf '127.0.0.1 localhost\n%s %s\n' "$(machine_address "$number")" "$node" | put 0644 etc/hosts
  rm -f "$upper/etc/resolv.conf"
  echo "# No name server: machines of a testbed have no way out." | put 0644 etc/resolv.conf
  printf '%s\n' "# All file systems are mounted before the start." | put 0644 etc/fstab
  od -An -N16 -tx1 /dev/urandom | tr -d ' \n' | put 0444 etc/machine-id

  # This machine's own services are not for the copy: hide what is enabled here, and mask what makes no sense there.
  for link in /etc/systemd/system/*.{wants,requires}/*; do
    [[ -L $link ]] || continue
    mkdir -p "$upper$(dirname "$link")"
    [[ -e $upper$link || -L $upper$link ]] || mknod "$upper$link" c 0 0 # an overlay's mark for "deleted"
  done
  mkdir -p "$upper/etc/systemd/"{system/multi-user.target.wants,system-generators} "$upper/var/log/journal"
  while read -r unit; do
    [[ -z $unit || $unit == \#* ]] || ln -sfn /dev/null "$upper/etc/systemd/system/$unit"
  done < "$here/machine/masked-units"
  # Init scripts of this machine would become services there.
  ln -sfn /dev/null "$upper/etc/systemd/system-generators/systemd-sysv-generator"
  for unit in containerd kubelet kube-proxy; do
    rm -f "$upper/etc/systemd/system/multi-user.target.wants/$unit.service"
    ln -s "/etc/systemd/system/$unit.service" "$upper/etc/systemd/system/multi-user.target.wants/$unit.service"
  done

  issue "$node" "/O=system:nodes/CN=system:node:$node" "DNS:$node,IP:$(machine_address "$number")"
  kubeconfig "$node" "$dir/kubeconfig" && put 0600 etc/kubernetes/kubelet.conf < "$dir/kubeconfig"
  kubeconfig kube-proxy "$dir/kubeconfig" && put 0600 etc/kubernetes/kube-proxy.conf < "$dir/kubeconfig"
  rm -f "$dir/kubeconfig"
  put 0644 etc/kubernetes/pki/ca.crt < "$pki/ca.crt"
  put 0644 etc/kubernetes/pki/node.crt < "$pki/$node.crt"
  put 0600 etc/kubernetes/pki/node.key < "$pki/$node.key"

  cat > "$dir/config.new" <<CONFIG
node=$node
number=$number
dir=$dir
hidden=$DROVER_STATE
bin=$bin
images=$DROVER_CACHE/images
bridge=$bridge
link=${bridge}n$number
mac=$(printf '02:d0:00:00:%02x:%02x' "$slot" "$number")
address=$(machine_address "$number")
machine_net=$machine_net
pod_net=$pod_net
service_cidr=$service_cidr
cgroup=$cgroup/$node
max_machines=$max_machines
CONFIG
  mv "$dir/config.new" "$dir/config"
}

# power_on NODE starts its supervisor, which boots it.
power_on() {
  local dir
  dir=$(machine_folder "$1")
  ! alive "$dir/supervisor" || return 0
  rm -f "$dir/init"
  launch "$dir/supervisor" "$dir/boots.log" "$here/machine/supervise" "$dir"
  cgroup_enter "$cgroup/control-plane" "$(cut -d' ' -f1 "$dir/supervisor")"
}

# power_off NODE ends it at once, as a power cut does; its disk stays.
power_off() {
  local dir
  dir=$(machine_folder "$1")
  cut_off 10 "$dir/supervisor" # first, or it would boot the machine again
  cut_off 10 "$dir/init"       # the kernel ends everything else in there
}

booted() {
  local dir
  dir=$(machine_folder "$1")
  alive "$dir/supervisor" || { tail -n 15 "$dir/boots.log" >&2; die "$1 did not start"; }
  machine_runs "$1"
}

# in_machine NODE COMMAND... runs a command in there as root, in a control group of the machine.
in_machine() {
  local dir pid
  dir=$(machine_folder "$1")
  shift
  alive "$dir/init" || die "machine $(basename "$dir") is off"
  (
    cgroup_make "$cgroup/$(basename "$dir")/testbed"
    cgroup_enter "$cgroup/$(basename "$dir")/testbed" "$BASHPID"
    exec nsenter --target "$pid" --mount --uts --ipc --net --pid --cgroup --root --wd -- \
      /usr/bin/env -i HOME=/root TERM="${TERM:-dumb}" LANG=C.UTF-8 \
      PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/drover/bin "$@"
  )
}

# ready_nodes prints "NODE BOOT_ID" for each node that is Ready; the boot id tells a node that came back from one that never left.
ready_nodes() {
  api_get /api/v1/nodes 2>/dev/null | jq -r '.items[] | select(any(.status.conditions[]?; .type == "Ready" and .status == "True"))
    | "\(.metadata.name) \(.status.nodeInfo.bootID)"' 2>/dev/null
}
boot_id() { cat "$(machine_folder "$1")/boot-id"; }

nodes_ready() { # nodes_ready NODE...: all of them, since their latest start
  local node ready
  ready=$(ready_nodes) || return 1
  for node; do
    booted "$node" && grep -qxF "$node $(boot_id "$node")" <<<"$ready" || return 1
  done
}
