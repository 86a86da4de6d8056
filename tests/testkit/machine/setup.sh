#!/bin/sh
# Process 1 of a machine's namespaces (see machine.py): builds its root, then becomes systemd.
# $1 an empty folder of the host, $2 the path of systemd, $3 more shell: bind mounts (from below /.host) and files.
# The host's tree is moved to /.host before anything is written or removed, so that no symbolic link can lead a write out of the overlay.
set -eu
base=$1
mount -t tmpfs -o mode=0755 machine "$base"
mkdir "$base/upper" "$base/work" "$base/root"
mount -t overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" machine "$base/root"
mkdir "$base/root/.host"
cd "$base/root"
pivot_root . .host
cd /

mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount --bind /.host/sys /sys
mount -o remount,bind,ro /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=0755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs -o mode=1777 tmp /var/tmp
mount -t tmpfs -o mode=0755 dev /dev
for node in null zero full random urandom tty; do
    : > "/dev/$node"
    mount --bind "/.host/dev/$node" "/dev/$node"
done
mkdir /dev/shm /dev/pts /dev/mqueue
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts
ln -s pts/ptmx /dev/ptmx
ln -s /proc/self/fd /dev/fd

# What the host enables, generates from its fstab, or cleans on a timer has no place here; and the audit socket is the host's kernel's.
for units in /etc/systemd/system /usr/lib/systemd/system /lib/systemd/system; do
    find "$units/" -maxdepth 1 \( -name '*.wants' -o -name '*.requires' \) -exec rm -rf {} + || true
    rm -rf "${units%/system}/system-generators"
done
ln -sf /dev/null /etc/systemd/system/systemd-journald-audit.socket
rm -rf /etc/systemd/journald.conf.d /usr/lib/systemd/journald.conf.d

# An installation on this host is none of the machine's.
rm -rf /etc/dwcp-learner /var/lib/dwcp-learner /var/cache/dwcp-learner /etc/systemd/system/dwcp-learner.service.d
mkdir -p /opt/dwcp-learner
mount -t tmpfs -o mode=0755 opt /opt/dwcp-learner

eval "$3"

umount --lazy /.host
rmdir /.host
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=unshare LANG=C.UTF-8 \
    "$2" --system --unit=machine.target --show-status=no --log-target=journal
