//! Compose files: what they say, and what is wrong with them.

use std::fmt::Write;
use std::path::Path;

use expect_test::{Expect, expect};
use yado_compile::{
    Options,
    compose::{
        self,
        model::{PortMapping, Project, Service},
    },
};

/// Loads the directory that `files` make, as the project `p` with the variable `SET=set`.
fn check(files: &[(&str, &str)], expect: Expect) {
    check_with(files, &["SET=set", "HOME=/home/me"], &[], expect);
}

fn check_with(files: &[(&str, &str)], env: &[&str], profiles: &[&str], expect: Expect) {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("d");
    for (name, text) in files {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let env = env.iter().filter_map(|e| e.split_once('=')).map(|(k, v)| (k.into(), v.into()));
    let options = Options {
        project: Some("p".into()),
        env: env.collect(),
        profiles: profiles.iter().map(ToString::to_string).collect(),
        ..Options::default()
    };
    let out = match compose::load(&directory, &options) {
        Ok(project) => shown(&project),
        Err(mistakes) => mistakes.to_string(),
    };
    expect.assert_eq(&out.replace(&root.path().display().to_string(), ""));
}

fn shown(project: &Project) -> String {
    let mut out = String::new();
    for service in project.services.values() {
        writeln!(out, "{}", service.name).unwrap();
        service_shown(service, &mut out);
    }
    if !project.disabled.is_empty() {
        writeln!(out, "off: {:?}", project.disabled.keys().collect::<Vec<_>>()).unwrap();
    }
    for warning in &project.warnings {
        writeln!(out, "{warning}").unwrap();
    }
    out
}

fn service_shown(s: &Service, out: &mut String) {
    let mut line = |name: &str, value: String| {
        if !matches!(value.as_str(), "" | "[]" | "{}" | "None") {
            writeln!(out, "  {name} {value}").unwrap();
        }
    };
    line("image", s.image.clone().unwrap_or_default());
    line("build", s.build.as_ref().map(|b| format!("{} {:?}", b.context, b.args)).unwrap_or_default());
    line("command", format!("{:?}", s.command));
    line("environment", format!("{:?}", s.environment));
    line("labels", format!("{:?}", s.labels));
    for port in &s.ports {
        line("port", port_shown(port));
    }
    for m in &s.volumes {
        let source = m.source.as_deref().unwrap_or("-");
        let mode = if m.read_only { "ro" } else { "rw" };
        line("mount", format!("{:?} {source} at {} {mode}", m.kind, m.target));
    }
    for (name, d) in &s.depends_on {
        line("needs", format!("{name} {:?} {}", d.condition, d.implied_by.unwrap_or("depends_on")));
    }
    for (name, n) in s.networks.iter().filter(|(name, _)| *name != "default") {
        line("network", format!("{name} {:?}", n.aliases));
    }
    line("network_mode", s.network_mode.as_ref().map(|m| format!("{m:?}")).unwrap_or_default());
    line("restart", format!("{:?}", s.restart));
    line("memory", format!("{:?}", s.mem_limit));
    line(
        "healthcheck",
        s.healthcheck.as_ref().map(|h| format!("{:?} {:?}", h.test, h.interval)).unwrap_or_default(),
    );
    line("scale", if s.replicas() == 1 { String::new() } else { s.replicas().to_string() });
    line("dns", format!("{:?}", s.dns));
    line(
        "logging",
        s.logging.as_ref().map(|l| format!("{:?} {:?}", l.driver, l.options)).unwrap_or_default(),
    );
}

fn port_shown(p: &PortMapping) -> String {
    let published = p.published.map_or("any".into(), |p| p.to_string());
    let end = p.published_end.map(|e| format!("-{e}")).unwrap_or_default();
    format!(
        "{}{published}{end} -> {}/{}",
        p.host_ip.as_ref().map(|i| format!("{i} ")).unwrap_or_default(),
        p.target,
        p.protocol
    )
}

/// One service `a` with these lines.
fn service(lines: &str) -> String {
    let indented: String = lines.lines().map(|l| format!("    {l}\n")).collect();
    format!("services:\n  a:\n    image: i\n{indented}")
}

#[test]
fn ports() {
    let text = service(
        "ports:\n- 80\n- \"8080:80\"\n- 127.0.0.1:53:53/udp\n- 9000-9001:90-91\n- 7000-7010:70\n- \"[::1]:1:2\"\n- 3000-3001\n\
         - {target: 443, published: \"8443\", host_ip: 10.0.0.1, protocol: tcp, mode: host}\n- 8080:80",
    );
    check(
        &[("compose.yaml", &text)],
        expect![[r#"
        a
          image i
          port any -> 80/tcp
          port 8080 -> 80/tcp
          port 127.0.0.1 53 -> 53/udp
          port 9000 -> 90/tcp
          port 9001 -> 91/tcp
          port 7000-7010 -> 70/tcp
          port ::1 1 -> 2/tcp
          port any -> 3000/tcp
          port any -> 3001/tcp
          port 10.0.0.1 8443 -> 443/tcp
    "#]],
    );
    let text = service(
        "ports: [\"a\", \"70000:1\", \"1:2:3:4\", \"1-3:1-2\", \"80/icmp\", true, {published: 1}, {target: 80, x: 1}]",
    );
    check(
        &[("compose.yaml", &text)],
        expect![[r#"
        /d/compose.yaml:4:13: services.a.ports[0] is not a valid port: "a" is not between 0 and 65535; it is written as 80, 8080:80 or 127.0.0.1:8080:80/tcp
        /d/compose.yaml:4:18: services.a.ports[1] is not a valid port: "70000" is not between 0 and 65535; it is written as 80, 8080:80 or 127.0.0.1:8080:80/tcp
        /d/compose.yaml:4:29: services.a.ports[2] is not a valid port: "1:2" is not a valid IP address; it is written as 80, 8080:80 or 127.0.0.1:8080:80/tcp
        /d/compose.yaml:4:40: services.a.ports[3] is not a valid port: 3 ports cannot go to 2; it is written as 80, 8080:80 or 127.0.0.1:8080:80/tcp
        /d/compose.yaml:4:51: services.a.ports[4] is not a valid port: "icmp" is not a valid protocol: use tcp, udp or sctp; it is written as 80, 8080:80 or 127.0.0.1:8080:80/tcp
        /d/compose.yaml:4:62: services.a.ports[5] has to be text or a number but is a boolean
        /d/compose.yaml:4:68: services.a.ports[6] needs a target between 0 and 65535
        /d/compose.yaml:4:97: "x" is not a field of services.a.ports[7]; what only people read begins with x-"#]],
    );
}

#[test]
fn mounts() {
    let text = service(
        "volumes:\n- /data\n- named:/n:ro\n- ./rel:/r\n- ../up:/u/\n- ~/x:/home\n- 'C:\\dir:/win'\n- /a:/b:rw,z\n- named:/n\n\
         - {type: tmpfs, target: /t, tmpfs: {size: 1m}}\n- {type: bind, source: ., target: /src, read_only: true}",
    ) + "volumes:\n  named:\n";
    check(
        &[("compose.yaml", &text)],
        expect![[r#"
            a
              image i
              mount Volume - at /data rw
              mount Volume named at /n rw
              mount Bind /d/rel at /r rw
              mount Bind /up at /u rw
              mount Bind /home/me/x at /home rw
              mount Bind C:\dir at /win rw
              mount Bind /a at /b rw
              mount Tmpfs - at /t rw
              mount Bind /d at /src ro
        "#]],
    );
    let text =
        service("volumes: [\"a::b\", \"a:b:c:d\", {target: /x}, {type: disk, target: /x}, \"none:/y\"]");
    check(
        &[("compose.yaml", &text)],
        expect![[r#"
            /d/compose.yaml:4:15: services.a.volumes[0]: "a::b" has nothing on one side of a colon; it is written as SOURCE:TARGET or SOURCE:TARGET:ro
            /d/compose.yaml:4:23: services.a.volumes[1]: "a:b:c:d" has too many colons; it is written as SOURCE:TARGET or SOURCE:TARGET:ro
            /d/compose.yaml:4:34: services.a.volumes[2] needs a type: bind, volume or tmpfs
            /d/compose.yaml:4:55: services.a.volumes[3].type has to be bind, volume, tmpfs, cluster, npipe or image, not "disk"
            /d/compose.yaml:4:74: services.a uses the volume none, which volumes does not declare"#]],
    );
}

#[test]
fn y18_environment_from_files_and_the_caller() {
    check(
        &[
            (
                "compose.yaml",
                &service(
                    "env_file: [one.env, {path: two.env, required: false}]\nenvironment: [SET, NO, B=x, 'C=${FROM_DOTENV}']",
                ),
            ),
            ("one.env", "A=1\nB=2\nD=${SET}-$A\n"),
            (".env", "FROM_DOTENV=dot\nSET=never\n"),
        ],
        expect![[r#"
            a
              image i
              environment {"A": "1", "B": "x", "D": "set-1", "SET": "set", "C": "dot"}
        "#]],
    );
    check(
        &[(
            "compose.yaml",
            &service("env_file: gone.env\nenvironment:\n  A: 1.50\n  B: yes\n  C: TRUE\n  D:\n  E: [x]"),
        )],
        expect![[r#"
        /d/compose.yaml:4:15: services.a.env_file names /d/gone.env, which is not a file
        /d/compose.yaml:10:10: services.a.environment.E has to be text, a number or a boolean but is a list"#]],
    );
    check(
        &[(
            "compose.yaml",
            &service("command: ${GONE} $$x\nlabels: {a: '${GONE:-d}'}\nmem_limit: ${SIZE:-64m}"),
        )],
        expect![[r#"
        a
          image i
          command Some(["$x"])
          labels {"a": "d"}
          memory Some(67108864)
        /d/compose.yaml:4:14: the variable GONE is not set, so it is replaced with an empty string
    "#]],
    );
    check(
        &[("compose.yaml", &service("ports: ['${PORT}:80']\ntty: ${TTY:?say it}\nhostname: ${a b}"))],
        expect![[r#"
            /d/compose.yaml:5:10: the value needs the variable TTY, which is not set or is empty: say it
            /d/compose.yaml:6:15: the value has "${a b}", which is not a valid variable: write $$ for a dollar sign"#]],
    );
}

#[test]
fn files_are_merged() {
    check(
        &[
            (
                "compose.yaml",
                "services:\n  a:\n    image: one\n    command: x\n    environment: {A: 1, B: 2}\n    ports: ['1:1']\n    volumes: ['./x:/v']\n    dns: 1.1.1.1\n    depends_on: [b]\n    labels: [l=1]\n    logging: {driver: d, options: {k: v}}\n  b: {image: b}\n",
            ),
            (
                "compose.override.yaml",
                "services:\n  a:\n    image: two\n    command: [y]\n    environment: [B=3, C=4]\n    ports: ['2:2']\n    volumes: ['./z:/v']\n    dns: [8.8.8.8]\n    depends_on: {c: {condition: service_healthy}}\n    labels: {m: 2}\n    logging: {driver: e}\n  c: {image: c}\n",
            ),
        ],
        expect![[r#"
            a
              image two
              command Some(["y"])
              environment {"A": "1", "B": "3", "C": "4"}
              labels {"l": "1", "m": "2"}
              port 1 -> 1/tcp
              port 2 -> 2/tcp
              mount Bind /d/z at /v rw
              needs b Started depends_on
              needs c Healthy depends_on
              dns ["1.1.1.1", "8.8.8.8"]
              logging Some("e") {}
            b
              image b
            c
              image c
        "#]],
    );
    check(
        &[
            ("compose.yaml", &service("ports: ['1:1']\nenvironment: {A: 1, B: 2}\ncommand: x")),
            (
                "compose.override.yaml",
                "services:\n  a:\n    ports: !override ['2:2']\n    environment: {A: !reset null}\n    command: !reset null\n",
            ),
        ],
        expect![[r#"
            a
              image i
              environment {"B": "2"}
              port 2 -> 2/tcp
        "#]],
    );
    check(
        &[
            ("compose.yaml", &service("ports: ['1:1']")),
            ("compose.override.yaml", "services:\n  a: {ports: {x: y}}\n  d:\n"),
        ],
        expect![[r#"
            /d/compose.override.yaml:2:14: services.a.ports is a list in /d/compose.yaml:4:12, so it has to be a list here too
            /d/compose.override.yaml:3:4: services.d has to be a mapping but is empty"#]],
    );
}

#[test]
fn services_extend_others() {
    check(
        &[
            (
                "compose.yaml",
                "services:\n  a:\n    extends: {file: sub/base.yaml, service: mid}\n    environment: {A: own}\n  b:\n    extends: a\n    image: b\n",
            ),
            (
                "sub/base.yaml",
                "services:\n  base: {image: base, volumes: ['./here:/x'], environment: {A: base, B: base}}\n  mid:\n    extends: base\n    command: go\n",
            ),
        ],
        expect![[r#"
            a
              image base
              command Some(["go"])
              environment {"A": "own", "B": "base"}
              mount Bind /d/sub/here at /x rw
            b
              image b
              command Some(["go"])
              environment {"A": "own", "B": "base"}
              mount Bind /d/sub/here at /x rw
        "#]],
    );
    check(
        &[(
            "compose.yaml",
            "services:\n  a: {extends: b}\n  b: {extends: a}\n  c: {extends: {service: no}}\n  d: {extends: {file: no.yaml, service: x}}\n",
        )],
        expect![[r#"
            /d/compose.yaml:2:16: a and b extend each other, which never ends
            /d/compose.yaml:3:16: b and a extend each other, which never ends
            /d/compose.yaml:4:16: extends the service no, which /d/compose.yaml does not have
            /d/compose.yaml:5:23: extends a service of /d/no.yaml, which is not a file"#]],
    );
}

#[test]
fn files_include_others() {
    check(
        &[
            (
                "compose.yaml",
                "include:\n- sub/compose.yaml\n- {path: [two.yaml], env_file: two.env}\nservices:\n  a: {image: a, depends_on: [s]}\n  t: {command: mine}\n",
            ),
            ("sub/compose.yaml", "services:\n  s: {image: '${IN_SUB}', build: ./ctx}\n"),
            ("sub/.env", "IN_SUB=s\n"),
            ("two.yaml", "services:\n  t: {image: '$TWO', command: theirs}\n"),
            ("two.env", "TWO=2\n"),
        ],
        expect![[r#"
            t
              image 2
              command Some(["mine"])
            s
              image s
              build /d/sub/ctx {}
            a
              image a
              needs s Started depends_on
        "#]],
    );
    check(
        &[
            ("compose.yaml", "include: [b.yaml, gone.yaml, 'oci://x']\nservices: {a: {image: a}}\n"),
            ("b.yaml", "include: [compose.yaml]\n"),
        ],
        expect![[r#"
            /d/b.yaml:1:11: includes /d/compose.yaml, which includes this file
            /d/compose.yaml:1:30: oci://x is in an image registry, which is not asked for compose files: name a git repository or a file
            /d/gone.yaml: cannot be read: No such file or directory (os error 2)"#]],
    );
}

#[test]
fn profiles() {
    let files = [(
        "compose.yaml",
        "services:\n  a: {image: a}\n  d: {image: d, profiles: [dev]}\n  t: {image: t, profiles: [test, all]}\n",
    )];
    check_with(
        &files,
        &[],
        &[],
        expect![[r#"
        a
          image a
        off: ["d", "t"]
    "#]],
    );
    check_with(
        &files,
        &["COMPOSE_PROFILES=test"],
        &["dev"],
        expect![[r#"
        a
          image a
        d
          image d
        t
          image t
    "#]],
    );
    check_with(
        &files,
        &[],
        &["*"],
        expect![[r#"
        a
          image a
        d
          image d
        t
          image t
    "#]],
    );
    let files = [(
        "compose.yaml",
        "services:\n  a: {image: a, depends_on: [d]}\n  b: {image: b, depends_on: {d: {condition: service_started, required: false}}}\n  d: {image: d, profiles: [dev]}\n",
    )];
    check_with(
        &files,
        &[],
        &[],
        expect![
            "/d/compose.yaml:2:30: services.a.depends_on names d, which is off: turn on its profile dev, or add required: false"
        ],
    );
}

#[test]
fn version_1_has_only_services() {
    check(
        &[(
            "docker-compose.yml",
            "web:\n  build: .\n  dockerfile: D\n  links: [db:database]\n  ports: [80]\n  volumes_from: [db]\n  log_driver: json-file\n  log_opt: {max-size: 1m}\ndb:\n  image: postgres\n  net: host\n  volumes: ['data:/var', '/x']\n",
        )],
        expect![[r#"
            web
              build /d {}
              port any -> 80/tcp
              needs db Started links
              logging Some("json-file") {"max-size": "1m"}
            db
              image postgres
              mount Volume data at /var rw
              mount Volume - at /x rw
              network_mode Host
            /d/docker-compose.yml:3:3: services.web.dockerfile is of version 1: today it is build.dockerfile
            /d/docker-compose.yml:7:3: services.web.log_driver is of version 1: today it is logging
            /d/docker-compose.yml:8:3: services.web.log_opt is of version 1: today it is logging
            /d/docker-compose.yml:11:3: services.db.net is of version 1: today it is network_mode
        "#]],
    );
}

#[test]
fn mistakes_have_places() {
    check(
        &[(
            "compose.yaml",
            "services:\n  a:\n    imag: x\n    image: 1.0\n    restart: sometimes\n    deploy: {replica: 2}\n    healthcheck: {interval: 5, test: [curl]}\n    depends_on: {b: {condition: ready}}\n    networks: [n]\n    x-note: ok\n  b: {}\n  c:\n  'd e': {image: d}\nnetwork:\n  n:\nvolumes:\n",
        )],
        expect![[r#"
            /d/compose.yaml:3:5: "imag" is not a field of services.a: did you mean image?
            /d/compose.yaml:4:12: services.a.image has to be text but is a number: put it in quotes
            /d/compose.yaml:5:14: services.a.restart has to be no, always, unless-stopped, on-failure or on-failure:3, not "sometimes"
            /d/compose.yaml:6:14: "replica" is not a field of services.a.deploy: did you mean replicas?
            /d/compose.yaml:7:29: services.a.healthcheck.interval has to be text but is a number: put it in quotes
            /d/compose.yaml:7:38: services.a.healthcheck.test is a list, so it has to begin with CMD, CMD-SHELL or NONE
            /d/compose.yaml:8:33: services.a.depends_on.b.condition has to be service_started, service_healthy or service_completed_successfully, not "ready"
            /d/compose.yaml:12:4: services.c has to be a mapping but is empty
            /d/compose.yaml:13:3: "d e" is not a valid name in services: use letters, digits, '.', '_' and '-'
            /d/compose.yaml:14:1: "network" is not a field of a compose file: did you mean networks?
            /d/compose.yaml:16:8: volumes has to be a mapping but is empty"#]],
    );
    check(
        &[(
            "compose.yaml",
            "services:\n  a: {image: a, depends_on: [a, z], networks: [n], secrets: [s], volumes: ['v:/v'], network_mode: host}\n  b: {command: x}\nsecrets: {s: {}, t: {file: x, environment: y}}\n",
        )],
        expect![[r#"
            /d/compose.yaml:2:30: services wait for each other: a -> a
            /d/compose.yaml:2:33: services.a.depends_on names z, which is not a service of this project
            /d/compose.yaml:2:48: services.a uses the network n, which networks does not declare
            /d/compose.yaml:2:76: services.a uses the volume v, which volumes does not declare
            /d/compose.yaml:2:85: services.a has both network_mode and networks: choose one
            /d/compose.yaml:3:3: services.b has neither image nor build: say what it runs
            /d/compose.yaml:4:11: secrets.s needs file or environment, or external: true
            /d/compose.yaml:4:18: secrets.t has more than one of file or environment: choose one"#]],
    );
    check(
        &[("compose.yaml", "# nothing\n")],
        expect!["/d/compose.yaml: is empty: a compose file has services"],
    );
    check(
        &[("compose.yaml", "- a\n")],
        expect!["/d/compose.yaml:1:1: is not a valid compose file: it has to be a mapping with services"],
    );
    check(
        &[("compose.yaml", "volumes: {v: }\n")],
        expect!["/d/compose.yaml:1:1: has no services, so there is nothing to run"],
    );
}

#[test]
fn anchors_and_extensions() {
    check(
        &[(
            "compose.yaml",
            "x-common: &common\n  image: i\n  restart: on-failure:3\n  environment: &env {A: 1}\nservices:\n  a:\n    <<: *common\n    environment: {<<: *env, B: 2}\n    healthcheck: {test: curl x, interval: 1m30s}\n  b: {<<: *common, scale: 3}\n",
        )],
        expect![[r#"
            a
              image i
              environment {"B": "2", "A": "1"}
              restart Some(OnFailure(Some(3)))
              healthcheck ["CMD-SHELL", "curl x"] Some(90s)
            b
              image i
              environment {"A": "1"}
              restart Some(OnFailure(Some(3)))
              scale 3
        "#]],
    );
}

#[test]
fn y11_y12_bundles() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("My-stack.dab");
    let text = "{\"Version\": \"0.1\", \"Services\": {\"web\": {\"Image\": \"i@sha256:x\", \"Command\": [\"sh\"], \"Args\": [\"-c\", \"-c\"],\n\t\"Env\": [\"A=1\"], \"Ports\": [{\"Protocol\": \"tcp\", \"Port\": 80}], \"Networks\": [\"n\"], \"User\": \"1\"}}}";
    std::fs::write(&path, text).unwrap();
    let project = compose::load(&path, &Options::default()).unwrap();
    expect![[r#"
        my-stack Some(["sh"])
        web
          image i@sha256:x
          command Some(["-c", "-c"])
          environment {"A": "1"}
          port any -> 80/tcp
          network n []
    "#]]
    .assert_eq(&format!("{} {:?}\n{}", project.name, project.services["web"].entrypoint, shown(&project)));
    std::fs::write(
        &path,
        "{\"Version\": \"9\", \"Services\": {\"web\": {\"Img\": 1, \"Ports\": [{\"Port\": 0}]}}}",
    )
    .unwrap();
    let mistakes = compose::load(&path, &Options::default()).unwrap_err().to_string();
    expect![[r#"
        My-stack.dab:1:13: the bundle has version "9", but only 0.1 is known
        My-stack.dab:1:31: Services.web needs an Image
        My-stack.dab:1:39: "Img" is not a field of Services.web; what only people read begins with x-
        My-stack.dab:1:59: Services.web.Ports[0].Port has to be between 1 and 65535"#]]
    .assert_eq(&mistakes.replace(&format!("{}/", directory.path().display()), ""));
}

#[test]
fn names_of_projects() {
    for (file, env, said, expected) in [
        ("services: {a: {image: a}}\n", "", None, "my-dir_1"),
        ("name: in-file\nservices: {a: {image: a}}\n", "", None, "in-file"),
        ("name: ${N:-x}y\nservices: {a: {image: a}}\n", "", None, "xy"),
        ("name: in-file\nservices: {a: {image: a}}\n", "from-env", None, "from-env"),
        ("name: in-file\nservices: {a: {image: a}}\n", "from-env", Some("said"), "said"),
        ("services: {a: {image: a}}\n", "", Some("Not Allowed"), "cannot be called"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("My-Dir_1.");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(inside.join("compose.yaml"), file).unwrap();
        let mut options = Options { project: said.map(String::from), ..Options::default() };
        options.env.insert("COMPOSE_PROJECT_NAME".into(), env.into());
        let name = match compose::load(&inside, &options) {
            Ok(project) => project.name,
            Err(mistakes) => mistakes.to_string(),
        };
        assert!(name == expected || name.contains("cannot be") && name.contains(expected), "{file}: {name}");
    }
}

/// Files that others wrote are read without a mistake.
#[test]
fn corpus_is_read() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus/compose");
    let Ok(entries) = std::fs::read_dir(&corpus) else {
        yado_testkit::not_proved!("{} is not there", corpus.display());
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        let project = compose::load(&path, &Options::default()).unwrap();
        assert!(!project.services.is_empty(), "{}", path.display());
    }
}

/// What needs a shell ends a command, as docker compose has it, and that is said.
#[test]
fn commands_without_a_shell() {
    check(
        &[(
            "compose.yaml",
            "services:\n  a: {image: a, command: 'run && echo done'}\n  b: {image: b, command: 'run;'}\n  c: {image: c, entrypoint: 'sh -c \"a && b\"'}\n",
        )],
        expect![[r#"
            a
              image a
              command Some(["run"])
            b
              image b
              command Some(["run"])
            c
              image c
            /d/compose.yaml:2:26: services.a.command ends before "&& echo done", as no shell reads it: write sh -c "..."
        "#]],
    );
    check(
        &[("compose.yaml", "services: {d: {image: d, command: 'run (x)'}}\n")],
        expect!["/d/compose.yaml:1:35: services.d.command has a ( that no shell reads: put it in quotes"],
    );
}

/// Fifty services, each with its own copy of a block and a chain of extends behind it, are no more work than their text.
#[test]
fn bounds_are_kept() {
    let laughs: String = (1..40).map(|i| format!("x{i}: &x{i} [*x{0}, *x{0}]\n", i - 1)).collect();
    check(
        &[("compose.yaml", &format!("x0: &x0 [a]\n{laughs}"))],
        expect![
            "/d/compose.yaml:16:12: repeats more by its anchors and aliases than a description could need"
        ],
    );
    let chain: String = (0..200).map(|i| format!("  s{i}: {{extends: s{}}}\n", i + 1)).collect();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("compose.yaml"),
        format!("services:\n{chain}  s200: {{image: a}}\n"),
    )
    .unwrap();
    assert!(compose::load(directory.path(), &Options::default()).is_err());
}

/// As with `docker compose --env-file`: the named files stand for `.env`, the last of them wins, the caller over all.
#[test]
fn y18_named_files_of_variables_are_read_instead_of_dot_env() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("compose.yaml", "services: {web: {image: 'a:${A:-none}-${B:-none}-${C:-none}'}}");
    write(".env", "A=dot\n");
    write("one", "B=one\nC=one\n");
    write("two", "C=two${B:-}\n");
    let image = |files: &[&str], env: &[(&str, &str)]| {
        let files: Vec<_> = files.iter().map(|f| directory.path().join(f)).collect();
        let env = env.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let env = compose::variables(env, &files).map_err(|mistakes| mistakes.to_string())?;
        let options = Options { env, dot_env: files.is_empty(), ..Options::default() };
        let project = compose::load(directory.path(), &options).map_err(|mistakes| mistakes.to_string())?;
        Ok::<_, String>(project.services[0].image.clone().unwrap())
    };
    assert_eq!(image(&[], &[]).unwrap(), "a:dot-none-none");
    assert_eq!(image(&["one"], &[]).unwrap(), "a:none-one-one");
    assert_eq!(image(&["one", "two"], &[]).unwrap(), "a:none-one-two");
    assert_eq!(image(&["one"], &[("B", "caller")]).unwrap(), "a:none-caller-one");
    assert!(image(&["absent"], &[]).unwrap_err().contains("absent"), "a named file has to be there");
}
