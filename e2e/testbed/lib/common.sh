# shellcheck shell=bash
# What every part of the testbed uses: messages, waiting, and processes that are known by id *and* start time,
# because an id alone may have been given to a stranger by the time it is ended.

say() { printf '%s\n' "$*" >&2; }
die() { printf 'testbed: %s\n' "$*" >&2; exit 1; }

now_ms() { local t=${EPOCHREALTIME/[.,]/}; echo $((t / 1000)); }
seconds() { printf '%d.%d s' $(($1 / 1000)) $(($1 % 1000 / 100)); }

# wait_for SECONDS WHAT COMMAND... polls until the command succeeds, and dies when the deadline passes.
wait_for() {
  local deadline=$(($(now_ms) + $1 * 1000)) what=$2
  shift 2
  until "$@"; do
    (($(now_ms) < deadline)) || die "gave up waiting for $what"
    sleep 0.1
  done
}

# start_time PID prints the kernel's start time of a process; it fails for one that is gone or a zombie.
start_time() {
  local stat
  { read -r stat < "/proc/$1/stat"; } 2>/dev/null || return 1
  # The command name may hold blanks and brackets; what follows its last bracket does not.
  local -a fields
  read -ra fields <<<"${stat##*) }"
  [[ ${fields[0]} != Z ]] || return 1
  echo "${fields[19]}"
}

# alive FILE: does the process that FILE records still run? Sets $pid.
alive() {
  local recorded
  [[ -f $1 ]] && read -r pid recorded < "$1" && [[ -n $recorded && $(start_time "$pid") == "$recorded" ]]
}
gone() { ! alive "$1"; }

record() { echo "$1 $(start_time "$1")" > "$2.new" && mv "$2.new" "$2"; } # record PID FILE

# launch FILE LOG COMMAND... starts a background process of its own session and records it in FILE.
# Nothing of the caller's stays open in it: a lock or a pipe it inherited would be held for as long as it lives.
launch() {
  local file=$1 log=$2
  shift 2
  (
    exec </dev/null >>"$log" 2>&1
    for fd in /proc/self/fd/*; do
      fd=${fd##*/}
      if ((fd > 2)); then eval "exec $fd>&-"; fi
    done
    exec setsid "$@"
  ) &
  record $! "$file"
}

# finish SECONDS FILE... ends recorded processes, by force those that are still there after SECONDS.
finish() {
  local patience=$1 file pid left=()
  shift
  for file; do
    if alive "$file"; then kill -TERM "$pid" 2>/dev/null || true; left+=("$file"); else rm -f "$file"; fi
  done
  ((${#left[@]})) || return 0
  local deadline=$(($(now_ms) + patience * 1000))
  for file in "${left[@]}"; do
    while alive "$file" && (($(now_ms) < deadline)); do sleep 0.05; done
    if alive "$file"; then kill -KILL "$pid" 2>/dev/null || true; fi
    wait_for 10 "process $pid to end" gone "$file"
    rm -f "$file"
  done
}

# cut SECONDS FILE: ends one recorded process at once, as a power cut does.
cut_off() {
  local pid
  if alive "$2"; then
    kill -KILL "$pid" 2>/dev/null || true
    wait_for "$1" "process $pid to end" gone "$2"
  fi
  rm -f "$2"
}
