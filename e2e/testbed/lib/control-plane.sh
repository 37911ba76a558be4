# shellcheck shell=bash
# etcd, the API server, the controller manager and the scheduler, as plain processes of this machine.

# A part is started in the testbed's control group where there is one (only root makes groups).
part() { # part NAME COMMAND...
  local part=$1
  shift
  launch "$state/run/$part.pid" "$state/logs/$part.log" "$@"
  if [[ $mode == machines ]]; then cgroup_enter "$cgroup/control-plane" "$(cut -d' ' -f1 "$state/run/$part.pid")"; fi
}

# api_get PATH asks the API server as the administrator.
api_get() { curl -sf --max-time 5 --cacert "$state/pki/ca.crt" --cert "$state/pki/admin.crt" --key "$state/pki/admin.key" "$api$1"; }
api_ready() {
  alive "$state/run/kube-apiserver.pid" || { tail -n 15 "$state/logs/kube-apiserver.log" >&2; die "kube-apiserver ended"; }
  [[ $(api_get /readyz 2>/dev/null) == ok ]]
}
default_account_there() { api_get /api/v1/namespaces/default/serviceaccounts/default >/dev/null 2>&1; }

parts() { echo etcd kube-apiserver kube-controller-manager kube-scheduler; if [[ $mode == embedded ]]; then echo kwok; fi; }

control_plane_runs() {
  local part
  for part in $(parts); do alive "$state/run/$part.pid" || return 1; done
}

start_etcd() {
  part etcd "$bin/etcd" --name drover --data-dir "$state/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls "http://127.0.0.1:$etcd_port" --advertise-client-urls "http://127.0.0.1:$etcd_port" \
    --listen-peer-urls "http://127.0.0.1:$etcd_peer_port" --initial-advertise-peer-urls "http://127.0.0.1:$etcd_peer_port" \
    --initial-cluster "drover=http://127.0.0.1:$etcd_peer_port"
}

start_apiserver() {
  local more=()
  if [[ $mode == machines ]]; then
    # Webhooks and aggregated APIs are reached at their pods: this process is on no node, so no kube-proxy serves it.
    more=(--advertise-address "$bridge_address" --enable-aggregator-routing=true)
  else
    more=(--endpoint-reconciler-type=none) # nobody could reach a loopback address through a Service
  fi
  part kube-apiserver "$bin/kube-apiserver" --etcd-servers "http://127.0.0.1:$etcd_port" \
    --bind-address "$api_address" --secure-port "$api_port" --service-cluster-ip-range "$service_cidr" \
    --tls-cert-file "$pki/kube-apiserver.crt" --tls-private-key-file "$pki/kube-apiserver.key" --client-ca-file "$pki/ca.crt" \
    --anonymous-auth=false --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
    --service-account-issuer https://kubernetes.default.svc --api-audiences https://kubernetes.default.svc \
    --service-account-key-file "$pki/service-accounts.pub" --service-account-signing-key-file "$pki/service-accounts.key" \
    --kubelet-preferred-address-types InternalIP --kubelet-certificate-authority "$pki/ca.crt" \
    --kubelet-client-certificate "$pki/kubelet-client.crt" --kubelet-client-key "$pki/kubelet-client.key" \
    --audit-policy-file "$here/files/audit-policy.yaml" --audit-log-path "$state/audit.log" --audit-log-mode blocking --audit-log-maxsize 4000 \
    --requestheader-client-ca-file "$pki/ca.crt" --requestheader-allowed-names front-proxy \
    --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group --requestheader-extra-headers-prefix X-Remote-Extra- \
    --proxy-client-cert-file "$pki/front-proxy.crt" --proxy-client-key-file "$pki/front-proxy.key" \
    --shutdown-delay-duration 0s --profiling=false "${more[@]}"
}

start_controllers() {
  local half grace=${node_grace:-12s}
  # Nobody is behind make-believe nodes whose heartbeat could fail: on a busy machine kwok's come late, and a node that was
  # NotReady for that leaves its pods so.
  if [[ $mode == embedded ]]; then grace=1h; fi
  for half in kube-controller-manager kube-scheduler; do kubeconfig "$half" "$state/pki/$half.kubeconfig"; done
  part kube-controller-manager "$bin/kube-controller-manager" --kubeconfig "$pki/kube-controller-manager.kubeconfig" \
    --authentication-kubeconfig "$pki/kube-controller-manager.kubeconfig" --authorization-kubeconfig "$pki/kube-controller-manager.kubeconfig" \
    --bind-address 127.0.0.1 --secure-port "$kcm_port" --leader-elect=false --use-service-account-credentials \
    --service-account-private-key-file "$pki/service-accounts.key" --root-ca-file "$pki/ca.crt" \
    --cluster-signing-cert-file "$pki/ca.crt" --cluster-signing-key-file "$pki/ca.key" \
    --service-cluster-ip-range "$service_cidr" --allocate-node-cidrs=false \
    --node-monitor-period 2s --node-monitor-grace-period $grace --profiling=false \
    --kube-api-qps 200 --kube-api-burst 400 # with the defaults its own limits hold its start up for four seconds
  part kube-scheduler "$bin/kube-scheduler" --kubeconfig "$pki/kube-scheduler.kubeconfig" \
    --authentication-kubeconfig "$pki/kube-scheduler.kubeconfig" --authorization-kubeconfig "$pki/kube-scheduler.kubeconfig" \
    --bind-address 127.0.0.1 --secure-port "$scheduler_port" --leader-elect=false --profiling=false
}

# start_control_plane returns when the API server answers.
start_control_plane() {
  mkdir -p "$state"/{run,logs}
  make_certs
  start_etcd
  start_apiserver
  kubeconfig admin "$state/kubeconfig"
  wait_for 60 "the API server (see $state/logs)" api_ready
  start_controllers
}

stop_control_plane() {
  # The API server waits for its watchers unless they are gone, so the clients end first; its data is thrown away with it.
  finish 2 "$state/run/"{kwok,kube-scheduler,kube-controller-manager}.pid
  finish 1 "$state/run/kube-apiserver.pid"
  finish 1 "$state/run/etcd.pid"
}
