#!/bin/bash
# The runtime on a cluster of kind: `run.sh [up|test|down|all]`; `all`, the default, does them in turn and takes the cluster
# down whatever comes. Needs docker, kind and kubectl, on x86-64; README.md says what it does and what a failure shows.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
: "${CLUSTER:=unikernel}" "${NODE:=kindest/node:v1.37.0}" "${PATIENCE:=180s}"
images=(unikernel-guest:kind unikernel-client:kind)

say() { printf 'kind: %s\n' "$*" >&2; }
fail() { printf 'kind: FAILED: %s\n' "$*" >&2; exit 1; }

need() {
    command -v docker >/dev/null || fail "docker is missing: install it, and start its engine"
    docker info >/dev/null 2>&1 || fail "docker's engine does not answer: start it (systemctl start docker)"
    command -v kind >/dev/null || fail "kind is missing: install it (https://kind.sigs.k8s.io)"
    command -v kubectl >/dev/null || fail "kubectl is missing: install it"
}

kube() { kubectl --context "kind-$CLUSTER" "$@"; }

# in_client COMMAND...: in the ordinary pod.
in_client() { kube exec client -- "$@"; }

build() {
    say "building images"
    docker build -f "$root/contrib/kubernetes/Dockerfile" --build-arg RELEASE=kind -t unikernel-shim-installer:kind "$root"
    docker build -f "$here/node.Dockerfile" --build-arg NODE="$NODE" -t unikernel-node:kind "$root"
    docker build -f "$here/guest.Dockerfile" --target guest -t unikernel-guest:kind "$root"
    docker build -f "$here/guest.Dockerfile" --target client -t unikernel-client:kind "$root"
}

up() {
    build
    say "creating cluster $CLUSTER"
    kind create cluster --name "$CLUSTER" --config "$here/cluster.yaml" --image unikernel-node:kind --wait "$PATIENCE"
    kind load docker-image --name "$CLUSTER" "${images[@]}"
    kube apply -f "$root/contrib/kubernetes/runtimeclass.yaml"
}

check() {
    local service guest client nodes node left
    say "a unikernel Deployment behind a Service"
    kube apply -f "$here/workload.yaml"
    kube rollout status deployment/web --timeout "$PATIENCE"
    kube wait --for=condition=Ready pod/client --timeout "$PATIENCE"
    service=$(kube get service web -o 'jsonpath={.spec.clusterIP}')
    client=$(kube get pod client -o 'jsonpath={.status.podIP}')

    say "an ordinary pod asks the Service"
    in_client fetch "$service" / | grep -q '^boot:' || fail "no guest answers at the Service $service"

    say "pod to pod, both ways"
    for guest in $(kube get pods -l app=web -o 'jsonpath={.items[*].status.podIP}'); do
        in_client fetch "$guest" / | grep -q '^boot:' || fail "the guest $guest does not answer the pod $client"
        in_client fetch "$guest" "/cgi-bin/fetch?$client" | grep -q ordinary ||
            fail "the pod $client does not answer the guest $guest"
    done

    say "a rolling restart, with requests meanwhile"
    # shellcheck disable=SC2016 # the pod's shell expands it
    in_client sh -c 'while [ ! -e /tmp/enough ]; do fetch "$0" / >/dev/null || echo >>/tmp/failed; sleep 0.2; done
        echo >/tmp/over' "$service" &
    kube rollout restart deployment/web
    kube rollout status deployment/web --timeout "$PATIENCE"
    in_client sh -c 'echo >/tmp/enough'
    wait "$!" || fail "the requests were cut off"
    in_client sh -c '[ -e /tmp/over ] && [ ! -e /tmp/failed ]' || fail "requests failed during the rolling restart"

    say "nothing is left"
    kube delete -f "$here/workload.yaml" --wait --timeout "$PATIENCE"
    nodes=$(kind get nodes --name "$CLUSTER")
    [ -n "$nodes" ] || fail "the cluster $CLUSTER has no nodes"
    for node in $nodes; do
        left=$(docker exec "$node" find /run/unikernel-shim/journal /run/unikernel-shim/containers -type f)
        [ -z "$left" ] || fail "left on $node: $left"
        left=$(docker exec "$node" sh -c 'grep -sl ^qemu-system /proc/[0-9]*/comm' || true)
        [ -z "$left" ] || fail "a monitor still runs on $node"
    done
    say "passed"
}

# What there is to see of a failure, before the cluster goes.
show() {
    kube get pods -A -o wide || true
    kube describe pods -l 'app in (web, client)' || true
    for node in $(kind get nodes --name "$CLUSTER" 2>/dev/null); do
        docker exec "$node" journalctl --no-pager -n 50 -u unikernel-shim -u containerd || true
    done
} >&2

down() {
    kind delete cluster --name "$CLUSTER"
}

finish() {
    local status=$?
    trap - EXIT
    if [ "$status" -ne 0 ]; then show; fi
    down || true
    exit "$status"
}

main() {
    need
    case ${1:-all} in
    up) up ;;
    test) check ;;
    down) down ;;
    all)
        trap finish EXIT
        trap 'exit 130' INT TERM
        up
        check
        ;;
    *) fail "there is no ${1}: up, test, down or all" ;;
    esac
}

main "$@"
