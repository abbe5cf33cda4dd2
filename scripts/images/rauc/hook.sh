#!/bin/sh
# In a bundle: the kernel of the slot that was just written goes to its folder
# on the FAT partition, where the loader looks for it.
set -eu

boot=${HOLDFAST_BOOT:-/boot/efi}

case "$1" in
  slot-post-install)
    into="$boot/slot-$RAUC_SLOT_BOOTNAME"
    [ -n "${HOLDFAST_BOOT:-}" ] || mount -o remount,rw "$boot"
    for file in vmlinuz initrd.img; do
      set -- "$RAUC_SLOT_MOUNT_POINT"/boot/"$file"*
      cp "$1" "$into/$file.new"
      sync "$into/$file.new"
      mv "$into/$file.new" "$into/$file"
    done
    sync "$boot"
    [ -n "${HOLDFAST_BOOT:-}" ] || mount -o remount,ro "$boot"
    ;;
  *) exit 1 ;;
esac
