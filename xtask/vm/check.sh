# What Yado does on a machine whose only cgroup hierarchy is the unified one. Each line of the result begins with `ok`
# or `FAILED`; `cargo xtask vm` reads them.

PATH=/bin:/sbin
export PATH HOME=/ KUBECONFIG=/data/kubeconfig YADO_DATA_DIR=/data
group=/sys/fs/cgroup

machine() {
    mkdir -p /proc /sys /dev /tmp /run /data/images /etc /var/lib
    mount -t proc proc /proc
    mount -t sysfs sys /sys
    mkdir -p /dev/pts /dev/shm
    mount -t devpts devpts /dev/pts
    mount -t tmpfs shm /dev/shm
    mount -t tmpfs run /run
    mount -t cgroup2 cgroup2 $group
    echo 'root:x:0:0::/:/bin/sh' >/etc/passwd
    echo root:x:0: >/etc/group
    hostname node
    ip link set lo up
    cp /images/*.tar /data/images/
    echo "kernel $(uname -r), $(grep -c cgroup2 /proc/mounts) unified hierarchy, $(grep -c '^cgroup ' /proc/mounts) others"
}

# check WHAT COMMAND...: the command must succeed, now or within three minutes, as an emulated machine is slow.
check() {
    what=$1 until=$(($(date +%s) + 180))
    shift
    while :; do
        if said=$("$@" 2>&1); then echo "ok $scene: $what"; return; fi
        [ "$(date +%s)" -lt $until ] || break
        sleep 0.5
    done
    echo "FAILED $scene: $what: $(echo "$said" | tail -n 5)"
    kubectl get events -A -o custom-columns=WHAT:.involvedObject.name,REASON:.reason,MESSAGE:.message 2>&1 | tail -n 5
    tail -n 5 /data.log
}

# equal EXPECTED COMMAND...: the command's output is this.
equal() {
    expected=$1
    shift
    got=$("$@" 2>&1)
    [ "$got" = "$expected" ] || { echo "got \"$got\" instead of \"$expected\""; return 1; }
}

# In the cgroup that $home names, as a service manager or a container would have put it there.
start() {
    (
        # Yado has moved what was in a container's group there, so that the group can hand controllers down.
        [ ! -d "$group/$home/init" ] || home=$home/init
        [ -z "$home" ] || echo 0 >"$group/$home/cgroup.procs"
        exec $around yado up --data-dir /data --api-port 6443 --http-port 8080 --name node-1 >/data.out 2>>/data.log
    ) &
    daemon=$!
    check "yado up is ready" grep -q '^ready in' /data.out
}

stop() {
    kill -TERM $daemon
    wait $daemon
    : >/data.out
}

crash() {
    kill -9 $daemon
    wait $daemon 2>/dev/null
    : >/data.out
}

# The process id on the machine of what was started with these words.
process() {
    for dir in /proc/[0-9]*; do
        [ "$(tr '\0' ' ' <"$dir/cmdline" 2>/dev/null)" = "$* " ] && echo "${dir#/proc/}" && return
    done
    return 1
}

gone() { ! process "$@"; }
pod() { kubectl get pod "$1" -o "jsonpath={$2}"; }
exec_in() { kubectl exec deployment/"$1" -- sh -c "$2"; }
# The group of a container's first process, and the Pod's above it.
place() { sed -n 's/^0:://p' "/proc/$(process "$@")/cgroup"; }
has() { equal "$3" cat "$group$1/$2"; }
groups() { find "$top" -type d -path '*/yado/*/*' | grep -v shims; }
none() { equal '' "$@"; }

limits() {
    check 'a Deployment is applied' yado apply -f /manifests/limited.yaml
    check 'it becomes available' kubectl rollout status deployment/limited --timeout=10s
    at=$(place sleep 31337)
    echo "its container is in $at"
    check 'cpu.max' has "$at" cpu.max '50000 100000'
    check 'cpu.weight' has "$at" cpu.weight 10
    check 'memory.max' has "$at" memory.max 67108864
    check "the Pod's memory.max" has "${at%/*}" memory.max 67108864
    check "the Pod's pids.max" sh -c "test $(cat "$group${at%/*}/pids.max") -gt 0"
    check 'the container sees its own limits' exec_in limited 'test "$(cat /sys/fs/cgroup/memory.max)" = 67108864'
    check 'a shell is in the same group' exec_in limited 'test "$(cat /proc/self/cgroup)" = 0::/'
    check 'only harmless devices open' exec_in limited \
        'mknod /kmsg c 1 11 && ! head -c 1 /kmsg && head -c 1 /dev/zero >/dev/null'
}

out_of_memory() {
    check 'Pods that want too much memory are applied' yado apply -f /manifests/greedy.yaml
    check 'the kill has its name' equal 'OOMKilled 137' pod greedy \
        '.status.containerStatuses[0].state.terminated.reason} {.status.containerStatuses[0].state.terminated.exitCode'
    check 'the next start, too' equal OOMKilled pod greedy-again '.status.containerStatuses[0].lastState.terminated.reason'
}

network() {
    check 'a page by its Service' exec_in limited 'wget -qO- http://page/ | grep hello'
    check 'a page by its NodePort' sh -c 'wget -qO- http://127.0.0.1:30080/ | grep hello'
    check 'a page by its published port' sh -c 'wget -qO- http://127.0.0.1:7080/ | grep hello'
    check 'a page by the router' sh -c "wget -qO- --header 'Host: page.localhost' http://127.0.0.1:8080/ | grep hello"
    check 'a policy keeps others out' kubectl apply -f /manifests/closed.yaml
    check 'they are refused' exec_in limited '! wget -T 2 -qO- http://page/'
    check 'and let in again' kubectl delete -f /manifests/closed.yaml
    check 'a page by its Service, again' exec_in limited 'wget -qO- http://page/ | grep hello'
}

lives() {
    first=$(process sleep 31337)
    crash
    check 'a container outlives the daemon' kill -0 "$first"
    start
    check 'it is found again' exec_in limited 'true'
    check 'it is the same' equal "$first" process sleep 31337
    check 'nothing was restarted' equal 0 kubectl get pods -l app=limited -o 'jsonpath={.items[0].status.containerStatuses[0].restartCount}'
    kill -9 "$first"
    check 'a killed container comes back' equal 1 kubectl get pods -l app=limited -o 'jsonpath={.items[0].status.containerStatuses[0].restartCount}'
    check 'with its limits' sh -c "test \"\$(cat $group$(place sleep 31337)/memory.max)\" = 67108864"
}

end() {
    check 'all is deleted' kubectl delete -f /manifests/limited.yaml -f /manifests/greedy.yaml --timeout=60s
    check 'no group of a Pod is left' none groups
    stop
    check 'what is left is removed' yado reset --data-dir /data
    check 'no group is left' none find "$top" -type d -path '*yado/*'
    check 'no device is left' sh -c '! ip link | grep yado'
}

# One life of Yado. $scene names it, $home is the group that it is started in, $around what starts it, and $top what it
# takes for the root.
play() {
    start
    limits
    out_of_memory
    network
    lives
    end
}

machine

# Everything is in the root group: an init that does not know of cgroups.
scene=root home= around= top=$group
play

# A service manager keeps each service in a group of its own and hands on no controllers.
scene=service home=system.slice/yado.service
mkdir -p $group/$home $group/init.scope
for pid in $(cat $group/cgroup.procs); do echo "$pid" >$group/init.scope/cgroup.procs 2>/dev/null; done
for name in cpu memory pids; do echo "-$name" >$group/cgroup.subtree_control; done
check 'the root hands on nothing' has '' cgroup.subtree_control ''
play

# In a container: what looks like the root is a group with processes in it, which therefore cannot hand on anything.
mkdir -p $group/nested
for name in cpu memory pids; do echo "+$name" >$group/cgroup.subtree_control; done
(
    echo 0 >$group/nested/cgroup.procs
    exec /bin/unshare --cgroup --mount --propagation private sh -c \
        'umount /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec sleep 100000'
) &
container=$!
scene=nested
check 'a container is there' process sleep 100000
home=nested around="/bin/nsenter --target $container --cgroup --mount" top=$group/nested
play

echo done
