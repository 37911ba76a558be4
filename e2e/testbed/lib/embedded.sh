# shellcheck shell=bash
# The same control plane on loopback with make-believe nodes, for when there is no root or there are no namespaces.
# kwok plays kubelet: nodes become Ready, pods run at once; nothing is behind them.

start_kwok() {
  local stage stages=()
  for stage in "$bin"/kwok-stages/*.yaml; do stages+=(-c "$stage"); done
  part kwok "$bin/kwok" --kubeconfig "$state/kubeconfig" --manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake \
    --server-address "127.0.0.1:$kwok_port" --cidr "$pod_net.0.0/16" --node-lease-duration-seconds "$(heartbeat_seconds "$1")" "${stages[@]}"
}

# heartbeat_seconds COUNT: how long a node's Lease counts. kwok renews it four times in that time, and the API server of one
# machine is there for more than the heartbeats of thousands.
heartbeat_seconds() { echo $((40 > $1 / 10 ? 40 : $1 / 10)); }

embedded_node() { # embedded_node NUMBER
  cat <<YAML
apiVersion: v1
kind: Node
metadata:
  name: node-$1
  annotations: { kwok.x-k8s.io/node: fake }
  labels:
    kubernetes.io/hostname: node-$1
    kubernetes.io/os: linux
    kubernetes.io/arch: amd64
    topology.kubernetes.io/zone: ${zones[$((($1 - 1) % 3))]}
status:
  allocatable: { cpu: "8", memory: 32Gi, pods: "110" }
  capacity: { cpu: "8", memory: 32Gi, pods: "110" }
---
YAML
}

enough_ready() { (($(ready_nodes | grep -c '^node-') >= $1)); }
count_nodes() { api_get /api/v1/nodes | jq '.items | length'; }

up_embedded() { # up_embedded COUNT
  local count=$1 started between there
  command -v jq >/dev/null && command -v curl >/dev/null && command -v openssl >/dev/null || die "install jq, curl and openssl"
  build_parts etcd kubernetes kwok
  started=$(now_ms)
  mkdir -p "$state"
  if known; then
    load
    if control_plane_runs; then
      [[ $mode == embedded ]] || die "testbed '$name' runs with machines; end it first: testbed down --name $name"
      pki=$state/pki
    else
      say "removing what is left of an earlier run"
      clean
    fi
  elif [[ -n $(ls -A "$state") ]]; then
    clean
  fi
  if ! known; then
    mkdir -p "$state"
    slot_lock
    pick_slot
    use_mode embedded
    echo embedded > "$state/mode"
    say "testbed $name: $count make-believe nodes, API server at $api"
    node_grace=$(($(heartbeat_seconds "$count") * 3 / 10))s
    start_control_plane
    slot_unlock
    start_kwok "$count"
  fi
  between=$(now_ms)
  there=$(count_nodes)
  if ((there < count)); then
    say "  control plane ready         $(seconds $((between - started)))"
    for ((number = there + 1; number <= count; number++)); do embedded_node "$number"; done |
      "$bin/kubectl" --kubeconfig "$state/kubeconfig" --cache-dir "$state/cache" create -f - >/dev/null
  fi
  wait_for 120 "nodes to be Ready" enough_ready "$count"
  wait_for 30 "the default service account" default_account_there
  say "  $count nodes Ready               $(seconds $(($(now_ms) - between)))"
  say "  together                    $(seconds $(($(now_ms) - started)))"
  say "export KUBECONFIG=$state/kubeconfig"
}
