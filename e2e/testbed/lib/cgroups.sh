# shellcheck shell=bash
# Control groups of the testbed, in whatever hierarchies this machine has: those of version 1, the unified one, or both.
# Each machine gets a group that it sees as its root; every process of a testbed is in the testbed's group, so that
# what an accident left running can be told from anything else on the machine.

# cgroup_mounts prints "TYPE OPTIONS MOUNTPOINT" for each hierarchy below /sys/fs/cgroup.
cgroup_mounts() {
  local line tail point
  while read -r line; do
    tail=${line#* - }
    read -r _ _ _ _ point _ <<<"$line"
    [[ $point == /sys/fs/cgroup* ]] || continue
    case $tail in
      "cgroup2 "*) echo "cgroup2 - $point" ;;
      "cgroup "*)
        local options=${tail##* }
        options=${options#rw} options=${options#,}
        # A named hierarchy without a controller is mounted again as "none,name=...".
        [[ $options != name=* && $options != *,name=* ]] || options=none,name=${options##*name=}
        echo "cgroup $options $point" ;;
    esac
  done < /proc/self/mountinfo
}

cgroup_make() { # cgroup_make PATH, in every hierarchy
  local path=$1 point step dir
  while read -r _ _ point; do
    dir=$point
    IFS=/ read -ra steps <<<"$path"
    for step in "${steps[@]}"; do
      [[ -d $dir/$step ]] || mkdir -p "$dir/$step"
      # A cpuset group of version 1 is empty at first, and then no process can enter it.
      if [[ -f $dir/$step/cpuset.cpus && -f $dir/$step/cgroup.clone_children && -z $(<"$dir/$step/cpuset.cpus") ]]; then
        cat "$dir/cpuset.cpus" > "$dir/$step/cpuset.cpus"
        cat "$dir/cpuset.mems" > "$dir/$step/cpuset.mems"
        echo 1 > "$dir/$step/cgroup.clone_children"
      fi
      dir=$dir/$step
    done
  done < <(cgroup_mounts)
}

cgroup_enter() { # cgroup_enter PATH PID
  local point
  while read -r _ _ point; do echo "$2" > "$point/$1/cgroup.procs"; done < <(cgroup_mounts)
}

# cgroup_processes PATH prints the ids of all that run in the group or below it.
cgroup_processes() {
  local point
  while read -r _ _ point; do
    [[ ! -d $point/$1 ]] || find "$point/$1" -name cgroup.procs -exec cat {} + 2>/dev/null || true
  done < <(cgroup_mounts) | sort -un
}

cgroup_kill() { # cgroup_kill PATH: only for groups that the testbed made
  local pid
  for pid in $(cgroup_processes "$1"); do
    ((pid == 0 || pid == $$)) || kill -KILL "$pid" 2>/dev/null || true
  done
  [[ -z $(cgroup_processes "$1") ]]
}

cgroup_remove() { # cgroup_remove PATH: an empty group and those below it
  local point left=0
  while read -r _ _ point; do
    [[ -d $point/$1 ]] || continue
    find "$point/$1" -depth -type d -exec rmdir {} + 2>/dev/null || left=1
  done < <(cgroup_mounts)
  return $left
}
