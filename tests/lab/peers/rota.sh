# Rota from its packages: a controller, an edge that drives HAProxy, an agent on each node.
# shellcheck shell=bash

rota() { docker exec -i -e ROTA_CONTEXT=/var/lib/rota/admin.toml "$LABEL-rota-c" rota "$@"; }

rota_up() {
    local for_nodes for_edge host version
    hosts_are rota -v /var/lib/docker
    give "$LABEL-rota-c" /root "${debs[0]}"
    on rota-c dpkg -i "/root/${debs[0]##*/}" >/dev/null
    echo "ROTA_SERVE_OPTIONS=\"--advertise $(address rota-c):7400\"" | put rota-c /etc/rota/rota.env
    on rota-c systemctl enable --quiet --now rota
    for_nodes=$(rota token create --for agent --uses "$NODES" 2>/dev/null)
    for_edge=$(rota token create --for edge 2>/dev/null)
    for host in $(hosts_of rota); do
        [ "$host" != rota-c ] || continue
        give "$LABEL-$host" /root "${debs[1]}"
        on "$host" dpkg -i "/root/${debs[1]##*/}" >/dev/null
        {
            echo 'data = "/var/lib/rota-agent"'
            echo "controller = [\"$(address rota-c):7400\"]"
            echo 'env = "prod"'
            if [ "$host" = rota-lb ]; then
                printf 'name = "lb"\ntoken = "%s"\n' "$for_edge"
                echo 'edge = ["shop=haproxy@/run/haproxy/admin.sock#shop"]'
            else
                printf 'name = "web-%s"\ntoken = "%s"\nrole = ["web"]\n' "${host#rota-}" "$for_nodes"
            fi
        } | put "$host" /etc/rota/agent.toml
    done
}

rota_first() {
    for host in $(hosts_of rota); do
        [ "$host" = rota-c ] || on "$host" systemctl enable --quiet --now rota-agent
    done
    sh_on rota-c 'mkdir -p /root/dist'
    give "$LABEL-rota-c" /root/dist "$APP"
    put rota-c /root/1.toml <"$HERE/rota.toml"
    sed -e 's/^port .*/port = "auto"/' -e 's/^batch .*/&\norder = "start-first"/' "$HERE/rota.toml" |
        put rota-c /root/2.toml
    for n in $(numbers); do dockerd_on "rota-$n"; done
    image_on rota-1 3.0.0
    on rota-1 docker save shop:3.0.0 | put rota-c /root/image.tar
    sed -e 's/^path .*/path = "image.tar"/' -e 's/^driver .*/driver = "docker"/' \
        -e 's,"./sample-app","/sample-app",' "$HERE/rota.toml" | put rota-c /root/3.toml
    # Every node has every release before anything is measured, as with the others.
    for version in "${VERSIONS[@]}" 1.0.0; do
        [ "$version" != 3.0.0 ] || rests "Rota,_a_node:_agent,_after_four_updates" rota-1 rota-agent.service
        rota deploy -f "/root/${version%%.*}.toml" --version "$version" --env prod --yes >"$OUT/log" 2>&1 ||
            fail "$(cat "$OUT/log")"
    done
    rota_dockerds stop
}

# They run for the rows that need them only: the other rows, and what stays, are without.
rota_dockerds() {
    for n in $(numbers); do on "rota-$n" systemctl "$1" docker docker.socket; done
}

rota_apart() {
    echo "-$(cgroup rota-lb)/system.slice/haproxy.service"
    for n in $(numbers); do echo "-$(cgroup "rota-$n")/rota.slice/rota-apps.slice"; done
}

rota_to() { echo env ROTA_CONTEXT=/var/lib/rota/admin.toml rota rollout start shop --release "$1" --env prod; }

rota_round() {
    # shellcheck disable=SC2046
    {
        rolled "Rota,_stop-first" rota $(rota_to 1.1.0)
        rolled "Rota,_stop-first" rota $(rota_to 1.0.0)
        on rota-c $(rota_to 2.0.0) >/dev/null 2>&1
        rolled "Rota,_start-first" rota $(rota_to 2.1.0)
        rolled "Rota,_start-first" rota $(rota_to 2.0.0)
        rota_dockerds start
        on rota-c $(rota_to 3.0.0) >/dev/null 2>&1
        rolled "Rota,_stop-first,_containers" rota $(rota_to 3.1.0)
        rolled "Rota,_stop-first,_containers" rota $(rota_to 3.0.0)
        on rota-c $(rota_to 1.0.0) >/dev/null 2>&1
        rota_dockerds stop
    }
}

rota_rest() {
    rests "Rota,_a_node:_agent,_after_all" rota-1 rota-agent.service
    rests "Rota,_the_load_balancer:_agent" rota-lb rota-agent.service
    rests "Rota,_control_host:_controller" rota-c rota.service
}
