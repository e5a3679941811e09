#!/busybox sh
# The guest's first process: mounts, loads modules, runs /suite, sends back /out, switches off.
export PATH=/usr/bin:/usr/sbin:/busybox-links HOME=/root
/busybox mkdir -p /proc /sys /dev /run /tmp /out /busybox-links
/busybox --install -s /busybox-links
/busybox mount -t proc proc /proc
/busybox mount -t sysfs sysfs /sys
/busybox mount -t devtmpfs devtmpfs /dev
/busybox mkdir -p /dev/pts /dev/shm
/busybox mount -t devpts devpts /dev/pts
/busybox mount -t tmpfs tmpfs /dev/shm
/busybox mount -t tmpfs tmpfs /run
/busybox mount -t bpf bpf /sys/fs/bpf
/busybox mount -t tracefs tracefs /sys/kernel/tracing
/busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
/busybox mount -t securityfs securityfs /sys/kernel/security
/busybox ln -s /proc/self/fd /dev/fd
/busybox ln -s /proc/self/fd/0 /dev/stdin
/busybox ln -s /proc/self/fd/1 /dev/stdout
/busybox ln -s /proc/self/fd/2 /dev/stderr
while read -r module; do
    /busybox insmod "/modules/$module" || echo "cannot load $module"
done </modules/order
/busybox ip link set lo up
# Channels are known by name; which number they have is the kernel's choice.
for port in /sys/class/virtio-ports/*; do
    read -r name <"$port/name"
    case $name in
    output) output=/dev/${port##*/} ;;
    files) files=/dev/${port##*/} ;;
    esac
done
echo "guest: begins at $(/busybox cut -d' ' -f1 /proc/uptime) s"
/busybox timeout -s KILL "$(/busybox cat /time-limit)" /usr/bin/sh /suite >"$output" 2>&1
echo $? >/out/status
/busybox dmesg >/out/dmesg.log
echo "guest: ends at $(/busybox cut -d' ' -f1 /proc/uptime) s"
/busybox tar -C /out -c . >"$files"
/busybox sync
/busybox poweroff -f
