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
            Deployment web: {"containers":[{"args":["httpd","-f","-h","/www"],"env":[{"name":"A","value":"1"}],"image":"busybox","imagePullPolicy":"Always","name":"main","volumeMounts":[{"mountPath":"/www","name":"www","readOnly":true}]}],"terminationGracePeriodSeconds":5,"volumes":[{"hostPath":{"path":"/srv/www","type":"DirectoryOrCreate"},"name":"www"}]}
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
            Deployment announce: {"containers":[{"command":["/bin/sh","-c","set -a; [ ! -r /etc/environment ] || . /etc/environment; set +a\nexec /usr/bin/announce --host \"${UNIT_HOST_NAME:-$$(cat /proc/sys/kernel/hostname)}\" --name world --ip \"${IP}\""],"env":[{"name":"UNIT_HOST_NAME","valueFrom":{"fieldRef":{"fieldPath":"spec.nodeName"}}},{"name":"NAME","value":"world"}],"image":"host","lifecycle":{"preStop":{"exec":{"command":["/bin/sh","-c","set -a; [ ! -r /etc/environment ] || . /etc/environment; set +a\n/usr/bin/announce --remove\n"]}}},"name":"main"}],"hostNetwork":true,"initContainers":[{"command":["/bin/sh","-c","set -a; [ ! -r /etc/environment ] || . /etc/environment; set +a\n/bin/false || true\n"],"env":[{"name":"NAME","value":"world"}],"image":"host","name":"pre-1"}],"nodeSelector":{"yado.dev/host-image":"true"}} {"yado.dev/ulimits":"{\"nofile\":{\"soft\":1024,\"hard\":1024}}","yado.dev/unit":"announce.service","yado.dev/users":"{\"main\":\"core\"}"}
            Deployment plain: {"containers":[{"command":["/bin/echo","$x","y"],"image":"host","name":"main"}],"hostNetwork":true,"nodeSelector":{"yado.dev/host-image":"true"}} {"yado.dev/unit":"plain.service"}
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
            Service kappa-test-ports: "NodePort" {"app.kubernetes.io/name":"p","yado.dev/unit-group":"kappa-test"}
            Service kappa-test-1: {"app.kubernetes.io/component":"kappa-test-1","app.kubernetes.io/name":"p"}
            Deployment kappa-test-1: "kappa-test-1" {"matchLabels":{"app.kubernetes.io/component":"kappa-test-1","app.kubernetes.io/name":"p"}} {"requiredDuringSchedulingIgnoredDuringExecution":[{"labelSelector":{"matchExpressions":[{"key":"app.kubernetes.io/component","operator":"In","values":["kappa-test-2"]}],"matchLabels":{"app.kubernetes.io/name":"p"}},"topologyKey":"kubernetes.io/hostname"}]}
            Service kappa-test-2: {"app.kubernetes.io/component":"kappa-test-2","app.kubernetes.io/name":"p"}
            Deployment kappa-test-2: "kappa-test-2" {"matchLabels":{"app.kubernetes.io/component":"kappa-test-2","app.kubernetes.io/name":"p"}} {"requiredDuringSchedulingIgnoredDuringExecution":[{"labelSelector":{"matchExpressions":[{"key":"app.kubernetes.io/component","operator":"In","values":["kappa-test-1"]}],"matchLabels":{"app.kubernetes.io/name":"p"}},"topologyKey":"kubernetes.io/hostname"}]}
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
        kappa-test@1.service:5:11: Conflicts=kappa-test-@* matches no unit that is known here (kappa-test@1.service)
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
            a.service:2:11: --bogus has no meaning here: remove it
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
            Service web-ports: "NodePort" [{"name":"tcp-9000","port":9000,"protocol":"TCP","targetPort":9000}]
            Service web-public: "LoadBalancer" [{"name":"tcp-80","port":80,"protocol":"TCP","targetPort":8000}]
            Ingress web: "p.localhost"
            Service web: [{"name":"tcp-8000","port":8000,"protocol":"TCP","targetPort":8000},{"name":"tcp-9000","port":9000,"protocol":"TCP","targetPort":9000}]
            Deployment web: "{\"db\":\"started\"}" [{"name":"DATABASE_NAME","value":"/web/database"},{"name":"DATABASE_PORT","value":"tcp://database:3306"},{"name":"DATABASE_PORT_3306_TCP","value":"tcp://database:3306"},{"name":"DATABASE_PORT_3306_TCP_ADDR","value":"database"},{"name":"DATABASE_PORT_3306_TCP_PORT","value":"3306"},{"name":"DATABASE_PORT_3306_TCP_PROTO","value":"tcp"}]
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
            Deployment db: 1 {"containers":[{"image":"db","imagePullPolicy":"IfNotPresent","lifecycle":{"postStart":{"exec":{"command":["init"]}}},"name":"main","volumeMounts":[{"mountPath":"/var/lib/db","name":"db-data-var-lib-db"}]},{"command":["/bin/sh","-c","/usr/bin/etcdctl set /db \"${UNIT_HOST_NAME:-$$(cat /proc/sys/kernel/hostname)}\" || exit $?\ntrap 'exit 0' TERM INT\nwhile :; do sleep 3600 & wait; done"],"env":[{"name":"UNIT_HOST_NAME","valueFrom":{"fieldRef":{"fieldPath":"spec.nodeName"}}}],"image":"host","lifecycle":{"preStop":{"exec":{"command":["/usr/bin/etcdctl","rm","/db"]}}},"name":"unit"}],"nodeSelector":{"yado.dev/host-image":"true"},"volumes":[{"name":"db-data-var-lib-db","persistentVolumeClaim":{"claimName":"db-data-var-lib-db"}}]}
            Job once: 0 {"containers":[{"args":["two"],"image":"x","imagePullPolicy":"IfNotPresent","name":"main"}],"initContainers":[{"args":["one"],"image":"x","name":"pre-1"}],"restartPolicy":"Never"}
            Deployment timer: 0 {"containers":[{"image":"backup","imagePullPolicy":"IfNotPresent","name":"main"}]}
            timer.timer: timers start nothing yet: timer.service is compiled but waits; start it by hand when it is due
        "#]],
    );
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
        eprintln!("skipped: there is no {}", corpus.display());
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
