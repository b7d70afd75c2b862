# shellcheck shell=bash
# An arm64 Debian on a machine of another architecture: qemu, a userland from Debian's packages, commands inside it.
# Sourced by arm64-check.sh. Knows nothing of hired-edge.
#
# Root is needed for three things: telling the kernel about qemu, debootstrap, and chroot. Everything that is mounted is
# mounted in a namespace of its own and goes with the process, however that ends.

suite=bookworm
# No python3-venv, so that install.sh has to do without; python3-jinja2 is older than hired-edge wants, and python3-yaml
# holds compiled code.
packages=python3,python3-jinja2,python3-yaml
binfmt=/proc/sys/fs/binfmt_misc
qemu_rule=/usr/lib/binfmt.d/qemu-aarch64.conf

fail() {
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

need_userland_tools() {
    local tool missing=()
    for tool in debootstrap unshare chroot tar; do
        PATH=$PATH:/usr/sbin:/sbin type -P "$tool" >/dev/null || missing+=("$tool")
    done
    [ -x /usr/bin/qemu-aarch64-static ] && [ -r "$qemu_rule" ] || missing+=(qemu-aarch64-static)
    [ "$(id -u)" -eq 0 ] || type -P sudo >/dev/null || missing+=("root, or sudo")
    [ ${#missing[@]} -eq 0 ] ||
        fail "not found: ${missing[*]}; on Debian 12 run: apt install debootstrap qemu-user-static util-linux"
}

mounted_binfmt='' registered_qemu=''

# Makes the kernel run arm64 programs through qemu, unless it does already; forget_qemu takes that back.
register_qemu() {
    if [ ! -e "$binfmt/register" ]; then
        as_root mount -t binfmt_misc binfmt_misc "$binfmt"
        mounted_binfmt=yes
    fi
    if [ ! -e "$binfmt/qemu-aarch64" ]; then
        as_root sh -c "cat '$qemu_rule' >'$binfmt/register'"
        registered_qemu=yes
    fi
    grep -qx enabled "$binfmt/qemu-aarch64" || fail "binfmt_misc has qemu-aarch64 disabled; expected it enabled"
}

forget_qemu() {
    if [ -n "$registered_qemu" ]; then as_root sh -c "echo -1 >'$binfmt/qemu-aarch64'"; fi
    if [ -n "$mounted_binfmt" ]; then as_root umount "$binfmt"; fi
    registered_qemu='' mounted_binfmt=''
}

# make_userland ARCHIVE FOLDER: a pristine userland as a tar archive, made below FOLDER unless ARCHIVE is there.
make_userland() {
    local archive=$1 folder=$2/debootstrap
    [ ! -e "$archive" ] || return 0
    as_root unshare --mount env PATH="$PATH:/usr/sbin:/sbin" \
        debootstrap --arch=arm64 --variant=minbase --include="$packages" "$suite" "$folder" >&2
    as_root tar --numeric-owner --exclude=./var/cache/apt/archives/* -C "$folder" -cf "$archive.partial" .
    mv "$archive.partial" "$archive"
    as_root rm -rf --one-file-system "$folder"
}

# The processor that qemu is told to be: Armv8.2 as an Orin's Cortex-A78AE, which Debian 12's qemu does not know. It is
# named in /proc/cpuinfo too, as Linux describes it (a Raspberry Pi 5 has one). qemu does that by itself from 8.2 on;
# before, programs see the other architecture's file, at which onnxruntime warns, or crashes.
qemu_cpu=cortex-a76
cpuinfo() {
    local number
    local known='fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp'
    for ((number = 0; number < $(nproc); number++)); do
        printf '%s\t: %s\n' processor "$number" BogoMIPS 108.00 Features "$known" 'CPU implementer' 0x41 \
            'CPU architecture' 8 'CPU variant' 0x4 'CPU part' 0xd0b 'CPU revision' 1
        echo
    done
}

# inside USERLAND UID COMMAND...: runs COMMAND there as that user, without a network.
inside() {
    local userland=$1 user=$2
    shift 2
    cpuinfo | as_root tee "$userland/run/cpuinfo" >/dev/null
    # The script's variables are for the inner shell.
    # shellcheck disable=SC2016
    as_root unshare --mount --net --ipc --pid --fork --kill-child bash -c '
        set -eu
        mount -t proc proc "$1/proc"
        mount --bind "$1/run/cpuinfo" "$1/proc/cpuinfo"
        mount -t sysfs -o ro sysfs "$1/sys"
        mkdir -p "$1/dev/shm" "$1/dev/pts" "$1/home/$2"
        mount -t tmpfs -o mode=1777 tmpfs "$1/dev/shm"
        mount -t devpts -o newinstance,ptmxmode=0666 devpts "$1/dev/pts"
        mount --bind "$1/dev/pts/ptmx" "$1/dev/ptmx"
        chown "$2:$2" "$1/home/$2"
        # No exec: this shell is the init of its namespace, and buries orphans.
        chroot --userspec="$2:$2" "$1" "${@:3}"
        exit
    ' inside "$userland" "$user" /usr/bin/env -i HOME="/home/$user" LC_ALL=C.UTF-8 QEMU_CPU="$qemu_cpu" \
        PATH=/usr/bin:/bin:/usr/sbin:/sbin "$@"
}
