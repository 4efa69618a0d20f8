//! Damaged input: whatever the bytes, a description gives objects or mistakes, never a panic.

use yado_compile::{Options, compile, output};

/// Descriptions that between them use every part of the grammars.
const SEEDS: [(&str, &str); 9] = [
    (
        "compose.yaml",
        "name: p\nx-c: &c {restart: on-failure:3, environment: [A=${A:-b}, B]}\nservices:\n  a:\n    <<: *c\n    image: a:$T\n\
         \x20   ports: ['1-2:3-4/udp', {target: 5, published: \"6-7\"}]\n    volumes: ['./x:/y:ro', 'C:\\a:/b', {type: tmpfs, target: /t}]\n\
         \x20   depends_on: {b: {condition: service_healthy}}\n    deploy: {replicas: 2, resources: {limits: {memory: 1.5g}}}\n\
         \x20   healthcheck: {test: [CMD, a], interval: 1m30s}\n  b:\n    extends: {service: a}\n    build: {context: ., args: [A]}\n\
         \x20   command: sh -c \"a 'b'\"\n    networks: {n: {aliases: [q]}}\nnetworks: {n: }\nsecrets: {s: {environment: S}}\n",
    ),
    (
        "m.dab",
        "{\"Version\": \"0.1\", \"Services\": {\"a\": {\"Image\": \"i\", \"Env\": [\"A=1\"], \"Ports\": [{\"Port\": 80}]}}}",
    ),
    (
        "Appfile",
        "application {\n  name = \"a\"\n  type = \"docker-external\"\n  dependency { source = \"./b\" }\n}\n\
         project {\n  name = \"a\"\n  infrastructure = \"x\"\n}\ninfrastructure \"x\" {\n  foundation \"consul\" { a = [1, -2.5] }\n}\n\
         customization \"docker\" {\n  image = \"i\"\n  run_args = \"-p 1:2/udp -e 'A=b' -v /x:/y:ro -m 5m\"\n}\n\
         customization \"scale\" { app = 2 }\ncustomization \"env\" { K = <<E\nx\nE\n}\n",
    ),
    (
        "Appfile",
        "{\"application\": {\"name\": \"a\", \"type\": \"docker-external\", \"dependency\": [{\"source\": \"git::./b//c?ref=v\"}]}, \"customization\": {\"docker\": {\"image\": \"i\", \"run_args\": \"--link b:c -v /vagrant/x:/y\"}}}",
    ),
    (
        "app.json",
        "{\"env\": {\"A\": \"b\", \"C\": {\"value\": \"d\", \"required\": true}}, \"formation\": {\"web\": {\"quantity\": 2, \"size\": \"x\"}}, \"addons\": [\"heroku-redis\"], \"buildpacks\": [{\"url\": \"heroku/go\"}], \"scripts\": {\"postdeploy\": \"x\"}}",
    ),
    (
        "u@1.service",
        "# c\n[Unit]\nDescription=d %i\nAfter=a.service\n[Service]\nType=forking\nEnvironment=\"A=b c\" D=%H\n\
         EnvironmentFile=-/etc/x\nExecStartPre=-/bin/sh -c 'docker rm ${A}; echo $(docker ps | grep x)'\n\
         ExecStart=/usr/bin/docker run --name x-%i -p ${IP}:80:80 \\\n  -v /d -e K=\\x41 img $D\nTimeoutStopSec=1min 5s\n\
         LimitNOFILE=1:2\nExecStop=/bin/kill $MAINPID\n[X-Fleet]\nConflicts=u@[1-9]*.service\n\
         MachineMetadata=\"a=b\" \"c=d\"\nMachineOf=o.service\n",
    ),
    ("Procfile", "web: run --it\n# note\nworker: a && b\n"),
    (
        "m.yaml",
        "apiVersion: v1\nkind: List\nitems:\n- &a {apiVersion: v1, kind: Pod, metadata: {name: p}}\n- *a\n---\nkind: >-\n  x\n",
    ),
    ("m.json", "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"p\"}}"),
];

/// Bytes that mean something in one of the grammars.
const PIECES: [&str; 20] = [
    "{", "}", "\"", "'", "\n", "---\n", ":", " ", "=", "-", "[", "]", "${", "%", "\\", "\u{0}", "é", "<<",
    "&a", "*a",
];

#[test]
fn damaged_descriptions_never_panic() {
    let directory = tempfile::tempdir().unwrap();
    for (i, (name, seed)) in SEEDS.into_iter().enumerate() {
        let directory = directory.path().join(i.to_string());
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join(name);
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: usize| {
            // xorshift: the same damage on every run.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % below as u64) as usize
        };
        for _ in 0..200 {
            let mut bytes = seed.as_bytes().to_vec();
            for _ in 0..=next(4) {
                let at = next(bytes.len() + 1);
                match next(3) {
                    0 => bytes.truncate(at),
                    1 => drop(bytes.drain(at..bytes.len().min(at + next(8)))),
                    _ => drop(bytes.splice(at..at, PIECES[next(PIECES.len())].bytes())),
                }
            }
            std::fs::write(&path, &bytes).unwrap();
            // An app.json is read with the Procfile beside it.
            let described = if name == "app.json" { directory.join("Procfile") } else { path.clone() };
            if name == "app.json" {
                std::fs::write(&described, "web: run\n").unwrap();
            }
            match compile(&described, &Options::default()) {
                Ok(compiled) => drop(output::files(&compiled)),
                Err(mistakes) => assert!(!mistakes.0.is_empty()),
            }
        }
    }
}

#[test]
fn deep_and_long_descriptions_end() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("Appfile", "a {\n".repeat(100_000)),
        ("Appfile", format!("application {{\n name = {}\n}}", "[".repeat(100_000))),
        ("Procfile", "web: x\n".repeat(20_000)),
        ("m.yaml", "[".repeat(100_000)),
        (
            "m.yaml",
            format!(
                "a: &a [1]\n{}",
                (0..30)
                    .map(|i| format!(
                        "b{i}: &b{i} [*{0}, *{0}]\n",
                        if i == 0 { "a".into() } else { format!("b{}", i - 1) }
                    ))
                    .collect::<String>()
            ),
        ),
        ("m.json", "{\"a\":".repeat(100_000)),
    ] {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        assert!(compile(&path, &Options::default()).is_err(), "{name}");
    }
}
