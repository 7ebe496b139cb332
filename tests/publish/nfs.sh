#!/bin/bash
# The first process of a Linux that runs as a process of the host, with the files of the host, which it does not change:
# serves a disk by NFS, mounts it twice as two hosts would, and publishes through both mounts. Environment: PACKAGES, where
# the packages are unpacked; PUBLISH, the program; CONFIGS, the directory of the configurations.

export PATH=$PACKAGES/usr/sbin:$PACKAGES/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LD_LIBRARY_PATH=$PACKAGES/lib/x86_64-linux-gnu:$PACKAGES/usr/lib/x86_64-linux-gnu
mount -t proc proc /proc
trap 'sync; echo o > /proc/sysrq-trigger; sleep 60' EXIT
set -euo pipefail

for place in /run /mnt /var/lib; do mount -t tmpfs tmpfs $place; done
python3 - "$PACKAGES"/usr/lib/uml/modules/* <<'PYTHON'
import ctypes
import os
import sys

home = sys.argv[1]
needed = dict(line.strip().split(":") for line in open(home + "/modules.dep"))
libc, loaded = ctypes.CDLL(None, use_errno=True), set()
FINIT_MODULE = 313


def load(module):
    for other in needed[module].split():
        load(other)
    if module not in loaded:
        loaded.add(module)
        file = os.open(f"{home}/{module}", os.O_RDONLY)
        if libc.syscall(FINIT_MODULE, file, b"", 0):
            sys.exit(f"{module}: {os.strerror(ctypes.get_errno())}")


for module in ("fs/nfsd/nfsd.ko", "fs/nfs/nfsv4.ko", "fs/nfs/nfsv3.ko"):
    load("kernel/" + module)
PYTHON

cp -a /etc /run/etc
cp "$PACKAGES/etc/netconfig" /run/etc/ 2>/dev/null || true
echo "_rpc:x:399:65534::/run/rpcbind:/usr/sbin/nologin" >> /run/etc/passwd
touch /run/etc/exports
mount --bind /run/etc /etc
mkdir -p /mnt/server /mnt/a /mnt/b /run/rpcbind /run/sendsigs.omit.d /var/lib/nfs/v4recovery /var/lib/nfs/rpc_pipefs
touch /var/lib/nfs/etab /var/lib/nfs/rmtab
mount -t ext4 /dev/ubda /mnt/server
mount -t nfsd nfsd /proc/fs/nfsd
ip link set lo up
rpcbind
exportfs -o rw,no_root_squash,fsid=0,no_subtree_check,sync '*:/mnt/server'
rpc.mountd --no-udp
rpc.nfsd 4
# Clients need not wait for those of a server before this one.
echo Y > /proc/fs/nfsd/v4_end_grace
mount.nfs4 127.0.0.1:/ /mnt/a -o vers=4.2,nosharecache
mount.nfs 127.0.0.1:/mnt/server /mnt/b -o vers=3,nosharecache,nolock

for stage in before after; do
    twins=()
    for mount in a b a b; do
        "$PUBLISH" --config "$CONFIGS/$stage-$mount.toml" once & twins+=($!)
    done
    # One is killed in any of its steps; the others need not wait for it.
    sleep "0.$((RANDOM % 10))"
    kill -9 "${twins[0]}" || true
    for twin in "${twins[@]:1}"; do wait "$twin"; done
done
for mount in a b; do
    "$PUBLISH" --config "$CONFIGS/after-$mount.toml" verify
done
umount /mnt/a /mnt/b
echo "all is published"
