#!/usr/bin/env bash
# ZeRO over a slow link: two nodes on this machine, joined by a link of so many megabits a second in each direction.
#
#   bash bench/slow_network.sh --megabits 1000 --ranks_a_node 2 [options of bench.zero]
#
# Each node is a network namespace; ranks of one node talk at the speed of memory, ranks of two through the link, which
# a token bucket limits. Needs root and iproute2; the namespaces are gone at the end. Standard output: the JSON of
# bench.zero. What it cannot show: the computation runs on one machine's cores, so it is the share of the link in
# a step that tells, not the seconds.
set -eu
cd "$(dirname "$0")/.."

megabits=1000 ranks=1 python=${PYTHON:-python3} rest=()
while (($#)); do
  case $1 in
    --megabits) megabits=$2; shift 2 ;;
    --ranks_a_node) ranks=$2; shift 2 ;;
    *) rest+=("$1"); shift ;;
  esac
done
[[ $megabits =~ ^[0-9]+$ && $ranks =~ ^[0-9]+$ ]] || { echo "error: --megabits and --ranks_a_node are numbers" >&2; exit 2; }
((EUID == 0)) || { echo "error: network namespaces need root" >&2; exit 2; }

node=megadec$$
pids=()
finish() {
  ((${#pids[@]})) && kill "${pids[@]}" 2>/dev/null
  for number in 0 1; do ip netns delete "$node-$number" 2>/dev/null; done
  return 0
}
trap finish EXIT
trap 'exit 1' INT TERM

for number in 0 1; do
  ip netns add "$node-$number"
  ip -n "$node-$number" link set lo up
done
ip -n "$node-0" link add slow type veth peer name slow netns "$node-1"
for number in 0 1; do
  ip -n "$node-$number" address add "10.77.0.$((number + 1))/24" dev slow
  ip -n "$node-$number" link set slow up
  tc -n "$node-$number" qdisc add dev slow root tbf rate "${megabits}mbit" burst 256kb latency 200ms
done

# Which ranks share a node is known to DeepSpeed by LOCAL_SIZE on a CPU.
export WORLD_SIZE=$((2 * ranks)) LOCAL_SIZE=$ranks MASTER_ADDR=10.77.0.1 MASTER_PORT=29577 GLOO_SOCKET_IFNAME=slow
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
for ((rank = WORLD_SIZE - 1; rank > 0; rank--)); do
  RANK=$rank LOCAL_RANK=$((rank % ranks)) ip netns exec "$node-$((rank / ranks))" \
    "$python" -m bench.zero "${rest[@]}" >/dev/null &
  pids+=($!)
done
RANK=0 LOCAL_RANK=0 ip netns exec "$node-0" "$python" -m bench.zero "${rest[@]}"
for pid in "${pids[@]}"; do wait "$pid"; done
pids=()
