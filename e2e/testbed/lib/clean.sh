# shellcheck shell=bash
# Ending a testbed, be it whole or the remains of one that crashed.

# clean ends what runs under $name and removes all that it made. It works from what is recorded, and then looks at the
# testbed's own control group, bridge and folder for what no record knows of.
clean() {
  local file
  if known; then
    use_slot "$(<"$state/slot")"
    use_mode "$(<"$state/mode")"
    for file in "$state"/machines/*/supervisor; do [[ ! -f $file ]] || cut_off 10 "$file"; done
    for file in "$state"/machines/*/init; do [[ ! -f $file ]] || cut_off 10 "$file"; done
    stop_control_plane
    if [[ $mode == machines ]]; then clean_slot; fi
  fi
  wait_for 20 "$state to be removed" remove_folder "$state"
}

clean_slot() { # what root made: groups, and the network
  wait_for 20 "processes of $cgroup to end" cgroup_kill "$cgroup"
  remove_bridge
  wait_for 20 "control groups of $cgroup to go" cgroup_remove "$cgroup"
}

# clean_orphans removes bridges, processes and groups of testbeds whose state folder is gone, or knows of them no more.
clean_orphans() {
  local s alias
  for ((s = 1; s <= max_slot; s++)); do
    [[ -f /sys/class/net/drover$s/ifalias ]] || continue
    alias=$(<"/sys/class/net/drover$s/ifalias")
    if [[ -n $alias && $(cat "$alias/slot" 2>/dev/null) != "$s" ]]; then
      say "removing what is left of $alias"
      (use_slot "$s" && clean_slot)
    fi
  done
}

# A mount namespace that ends lets its mounts go a moment later.
remove_folder() { rm -rf --one-file-system "$1" 2>/dev/null; [[ ! -e $1 ]]; }

down() {
  ((EUID != 0)) || clean_orphans
  if [[ ! -d $state ]]; then say "no testbed named '$name'"; return; fi
  clean
  ((EUID != 0)) || restore_kernel_settings
  rmdir "$DROVER_STATE" 2>/dev/null || true # other testbeds may have theirs in it
  say "testbed $name is down"
}
