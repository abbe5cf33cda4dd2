#!/bin/sh
# Leads one port of the cluster address of Service default/kubernetes, on this machine alone.
#
#   sh pod-way.sh holdfast     to Holdfast, on a link-local address of its own
#   sh pod-way.sh direct       to the API server: what was started here goes on without Holdfast
#   sh pod-way.sh none         nowhere, as on a machine that has never had us
#
# Pods that kubelet starts while this node is behind Holdfast know the API server by that port. The rule is
# the kernel's and ends with a reboot, after which kubelet starts every container anew. Other ports of that
# address are kube-proxy's as ever.
set -u

HOLDFAST_ROOT=${HOLDFAST_ROOT:-}                                    # another root folder, for tests
SETTINGS=${HOLDFAST_POD_WAY:-$HOLDFAST_ROOT/etc/holdfast/pod-way.env}
IP=${IP:-ip}
NFT=${NFT:-nft}
IPTABLES=${IPTABLES:-iptables}
TABLE=holdfast_pods
COMMENT=holdfast-pods

say() { printf '%s\n' "$*"; }
fail() { printf 'pod-way.sh: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" > /dev/null 2>&1; }

# lead ADDRESS PORT: or nowhere, without arguments. Old or new, never both.
lead() {
  if have "$NFT"; then
    {
      printf 'table %s %s\ndelete table %s %s\n' "$family" $TABLE "$family" $TABLE
      [ $# -eq 0 ] || printf 'table %s %s {
        chain prerouting { type nat hook prerouting priority -110; %s daddr %s tcp dport %s dnat to %s:%s; }
        chain output { type nat hook output priority -110; %s daddr %s tcp dport %s dnat to %s:%s; }
      }\n' "$family" $TABLE "$family" "$SERVICE" "$PORT" "$(bracketed "$1")" "$2" "$family" "$SERVICE" "$PORT" "$(bracketed "$1")" "$2"
    } | "$NFT" -f - || fail "nft takes no rule: the kernel may lack nf_nat; see: nft list ruleset"
  elif have "$tables"; then
    for chain in PREROUTING OUTPUT; do
      while "$tables" -w -t nat -S $chain | grep -q -- "--comment $COMMENT"; do
        "$tables" -w -t nat -D $chain "$("$tables" -w -t nat -L $chain --line-numbers | sed -n "/$COMMENT/{s/ .*//p;q}")" || fail "iptables takes no rule away"
      done
      [ $# -eq 0 ] || "$tables" -w -t nat -I $chain 1 -p tcp -d "$SERVICE" --dport "$PORT" -m comment --comment $COMMENT \
        -j DNAT --to-destination "$(bracketed "$1"):$2" || fail "iptables takes no rule"
    done
  else
    fail "neither nft nor iptables is here: install one of them"
  fi
}

bracketed() { case $1 in *:*) printf '[%s]' "$1" ;; *) printf '%s' "$1" ;; esac; }

# address [on|off]: ours, on the loopback device, where no cable can take it away.
address() {
  if [ "$1" = on ]; then
    "$IP" addr replace "$LOCAL/$bits" dev lo || fail "ip takes no address"
  else
    "$IP" addr del "$LOCAL/$bits" dev lo 2> /dev/null
  fi
  return 0
}

main() {
  [ -r "$SETTINGS" ] || { say "no pods come this way: $SETTINGS is not there"; return; }
  SERVICE= PORT= LOCAL= API_SERVER= API_PORT=
  . "$SETTINGS"
  family=ip; tables=$IPTABLES; bits=32
  case $SERVICE in *:*) family=ip6; tables=ip6tables; bits=128 ;; esac
  case ${1:-} in
    holdfast) address on; lead "$LOCAL" "$PORT" ;;
    direct)
      case $API_SERVER in
        *[!0-9a-fA-F:.]* | '') found=$(getent ahosts "$API_SERVER" | sed -n '1s/ .*//p') ;;
        *) found=$API_SERVER ;;
      esac
      [ -n "$found" ] || fail "the API server's name $API_SERVER has no address now"
      lead "$found" "$API_PORT"; address off
      ;;
    none) lead; address off ;;
    *) fail "which way? holdfast, direct or none" ;;
  esac
}

main "$@"
