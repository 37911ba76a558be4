# A control plane with make-believe nodes, a real operator and two real masters as processes, and the herd that plays the agents.
# Sourced by the benches, which set `bed`, the testbed's name. `shellcheck shell=bash`
: "${DROVER_STATE:=${XDG_STATE_HOME:-$HOME/.local/state}/drover}"
export DROVER_STATE
work=$(mktemp -d)
pids=()

ended() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  pids=()
}
trap 'ended; "$testbed" down --name $bed >/dev/null 2>&1; rm -rf "$work"' EXIT

start() { # start NAME COMMAND...: leaves its id in $started
  local process=$1
  shift
  "$@" </dev/null >>"$work/$process.log" 2>&1 &
  started=$!
  pids+=("$started")
}

until_there() { # until_there FILE SECONDS PROCESS
  local end=$((SECONDS + $2))
  until [[ -e $1 ]]; do
    kill -0 "$3" 2>/dev/null || { tail -n 20 "$work"/*.log >&2; die "a process ended by itself; its log is above"; }
    ((SECONDS < end)) || die "$1 did not appear within $2 s"
    sleep 0.2
  done
}

step "Building"
build_product
(cd "$repo" && cargo build --locked --release --target $target -p drover-herd) || die "the herd does not build"
"$repo/e2e/control-plane/build" helm --bin "$bin"
herd=$product/drover-herd
ulimit -n "$(ulimit -Hn)"
mkdir -p "$repo/target/bench"

rows=()
row() { # row NAME VALUE UNIT AIM [PEER [ITS_VERSION]]
  rows+=("$(jq -cn --arg name "$1" --argjson value "$2" --arg unit "$3" --arg aim "$4" --arg peer "${5:-}" --arg version "${6:-}" \
    '{name: $name, value: $value, unit: $unit, aim: $aim, peer: $peer, peer_version: $version}')")
}

ticks() { # ticks PID...: user and system time together, in hundredths of a second
  local pid sum=0 fields
  for pid in "$@"; do
    read -ra fields < <(sed 's/.*) //' "/proc/$pid/stat")
    sum=$((sum + fields[11] + fields[12]))
  done
  echo $sum
}

peak() { # peak PID...: the most memory of one of them, in MB
  local pid
  for pid in "$@"; do sed -n 's/^VmHWM:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$pid/status"; done | sort -n | tail -n 1 | jq '. / 100 | round / 10'
}

until_agents_run() { # until_agents_run COUNT SECONDS
  local end=$((SECONDS + $2))
  until (($(kubectl -n drover-system get pods -l app.kubernetes.io/component=agent --field-selector status.phase=Running -o name | wc -l) >= $1)); do
    ((SECONDS < end)) || die "there were less than $1 agents after $2 s"
    sleep 1
  done
}

resources() { # resources HOW_MANY: a NodeConfig's files
  local number
  for ((number = 1; number <= $1; number++)); do
    printf '    - name: file-%s\n      file:\n        path: /etc/herd/file-%s\n        template: |\n          {{ facts.networking.hostname }} {{ facts.os.name }} {{ data.word }}\n' $number $number
  done
}

# changed WORD: the content of the NodeConfig is another one.
changed() {
  kubectl apply -f - >/dev/null <<YAML
apiVersion: v1
kind: ConfigMap
metadata: {name: words, namespace: drover-system}
data: {word: $1}
YAML
}

rollout() { # rollout MORE_OF_THE_SPEC
  kubectl apply -f - >/dev/null <<YAML
apiVersion: drover.dev/v1alpha1
kind: Rollout
metadata: {name: base, namespace: drover-system}
spec:
  nodeConfigRef: {name: base}
  strategy:
    maxParallel: 500
    maxUnavailable: 500
    batches: [{name: canary, size: 1}, {name: rest, size: "100%"}]
$1
YAML
}

measured() { # measured HOSTS RUN FILE COMMAND...: a run that the command begins
  local run=$2 file=$3 measure
  shift 3
  rm -f "$work/watching"
  start "measure-$run" "$herd" measure --rollout base --run "$run" --audit "$audit" --ready-file "$work/watching" \
    --process "operator=$operator" --process "masters=${masters[0]}" --process "masters=${masters[1]}" --process "agents=$agents" \
    --process "API server=$apiserver" --process "etcd=$etcd"
  measure=$started
  until_there "$work/watching" 60 "$measure"
  "$@"
  wait "$measure" || { tail -n 5 "$work/measure-$run.log" >&2; tail -n 20 "$work/operator.log" >&2; kubectl -n drover-system get rollouts.drover.dev base -o wide >&2; die "the run was not complete"; }
  tail -n 1 "$work/measure-$run.log" > "$file"
}

field() { jq "$2" "$1"; }

# bring_up HOSTS: so many nodes, Drover, and agents that are known. Sets audit, apiserver, etcd, operator, masters, agents.
bring_up() {
  local hosts=$1 number address offset
  step "$hosts make-believe nodes"
  "$testbed" down --name $bed >/dev/null 2>&1 || true
  "$testbed" up --name $bed --embedded --nodes "$hosts"
  KUBECONFIG=$("$testbed" kubeconfig --name $bed)
  export KUBECONFIG
  audit=$DROVER_STATE/$bed/audit.log
  apiserver=$(cut -d' ' -f1 "$DROVER_STATE/$bed/run/kube-apiserver.pid") etcd=$(cut -d' ' -f1 "$DROVER_STATE/$bed/run/etcd.pid")
  offset=$(($(<"$DROVER_STATE/$bed/slot") * 100))

  step "Installing Drover"
  install_product --set operator.replicas=0
  DROVER_MASTER_IMAGE=localhost/drover:dev POD_NAMESPACE=drover-system POD_NAME=bench DROVER_HEALTH_LISTEN=127.0.0.1:$((20090 + offset)) \
    MIMALLOC_PURGE_DELAY=0 \
    start operator "$product/drover" run
  operator=$started
  kubectl -n drover-system wait masterpool/masters --for=condition=Ready --timeout=300s >/dev/null
  mkdir -p "$work/tls" "$work/masters"
  (umask 077; for key in tls.crt tls.key; do kubectl -n drover-system get secret drover-masters-tls -o "go-template={{index .data \"$key\" | base64decode}}" > "$work/tls/$key"; done)
  for key in ca.crt server-name; do kubectl -n drover-system get configmap drover-masters -o "go-template={{index .data \"$key\"}}" > "$work/masters/$key"; done
  : > "$work/masters/addresses"
  masters=()
  for number in 1 2; do
    address=127.0.0.1:$((20090 + offset + number))
    start "master-$number" "$product/drover" master --namespace drover-system --listen "$address" --tls-dir "$work/tls" \
      --agent-service-account system:serviceaccount:drover-system:drover-agent
    masters+=("$started")
    echo "$address" >> "$work/masters/addresses"
  done
  # Not the DaemonSet's status, which its controller may leave behind for minutes on a busy machine.
  until_agents_run "$hosts" 900
  step "$hosts agents make themselves known"
  "$product/drover-agent" facts --state-dir "$work/state" > "$work/facts.json"
  rm -f "$work/arrived"
  start agents "$herd" agents --masters-dir "$work/masters" --facts "$work/facts.json" --ready-file "$work/arrived"
  agents=$started
  until_there "$work/arrived" 900 "$agents"
}
