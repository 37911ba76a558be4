# shellcheck shell=bash
# Images: built with buildah from nothing but a Containerfile and files, and loaded into each machine's containerd.

buildah_() { # its storage is the testbed's own
  buildah --storage-driver vfs --root "$DROVER_CACHE/buildah/root" --runroot "$DROVER_CACHE/buildah/run" "$@"
}

# build_image REFERENCE CONTEXT prints the image's id. The same content has the same id: no times go into it.
build_image() {
  local log
  log=$(mktemp)
  mkdir -p "$DROVER_CACHE/buildah" "$DROVER_CACHE/images"
  if ! buildah_ bud --isolation chroot --timestamp 0 --quiet --tag "$1" --file "$2/Containerfile" "$2" >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    die "buildah could not build $1 from $2"
  fi
  tail -n 1 "$log"
  rm -f "$log"
}

# save_image ID REFERENCE FILE
save_image() {
  rm -f "$3.new"
  buildah_ push --quiet "$1" "docker-archive:$3.new:$2" >/dev/null && mv "$3.new" "$3"
}

make_pause_image() {
  local file=$DROVER_CACHE/images/pause.tar context busybox
  [[ ! -f $file ]] || return 0
  busybox=$(command -v busybox) || die "busybox is missing; install busybox-static"
  context=$(mktemp -d)
  cp "$busybox" "$context/busybox"
  cp "$here/pause/Containerfile" "$context/"
  save_image "$(build_image drover/pause:1 "$context")" drover/pause:1 "$file"
  rm -rf "$context"
}

# load_image NODE REFERENCE ID FILE, unless the machine has it already
load_image() {
  local mark
  mark=$(machine_folder "$1")/images/${2//[\/:]/_}
  if [[ -f $mark && $(<"$mark") == "$3" ]] && in_machine "$1" ctr -n k8s.io images ls -q | grep -qE "(^|/)$2\$"; then return 0; fi
  in_machine "$1" ctr -n k8s.io images import - < "$4" >/dev/null || die "$1 could not load $2"
  echo "$3" > "$mark"
  say "$1 has $2"
}

image() { # image REFERENCE CONTEXT
  local reference=$1 context=$2 id file node jobs=() job
  [[ $reference == *:* ]] || die "say a tag too: $reference:TAG"
  [[ -f $context/Containerfile ]] || die "no Containerfile in $context"
  file=$DROVER_CACHE/images/${reference//[\/:]/_}
  mkdir -p "$DROVER_CACHE/images"
  exec 9>"$DROVER_CACHE/images/.lock"
  flock 9
  id=$(build_image "$reference" "$context")
  if [[ ! -f $file.tar || ! -f $file.id || $(<"$file.id") != "$id" ]]; then
    save_image "$id" "$reference" "$file.tar"
    echo "$id" > "$file.id"
    buildah_ rmi --prune --force >/dev/null 2>&1 || true # the one it replaces
  fi
  exec 9>&-
  for node in $(machine_names); do
    if ! machine_runs "$node"; then say "$node is off: load the image again when it is back"; continue; fi
    load_image "$node" "$reference" "$id" "$file.tar" &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job" || exit 1; done
}
