# shellcheck shell=bash
# Settings of the kernel that are one for all machines: what kubelet and systemd change there is put back in the end.

kernel_settings=(kernel/panic kernel/panic_on_oops kernel/pid_max kernel/keys/root_maxkeys kernel/keys/root_maxbytes
  kernel/sysrq kernel/core_pattern kernel/core_uses_pid kernel/kptr_restrict
  vm/overcommit_memory vm/panic_on_oom vm/max_map_count fs/protected_hardlinks fs/protected_symlinks fs/protected_regular fs/protected_fifos
  fs/inotify/max_user_instances fs/inotify/max_user_watches)

save_kernel_settings() { # before the first testbed of this state folder starts
  local setting file=$DROVER_STATE/kernel-settings
  [[ ! -f $file ]] || return 0
  for setting in "${kernel_settings[@]}"; do
    [[ ! -f /proc/sys/$setting ]] || echo "$setting $(<"/proc/sys/$setting")"
  done > "$file.new"
  mv "$file.new" "$file"
  # Each machine's systemd, kubelet and containerd watch files, all as the same user.
  (($(</proc/sys/fs/inotify/max_user_instances) >= 4096)) || echo 4096 > /proc/sys/fs/inotify/max_user_instances
}

restore_kernel_settings() { # after the last one ended
  local setting value file=$DROVER_STATE/kernel-settings other
  [[ -f $file ]] || return 0
  for other in "$DROVER_STATE"/*/mode; do [[ ! -f $other || $(<"$other") != machines ]] || return 0; done
  while read -r setting value; do
    [[ $(<"/proc/sys/$setting") == "$value" ]] || echo "$value" > "/proc/sys/$setting" || true
  done < "$file"
  rm -f "$file"
}
