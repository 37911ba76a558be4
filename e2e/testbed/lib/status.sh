# shellcheck shell=bash
# What runs, and what it said.

status() {
  local part node pid ready
  echo "$name: $mode, slot $slot, $api, $state"
  for part in $(parts); do
    if alive "$state/run/$part.pid"; then
      printf '  %-26s pid %-8s %5d MB\n' "$part" "$pid" "$(($(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status") / 1024))"
    else
      printf '  %-26s not running\n' "$part"
    fi
  done
  ready=$(ready_nodes || true)
  for node in $(machine_names); do
    if alive "$(machine_folder "$node")/init"; then
      printf '  %-26s pid %-8s %s, %s\n' "$node" "$pid" "$(. "$(machine_folder "$node")/config" && echo "$address")" \
        "$(grep -q "^$node " <<<"$ready" && echo Ready || echo "not Ready")"
    else
      printf '  %-26s off\n' "$node"
    fi
  done
  [[ $mode == machines ]] || echo "  $(grep -c . <<<"$ready") make-believe nodes Ready"
}

logs() {
  local part=${1:-}
  if [[ -z $part ]]; then
    for part in $(parts); do printf '== %s (%s)\n' "$part" "$state/logs/$part.log"; tail -n 20 "$state/logs/$part.log"; done
    return
  fi
  shift
  if [[ -f $state/logs/$part.log ]]; then
    cat "$state/logs/$part.log"
  else
    need_machine "$part"
    if machine_runs "$part"; then in_machine "$part" journalctl --no-pager "$@"; else journalctl --no-pager -D "$(machine_folder "$part")/upper/var/log/journal" "$@"; fi
  fi
}
