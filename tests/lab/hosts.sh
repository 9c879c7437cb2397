# Hosts with systemd, as containers of docker from an image that is made here. To be sourced: the lab
# and the test of the packages stand on it.
# shellcheck shell=bash

# What an image has: a small Debian, two load balancers, and a web server that is the lab's app.
IMAGE=rota-lab:bookworm
SUITE=bookworm
SOFTWARE=systemd,systemd-sysv,dbus,iproute2,procps,ca-certificates,jq,haproxy,nginx-light,caddy
MIRROR="${ROTA_LAB_MIRROR:-http://deb.debian.org/debian}"

# Every container and network carries it.
LABEL=rota-lab

skip() {
    printf '\n** SKIPPED: %s: %s **\n\n' "${WHAT:-this}" "$*" >&2
    exit 0
}
fail() { echo "FAILED: $*" >&2; exit 1; }
say() { printf '== %s\n' "$*"; }

docker_is() {
    command -v docker >/dev/null || skip "there is no docker"
    docker info >/dev/null 2>&1 || skip "no dockerd answers"
}

# What .ci/package made.
packages_are() {
    debs=(target/package/rota_*.deb target/package/rota-agent_*.deb)
    [ -f "${debs[0]}" ] && [ -f "${debs[1]}" ] || fail "no packages: run .ci/package --debug"
}

# Makes the image, once: a minute or two.
image_is() {
    local root
    docker image inspect "$IMAGE" >/dev/null 2>&1 && return
    command -v debootstrap >/dev/null || skip "docker has no image $IMAGE, and there is no debootstrap"
    say "the image $IMAGE is made ($MIRROR)"
    root=$(mktemp -d "${TMPDIR:-/var/tmp}/rota-lab.XXXXXX")
    debootstrap --variant=minbase --include="$SOFTWARE" "$SUITE" "$root" "$MIRROR" >"$root.log" 2>&1 || {
        tail -n 20 "$root.log" >&2
        rm -rf "$root" "$root.log"
        skip "debootstrap cannot make a Debian here"
    }
    # Whoever needs a load balancer switches it on; nothing else runs by itself.
    for unit in haproxy nginx caddy apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
        e2scrub_all.timer e2scrub_reap fstrim.timer systemd-pstore; do
        systemctl --root="$root" disable --quiet "$unit" 2>/dev/null ||
            rm -f "$root"/etc/systemd/system/*.wants/"$unit"{,.service}
    done
    tar -C "$root" -c --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' \
        --exclude='./usr/share/doc/*' --exclude='./usr/share/locale/*' . |
        docker import --change "LABEL $LABEL=image" - "$IMAGE" >/dev/null
    rm -rf "$root" "$root.log"
}

# A host of that name, booted. $1: name, the rest: options of `docker run`.
host_is() {
    local host=$1
    shift
    docker run -d --name "$host" --hostname "${host#"$LABEL"-}" --label "$LABEL" \
        --stop-signal SIGRTMIN+3 --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add SYS_PTRACE \
        --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
        --tmpfs /run --tmpfs /run/lock --tmpfs /tmp:exec \
        -v /sys/fs/cgroup:/sys/fs/cgroup --cgroupns=host "$@" "$IMAGE" /sbin/init >/dev/null ||
        skip "no host with systemd can be made here"
    (soon "a booted host" is_booted "$host") || skip "systemd does not come up on a host here"
}

# `degraded`: a unit that has nothing to do with us failed.
is_booted() {
    docker exec "$1" sh -c '[ -S /run/systemd/private ] &&
        systemctl is-system-running --wait | grep -qE "running|degraded"'
}

# What must become so, soon. $1: what, the rest: a command. `told` says what is known when it did not.
soon() {
    local what=$1 until=$((SECONDS + ${PATIENCE:-90}))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || fail "$what did not come
$(told 2>&1)"
        sleep 0.1 # the pace of looking, not of what is looked for
    done
}
told() { :; }

# Copies files into a folder of a host. $1: host, $2: folder, the rest: files.
give() {
    local host=$1 folder=$2
    shift 2
    tar -c --transform 's,.*/,,' "$@" | docker exec -i "$host" tar -C "$folder" -x
}

# Installs packages as an operator would. $1: host, the rest: files on it.
install_on() {
    local host=$1
    shift
    docker exec "$host" sh -euc 'export DEBIAN_FRONTEND=noninteractive
        apt-get install -y --no-install-recommends "$@" >/root/install.log 2>&1 ||
        { cat /root/install.log; exit 1; }' sh "$@"
}

# Processes of a host whose command line has that in it: PID and the line.
processes_of() {
    docker exec "$1" sh -euc "for it in /proc/[0-9]*; do
        line=\$(tr '\\0' ' ' <\$it/cmdline) 2>/dev/null || continue
        case \$line in sh\ * | *journalctl*) ;; *\"$2\"*) echo \"\${it#/proc/} \$line\" ;; esac
    done"
}

# What of Rota is on a host that had everything purged; must be nothing but what docs/install.md says.
# $1: host, the rest: what the apps there were called.
left_on() {
    local host=$1 program
    shift
    for program in rota "$@"; do processes_of "$host" "$program"; done
    docker exec "$host" sh -euc 'find / -xdev -name "*rota*" ! -path "/proc/*" ! -path "/root/*" \
        ! -name "*rotate*" ! -path "/var/log/journal/*"
    systemctl list-units --all --plain --no-legend "rota*" | grep -v "\.slice" || true
    getent passwd rota || true'
}
