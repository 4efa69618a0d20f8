//! What descriptions mean that shows in no single field: who reaches whom, as whom, and how often.

use std::fs;

use expect_test::{Expect, expect};
use serde_json::{Value, json};
use yado_compile::{Compiled, Options, compile};

use crate::{round_trip, table::compiled, valid};

/// Compiles one compose file, and sees that nothing of it is lost on the way back.
fn project(compose: &str) -> Compiled {
    let (_directory, compiled) = compiled(&[("compose.yaml", compose)]);
    assert_eq!(valid::problems(&compiled), Vec::<String>::new(), "{compose}");
    if let Err(difference) = round_trip(&compiled) {
        panic!("a round trip changes it: {difference}");
    }
    compiled
}

fn object<'a>(compiled: &'a Compiled, kind: &str, name: &str) -> &'a Value {
    let found = compiled.objects.iter().find(|o| o.kind() == kind && o.name() == name);
    &found.unwrap_or_else(|| panic!("there is no {kind} {name}")).value
}

fn pod<'a>(compiled: &'a Compiled, name: &str) -> &'a Value {
    &object(compiled, "Deployment", name)["spec"]["template"]
}

/// Warnings without the place of the directory.
fn warnings(compiled: &Compiled) -> Vec<String> {
    let all = compiled.warnings.iter();
    all.map(|w| w.to_string().rsplit_once("/shop/").unwrap().1.to_string()).collect()
}

/// The policies of a compose file, a line each.
fn check_policies(compose: &str, expect: Expect) {
    let (_directory, compiled) = compiled(&[("compose.yaml", compose)]);
    assert_eq!(valid::problems(&compiled), Vec::<String>::new(), "{compose}");
    let mut lines = String::new();
    for object in compiled.objects.iter().filter(|o| o.kind() == "NetworkPolicy") {
        lines.push_str(&format!("{} {}\n", object.name(), object.value["spec"]));
    }
    for object in compiled.objects.iter().filter(|o| o.kind() == "Deployment") {
        let labels = object.value["spec"]["template"]["metadata"]["labels"].as_object().unwrap();
        let networks =
            labels.iter().filter(|(k, _)| k.starts_with("network.")).map(|(k, v)| format!(" {k}={v}"));
        lines.push_str(&format!("{}{}\n", object.name(), networks.collect::<String>()));
    }
    expect.assert_eq(&lines);
}

#[test]
fn y09_projects_are_apart_without_a_word_of_networks() {
    check_policies(
        "services:\n  web: {image: a, ports: ['80:80', '127.0.0.1:81:81', '53:53/udp']}\n  db: {image: b}\n",
        expect![[r#"
            network-default {"podSelector":{"matchLabels":{"app.kubernetes.io/name":"shop","network.yado.dev/shop-default":"true"}},"policyTypes":["Ingress"],"ingress":[{"from":[{"podSelector":{"matchLabels":{"app.kubernetes.io/name":"shop","network.yado.dev/shop-default":"true"}}},{"namespaceSelector":{},"podSelector":{"matchLabels":{"network.yado.dev/shop-default":"shared"}}}]}]}
            published-web {"podSelector":{"matchLabels":{"app.kubernetes.io/name":"shop","app.kubernetes.io/component":"web"}},"policyTypes":["Ingress"],"ingress":[{"ports":[{"port":80,"protocol":"TCP"},{"port":53,"protocol":"UDP"}]}]}
            web network.yado.dev/shop-default="true"
            db network.yado.dev/shop-default="true"
        "#]],
    );
}

#[test]
fn y09_what_projects_share_is_an_external_network() {
    check_policies(
        "
services:
  web: {image: a, networks: [default, other, named]}
  job: {image: b, networks: [other]}
networks: {other: {name: blog_default, external: true}, named: {name: proxy}}
",
        expect![[r#"
            network-default {"podSelector":{"matchLabels":{"app.kubernetes.io/name":"shop","network.yado.dev/shop-default":"true"}},"policyTypes":["Ingress"],"ingress":[{"from":[{"podSelector":{"matchLabels":{"app.kubernetes.io/name":"shop","network.yado.dev/shop-default":"true"}}},{"namespaceSelector":{},"podSelector":{"matchLabels":{"network.yado.dev/shop-default":"shared"}}}]}]}
            shared-network-blog-default {"podSelector":{"matchLabels":{"app.kubernetes.io/name":"shop","network.yado.dev/blog-default":"shared"}},"policyTypes":["Ingress"],"ingress":[{"from":[{"namespaceSelector":{},"podSelector":{"matchExpressions":[{"key":"network.yado.dev/blog-default","operator":"Exists"}]}}]}]}
            shared-network-proxy {"podSelector":{"matchLabels":{"app.kubernetes.io/name":"shop","network.yado.dev/proxy":"shared"}},"policyTypes":["Ingress"],"ingress":[{"from":[{"namespaceSelector":{},"podSelector":{"matchExpressions":[{"key":"network.yado.dev/proxy","operator":"Exists"}]}}]}]}
            web network.yado.dev/blog-default="shared" network.yado.dev/proxy="shared" network.yado.dev/shop-default="true"
            job network.yado.dev/blog-default="shared"
        "#]],
    );
}

#[test]
fn y09_containers_outside_the_projects_networks() {
    check_policies(
        "
services:
  bridge: {image: a, network_mode: bridge, ports: ['80:80']}
  none: {image: a, network_mode: none}
  host: {image: a, network_mode: host}
",
        expect![[r#"
            no-network {"podSelector":{"matchLabels":{"app.kubernetes.io/name":"shop","network.yado.dev/none":"true"}},"policyTypes":["Ingress","Egress"]}
            shared-network-bridge {"podSelector":{"matchLabels":{"app.kubernetes.io/name":"shop","network.yado.dev/bridge":"shared"}},"policyTypes":["Ingress"],"ingress":[{"from":[{"namespaceSelector":{},"podSelector":{"matchExpressions":[{"key":"network.yado.dev/bridge","operator":"Exists"}]}}]}]}
            published-bridge {"podSelector":{"matchLabels":{"app.kubernetes.io/name":"shop","app.kubernetes.io/component":"bridge"}},"policyTypes":["Ingress"],"ingress":[{"ports":[{"port":80,"protocol":"TCP"}]}]}
            bridge network.yado.dev/bridge="shared"
            none network.yado.dev/none="true"
            host
        "#]],
    );
}

/// Another project's own network has its services' names.
#[test]
fn y10_another_projects_network_is_searched_for_names() {
    let compiled = project(
        "services:\n  web: {image: a, networks: [x]}\nnetworks: {x: {name: my_blog_default, external: true}}\n",
    );
    assert_eq!(
        pod(&compiled, "web")["spec"]["dnsConfig"]["searches"],
        json!(["network-my-blog-default.svc.cluster.local", "my-blog.svc.cluster.local"])
    );
}

#[test]
fn containers_are_found_as_docker_calls_them() {
    for (compose, service, names) in [
        ("services: {db: {image: a}}", "db", json!("shop-db-1")),
        ("services: {db: {image: a, scale: 2}}", "db", json!("shop-db-1,shop-db-2")),
        ("services: {my_db: {image: a}}", "my-db", json!("my_db,shop-my_db-1")),
        // Another has the name.
        ("services: {db: {image: a}, shop-db-1: {image: b}}", "db", Value::Null),
        ("db: {image: a}", "db", json!("shop_db_1")),
    ] {
        let (_directory, compiled) = compiled(&[("compose.yaml", compose)]);
        let annotations = &object(&compiled, "Service", service)["metadata"]["annotations"];
        assert_eq!(annotations["yado.dev/aliases"], names, "{compose}");
    }
}

/// An app's environment is what is written, whatever else runs beside it.
#[test]
fn links_give_names_and_no_variables() {
    let compiled = project(
        "services:\n  app: {image: a, links: [db, 'db:sql'], environment: {A: b}}\n  db: {image: mysql, environment: {MYSQL_ROOT_PASSWORD: hunter2}}\n",
    );
    let app = pod(&compiled, "app");
    assert_eq!(app["spec"]["containers"][0]["env"], json!([{"name": "A", "value": "b"}]));
    assert_eq!(app["metadata"]["annotations"]["yado.dev/links"], Value::Null);
    object(&compiled, "Service", "sql");
    assert_eq!(app["spec"]["enableServiceLinks"], false);
}

#[test]
fn every_format_gives_pods_the_usual_filter_and_neither_tokens_nor_variables_of_others() {
    for (file, text) in [
        ("compose.yaml", "services: {web: {image: a}}"),
        ("Procfile", "web: serve"),
        (
            "Appfile",
            "application { name = \"a\" type = \"docker-external\" }\ncustomization \"docker\" { image = \"redis\" }",
        ),
        ("web.service", "[Service]\nExecStart=/usr/bin/docker run --name web redis\n"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(file);
        fs::write(&path, text).unwrap();
        let compiled = compile(&path, &Options::default()).unwrap_or_else(|e| panic!("{file}: {e}"));
        let pods: Vec<&Value> = compiled
            .objects
            .iter()
            .map(|o| &o.value["spec"]["template"]["spec"])
            .filter(|p| p.is_object())
            .collect();
        assert!(!pods.is_empty(), "{file}");
        for pod in pods {
            assert_eq!(pod["enableServiceLinks"], false, "{file}");
            assert_eq!(pod["automountServiceAccountToken"], false, "{file}");
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{file}");
        }
    }
    let compiled = project("services: {web: {image: a, security_opt: ['seccomp=unconfined']}}");
    let container = &pod(&compiled, "web")["spec"]["containers"][0];
    assert_eq!(container["securityContext"]["seccompProfile"]["type"], "Unconfined");
}

/// What is published to the machine itself has neither a port of the node, nor a host name that the router serves.
#[test]
fn what_is_published_on_loopback_has_no_other_door() {
    for port in ["127.0.0.1:8080:80", "[::1]:8080:80", "127.0.0.9:8080:80"] {
        let compiled = project(&format!("services: {{web: {{image: a, ports: ['{port}']}}}}"));
        let spec = &object(&compiled, "Service", "web-local")["spec"];
        assert_eq!(spec["type"], "LoadBalancer", "{port}");
        assert_eq!(spec["allocateLoadBalancerNodePorts"], false, "{port}");
        assert_eq!(spec["loadBalancerSourceRanges"], json!(["127.0.0.0/8"]), "{port}");
        assert!(compiled.objects.iter().all(|o| o.kind() != "Ingress"), "{port}");
        assert_eq!((&compiled.host, &compiled.published[0].host), (&None, &None), "{port}");
        assert_eq!((compiled.published[0].port, compiled.published[0].web), (Some(8080), true), "{port}");
        let policies = compiled.objects.iter().filter(|o| o.kind() == "NetworkPolicy");
        assert_eq!(policies.map(|o| o.name()).collect::<Vec<_>>(), ["network-default"], "{port}");
    }
    // A port that the cluster chose would be open everywhere.
    let (_directory, compiled) =
        compiled(&[("compose.yaml", "services: {web: {image: a, ports: ['127.0.0.1::9000']}}")]);
    assert_eq!(object(&compiled, "Service", "web-local")["spec"]["ports"][0]["port"], 9000);
    assert_eq!(
        warnings(&compiled),
        [
            "compose.yaml:1:36: port 9000 is published at 9000 of the machine itself: only ports that everybody reaches are chosen freely"
        ]
    );
}

#[test]
fn appfiles_publish_on_loopback_only_what_they_say() {
    for (flags, host) in
        [("-p 127.0.0.1:8080:80", None), ("-p 8080:80", Some("web.localhost")), ("", Some("web.localhost"))]
    {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("Appfile");
        let text = format!(
            "application {{ name = \"web\" type = \"docker-external\" }}\ncustomization \"docker\" {{ image = \"nginx\" run_args = \"{flags}\" }}"
        );
        fs::write(&path, text).unwrap();
        let compiled = compile(&path, &Options::default()).unwrap_or_else(|e| panic!("{flags}: {e}"));
        assert_eq!(compiled.host.as_deref(), host, "{flags}");
        let ingress = compiled.objects.iter().any(|o| o.kind() == "Ingress");
        assert_eq!(ingress, host.is_some(), "{flags}");
    }
}

#[test]
fn files_have_the_owner_and_the_mode_that_are_asked_for() {
    let text = "
services:
  app:
    image: a
    secrets:
    - {source: key, target: own, mode: 0400, uid: '1000', gid: '1000'}
    - {source: key, target: roots, mode: '0440'}
    - {source: key, target: /etc/key, uid: '7'}
    configs:
    - {source: conf, target: /a.conf, gid: '8'}
    - {source: conf, target: /b.conf, uid: www, gid: '4294967295'}
secrets: {key: {file: ./key}}
configs: {conf: {content: hi}}
";
    let (_directory, compiled) = compiled(&[("compose.yaml", text), ("key", "s3cret")]);
    round_trip(&compiled).unwrap();
    let app = pod(&compiled, "app");
    let owners: Value =
        serde_json::from_str(app["metadata"]["annotations"]["yado.dev/file-owners"].as_str().unwrap())
            .unwrap();
    assert_eq!(
        owners,
        json!({"app-secrets": {"own": "1000:1000"}, "secret-key-7-0": {"key": "7:0"}, "config-conf-0-8": {"conf": "0:8"}})
    );
    for volume in owners.as_object().unwrap().keys() {
        assert!(
            app["spec"]["volumes"].as_array().unwrap().iter().any(|v| v["name"] == volume.as_str()),
            "{volume}"
        );
    }
    assert_eq!(
        warnings(&compiled),
        [
            "compose.yaml:11:7: uid www of conf has no effect, so it is root's: write a number of at most 2147483647",
            "compose.yaml:11:7: gid 4294967295 of conf has no effect, so it is root's: write a number of at most 2147483647",
        ]
    );
}

/// Files of version 1 that say too little to be known by themselves.
#[test]
fn parts_of_version_1_are_read_as_what_they_are_laid_over() {
    let override_file = "web:\n  environment: {DEBUG: '1'}\n";
    let base = "web:\n  image: a\n  links: [db]\ndb:\n  image: redis\n";
    let extends = "web:\n  extends: {file: common.yml, service: base}\n  image: a\n";
    let newer = "services:\n  web:\n    extends: {file: common.yml, service: base}\n    image: a\n";
    let common = "base:\n  environment: {DEBUG: '1'}\n";
    for (files, links) in [
        (vec![("docker-compose.yml", base), ("docker-compose.override.yml", override_file)], true),
        // The part first: together they say what there is to run.
        (vec![("docker-compose.yml", override_file), ("docker-compose.override.yml", base)], true),
        (vec![("docker-compose.yml", extends), ("common.yml", common)], false),
        (vec![("docker-compose.yml", newer), ("common.yml", common)], false),
    ] {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in &files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let compiled =
            compile(directory.path(), &Options::default()).unwrap_or_else(|e| panic!("{files:?}: {e}"));
        let env = pod(&compiled, "web")["spec"]["containers"][0]["env"].as_array().unwrap();
        assert!(env.iter().any(|e| e["name"] == "DEBUG"), "{files:?}");
        assert_eq!(env.iter().any(|e| e["name"] == "DB_PORT"), links, "{files:?}");
    }
    let directory = tempfile::tempdir().unwrap();
    let part = directory.path().join("fragment.yml");
    fs::write(directory.path().join("docker-compose.yml"), base).unwrap();
    fs::write(&part, override_file).unwrap();
    let options = Options { overrides: vec![part], ..Options::default() };
    compile(&directory.path().join("docker-compose.yml"), &options).unwrap();
    // What nothing is laid over, or what only names services, is told what it lacks.
    for (text, mistake) in [
        (override_file, "services.web has neither image nor build: say what it runs"),
        ("services: {web: {image: a}}\nweb: {environment: {}}\n", "web"),
    ] {
        fs::write(directory.path().join("docker-compose.yml"), text).unwrap();
        let said = compile(directory.path(), &Options::default()).unwrap_err().to_string();
        assert!(said.contains(mistake), "{said}");
    }
}

#[test]
fn what_is_asked_at_an_address_that_nobody_has_is_named() {
    let (_directory, compiled) = compiled(&[(
        "compose.yaml",
        "
services:
  resolver: {image: a, networks: {inner: {ipv4_address: 172.30.1.25}}}
  web:
    image: a
    networks: [inner]
    dns: [172.30.1.25, 1.1.1.1]
    extra_hosts: ['ns:172.30.1.25']
    environment: {DNS: 'udp://172.30.1.25:53', OTHER: 172.30.1.254}
networks: {inner: {}}
",
    )]);
    assert_eq!(pod(&compiled, "web")["spec"]["dnsConfig"]["nameservers"], json!(["1.1.1.1"]));
    let said = warnings(&compiled);
    expect![[r#"
        compose.yaml:3:35: ipv4_address of network inner has no effect: a Pod's address and device are assigned by the cluster, so use names
        compose.yaml:8:5: extra_hosts of web points at resolver by the address 172.30.1.25, which resolver does not get: write its name, resolver
        compose.yaml:7:5: dns of web points at resolver by the address 172.30.1.25, which resolver does not get: names are resolved by the DNS of the cluster instead
        compose.yaml:9:5: environment of web points at resolver by the address 172.30.1.25, which resolver does not get: write its name, resolver"#]].assert_eq(&said.join("\n"));
}

#[test]
fn hosts_that_another_router_would_serve_are_named() {
    let (_directory, compiled) = compiled(&[(
        "compose.yaml",
        "
services:
  a: {image: a, labels: ['traefik.enable=true', 'traefik.http.routers.web.rule=Host(`shop.example.com`) && PathPrefix(`/x`)']}
  b: {image: a, labels: ['traefik.http.routers.b.rule=Host(`a.example`, `b.example`) || Host(`c.example`)']}
  c: {image: a, labels: ['traefik.frontend.rule=Host:a.example,b.example;PathPrefix:/c', 'traefik.port=80']}
  d: {image: a, environment: {VIRTUAL_HOST: 'blog.example.com,www.example.com', VIRTUAL_PORT: '80'}}
  e: {image: a, deploy: {labels: {traefik.tcp.routers.e.rule: 'HostSNI(`*`)'}}}
  f: {image: a, labels: {caddy: f.example, caddy.reverse_proxy: '{{upstreams 80}}'}}
  g: {image: a, labels: {rule: 'Host(`x`)', traefik.http.routers.g.rule: 'PathPrefix(`/`)'}}
",
    )]);
    let said = warnings(&compiled);
    expect![[r#"
        compose.yaml:3:17: shop.example.com is not routed: nothing here reads the label traefik.http.routers.web.rule; publish the port and add the host to its Ingress in yado-overlay.yaml
        compose.yaml:4:17: a.example and b.example and c.example are not routed: nothing here reads the label traefik.http.routers.b.rule; publish the port and add the host to its Ingress in yado-overlay.yaml
        compose.yaml:5:17: a.example and b.example are not routed: nothing here reads the label traefik.frontend.rule; publish the port and add the host to its Ingress in yado-overlay.yaml
        compose.yaml:6:17: blog.example.com and www.example.com are not routed: nothing here reads the variable VIRTUAL_HOST; publish the port and add the host to its Ingress in yado-overlay.yaml
        compose.yaml:8:17: f.example is not routed: nothing here reads the label caddy; publish the port and add the host to its Ingress in yado-overlay.yaml"#]].assert_eq(&said.join("\n"));
}

#[test]
fn claims_have_the_size_that_is_written() {
    for (options, size, warned) in [
        ("{size: 10g}", "10Gi", false),
        ("{o: 'size=512m,uid=1000'}", "512Mi", false),
        ("{}", "1Gi", false),
        // Such numbers are gigabytes to some drivers and bytes to nobody.
        ("{size: '20'}", "1Gi", true),
        ("{size: lots}", "1Gi", true),
    ] {
        let text = format!(
            "services: {{a: {{image: a, volumes: ['d:/d']}}}}\nvolumes: {{d: {{driver_opts: {options}}}}}\n"
        );
        let compiled = project(&text);
        let claim = object(&compiled, "PersistentVolumeClaim", "d");
        assert_eq!(claim["spec"]["resources"]["requests"]["storage"], size, "{options}");
        assert_eq!(!compiled.warnings.is_empty(), warned, "{options}: {:?}", warnings(&compiled));
    }
}

#[test]
fn what_is_limited_and_not_reserved_is_left_to_the_cluster() {
    for (fields, resources) in [
        ("mem_limit: 64m, cpus: 0.5", json!({"limits": {"cpu": "500m", "memory": "64Mi"}})),
        (
            "mem_limit: 64m, mem_reservation: 32m",
            json!({"limits": {"memory": "64Mi"}, "requests": {"memory": "32Mi"}}),
        ),
        (
            "mem_limit: 64m, mem_reservation: 128m",
            json!({"limits": {"memory": "64Mi"}, "requests": {"memory": "64Mi"}}),
        ),
        ("cpu_shares: 512", json!({"requests": {"cpu": "500m"}})),
    ] {
        let compiled = project(&format!("services: {{a: {{image: a, {fields}}}}}"));
        assert_eq!(pod(&compiled, "a")["spec"]["containers"][0]["resources"], resources, "{fields}");
    }
}

/// A database is asked for a connection until it takes one, and then no more.
#[test]
fn a_port_is_knocked_on_until_it_opens() {
    for (fields, port) in [
        ("image: mariadb", json!(3306)),
        ("image: a, expose: [5555]", json!(5555)),
        ("image: a, ports: ['80:8000']", json!(8000)),
        ("image: a", Value::Null),
        ("image: mariadb, healthcheck: {disable: true}", Value::Null),
        ("image: mariadb, healthcheck: {test: [CMD, ok]}", Value::Null),
    ] {
        let text = format!("services: {{a: {{{fields}}}}}");
        let (_directory, compiled) = compiled(&[("compose.yaml", &text)]);
        let container = &pod(&compiled, "a")["spec"]["containers"][0];
        assert_eq!(container["startupProbe"]["tcpSocket"]["port"], port, "{fields}");
        assert_eq!(container["readinessProbe"]["tcpSocket"], Value::Null, "{fields}");
        assert_eq!(container["livenessProbe"], Value::Null, "{fields}");
    }
}

/// Docker's `host-gateway` is for the node to fill in.
#[test]
fn host_gateway_is_left_to_the_node() {
    let compiled = project(
        "services: {a: {image: a, extra_hosts: ['host.docker.internal:host-gateway', 'gw=host-gateway', 'x=10.0.0.1']}}",
    );
    let template = pod(&compiled, "a");
    assert_eq!(template["metadata"]["annotations"]["yado.dev/host-gateway"], "host.docker.internal,gw");
    assert_eq!(template["spec"]["hostAliases"], json!([{"ip": "10.0.0.1", "hostnames": ["x"]}]));
    assert_eq!(warnings(&compiled), Vec::<String>::new());
}
