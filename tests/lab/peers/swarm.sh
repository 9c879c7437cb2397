# Docker Swarm: a dockerd of its own on every host, a manager without tasks, a worker on each node.
# shellcheck shell=bash

swarm_up() {
    local host n token version
    hosts_are swarm -v /var/lib/docker
    for host in $(hosts_of swarm); do dockerd_on "$host"; done
    on swarm-c docker swarm init --advertise-addr "$(address swarm-c)" --availability drain >/dev/null
    token=$(on swarm-c docker swarm join-token -q worker)
    for host in $(hosts_of swarm); do
        [ "$host" = swarm-c ] ||
            on "$host" docker swarm join --token "$token" "$(address swarm-c):2377" >/dev/null
    done
    for n in $(numbers); do
        on swarm-c docker node update --label-add web=yes "swarm-$n" >/dev/null
        for version in 1.0.0 1.1.0; do image_on "swarm-$n" "$version"; done
    done
}

swarm_first() {
    on swarm-c docker service create --quiet --name shop --replicas "$NODES" --replicas-max-per-node 1 \
        --constraint node.labels.web==yes --publish mode=host,target=9000,published=9000 \
        --update-order stop-first --update-parallelism 1 --update-delay 0s --update-monitor 1ms \
        --no-resolve-image shop:1.0.0 >/dev/null
    swarm_first_overlay
}

# Start-first needs two tasks beside each other, and so addresses of their own: an overlay network. HAProxy stands in it
# (in the network of a container, whose port 81 is published) and finds the tasks by Docker's DNS.
swarm_first_overlay() {
    local gate
    image_on swarm-lb 1.0.0
    on swarm-c docker network create --driver overlay --attachable inside >/dev/null
    on swarm-c docker service create --quiet --name start --replicas "$NODES" --constraint node.labels.web==yes \
        --network inside --endpoint-mode dnsrr --update-order start-first --update-parallelism 1 \
        --update-delay 0s --update-monitor 1ms --no-resolve-image shop:1.0.0 >/dev/null
    on swarm-lb docker run -d --name gate --network inside --publish 81:81 shop:1.0.0 >/dev/null
    gate=$(on swarm-lb docker inspect -f '{{.State.Pid}}' gate)
    sed -e 's/admin.sock/overlay.sock/; s/bind :80/bind :81/' "$HERE/overlay.cfg" "$HERE/haproxy.cfg" |
        put swarm-lb /etc/haproxy/overlay.cfg
    echo "    server-template web- $((NODES * 2)) start:9000 resolvers docker init-addr none" |
        on swarm-lb sh -c 'cat >>/etc/haproxy/overlay.cfg'
    on swarm-lb systemd-run --quiet --unit haproxy-overlay \
        nsenter "--net=/proc/$gate/ns/net" haproxy -W -f /etc/haproxy/overlay.cfg
}

swarm_apart() {
    echo "-$(cgroup swarm-lb)/system.slice/haproxy.service"
    echo "-$(cgroup swarm-lb)/system.slice/haproxy-overlay.service"
}

swarm_to() { echo docker service update --quiet --no-resolve-image --image "shop:$2" "$1"; }

swarm_round() {
    # shellcheck disable=SC2046
    {
        rolled "Swarm,_stop-first" swarm $(swarm_to shop 1.1.0)
        rolled "Swarm,_stop-first" swarm $(swarm_to shop 1.0.0)
        DOOR=81 SOCKET=overlay rolled "Swarm,_start-first" swarm $(swarm_to start 1.1.0)
        DOOR=81 SOCKET=overlay rolled "Swarm,_start-first" swarm $(swarm_to start 1.0.0)
    }
}

swarm_rest() {
    on swarm-c docker service rm start >/dev/null
    soon "one task on a node" sh_on swarm-1 '[ "$(docker ps -aq -f status=running | wc -l)" = 1 ]'
    rests "Swarm,_a_node:_dockerd,_containerd,_shim" swarm-1 docker.service
    rests "Swarm,_control_host:_dockerd,_containerd" swarm-c docker.service
}
