// What runs in the Linux guest, as a busybox shell's script: drivers, memory with a pattern, a counter that goes on,
// and a shell on the console that answers a line at a time.
//
//   host  ── "check\n" ──▶  guest        host  ◀── "whole\n=0=\n" ──  guest       what it printed, then its exit code

/** Drivers, in the order in which they need one another. Found in /lib/modules of the kernel's package. */
export const MODULES: readonly string[] = [
  "drivers/virtio/virtio_ring.ko",
  "drivers/virtio/virtio.ko",
  "drivers/virtio/virtio_pci_legacy_dev.ko",
  "drivers/virtio/virtio_pci_modern_dev.ko",
  "drivers/virtio/virtio_pci.ko",
  "drivers/virtio/virtio_mmio.ko",
  "drivers/block/virtio_blk.ko",
  "net/core/failover.ko",
  "drivers/net/net_failover.ko",
  "drivers/net/virtio_net.ko",
];

/** Says on the console that the guest is ready; the kernel's command line has `fill`, in MiB. */
export const READY = "=ready=";

/** The address that QEMU's user network gives itself, and one for the guest. */
const GATEWAY = "10.0.2.2";
const ADDRESS = "10.0.2.15/24";

export const INIT = `#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
exec <>/dev/ttyS0 >&0 2>&0
stty -echo -onlcr
for module in ${MODULES.map((path) => path.split("/").at(-1)).join(" ")}; do
  insmod /modules/$module || echo "no $module"
done
if [ -e /sys/class/net/eth0 ]; then ip addr add ${ADDRESS} dev eth0; ip link set eth0 up; fi

mkfifo /asked /answered
exec 3<>/asked 4<>/answered
/pattern \${fill:-16} <&3 >&4 &
read line <&4

echo 0 > /count
( n=0; while :; do n=$((n+1)); echo $n > /count.new; mv /count.new /count; usleep 100000; done ) &

check() { echo c >&3; read line <&4; echo $line; [ $line = whole ]; }
count() { cat /count; }
net() { ping -c 1 -W 5 ${GATEWAY} > /dev/null && echo reached; }
disk() { echo 3 > /proc/sys/vm/drop_caches; md5sum < /dev/vda; }

echo ${READY}
while read -r line; do eval "$line"; echo "=$?="; done
`;
