# What is shown in the lab: rollouts under load, in which nothing may fail. To be sourced by `lab`.
# shellcheck shell=bash

# Requests of one case of the matrix; there are two for each load balancer.
PER_CASE="${ROTA_LAB_REQUESTS:-75000}"
# At each load-balancer host: clients, half of which keep their connection, and what each rests
# between two requests. Two cores carry the clients, the balancers, the apps and the agents.
CLIENTS="${ROTA_LAB_CLIENTS:-12}"
PACE_MS="${ROTA_LAB_PACE_MS:-3}"

test_all() {
    docker_is
    packages_are
    load_is
    soon "a lab (tests/lab/lab up)" is_ready
    mkdir -p "$OUT"
    rm -f "$OUT"/*
    local app order
    for app in $APPS; do
        lay_out "$app"
        deploy "$app" start-first 1.0.0
    done
    for app in $APPS; do
        for order in stop-first start-first; do
            rolls "$app" "$order"
        done
        reloads "$app"
        loses_an_edge "$app"
    done
    loses_a_node shop updating
    loses_a_node blog pending
    uninstalls web-06
    uninstalls lb-02
    # What HAProxy was told by the agent that is gone must not stay in its servers.
    reloads shop
    print_table
}

# The app: a web server from Debian with a configuration and a page, in two versions.
lay_out() {
    local app=$1 version
    for version in 1.0.0 1.1.0; do
        sh_on c1 "mkdir -p /root/$app/$version/site
            yes '$app $version' | head -n 200 >/root/$app/$version/site/index.html
            cat >/root/$app/$version/Caddyfile" <<END
{
    admin off
    auto_https off
}
:{\$PORT} {
    header X-Release "$version"
    respond /healthz 200
    root * site
    file_server
}
END
    done
    manifest "$app" stop-first 500ms stop-first
    manifest "$app" start-first 500ms start-first
    manifest "$app" stop-first 3s watched
}

# $1: app, $2: order, $3: monitor time, $4: the file's name
manifest() {
    on c1 sh -c "cat >/root/$1/$4.toml" <<END
app = "$1"
[artifact]
path = "{version}"
[run]
command = ["/usr/bin/caddy", "run", "--config", "Caddyfile"]
driver = "systemd"
user = "caddy"
port = "auto"
stop_timeout = "20s"
[health]
http = "/healthz"
[traffic]
pool = "$1"
edges = "$(edges_of "$1")"
[[smoke]]
name = "home page"
http = "/"
contains = "$1 {version}"
[strategy]
batch = 1
order = "$2"
monitor = "$3"
[target]
roles = ["web"]
END
}

# Whose word a drain needs: with shop of all, so that a rollout waits for an edge that is down; with blog of those that
# can be asked.
edges_of() { [ "$1" = shop ] && echo all || echo reachable; }

# $1: app, $2: which manifest, $3: version, the rest: more options. What it says goes into a log.
deploy() {
    rota deploy -f "/root/$1/$2.toml" --version "$3" --env prod --yes "${@:4}" >>"$OUT/log" 2>&1 </dev/null ||
        fail "$1 $3 cannot be rolled out: $(tail -n 15 "$OUT/log")"
}
current() { view "$1" -r .to; }
other() { [ "$(current "$1")" = 1.0.0 ] && echo 1.1.0 || echo 1.0.0; }
# What the latest rollout of an app says of itself, through jq.
view() { rota rollout status "$1/prod" -o json </dev/null | on c1 jq "${@:2}"; }
is() { view "$1" -e "$2"; }
seconds() { view "$1" -r '[.started_at, .finished_at | sub("\\.[0-9]+Z"; "Z") | fromdate] | .[1] - .[0]'; }

# --- load

# Clients of an app at both edges.
begin_load() {
    local app=$1 edge
    loads=() sleepers=()
    for edge in $EDGES; do
        exec {hold}< <(exec sleep 3600)
        sleepers+=($!)
        "$LOAD" "$(address "$edge"):$(port_of "$app")" "$CLIENTS" "$PACE_MS" "$app 1.0.0" "$app 1.1.0" \
            <&"$hold" >"$OUT/load.$edge" 2>"$OUT/lost.$edge" &
        loads+=($!)
        exec {hold}<&-
    done
    for edge in $EDGES; do retried "$app" "$edge" >"$OUT/again.$edge"; done
    soon "load" sent 500
}
end_load() {
    [ ${#sleepers[@]} -gt 0 ] || return 0
    kill "${sleepers[@]}" 2>/dev/null || true
    wait "${loads[@]}" || true
    loads=() sleepers=()
}
# What clients saw, as lab-load tells it. Without an edge: at both.
seen() {
    local edges=${1:-$EDGES} edge
    for edge in $edges; do tail -n 1 "$OUT/load.$edge"; done |
        awk '{ for (i = 2; i <= 10; i++) sum[i] += $i }
            END { for (i = 1; i <= 10; i++) printf "%s%s", i == 1 ? "kept" : i == 6 ? "new" : sum[i] + 0, i < 10 ? " " : "\n" }'
}
answers() { seen "$@" | awk '{ print $2 + $7 }'; }
# Are there so many answers, at these edges?
sent() { [ "$(answers "${2:-}")" -ge "$1" ]; }
# Requests that the balancers of an app have sent to a second node. $1: app, $2: at these edges
again_before() { for edge in $1; do cat "$OUT/again.$edge"; done | awk '{ sum += $1 } END { print sum + 0 }'; }
retried() {
    local edge
    for edge in $2; do
        if [ "$1" = shop ]; then
            exec {stats}<>"/dev/tcp/$(address "$edge")/8404"
            printf 'GET /;csv HTTP/1.0\r\n\r\n' >&"$stats"
            awk -F, '$1 == "shop" && $2 == "BACKEND" { print $16 + $17 }' <&"$stats"
            exec {stats}<&-
        else
            sh_on "$edge" 'wc -l </var/log/nginx/again.log'
        fi
    done | awk '{ sum += $1 } END { print sum + 0 }'
}

# Ends the load; its rows come into the table, and nothing may have failed.
# $1: app, $2: order, $3: what happened, $4: seconds a node or -, $5: at which edges it may not fail,
# $6: what may happen all the same, once for each client
row() {
    local app=$1 edges=${5:-$EDGES} how good failed reopened crossed retries lost
    retries=$(($(retried "$app" "$edges") - $(again_before "$edges")))
    end_load
    [ "$retries" -ge 0 ] || retries="-"
    for how in kept new; do
        read -r good failed reopened crossed < <(seen "$edges" | sed "s/.*$how \([0-9 ]*\).*/\1/")
        printf '%s|%s|%s|%s|%s|%s|%s|%s|%s|%s\n' "$(balancer "$app")" "$2" "$3" "$how" "$good" "$failed" \
            "$reopened" "$crossed" "$retries" "$4" | tee -a "$OUT/table"
    done
    view "$app" -r '"   \(.id) \(.state): " + (.evidence | "at least \(.least_in_traffic) of \(.targets) in traffic, " +
        "\(.requests) requests, \(.failed_requests) failed, \(.cut) cut")'
    lost=$(for edge in $edges; do cat "$OUT/lost.$edge"; done)
    if [ -n "${6:-}" ] && [ "$(grep -cE "$6" <<<"$lost")" -le "$CLIENTS" ]; then
        lost=$(grep -vE "$6" <<<"$lost" || true)
    fi
    [ -z "$lost" ] || fail "requests failed: $(head -n 20 <<<"$lost")"
}
balancer() { [ "$1" = shop ] && echo HAProxy || echo nginx; }

print_table() {
    printf '\n%-8s %-11s %-18s %-5s %8s %6s %8s %7s %7s %6s\n' balancer order "in the middle" conns requests \
        failed reopened crossed retried s/node
    awk -F'|' '{ printf "%-8s %-11s %-18s %-5s %8d %6d %8d %7d %7s %6s\n", $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
            all[$1] += $5; failed[$1] += $6 }
        END { for (one in all) printf "%s: %d requests, %d failed\n", one, all[one], failed[one] }' "$OUT/table"
}

# --- cases

# To and fro until enough requests were answered.
rolls() {
    local app=$1 order=$2 took=0 rollouts=0
    say "$(balancer "$app"), $order"
    begin_load "$app"
    until sent "$PER_CASE" && [ "$rollouts" -ge 2 ]; do
        deploy "$app" "$order" "$(other "$app")"
        took=$((took + $(seconds "$app")))
        rollouts=$((rollouts + 1))
    done
    row "$app" "$order" "$rollouts rollouts" "$(awk "BEGIN { printf \"%.2f\", $took / $rollouts / 6 }")"
}

# A rollout that has come to its middle. $1: app, $2: which manifest
middle() {
    deploy "$1" "$2" "$(other "$1")" --detach
    soon "the middle of a rollout of $1" is "$1" '[.nodes[] | select(.state == "done")] | length >= 2'
}

# Both load balancers load their configuration again.
reloads() {
    local app=$1 edge service=nginx
    [ "$app" = blog ] || service=haproxy
    say "$(balancer "$app") reloads in the middle of a rollout"
    begin_load "$app"
    middle "$app" stop-first
    for edge in $EDGES; do on "$edge" systemctl reload "$service"; done
    soon "the end of the rollout" is "$app" '.state == "completed"'
    row "$app" stop-first "reload" -
}

# A load-balancer host dies. Clients of the other one notice nothing; the rollout waits for it, or goes on without.
loses_an_edge() {
    local app=$1 so_far
    say "an edge dies in the middle of a rollout of $app, edges = $(edges_of "$app")"
    begin_load "$app"
    middle "$app" stop-first
    docker kill "$LABEL-lb-02" >/dev/null
    if [ "$(edges_of "$app")" = all ]; then
        soon "a rollout that waits for its edge" is "$app" \
            '.hold.kind == "offline" and (.hold.text | contains("lb-02"))'
    else
        soon "a rollout that goes on without" is "$app" '.state == "completed"'
    fi
    stands "$app" "without lb-02"
    so_far=$(answers lb-01)
    soon "load on the other edge" sent "$((so_far + 5000))" lb-01
    docker start "$LABEL-lb-02" >/dev/null
    soon "lb-02" is_booted "$LABEL-lb-02"
    soon "the end of the rollout" is "$app" '.state == "completed"'
    so_far=$(answers lb-02)
    soon "load on the edge that is back" sent "$((so_far + 1000))" lb-02
    row "$app" stop-first "an edge dies" - lb-01
    echo "   at the edge that died: $(seen lb-02) (good, failed, reopened, crossed)"
}

# A node loses its power while a rollout has done with others; later it is back. $2: what it does then,
# `updating` or `pending`. The rollout waits or goes on by its policy, and in the end all nodes run its release.
loses_a_node() {
    local app=$1 node
    say "a node that is $2 loses power in the middle of a rollout of $app"
    begin_load "$app"
    middle "$app" "$([ "$2" = updating ] && echo watched || echo stop-first)"
    soon "a node that is $2" is "$app" "[.nodes[] | select(.state == \"$2\")] | length >= 1"
    node=$(view "$app" -r "[.nodes[] | select(.state == \"$2\")] | last.name")
    docker kill "$LABEL-$node" >/dev/null
    soon "a rollout that ends or holds" is "$app" '.state != "rolling" or .hold != null'
    stands "$app" "without $node"
    docker start "$LABEL-$node" >/dev/null
    soon "$node" is_booted "$LABEL-$node"
    soon "$node is back" comes_back "$app"
    if is "$app" '.hold.kind == "failures"' >/dev/null; then
        # The update that the power failure ended counts as failed: a person looks, and tries again.
        stands "$app" "with $node back"
        rota rollout retry "$app/prod" </dev/null >>"$OUT/log" 2>&1
    fi
    soon "the end of the rollout" is "$app" '.state == "completed"'
    soon "all nodes on one release" all_on "$app" "$(current "$app")"
    stands "$app" "at the end"
    # An answer that has begun cannot be taken back, by whatever balancer.
    row "$app" stop-first "$2 node dies" - "" '(kept|new): status 200, [0-9]+ of [0-9]+ bytes'
}
stands() { view "$1" -r '"   '"$2"': \(.id) is \(.state)\(if .hold then ": " + .hold.text else "" end)"'; }
# It serves what it should, or its rollout waits for a person.
comes_back() { is "$1" '.hold.kind == "failures"' || all_on "$1" "$(current "$1")"; }
all_on() {
    rota node ls -o json </dev/null | on c1 jq -e --arg app "$1" --arg release "$2" '[.[].apps[] |
        select(.app == $app and .release == $release and .health == "healthy" and .traffic == "in")] |
        length == 6'
}

# Purged, apps and all: nothing runs, and nothing is left but what docs/install.md says. Installed again it joins
# anew, as if it had never been there, and is brought to what its environment runs.
uninstalls() {
    local host=$1 left kind=edge
    say "the package is purged on $host"
    if [ "${host%-*}" = web ]; then
        kind=agent
        rota node drain "$host" </dev/null >>"$OUT/log" 2>&1 || fail "no drain: $(tail -n 3 "$OUT/log")"
    fi
    on "$host" systemctl stop rota-agent
    rota node rm "$host" --yes </dev/null >>"$OUT/log" 2>&1 || fail "no removal: $(tail -n 3 "$OUT/log")"
    sh_on "$host" 'ROTA_PURGE_APPS=yes apt-get purge -y rota-agent >/root/purge.log 2>&1'
    left=$(left_on "$LABEL-$host" caddy)
    [ -z "$left" ] || fail "left on $host:
$left"
    echo "   nothing is left"
    install_on "$LABEL-$host" "/root/${debs[1]##*/}"
    join "$host" "$(rota token create --for "$kind" </dev/null 2>/dev/null)"
    soon "a fleet with $host" is_ready
    for app in $APPS; do soon "$app on $host again" all_on "$app" "$(current "$app")"; done
    echo "   and it is one of the fleet again"
}
