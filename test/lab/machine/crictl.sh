#!/bin/sh
# The lines of crictl that Holdfast and the tests use, by containerd's own client:
#
#   crictl ps -q [--name NAME]      running containers without their sandboxes
#   crictl stop ID...
#
# The real one is a module of its own, and minutes of compiling.
case $1 in
  ps)
    [ "$2" = -q ] || { echo "Unknown arguments $*" >&2; exit 1; }
    filter='labels."io.cri-containerd.kind"==container'
    [ "$3" = --name ] && filter="$filter,labels.\"io.kubernetes.container.name\"==${4#^}"
    filter=${filter%\$}
    containers=$(ctr -n k8s.io containers ls -q "$filter") || exit 1
    ctr -n k8s.io tasks ls | while read -r id _ status; do
      [ "$status" = RUNNING ] && echo "$containers" | grep -x "$id"
    done
    true
    ;;
  stop)
    shift
    for id in "$@"; do ctr -n k8s.io tasks kill -s SIGTERM "$id" || exit 1; done
    ;;
  *) echo "Unknown arguments $*" >&2; exit 1 ;;
esac
