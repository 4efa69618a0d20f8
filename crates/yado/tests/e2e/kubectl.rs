//! The real `kubectl` against a real node: one row a command.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::cluster::{Cluster, patiently};

/// What is run and what its output must hold. `!` before an expectation means it must not; `^` before a command
/// means it must fail.
pub type Row = (&'static str, &'static [&'static str]);

/// Words, with `'…'` kept together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            c => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// Whether a command only shows what there is. What it shows follows what was done before, but not at once: a status is
/// counted, an event written, a first word logged, a route made. So it is asked again.
fn shows(line: &str) -> bool {
    ["get ", "describe ", "logs ", "rollout history "].iter().any(|verb| line.starts_with(verb))
}

pub fn check(cluster: &Cluster, rows: &[Row]) {
    for (line, expect) in rows {
        let (fails, line) = line.strip_prefix('^').map_or((false, *line), |l| (true, l));
        let dir = cluster.data.path().display().to_string();
        let args = words(&line.replace("DIR", &dir));
        let row = || {
            let output = cluster.kubectl(&args.iter().map(String::as_str).collect::<Vec<_>>());
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            let met =
                |e: &&&str| e.strip_prefix('!').map_or_else(|| text.contains(**e), |not| !text.contains(not));
            let unmet: Vec<_> = expect.iter().filter(|e| !met(e)).collect();
            if output.status.success() != fails && unmet.is_empty() {
                return Ok(());
            }
            Err(format!("kubectl {line}: {}, without {unmet:?}:\n{text}", output.status))
        };
        let done = if shows(line) { patiently(row) } else { row() };
        done.unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: web
        image: busybox
        imagePullPolicy: Never
        command: [sh, -c, "echo started as $(hostname); mkdir /www; hostname > /www/index.html; exec httpd -f -v -p 8000 -h /www"]
        ports: [{name: http, containerPort: 8000}]
        readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  rules:
  - host: web.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
"#;

#[test]
fn k36_k37_k38_k41_every_command_of_kubectl_that_users_know() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    let dir = cluster.data.path().display().to_string();
    std::fs::write(cluster.data.path().join("password"), "s3cr3t").expect("a file");
    std::fs::write(
        cluster.data.path().join("config.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: made}\ndata: {a: b}\n",
    )
    .expect("a file");

    check(
        &cluster,
        &[
            ("version", &["Server Version: v1."]),
            ("cluster-info", &["control plane", "is running at"]),
            ("api-resources", &["deployments", "apps/v1", "ReplicaSet", "endpointslices", "leases"]),
            ("get nodes", &["NAME", "STATUS", "node-1", "Ready"]),
            ("get nodes -o wide", &["INTERNAL-IP", "yado://"]),
            ("describe node node-1", &["Capacity:", "Allocatable:", "cpu:", "MemoryPressure"]),
            ("get namespaces", &["default", "kube-system", "Active"]),
            ("config use-context yado", &["Switched to context"]),
            ("config get-contexts", &["yado"]),
            ("explain deployment.spec.replicas", &["FIELD: replicas <integer>", "DESCRIPTION"]),
            ("explain pod.spec.containers", &["image", "<string>"]),
        ],
    );

    let applied = cluster.apply(WEB);
    assert!(applied.contains("deployment.apps/web created"), "{applied}");
    check(
        &cluster,
        &[
            ("rollout status deployment/web --timeout=180s", &["successfully rolled out"]),
            ("wait --for=condition=Available deployment/web --timeout=180s", &["condition met"]),
            ("get deployments", &["READY", "UP-TO-DATE", "AVAILABLE", "2/2"]),
            ("get pods", &["NAME", "READY", "STATUS", "RESTARTS", "AGE", "1/1", "Running"]),
            ("get pods -o wide", &["IP", "node-1", "10."]),
            ("get pods -l app=web -o name", &["pod/web-"]),
            ("get pods -l app=none", &["No resources found"]),
            ("get pods --field-selector status.phase=Running -o name", &["pod/web-"]),
            ("get rs", &["DESIRED", "CURRENT", "web-"]),
            ("get services", &["CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "web", "<none>", "80/TCP"]),
            ("get endpoints web", &[":8000"]),
            ("get endpointslices", &["IPv4", "8000"]),
            ("get ingress", &["web.test", "127.0.0.1"]),
            ("get deployment web -o yaml", &["kind: Deployment", "maxSurge: 25%", "observedGeneration"]),
            ("get deployment web -o json", &["\"kind\": \"Deployment\""]),
            ("get deployment web -o jsonpath={.status.readyReplicas}", &["2"]),
            ("get all", &["deployment.apps/web", "replicaset.apps/web", "service/web"]),
            ("describe deployment web", &["RollingUpdateStrategy", "NewReplicaSet:", "ScalingReplicaSet"]),
            (
                "describe pods -l app=web",
                &["Container ID:", "yado://", "Ready:          True", "Scheduled", "Started"],
            ),
            ("describe service web", &["Endpoints:", ":8000"]),
            ("logs deployment/web", &["started as web-"]),
            ("logs -l app=web --prefix --tail=1", &["[pod/web-"]),
            ("exec deployment/web -- cat /etc/hostname", &["web-"]),
            ("^exec deployment/web -- sh -c 'exit 7'", &["exit code 7"]),
            ("exec deployment/web -- sh -c 'echo out; echo err >&2'", &["out", "err"]),
        ],
    );
    let bad =
        WEB.split("---").next().unwrap_or_default().replace("replicas", "replica").replace("web", "bad");
    std::fs::write(format!("{dir}/bad.yaml"), bad).expect("a file");
    check(
        &cluster,
        &[
            ("scale deployment web --replicas=3", &["scaled"]),
            ("rollout status deployment/web --timeout=180s", &["successfully rolled out"]),
            ("set image deployment/web web=busybox:latest", &["image updated"]),
            ("rollout status deployment/web --timeout=180s", &["successfully rolled out"]),
            ("rollout history deployment/web", &["REVISION", "1", "2"]),
            ("rollout undo deployment/web", &["rolled back"]),
            ("rollout status deployment/web --timeout=180s", &["successfully rolled out"]),
            ("rollout history deployment/web", &["!1 ", "3"]),
            ("rollout restart deployment/web", &["restarted"]),
            ("rollout status deployment/web --timeout=180s", &["successfully rolled out"]),
            ("label deployment web tier=front", &["labeled"]),
            ("get deployments -l tier=front", &["web"]),
            ("annotate deployment web note='a b'", &["annotated"]),
            ("patch deployment web -p '{\"spec\":{\"replicas\":1}}'", &["patched"]),
            (
                "patch deployment web --type=json -p '[{\"op\":\"replace\",\"path\":\"/spec/replicas\",\"value\":2}]'",
                &["patched"],
            ),
            (
                "patch deployment web --type=merge -p '{\"metadata\":{\"labels\":{\"tier\":null}}}'",
                &["patched"],
            ),
            ("create secret generic db --from-file=DIR/password", &["secret/db created"]),
            ("get secrets", &["NAME", "TYPE", "DATA", "AGE", "db", "Opaque", "1"]),
            ("describe secret db", &["password:  6 bytes", "!s3cr3t"]),
            ("get secret db -o yaml", &["password: czNjcjN0", "uid:"]),
            ("create configmap c --from-literal=k=v", &["configmap/c created"]),
            ("create namespace n", &["namespace/n created"]),
            ("create -f DIR/config.yaml", &["configmap/made created"]),
            ("^create -f DIR/config.yaml", &["AlreadyExists"]),
            ("apply -f DIR/config.yaml", &["configmap/made configured"]),
            ("apply -f DIR/config.yaml", &["configmap/made unchanged"]),
            ("apply --server-side -f DIR/config.yaml --force-conflicts", &["serverside-applied"]),
            ("diff -f DIR/config.yaml", &[]),
            ("delete -f DIR/config.yaml", &["\"made\" deleted"]),
            ("create deployment other --image=busybox -n n", &["created"]),
            ("delete namespace n --timeout=180s", &["\"n\" deleted"]),
            ("^get namespace n", &["NotFound"]),
            ("^get pods none", &["Error from server (NotFound): pods \"none\" not found"]),
            ("^apply -f DIR/bad.yaml", &["unknown field \"spec.replica\""]),
        ],
    );
    interactive(&cluster);
    check(
        &cluster,
        &[
            ("delete deployment web --timeout=180s", &["deleted"]),
            ("wait --for=delete pod -l app=web --timeout=180s", &[]),
            ("get pods -l app=web", &["No resources found"]),
        ],
    );
}

#[test]
fn commands_of_kubectl_that_operators_know() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    let file = |name: &str, text: &str| {
        let path = cluster.data.path().join(name);
        std::fs::create_dir_all(path.parent().expect("its folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    };
    file(
        "many/a.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n",
    );
    file(
        "many/deep/c.json",
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"k":"v"}}"#,
    );
    file("text", "to and fro");
    check(
        &cluster,
        &[
            ("run one --image=busybox --image-pull-policy=Never -- sleep 1000", &["pod/one created"]),
            (
                "run again --image=busybox --image-pull-policy=Never -- sh -c 'echo boom; exit 3'",
                &["created"],
            ),
            ("create deployment web --image=busybox --replicas=2 -- httpd -f -p 8000", &["created"]),
            ("expose deployment web --port=80 --target-port=8000", &["service/web exposed"]),
            (
                "wait --for=jsonpath={.status.readyReplicas}=2 deployment/web --timeout=180s",
                &["condition met"],
            ),
            ("wait --for=condition=Ready pod/one --timeout=180s", &["condition met"]),
            ("create -R -f DIR/many", &["configmap/a created", "configmap/b created", "configmap/c created"]),
            ("replace -f DIR/many/deep/c.json", &["configmap/c replaced"]),
            ("^replace -f DIR/absent.json", &["does not exist"]),
            ("delete -R -f DIR/many", &["\"a\" deleted", "\"c\" deleted"]),
            ("cp DIR/text one:/tmp/text", &[]),
            ("exec one -- cat /tmp/text", &["to and fro"]),
            ("cp one:/tmp/text DIR/back", &[]),
            ("logs -p again", &["boom"]),
            ("set env deployment/web A=b", &["env updated"]),
            ("rollout undo deployment/web --to-revision=1", &["rolled back"]),
            ("^rollout undo deployment/web --to-revision=7", &["unable to find specified revision 7"]),
            ("rollout pause deployment/web", &["paused"]),
            ("rollout resume deployment/web", &["resumed"]),
            ("rollout history deployment/web --revision=3", &["Image:", "busybox"]),
            ("cordon node-1", &["cordoned"]),
            ("get nodes", &["Ready,SchedulingDisabled"]),
            ("^drain node-1 --timeout=180s", &["use --force to override"]),
            ("drain node-1 --force --grace-period=1 --timeout=180s", &["drained"]),
            ("get pods -o wide", &["Pending", "!Running"]),
            ("uncordon node-1", &["uncordoned"]),
            ("rollout status deployment/web --timeout=180s", &["successfully rolled out"]),
            ("taint nodes node-1 k=v:NoSchedule", &["tainted"]),
            ("taint nodes node-1 k-", &["untainted"]),
            ("auth can-i create pods", &["yes"]),
            ("auth whoami", &["kubernetes-admin", "system:masters"]),
            ("get --raw /healthz", &["ok"]),
            ("get --raw /version", &["\"major\":\"1\""]),
            ("^get --raw /nowhere", &["could not find the requested resource"]),
            ("^get pods --field-selector=a.b=c", &["field label not supported"]),
            ("^get nonsense", &["doesn't have a resource type"]),
            ("^run Wrong --image=busybox", &["metadata.name: Invalid value"]),
            ("^create configmap x -n absent", &["namespaces \"absent\" not found"]),
            ("top nodes", &["CPU(cores)", "node-1"]),
            ("delete pods --all --force --grace-period=0", &["force deleted"]),
        ],
    );
    assert_eq!(std::fs::read_to_string(cluster.data.path().join("back")).expect("the file"), "to and fro");
    // Ephemeral containers are not served; kubectl must be able to tell.
    let pod = cluster.ok(&["get", "pods", "-l", "app=web", "-o", "name"]);
    let pod = pod.lines().next().expect("a Pod");
    let debug = cluster.kubectl(&["debug", pod, "--image=busybox", "--", "sh"]);
    let error = String::from_utf8_lossy(&debug.stderr).into_owned();
    assert!(error.contains("ephemeral containers are disabled") && !error.contains("panic"), "{error}");
}

/// What talks back: edit, watch, follow, exec with input and with a terminal, port-forward.
fn interactive(cluster: &Cluster) {
    let editor = cluster.data.path().join("editor");
    std::fs::write(
        &editor,
        "#!/bin/sh
sed -i 's/k: v$/k: w/' \"$1\"
",
    )
    .expect("a file");
    std::fs::set_permissions(&editor, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("a program");
    let mut edit = cluster.command("kubectl");
    let edited = edit.args(["edit", "configmap", "c"]).env("KUBE_EDITOR", &editor).output();
    let edited = edited.expect("kubectl edit");
    assert!(String::from_utf8_lossy(&edited.stdout).contains("configmap/c edited"), "{edited:?}");

    let mut watch = cluster
        .command("kubectl")
        .args(["get", "configmaps", "-w", "-o", "name"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a watch");
    let mut seen = BufReader::new(watch.stdout.take().expect("its output")).lines().map_while(Result::ok);
    assert!(seen.any(|line| line == "configmap/c"));
    cluster.ok(&["create", "configmap", "later"]);
    assert!(seen.any(|line| line == "configmap/later"));
    watch.kill().expect("to end");
    watch.wait().expect("to end");

    let mut follow = cluster
        .command("kubectl")
        .args(["logs", "-f", "deployment/web"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("logs");
    let mut lines = BufReader::new(follow.stdout.take().expect("its output")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("started as web-")));
    follow.kill().expect("to end");
    follow.wait().expect("to end");

    for websockets in ["true", "false"] {
        streams(cluster, websockets);
    }
}

/// exec and port-forward in both of kubectl's protocols: WebSockets, and SPDY before them.
fn streams(cluster: &Cluster, websockets: &str) {
    let kubectl = |args: &[&str]| {
        let mut command = cluster.command("kubectl");
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets);
        command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets);
        command
    };
    let exec = |script: &str| kubectl(&["exec", "-i", "deployment/web", "--", "sh", "-c", script]);
    let mut shell = exec("cat; echo err >&2; exit 7").spawn().expect("exec");
    shell.stdin.take().expect("its input").write_all(b"through and back").expect("to write");
    let output = shell.wait_with_output().expect("exec");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "through and back");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("err\n"), "{output:?}");
    assert_eq!(output.status.code(), Some(7));

    // Input that goes on when the command has ended.
    for _ in 0..3 {
        let mut shell = exec("head -n 2; exit 3").spawn().expect("exec");
        let mut input = shell.stdin.take().expect("its input");
        let typing = std::thread::spawn(move || while input.write_all(&b"y\n".repeat(4096)).is_ok() {});
        let output = shell.wait_with_output().expect("exec");
        assert_eq!(
            (output.stdout.as_slice(), output.status.code()),
            (b"y\ny\n".as_slice(), Some(3)),
            "{output:?}"
        );
        typing.join().expect("an end");
    }

    let terminal = "kubectl exec -it deployment/web -- sh -c 'tty; stty size; echo done'";
    let mut typed = cluster.command("script");
    typed.args(["-qec", terminal, "/dev/null"]).env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets);
    let typed = String::from_utf8_lossy(&typed.output().expect("script").stdout).into_owned();
    assert!(typed.contains("/dev/pts/") && typed.contains("done"), "{typed}");

    let mut forward =
        kubectl(&["port-forward", "deployment/web", "18000:8000"]).spawn().expect("port-forward");
    let mut lines = BufReader::new(forward.stdout.take().expect("its output")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("Forwarding from")));
    for _ in 0..3 {
        assert!(cluster.curl(&["http://127.0.0.1:18000/"]).starts_with("web-"));
    }
    forward.kill().expect("to end");
    forward.wait().expect("to end");
}
