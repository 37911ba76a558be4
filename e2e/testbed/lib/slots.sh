# shellcheck shell=bash
# Names, numbers and addresses. Each testbed has a small number, its slot, from which its ports, its bridge, its control
# groups and its subnets follow, so that testbeds run side by side.

DROVER_STATE=${DROVER_STATE:-${XDG_STATE_HOME:-$HOME/.local/state}/drover}
DROVER_CACHE=${DROVER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/drover}
bin=$DROVER_CACHE/control-plane
max_slot=9 max_machines=200

use_name() {
  [[ $1 =~ ^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$ ]] || die "a name is made of small letters, digits and dashes, not '$1'"
  name=$1
  state=$DROVER_STATE/$name
}

use_slot() {
  slot=$1
  local base=$((20000 + 100 * slot))
  etcd_port=$base etcd_peer_port=$((base + 1)) api_port=$((base + 43)) kcm_port=$((base + 57)) scheduler_port=$((base + 59))
  kwok_port=$((base + 47))
  bridge=drover$slot
  cgroup=drover-testbed-$slot
  machine_net=10.210.$slot bridge_address=10.210.$slot.1
  pod_net=10.$((210 + slot)) pod_cidr=10.$((210 + slot)).0.0/16
  service_net=10.$((220 + slot)) service_cidr=10.$((220 + slot)).0.0/16 service_address=10.$((220 + slot)).0.1
}

use_mode() { # machines or embedded
  mode=$1
  if [[ $mode == machines ]]; then api_address=$bridge_address; else api_address=127.0.0.1; fi
  api=https://$api_address:$api_port
}

machine_address() { echo "$machine_net.$((10 + $1))"; } # of machine number N
machine_pods() { echo "$pod_net.$1.0/24"; }

# load the testbed that exists under $name
load() {
  [[ -f $state/slot && -f $state/mode ]] || die "no testbed named '$name'; start it with: testbed up --name $name"
  use_slot "$(<"$state/slot")"
  use_mode "$(<"$state/mode")"
}
known() { [[ -f $state/slot && -f $state/mode ]]; }

taken() { # taken SLOT, by another testbed of this state folder, of another one, or of another user
  local file port
  for file in "$DROVER_STATE"/*/slot; do
    [[ ! -f $file || $(<"$file") != "$1" ]] || return 0
  done
  [[ ! -e /sys/class/net/drover$1 ]] || return 0
  for port in $((20000 + 100 * $1)) $((20043 + 100 * $1)); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return 0; fi
  done
  return 1
}

# slot_lock keeps two `up` from choosing the same slot until the chosen one shows (its bridge, or its port).
# The lock is this script itself, so that it works for all users and leaves no file behind.
slot_lock() { exec 8<"$here/testbed" && flock 8; }
slot_unlock() { exec 8<&-; }

pick_slot() {
  local s
  for ((s = 1; s <= max_slot; s++)); do
    taken "$s" || { use_slot "$s"; echo "$s" > "$state/slot"; return; }
  done
  die "all $max_slot slots are taken; end a testbed with: testbed down --name NAME"
}
