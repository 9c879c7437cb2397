# A dockerd of its own on a host that is a container, and the app as an image.
# shellcheck shell=bash

# Its containers live here: beside their host, so that apps are told from tools.
DOCKERD_CGROUP=/rota-peers-apps

# The host needs a volume at /var/lib/docker: below a dockerd must be no overlay.
dockerd_on() {
    sh_on "$1" 'mount -o remount,rw /proc/sys'
    put "$1" /etc/docker/daemon.json <<END
{ "exec-opts": ["native.cgroupdriver=cgroupfs"], "cgroup-parent": "$DOCKERD_CGROUP/$1" }
END
    on "$1" systemctl start docker
}

# The app with the libraries that it needs. $1: host, $2: version
image_on() {
    if [ ! -d "$OUT/root" ]; then
        mkdir "$OUT/root"
        cp "$APP" "$OUT/root/"
        # shellcheck disable=SC2046
        cp -L --parents $(ldd "$APP" | grep -o '/[^ ]*') "$OUT/root/"
    fi
    tar -C "$OUT/root" -c . | on "$1" docker import --change "ENV ROTA_VERSION=$2" --change \
        'CMD ["/sample-app","--polite","--anywhere","--port","9000","--work","20"]' - "shop:$2" >/dev/null
}

dockerd_cgroups_gone() {
    find /sys/fs/cgroup -depth -type d -path "/sys/fs/cgroup*$DOCKERD_CGROUP*" -exec rmdir {} + 2>/dev/null || true
}
