#!/usr/bin/env bash
# Two hosts on one machine train together, and the network between them is cut for good: the run must finish on the host
# that is left, and come to the same network. docs/rehearsal.md has more, and what it printed.
#
#   scripts/rehearse_two_hosts.sh     as root, on Linux with iproute2 and util-linux; 3 to 5 minutes; 0 if all is well
#
# A host is a process in namespaces of its own (network, processes, mounts, name, shared memory); what is started there
# ends with it. The Python is that of PYTHON_ENV, an environment's folder, or of .venv, or of PATH.
set -euo pipefail

if ((EUID)) || ! type ip unshare nsenter &>/dev/null; then
    echo "only root makes namespaces, with ip, unshare and nsenter; use sudo, or a privileged container" >&2
    exit 2
fi
repository=$(realpath "$(dirname "$0")/..")
PATH="${PYTHON_ENV:-$repository/.venv}/bin:$PATH"
work=$(mktemp -d /tmp/grndist-rehearsal.XXXXXX)
steps=80
address=10.77.0.1:6379
shared=$work/runs/two_hosts alone=$work/runs/one_process
declare -A ip=([first]=10.77.0.1 [second]=10.77.0.2) host=()
declare -A namespace=([first]="rehearsal-$$-1" [second]="rehearsal-$$-2")
problems=0 is_token_shown=no cut_at="" driver=""

export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$work/token RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1
unset RAY_ADDRESS RAY_AUTH_TOKEN GLOO_SOCKET_IFNAME NCCL_SOCKET_IFNAME

main() {
    cd "$work"
    new_token token
    new_token wrong_token
    make_a_run
    start_hosts
    start_ray
    train_and_cut
    echo
    judge
    exit $((problems > 0))
}

make_a_run() { # with Adam: Lion, the model's own, takes the sign of what may be rounding, and networks drift apart
    tell "data, and a run of $steps steps"
    grndist simulate sim.h5ad --cells 2000 --genes 300 --seed 0 >/dev/null
    grndist ingest sim.h5ad sim.zarr >/dev/null
    cat >run.yaml <<EOF
name: $(basename "$shared")
store: $work/sim.zarr
runs: $work/runs
model: {kind: catran, embedding: 128, embedding_std: 0.1, linear_std: 0.1}
training:
  {steps: $steps, epochs: null, cells_per_step: 1000, genes_per_step: null, streams: 4, threads: 1,
   checkpoint_every: 10, optimizer: adam, learning_rate: 1.0e-3}
workers: {min: 1, max: 2, start_timeout: 20, resize_every: 5, controller_failure_limit: 8}
tracking: {kind: none}
EOF
}

start_hosts() {
    local name
    for name in "${namespace[@]}"; do ip netns add "$name"; done
    ip link add eth0 netns "${namespace[first]}" type veth peer name eth0 netns "${namespace[second]}"
    [[ -d /tmp/ray ]] || mkdir --mode=1777 /tmp/ray
    for name in first second; do
        ip -netns "${namespace[$name]}" link set lo up
        ip -netns "${namespace[$name]}" address add "${ip[$name]}/24" dev eth0
        ip -netns "${namespace[$name]}" link set eth0 up
        start_host "$name"
    done
    tell "two hosts, first (${ip[first]}) and second (${ip[second]}), and a cable between them"
}

start_host() { # NAME
    local folder=$work/$1
    mkdir -p "$folder/ray"
    printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$1" >"$folder/hosts" # Debian's way: the own name is the loopback's
    ip netns exec "${namespace[$1]}" unshare --pid --mount --uts --ipc --fork --kill-child --mount-proc bash -c "
        hostname $1 && mount --bind $folder/hosts /etc/hosts && mount --bind $folder/ray /tmp/ray &&
        mount -t tmpfs -o size=1g tmpfs /dev/shm && touch $folder/is_up && sleep infinity & wait" 2>"$folder/host.log" &
    host[$1]=$!
    wait_for 20 "the host $1" test -e "$folder/is_up"
}

start_ray() {
    local wrong without
    on first ray start --head --node-ip-address="${ip[first]}" --num-cpus=1 --object-store-memory=100000000 \
        --dashboard-host=127.0.0.1 &>head.log
    tell "first is Ray's head"
    join RAY_AUTH_TOKEN_PATH="$work/wrong_token" &>wrong_token.log & wrong=$!
    join --unset=RAY_AUTH_MODE &>no_mode.log & without=$!
    wait $wrong || wrong=refused
    wait $without || without=refused
    tell "second tried to join: with a wrong token ($(refusal wrong_token.log)), without mode ($(refusal no_mode.log))"
    [[ $wrong$without == refusedrefused ]] || problem "a node without the token has joined"
    join &>join.log
    tell "second has joined, with the token"
}

train_and_cut() {
    on first grndist train "$work/run.yaml" --workers 1..2 &>train.log & driver=$!
    tell "first: grndist train run.yaml --workers 1..2"
    wait_for 180 "a checkpoint" has_checkpoint
    has_checkpoint || fail "the run ended before its first checkpoint: $(tail --lines 1 train.log)"
    tell "workers on first: $(workers_on first), on second: $(workers_on second); worker 0 is on $(writer)"
    workers_before=$(workers_on first)+$(workers_on second)
    step_before=$(newest_step)
    ip -netns "${namespace[second]}" link set eth0 down
    cut_at=$SECONDS
    tell "the cable is cut; the newest checkpoint is of step $step_before"
    grndist train run.yaml workers=null "name=$(basename "$alone")" &>alone.log
    tell "meanwhile, outside: the same training in one process, undisturbed"
    wait_for 120 "Ray to notice" grep -qs 'health check failed' first/ray/session_*/logs/gcs_server.out
    tell "Ray has declared second dead"
    wait_for 240 "the run to go on" grep -q '^1 worker from step' train.log
    tell "$(grep -o '^1 worker from step [0-9]*' train.log)"
    wait_for 240 "the end of the run" has_ended $driver
    status=0
    wait $driver || status=$?
    tell "grndist train has ended; workers on second that still wait: $(workers_on second)"
}

judge() {
    verdict "workers on both hosts trained (first + second: $workers_before)" test "$workers_before" = 1+1
    verdict "the cable was cut in the middle (after step $step_before of $steps)" test "$step_before" -lt "$steps"
    verdict "the run finished on the host that was left (exit status $status)" test "$status" = 0
    verdict "its last checkpoint is of the last step ($(newest_step))" test "$(newest_step)" = "$steps"
    verdict "its network is that of one undisturbed process" \
        python "$repository/scripts/rehearse_two_hosts.py" "$alone" "$shared" 1e-4
    verdict "a node with a wrong token was refused" test -n "$(refusal wrong_token.log)"
    verdict "a node without RAY_AUTH_MODE was refused" test -n "$(refusal no_mode.log)"
    verdict "the token was on no command line" test $is_token_shown = no
    verdict "the token is in no log" test -z "$(grep --recursive --text -lsFf token --exclude=token .)"
}

# What the parts above are made of.

tell() { printf '+%3d s  %-13s %s\n' "$SECONDS" "${cut_at:+cut +$((SECONDS - ${cut_at:-0})) s}" "$*"; }

verdict() { # WHAT COMMAND...
    local what=$1 said
    shift
    if said=$("$@"); then echo "ok       $what${said:+: $said}"; else problem "$what${said:+: $said}"; fi
}

problem() {
    echo "problem  $1"
    problems=$((problems + 1))
}

fail() { # WHY
    problem "$1"
    exit 1
}

on() { # HOST COMMAND...
    local init
    init=$(init_of "$1")
    shift
    nsenter --target "$init" --net --pid --mount --uts --ipc -- "$@"
}

init_of() { tr -d ' ' <"/proc/${host[$1]}/task/${host[$1]}/children"; } # HOST

join() { # VARIABLES OF env...
    on second timeout 120 env "$@" ray start --address=$address --num-cpus=1 --object-store-memory=100000000
}

refusal() { grep -om1 InvalidAuthToken "$1" || true; } # LOG

new_token() { (umask 077 && od -An -tx1 -N32 /dev/urandom | tr -d ' \n' >"$1"); } # FILE

wait_for() { # SECONDS WHAT COMMAND...
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        if grep --text -qsFf token /proc/[0-9]*/cmdline; then is_token_shown=yes; fi # those of the hosts are among them
        if [[ $driver ]] && has_ended "$driver"; then return; fi
        ((SECONDS <= end)) || fail "waited in vain for $what"
        sleep 0.2
    done
}

has_ended() { ! kill -0 "$1" 2>/dev/null; }

has_checkpoint() { (($(newest_step) > 0)); }

newest_step() {
    local found=("$shared"/checkpoints/step-*)
    if [[ -d ${found[-1]} ]]; then echo $((10#${found[-1]##*-})); else echo 0; fi
}

workers_on() { on "$1" pgrep --full --count RayTrainWorker || true; } # HOST

writer() { # the host of the worker that has the run directory's metrics open
    local name
    for name in first second; do
        if [[ $(on "$name" find /proc -maxdepth 3 -lname "$shared/metrics.jsonl" 2>/dev/null) ]]; then echo "$name"; fi
    done
}

cleanup() {
    local status=$? name
    trap - EXIT INT TERM
    for name in "${!host[@]}"; do # all processes of a host end with its first
        kill -KILL "$(init_of "$name")" 2>/dev/null || kill -KILL "${host[$name]}" || true
    done
    wait 2>/dev/null || true
    for name in "${namespace[@]}"; do ip netns delete "$name" 2>/dev/null || true; done
    rm -f "$work"/*token
    if ((0 < status && status < 128)); then echo "what the hosts wrote is in $work"; else rm -rf "$work"; fi
    exit "$status"
}

trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
main
