# shellcheck shell=bash
# What the scripts of this folder share: where things are, and how they speak.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
testbed=$repo/e2e/testbed/testbed
: "${DROVER_CACHE:=${XDG_CACHE_HOME:-$HOME/.cache}/drover}"
: "${CARGO_TARGET_DIR:=$repo/target}"
export DROVER_CACHE CARGO_TARGET_DIR
target=x86_64-unknown-linux-musl
product=$CARGO_TARGET_DIR/$target/release
bin=$DROVER_CACHE/control-plane

say() { printf '%s\n' "$*" >&2; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# step TITLE: a headline with the time since the start.
step() { printf '\n\033[1m== %s\033[0m  (%d:%02d)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)) >&2; }

# needs_toolchain: what builds the product. Cargo and Go are the user's; the rest is installed.
needs_toolchain() {
  command -v cargo >/dev/null || die "cargo is missing: install Rust (https://rustup.rs) and put it on PATH"
  command -v go >/dev/null || [[ -f $bin/kubernetes.stamp ]] || die "Go is missing: install Go 1.26 or later and put it on PATH"
  if ! command -v musl-gcc >/dev/null; then
    ((EUID == 0)) || die "musl-gcc is missing; as root: apt-get install musl-tools"
    say "installing musl-tools"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends musl-tools gcc libc6-dev make; } >/dev/null 2>&1 ||
      die "apt-get could not install musl-tools"
  fi
  [[ -d $(cd "$repo" && rustc --print sysroot)/lib/rustlib/$target ]] ||
    (cd "$repo" && rustup target add $target >/dev/null 2>&1) ||
    die "Rust's standard library for $target is missing: rustup target add $target"
}

# needs_program PROGRAM PACKAGE: a tool of the machine that some tests use; installed where that is possible.
needs_program() {
  if command -v "$1" >/dev/null; then return; fi
  ((EUID == 0)) || die "$1 is missing; as root: apt-get install $2"
  say "installing $2"
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$2"; } >/dev/null 2>&1 ||
    die "apt-get could not install $2"
}

# build_product: the static binaries that go into the images.
build_product() {
  needs_toolchain
  (cd "$repo" && cargo build --locked --release --target $target -p drover-operator -p drover-agent) ||
    die "the product does not build"
}

# load_images NAME: builds the images and loads them into the machines of a testbed.
load_images() {
  local image context
  context=$(mktemp -d)
  for image in drover drover-agent herd-web; do
    rm -rf "${context:?}/$image" && cp -r "$repo/e2e/images/$image" "$context/$image"
    case $image in
      herd-web) cp "$(command -v busybox)" "$context/$image/busybox" ;;
      *) cp "$product/$image" "$context/$image/" ;;
    esac
    "$testbed" image --name "$1" "localhost/$image:dev" "$context/$image" || die "image $image could not be loaded"
  done
  rm -rf "$context"
}

# kubectl and helm are the control plane's own: nothing of the machine's is assumed.
kubectl() { "$bin/kubectl" --kubeconfig "$KUBECONFIG" "$@"; }
helm() { "$bin/helm" --kubeconfig "$KUBECONFIG" "$@"; }

# install_product [HELM OPTION...]: the chart, into the cluster of KUBECONFIG; waits until all of it runs. A pod that runs
# another build of the same tag is replaced.
install_product() {
  local stamp before
  before=$(kubectl -n drover-system get deployment drover-operator -o 'jsonpath={.spec.template.metadata.annotations.build}' 2>/dev/null || true)
  stamp=$(cat "$product/drover" "$product/drover-agent" | sha256sum | cut -c1-16)
  # The chart's crds/ folder is for the first installation; this is how an upgrade brings new ones.
  kubectl apply --server-side --force-conflicts -f "$repo/helm/drover/crds" >/dev/null
  helm upgrade --install drover "$repo/helm/drover" --namespace drover-system --create-namespace \
    --set operator.image.tag=dev --set agent.image.tag=dev --set operator.image.pullPolicy=Never --set agent.image.pullPolicy=Never \
    --set-string operator.podAnnotations.build="$stamp" --set-string agent.podAnnotations.build="$stamp" "$@" >/dev/null ||
    die "the chart could not be installed"
  # The masters are the operator's, which sees the same tag as before.
  if [[ -n $before && $before != "$stamp" ]]; then kubectl -n drover-system rollout restart deployment/drover-masters >/dev/null; fi
}

# wait_for_product: until the operator, the masters and all agents run.
wait_for_product() {
  kubectl -n drover-system rollout status deployment/drover-operator --timeout=120s >/dev/null &&
    kubectl -n drover-system wait masterpool/masters --for=condition=Ready --timeout=120s >/dev/null &&
    kubectl -n drover-system rollout status daemonset/drover-agent --timeout=120s >/dev/null ||
    { kubectl -n drover-system get pods -o wide >&2; die "the product does not run; see the pods above"; }
}
