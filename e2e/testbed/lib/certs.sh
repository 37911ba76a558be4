# shellcheck shell=bash
# One small authority for each testbed, and what it signs. All keys are elliptic: they take milliseconds to make.

pki=  # set by make_certs

# issue NAME SUBJECT [SAN]: a key and a certificate that serves both as a client's and as a server's.
issue() {
  local extra=()
  [[ ! -f $pki/$1.crt ]] || return 0
  [[ -z ${3:-} ]] || extra=(-addext "subjectAltName=$3")
  openssl req -x509 -config <(printf '[req]\ndistinguished_name=dn\n[dn]\n') -CA "$pki/ca.crt" -CAkey "$pki/ca.key" \
    -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 3650 -subj "$2" "${extra[@]}" \
    -addext basicConstraints=critical,CA:FALSE -addext keyUsage=critical,digitalSignature \
    -addext extendedKeyUsage=clientAuth,serverAuth \
    -keyout "$pki/$1.key" -out "$pki/$1.crt.new" 2>/dev/null || die "openssl could not make the certificate of $1"
  mv "$pki/$1.crt.new" "$pki/$1.crt"
}

make_certs() {
  pki=$state/pki
  (umask 077 && mkdir -p "$pki")
  if [[ ! -f $pki/ca.crt ]]; then
    openssl req -x509 -config <(printf '[req]\ndistinguished_name=dn\n[dn]\n') -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc \
      -days 3650 -subj "/CN=drover testbed $name" -addext basicConstraints=critical,CA:TRUE \
      -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature -addext subjectKeyIdentifier=hash \
      -keyout "$pki/ca.key" -out "$pki/ca.crt" 2>/dev/null || die "openssl could not make the authority's certificate"
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$pki/service-accounts.key" 2>/dev/null
    openssl pkey -in "$pki/service-accounts.key" -pubout -out "$pki/service-accounts.pub"
  fi
  issue kube-apiserver /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:$service_address,IP:$bridge_address,IP:127.0.0.1"
  issue admin /O=system:masters/CN=admin
  issue kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
  issue front-proxy /CN=front-proxy # by which aggregated APIs know the API server
  issue kube-controller-manager /CN=system:kube-controller-manager
  issue kube-scheduler /CN=system:kube-scheduler
  issue kube-proxy /CN=system:kube-proxy
}

# kubeconfig NAME FILE: one file that holds all that it needs.
kubeconfig() {
  (umask 077 && cat > "$2") <<YAML
apiVersion: v1
kind: Config
current-context: drover
clusters:
  - name: drover
    cluster:
      server: $api
      certificate-authority-data: $(base64 -w0 "$pki/ca.crt")
contexts:
  - name: drover
    context: { cluster: drover, user: $1 }
users:
  - name: $1
    user:
      client-certificate-data: $(base64 -w0 "$pki/$1.crt")
      client-key-data: $(base64 -w0 "$pki/$1.key")
YAML
}
