#!/bin/bash
# tulips as a peer of a bench that knows peers as scripts: `tulips.sh up VARIANT`, `tulips.sh down VARIANT`.
# Link or copy it beside that bench's common.sh, which says where (NSA NSB, OA OB, IA IB, VA VB, WORK) and has the helpers.
# VARIANT: udp-1 udp-2 raw-1 raw-2 (ESP in UDP or not, and workers). AES-128-GCM. Programs: in $TULIPS, or in PATH.
. "$(dirname "$0")/common.sh"
bin=${TULIPS:+$TULIPS/}
ipsec() { # ipsec SIDE COMMAND...: on that side's daemon
  local ns=$NSA; [ "$1" = b ] && ns=$NSB
  local rundir=$WORK/run-$1; shift
  inns "$ns" env IPSEC_RUNDIR="$rundir" "${bin}ipsec" "$@" || die "ipsec $*"; }
sa() { # sa SIDE SAID FROM INNER-FROM INNER-TO KEY
  local natt=(--natt nonesp); [ "${VAR%-*}" = raw ] && natt=()
  ipsec "$1" spi --said "$2" --src "$3" --esp aes-gcm16 --enckey "@$6" --inner-src "$4/32" --inner-dst "$5/32" \
    --replay-window 1024 --esn "${natt[@]}"; }
VAR=$2
case $1 in
up)
  : >"$WORK/pids"; echo "$("${bin}ipsec" --version | head -1), $VAR" >"$WORK/version"
  for key in ab ba; do (umask 077; echo "0x$(head -c20 /dev/urandom | od -An -vtx1 | tr -d ' \n')" >"$WORK/key-$key"); done
  inns "$NSA" ip addr add "$IA/32" dev lo; inns "$NSB" ip addr add "$IB/32" dev lo
  daemon "$NSA" a.log env IPSEC_RUNDIR="$WORK/run-a" "${bin}klips" --foreground --workers "${VAR#*-}"
  daemon "$NSB" b.log env IPSEC_RUNDIR="$WORK/run-b" "${bin}klips" --foreground --workers "${VAR#*-}"
  for side in a b; do
    for _ in $(seq 100); do [ -S "$WORK/run-$side/klips.ctl" ] && break; sleep 0.05; done
    physical=$VA; [ $side = b ] && physical=$VB
    ipsec $side tncfg --attach --virtual ipsec0 --physical "$physical"
    sa $side "esp0x1000@$OB" "$OA" "$IA" "$IB" "$WORK/key-ab"
    sa $side "esp0x1001@$OA" "$OB" "$IB" "$IA" "$WORK/key-ba"
  done
  ipsec a eroute --add --src "$IA/32" --dst "$IB/32" --said "esp0x1000@$OB"
  ipsec b eroute --add --src "$IB/32" --dst "$IA/32" --said "esp0x1001@$OA"
  inns "$NSA" ip route add "$IB/32" dev ipsec0 src "$IA"; inns "$NSB" ip route add "$IA/32" dev ipsec0 src "$IB"
  wait_ping;;
down) stop_pids;;
esac
