//! Every field that a compose file may have: it changes what comes out, or a warning names its place.

use std::path::Path;

use yado_compile::{Compiled, Options, compile};

/// What a project is without the field.
const BASE: &str = "name: p\nservices:\n  web:\n    image: a\n";

/// Fields of a service, as they are written below it.
const SERVICE: &[&str] = &[
    "annotations: {a.example/b: c}",
    "attach: false",
    "blkio_config: {weight: 300}",
    "cap_add: [NET_ADMIN]",
    "cap_drop: [ALL]",
    "cgroup: host",
    "cgroup_parent: m",
    "command: run",
    "configs: [c]",
    "container_name: other",
    "cpu_count: 2",
    "cpu_percent: 50",
    "cpu_period: 1000",
    "cpu_quota: 5000",
    "cpu_rt_period: 1000",
    "cpu_rt_runtime: 400",
    "cpu_shares: 512",
    "cpus: 0.5",
    "cpuset: 0-1",
    "credential_spec: {file: f}",
    "depends_on: [db]",
    "depends_on: {db: {condition: service_healthy}}",
    "depends_on: {db: {condition: service_started, restart: true}}",
    "depends_on: {off: {condition: service_started, required: false}}",
    "deploy: {endpoint_mode: dnsrr}",
    "deploy: {labels: {a: b}}",
    "deploy: {mode: global}",
    "deploy: {placement: {constraints: [node.role == manager]}}",
    "deploy: {placement: {preferences: [{spread: node.labels.zone}]}}",
    "deploy: {placement: {max_replicas_per_node: 1}}",
    "deploy: {replicas: 3}",
    "deploy: {resources: {limits: {cpus: '0.5'}}}",
    "deploy: {resources: {limits: {memory: 50M}}}",
    "deploy: {resources: {limits: {pids: 5}}}",
    "deploy: {resources: {reservations: {cpus: '0.5'}}}",
    "deploy: {resources: {reservations: {memory: 50M}}}",
    "deploy: {resources: {reservations: {devices: [{capabilities: [gpu], count: 1}]}}}",
    "deploy: {resources: {reservations: {generic_resources: [{discrete_resource_spec: {kind: SSD, value: 2}}]}}}",
    "deploy: {restart_policy: {condition: none}}",
    "deploy: {restart_policy: {condition: any, delay: 5s}}",
    "deploy: {restart_policy: {condition: any, max_attempts: 3}}",
    "deploy: {restart_policy: {condition: any, window: 5s}}",
    "deploy: {rollback_config: {parallelism: 1}}",
    "deploy: {update_config: {parallelism: 2}}",
    "deploy: {update_config: {delay: 5s}}",
    "deploy: {update_config: {failure_action: rollback}}",
    "deploy: {update_config: {monitor: 5s}}",
    "deploy: {update_config: {max_failure_ratio: 0.5}}",
    "deploy: {update_config: {order: start-first}}",
    "develop: {watch: [{path: ., action: rebuild}]}",
    "device_cgroup_rules: ['c 1:3 mr']",
    "devices: ['/dev/null:/dev/other']",
    "dns: 8.8.8.8",
    "dns_opt: [use-vc]",
    "dns_search: example.com",
    "domainname: example.com",
    "entrypoint: run",
    "env_file: vars",
    "env_file: [{path: vars, format: raw}]",
    "env_file: [{path: absent, required: false}]",
    "environment: {A: b}",
    "expose: [81]",
    "external_links: [other_db_1:database]",
    "external_links: [somebody]",
    "extra_hosts: ['h:1.2.3.4']",
    "gpus: all",
    "group_add: [100]",
    "group_add: [mail]",
    "healthcheck: {test: check}",
    "healthcheck: {interval: 5s}",
    "hostname: h",
    "init: true",
    "ipc: host",
    "ipc: 'container:x'",
    "isolation: hyperv",
    "label_file: labels",
    "labels: {a: b}",
    "links: [db:database]",
    "logging: {driver: syslog}",
    "logging: {options: {max-size: 1m}}",
    "mac_address: 02:42:ac:11:65:43",
    "mem_limit: 50M",
    "mem_reservation: 50M",
    "mem_swappiness: 10",
    "memswap_limit: 50M",
    "models: [m]",
    "network_mode: host",
    "network_mode: none",
    "network_mode: bridge",
    "network_mode: 'container:x'",
    "network_mode: mine",
    "networks: {n: {aliases: [x]}}",
    "networks: {n: {ipv4_address: 10.1.2.3}}",
    "networks: {n: {mac_address: '02:42:ac:11:65:43'}}",
    "networks: {n: {driver_opts: {a: b}}}",
    "networks: {n: {interface_name: eth1}}",
    "networks: {n: {link_local_ips: [169.254.1.1]}}",
    "networks: {n: {priority: 1}}",
    "networks: {n: {gw_priority: 1}}",
    "oom_kill_disable: true",
    "oom_score_adj: 100",
    "pid: host",
    "pid: 'container:x'",
    "pids_limit: 10",
    "platform: linux/arm64",
    "ports: ['8080:80']",
    "ports: ['8000-8010:80']",
    "ports: [{target: 80, published: 8080, mode: host}]",
    "ports: [{target: 80, published: 8080, app_protocol: http}]",
    "post_start: [{command: run}]",
    "post_start: [{command: run, user: root}]",
    "pre_start: [{command: run}]",
    "pre_stop: [{command: run}]",
    "pre_stop: [{command: run, environment: {A: b}}]",
    "privileged: true",
    "provider: {type: x}",
    "pull_policy: always",
    "pull_policy: daily",
    "pull_refresh_after: 24h",
    "read_only: true",
    "restart: 'no'",
    "restart: 'on-failure:3'",
    "runtime: runsc",
    "scale: 2",
    "secrets: [s]",
    "secrets: [{source: s, uid: '1', mode: 0440}]",
    "security_opt: ['no-new-privileges:true']",
    "security_opt: ['seccomp:unconfined']",
    "security_opt: ['apparmor:x']",
    "security_opt: ['label:disable']",
    "shm_size: 64m",
    "stdin_open: true",
    "stop_grace_period: 5s",
    "stop_signal: SIGUSR1",
    "storage_opt: {size: 1G}",
    "storage_opt: {other: 1G}",
    "sysctls: {net.core.somaxconn: 1024}",
    "tmpfs: /run",
    "tty: true",
    "ulimits: {nofile: 1024}",
    "use_api_socket: true",
    "user: '1000'",
    "user: somebody",
    "userns_mode: host",
    "userns_mode: keep-id",
    "uts: host",
    "volume_driver: nfs",
    "volumes: [/data]",
    "volumes: ['v:/data']",
    "volumes: ['./d:/data']",
    "volumes: ['./d:/data:z']",
    "volumes: ['./d:/data:rshared']",
    "volumes: [{type: bind, source: ./gone, target: /data, bind: {create_host_path: false}}]",
    "volumes: [{type: volume, source: v, target: /data, volume: {nocopy: true}}]",
    "volumes: [{type: volume, source: v, target: /data, volume: {subpath: a}}]",
    "volumes: [{type: volume, source: v, target: /data, volume: {labels: {a: b}}}]",
    "volumes: [{type: tmpfs, target: /data, tmpfs: {size: 10m, mode: 0700}}]",
    "volumes: [{type: image, source: i, target: /data}]",
    "volumes: [{type: cluster, source: v, target: /data}]",
    "volumes: [{type: npipe, source: v, target: /data}]",
    "volumes_from: [db]",
    "volumes_from: ['container:x']",
    "working_dir: /w",
    "build: .",
    "build: {context: ., additional_contexts: {a: b}}",
    "build: {context: ., args: {A: b}}",
    "build: {context: ., cache_from: [x]}",
    "build: {context: ., cache_to: [x]}",
    "build: {context: ., dockerfile: Other}",
    "build: {context: ., dockerfile_inline: FROM x}",
    "build: {context: ., entitlements: [network.host]}",
    "build: {context: ., extra_hosts: ['h:1.2.3.4']}",
    "build: {context: ., isolation: x}",
    "build: {context: ., labels: {a: b}}",
    "build: {context: ., network: host}",
    "build: {context: ., no_cache: true}",
    "build: {context: ., no_cache_filter: x}",
    "build: {context: ., platforms: [linux/arm64]}",
    "build: {context: ., privileged: true}",
    "build: {context: ., provenance: true}",
    "build: {context: ., pull: true}",
    "build: {context: ., sbom: true}",
    "build: {context: ., secrets: [s]}",
    "build: {context: ., shm_size: 64m}",
    "build: {context: ., ssh: [default]}",
    "build: {context: ., tags: [x]}",
    "build: {context: ., target: x}",
    "build: {context: ., ulimits: {nofile: 1024}}",
    "build: 'https://github.com/o/r.git'",
];

/// What else the project has, so that fields may name it. Nothing of it is in use without them.
const REST: &str = "  db: {image: d, volumes: [/lent]}
  off: {image: o, profiles: [x]}
networks: {n: , mine: }
volumes: {v: }
configs: {c: {content: text}}
secrets: {s: {file: ./secret}}
models: {m: {model: x}}
";

/// Fields of networks, volumes, configs and secrets; the service uses them.
const SHARED: &[&str] = &[
    "networks: {n: {attachable: true}}",
    "networks: {n: {driver: overlay}}",
    "networks: {n: {driver_opts: {a: b}}}",
    "networks: {n: {enable_ipv4: false}}",
    "networks: {n: {enable_ipv6: true}}",
    "networks: {n: {external: true}}",
    "networks: {n: {internal: true}}",
    "networks: {n: {ipam: {driver: x}}}",
    "networks: {n: {ipam: {config: [{subnet: 10.0.0.0/24}]}}}",
    "networks: {n: {ipam: {options: {a: b}}}}",
    "networks: {n: {labels: {a: b}}}",
    "networks: {n: {name: other}}",
    "volumes: {v: {driver: nfs}}",
    "volumes: {v: {driver_opts: {type: nfs, o: 'addr=10.0.0.1,rw', device: ':/d'}}}",
    "volumes: {v: {driver_opts: {type: none, o: bind, device: /d}}}",
    "volumes: {v: {driver_opts: {type: tmpfs, device: tmpfs, o: size=10m}}}",
    "volumes: {v: {external: true}}",
    "volumes: {v: {labels: {a: b}}}",
    "volumes: {v: {name: other}}",
    "configs: {c: {content: other}}",
    "configs: {c: {file: ./secret}}",
    "configs: {c: {environment: SET}}",
    "configs: {c: {environment: NOT_SET}}",
    "configs: {c: {external: true}}",
    "configs: {c: {content: text, name: other}}",
    "configs: {c: {content: text, labels: {a: b}}}",
    "configs: {c: {content: text, template_driver: x}}",
    "secrets: {s: {file: ./gone}}",
    "secrets: {s: {environment: SET}}",
    "secrets: {s: {environment: NOT_SET}}",
    "secrets: {s: {external: true}}",
    "secrets: {s: {file: ./secret, name: other}}",
    "secrets: {s: {file: ./secret, labels: {a: b}}}",
    "secrets: {s: {driver: x}}",
    "secrets: {s: {file: ./secret, template_driver: x}}",
];

/// Fields that say what is so anyway: with the reason.
const ANYWAY: &[(&str, &str)] = &[
    ("depends_on: {off: {condition: service_started, required: false}}", "what is off is not waited for"),
    ("deploy: {endpoint_mode: dnsrr}", "where no port is known, a name leads to each Pod's own address"),
    ("env_file: [{path: absent, required: false}]", "what may be absent and is"),
    ("restart: 'no'", "what has ended stays so"),
    ("deploy: {restart_policy: {condition: none}}", "what has ended stays so"),
    ("networks: {n: {attachable: true}}", "any Pod may come to a network"),
    ("networks: {n: {driver: overlay}}", "the network of Pods goes over all nodes"),
    ("configs: {c: {content: text, name: other}}", "services know it by its key"),
    ("secrets: {s: {file: ./secret, name: other}}", "services know it by its key"),
];

fn compiled(directory: &Path, text: &str) -> Result<Compiled, String> {
    let file = directory.join("compose.yaml");
    std::fs::write(&file, text).unwrap();
    let env = [("SET".to_string(), "set".to_string())].into();
    compile(&file, &Options { env, ..Options::default() }).map_err(|mistakes| mistakes.to_string())
}

/// What is wrong with `field` on line `line` of `text`, which without it is `base`.
fn silent(directory: &Path, base: &Compiled, text: &str, field: &str, line: usize) -> Option<String> {
    let with = match compiled(directory, text) {
        Ok(with) => with,
        Err(mistakes) if mistakes.contains(&format!("compose.yaml:{line}:")) => return None,
        Err(mistakes) => return Some(format!("{field}: {mistakes}")),
    };
    let said = with.warnings.iter().any(|w| w.at.line == line);
    let anyway = ANYWAY.iter().any(|(f, _)| *f == field);
    let works = with.objects != base.objects || with.builds != base.builds;
    match (works || said, anyway) {
        (false, false) => Some(format!("{field}: is dropped in silence")),
        (true, true) => {
            Some(format!("{field}: does something, so it is wrong in the list of those that do not"))
        }
        _ => None,
    }
}

fn laid_out() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("vars", "A=b\n"),
        ("labels", "a=b\n"),
        ("secret", "secret text"),
        ("d/file", ""),
        ("Dockerfile", "FROM scratch\n"),
        ("Other", "FROM scratch\nEXPOSE 9\n"),
    ] {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    directory
}

#[test]
fn every_field_of_a_service_works_or_draws_a_warning() {
    let directory = laid_out();
    let plain = compiled(directory.path(), &format!("{BASE}{REST}")).unwrap();
    let built = compiled(directory.path(), &format!("{BASE}    build: {{context: .}}\n{REST}")).unwrap();
    let wrong: Vec<String> = SERVICE
        .iter()
        .filter_map(|field| {
            let base = if field.starts_with("build: {") { &built } else { &plain };
            let line = BASE.lines().count() + 1;
            silent(directory.path(), base, &format!("{BASE}    {field}\n{REST}"), field, line)
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_field_of_what_services_share_works_or_draws_a_warning() {
    let directory = laid_out();
    let uses = "    networks: [n]\n    volumes: ['v:/v']\n    configs: [c]\n    secrets: [s]\n";
    let text = |replaced: Option<&str>| {
        let lines = REST.lines().map(|line| {
            let section = line.split(':').next().unwrap_or_default();
            let field = replaced.filter(|f| !line.starts_with(' ') && f.split(':').next() == Some(section));
            format!("{}\n", field.unwrap_or(line))
        });
        format!("{BASE}{uses}{}", lines.collect::<String>())
    };
    let base = compiled(directory.path(), &text(None)).unwrap();
    let wrong: Vec<String> = SHARED
        .iter()
        .filter_map(|field| {
            let text = text(Some(field));
            let line = text.lines().position(|l| l == *field).unwrap() + 1;
            silent(directory.path(), &base, &text, field, line)
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
