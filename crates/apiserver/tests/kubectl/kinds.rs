//! Rows for what runs Pods besides Deployments, and for storage.

use super::Row;

const CONTROLLER: &str = r#"
apiVersion: v1
kind: ReplicationController
metadata: {name: old}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: old}}
    spec: {containers: [{name: c, image: "nginx:1"}]}
"#;
const DAEMON_SET: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {nodeSelector: {disk: ssd}, containers: [{name: c, image: "agent:1"}]}
"#;
const DAEMON_SET_2: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: other}}
  template:
    metadata: {labels: {app: other}}
    spec: {containers: [{name: c, image: "agent:1"}]}
"#;
const STATEFUL_SET: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, labels: {tier: data}}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: "db:1", volumeMounts: [{name: data, mountPath: /data}]}]}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"#;
const JOB: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: pi}
spec:
  completions: 3
  parallelism: 2
  template:
    spec: {restartPolicy: Never, containers: [{name: pi, image: "perl:5"}]}
"#;
const JOB_ALWAYS: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: bad}
spec: {template: {spec: {containers: [{name: pi, image: perl}]}}}
"#;
const CRON_JOB_BAD: &str = r#"
apiVersion: batch/v1
kind: CronJob
metadata: {name: bad}
spec: {schedule: "* * * *", timeZone: Mars/Olympus, jobTemplate: {spec: {template: {spec: {containers: [{name: c, image: i}]}}}}}
"#;
const CLAIM: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"#;
const CLAIM_BAD: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: bad}
spec: {}
"#;
const VOLUME: &str = r#"
apiVersion: v1
kind: PersistentVolume
metadata: {name: disk, labels: {tier: gold}}
spec:
  capacity: {storage: 2Gi}
  accessModes: [ReadWriteOnce, ReadWriteMany]
  storageClassName: slow
  hostPath: {path: /srv/disk}
"#;
const CLASS: &str = "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: slow}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
";
const POLICY: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]}
"#;

#[rustfmt::skip]
pub const ROWS: &[Row<'_>] = &[
    Row("api-resources", "", true, &["persistentvolumeclaims", "pvc", "replicationcontrollers", "rc", "daemonsets", "ds", "jobs", "batch/v1", "networkpolicies", "netpol", "storageclasses", "sc"]),
    Row("create -f -", CONTROLLER, true, &["replicationcontroller/old created"]),
    Row("get rc", "", true, &["NAME", "DESIRED", "CURRENT", "READY", "AGE", "old", "2", "0", "0"]),
    Row("get rc old -o wide", "", true, &["CONTAINERS", "IMAGES", "SELECTOR", "c", "nginx:1", "app=old"]),
    Row("get rc old -o jsonpath={.metadata.labels.app}/{.spec.selector.app}", "", true, &["old/old"]),
    Row("describe rc old", "", true, &["Name:         old", "Selector:     app=old", "Replicas:     0 current / 2 desired"]),
    Row("scale rc old --replicas=3", "", true, &["replicationcontroller/old scaled"]),
    Row("get rc old -o jsonpath={.spec.replicas}/{.metadata.generation}", "", true, &["3/2"]),
    Row("get --raw /api/v1/namespaces/default/replicationcontrollers/old/scale", "", true, &["\"kind\":\"Scale\"", "\"selector\":\"app=old\""]),
    Row("expose rc old --port=80", "", true, &["service/old exposed"]),
    Row("explain rc.spec.replicas", "", true, &["FIELD: replicas <integer>"]),
    Row("get all", "", true, &["replicationcontroller/old"]),
    Row("delete rc old --cascade=orphan --wait=false", "", true, &["replicationcontroller \"old\" deleted"]),
    Row("apply -f -", DAEMON_SET, true, &["daemonset.apps/agent created"]),
    Row("apply -f -", DAEMON_SET, true, &["daemonset.apps/agent unchanged"]),
    Row("apply -f -", DAEMON_SET_2, false, &["spec.selector: Invalid value", "field is immutable"]),
    Row("get ds -o wide", "", true, &["NAME", "DESIRED", "CURRENT", "READY", "UP-TO-DATE", "AVAILABLE", "NODE SELECTOR", "AGE", "CONTAINERS", "IMAGES", "SELECTOR", "agent", "disk=ssd", "agent:1", "app=agent"]),
    Row("get ds agent -o jsonpath={.spec.updateStrategy}", "", true, &["\"maxSurge\":0", "\"maxUnavailable\":1", "\"type\":\"RollingUpdate\""]),
    Row("set image ds/agent c=agent:2", "", true, &["daemonset.apps/agent image updated"]),
    Row("describe ds agent", "", true, &["Name:", "agent", "Node-Selector:", "disk=ssd", "Image:", "agent:2"]),
    Row("patch ds agent -p '{\"spec\":{\"updateStrategy\":{\"rollingUpdate\":{\"maxUnavailable\":0}}}}'", "", false, &["spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0 when maxSurge is 0"]),
    Row("explain ds.spec.updateStrategy", "", true, &["FIELD: updateStrategy <DaemonSetUpdateStrategy>"]),
    Row("delete ds agent", "", true, &["daemonset.apps \"agent\" deleted"]),
    Row("apply -f -", STATEFUL_SET, true, &["statefulset.apps/db created"]),
    // As in Kubernetes: kubectl sends the templates of claims again, because the server has completed them.
    Row("apply -f -", STATEFUL_SET, true, &["statefulset.apps/db configured"]),
    Row("get sts db -o jsonpath={.metadata.generation}", "", true, &["1"]),
    Row("apply --server-side --force-conflicts -f -", STATEFUL_SET, true, &["statefulset.apps/db serverside-applied"]),
    Row("get sts -o wide", "", true, &["NAME", "READY", "AGE", "CONTAINERS", "IMAGES", "db", "0/2", "c", "db:1"]),
    Row("describe sts db", "", true, &["Name:", "db", "Replicas:", "2 desired", "Update Strategy:", "RollingUpdate", "Partition:", "0", "Image:", "db:1", "Volume Claims:", "data", "Capacity:", "1Gi"]),
    Row("get sts db -o jsonpath={.spec.persistentVolumeClaimRetentionPolicy}", "", true, &["\"whenDeleted\":\"Retain\"", "\"whenScaled\":\"Retain\""]),
    Row("scale sts db --replicas=3", "", true, &["statefulset.apps/db scaled"]),
    Row("get --raw /apis/apps/v1/namespaces/default/statefulsets/db/scale", "", true, &["\"kind\":\"Scale\"", "\"selector\":\"app=db\""]),
    Row("set image sts/db c=db:2", "", true, &["statefulset.apps/db image updated"]),
    Row("get sts db -o jsonpath={.metadata.generation}/{.spec.replicas}", "", true, &["3/3"]),
    Row("patch sts db -p '{\"spec\":{\"serviceName\":\"other\"}}'", "", false, &["The StatefulSet \"db\" is invalid: spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"]),
    Row("patch sts db --subresource=status --type=merge -p '{\"status\":{\"readyReplicas\":5}}'", "", false, &["status.readyReplicas: Invalid value: 5: cannot be greater than status.replicas"]),
    Row("create quota sets --hard=count/statefulsets.apps=1", "", true, &["resourcequota/sets created"]),
    Row("explain sts.spec.volumeClaimTemplates", "", true, &["FIELD: volumeClaimTemplates <[]PersistentVolumeClaim>"]),
    Row("get all", "", true, &["statefulset.apps/db"]),
    Row("api-resources --api-group=apps", "", true, &["statefulsets", "sts", "apps/v1", "true", "StatefulSet"]),
    Row("rollout pause sts/db", "", false, &["pausing is not supported"]),
    Row("delete sts db --cascade=orphan --wait=false", "", true, &["statefulset.apps \"db\" deleted"]),
    Row("delete quota sets", "", true, &["deleted"]),
    Row("create -f -", JOB, true, &["job.batch/pi created"]),
    Row("create -f -", JOB_ALWAYS, false, &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]),
    Row("get jobs -o wide", "", true, &["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE", "CONTAINERS", "IMAGES", "SELECTOR", "pi", "Running", "0/3", "perl:5", "batch.kubernetes.io/controller-uid="]),
    Row("describe job pi", "", true, &["Name:", "pi", "Labels:", "batch.kubernetes.io/job-name=pi", "Parallelism:", "2", "Completions:", "3", "Completion Mode:", "NonIndexed", "Suspend:", "false", "Backoff Limit:", "6"]),
    Row("set image job/pi pi=perl:6", "", false, &["field is immutable"]),
    Row("patch job pi -p '{\"spec\":{\"parallelism\":1}}'", "", true, &["job.batch/pi patched"]),
    Row("create job once --image=busybox -- true", "", true, &["job.batch/once created"]),
    Row("get job once -o jsonpath={.spec.template.spec.restartPolicy}/{.spec.completions}/{.spec.backoffLimit}", "", true, &["Never/1/6"]),
    Row("wait --for=condition=complete job/once --timeout=1s", "", false, &["timed out waiting"]),
    Row("patch job once -p '{\"spec\":{\"maxFailedIndexes\":1}}'", "", false, &["spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified", "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode"]),
    Row("explain job.spec.backoffLimit", "", true, &["GROUP:", "batch", "FIELD: backoffLimit <integer>"]),
    Row("create cronjob tidy --image=busybox '--schedule=*/5 * * * *' --restart=Never -- true", "", true, &["cronjob.batch/tidy created"]),
    Row("create -f -", CRON_JOB_BAD, false, &["spec.schedule: Invalid value: \"* * * *\": expected exactly 5 fields, found 4: [* * * *]", "spec.timeZone: Invalid value: \"Mars/Olympus\": unknown time zone Mars/Olympus", "spec.jobTemplate.spec.template.spec.restartPolicy: Required value"]),
    Row("get cj -o wide", "", true, &["NAME", "SCHEDULE", "TIMEZONE", "SUSPEND", "ACTIVE", "LAST SCHEDULE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR", "tidy", "*/5 * * * *", "<none>", "False", "busybox"]),
    Row("get all", "", true, &["cronjob.batch/tidy"]),
    Row("describe cronjob tidy", "", true, &["Schedule:", "*/5 * * * *", "Concurrency Policy:", "Allow", "Successful Job History Limit:  3", "Failed Job History Limit:      1", "Last Schedule Time:  <unset>", "Active Jobs:         <none>"]),
    Row("patch cj tidy -p '{\"spec\":{\"suspend\":true}}'", "", true, &["cronjob.batch/tidy patched"]),
    Row("set image cronjob/tidy tidy=busybox:2", "", true, &["cronjob.batch/tidy image updated"]),
    Row("create job now --from=cronjob/tidy", "", true, &["job.batch/now created"]),
    Row("get job now -o jsonpath={.metadata.annotations}/{.metadata.ownerReferences[0].name}/{.spec.template.spec.containers[0].image}", "", true, &["{\"cronjob.kubernetes.io/instantiate\":\"manual\"}/tidy/busybox:2"]),
    Row("explain cronjob.spec.timeZone", "", true, &["GROUP:", "batch", "FIELD: timeZone <string>"]),
    Row("patch cj tidy --subresource=status --type=merge -p '{\"status\":{\"lastScheduleTime\":\"2024-01-01T00:00:00Z\"}}'", "", true, &["patched"]),
    Row("delete cj tidy", "", true, &["cronjob.batch \"tidy\" deleted"]),
    Row("delete job now", "", true, &["job.batch \"now\" deleted"]),
    Row("delete job pi once", "", true, &["job.batch \"pi\" deleted"]),
    Row("get sc", "", true, &["NAME", "PROVISIONER", "RECLAIMPOLICY", "VOLUMEBINDINGMODE", "ALLOWVOLUMEEXPANSION", "AGE", "local (default)", "yado.dev/local", "Delete", "WaitForFirstConsumer", "true"]),
    Row("create -f -", CLASS, true, &["storageclass.storage.k8s.io/slow created"]),
    Row("describe sc slow", "", true, &["kubernetes.io/no-provisioner", "WaitForFirstConsumer"]),
    Row("patch sc slow -p '{\"provisioner\":\"x\"}'", "", false, &["provisioner: Forbidden: updates to provisioner are forbidden."]),
    Row("create -f -", CLAIM, true, &["persistentvolumeclaim/data created"]),
    Row("create -f -", CLAIM_BAD, false, &["spec.accessModes: Required value: at least 1 access mode is required", "spec.resources.requests[storage]: Required value"]),
    Row("get pvc -o wide", "", true, &["NAME", "STATUS", "VOLUME", "CAPACITY", "ACCESS MODES", "STORAGECLASS", "VOLUMEATTRIBUTESCLASS", "AGE", "VOLUMEMODE", "data", "Pending", "local", "<unset>", "Filesystem"]),
    Row("describe pvc data", "", true, &["Name:          data", "StorageClass:  local", "Status:        Pending", "Finalizers:    [kubernetes.io/pvc-protection]", "Used By:       <none>"]),
    Row("patch pvc data -p '{\"spec\":{\"accessModes\":[\"ReadWriteMany\"]}}'", "", false, &["spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"]),
    Row("create -f -", VOLUME, true, &["persistentvolume/disk created"]),
    Row("get pv -o wide", "", true, &["NAME", "CAPACITY", "ACCESS MODES", "RECLAIM POLICY", "STATUS", "CLAIM", "STORAGECLASS", "VOLUMEATTRIBUTESCLASS", "REASON", "AGE", "VOLUMEMODE", "disk", "2Gi", "RWO,RWX", "Retain", "Pending", "slow", "<unset>", "Filesystem"]),
    Row("describe pv disk", "", true, &["Name:            disk", "Labels:          tier=gold", "StorageClass:    slow", "Reclaim Policy:  Retain", "Type:          HostPath", "/srv/disk"]),
    Row("patch pv disk -p '{\"spec\":{\"hostPath\":{\"path\":\"/srv/other\"}}}'", "", false, &["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"]),
    Row("explain pvc.spec.resources.requests", "", true, &["FIELD: requests <map[string]Quantity>"]),
    Row("delete pvc data --wait=false", "", true, &["persistentvolumeclaim \"data\" deleted"]),
    Row("get pvc data", "", true, &["Terminating"]),
    Row("apply -f -", POLICY, true, &["networkpolicy.networking.k8s.io/deny created"]),
    Row("get netpol", "", true, &["NAME", "POD-SELECTOR", "AGE", "deny", "app=db"]),
    Row("describe netpol deny", "", true, &["PodSelector:     app=db", "To Port: 5432/TCP", "PodSelector: app=web", "Policy Types: Ingress"]),
    Row("apply --server-side --force-conflicts -f -", POLICY, true, &["networkpolicy.networking.k8s.io/deny serverside-applied"]),
    Row("delete netpol deny", "", true, &["networkpolicy.networking.k8s.io \"deny\" deleted"]),
];
