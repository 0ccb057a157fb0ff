#!/bin/sh
# The first process of a guest (guest.rs): from the file system in memory to one laid over the host's, read-only below.
mount -t proc proc /proc
mount -t devtmpfs dev /dev
# In whatever order they depend on each other.
for _ in 1 2 3 4 5; do
  for module in /modules/*.ko; do insmod "$module" 2>/dev/null; done
done
mount -t tmpfs -o size=60% tmpfs /rw
mkdir -p /rw/upper /rw/work /rw/root
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro host /host || exit 1
# Two layers of one overlay must not lie within each other.
lower=/host
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro extra /extra 2>/dev/null && lower=/extra:/host
mount -t overlay -o "lowerdir=$lower,upperdir=/rw/upper,workdir=/rw/work,xino=off" overlay /rw/root || exit 1
cd /rw/root || exit 1
mkdir -p proc sys dev run tmp share
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=none share share || exit 1
mount -t sysfs sys sys
mount -t tmpfs run run; mount -t tmpfs -o mode=1777 tmp tmp
mkdir -p run/lock
rm -rf usr/lib/modules; mkdir -p usr/lib; ln -s "$GUEST_KERNEL/lib/modules" usr/lib/modules
umount /proc
exec switch_root /rw/root /bin/bash /share/second
