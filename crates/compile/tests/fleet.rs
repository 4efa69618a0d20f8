//! fleet units, from files to objects.

use std::{fmt::Write, fs, path::Path};

use expect_test::{Expect, expect, expect_file};
use serde_json::Value;
use yado_compile::{Compiled, Diagnostics, Options, compile, output};

/// Writes `units` (name and text) into the directory of a project `p` and compiles `what` of it.
fn compiled_in(units: &[(&str, &str)], what: &str) -> Result<Compiled, Diagnostics> {
    let directory = tempfile::tempdir().unwrap();
    let project = directory.path().join("p");
    fs::create_dir(&project).unwrap();
    for (name, text) in units {
        fs::write(project.join(name), text).unwrap();
    }
    compile(&project.join(what), &Options::default()).map(|mut compiled| {
        for warning in &mut compiled.warnings {
            warning.at.file = warning.at.file.strip_prefix(&project).unwrap_or(&warning.at.file).into();
        }
        compiled
    })
}

/// Compiles the units as a project; what is at `pointers` of each object that has any of it.
fn check(units: &[(&str, &str)], pointers: &[&str], expect: &Expect) {
    let mut shown = String::new();
    match compiled_in(units, "") {
        Ok(compiled) => {
            for object in &compiled.objects {
                let parts: Vec<String> =
                    pointers.iter().filter_map(|p| object.value.pointer(p)).map(Value::to_string).collect();
                if !parts.is_empty() {
                    writeln!(shown, "{} {}: {}", object.kind(), object.name(), parts.join(" ")).unwrap();
                }
            }
            compiled.warnings.iter().for_each(|w| writeln!(shown, "{w}").unwrap());
        }
        Err(mistakes) => {
            for mistake in mistakes.0 {
                let file = mistake.at.file.file_name().unwrap().to_string_lossy().into_owned();
                writeln!(shown, "{file}:{}:{}: {}", mistake.at.line, mistake.at.column, mistake.message)
                    .unwrap();
            }
        }
    }
    expect.assert_eq(&shown);
}

const POD: &str = "/spec/template/spec";

#[test]
fn c04_a_unit_of_docker() {
    let unit = "\
[Unit]
Description=A web server
After=docker.service
Requires=docker.service

[Service]
TimeoutStartSec=0
Restart=always
ExecStartPre=-/usr/bin/docker kill web
ExecStartPre=-/usr/bin/docker rm web
ExecStartPre=/usr/bin/docker pull busybox
ExecStart=/usr/bin/docker run --rm --name web -e A=1 -v /srv/www:/www:ro busybox httpd -f -h /www
ExecStop=/usr/bin/docker stop -t 5 web

[Install]
WantedBy=multi-user.target
";
    check(
        &[("web.service", unit)],
        &[POD],
        &expect![[r#"
            Deployment web: {"automountServiceAccountToken":false,"containers":[{"args":["httpd","-f","-h","/www"],"env":[{"name":"A","value":"1"}],"image":"busybox","imagePullPolicy":"Always","name":"main","volumeMounts":[{"mountPath":"/www","name":"www","readOnly":true}]}],"enableServiceLinks":false,"securityContext":{"seccompProfile":{"type":"RuntimeDefault"}},"terminationGracePeriodSeconds":5,"volumes":[{"hostPath":{"path":"/srv/www","type":"DirectoryOrCreate"},"name":"www"}]}
        "#]],
    );
}

#[test]
fn c04_programs_of_the_machine() {
    let unit = "\
[Service]
Environment=NAME=world
EnvironmentFile=-/etc/environment
User=core
LimitNOFILE=1024
ExecStartPre=-/bin/false
ExecStart=/usr/bin/announce --host %H --name ${NAME} --ip ${IP}
ExecStop=/usr/bin/announce --remove
";
    check(
        &[("announce.service", unit), ("plain.service", "[Service]\nExecStart=/bin/echo '$$x' ${NO}y\n")],
        &[POD, "/spec/template/metadata/annotations"],
        &expect![[r#"
            Deployment announce: {"automountServiceAccountToken":false,"containers":[{"command":["/bin/sh","-c","environment() {\n  while IFS= read -r _line || [ -n \"$_line\" ]; do\n    _key=${_line%%=*} _value=${_line#*=}\n    case $_key in \"$_line\"|''|[0-9]*|*[!A-Za-z0-9_]*) continue ;; esac\n    case $_value in \\\"*\\\"|\\'*\\') _value=${_value#?} _value=${_value%?} ;; esac\n    export \"$_key=$_value\"\n  done <\"$1\"\n}\n[ ! -r /etc/environment ] || environment /etc/environment\nexec /usr/bin/announce --host \"${UNIT_HOST_NAME:-$$(cat /proc/sys/kernel/hostname)}\" --name world --ip \"${IP}\""],"env":[{"name":"UNIT_HOST_NAME","valueFrom":{"fieldRef":{"fieldPath":"spec.nodeName"}}},{"name":"NAME","value":"world"}],"image":"host","lifecycle":{"preStop":{"exec":{"command":["/bin/sh","-c","environment() {\n  while IFS= read -r _line || [ -n \"$_line\" ]; do\n    _key=${_line%%=*} _value=${_line#*=}\n    case $_key in \"$_line\"|''|[0-9]*|*[!A-Za-z0-9_]*) continue ;; esac\n    case $_value in \\\"*\\\"|\\'*\\') _value=${_value#?} _value=${_value%?} ;; esac\n    export \"$_key=$_value\"\n  done <\"$1\"\n}\n[ ! -r /etc/environment ] || environment /etc/environment\n/usr/bin/announce --remove\n"]}}},"name":"main"}],"enableServiceLinks":false,"hostNetwork":true,"initContainers":[{"command":["/bin/sh","-c","environment() {\n  while IFS= read -r _line || [ -n \"$_line\" ]; do\n    _key=${_line%%=*} _value=${_line#*=}\n    case $_key in \"$_line\"|''|[0-9]*|*[!A-Za-z0-9_]*) continue ;; esac\n    case $_value in \\\"*\\\"|\\'*\\') _value=${_value#?} _value=${_value%?} ;; esac\n    export \"$_key=$_value\"\n  done <\"$1\"\n}\n[ ! -r /etc/environment ] || environment /etc/environment\n/bin/false || true\n"],"env":[{"name":"NAME","value":"world"}],"image":"host","name":"pre-1"}],"nodeSelector":{"yado.dev/host-image":"true"},"securityContext":{"seccompProfile":{"type":"RuntimeDefault"}}} {"yado.dev/ulimits":"{\"nofile\":{\"soft\":1024,\"hard\":1024}}","yado.dev/unit":"announce.service","yado.dev/users":"{\"main\":\"core\"}"}
            Deployment plain: {"automountServiceAccountToken":false,"containers":[{"command":["/bin/echo","$x","y"],"image":"host","name":"main"}],"enableServiceLinks":false,"hostNetwork":true,"nodeSelector":{"yado.dev/host-image":"true"},"securityContext":{"seccompProfile":{"type":"RuntimeDefault"}}} {"yado.dev/unit":"plain.service"}
        "#]],
    );
}

#[test]
fn c05_template_units() {
    let template = "[Service]\nExecStart=/usr/bin/docker run --name kappa-test-%i --hostname kappa-test-%i -p 8000 kappa\n[X-Fleet]\nConflicts=%p@*.service\n";
    check(
        &[
            ("kappa-test@.service", template),
            ("kappa-test@1.service", template),
            ("kappa-test@2.service", template),
        ],
        &[
            "/spec/template/spec/hostname",
            "/spec/type",
            "/spec/selector",
            "/spec/template/spec/affinity/podAntiAffinity",
        ],
        &expect![[r#"
            Service kappa-test: {"app.kubernetes.io/name":"p","yado.dev/unit-group":"kappa-test"}
            Service kappa-test-1: {"app.kubernetes.io/component":"kappa-test-1","app.kubernetes.io/name":"p"}
            Deployment kappa-test-1: "kappa-test-1" {"matchLabels":{"app.kubernetes.io/component":"kappa-test-1","app.kubernetes.io/name":"p"}} {"requiredDuringSchedulingIgnoredDuringExecution":[{"labelSelector":{"matchExpressions":[{"key":"app.kubernetes.io/component","operator":"In","values":["kappa-test-2"]}],"matchLabels":{"app.kubernetes.io/name":"p"}},"topologyKey":"kubernetes.io/hostname"}]}
            Service kappa-test-1-ports: "NodePort" {"app.kubernetes.io/component":"kappa-test-1","app.kubernetes.io/name":"p"}
            Service kappa-test-2: {"app.kubernetes.io/component":"kappa-test-2","app.kubernetes.io/name":"p"}
            Deployment kappa-test-2: "kappa-test-2" {"matchLabels":{"app.kubernetes.io/component":"kappa-test-2","app.kubernetes.io/name":"p"}} {"requiredDuringSchedulingIgnoredDuringExecution":[{"labelSelector":{"matchExpressions":[{"key":"app.kubernetes.io/component","operator":"In","values":["kappa-test-1"]}],"matchLabels":{"app.kubernetes.io/name":"p"}},"topologyKey":"kubernetes.io/hostname"}]}
            Service kappa-test-2-ports: "NodePort" {"app.kubernetes.io/component":"kappa-test-2","app.kubernetes.io/name":"p"}
        "#]],
    );
    // A template alone is shown by an instance of it.
    check(
        &[("kappa-test@.service", template)],
        &["/spec/template/spec/hostname"],
        &expect![[r#"
        Deployment kappa-test-1: "kappa-test-1"
        kappa-test@.service: is a template and runs as instances: compiled is kappa-test@1.service; for others make links to it, or use `yado fleet start`
    "#]],
    );
    // An instance needs no file of its own.
    let instance = compiled_in(&[("kappa-test@.service", template)], "kappa-test@7.service").unwrap();
    assert!(instance.objects.iter().any(|o| o.kind() == "Deployment" && o.name() == "kappa-test-7"));
}

#[test]
fn c05_each_instance_has_its_own_published_ports() {
    let template =
        |ports: &str| format!("[Service]\nExecStart=/usr/bin/docker run --name nb.%i {ports} busybox\n");
    let check_ports = |ports: &str, expect: &Expect| {
        let text = template(ports);
        let units = [("nb@.service", &*text), ("nb@1.service", &text), ("nb@2.service", &text)];
        check(&units, &["/spec/type", "/spec/ports", "/spec/selector", "/spec/rules"], expect);
    };
    // Its own number outside.
    check_ports(
        "-p 2219%i:80",
        &expect![[r#"
        Service nb: [{"name":"tcp-80","port":80,"protocol":"TCP","targetPort":80}] {"app.kubernetes.io/name":"p","yado.dev/unit-group":"nb"}
        Ingress nb: [{"host":"p.localhost","http":{"paths":[{"backend":{"service":{"name":"nb","port":{"number":80}}},"path":"/","pathType":"Prefix"}]}},{"host":"nb.p.localhost","http":{"paths":[{"backend":{"service":{"name":"nb","port":{"number":80}}},"path":"/","pathType":"Prefix"}]}}]
        Service nb-22191-public: "LoadBalancer" [{"name":"tcp-22191","port":22191,"protocol":"TCP","targetPort":80}] {"app.kubernetes.io/name":"p","yado.dev/unit-group":"nb","port.yado.dev/22191-public":"80"}
        Service nb-1: [{"name":"tcp-80","port":80,"protocol":"TCP","targetPort":80}] {"app.kubernetes.io/component":"nb-1","app.kubernetes.io/name":"p"}
        Deployment nb-1: {"matchLabels":{"app.kubernetes.io/component":"nb-1","app.kubernetes.io/name":"p"}}
        Service nb-22192-public: "LoadBalancer" [{"name":"tcp-22192","port":22192,"protocol":"TCP","targetPort":80}] {"app.kubernetes.io/name":"p","yado.dev/unit-group":"nb","port.yado.dev/22192-public":"80"}
        Service nb-2: [{"name":"tcp-80","port":80,"protocol":"TCP","targetPort":80}] {"app.kubernetes.io/component":"nb-2","app.kubernetes.io/name":"p"}
        Deployment nb-2: {"matchLabels":{"app.kubernetes.io/component":"nb-2","app.kubernetes.io/name":"p"}}
    "#]],
    );
    // A number that all have leads to all.
    check_ports(
        "-p 8080:80 -p 127.0.0.1:9%i00:9000/udp",
        &expect![[r#"
        Service nb: [{"name":"tcp-80","port":80,"protocol":"TCP","targetPort":80},{"name":"udp-9000","port":9000,"protocol":"UDP","targetPort":9000}] {"app.kubernetes.io/name":"p","yado.dev/unit-group":"nb"}
        Ingress nb: [{"host":"p.localhost","http":{"paths":[{"backend":{"service":{"name":"nb","port":{"number":80}}},"path":"/","pathType":"Prefix"}]}},{"host":"nb.p.localhost","http":{"paths":[{"backend":{"service":{"name":"nb","port":{"number":80}}},"path":"/","pathType":"Prefix"}]}}]
        Service nb-8080-public: "LoadBalancer" [{"name":"tcp-8080","port":8080,"protocol":"TCP","targetPort":80}] {"app.kubernetes.io/name":"p","yado.dev/unit-group":"nb","port.yado.dev/8080-public":"80"}
        Service nb-9100-udp-local: "LoadBalancer" [{"name":"udp-9100","port":9100,"protocol":"UDP","targetPort":9000}] {"app.kubernetes.io/name":"p","yado.dev/unit-group":"nb","port.yado.dev/9100-udp-local":"9000"}
        Service nb-1: [{"name":"tcp-80","port":80,"protocol":"TCP","targetPort":80},{"name":"udp-9000","port":9000,"protocol":"UDP","targetPort":9000}] {"app.kubernetes.io/component":"nb-1","app.kubernetes.io/name":"p"}
        Deployment nb-1: {"matchLabels":{"app.kubernetes.io/component":"nb-1","app.kubernetes.io/name":"p"}}
        Service nb-9200-udp-local: "LoadBalancer" [{"name":"udp-9200","port":9200,"protocol":"UDP","targetPort":9000}] {"app.kubernetes.io/name":"p","yado.dev/unit-group":"nb","port.yado.dev/9200-udp-local":"9000"}
        Service nb-2: [{"name":"tcp-80","port":80,"protocol":"TCP","targetPort":80},{"name":"udp-9000","port":9000,"protocol":"UDP","targetPort":9000}] {"app.kubernetes.io/component":"nb-2","app.kubernetes.io/name":"p"}
        Deployment nb-2: {"matchLabels":{"app.kubernetes.io/component":"nb-2","app.kubernetes.io/name":"p"}}
    "#]],
    );
    // Each listens on a port of its own: the name of all leads to each port where it is.
    check_ports(
        "-p 808%i:80%i",
        &expect![[r#"
        Service nb: [{"name":"tcp-801","port":801,"protocol":"TCP","targetPort":"tcp-801"},{"name":"tcp-802","port":802,"protocol":"TCP","targetPort":"tcp-802"}] {"app.kubernetes.io/name":"p","yado.dev/unit-group":"nb"}
        Ingress nb: [{"host":"p.localhost","http":{"paths":[{"backend":{"service":{"name":"nb","port":{"number":801}}},"path":"/","pathType":"Prefix"}]}},{"host":"nb.p.localhost","http":{"paths":[{"backend":{"service":{"name":"nb","port":{"number":801}}},"path":"/","pathType":"Prefix"}]}}]
        Service nb-8081-public: "LoadBalancer" [{"name":"tcp-8081","port":8081,"protocol":"TCP","targetPort":801}] {"app.kubernetes.io/name":"p","yado.dev/unit-group":"nb","port.yado.dev/8081-public":"801"}
        Service nb-1: [{"name":"tcp-801","port":801,"protocol":"TCP","targetPort":801}] {"app.kubernetes.io/component":"nb-1","app.kubernetes.io/name":"p"}
        Deployment nb-1: {"matchLabels":{"app.kubernetes.io/component":"nb-1","app.kubernetes.io/name":"p"}}
        Service nb-8082-public: "LoadBalancer" [{"name":"tcp-8082","port":8082,"protocol":"TCP","targetPort":802}] {"app.kubernetes.io/name":"p","yado.dev/unit-group":"nb","port.yado.dev/8082-public":"802"}
        Service nb-2: [{"name":"tcp-802","port":802,"protocol":"TCP","targetPort":802}] {"app.kubernetes.io/component":"nb-2","app.kubernetes.io/name":"p"}
        Deployment nb-2: {"matchLabels":{"app.kubernetes.io/component":"nb-2","app.kubernetes.io/name":"p"}}
    "#]],
    );
    // Wherever there is room.
    check_ports(
        "-p 6379",
        &expect![[r#"
        Service nb: [{"name":"tcp-6379","port":6379,"protocol":"TCP","targetPort":6379}] {"app.kubernetes.io/name":"p","yado.dev/unit-group":"nb"}
        Service nb-1: [{"name":"tcp-6379","port":6379,"protocol":"TCP","targetPort":6379}] {"app.kubernetes.io/component":"nb-1","app.kubernetes.io/name":"p"}
        Deployment nb-1: {"matchLabels":{"app.kubernetes.io/component":"nb-1","app.kubernetes.io/name":"p"}}
        Service nb-1-ports: "NodePort" [{"name":"tcp-6379","port":6379,"protocol":"TCP","targetPort":6379}] {"app.kubernetes.io/component":"nb-1","app.kubernetes.io/name":"p"}
        Service nb-2: [{"name":"tcp-6379","port":6379,"protocol":"TCP","targetPort":6379}] {"app.kubernetes.io/component":"nb-2","app.kubernetes.io/name":"p"}
        Deployment nb-2: {"matchLabels":{"app.kubernetes.io/component":"nb-2","app.kubernetes.io/name":"p"}}
        Service nb-2-ports: "NodePort" [{"name":"tcp-6379","port":6379,"protocol":"TCP","targetPort":6379}] {"app.kubernetes.io/component":"nb-2","app.kubernetes.io/name":"p"}
    "#]],
    );
}

#[test]
fn c06_places() {
    let run = "[Service]\nExecStart=/usr/bin/docker run x\n[X-Fleet]\n";
    let unit = |fleet: &str| format!("{run}{fleet}\n");
    check(
        &[
            ("all.service", &unit("Global=true")),
            ("apart.service", &unit("Conflicts=all.service near*")),
            ("id.service", &unit("MachineID=85c0c595")),
            ("near.service", &unit("X-ConditionMachineOf=id.service")),
            ("meta.service", &unit("MachineMetadata=\"region=us\" \"disk=ssd\"\nMachineMetadata=region=eu")),
        ],
        &["/spec/template/spec/affinity"],
        &expect![[r#"
        DaemonSet all: {"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"labelSelector":{"matchExpressions":[{"key":"app.kubernetes.io/component","operator":"In","values":["apart"]}],"matchLabels":{"app.kubernetes.io/name":"p"}},"topologyKey":"kubernetes.io/hostname"}]}}
        Deployment apart: {"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"labelSelector":{"matchExpressions":[{"key":"app.kubernetes.io/component","operator":"In","values":["all","near"]}],"matchLabels":{"app.kubernetes.io/name":"p"}},"topologyKey":"kubernetes.io/hostname"}]}}
        Deployment id: {"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"kubernetes.io/hostname","operator":"In","values":["85c0c595"]}]},{"matchExpressions":[{"key":"yado.dev/machine-id","operator":"In","values":["85c0c595"]}]}]}}}
        Deployment meta: {"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"disk","operator":"In","values":["ssd"]},{"key":"region","operator":"In","values":["us","eu"]}]}]}}}
        Deployment near: {"podAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"labelSelector":{"matchExpressions":[{"key":"app.kubernetes.io/component","operator":"In","values":["id"]}],"matchLabels":{"app.kubernetes.io/name":"p"}},"topologyKey":"kubernetes.io/hostname"}]},"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"labelSelector":{"matchExpressions":[{"key":"app.kubernetes.io/component","operator":"In","values":["apart"]}],"matchLabels":{"app.kubernetes.io/name":"p"}},"topologyKey":"kubernetes.io/hostname"}]}}
    "#]],
    );
}

#[test]
fn c24_a_pattern_that_matches_nothing() {
    let template = "[Service]\nExecStart=/bin/true x\n[X-Fleet]\nConflicts=kappa-test@*\nConflicts=kappa-test-@*\nConflict=x\n";
    check(
        &[("kappa-test@1.service", template)],
        &[],
        &expect![[r#"
        kappa-test@1.service:6:1: fleet does not know Conflict in [X-Fleet] and ignores it; is Conflicts meant?
        kappa-test@1.service:5:11: Conflicts=kappa-test-@* matches no known unit (kappa-test@1.service)
    "#]],
    );
}

#[test]
fn c23_mistakes_have_their_place() {
    check(
        &[
            ("a.service", "[Service]\nExecStart=/usr/bin/docker run --bogus x\nExecStartPre=/bin/sh -c 'x\n"),
            ("b.service", "[Unit]\nDescription=none\n"),
            (
                "c.service",
                "[Service]\nExecStart=/bin/a\nExecStart=/bin/b\n[X-Fleet]\nGlobal=true\nMachineID=x\n",
            ),
            ("d.service", "[Service]\nExecStart=/usr/bin/docker run\n"),
        ],
        &[],
        &expect![[r#"
            a.service:2:11: --bogus is not supported: remove it
            a.service:3:25: this quote is not closed: close it, or write \ before it
            b.service:0:0: the unit has no ExecStart: say in [Service] what it runs
            c.service:3:1: a second ExecStart is for Type=oneshot only: write ExecStartPre for what comes before
            c.service:6:11: MachineID cannot be used with Global: remove one of them
            d.service:2:11: no image is named
        "#]],
    );
}

#[test]
fn c14_ports_and_names() {
    check(
        &[
            (
                "db.service",
                "[Service]\nExecStart=/usr/bin/docker run --name db -v data:/var/lib/mysql mysql\n",
            ),
            (
                "web.service",
                "[Unit]\nAfter=db.service\n[Service]\nExecStart=/usr/bin/docker run --name web --link db:database -p ${COREOS_PRIVATE_IPV4}:80:8000 -p 9000 web\nEnvironmentFile=/etc/environment\n",
            ),
        ],
        &[
            "/spec/type",
            "/spec/ports",
            "/spec/template/metadata/annotations/yado.dev~1depends-on",
            "/spec/rules/0/host",
            "/spec/template/spec/containers/0/env",
        ],
        &expect![[r#"
            Service db: [{"name":"tcp-3306","port":3306,"protocol":"TCP","targetPort":3306}]
            Service database: [{"name":"tcp-3306","port":3306,"protocol":"TCP","targetPort":3306}]
            Ingress web: "p.localhost"
            Service web-public: "LoadBalancer" [{"name":"tcp-80","port":80,"protocol":"TCP","targetPort":8000}]
            Service web: [{"name":"tcp-8000","port":8000,"protocol":"TCP","targetPort":8000},{"name":"tcp-9000","port":9000,"protocol":"TCP","targetPort":9000}]
            Deployment web: "{\"db\":\"started\"}" [{"name":"DATABASE_NAME","value":"/web/database"},{"name":"DATABASE_PORT","value":"tcp://database:3306"},{"name":"DATABASE_PORT_3306_TCP","value":"tcp://database:3306"},{"name":"DATABASE_PORT_3306_TCP_ADDR","value":"database"},{"name":"DATABASE_PORT_3306_TCP_PORT","value":"3306"},{"name":"DATABASE_PORT_3306_TCP_PROTO","value":"tcp"}]
            Service web-ports: "NodePort" [{"name":"tcp-9000","port":9000,"protocol":"TCP","targetPort":9000}]
        "#]],
    );
}

#[test]
fn data_containers_and_sidekicks() {
    check(
        &[
            (
                "db.service",
                "[Service]\nExecStartPre=-/usr/bin/docker run -v /var/lib/db --name db-data busybox true\nExecStart=/usr/bin/docker run --name db --volumes-from db-data db\nExecStartPost=/usr/bin/etcdctl set /db %H\nExecStop=/usr/bin/etcdctl rm /db\nExecStartPost=/usr/bin/docker exec db init\n",
            ),
            ("timer.service", "[Service]\nType=oneshot\nExecStart=/usr/bin/docker run backup\n"),
            ("timer.timer", "[Timer]\nOnCalendar=daily\n"),
            (
                "once.service",
                "[Service]\nType=oneshot\nExecStart=/usr/bin/docker run x one\nExecStart=/usr/bin/docker run x two\n",
            ),
        ],
        &["/spec/replicas", "/spec/backoffLimit", POD],
        &expect![[r#"
            Deployment db: 1 {"automountServiceAccountToken":false,"containers":[{"image":"db","imagePullPolicy":"IfNotPresent","lifecycle":{"postStart":{"exec":{"command":["init"]}}},"name":"main","volumeMounts":[{"mountPath":"/var/lib/db","name":"db-data-var-lib-db"}]},{"command":["/bin/sh","-c","/usr/bin/etcdctl set /db \"${UNIT_HOST_NAME:-$$(cat /proc/sys/kernel/hostname)}\" || exit $?\ntrap 'exit 0' TERM INT\nwhile :; do sleep 3600 & wait; done"],"env":[{"name":"UNIT_HOST_NAME","valueFrom":{"fieldRef":{"fieldPath":"spec.nodeName"}}}],"image":"host","lifecycle":{"preStop":{"exec":{"command":["/usr/bin/etcdctl","rm","/db"]}}},"name":"unit"}],"enableServiceLinks":false,"nodeSelector":{"yado.dev/host-image":"true"},"securityContext":{"seccompProfile":{"type":"RuntimeDefault"}},"volumes":[{"name":"db-data-var-lib-db","persistentVolumeClaim":{"claimName":"db-data-var-lib-db"}}]}
            Job once: 0 {"automountServiceAccountToken":false,"containers":[{"args":["two"],"image":"x","imagePullPolicy":"IfNotPresent","name":"main"}],"enableServiceLinks":false,"initContainers":[{"args":["one"],"image":"x","name":"pre-1"}],"restartPolicy":"Never","securityContext":{"seccompProfile":{"type":"RuntimeDefault"}}}
        "#]],
    );
}

#[test]
fn timers_become_cron_jobs() {
    let job = "[Service]\nType=oneshot\nExecStart=/usr/bin/docker run backup\n";
    check(
        &[
            ("backup.service", job),
            (
                "backup.timer",
                "[Timer]\nOnCalendar=Mon..Fri 02:30\nOnCalendar=daily UTC\nPersistent=true\nRandomizedDelaySec=1h\nWakeSystem=no\n",
            ),
            (
                "after.service",
                "[Unit]\nAfter=backup.service\n[Service]\nExecStart=/usr/bin/docker run after\n",
            ),
            (
                "often.service",
                "[Service]\nExecStart=/usr/bin/docker run -p 80:80 often\nRestart=on-failure\n",
            ),
            ("every.timer", "[Timer]\nOnBootSec=5min\nOnUnitActiveSec=1h 30min\nUnit=often.service\n"),
        ],
        &[
            "/spec/schedule",
            "/spec/timeZone",
            "/spec/concurrencyPolicy",
            "/spec/startingDeadlineSeconds",
            "/spec/jobTemplate/spec/backoffLimit",
            "/spec/jobTemplate/spec/template/spec/restartPolicy",
            "/spec/jobTemplate/spec/template/metadata/annotations",
            "/spec/template/metadata/annotations",
            "/spec/type",
        ],
        &expect![[r#"
            CronJob backup: "30 2 * * 1,2,3,4,5" "Forbid" 0 "Never" {"yado.dev/unit":"backup.service"}
            CronJob backup-2: "0 0 * * *" "UTC" "Forbid" 0 "Never" {"yado.dev/unit":"backup.service"}
            Service often-public: "LoadBalancer"
            CronJob every-timer: "@every 1h30m" "Forbid" 60 6 "OnFailure" {"yado.dev/unit":"often.service"}
            Deployment after: {"yado.dev/unit":"after.service"}
            backup.timer:5:1: RandomizedDelaySec has no effect here
            every.timer:2:1: OnBootSec has no effect: the first time comes with the others
        "#]],
    );
}

#[test]
fn timers_that_are_no_cron_jobs_say_why() {
    let job = "[Service]\nType=oneshot\nExecStart=/usr/bin/docker run job\n";
    check(
        &[
            ("once.service", job),
            ("once.timer", "[Timer]\nOnBootSec=5min\n"),
            ("odd.service", job),
            ("odd.timer", "[Timer]\nOnCalendar=Mon *-*-1..7 00:00\nOnCalendar=whenever\nOnCalender=daily\n"),
            ("stays.service", "[Service]\nRestart=always\nExecStart=/usr/bin/docker run stays\n"),
            ("stays.timer", "[Timer]\nOnCalendar=daily\n"),
            ("all.service", &format!("{job}[X-Fleet]\nGlobal=true\n")),
            ("all.timer", "[Timer]\nOnCalendar=daily\n"),
            ("seconds.service", job),
            ("seconds.timer", "[Timer]\nOnCalendar=12:00:30\nOnUnitInactiveSec=10\n"),
            ("lone.timer", "[Timer]\nOnCalendar=daily\n"),
        ],
        &["/spec/replicas", "/spec/schedule"],
        &expect![[r#"
            CronJob seconds: "0 12 * * *"
            CronJob seconds-2: "@every 1m"
            Deployment odd: 0
            Deployment once: 0
            Deployment stays: 0
            odd.timer:4:1: systemd does not know OnCalender in [Timer] and ignores it; is OnCalendar meant?
            odd.timer:2:12: OnCalendar=Mon *-*-1..7 00:00 asks for days of the week that are days of the month as well, where a CronJob takes either
            odd.timer:3:12: OnCalendar=whenever is not a valid calendar time, such as daily or Mon *-*-* 08:00
            once.timer:2:1: OnBootSec=5min is one time only, which a CronJob cannot be
            seconds.timer:2:12: a CronJob knows no seconds: it is due at the start of the minute
            seconds.timer:3:19: a CronJob is due once a minute at most
            seconds.timer:3:19: OnUnitInactiveSec counts from the last start here, not from the last end
            all.timer: this timer starts nothing: all.service waits until somebody starts it, as `yado fleet start all.service` does
            lone.timer: this timer starts nothing: lone.service waits until somebody starts it, as `yado fleet start lone.service` does
            odd.timer: this timer starts nothing: odd.service waits until somebody starts it, as `yado fleet start odd.service` does
            once.timer: this timer starts nothing: once.service waits until somebody starts it, as `yado fleet start once.service` does
            stays.timer: this timer starts nothing: stays.service waits until somebody starts it, as `yado fleet start stays.service` does
        "#]],
    );
}

/// What each unit with these lines of `[Service]` runs, beside a unit `web` that runs a container of this name.
#[test]
fn c04_forms_of_docker_and_others() {
    let mut shown = String::new();
    for lines in [
        // A command in a container: of this unit, of another, of none that is known.
        "ExecStartPre=/usr/bin/docker run -d --name a nginx\nExecStart=/usr/bin/docker exec a tail -f /log",
        "Type=oneshot\nExecStartPre=/usr/bin/docker run -d --name a nginx\nExecStart=/usr/bin/docker exec a setup",
        "ExecStart=/usr/bin/docker run --name a nginx\nExecStop=-/usr/bin/docker exec -u root a flush\nExecStop=/usr/bin/docker exec a quit 1\nExecStartPost=/usr/bin/docker exec web touch x",
        "Type=oneshot\nExecStart=/usr/bin/docker exec -i web mysqldump db",
        "ExecStart=/bin/bash -c 'docker exec web sh -c \"tail -f x\"'",
        "ExecStart=/usr/bin/docker exec none ls",
        // A container that was there before.
        "ExecStartPre=/usr/bin/docker create --name a nginx\nExecStart=/usr/bin/docker start -a a",
        "ExecStartPre=/bin/bash -c 'docker inspect a >/dev/null 2>&1 || docker run -d --name a nginx'\nExecStart=/usr/bin/docker start -a a",
        "ExecStart=/usr/bin/docker start -a web",
        "ExecStartPre=-/usr/bin/docker stop none\nExecStart=/usr/bin/docker start -a none\nExecStop=/usr/bin/docker stop -t 2 none",
        // What runs in the background.
        "Type=forking\nExecStartPre=/bin/rm -f /run/a.cid\nExecStart=/usr/bin/docker run --cidfile=/run/a.cid -d --name a nginx\nExecStop=/bin/sh -c 'docker stop $(cat /run/a.cid)'\nExecStopPost=-/bin/rm /run/a.cid",
        // Images by variables.
        "Environment=IMAGE=nginx TAG=1\nExecStart=/usr/bin/docker run --name a ${IMAGE}:${TAG}",
        "EnvironmentFile=/etc/a\nExecStart=/usr/bin/docker run --name a ${IMAGE}",
        "ExecStart=/usr/bin/docker run --name a ${IMAGE}",
        // A shell around it.
        "ExecStart=/bin/bash -c \"/usr/bin/docker run --name a nginx\"",
        "ExecStart=/bin/bash -c 'docker run --name a $(etcdctl get /image)'",
        "ExecStart=/bin/sh -c \"docker run --name a --dns $(ip a | awk '{print $2}') -p `hostname -i`:80:80 -h=$(uname -a) nginx\"",
        "EnvironmentFile=/etc/environment\nExecStart=/bin/sh -c \"docker run --name a -h %H -p ${COREOS_PRIVATE_IPV4}:80:80 -e IP=${COREOS_PRIVATE_IPV4} -e 'ID=%m' nginx\"",
        "ExecStartPre=/bin/sh -c 'docker inspect a >/dev/null 2>&1 && docker rm -f a || true'\nExecStart=/usr/bin/docker run --net=container:web --name a nginx",
        "ExecStartPre=/bin/sh -c 'IMAGE=`get x`; docker history $IMAGE || docker pull $IMAGE'\nExecStart=/bin/sh -c 'IMAGE=`get x` && docker run --name a $IMAGE'\nExecStop=/usr/bin/docker stop a",
        // Several.
        "Type=oneshot\nExecStart=/usr/bin/docker run x one\nExecStart=/bin/echo two\nExecStart=/usr/bin/docker run x three",
        // Nothing but the end matters.
        "Type=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/bin/echo bye",
        "Type=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/etcdctl set a b\nExecStop=/usr/bin/etcdctl rm a",
        "Type=oneshot\nRemainAfterExit=yes\nExecStop=/bin/echo bye",
        "Type=oneshot\nExecStart=/usr/bin/docker pull nginx",
        "ExecStart=/usr/bin/docker rm -f a",
        "Type=oneshot\nExecStart=/bin/true",
        // Other managers of containers.
        "ExecStart=/usr/bin/rkt run --port=http:8080 docker://nginx",
        "ExecStart=/usr/bin/rkt run --mount volume=d,target=/d nginx",
        "WorkingDirectory=/srv\nExecStart=/usr/bin/docker-compose up",
        "ExecStart=/usr/bin/systemd-nspawn -D /srv/a --boot",
        "EnvironmentFile=/run/flannel/subnet.env\nExecStart=/usr/bin/flannel",
        "ExecStart=/usr/bin/podman run --name a nginx",
        // Images that are made on the machine.
        "ExecStartPre=/usr/bin/docker build -t x /srv\nExecStart=/usr/bin/docker run x",
        "ExecStartPre=/bin/sh -c 'docker load < /srv/x.tar'\nExecStart=/usr/bin/docker run x",
    ] {
        let unit = format!("[Service]\n{lines}\n");
        let web = ("web.service", "[Service]\nExecStart=/usr/bin/docker run --name web nginx\n");
        writeln!(shown, "{}", lines.replace('\n', " | ")).unwrap();
        let compiled = match compiled_in(&[web, ("a.service", &unit)], "") {
            Ok(compiled) => compiled,
            Err(mistakes) => {
                mistakes.0.iter().for_each(|m| writeln!(shown, "    error: {}", m.message).unwrap());
                continue;
            }
        };
        for object in compiled.objects.iter().filter(|o| o.name() != "web" && o.kind() != "Service") {
            write!(shown, "    {}", object.kind()).unwrap();
            for kind in ["initContainers", "containers"] {
                let containers = object.value.pointer(&format!("{POD}/{kind}")).and_then(Value::as_array);
                for container in containers.into_iter().flatten() {
                    let words = |of: &str| container[of].as_array().cloned().unwrap_or_default();
                    let words = [words("command"), words("args")].concat();
                    write!(shown, " {}{}", container["image"].as_str().unwrap(), Value::Array(words))
                        .unwrap();
                    for mount in container["volumeMounts"].as_array().into_iter().flatten() {
                        write!(shown, " at {}", mount["mountPath"].as_str().unwrap()).unwrap();
                    }
                    for (when, hook) in container["lifecycle"].as_object().into_iter().flatten() {
                        write!(shown, " {when}{}", hook["exec"]["command"]).unwrap();
                    }
                }
            }
            writeln!(shown).unwrap();
        }
        compiled.warnings.iter().for_each(|w| writeln!(shown, "    {}: {}", w.at.line, w.message).unwrap());
    }
    expect![[r#"
        ExecStartPre=/usr/bin/docker run -d --name a nginx | ExecStart=/usr/bin/docker exec a tail -f /log
            Deployment nginx[]
            3: what this runs in the container a is left out, as the container itself is the unit's process here: write it as ExecStartPost if it ends by itself
        Type=oneshot | ExecStartPre=/usr/bin/docker run -d --name a nginx | ExecStart=/usr/bin/docker exec a setup
            Job nginx[] postStart["setup"]
        ExecStart=/usr/bin/docker run --name a nginx | ExecStop=-/usr/bin/docker exec -u root a flush | ExecStop=/usr/bin/docker exec a quit 1 | ExecStartPost=/usr/bin/docker exec web touch x
            Deployment nginx[] preStop["/bin/sh","-c","flush\nquit 1"]
            5: what this runs in the container web is left out, as that is in another Pod: write it into the unit that runs the container
        Type=oneshot | ExecStart=/usr/bin/docker exec -i web mysqldump db
            3: the container web is in the Pod of web.service, which Docker cannot reach, so nothing runs: `yado fleet ssh web.service COMMAND` runs a command in it
        ExecStart=/bin/bash -c 'docker exec web sh -c "tail -f x"'
            2: the container web is in the Pod of web.service, which Docker cannot reach, so nothing runs: `yado fleet ssh web.service COMMAND` runs a command in it
        ExecStart=/usr/bin/docker exec none ls
            Deployment host["/usr/bin/docker","exec","none","ls"] at /run/docker.sock
            2: no unit here runs a container none, so the line runs unchanged on the machine, where Docker has to be installed
        ExecStartPre=/usr/bin/docker create --name a nginx | ExecStart=/usr/bin/docker start -a a
            Deployment nginx[]
        ExecStartPre=/bin/bash -c 'docker inspect a >/dev/null 2>&1 || docker run -d --name a nginx' | ExecStart=/usr/bin/docker start -a a
            Deployment nginx[]
        ExecStart=/usr/bin/docker start -a web
            2: the container web is in the Pod of web.service, which Docker cannot reach, so nothing runs: `yado fleet ssh web.service COMMAND` runs a command in it
        ExecStartPre=-/usr/bin/docker stop none | ExecStart=/usr/bin/docker start -a none | ExecStop=/usr/bin/docker stop -t 2 none
            Deployment host["/bin/sh","-c","/usr/bin/docker stop none || true\n"] at /run/docker.sock host["/usr/bin/docker","start","-a","none"] at /run/docker.sock preStop["/usr/bin/docker","stop","-t","2","none"]
            3: no unit here runs a container none, so the line runs unchanged on the machine, where Docker has to be installed
        Type=forking | ExecStartPre=/bin/rm -f /run/a.cid | ExecStart=/usr/bin/docker run --cidfile=/run/a.cid -d --name a nginx | ExecStop=/bin/sh -c 'docker stop $(cat /run/a.cid)' | ExecStopPost=-/bin/rm /run/a.cid
            Deployment nginx[]
        Environment=IMAGE=nginx TAG=1 | ExecStart=/usr/bin/docker run --name a ${IMAGE}:${TAG}
            Deployment nginx:1[]
        EnvironmentFile=/etc/a | ExecStart=/usr/bin/docker run --name a ${IMAGE}
            Deployment host["/bin/sh","-c","environment() {\n  while IFS= read -r _line || [ -n \"$_line\" ]; do\n    _key=${_line%%=*} _value=${_line#*=}\n    case $_key in \"$_line\"|''|[0-9]*|*[!A-Za-z0-9_]*) continue ;; esac\n    case $_value in \\\"*\\\"|\\'*\\') _value=${_value#?} _value=${_value%?} ;; esac\n    export \"$_key=$_value\"\n  done <\"$1\"\n}\nenvironment /etc/a || exit 1\nexec /usr/bin/docker run --name a \"${IMAGE}\""] at /run/docker.sock
            3: this depends on values known only on the machine, so it runs there unchanged, where Docker has to be installed
        ExecStart=/usr/bin/docker run --name a ${IMAGE}
            error: no image is named: nothing here sets the variable that stands for it
        ExecStart=/bin/bash -c "/usr/bin/docker run --name a nginx"
            Deployment nginx[]
        ExecStart=/bin/bash -c 'docker run --name a $(etcdctl get /image)'
            Deployment host["/bin/bash","-c","docker run --name a $$(etcdctl get /image)"] at /run/docker.sock
            2: this depends on values known only on the machine, so it runs there unchanged, where Docker has to be installed
        ExecStart=/bin/sh -c "docker run --name a --dns $(ip a | awk '{print $2}') -p `hostname -i`:80:80 -h=$(uname -a) nginx"
            Ingress
            Deployment nginx[]
            2: --dns is left out: its value is known only on the machine
            2: the host name is the machine's, which a Pod cannot take: it keeps its own
        EnvironmentFile=/etc/environment | ExecStart=/bin/sh -c "docker run --name a -h %H -p ${COREOS_PRIVATE_IPV4}:80:80 -e IP=${COREOS_PRIVATE_IPV4} -e 'ID=%m' nginx"
            Ingress
            Deployment nginx[]
            3: the host name is the machine's, which a Pod cannot take: it keeps its own
            3: the machine's ID, %m, is the name of the node here
        ExecStartPre=/bin/sh -c 'docker inspect a >/dev/null 2>&1 && docker rm -f a || true' | ExecStart=/usr/bin/docker run --net=container:web --name a nginx
            Deployment nginx[]
            0: the network of the container web is its own Pod's here: what both reach at localhost is at web and a
        ExecStartPre=/bin/sh -c 'IMAGE=`get x`; docker history $IMAGE || docker pull $IMAGE' | ExecStart=/bin/sh -c 'IMAGE=`get x` && docker run --name a $IMAGE' | ExecStop=/usr/bin/docker stop a
            Deployment host["/bin/sh","-c","IMAGE=`get x`; docker history $IMAGE || docker pull $IMAGE"] at /run/docker.sock host["/bin/sh","-c","IMAGE=`get x` && docker run --name a $IMAGE"] at /run/docker.sock preStop["/usr/bin/docker","stop","a"]
            3: this depends on values known only on the machine, so it runs there unchanged, where Docker has to be installed
        Type=oneshot | ExecStart=/usr/bin/docker run x one | ExecStart=/bin/echo two | ExecStart=/usr/bin/docker run x three
            Job x["one"] host["/bin/echo","two"] x["three"]
        Type=oneshot | RemainAfterExit=yes | ExecStart=/bin/true | ExecStop=/bin/echo bye
            Deployment host["/bin/sh","-c","/bin/true || exit $?\ntrap 'exit 0' TERM INT\nwhile :; do sleep 3600 & wait; done"] preStop["/bin/echo","bye"]
        Type=oneshot | RemainAfterExit=yes | ExecStart=/usr/bin/etcdctl set a b | ExecStop=/usr/bin/etcdctl rm a
            Deployment host["/bin/sh","-c","/usr/bin/etcdctl set a b || exit $?\ntrap 'exit 0' TERM INT\nwhile :; do sleep 3600 & wait; done"] preStop["/usr/bin/etcdctl","rm","a"]
        Type=oneshot | RemainAfterExit=yes | ExecStop=/bin/echo bye
            Deployment host["/bin/sh","-c","/bin/true || exit $?\ntrap 'exit 0' TERM INT\nwhile :; do sleep 3600 & wait; done"] preStop["/bin/echo","bye"]
        Type=oneshot | ExecStart=/usr/bin/docker pull nginx
            3: only prepares images, so nothing runs: images are pulled when they are used
        ExecStart=/usr/bin/docker rm -f a
            2: only looks after Docker's containers and images, so nothing runs: what is no longer used goes by itself here
        Type=oneshot | ExecStart=/bin/true
            3: does nothing, so nothing runs
        ExecStart=/usr/bin/rkt run --port=http:8080 docker://nginx
            Ingress
            Deployment nginx[]
        ExecStart=/usr/bin/rkt run --mount volume=d,target=/d nginx
            Deployment host["/usr/bin/rkt","run","--mount","volume=d,target=/d","nginx"]
            2: this is more than a plain rkt command, so it runs unchanged on the machine, where rkt has to be installed
        WorkingDirectory=/srv | ExecStart=/usr/bin/docker-compose up
            Deployment host["/usr/bin/docker-compose","up"] at /run/docker.sock
            3: this runs unchanged on the machine, where docker-compose and Docker have to be installed: `yado deploy` runs the compose file itself
        ExecStart=/usr/bin/systemd-nspawn -D /srv/a --boot
            Deployment host["/usr/bin/systemd-nspawn","-D","/srv/a","--boot"]
        EnvironmentFile=/run/flannel/subnet.env | ExecStart=/usr/bin/flannel
            Deployment host["/bin/sh","-c","environment() {\n  while IFS= read -r _line || [ -n \"$_line\" ]; do\n    _key=${_line%%=*} _value=${_line#*=}\n    case $_key in \"$_line\"|''|[0-9]*|*[!A-Za-z0-9_]*) continue ;; esac\n    case $_value in \\\"*\\\"|\\'*\\') _value=${_value#?} _value=${_value%?} ;; esac\n    export \"$_key=$_value\"\n  done <\"$1\"\n}\nenvironment /run/flannel/subnet.env || exit 1\nexec /usr/bin/flannel"]
            0: EnvironmentFile=/run/flannel/subnet.env is not visible to the program, which has its own /run and /tmp: put the file below /etc
        ExecStart=/usr/bin/podman run --name a nginx
            Deployment nginx[]
        ExecStartPre=/usr/bin/docker build -t x /srv | ExecStart=/usr/bin/docker run x
            Deployment x[]
            2: the image is not built here: push it to a registry, or `yado image import` what `docker save` writes
        ExecStartPre=/bin/sh -c 'docker load < /srv/x.tar' | ExecStart=/usr/bin/docker run x
            Deployment x[]
            2: docker load is left out: `yado image import FILE` on the machine takes its place
    "#]].assert_eq(&shown);
}

#[test]
fn compiling_again_gives_the_same() {
    let units = [
        ("a.service", "[Service]\nExecStart=/usr/bin/docker run -p 80:80 a\n"),
        ("b@.service", "[Service]\nExecStart=/bin/b %i\n"),
    ];
    let one = compiled_in(&units, "").unwrap();
    let two = compiled_in(&units, "").unwrap();
    assert_eq!(
        one.objects.iter().map(|o| &o.value).collect::<Vec<_>>(),
        two.objects.iter().map(|o| &o.value).collect::<Vec<_>>()
    );
}

#[test]
fn c11_the_corpus_compiles() {
    let corpus = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus/fleet"));
    if !corpus.is_dir() {
        yado_testkit::not_proved!("there is no {}", corpus.display());
        return;
    }
    for name in ["examples", "simple-fleet"] {
        let compiled = compile(&corpus.join(name), &Options::default()).unwrap();
        let mut shown = String::new();
        for object in &compiled.objects {
            writeln!(shown, "---\n{}", output::yaml(&object.value).trim_end()).unwrap();
        }
        for warning in &compiled.warnings {
            let file = warning.at.file.file_name().unwrap().to_string_lossy();
            writeln!(shown, "# {file}:{}:{}: {}", warning.at.line, warning.at.column, warning.message)
                .unwrap();
        }
        expect_file![format!("{}/tests/corpus/fleet-{name}.yaml", env!("CARGO_MANIFEST_DIR"))]
            .assert_eq(&shown);
    }
}
