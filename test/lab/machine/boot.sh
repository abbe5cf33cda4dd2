#!/bin/sh
# The first process of a machine in namespaces of its own (machine.ts): lays its
# disk over the real one's folders, gives it what every boot makes new, starts
# what is enabled, and buries the dead. When it is killed, all that runs there dies.
disk=$1
name=$2

for folder in etc var/lib opt usr/local; do
  mkdir -p "$disk/$folder" "$disk/work/$folder"
  mount -t overlay overlay -o "lowerdir=/$folder,upperdir=$disk/$folder,workdir=$disk/work/$folder" "/$folder" || exit 1
done
# An overlay cannot stand on another one, and containerd makes one for each container.
mkdir -p "$disk/containerd" /var/lib/containerd
mount --bind "$disk/containerd" /var/lib/containerd || exit 1
# The real machine's units are none of this one's business.
mkdir -p /etc/systemd/system
mount --bind "$disk/units" /etc/systemd/system || exit 1
mount -t tmpfs tmpfs /run || exit 1
mount -t proc proc /proc || exit 1
hostname "$name"

systemctl boot
: > "$disk/booted"
while :; do
  sleep 1000 &
  wait $!
done
