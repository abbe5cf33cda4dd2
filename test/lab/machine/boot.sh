#!/bin/sh
# Boots a folder as a machine (machine.ts): systemd as its first process, in the network it is started in.
#
#   boot.sh DISK NAME LISTS      LISTS: the cgroup.procs files of a cgroup of its own, in every hierarchy
#
# It keeps this machine's /usr, read only, with what a node of its own would have there. Its cgroup is its whole world: its systemd must not meet another one's.
disk=$1
name=$2
for list in $3; do echo $$ > "$list" || exit 1; done
# nspawn's own condition; the mount namespace keeps it from this machine.
mkdir -p /run/systemd/nspawn && mount -t tmpfs tmpfs /run/systemd/nspawn || exit 1
# /proc/sys is the namespaces' own, or already as kubelet wants it.
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=no SYSTEMD_NSPAWN_API_VFS_WRITABLE=yes SYSTEMD_NSPAWN_LOCK=0
exec systemd-nspawn -q --register=no --keep-unit -D "$disk" -M "$name" --capability=all \
  --system-call-filter='@keyring bpf' --overlay-ro="/usr:$disk/more-usr:/usr" --bind="$disk/local:/usr/local" --bind-ro="$4:/programs" \
  --bind=/dev/kmsg --resolv-conf=off --timezone=off --link-journal=no -b systemd.unit=multi-user.target
