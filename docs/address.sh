#!/bin/sh
# Moves an IP address to the node that serves: for `on-promote` and `on-demote` of a node's configuration, see docs/failover.md.
#
#   address add ADDRESS/LENGTH INTERFACE       address remove ADDRESS/LENGTH INTERFACE
#
# It may be run again: an address that is there already, or not there any more, is no failure. Needs `ip` (package iproute2), `arping`
# (package iputils-arping), and the capability NET_ADMIN, with NET_RAW for arping.
set -eu

if [ $# -ne 3 ]; then
    echo "usage: $0 add|remove ADDRESS/LENGTH INTERFACE" >&2
    exit 2
fi
action=$1 address=$2 interface=$3

echo "dataset ${MIRRORBUS_DATASET:-?} on ${MIRRORBUS_NODE:-?} (${MIRRORBUS_REASON:-?}): $action $address on $interface"
case $action in
add)
    ip address replace "$address" dev "$interface"
    # Neighbours that still know the other node's are told. That nobody hears it is no failure.
    arping -q -U -c 3 -w 3 -I "$interface" "${address%/*}" || true
    ;;
remove)
    if [ -n "$(ip -o address show dev "$interface" to "${address%/*}")" ]; then
        ip address del "$address" dev "$interface"
    fi
    ;;
*)
    echo "$0: $action is neither add nor remove" >&2
    exit 2
    ;;
esac
