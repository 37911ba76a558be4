# shellcheck shell=bash
# The bridge that the machines hang on, and this machine's way to them and to their pods.
# Nothing of it leads out: the machines know their own subnets and nothing else.

make_bridge() {
  ip link add "$bridge" type bridge
  ip link set "$bridge" alias "$state" # tells whose it is, should the state folder vanish under it
  ip addr add "$bridge_address/24" dev "$bridge"
  ip link set "$bridge" up
  # With Docker and the like, this machine drops what it would forward, and bridged packets pass there too.
  if iptables -S FORWARD 2>/dev/null | grep -q '^-P FORWARD DROP'; then
    iptables -I FORWARD -i "$bridge" -o "$bridge" -m comment --comment "$cgroup" -j ACCEPT
  fi
}

remove_bridge() {
  local link
  for link in /sys/class/net/"$bridge"n*; do # what a machine that was just killed has not let go yet
    [[ ! -e $link ]] || ip link del "${link##*/}" 2>/dev/null || true
  done
  if iptables -S FORWARD 2>/dev/null | grep -q -- "$cgroup"; then
    iptables -D FORWARD -i "$bridge" -o "$bridge" -m comment --comment "$cgroup" -j ACCEPT
  fi
  [[ ! -e /sys/class/net/$bridge ]] || ip link del "$bridge" # its routes go with it
}

route_to() { # route_to NUMBER: to the pods of one machine
  ip route replace "$(machine_pods "$1")" via "$(machine_address "$1")" dev "$bridge"
}
