#!/bin/sh
# The first process of a guest: loads the modules, brings up soft-RoCE, then carries out what comes through its ports.
# The kernel's command line gave it `guest` (1 or 2) and `disk` (yes or no) as variables.
export PATH=/bin HOME=/root TERM=dumb
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /tmp /run /root
for place in /dev/shm /tmp /run; do mount -t tmpfs tmpfs $place; done
ulimit -l unlimited
ulimit -n 4096
# What only a disk needs takes a tenth of a start. A disk may also be plugged in later.
for module in $(cat /etc/modules); do
    case $module in virtio_blk | ext4 | jbd2 | mbcache | crc16) echo $module >>/etc/modules.disk && continue ;; esac
    insmod /lib/modules/$module.ko || echo "cannot load $module"
done
cat >/bin/disk-up <<'EOF'
for module in $(cat /etc/modules.disk); do insmod /lib/modules/$module.ko || exit; done
until test -e /dev/vda; do sleep 0.05; done
EOF
test "$disk" = no || sh /bin/disk-up || echo "cannot load the modules of a disk"

hostname guest$guest
ip link set lo up
ip link set eth0 mtu 9000
ip address add 10.77.0.$guest/24 dev eth0
# Known for good: a cut must not be found by asking for the address. A card that was down has forgotten it.
peer=$((3 - guest))
cat >/bin/link-up <<EOF
ip link set eth0 up
arp -s 10.77.0.$peer 52:54:00:77:00:0$peer
EOF
. /bin/link-up
# This host, for what is outside of both guests.
ip address add 10.0.2.15/24 dev eth1
ip link set eth1 up
rdma link add rxe0 type rxe netdev eth0

# Carries out the requests of one port, one after another. A request is a line `ID LIMIT BYTES`, and a script of so many
# bytes; the answer is what the script writes between `BEGIN ID` and `END ID STATUS`.
serve() {
    exec 3<>$1
    while read -r id limit bytes <&3; do
        script=/run/script.$id
        head -c $bytes <&3 >$script
        echo "BEGIN $id" >&3
        # A session of its own, so that all that it started ends with it.
        setsid timeout -s KILL $limit sh $script >&3 2>&1 </dev/null 3>&- &
        echo $! >/run/process.$id
        wait $!
        status=$?
        kill -KILL -$! 2>/dev/null
        printf '\nEND %s %d\n' $id $status >&3
        rm -f $script /run/process.$id
    done
}

for port in /sys/class/virtio-ports/*; do
    serve /dev/${port##*/} &
done
until rdma link show rxe0/1 | grep -q 'state ACTIVE'; do sleep 0.05; done
touch /run/up
wait
