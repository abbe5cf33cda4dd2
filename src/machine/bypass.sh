#!/bin/sh
# Puts kubelet on its direct way while Holdfast is down; works where our executable cannot even start.
#
#   sh bypass.sh             one look; holdfast-bypass.timer makes one every minute
#   sh bypass.sh --revert    takes kubelet off Holdfast's way for good, link or no link
#
# Down for two minutes, and the API server answers directly: kubelet goes the direct way. Ready for ten
# minutes: it goes back. Without an answer from the API server nothing is done: the direct way leads nowhere.
#
# On the way through Holdfast kubelet serves by the certificate that Holdfast keeps for it, while there is one:
# a third drop-in, as kubelet's own request never names the node's place.
#
# Where kubelet's certificate has ended in a cut, Holdfast says in a file how kubelet is to start; it is restarted
# when that file comes, changes or goes.
#
# Nothing of ours or kubeadm's is touched: the direct way is a drop-in in /run that sorts behind ours, so a
# power cut ends it. What has been done is written down after kubelet's restart: a look that was killed
# before that restarts kubelet again, one that was not does nothing twice.
set -u

HOLDFAST_ROOT=${HOLDFAST_ROOT:-}                                    # another root folder, for tests
HOLDFAST_HEALTH_URL=${HOLDFAST_HEALTH_URL:-http://127.0.0.1:10267}  # the daemon's healthListen
SYSTEMCTL=${SYSTEMCTL:-systemctl}
CURL=${CURL:-curl}
WGET=${WGET:-wget}
UPTIME_FILE=${UPTIME_FILE:-/proc/uptime}                            # a clock that nobody sets
DOWN_SECONDS=120
READY_SECONDS=600

DROPIN=$HOLDFAST_ROOT/etc/systemd/system/kubelet.service.d/zz-holdfast.conf
DIRECT=$HOLDFAST_ROOT/etc/holdfast/kubelet-direct.conf
BYPASS=$HOLDFAST_ROOT/run/systemd/system/kubelet.service.d/zzz-holdfast-bypass.conf
STATE=$HOLDFAST_ROOT/run/holdfast-bypass
KUBECONFIG=/etc/holdfast/kubelet.kubeconfig
SERVING=$HOLDFAST_ROOT/etc/systemd/system/kubelet.service.d/zz-holdfast.serving.conf
ENDED=$HOLDFAST_ROOT/run/holdfast/kubelet-ended.env
POD_WAY=$HOLDFAST_ROOT/usr/local/lib/holdfast/pod-way.sh

say() { printf '%s\n' "$*"; }
fail() { printf 'bypass.sh: %s\n' "$*" >&2; exit 1; }

now() { read -r up _ < "$UPTIME_FILE"; printf '%s\n' "${up%%.*}"; }

# since NAME: seconds since the first look that called for NAME.
since() {
  [ -s "$STATE/$1" ] || now > "$STATE/$1"
  read -r began < "$STATE/$1"
  printf '%s\n' $(($(now) - began))
}

# fetch URL [CA]: whether URL answers, with a status below 500 where a CA is given (401 is an answer), else with 2xx.
fetch() {
  if command -v "$CURL" > /dev/null 2>&1; then
    if [ $# -eq 1 ]; then "$CURL" -fsS --noproxy '*' --max-time 5 -o /dev/null "$1" > /dev/null 2>&1; return; fi
    code=$("$CURL" -sS --max-time 10 --cacert "$2" -o /dev/null -w '%{http_code}' "$1" 2> /dev/null) || return 1
    case $code in [234]??) return 0 ;; *) return 1 ;; esac
  elif command -v "$WGET" > /dev/null 2>&1; then
    if [ $# -eq 1 ]; then "$WGET" -q -T 5 -O /dev/null "$1" > /dev/null 2>&1; return; fi
    "$WGET" -q -T 10 --ca-certificate="$2" -O /dev/null "$1" > /dev/null 2>&1
  else
    fail "neither curl nor wget is here: nobody can tell whether Holdfast or the API server answers"
  fi
}

# field NAME FILE: its first value in a kubeconfig.
field() { sed -n "s/^[[:space:]-]*$1:[[:space:]]*[\"']\{0,1\}\([^\"' ]*\).*/\1/p" "$2" | head -n 1; }

# Whether the API server answers on kubelet's direct way, under the CA of that kubeconfig.
api_server_answers() {
  kubeconfig=$(sed -n 's/.*--kubeconfig=\([^" ]*\).*/\1/p' "$DIRECT" | head -n 1)
  kubeconfig=$HOLDFAST_ROOT$kubeconfig
  [ -r "$kubeconfig" ] || { say "the direct kubeconfig $kubeconfig cannot be read"; return 1; }
  server=$(field server "$kubeconfig")
  ca=$(field certificate-authority "$kubeconfig")
  if [ -z "$ca" ]; then
    ca=$STATE/ca.crt
    field certificate-authority-data "$kubeconfig" | base64 -d > "$ca" 2> /dev/null
  fi
  [ -n "$server" ] && [ -s "$ca" ] && fetch "$server/readyz" "$ca"
}

# pods WAY: the port that pods are told leads the same way; where it cannot, kubelet goes on alone.
pods() { [ ! -r "$POD_WAY" ] || sh "$POD_WAY" "$1" || say "pods were not led the $1 way"; }

# The certificate that Holdfast keeps for kubelet, beside the CA that kubelet's kubeconfig names.
serving_pem() {
  sed -n 's|.*"certificate-authority": *"\(.*\)/local-ca\.crt".*|\1/kubelet-serving.pem|p' "$HOLDFAST_ROOT$KUBECONFIG" | head -n 1
}

# Kubelet reads a renewed file by itself; it is restarted when there is one for the first time, or no more.
serving() {
  pem=$(serving_pem)
  if [ -n "$pem" ] && [ -s "$HOLDFAST_ROOT$pem" ]; then
    [ -e "$SERVING" ] || {
      : > "$STATE/serving"
      printf '%s\n' '# Made by "bypass.sh"; "holdfast revert" takes it away.' '[Service]' \
        "Environment=\"KUBELET_KUBECONFIG_ARGS=--kubeconfig=$KUBECONFIG --rotate-server-certificates=false --tls-cert-file=$pem --tls-private-key-file=$pem\"" \
        > "$SERVING.new" && mv "$SERVING.new" "$SERVING" || fail "cannot write $SERVING"
    }
  elif [ -e "$SERVING" ]; then : > "$STATE/serving"; rm -f "$SERVING"; fi
  [ -e "$STATE/serving" ] || return 0
  "$SYSTEMCTL" daemon-reload || fail "systemctl daemon-reload failed; the next look tries again"
  "$SYSTEMCTL" restart kubelet || fail "systemctl restart kubelet failed; the next look tries again"
  rm -f "$STATE/serving"
  if [ -e "$SERVING" ]; then say "kubelet serves by the certificate that Holdfast keeps"; else say "kubelet serves by its own certificate again"; fi
}

# Kubelet reads how it is to start when it starts.
ended() {
  said=-
  [ ! -e "$ENDED" ] || said=$(cksum < "$ENDED")
  was=-
  [ ! -s "$STATE/ended" ] || read -r was < "$STATE/ended"
  [ "$said" != "$was" ] || return 0
  "$SYSTEMCTL" restart kubelet || fail "systemctl restart kubelet failed; the next look tries again"
  say "$said" > "$STATE/ended"
  if [ "$said" = - ]; then say "kubelet renews its certificate again"; else say "kubelet's certificate has ended: it shows it all the same"; fi
}

# settle WAY: kubelet runs the way its files say.
settle() {
  was=holdfast
  [ -s "$STATE/way" ] && read -r was < "$STATE/way"
  [ "$was" = "$1" ] && return
  "$SYSTEMCTL" daemon-reload || fail "systemctl daemon-reload failed; the next look tries again"
  "$SYSTEMCTL" restart kubelet || fail "systemctl restart kubelet failed; the next look tries again"
  say "$1" > "$STATE/way"
  say "kubelet goes the $1 way now"
}

look_from_holdfast() {
  settle holdfast
  serving
  if fetch "$HOLDFAST_HEALTH_URL/livez"; then rm -f "$STATE/down"; pods holdfast; ended; return; fi
  down=$(since down)
  if [ "$down" -lt "$DOWN_SECONDS" ]; then say "Holdfast has not answered for $down s"; return; fi
  if ! api_server_answers; then say "Holdfast has not answered for $down s, and neither does the API server"; return; fi
  rm -f "$STATE/down" "$STATE/ready"
  mkdir -p "${BYPASS%/*}"
  # What is read from a file counts above all drop-ins.
  rm -f "$ENDED" "$STATE/ended"
  cp "$DIRECT" "$STATE/direct.new" && mv "$STATE/direct.new" "$BYPASS" || fail "cannot write $BYPASS"
  pods direct
  settle direct
}

look_from_direct() {
  rm -f "$ENDED" "$STATE/ended"
  settle direct
  if ! fetch "$HOLDFAST_HEALTH_URL/readyz"; then rm -f "$STATE/ready"; return; fi
  ready=$(since ready)
  if [ "$ready" -lt "$READY_SECONDS" ]; then say "Holdfast has been ready again for $ready s"; return; fi
  rm -f "$STATE/ready" "$STATE/down" "$BYPASS"
  pods holdfast
  settle holdfast
}

revert() {
  [ -e "$DROPIN" ] || [ -e "$BYPASS" ] || { say "kubelet is on its own way already"; return; }
  rm -f "$DROPIN" "$BYPASS" "$SERVING" "$ENDED"
  rm -rf "$STATE"
  pods direct
  "$SYSTEMCTL" daemon-reload || fail "systemctl daemon-reload failed: run it, then systemctl restart kubelet"
  "$SYSTEMCTL" restart kubelet || fail "systemctl restart kubelet failed: look at journalctl -u kubelet"
  say "kubelet is on its own way; Holdfast itself was left running"
}

main() {
  case ${1:-} in
    '') ;;
    --revert) revert; return ;;
    *) fail "unknown argument \"$1\"; there is --revert" ;;
  esac
  if [ ! -e "$DROPIN" ] || [ ! -r "$DIRECT" ]; then say "kubelet does not go through Holdfast: nothing to watch"; return; fi
  mkdir -p "$STATE" || fail "cannot make $STATE"
  if [ -e "$BYPASS" ]; then look_from_direct; else look_from_holdfast; fi
}

main "$@"
