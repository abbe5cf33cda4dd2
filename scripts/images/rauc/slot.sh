#!/bin/sh
# The two slots of the image by their names, a and b: RAUC's way to turn them.
# https://rauc.readthedocs.io/en/latest/integration.html#custom
#
#   slot.sh get-primary              the slot that starts next
#   slot.sh set-primary SLOT
#   slot.sh get-state SLOT           good or bad
#   slot.sh set-state SLOT good|bad
#   slot.sh get-current              the slot that runs
#
# The loader's configuration is on the FAT partition, mounted read-only; it is
# written whole beside itself and renamed, so that power which goes in between
# leaves one slot or the other. States are on the data partition: both slots
# share them.
set -eu

boot=${HOLDFAST_BOOT:-/boot/efi}
states=${HOLDFAST_SLOT_STATES:-/var/lib/holdfast-image}
cmdline=${HOLDFAST_CMDLINE:-/proc/cmdline}
loader="$boot/loader/loader.conf"

fail() {
  echo "slot.sh: $*" >&2
  exit 1
}

named() {
  case "${1:-}" in
    a | b) echo "$1" ;;
    *) fail "Cannot use slot \"${1:-}\": there are a and b" ;;
  esac
}

writable() {
  [ -n "${HOLDFAST_BOOT:-}" ] || mount -o "remount,$1" "$boot"
}

main() {
  case "${1:-}" in
    get-primary)
      slot=$(sed -n 's/^default slot-\([ab]\)\.conf$/\1/p' "$loader")
      named "$slot"
      ;;
    get-current)
      slot=$(sed -n 's/.*root=PARTLABEL=root-\([ab]\)\( .*\)*$/\1/p' "$cmdline")
      named "$slot"
      ;;
    set-primary)
      slot=$(named "${2:-}")
      writable rw
      sed "s/^default .*/default slot-$slot.conf/" "$loader" > "$loader.new"
      sync "$loader.new"
      mv "$loader.new" "$loader"
      sync "$boot"
      writable ro
      set_state "$slot" good
      ;;
    get-state)
      slot=$(named "${2:-}")
      if [ -e "$states/slot-$slot.bad" ]; then echo bad; else echo good; fi
      ;;
    set-state) set_state "$(named "${2:-}")" "${3:-}" ;;
    *) fail "Cannot do \"${1:-}\": get-primary, set-primary, get-state, set-state, get-current" ;;
  esac
}

set_state() {
  mkdir -p "$states"
  case "$2" in
    good) rm -f "$states/slot-$1.bad" ;;
    bad) : > "$states/slot-$1.bad" ;;
    *) fail "Cannot set state \"$2\": good or bad" ;;
  esac
  sync "$states"
}

main "$@"
