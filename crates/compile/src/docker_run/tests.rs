//! Whole commands, as units and user-data scripts carry them.

use std::collections::BTreeMap;
use std::path::Path;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

fn check(command: &str, expect: Expect) {
    let env = BTreeMap::from([("GIVEN".to_string(), "from the caller".to_string())]);
    let context = Context { directory: Path::new("/srv"), env: &env };
    let words = split(command).unwrap();
    let text = match parse(&words, context) {
        Ok(mut run) => {
            run.finish_container();
            shown(run)
        }
        Err(mistakes) => mistakes.iter().map(|m| format!("mistake: {m}\n")).collect(),
    };
    expect.assert_eq(&text);
}

fn shown(run: RunCommand) -> String {
    let ports: Vec<String> = run.ports.iter().map(|p| p.name.clone()).collect();
    let published: Vec<String> = run
        .published
        .iter()
        .map(|p| {
            let local = if p.local { " local" } else { "" };
            format!("{}:{}{local}", p.port.map_or("any".into(), |p| p.to_string()), p.target)
        })
        .collect();
    let claims: Vec<&String> = run.claims.iter().map(|c| &c.name).collect();
    let mut text = String::new();
    let facts: [(&str, Value); 16] = [
        ("name", json!(run.name)),
        ("ports", json!(ports)),
        ("published", json!(published)),
        ("all", json!(run.publish_all)),
        ("links", json!(run.links)),
        ("volumes from", json!(run.volumes_from)),
        ("joins", json!(run.joins)),
        ("networks", json!(run.networks)),
        ("aliases", json!(run.aliases)),
        ("requires", json!(run.requires)),
        ("claims", json!(claims)),
        ("restart", json!(run.restart.map(|r| format!("{r:?}")))),
        ("detached", json!(run.detached)),
        ("removed", json!(run.removed)),
        ("annotations", json!(run.part.annotations())),
        ("no health", json!(run.no_health)),
    ];
    let empty = |v: &Value| *v == json!(null) || *v == json!([]) || *v == json!({}) || *v == json!(false);
    for (name, value) in facts.into_iter().filter(|(_, v)| !empty(v)) {
        text.push_str(&format!("{name}: {value}\n"));
    }
    text.push_str(&format!("container: {}\n", json!(run.part.container)));
    let mut pod = json!(run.part.pod);
    pod.as_object_mut().unwrap().shift_remove("containers");
    if !empty(&pod) {
        text.push_str(&format!("pod: {pod}\n"));
    }
    run.warnings.iter().for_each(|w| text.push_str(&format!("warning: {w}\n")));
    text
}

#[test]
fn p03_web_app_and_database() {
    check(
        "-itd --name web --link app:rest -p 80:80 USER/web:ver1.0",
        expect![[r#"
        name: "web"
        ports: ["tcp-80"]
        published: ["80:80"]
        links: [["app","rest"]]
        detached: true
        container: {"image":"USER/web:ver1.0","name":"","stdin":true,"tty":true}
    "#]],
    );
    check(
        "--rm -h kappa-test-1 -p 8000 --volumes-from data:ro me/kappa run --port=8000",
        expect![[r#"
        ports: ["tcp-8000"]
        published: ["any:8000"]
        volumes from: [["data",true]]
        aliases: ["kappa-test-1"]
        removed: true
        container: {"args":["run","--port=8000"],"image":"me/kappa","name":""}
        pod: {"hostname":"kappa-test-1"}
    "#]],
    );
}

#[test]
fn p15_every_flag_with_a_meaning_has_it() {
    check(
        "-u 1000:1000 -w /w --entrypoint /bin/e --cap-add=SYS_ADMIN --cap-drop all --privileged --read-only -m 1.5g \
         --memory-reservation 512m --cpus=.5 -c 512 --shm-size 64m --ulimit nofile=1024:2048 --sysctl net.ipv4.ip_forward=1 \
         --stop-signal 3 --stop-timeout 20 -l a=b --pid host --ipc=host --group-add 5 --pull always --platform arm64 \
         --security-opt no-new-privileges --runtime kata --gpus 2 --restart=on-failure:5 x a b",
        expect![[r#"
            restart: "OnFailure(Some(5))"
            annotations: {"a":"b","yado.dev/ulimits":"{\"nofile\":{\"soft\":1024,\"hard\":2048}}"}
            container: {"args":["a","b"],"command":["/bin/e"],"image":"x","imagePullPolicy":"Always","lifecycle":{"stopSignal":"SIGQUIT"},"name":"","resources":{"limits":{"cpu":"500m","memory":"1536Mi","nvidia.com/gpu":"2"},"requests":{"cpu":"500m","memory":"512Mi"}},"securityContext":{"allowPrivilegeEscalation":false,"capabilities":{"add":["SYS_ADMIN"],"drop":["ALL"]},"privileged":true,"readOnlyRootFilesystem":true,"runAsGroup":1000,"runAsUser":1000},"volumeMounts":[{"mountPath":"/dev/shm","name":"shm"}],"workingDir":"/w"}
            pod: {"hostIPC":true,"hostPID":true,"nodeSelector":{"kubernetes.io/arch":"arm64","kubernetes.io/os":"linux"},"os":{"name":"linux"},"runtimeClassName":"kata","securityContext":{"supplementalGroups":[5],"sysctls":[{"name":"net.ipv4.ip_forward","value":"1"}]},"terminationGracePeriodSeconds":20,"volumes":[{"emptyDir":{"medium":"Memory","sizeLimit":"64Mi"},"name":"shm"}]}
            warning: --sysctl: net.ipv4.ip_forward is set only by nodes that allow it, as its effects on other Pods are not bounded: start the engine with --allowed-unsafe-sysctls net.ipv4.ip_forward (yado dev does)
        "#]],
    );
    check(
        "-e A=1 -eB=2 --env C='x y' -e GIVEN -e NOT_GIVEN -v data:/d -v /h:/h:ro,z -v /anon --tmpfs /t:size=1m \
         --mount type=bind,src=/a,dst=/b,readonly --net=host --dns 1.1.1.1 --dns-search x.y --dns-opt ndots:1 \
         --add-host a:10.0.0.1 --device /dev/fuse --health-cmd 'curl -f localhost' --health-interval 5s x",
        expect![[r#"
            claims: ["data"]
            annotations: {"yado.dev/copy-up":"anon"}
            container: {"env":[{"name":"A","value":"1"},{"name":"B","value":"2"},{"name":"C","value":"x y"},{"name":"GIVEN","value":"from the caller"}],"image":"x","name":"","readinessProbe":{"exec":{"command":["/bin/sh","-c","curl -f localhost"]},"failureThreshold":3,"periodSeconds":5,"timeoutSeconds":30},"volumeMounts":[{"mountPath":"/d","name":"data"},{"mountPath":"/h","name":"h","readOnly":true},{"mountPath":"/anon","name":"anon"},{"mountPath":"/t","name":"t"},{"mountPath":"/b","name":"b","readOnly":true},{"mountPath":"/dev/fuse","name":"fuse"}]}
            pod: {"dnsConfig":{"nameservers":["1.1.1.1"],"options":[{"name":"ndots","value":"1"}],"searches":["x.y"]},"dnsPolicy":"ClusterFirstWithHostNet","hostAliases":[{"hostnames":["a"],"ip":"10.0.0.1"}],"hostNetwork":true,"volumes":[{"name":"data","persistentVolumeClaim":{"claimName":"data"}},{"hostPath":{"path":"/h","type":"DirectoryOrCreate"},"name":"h"},{"emptyDir":{},"name":"anon"},{"emptyDir":{"medium":"Memory","sizeLimit":"1Mi"},"name":"t"},{"hostPath":{"path":"/a","type":"DirectoryOrCreate"},"name":"b"},{"hostPath":{"path":"/dev/fuse"},"name":"fuse"}]}
            warning: -e NOT_GIVEN passes nothing on, as NOT_GIVEN is not set
            warning: --device: device /dev/fuse is mounted from the node; a cluster that guards its devices also needs privileged: true
        "#]],
    );
    check(
        "-P --expose 9000-9001/udp --net container:x --pid=container:y --network-alias z --requires r x",
        expect![[r#"
            ports: ["udp-9000","udp-9001"]
            all: true
            joins: ["x","y"]
            aliases: ["z"]
            requires: ["r"]
            container: {"image":"x","name":""}
            pod: {"shareProcessNamespace":true}
        "#]],
    );
    check(
        "-name=old -link db:db -rm=true -volumes-from d -n=false -expose 80 x",
        expect![[r#"
        name: "old"
        ports: ["tcp-80"]
        links: [["db","db"]]
        volumes from: [["d",false]]
        removed: true
        container: {"image":"x","name":""}
        warning: -n none: every Pod has a network, so this one has, too
    "#]],
    );
    check(
        "--entrypoint '' -e HOME=/h x sh -c 'echo $(HOME) $X'",
        expect![[r#"
        container: {"command":["sh","-c","echo $$(HOME) $X"],"env":[{"name":"HOME","value":"/h"}],"image":"x","name":""}
    "#]],
    );
}

#[test]
fn what_is_kept_otherwise_is_said() {
    check(
        "--cpuset-cpus 0-2,4 --log-driver syslog --ip 10.0.0.2 --mac-address x --oom-score-adj 1 --network none --uts host \
         -p 10.0.0.1:80:80 -p 127.0.0.1::81 --blkio-weight 10 --memory-swap 1g x",
        expect![[r#"
            ports: ["tcp-80","tcp-81"]
            published: ["80:80","any:81 local"]
            container: {"image":"x","name":"","resources":{"limits":{"cpu":"4"}}}
            warning: --cpuset-cpus 0-2,4 limits it to 4 processors; which ones, the node decides
            warning: --log-driver syslog has no effect: a Pod's output is kept by its node, for yado logs
            warning: --ip 10.0.0.2 has no effect: a Pod's address is assigned by the cluster: use its name
            warning: --mac-address x has no effect: a Pod's address is assigned by the cluster
            warning: --oom-score-adj 1 has no effect: it is derived from requests and limits
            warning: --network none: every Pod has a network, so this one has, too
            warning: --uts host has no effect: a Pod's host name is its own
            warning: -p 10.0.0.1:80:80 is reached at every address of the node, not at 10.0.0.1 alone
            warning: --blkio-weight 10 has no effect: Pods share a disk evenly
            warning: --memory-swap 1g has no effect: Pods do not swap
        "#]],
    );
}

#[test]
fn other_flags_are_mistakes_that_name_them() {
    check(
        "--device-cgroup-rule=x --lxc-conf=a=b -p 0:1 -m x --restart sometimes --ulimit y x",
        expect![[r#"
            mistake: --device-cgroup-rule is not supported: remove it
            mistake: --lxc-conf is not supported: remove it
            mistake: -p 0:1 is not a valid port: write -p PORT or -p OUTSIDE:INSIDE, each 1 to 65535
            mistake: -m x is not an amount of memory: write one such as 512m
            mistake: --restart sometimes: it is no, on-failure[:N], always or unless-stopped
            mistake: --ulimit y: write --ulimit NAME=SOFT[:HARD]
        "#]],
    );
    check(
        "--unknown value x",
        expect![[r#"
        mistake: --unknown is not supported: remove it
    "#]],
    );
    check(
        "-it",
        expect![[r#"
        mistake: no image is named
    "#]],
    );
    check(
        "-p",
        expect![[r#"
        mistake: -p has no value
        mistake: no image is named
    "#]],
    );
    check(
        "--oom-kill-disable x",
        expect![[r#"
        mistake: --oom-kill-disable is not supported: a Pod over its memory limit is killed
    "#]],
    );
}
