//! Manifests of ten years ago with the real `kubectl`, as they were written.

use super::Row;

const DEPLOYMENT: &str = r#"
apiVersion: extensions/v1beta1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  rollbackTo: {revision: 0}
  template:
    metadata:
      labels: {app: web}
      annotations: {"pod.beta.kubernetes.io/hostname": w}
    spec:
      containers:
      - {name: c, image: "nginx:1", ports: [{containerPort: 80}]}
"#;
const EDITED: &str = r#"
apiVersion: extensions/v1beta1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: "nginx:2"}]}
"#;
const INGRESS: &str = r#"
apiVersion: extensions/v1beta1
kind: Ingress
metadata: {name: site}
spec:
  backend: {serviceName: fallback, servicePort: http}
  rules:
  - host: example.com
    http: {paths: [{path: /a, backend: {serviceName: web, servicePort: 80}}]}
"#;
const INCOMPLETE: &str = r#"
apiVersion: networking.k8s.io/v1beta1
kind: Ingress
metadata: {name: bad}
spec: {backend: {serviceName: fallback}}
"#;
const CRON_JOB: &str = r#"
apiVersion: batch/v1beta1
kind: CronJob
metadata: {name: nightly}
spec: {schedule: "@daily", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}}
"#;
const MANY: &str = r#"
apiVersion: extensions/v1beta1
kind: DaemonSet
metadata: {name: ds}
spec: {template: {metadata: {labels: {app: ds}}, spec: {containers: [{name: c, image: i}]}}}
---
apiVersion: extensions/v1beta1
kind: ReplicaSet
metadata: {name: rs}
spec: {template: {metadata: {labels: {app: rs}}, spec: {containers: [{name: c, image: i}]}}}
---
apiVersion: extensions/v1beta1
kind: NetworkPolicy
metadata: {name: np}
spec: {podSelector: {}, ingress: [{ports: [{port: 80}]}]}
---
apiVersion: apps/v1beta1
kind: Deployment
metadata: {name: beta}
spec: {template: {metadata: {labels: {app: beta}}, spec: {containers: [{name: c, image: i}]}}}
---
apiVersion: apps/v1beta2
kind: Deployment
metadata: {name: beta2}
spec: {selector: {matchLabels: {app: beta2}}, template: {metadata: {labels: {app: beta2}}, spec: {containers: [{name: c, image: i}]}}}
---
apiVersion: apps/v1beta1
kind: StatefulSet
metadata: {name: sts}
spec: {serviceName: s, template: {metadata: {labels: {app: sts}}, spec: {containers: [{name: c, image: i}]}}}
---
apiVersion: apps/v1beta2
kind: StatefulSet
metadata: {name: sts2}
spec: {serviceName: s, selector: {matchLabels: {app: sts2}}, template: {metadata: {labels: {app: sts2}}, spec: {containers: [{name: c, image: i}]}}}
---
apiVersion: rbac.authorization.k8s.io/v1beta1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
"#;

#[rustfmt::skip]
pub const ROWS: &[Row<'static>] = &[
    Row("create -f -", DEPLOYMENT, true, &["deployment.extensions/web created", "Warning: extensions/v1beta1 Deployment is deprecated in v1.8+, unavailable in v1.16+; use apps/v1 Deployment"]),
    Row("get deploy", "", true, &["NAME", "READY", "web", "0/3"]),
    Row("get deploy web -o jsonpath={.apiVersion}/{.metadata.labels}/{.spec.selector.matchLabels}/{.spec.strategy.rollingUpdate.maxSurge}/{.spec.template.spec.hostname}", "", true, &["apps/v1/{\"app\":\"web\"}/{\"app\":\"web\"}/1/w"]),
    Row("get deployments.v1beta1.extensions web -o jsonpath={.apiVersion}/{.spec.replicas}", "", true, &["extensions/v1beta1/3"]),
    Row("get deployments.v1beta1.extensions", "", true, &["NAME", "READY", "web", "0/3"]),
    Row("apply -f -", EDITED, true, &["deployment.extensions/web configured"]),
    Row("get deploy web -o jsonpath={.spec.replicas}/{.spec.template.spec.containers[0].image}", "", true, &["2/nginx:2"]),
    Row("scale deployments.v1beta1.extensions web --replicas=4", "", true, &["deployment.extensions/web scaled"]),
    Row("apply --server-side --force-conflicts -f -", EDITED, true, &["deployment.extensions/web serverside-applied"]),
    Row("delete -f -", EDITED, true, &["deployment.extensions \"web\" deleted"]),
    Row("get deploy web", "", false, &["deployments.apps \"web\" not found"]),
    Row("create -f -", INGRESS, true, &["ingress.extensions/site created", "use networking.k8s.io/v1 Ingress"]),
    Row("get ing", "", true, &["NAME", "HOSTS", "site", "example.com"]),
    Row("get ing site -o jsonpath={.spec.rules[0].http.paths[0].backend}/{.spec.backend}/{.spec.defaultBackend}", "", true, &["{\"service\":{\"name\":\"web\",\"port\":{\"number\":80}}}//{\"service\":{\"name\":\"fallback\",\"port\":{\"name\":\"http\"}}}"]),
    Row("get ingresses.v1beta1.networking.k8s.io site -o jsonpath={.spec.rules[0].http.paths[0].backend}/{.spec.backend}/{.spec.defaultBackend}", "", true, &["{\"serviceName\":\"web\",\"servicePort\":80}/{\"serviceName\":\"fallback\",\"servicePort\":\"http\"}/"]),
    Row("apply -f -", INGRESS, true, &["ingress.extensions/site configured"]),
    Row("apply -f -", INGRESS, true, &["ingress.extensions/site unchanged"]),
    Row("patch ingresses.v1beta1.extensions site --type=json -p '[{\"op\":\"replace\",\"path\":\"/spec/backend/servicePort\",\"value\":8080}]'", "", true, &["patched"]),
    Row("get ing site -o jsonpath={.spec.defaultBackend.service.port}", "", true, &["{\"number\":8080}"]),
    Row("create -f -", INCOMPLETE, false, &["spec.backend: this backend has no servicePort"]),
    Row("create -f -", MANY, true, &["daemonset.extensions/ds created", "replicaset.extensions/rs created", "networkpolicy.extensions/np created", "deployment.apps/beta created", "deployment.apps/beta2 created", "statefulset.apps/sts created", "statefulset.apps/sts2 created", "role.rbac.authorization.k8s.io/reader created"]),
    Row("get ds ds -o jsonpath={.spec.updateStrategy.type}/{.spec.selector.matchLabels.app}", "", true, &["OnDelete/ds"]),
    Row("get sts sts -o jsonpath={.spec.updateStrategy}/{.spec.selector.matchLabels.app}/{.metadata.labels.app}", "", true, &["{\"type\":\"OnDelete\"}/sts/sts"]),
    Row("get sts sts2 -o jsonpath={.spec.updateStrategy.type}", "", true, &["RollingUpdate"]),
    Row("get statefulsets.v1beta1.apps sts", "", true, &["NAME", "READY", "sts", "0/1"]),
    Row("get deploy beta -o jsonpath={.spec.revisionHistoryLimit}/{.spec.strategy.rollingUpdate.maxSurge}", "", true, &["2/25%"]),
    Row("get deploy beta2 -o jsonpath={.spec.revisionHistoryLimit}", "", true, &["10"]),
    Row("create -f -", CRON_JOB, true, &["cronjob.batch/nightly created", "Warning: batch/v1beta1 CronJob is deprecated in v1.21+, unavailable in v1.25+; use batch/v1 CronJob"]),
    Row("get cronjobs.v1beta1.batch nightly -o jsonpath={.apiVersion}/{.spec.successfulJobsHistoryLimit}", "", true, &["batch/v1beta1/3"]),
    Row("apply -f -", CRON_JOB, true, &["cronjob.batch/nightly configured"]),
    Row("delete -f -", CRON_JOB, true, &["cronjob.batch \"nightly\" deleted"]),
    Row("get all", "", true, &["daemonset.apps/ds", "deployment.apps/beta", "replicaset.apps/rs"]),
    Row("api-resources", "", true, &["deployments", "deploy", "apps/v1", "Deployment", "deployments", "extensions/v1beta1", "Deployment", "ing", "networking.k8s.io/v1"]),
    Row("explain deployment.spec.replicas --api-version=extensions/v1beta1", "", true, &["GROUP:", "extensions", "FIELD: replicas <integer>"]),
    Row("auth can-i create deployments.extensions", "", true, &["yes"]),
    Row("delete -f -", MANY, true, &["daemonset.extensions \"ds\" deleted", "role.rbac.authorization.k8s.io \"reader\" deleted"]),
];
