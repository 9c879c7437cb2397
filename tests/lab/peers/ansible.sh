# Ansible over ssh: the app is a unit, the release a link, the playbook roll.yml.
# shellcheck shell=bash

ansible_up() {
    local host key
    hosts_are ansible
    sh_on ansible-c 'mkdir -p /root/.ssh && ssh-keygen -q -t ed25519 -N "" -f /root/.ssh/id_ed25519'
    key=$(on ansible-c cat /root/.ssh/id_ed25519.pub)
    for host in $(hosts_of ansible); do
        echo "$key" | on "$host" sh -euc 'mkdir -p /root/.ssh; cat >/root/.ssh/authorized_keys; systemctl start ssh'
    done
    {
        echo "lb ansible_host=$(address ansible-lb)"
        echo "[web]"
        for n in $(numbers); do echo "web-$n ansible_host=$(address "ansible-$n")"; done
    } | put ansible-c /root/hosts
    give "$LABEL-ansible-c" /root "$HERE"/roll.yml "$HERE"/roll-raw.yml
    put ansible-c /root/tuned.cfg <"$HERE/ansible.cfg"
    printf '[defaults]\nhost_key_checking = False\n' | put ansible-c /root/default.cfg
}

ansible_first() {
    local n version
    for n in $(numbers); do
        for version in 1.0.0 1.1.0; do
            sh_on "ansible-$n" "mkdir -p /srv/shop/$version; echo ROTA_VERSION=$version >/srv/shop/$version/version"
            give "$LABEL-ansible-$n" "/srv/shop/$version" "$APP"
        done
        give "$LABEL-ansible-$n" /etc/systemd/system "$HERE/shop.service"
        sh_on "ansible-$n" 'ln -s 1.0.0 /srv/shop/current; systemctl start shop'
    done
}

ansible_apart() {
    echo "-$(cgroup ansible-lb)/system.slice/haproxy.service"
    for n in $(numbers); do echo "-$(cgroup "ansible-$n")/shop.slice"; done
}

# $1: settings, $2: playbook, $3: version
ansible_to() { echo env ANSIBLE_CONFIG="/root/$1.cfg" ansible-playbook -i /root/hosts "/root/$2.yml" -e "version=$3"; }

ansible_round() {
    # shellcheck disable=SC2046
    {
        rolled "Ansible,_default_settings" ansible $(ansible_to default roll 1.1.0)
        rolled "Ansible,_tuned" ansible $(ansible_to tuned roll 1.0.0)
        rolled "Ansible,_tuned,_shell_only" ansible $(ansible_to tuned roll-raw 1.1.0)
        rolled "Ansible,_tuned,_shell_only" ansible $(ansible_to tuned roll-raw 1.0.0)
    }
}

ansible_rest() {
    # Connections that are kept for a minute are no part of what stays.
    soon "an Ansible at rest" sh_on ansible-c '! pgrep -x ssh'
    rests "Ansible,_a_node:_sshd" ansible-1 ssh.service
}
