#!/usr/bin/env bash
# Two "machines" on one: network namespaces joined by a virtual cable, a torchrun in each. Needs root and iproute2.
#   tests/distributed/two_machines.sh -m spark3r reconstruct CLIP -o OUT …
set -euo pipefail
first=spark3r-first second=spark3r-second
python=${PYTHON:-python}

tidy() {
    ip netns del $first 2>/dev/null || true
    ip netns del $second 2>/dev/null || true
}
trap tidy EXIT
tidy
ip netns add $first
ip netns add $second
ip link add cable-1 netns $first type veth peer name cable-2 netns $second
for node in 1 2; do
    space=$([ $node = 1 ] && echo $first || echo $second)
    ip -n $space addr add 10.77.0.$node/24 dev cable-$node
    ip -n $space link set cable-$node up
    ip -n $space link set lo up
done

node() {  # SPACE NUMBER COMMAND…
    GLOO_SOCKET_IFNAME=cable-$(($2 + 1)) ip netns exec "$1" "$python" -m torch.distributed.run --nnodes 2 \
        --node-rank "$2" --nproc-per-node "${RANKS_PER_NODE:-1}" --master-addr 10.77.0.1 --master-port 29500 "${@:3}"
}
node $second 1 "$@" &
node $first 0 "$@"
wait $!
