//! What each part of a compose file becomes: rows of a table, each of them also taken through a round trip.

use std::fs;

use expect_test::{Expect, expect};
use serde_json::Value;
use yado_compile::{Compiled, Options, compile, output};

use crate::{round_trip, valid};

/// Compiles files of a directory called `shop`; the first one is the compose file.
pub fn compiled(files: &[(&str, &str)]) -> (tempfile::TempDir, Compiled) {
    let directory = tempfile::tempdir().unwrap();
    let project = directory.path().join("shop");
    for (name, text) in files {
        let path = project.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let options = Options::default();
    let compiled = compile(&project.join(files[0].0), &options).unwrap_or_else(|e| panic!("{e}"));
    (directory, compiled)
}

/// Whether an object is what every project has: its Namespace, and the network that it has without a word of it.
fn is_usual(compiled: &Compiled, object: &yado_compile::Object) -> bool {
    let policy =
        |o: &&yado_compile::Object| o.kind() == "NetworkPolicy" && !o.name().starts_with("published-");
    let plain = compiled.objects.iter().filter(policy).all(|o| o.name() == "network-default");
    match object.kind() {
        "Namespace" => object.name() == compiled.app,
        "NetworkPolicy" => plain,
        _ => false,
    }
}

/// Takes away what containers and names have where nothing is said: they run once, under the usual filter of system
/// calls, and are found as Docker calls them.
fn shorten(annotations: &mut Value, pod: &mut Value) {
    let once = annotations["yado.dev/restart"].as_str().and_then(|text| serde_json::from_str(text).ok());
    let once: std::collections::BTreeMap<String, String> = once.unwrap_or_default();
    if let Some(annotations) = annotations.as_object_mut() {
        if once.values().all(|restart| restart == "no") {
            annotations.shift_remove("yado.dev/restart");
        }
        if let Some(Value::String(names)) = annotations.get_mut("yado.dev/aliases") {
            let written = names.split(',').filter(|n| !(n.starts_with("shop-") && n.ends_with("-1")));
            *names = written.collect::<Vec<_>>().join(",");
            if names.is_empty() {
                annotations.shift_remove("yado.dev/aliases");
            }
        }
    }
    if annotations.as_object().is_some_and(serde_json::Map::is_empty) {
        annotations.take();
    }
    let usual = serde_json::json!({"type": "RuntimeDefault"});
    if let Some(security) = pod["securityContext"].as_object_mut() {
        security.retain(|key, value| key != "seccompProfile" || *value != usual);
        if security.is_empty() {
            pod.as_object_mut().unwrap().shift_remove("securityContext");
        }
    }
}

/// The objects in one line each, without what every object has.
fn lines(compiled: &Compiled) -> String {
    let mut all = String::new();
    for object in compiled.objects.iter().filter(|o| !is_usual(compiled, o)) {
        let mut value = object.value.clone();
        let mut annotations = value["metadata"]["annotations"].take();
        shorten(&mut annotations, &mut Value::Null);
        let noted = if annotations.is_null() { String::new() } else { format!(" {annotations}") };
        all.push_str(&format!("{} {}{noted}", object.kind(), object.name()));
        let spec = &mut value["spec"];
        if let Some(template) = spec.get_mut("template").map(Value::take) {
            let mut more = template["metadata"]["annotations"].clone();
            let mut pod = template["spec"].clone();
            shorten(&mut more, &mut pod);
            for usual in
                ["automountServiceAccountToken", "enableServiceLinks", "terminationGracePeriodSeconds"]
            {
                pod.as_object_mut().unwrap().shift_remove(usual);
            }
            for container in pod["containers"].as_array_mut().into_iter().flatten() {
                container.as_object_mut().unwrap().shift_remove("imagePullPolicy");
            }
            spec.as_object_mut().unwrap().shift_remove("template");
            spec.as_object_mut().unwrap().shift_remove("selector");
            let more = if more.is_null() { String::new() } else { format!(" {more}") };
            all.push_str(&format!(" {spec}\n  pod{more} {pod}\n"));
            continue;
        }
        if let Some(spec) = spec.as_object_mut().filter(|_| object.kind() == "Service") {
            spec.shift_remove("selector");
        }
        for part in ["data", "binaryData"] {
            if !value[part].is_null() {
                all.push_str(&format!(" {}", value[part]));
            }
        }
        if !value["spec"].is_null() {
            all.push_str(&format!(" {}", value["spec"]));
        }
        all.push('\n');
    }
    all
}

pub fn check_files(files: &[(&str, &str)], expect: Expect) {
    let (directory, compiled) = compiled(files);
    assert_eq!(valid::problems(&compiled), Vec::<String>::new());
    let mut text = lines(&compiled);
    for build in &compiled.builds {
        text.push_str(&format!("build {} {:?}\n", build.image, build.method));
    }
    for warning in &compiled.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    let short = directory.path().canonicalize().unwrap().display().to_string();
    expect.assert_eq(&text.replace(&short, "").replace(&directory.path().display().to_string(), ""));
    if let Err(difference) = round_trip(&compiled) {
        panic!("a round trip changes it: {difference}");
    }
}

/// Objects that no compose file of today gives.
fn check_one_way(compose: &str, expect: Expect) {
    let (_directory, compiled) = compiled(&[("compose.yaml", compose)]);
    assert_eq!(valid::problems(&compiled), Vec::<String>::new());
    expect.assert_eq(&lines(&compiled));
}

pub fn check(compose: &str, expect: Expect) {
    check_files(&[("compose.yaml", compose)], expect);
}

#[test]
fn p01_p03_p04_three_tiers_find_each_other_and_only_the_web_is_reached() {
    check(
        "
services:
  web: {image: nginx, ports: ['80:80'], links: ['app:rest']}
  app: {image: me/app, expose: [5555], links: ['dbs:db']}
  dbs: {image: mysql:5.7, environment: {MYSQL_DATABASE: board}}
",
        expect![[r#"
            Service dbs {"ports":[{"name":"tcp-3306","port":3306,"protocol":"TCP","targetPort":3306}]}
            Service db {"ports":[{"name":"tcp-3306","port":3306,"protocol":"TCP","targetPort":3306}]}
            Deployment dbs {"replicas":1}
              pod {"containers":[{"env":[{"name":"MYSQL_DATABASE","value":"board"}],"image":"mysql:5.7","name":"dbs","ports":[{"containerPort":3306,"name":"tcp-3306","protocol":"TCP"}],"startupProbe":{"failureThreshold":2147483647,"periodSeconds":1,"tcpSocket":{"port":3306}}}]}
            Service app {"ports":[{"name":"tcp-5555","port":5555,"protocol":"TCP","targetPort":5555}]}
            Service rest {"ports":[{"name":"tcp-5555","port":5555,"protocol":"TCP","targetPort":5555}]}
            Deployment app {"replicas":1}
              pod {"yado.dev/depends-on":"{\"dbs\":\"started\"}"} {"containers":[{"image":"me/app","name":"app","ports":[{"containerPort":5555,"name":"tcp-5555","protocol":"TCP"}],"startupProbe":{"failureThreshold":2147483647,"periodSeconds":1,"tcpSocket":{"port":5555}}}]}
            Service web {"ports":[{"name":"tcp-80","port":80,"protocol":"TCP","targetPort":80}]}
            Deployment web {"replicas":1}
              pod {"yado.dev/depends-on":"{\"app\":\"started\"}"} {"containers":[{"image":"nginx","name":"web","ports":[{"containerPort":80,"name":"tcp-80","protocol":"TCP"}],"startupProbe":{"failureThreshold":2147483647,"periodSeconds":1,"tcpSocket":{"port":80}}}]}
            Service web-public {"ports":[{"name":"tcp-80","port":80,"protocol":"TCP","targetPort":80}],"type":"LoadBalancer"}
            Ingress web {"rules":[{"host":"shop.localhost","http":{"paths":[{"backend":{"service":{"name":"web","port":{"number":80}}},"path":"/","pathType":"Prefix"}]}},{"host":"web.shop.localhost","http":{"paths":[{"backend":{"service":{"name":"web","port":{"number":80}}},"path":"/","pathType":"Prefix"}]}}]}
        "#]],
    );
}

/// Version 1 tells a container of its links by variables. The ports of an image that is not known are the image's own to
/// say: the node that has it adds what the link lacks.
#[test]
fn p03_links_of_version_1_give_variables() {
    check_one_way(
        "
app: {image: me/app, expose: [5555], links: ['dbs:db', 'store:redis']}
dbs: {image: 'me/dbs:1', environment: {USER: me}}
store: {image: 'redis:3'}
",
        expect![[r#"
            Service dbs {"yado.dev/aliases":"shop_dbs_1"} {"clusterIP":"None","publishNotReadyAddresses":true}
            Service db {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment dbs {"replicas":1}
              pod {"containers":[{"env":[{"name":"USER","value":"me"}],"image":"me/dbs:1","name":"dbs"}]}
            Service store {"yado.dev/aliases":"shop_store_1"} {"ports":[{"name":"tcp-6379","port":6379,"protocol":"TCP","targetPort":6379}]}
            Service redis {"ports":[{"name":"tcp-6379","port":6379,"protocol":"TCP","targetPort":6379}]}
            Deployment store {"replicas":1}
              pod {"containers":[{"image":"redis:3","name":"store","ports":[{"containerPort":6379,"name":"tcp-6379","protocol":"TCP"}],"startupProbe":{"failureThreshold":2147483647,"periodSeconds":1,"tcpSocket":{"port":6379}}}]}
            Service app {"yado.dev/aliases":"shop_app_1"} {"ports":[{"name":"tcp-5555","port":5555,"protocol":"TCP","targetPort":5555}]}
            Deployment app {"replicas":1}
              pod {"yado.dev/depends-on":"{\"dbs\":\"started\",\"store\":\"started\"}","yado.dev/links":"{\"app\":{\"db\":\"me/dbs:1\"}}"} {"containers":[{"env":[{"name":"DB_NAME","value":"/app/db"},{"name":"DB_ENV_USER","value":"me"},{"name":"REDIS_NAME","value":"/app/redis"},{"name":"REDIS_PORT","value":"tcp://redis:6379"},{"name":"REDIS_PORT_6379_TCP","value":"tcp://redis:6379"},{"name":"REDIS_PORT_6379_TCP_ADDR","value":"redis"},{"name":"REDIS_PORT_6379_TCP_PORT","value":"6379"},{"name":"REDIS_PORT_6379_TCP_PROTO","value":"tcp"}],"image":"me/app","name":"app","ports":[{"containerPort":5555,"name":"tcp-5555","protocol":"TCP"}],"startupProbe":{"failureThreshold":2147483647,"periodSeconds":1,"tcpSocket":{"port":5555}}}]}
            NetworkPolicy shared-network-bridge {"podSelector":{"matchLabels":{"app.kubernetes.io/name":"shop","network.yado.dev/bridge":"shared"}},"policyTypes":["Ingress"],"ingress":[{"from":[{"namespaceSelector":{},"podSelector":{"matchExpressions":[{"key":"network.yado.dev/bridge","operator":"Exists"}]}}]}]}
        "#]],
    );
}

#[test]
fn y09_p11_networks_keep_the_middleware_to_itself() {
    check(
        "
services:
  web: {image: nginx, ports: ['80:80'], networks: [dmz, app]}
  app: {image: a, networks: [dmz, app, dbs]}
  dbs: {image: mysql, networks: [dbs]}
networks: {dmz: , app: , dbs: }
",
        expect![[r#"
            Service web {"ports":[{"name":"tcp-80","port":80,"protocol":"TCP","targetPort":80}]}
            Deployment web {"replicas":1}
              pod {"containers":[{"image":"nginx","name":"web","ports":[{"containerPort":80,"name":"tcp-80","protocol":"TCP"}],"startupProbe":{"failureThreshold":2147483647,"periodSeconds":1,"tcpSocket":{"port":80}}}]}
            Service web-public {"ports":[{"name":"tcp-80","port":80,"protocol":"TCP","targetPort":80}],"type":"LoadBalancer"}
            Ingress web {"rules":[{"host":"shop.localhost","http":{"paths":[{"backend":{"service":{"name":"web","port":{"number":80}}},"path":"/","pathType":"Prefix"}]}},{"host":"web.shop.localhost","http":{"paths":[{"backend":{"service":{"name":"web","port":{"number":80}}},"path":"/","pathType":"Prefix"}]}}]}
            Service app {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment app {"replicas":1}
              pod {"containers":[{"image":"a","name":"app"}]}
            Service dbs {"ports":[{"name":"tcp-3306","port":3306,"protocol":"TCP","targetPort":3306}]}
            Deployment dbs {"replicas":1}
              pod {"containers":[{"image":"mysql","name":"dbs","ports":[{"containerPort":3306,"name":"tcp-3306","protocol":"TCP"}],"startupProbe":{"failureThreshold":2147483647,"periodSeconds":1,"tcpSocket":{"port":3306}}}]}
            NetworkPolicy network-app {"podSelector":{"matchLabels":{"app.kubernetes.io/name":"shop","network.yado.dev/shop-app":"true"}},"policyTypes":["Ingress"],"ingress":[{"from":[{"podSelector":{"matchLabels":{"app.kubernetes.io/name":"shop","network.yado.dev/shop-app":"true"}}},{"namespaceSelector":{},"podSelector":{"matchLabels":{"network.yado.dev/shop-app":"shared"}}}]}]}
            NetworkPolicy network-dbs {"podSelector":{"matchLabels":{"app.kubernetes.io/name":"shop","network.yado.dev/shop-dbs":"true"}},"policyTypes":["Ingress"],"ingress":[{"from":[{"podSelector":{"matchLabels":{"app.kubernetes.io/name":"shop","network.yado.dev/shop-dbs":"true"}}},{"namespaceSelector":{},"podSelector":{"matchLabels":{"network.yado.dev/shop-dbs":"shared"}}}]}]}
            NetworkPolicy network-dmz {"podSelector":{"matchLabels":{"app.kubernetes.io/name":"shop","network.yado.dev/shop-dmz":"true"}},"policyTypes":["Ingress"],"ingress":[{"from":[{"podSelector":{"matchLabels":{"app.kubernetes.io/name":"shop","network.yado.dev/shop-dmz":"true"}}},{"namespaceSelector":{},"podSelector":{"matchLabels":{"network.yado.dev/shop-dmz":"shared"}}}]}]}
            NetworkPolicy published-web {"podSelector":{"matchLabels":{"app.kubernetes.io/name":"shop","app.kubernetes.io/component":"web"}},"policyTypes":["Ingress"],"ingress":[{"ports":[{"port":80,"protocol":"TCP"}]}]}
        "#]],
    );
}

#[test]
fn y10_members_of_a_shared_network_have_names_in_it() {
    check(
        "
services:
  akira: {image: a, expose: [8080], networks: {default: , router: {aliases: [api]}}}
  db: {image: redis}
networks: {router: {external: true}}
",
        expect![[r#"
            Service akira {"ports":[{"name":"tcp-8080","port":8080,"protocol":"TCP","targetPort":8080}]}
            Service api {"ports":[{"name":"tcp-8080","port":8080,"protocol":"TCP","targetPort":8080}]}
            Deployment akira {"replicas":1}
              pod {"containers":[{"image":"a","name":"akira","ports":[{"containerPort":8080,"name":"tcp-8080","protocol":"TCP"}],"startupProbe":{"failureThreshold":2147483647,"periodSeconds":1,"tcpSocket":{"port":8080}}}],"dnsConfig":{"searches":["network-router.svc.cluster.local"]}}
            Service db {"ports":[{"name":"tcp-6379","port":6379,"protocol":"TCP","targetPort":6379}]}
            Deployment db {"replicas":1}
              pod {"containers":[{"image":"redis","name":"db","ports":[{"containerPort":6379,"name":"tcp-6379","protocol":"TCP"}],"startupProbe":{"failureThreshold":2147483647,"periodSeconds":1,"tcpSocket":{"port":6379}}}]}
            NetworkPolicy network-default {"podSelector":{"matchLabels":{"app.kubernetes.io/name":"shop","network.yado.dev/shop-default":"true"}},"policyTypes":["Ingress"],"ingress":[{"from":[{"podSelector":{"matchLabels":{"app.kubernetes.io/name":"shop","network.yado.dev/shop-default":"true"}}},{"namespaceSelector":{},"podSelector":{"matchLabels":{"network.yado.dev/shop-default":"shared"}}}]}]}
            NetworkPolicy shared-network-router {"podSelector":{"matchLabels":{"app.kubernetes.io/name":"shop","network.yado.dev/router":"shared"}},"policyTypes":["Ingress"],"ingress":[{"from":[{"namespaceSelector":{},"podSelector":{"matchExpressions":[{"key":"network.yado.dev/router","operator":"Exists"}]}}]}]}
            Namespace network-router
            Service akira {"type":"ExternalName","externalName":"akira.shop.svc.cluster.local"}
            Service api {"type":"ExternalName","externalName":"akira.shop.svc.cluster.local"}
        "#]],
    );
}

/// Docker compose calls a container `PROJECT-SERVICE-1`, version 1 `PROJECT_SERVICE_1`.
#[test]
fn external_links_lead_to_other_projects() {
    check(
        "
services:
  web:
    image: a
    external_links: [crm_db_1, 'crm-db-1:database', shop-job-1, 'legacy:job', mysql, 'my_crm_db_1:x', 'ab_cd_1:worker']
  worker: {image: b, container_name: legacy, external_links: ['other_db_1:database']}
  job: {image: c}
",
        expect![[r#"
            Service web {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment web {"replicas":1}
              pod {"containers":[{"image":"a","name":"web"}]}
            Service worker {"clusterIP":"None","publishNotReadyAddresses":true}
            Service legacy {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment worker {"replicas":1}
              pod {"containers":[{"image":"b","name":"worker"}]}
            Service job {"clusterIP":"None","publishNotReadyAddresses":true}
            Service shop-job-1 {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment job {"replicas":1}
              pod {"containers":[{"image":"c","name":"job"}]}
            Service crm-db-1 {"yado.dev/aliases":"crm_db_1"} {"type":"ExternalName","externalName":"db.crm.svc.cluster.local"}
            Service database {"type":"ExternalName","externalName":"db.crm.svc.cluster.local"}
            warning: /shop/compose.yaml:5:65: worker does not get the name job, which belongs to job (at /shop/compose.yaml:7:3)
            warning: /shop/compose.yaml:5:22: crm_db_1 is taken to be service db of project crm, which has to be in an external network of both
            warning: /shop/compose.yaml:5:32: crm-db-1 is taken to be service db of project crm, which has to be in an external network of both
            warning: /shop/compose.yaml:5:79: external_links has no effect: nothing shows which project mysql is of; reach it as SERVICE.PROJECT, or put both into one external network
            warning: /shop/compose.yaml:5:86: external_links has no effect: nothing shows which project my_crm_db_1 is of; reach it as SERVICE.PROJECT, or put both into one external network
            warning: /shop/compose.yaml:5:103: ab_cd_1 is not found as worker, which is something else here
            warning: /shop/compose.yaml:6:63: other_db_1 is not found as database, which is something else here
        "#]],
    );
}

#[test]
fn y13_placement_mode_mounts_and_entrypoint() {
    check(
        "
services:
  ui:
    image: ui
    entrypoint: [/ui, -v]
    command: serve
    volumes: [/srv/ui:/data:ro]
    deploy:
      replicas: 3
      placement: {constraints: [node.role == manager, node.labels.disk != hdd], preferences: [{spread: node.labels.zone}], max_replicas_per_node: 1}
      update_config: {parallelism: 2, order: stop-first, delay: 10s}
      resources: {limits: {cpus: '0.5', memory: 50M}, reservations: {memory: 20M}}
      labels: {tier: front}
  agent: {image: agent, deploy: {mode: global}}
",
        expect![[r#"
            Service ui {"yado.dev/aliases":"shop-ui-2,shop-ui-3"} {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment ui {"tier":"front"} {"minReadySeconds":10,"replicas":3,"strategy":{"rollingUpdate":{"maxSurge":0,"maxUnavailable":2},"type":"RollingUpdate"}}
              pod {"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"node-role.kubernetes.io/control-plane","operator":"Exists"},{"key":"disk","operator":"NotIn","values":["hdd"]}]}]}},"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"labelSelector":{"matchLabels":{"app.kubernetes.io/component":"ui"}},"topologyKey":"kubernetes.io/hostname"}]}},"containers":[{"args":["serve"],"command":["/ui","-v"],"image":"ui","name":"ui","resources":{"limits":{"cpu":"500m","memory":"50Mi"},"requests":{"memory":"20Mi"}},"volumeMounts":[{"mountPath":"/data","name":"data","readOnly":true}]}],"topologySpreadConstraints":[{"labelSelector":{"matchLabels":{"app.kubernetes.io/component":"ui"}},"maxSkew":1,"topologyKey":"zone","whenUnsatisfiable":"ScheduleAnyway"}],"volumes":[{"hostPath":{"path":"/srv/ui","type":"DirectoryOrCreate"},"name":"data"}]}
            Service agent {"clusterIP":"None","publishNotReadyAddresses":true}
            DaemonSet agent {}
              pod {"containers":[{"image":"agent","name":"agent"}]}
        "#]],
    );
}

#[test]
fn names_that_are_no_labels_are_aliases() {
    check(
        "
services:
  my_db: {image: redis, container_name: main.db, networks: {default: {aliases: [cache, the_cache]}}}
  a: {image: a, networks: {default: {aliases: [both]}}}
  b: {image: b, hostname: b1, networks: {default: {aliases: [both]}}}
",
        expect![[r#"
            Service my-db {"yado.dev/aliases":"my_db,main.db,the_cache"} {"ports":[{"name":"tcp-6379","port":6379,"protocol":"TCP","targetPort":6379}]}
            Service cache {"ports":[{"name":"tcp-6379","port":6379,"protocol":"TCP","targetPort":6379}]}
            Deployment my-db {"replicas":1}
              pod {"containers":[{"image":"redis","name":"my-db","ports":[{"containerPort":6379,"name":"tcp-6379","protocol":"TCP"}],"startupProbe":{"failureThreshold":2147483647,"periodSeconds":1,"tcpSocket":{"port":6379}}}]}
            Service a {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment a {"replicas":1}
              pod {"containers":[{"image":"a","name":"a"}]}
            Service b {"clusterIP":"None","publishNotReadyAddresses":true}
            Service b1 {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment b {"replicas":1}
              pod {"containers":[{"image":"b","name":"b"}],"hostname":"b1"}
            Service both {"clusterIP":"None","publishNotReadyAddresses":true}
        "#]],
    );
}

#[test]
fn ports_inside_and_outside() {
    check(
        "
services:
  web:
    image: x
    ports: ['8080:80', '127.0.0.1:9000:9000', '53:53/udp', '7000', '[::1]:81:81']
    environment: {UPSTREAM: 'http://web:9090/x'}
  web-public: {image: y}
  host: {image: z, network_mode: host}
",
        expect![[r#"
            Service web {"ports":[{"name":"tcp-80","port":80,"protocol":"TCP","targetPort":80},{"name":"tcp-9000","port":9000,"protocol":"TCP","targetPort":9000},{"name":"udp-53","port":53,"protocol":"UDP","targetPort":53},{"name":"tcp-7000","port":7000,"protocol":"TCP","targetPort":7000},{"name":"tcp-81","port":81,"protocol":"TCP","targetPort":81},{"name":"tcp-9090","port":9090,"protocol":"TCP","targetPort":9090}]}
            Deployment web {"replicas":1}
              pod {"containers":[{"env":[{"name":"UPSTREAM","value":"http://web:9090/x"}],"image":"x","name":"web","ports":[{"containerPort":80,"name":"tcp-80","protocol":"TCP"},{"containerPort":9000,"name":"tcp-9000","protocol":"TCP"},{"containerPort":53,"name":"udp-53","protocol":"UDP"},{"containerPort":7000,"name":"tcp-7000","protocol":"TCP"},{"containerPort":81,"name":"tcp-81","protocol":"TCP"},{"containerPort":9090,"name":"tcp-9090","protocol":"TCP"}],"startupProbe":{"failureThreshold":2147483647,"periodSeconds":1,"tcpSocket":{"port":80}}}]}
            Service web-2-local {"allocateLoadBalancerNodePorts":false,"loadBalancerSourceRanges":["127.0.0.0/8"],"ports":[{"name":"tcp-9000","port":9000,"protocol":"TCP","targetPort":9000},{"name":"tcp-81","port":81,"protocol":"TCP","targetPort":81}],"type":"LoadBalancer"}
            Service web-2-ports {"ports":[{"name":"tcp-7000","port":7000,"protocol":"TCP","targetPort":7000}],"type":"NodePort"}
            Service web-2-public {"ports":[{"name":"tcp-8080","port":8080,"protocol":"TCP","targetPort":80},{"name":"udp-53","port":53,"protocol":"UDP","targetPort":53}],"type":"LoadBalancer"}
            Ingress web {"rules":[{"host":"shop.localhost","http":{"paths":[{"backend":{"service":{"name":"web","port":{"number":80}}},"path":"/","pathType":"Prefix"}]}},{"host":"web.shop.localhost","http":{"paths":[{"backend":{"service":{"name":"web","port":{"number":80}}},"path":"/","pathType":"Prefix"}]}}]}
            Service web-public {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment web-public {"replicas":1}
              pod {"containers":[{"image":"y","name":"web-public"}]}
            Service host {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment host {"replicas":1,"strategy":{"type":"Recreate"}}
              pod {"containers":[{"image":"z","name":"host"}],"dnsPolicy":"ClusterFirstWithHostNet","hostNetwork":true}
        "#]],
    );
}

#[test]
fn volumes_of_every_kind() {
    check_files(
        &[
            (
                "compose.yaml",
                "
services:
  db:
    image: postgres
    volumes:
    - db_data:/var/lib/postgresql/data
    - ./conf/pg.conf:/etc/pg.conf:ro
    - /var/lib/postgresql/tmp
    - {type: tmpfs, target: /cache, tmpfs: {size: 64m}}
    - {type: volume, source: shared, target: /s, volume: {subpath: a/b}}
    - {type: bind, source: /srv/x, target: /x, bind: {propagation: rslave, create_host_path: false}}
    tmpfs: /run:size=1m
    shm_size: 256m
  backup: {image: b, volumes_from: ['db:ro'], volumes: ['nfs:/n', 'old:/o', 'ram:/r']}
volumes:
  db_data: {driver_opts: {size: 10g}, labels: {keep: 'yes'}}
  shared: {driver: rexray}
  nfs: {driver_opts: {type: nfs, o: 'addr=10.0.0.1,rw', device: ':/exports'}}
  old: {external: true, name: legacy_data}
  ram: {driver_opts: {type: tmpfs, device: tmpfs, o: size=10m}}
  unused: {}
",
            ),
            ("conf/pg.conf", "x"),
        ],
        expect![[r#"
            PersistentVolumeClaim db-data {"keep":"yes","yado.dev/copy-up":"true","yado.dev/docker-volume":"shop_db_data"} {"accessModes":["ReadWriteMany"],"resources":{"requests":{"storage":"10Gi"}}}
            PersistentVolumeClaim db-var-lib-postgresql-tmp {"yado.dev/copy-up":"true"} {"accessModes":["ReadWriteMany"],"resources":{"requests":{"storage":"1Gi"}}}
            PersistentVolumeClaim shared {"yado.dev/copy-up":"true"} {"accessModes":["ReadWriteMany"],"resources":{"requests":{"storage":"1Gi"}}}
            Service db {"ports":[{"name":"tcp-5432","port":5432,"protocol":"TCP","targetPort":5432}]}
            Deployment db {"replicas":1,"strategy":{"type":"Recreate"}}
              pod {"containers":[{"image":"postgres","name":"db","ports":[{"containerPort":5432,"name":"tcp-5432","protocol":"TCP"}],"startupProbe":{"failureThreshold":2147483647,"periodSeconds":1,"tcpSocket":{"port":5432}},"volumeMounts":[{"mountPath":"/dev/shm","name":"shm"},{"mountPath":"/var/lib/postgresql/data","name":"db-data"},{"mountPath":"/etc/pg.conf","name":"pg-conf","readOnly":true},{"mountPath":"/var/lib/postgresql/tmp","name":"db-var-lib-postgresql-tmp"},{"mountPath":"/cache","name":"cache"},{"mountPath":"/s","name":"shared","subPath":"a/b"},{"mountPath":"/x","mountPropagation":"HostToContainer","name":"x"},{"mountPath":"/run","name":"run"}]}],"volumes":[{"emptyDir":{"medium":"Memory","sizeLimit":"256Mi"},"name":"shm"},{"name":"db-data","persistentVolumeClaim":{"claimName":"db-data"}},{"hostPath":{"path":"/shop/conf/pg.conf","type":"File"},"name":"pg-conf"},{"name":"db-var-lib-postgresql-tmp","persistentVolumeClaim":{"claimName":"db-var-lib-postgresql-tmp"}},{"emptyDir":{"medium":"Memory","sizeLimit":"64Mi"},"name":"cache"},{"name":"shared","persistentVolumeClaim":{"claimName":"shared"}},{"hostPath":{"path":"/srv/x","type":"Directory"},"name":"x"},{"emptyDir":{"medium":"Memory","sizeLimit":"1Mi"},"name":"run"}]}
            Service backup {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment backup {"replicas":1,"strategy":{"type":"Recreate"}}
              pod {"yado.dev/depends-on":"{\"db\":\"started\"}","yado.dev/docker-volumes":"{\"legacy-data\":\"legacy_data\"}"} {"containers":[{"image":"b","name":"backup","volumeMounts":[{"mountPath":"/var/lib/postgresql/data","name":"db-data","readOnly":true},{"mountPath":"/etc/pg.conf","name":"pg-conf","readOnly":true},{"mountPath":"/var/lib/postgresql/tmp","name":"db-var-lib-postgresql-tmp","readOnly":true},{"mountPath":"/cache","name":"cache","readOnly":true},{"mountPath":"/s","name":"shared","readOnly":true,"subPath":"a/b"},{"mountPath":"/x","mountPropagation":"HostToContainer","name":"x","readOnly":true},{"mountPath":"/n","name":"nfs"},{"mountPath":"/o","name":"legacy-data"},{"mountPath":"/r","name":"r"}]}],"volumes":[{"name":"db-data","persistentVolumeClaim":{"claimName":"db-data"}},{"hostPath":{"path":"/shop/conf/pg.conf","type":"File"},"name":"pg-conf"},{"name":"db-var-lib-postgresql-tmp","persistentVolumeClaim":{"claimName":"db-var-lib-postgresql-tmp"}},{"emptyDir":{"medium":"Memory","sizeLimit":"64Mi"},"name":"cache"},{"name":"shared","persistentVolumeClaim":{"claimName":"shared"}},{"hostPath":{"path":"/srv/x","type":"Directory"},"name":"x"},{"name":"nfs","nfs":{"path":"/exports","server":"10.0.0.1"}},{"name":"legacy-data","persistentVolumeClaim":{"claimName":"legacy-data"}},{"emptyDir":{"medium":"Memory","sizeLimit":"10Mi"},"name":"r"}]}
            warning: /shop/compose.yaml:17:3: driver rexray of volume shared has no effect: the cluster's storage class makes it
            warning: /shop/compose.yaml:19:3: volume old is external: a PersistentVolumeClaim legacy-data has to be in the namespace
        "#]],
    );
}

#[test]
fn configs_and_secrets() {
    check_files(
        &[
            (
                "compose.yaml",
                "
services:
  web:
    image: nginx
    secrets: [token, {source: cert, target: /etc/ssl/cert.pem, mode: 0400}, {source: missing, target: other}]
    configs: [site, {source: inline, target: /etc/inline.conf}]
secrets:
  token: {file: ./token.txt}
  cert: {external: true, name: company_cert}
  missing: {file: ./missing.txt}
  unused: {file: ./token.txt}
configs:
  site: {file: ./site.conf}
  inline: {content: 'a=$$b'}
",
            ),
            ("token.txt", "s3cret"),
            ("site.conf", "server {}\n"),
        ],
        expect![[r#"
            ConfigMap site {"site":"server {}\n"}
            ConfigMap inline {"inline":"a=$b"}
            Secret token {"token":"czNjcmV0"}
            Service web {"ports":[{"name":"tcp-80","port":80,"protocol":"TCP","targetPort":80}]}
            Deployment web {"replicas":1}
              pod {"containers":[{"image":"nginx","name":"web","ports":[{"containerPort":80,"name":"tcp-80","protocol":"TCP"}],"startupProbe":{"failureThreshold":2147483647,"periodSeconds":1,"tcpSocket":{"port":80}},"volumeMounts":[{"mountPath":"/etc/ssl/cert.pem","name":"secret-cert","readOnly":true,"subPath":"cert"},{"mountPath":"/run/secrets","name":"secrets","readOnly":true},{"mountPath":"/site","name":"config-site","readOnly":true,"subPath":"site"},{"mountPath":"/etc/inline.conf","name":"config-inline","readOnly":true,"subPath":"inline"}]}],"volumes":[{"name":"secret-cert","secret":{"items":[{"key":"cert","mode":256,"path":"cert"}],"secretName":"company-cert"}},{"name":"secrets","projected":{"defaultMode":292,"sources":[{"secret":{"items":[{"key":"token","path":"token"}],"name":"token"}},{"secret":{"items":[{"key":"missing","path":"other"}],"name":"missing"}}]}},{"configMap":{"items":[{"key":"site","path":"site"}],"name":"site"},"name":"config-site"},{"configMap":{"items":[{"key":"inline","path":"inline"}],"name":"inline"},"name":"config-inline"}]}
            warning: /shop/compose.yaml:9:3: secret cert is external: a Secret company-cert with the key cert has to be in the namespace
            warning: /shop/compose.yaml:10:3: secret missing is not made, as /shop/missing.txt cannot be read (No such file or directory (os error 2)): write that file, or make the Secret missing yourself
        "#]],
    );
}

#[test]
fn conditions_restarts_and_jobs() {
    check(
        "
services:
  web: {image: w, depends_on: {db: {condition: service_healthy}, migrate: {condition: service_completed_successfully}, off: {condition: service_started}}}
  db:
    image: postgres
    healthcheck: {test: 'pg_isready -U $$USER', interval: 10s, timeout: 3s, retries: 5, start_period: 30s}
  migrate: {image: w, command: [migrate], restart: on-failure:3}
  seed: {image: w}
  once: {image: w, restart: 'no', depends_on: {seed: {condition: service_completed_successfully}}}
  job: {image: w, deploy: {mode: replicated-job, restart_policy: {max_attempts: 2}}}
  loop: {image: w, restart: always}
  fails: {image: w, restart: on-failure}
  tries: {image: w, restart: 'on-failure:3'}
  stays: {image: w, restart: always}
  swarm: {image: w, deploy: {restart_policy: {condition: any, max_attempts: 4}}}
  both: {image: w, restart: unless-stopped, deploy: {restart_policy: {condition: none}}}
  all: {image: w, deploy: {mode: global, restart_policy: {condition: on-failure}}}
  last: {image: w, depends_on: {loop: {condition: service_completed_successfully}}}
  off: {image: w, scale: 0}
",
        expect![[r#"
            Service db {"ports":[{"name":"tcp-5432","port":5432,"protocol":"TCP","targetPort":5432}]}
            Deployment db {"replicas":1}
              pod {"containers":[{"image":"postgres","name":"db","ports":[{"containerPort":5432,"name":"tcp-5432","protocol":"TCP"}],"readinessProbe":{"exec":{"command":["/bin/sh","-c","pg_isready -U $USER"]},"failureThreshold":5,"periodSeconds":10,"timeoutSeconds":3},"startupProbe":{"exec":{"command":["/bin/sh","-c","pg_isready -U $USER"]},"failureThreshold":16,"periodSeconds":5,"timeoutSeconds":3}}]}
            Service migrate {"clusterIP":"None","publishNotReadyAddresses":true}
            Job migrate {"backoffLimit":3}
              pod {"containers":[{"args":["migrate"],"image":"w","name":"migrate"}],"restartPolicy":"OnFailure"}
            Service off {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment off {"replicas":0}
              pod {"containers":[{"image":"w","name":"off"}]}
            Service web {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment web {"replicas":1}
              pod {"yado.dev/depends-on":"{\"db\":\"healthy\",\"migrate\":\"completed\"}"} {"containers":[{"image":"w","name":"web"}]}
            Service seed {"clusterIP":"None","publishNotReadyAddresses":true}
            Job seed {"backoffLimit":0}
              pod {"containers":[{"image":"w","name":"seed"}],"restartPolicy":"Never"}
            Service once {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment once {"replicas":1}
              pod {"yado.dev/depends-on":"{\"seed\":\"completed\"}"} {"containers":[{"image":"w","name":"once"}]}
            Service job {"clusterIP":"None","publishNotReadyAddresses":true}
            Job job {"backoffLimit":2}
              pod {"containers":[{"image":"w","name":"job"}],"restartPolicy":"OnFailure"}
            Service loop {"clusterIP":"None","publishNotReadyAddresses":true}
            Job loop {"backoffLimit":2147483647}
              pod {"containers":[{"image":"w","name":"loop"}],"restartPolicy":"OnFailure"}
            Service fails {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment fails {"replicas":1}
              pod {"yado.dev/restart":"{\"fails\":\"on-failure\"}"} {"containers":[{"image":"w","name":"fails"}]}
            Service tries {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment tries {"replicas":1}
              pod {"yado.dev/restart":"{\"tries\":\"on-failure:3\"}"} {"containers":[{"image":"w","name":"tries"}]}
            Service stays {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment stays {"replicas":1}
              pod {"containers":[{"image":"w","name":"stays"}]}
            Service swarm {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment swarm {"replicas":1}
              pod {"yado.dev/restart":"{\"swarm\":\"always:4\"}"} {"containers":[{"image":"w","name":"swarm"}]}
            Service both {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment both {"replicas":1}
              pod {"containers":[{"image":"w","name":"both"}]}
            Service all {"clusterIP":"None","publishNotReadyAddresses":true}
            DaemonSet all {}
              pod {"yado.dev/restart":"{\"all\":\"on-failure\"}"} {"containers":[{"image":"w","name":"all"}]}
            Service last {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment last {"replicas":1}
              pod {"yado.dev/depends-on":"{\"loop\":\"completed\"}"} {"containers":[{"image":"w","name":"last"}]}
            warning: /shop/compose.yaml:11:20: loop is started again only when it fails, as last waits for its end
            warning: /shop/compose.yaml:16:54: restart_policy has no effect beside restart: write only one
        "#]],
    );
}

#[test]
fn a_network_that_is_another_services_is_the_same_pod() {
    check(
        "
services:
  vpn: {image: gluetun, cap_add: [NET_ADMIN], ports: ['8080:8080'], devices: [/dev/net/tun]}
  torrent: {image: qb, network_mode: 'service:vpn', depends_on: [vpn, db], volumes: ['dl:/downloads']}
  db: {image: redis}
volumes: {dl: }
",
        expect![[r#"
            PersistentVolumeClaim dl {"yado.dev/copy-up":"true"} {"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}
            Service vpn {"ports":[{"name":"tcp-8080","port":8080,"protocol":"TCP","targetPort":8080}]}
            Deployment vpn {"replicas":1,"strategy":{"type":"Recreate"}}
              pod {"yado.dev/depends-on":"{\"db\":\"started\"}"} {"containers":[{"image":"gluetun","name":"vpn","ports":[{"containerPort":8080,"name":"tcp-8080","protocol":"TCP"}],"securityContext":{"capabilities":{"add":["NET_ADMIN"]}},"startupProbe":{"failureThreshold":2147483647,"periodSeconds":1,"tcpSocket":{"port":8080}},"volumeMounts":[{"mountPath":"/dev/net/tun","name":"tun"}]},{"image":"qb","name":"torrent","volumeMounts":[{"mountPath":"/downloads","name":"dl"}]}],"volumes":[{"hostPath":{"path":"/dev/net/tun"},"name":"tun"},{"name":"dl","persistentVolumeClaim":{"claimName":"dl"}}]}
            Service vpn-public {"ports":[{"name":"tcp-8080","port":8080,"protocol":"TCP","targetPort":8080}],"type":"LoadBalancer"}
            Ingress vpn {"rules":[{"host":"shop.localhost","http":{"paths":[{"backend":{"service":{"name":"vpn","port":{"number":8080}}},"path":"/","pathType":"Prefix"}]}},{"host":"vpn.shop.localhost","http":{"paths":[{"backend":{"service":{"name":"vpn","port":{"number":8080}}},"path":"/","pathType":"Prefix"}]}}]}
            Service db {"ports":[{"name":"tcp-6379","port":6379,"protocol":"TCP","targetPort":6379}]}
            Deployment db {"replicas":1}
              pod {"containers":[{"image":"redis","name":"db","ports":[{"containerPort":6379,"name":"tcp-6379","protocol":"TCP"}],"startupProbe":{"failureThreshold":2147483647,"periodSeconds":1,"tcpSocket":{"port":6379}}}]}
            warning: /shop/compose.yaml:3:69: device /dev/net/tun is mounted from the node; a cluster that guards its devices also needs privileged: true
        "#]],
    );
}

#[test]
fn what_docker_says_of_a_container() {
    check(
        "
services:
  x:
    image: x
    entrypoint: sh -c
    command: ['echo $$(HOME) $$HOME']
    environment: {HOME: /h, RAW: '$$(HOME) a$$$$b', EMPTY: ''}
    user: node
    working_dir: /w
    tty: true
    stdin_open: true
    privileged: true
    read_only: true
    cap_drop: [ALL]
    security_opt: ['no-new-privileges:true', 'seccomp:unconfined', 'label:disable']
    sysctls: {net.core.somaxconn: 1024}
    ulimits: {nproc: 65535, nofile: {soft: 1, hard: 2}}
    extra_hosts: ['a=10.0.0.1', 'b:10.0.0.1', 'host.docker.internal:host-gateway']
    dns: 1.1.1.1
    dns_search: example.org
    dns_opt: ['ndots:2']
    hostname: h.example.org
    stop_signal: QUIT
    stop_grace_period: 1m30s
    pid: host
    ipc: host
    group_add: [100, audio]
    labels: {com.example.a: b, 'odd key': c}
    platform: linux/arm64
    runtime: kata
    gpus: [{count: 2}]
    init: true
    mem_limit: 1g
    cpus: 1.5
    cpu_shares: 512
    post_start: [{command: [a]}]
    pre_stop: [{command: [b]}]
    logging: {driver: syslog}
    mac_address: 02:42:ac:11:65:43
    oom_score_adj: 5
",
        expect![[r#"
            Service x {"yado.dev/aliases":"h.example.org"} {"clusterIP":"None","publishNotReadyAddresses":true}
            Service h {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment x {"replicas":1}
              pod {"com.example.a":"b","yado.dev/host-gateway":"host.docker.internal","yado.dev/labels":"{\"odd key\":\"c\"}","yado.dev/ulimits":"{\"nofile\":{\"soft\":1,\"hard\":2},\"nproc\":{\"soft\":65535,\"hard\":65535}}","yado.dev/users":"{\"x\":\"node\"}"} {"containers":[{"args":["echo $$(HOME) $HOME"],"command":["sh","-c"],"env":[{"name":"HOME","value":"/h"},{"name":"RAW","value":"$$(HOME) a$$$$b"},{"name":"EMPTY","value":""}],"image":"x","lifecycle":{"postStart":{"exec":{"command":["a"]}},"preStop":{"exec":{"command":["b"]}},"stopSignal":"SIGQUIT"},"name":"x","resources":{"limits":{"cpu":"1500m","memory":"1Gi","nvidia.com/gpu":"2"},"requests":{"cpu":"500m"}},"securityContext":{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]},"privileged":true,"readOnlyRootFilesystem":true,"seLinuxOptions":{"type":"spc_t"},"seccompProfile":{"type":"Unconfined"}},"stdin":true,"tty":true,"workingDir":"/w"}],"dnsConfig":{"nameservers":["1.1.1.1"],"options":[{"name":"ndots","value":"2"}],"searches":["example.org"]},"hostAliases":[{"hostnames":["a","b"],"ip":"10.0.0.1"}],"hostIPC":true,"hostPID":true,"hostname":"h","nodeSelector":{"kubernetes.io/arch":"arm64","kubernetes.io/os":"linux"},"os":{"name":"linux"},"runtimeClassName":"kata","securityContext":{"supplementalGroups":[100],"sysctls":[{"name":"net.core.somaxconn","value":"1024"}]}}
            warning: /shop/compose.yaml:27:5: group audio has no effect, as a Pod names further groups by number
            warning: /shop/compose.yaml:16:5: net.core.somaxconn is set only by nodes that allow it, as its effects on other Pods are not bounded: start the engine with --allowed-unsafe-sysctls net.core.somaxconn (yado dev does)
            warning: /shop/compose.yaml:22:5: hostname h.example.org is h, as host names of Pods are one DNS label
            warning: /shop/compose.yaml:38:5: logging has no effect: a Pod's output is kept by its node, for yado logs
            warning: /shop/compose.yaml:39:5: mac_address has no effect: a Pod's address is assigned by the cluster
            warning: /shop/compose.yaml:40:5: oom_score_adj has no effect: it is derived from requests and limits
        "#]],
    );
}

#[test]
fn images_are_built_once_and_asked_for_by_name() {
    check_files(
        &[
            (
                "compose.yaml",
                "
services:
  web: {build: {context: ., target: prod, args: {A: b}, cache_from: [x]}, ports: ['3000:3000']}
  worker: {build: ., image: me/worker}
  plain: {build: ./plain}
",
            ),
            ("Dockerfile", "FROM a\nEXPOSE 3000 9000\n"),
            ("plain/Procfile", "web: run\n"),
        ],
        expect![[r#"
            Service web {"ports":[{"name":"tcp-3000","port":3000,"protocol":"TCP","targetPort":3000},{"name":"tcp-9000","port":9000,"protocol":"TCP","targetPort":9000}]}
            Deployment web {"replicas":1}
              pod {"containers":[{"image":"yado.local/shop-web:latest","name":"web","ports":[{"containerPort":3000,"name":"tcp-3000","protocol":"TCP"},{"containerPort":9000,"name":"tcp-9000","protocol":"TCP"}],"startupProbe":{"failureThreshold":2147483647,"periodSeconds":1,"tcpSocket":{"port":3000}}}]}
            Service web-public {"ports":[{"name":"tcp-3000","port":3000,"protocol":"TCP","targetPort":3000}],"type":"LoadBalancer"}
            Ingress web {"rules":[{"host":"shop.localhost","http":{"paths":[{"backend":{"service":{"name":"web","port":{"number":3000}}},"path":"/","pathType":"Prefix"}]}},{"host":"web.shop.localhost","http":{"paths":[{"backend":{"service":{"name":"web","port":{"number":3000}}},"path":"/","pathType":"Prefix"}]}}]}
            Service worker {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment worker {"replicas":1}
              pod {"containers":[{"image":"me/worker","name":"worker"}]}
            Service plain {"clusterIP":"None","publishNotReadyAddresses":true}
            Deployment plain {"replicas":1}
              pod {"containers":[{"command":["/bin/sh","-c","exec run"],"env":[{"name":"PORT","value":"8080"}],"image":"yado.local/shop-plain:latest","name":"plain"}]}
            build yado.local/shop-web:latest Dockerfile { file: None, inline: None, target: Some("prod"), args: {"A": "b"} }
            build me/worker Dockerfile { file: None, inline: None, target: None, args: {} }
            build yado.local/shop-plain:latest Source { language: None, processes: [] }
            warning: /shop/compose.yaml:3:9: of build, cache_from has no effect here
            warning: /shop/compose.yaml:3:9: of build, target, args has no effect here, as Dockerfiles are not built yet: who builds yado.local/shop-web:latest elsewhere has to build with it
        "#]],
    );
}

#[test]
fn one_name_for_two_services_is_a_mistake_where_it_is_a_link() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("compose.yaml");
    let text = "services:\n  a: {image: a, links: ['c:db']}\n  b: {image: b, links: ['d:db']}\n  c: {image: c}\n  d: {image: d}\n";
    fs::write(&path, text).unwrap();
    let mistakes = compile(&path, &Options::default()).unwrap_err().to_string();
    expect!["compose.yaml:3:25: db cannot be both d and c (at compose.yaml:2:25): names apply to the whole project, so choose another for one"].assert_eq(&mistakes.replace(&format!("{}/", directory.path().display()), ""));
}

/// The same text wherever the project lies, and in whatever order the file system lists it.
#[test]
fn the_same_project_gives_the_same_bytes() {
    let files: Vec<(String, String)> = (0..50)
        .map(|n| (format!("env/{n}.env"), format!("N={n}\n")))
        .chain([("compose.yaml".to_string(), {
            let mut text = String::from("name: shop\nservices:\n");
            for n in 0..50 {
                text.push_str(&format!(
                    "  s{n}:\n    image: i{n}\n    env_file: env/{n}.env\n    ports: ['{}:80']\n    volumes: [v{}:/v]\n",
                    8000 + n,
                    n % 7
                ));
            }
            text.push_str("volumes:\n");
            (0..7).for_each(|n| text.push_str(&format!("  v{n}:\n")));
            text
        })])
        .collect();
    let texts: Vec<_> = [false, true]
        .into_iter()
        .map(|backwards| {
            let directory = tempfile::tempdir().unwrap();
            let mut files: Vec<&(String, String)> = files.iter().collect();
            if backwards {
                files.reverse();
            }
            for (name, text) in files {
                let path = directory.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            let compiled = compile(&directory.path().join("compose.yaml"), &Options::default()).unwrap();
            let composed = output::compose::compose(&compiled).files;
            (output::files(&compiled), composed)
        })
        .collect();
    assert_eq!(texts[0], texts[1]);
}

/// Rows D06 and K03: edits outlive every change of the description, also those of a load balancer.
#[test]
fn d06_k03_the_users_edits_outlive_generating_again() {
    let overlay = "kind: Service\nmetadata:\n  name: web-public\n  annotations: {example.com/idle-timeout: '60'}\nspec:\n  externalTrafficPolicy: Local\n---\nkind: Deployment\nmetadata: {name: gone}\n";
    let first = "services:\n  web: {image: a, ports: ['80:80']}\n";
    let (directory, before) = compiled(&[("compose.yaml", first), (output::overlay::FILE, overlay)]);
    let project = directory.path().join("shop");
    let written = |compiled: &Compiled| -> String {
        output::write(compiled, &project.join(output::DEFAULT_DIRECTORY)).unwrap();
        let service = compiled.objects.iter().find(|o| o.name() == "web-public").unwrap();
        output::yaml(&service.value["metadata"]["annotations"])
            + &output::yaml(&service.value["spec"]["externalTrafficPolicy"])
    };
    let text = "example.com/idle-timeout: '60'\nLocal\n";
    assert_eq!(written(&before), text);
    fs::write(project.join("compose.yaml"), first.replace("image: a", "image: b")).unwrap();
    let after = compile(&project.join("compose.yaml"), &Options::default()).unwrap();
    assert_eq!(written(&after), text);
    assert_eq!(fs::read_to_string(project.join(output::overlay::FILE)).unwrap(), overlay);
    let warnings: Vec<String> = after
        .warnings
        .iter()
        .map(|w| w.to_string().replace(&format!("{}/", project.display()), ""))
        .collect();
    expect!["yado-overlay.yaml:8:1: Deployment gone is not there, so this changes nothing: there are web"]
        .assert_eq(&warnings.join("\n"));
}

/// Other descriptions as compose files: what compose cannot say draws a warning.
#[test]
fn any_description_becomes_a_compose_file() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      initContainers: [{name: init, image: busybox, command: [sh, -c, 'date > /d/x'], volumeMounts: [{name: d, mountPath: /d}]}]
      containers:
      - name: web
        image: nginx
        env: [{name: A, value: '1'}, {name: B, value: 'x$(A)'}, {name: C, valueFrom: {configMapKeyRef: {name: m, key: k}}}, {name: D, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        ports: [{containerPort: 80, name: http}]
        readinessProbe: {httpGet: {path: /ok, port: http}}
        livenessProbe: {tcpSocket: {port: 80}}
        volumeMounts: [{name: d, mountPath: /d}]
      - {name: side, image: side}
      volumes: [{name: d, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: www}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 8080, targetPort: http, nodePort: 30080}]}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: m}, data: {k: v$1}}
---
{apiVersion: batch/v1, kind: CronJob, metadata: {name: nightly}, spec: {schedule: '0 0 * * *', jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: a}]}}}}}}
";
    let path = directory.path().join("all.yaml");
    fs::write(&path, manifest).unwrap();
    let composed = output::compose::compose(&compile(&path, &Options::default()).unwrap());
    let mut text = String::from_utf8(composed.files[0].1.clone()).unwrap();
    composed.warnings.iter().for_each(|w| text.push_str(&format!("warning: {w}\n")));
    expect![[r#"
        # Generated by yado compile. The next run writes this file anew.
        name: all
        services:
          web-init:
            image: busybox
            entrypoint:
            - sh
            - -c
            - date > /d/x
            volumes:
            - web-d:/d
            restart: on-failure
          web:
            image: nginx
            environment:
              A: '1'
              B: x1
              C: v$$1
            healthcheck:
              test:
              - CMD-SHELL
              - curl -fsko /dev/null http://127.0.0.1:80/ok || wget -qO /dev/null http://127.0.0.1:80/ok
              interval: '10s'
              timeout: '1s'
              retries: 3
            volumes:
            - web-d:/d
            deploy:
              replicas: 2
            ports:
            - '30080:80'
            networks:
              default:
                aliases:
                - www
            restart: unless-stopped
            stop_grace_period: '30s'
            depends_on:
              web-init:
                condition: service_completed_successfully
          web-side:
            image: side
            restart: unless-stopped
            network_mode: service:web
        volumes:
          web-d: null
        warning: all.yaml: web: variable D is left out, as its value is known only to Kubernetes
        warning: all.yaml: web: its liveness probe is left out, as compose does not restart unhealthy containers
        warning: all.yaml: CronJob nightly is left out, as compose has no equivalent
    "#]]
    .assert_eq(&text.replace(&format!("{}/", directory.path().display()), ""));
    // And it is a compose file.
    fs::write(directory.path().join("compose.yaml"), &composed.files[0].1).unwrap();
    compile(&directory.path().join("compose.yaml"), &Options::default()).unwrap();
}

#[test]
fn every_compose_file_of_the_corpus_keeps_its_meaning() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus/compose");
    if !corpus.is_dir() {
        yado_testkit::not_proved!("there is no corpus");
        return;
    }
    let mut files = Vec::new();
    crate::find(&corpus, &mut files);
    assert!(files.len() >= 7, "{files:?}");
    for file in files {
        let compiled = compile(&file, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(valid::problems(&compiled), Vec::<String>::new(), "{}", file.display());
        round_trip(&compiled).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
}
