//! What runs Pods besides Deployments, persistent volumes, and waiting for other components, with `kubectl`.

use crate::cluster::Cluster;
use crate::kubectl::check;

const CONTROLLER: &str = r#"
apiVersion: v1
kind: ReplicationController
metadata: {name: old}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: old}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: busybox, imagePullPolicy: Never, command: [sleep, "1000"]}]
"#;
const DAEMON_SET: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: busybox, imagePullPolicy: Never, command: [sleep, "1000"]}]
"#;
const JOBS: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: three}
spec:
  completions: 3
  parallelism: 2
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: busybox, imagePullPolicy: Never, command: [echo, counted]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: indexed}
spec:
  completions: 2
  completionMode: Indexed
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: busybox, imagePullPolicy: Never, command: [sh, -c, "echo index $JOB_COMPLETION_INDEX"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: broken}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: busybox, imagePullPolicy: Never, command: ["false"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: brief}
spec:
  ttlSecondsAfterFinished: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: busybox, imagePullPolicy: Never, command: ["true"]}]
"#;

#[test]
fn k42_replication_controllers_daemon_sets_and_jobs_run() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    cluster.apply(CONTROLLER);
    cluster.apply(DAEMON_SET);
    cluster.apply(JOBS);
    check(
        &cluster,
        &[
            ("wait --for=jsonpath={.status.readyReplicas}=2 rc/old --timeout=180s", &["condition met"]),
            ("get rc old", &["DESIRED", "CURRENT", "READY", "2"]),
            (
                "describe rc old",
                &["2 current / 2 desired", "2 Running", "SuccessfulCreate", "Created pod: old-"],
            ),
            ("scale rc old --replicas=1", &["scaled"]),
            ("wait --for=jsonpath={.status.replicas}=1 rc/old --timeout=180s", &["condition met"]),
            ("delete rc old --timeout=180s", &["\"old\" deleted"]),
            ("wait --for=delete pod -l app=old --timeout=180s", &[]),
            ("rollout status daemonset/agent --timeout=180s", &["successfully rolled out"]),
            ("get ds agent", &["DESIRED", "NODE SELECTOR", "<none>"]),
            ("describe ds agent", &["Desired Number of Nodes Scheduled: 1", "Created pod: agent-"]),
            ("get pods -l app=agent -o wide", &["1/1", "Running", "node-1"]),
            ("set env ds/agent A=b", &["env updated"]),
            ("rollout status daemonset/agent --timeout=180s", &["successfully rolled out"]),
            ("rollout history daemonset/agent", &["REVISION", "1", "2"]),
            ("get controllerrevisions", &["CONTROLLER", "REVISION", "daemonset.apps/agent"]),
            ("rollout undo daemonset/agent", &["rolled back"]),
            ("rollout status daemonset/agent --timeout=180s", &["successfully rolled out"]),
            ("rollout history daemonset/agent", &["2", "3"]),
            ("set env ds/agent --list", &["!A=b"]),
            ("rollout restart daemonset/agent", &["restarted"]),
            ("rollout status daemonset/agent --timeout=180s", &["successfully rolled out"]),
            ("label node node-1 busy=yes", &["labeled"]),
            (
                "patch ds agent -p '{\"spec\":{\"template\":{\"spec\":{\"nodeSelector\":{\"busy\":\"no\"}}}}}'",
                &["patched"],
            ),
            ("wait --for=delete pod -l app=agent --timeout=180s", &[]),
            ("label node node-1 busy=no --overwrite", &["labeled"]),
            ("wait --for=jsonpath={.status.numberReady}=1 ds/agent --timeout=180s", &["condition met"]),
            ("delete ds agent --timeout=180s", &["\"agent\" deleted"]),
        ],
    );
    check(
        &cluster,
        &[
            (
                "wait --for=condition=complete job/three job/indexed --timeout=180s",
                &["job.batch/three condition met"],
            ),
            ("get jobs", &["STATUS", "COMPLETIONS", "DURATION", "Complete", "3/3"]),
            ("describe job three", &["3 Succeeded", "Created pod: three-", "Completed", "Job completed"]),
            ("logs job/three", &["counted"]),
            ("get pods -l job-name=three", &["Completed"]),
            ("logs -l batch.kubernetes.io/job-completion-index=1", &["index 1"]),
            ("get job indexed -o jsonpath={.status.completedIndexes}", &["0,1"]),
            ("wait --for=condition=failed job/broken --timeout=180s", &["condition met"]),
            ("describe job broken", &["1 Failed", "BackoffLimitExceeded"]),
            ("wait --for=delete job/brief --timeout=180s", &[]),
            ("create job once --image=busybox -- sh -c 'echo once'", &["job.batch/once created"]),
            ("wait --for=condition=complete job/once --timeout=180s", &["condition met"]),
            ("logs job/once", &["once"]),
            ("delete jobs --all --timeout=180s", &["\"three\" deleted"]),
            ("wait --for=delete pod --all --timeout=180s", &[]),
            ("get pods", &["No resources found"]),
        ],
    );
}

const POLICIES: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: by-index}
spec:
  completions: 3
  parallelism: 3
  completionMode: Indexed
  backoffLimitPerIndex: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: busybox, imagePullPolicy: Never, command: [sh, -c, "hostname; test $JOB_COMPLETION_INDEX != 1"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: few}
spec:
  completions: 3
  parallelism: 3
  completionMode: Indexed
  successPolicy: {rules: [{succeededIndexes: "0-1", succeededCount: 1}]}
  template:
    spec:
      terminationGracePeriodSeconds: 1
      restartPolicy: Never
      containers: [{name: c, image: busybox, imagePullPolicy: Never, command: [sh, -c, "test $JOB_COMPLETION_INDEX = 0 || exec sleep 1000"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: strict}
spec:
  parallelism: 2
  completions: 2
  podFailurePolicy:
    rules:
    - {action: FailJob, onExitCodes: {containerName: c, operator: In, values: [42]}}
  template:
    spec:
      terminationGracePeriodSeconds: 1
      restartPolicy: Never
      containers: [{name: c, image: busybox, imagePullPolicy: Never, command: [sh, -c, "mkdir /work/first && exit 42; exec sleep 1000"], volumeMounts: [{name: work, mountPath: /work}]}]
      volumes: [{name: work, hostPath: {path: DATA/strict, type: DirectoryOrCreate}}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: patient}
spec:
  podReplacementPolicy: Failed
  template:
    spec:
      terminationGracePeriodSeconds: 1
      restartPolicy: Never
      containers: [{name: c, image: busybox, imagePullPolicy: Never, command: [sleep, "1000"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: later}
spec:
  suspend: true
  template:
    spec:
      nodeSelector: {disk: none}
      terminationGracePeriodSeconds: 1
      restartPolicy: Never
      containers: [{name: c, image: busybox, imagePullPolicy: Never, command: [sleep, "1000"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: elastic}
spec:
  completions: 1
  parallelism: 1
  completionMode: Indexed
  template:
    spec:
      terminationGracePeriodSeconds: 1
      restartPolicy: Never
      containers: [{name: c, image: busybox, imagePullPolicy: Never, command: [sleep, "1000"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: foreign}
spec:
  managedBy: example.com/other
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: busybox, imagePullPolicy: Never, command: ["true"]}]}}
"#;

#[test]
fn jobs_follow_their_policies() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    cluster.apply(&POLICIES.replace("DATA", &cluster.data.path().display().to_string()));
    check(
        &cluster,
        &[
            ("wait --for=condition=failed job/by-index --timeout=180s", &["condition met"]),
            (
                "get job by-index -o jsonpath={.status}",
                &[
                    "\"completedIndexes\":\"0,2\"",
                    "\"failedIndexes\":\"1\"",
                    "\"succeeded\":2",
                    "\"failed\":1",
                    "\"uncountedTerminatedPods\":{}",
                    "\"reason\":\"FailedIndexes\"",
                    "FailureTarget",
                ],
            ),
            ("logs -l batch.kubernetes.io/job-completion-index=2,job-name=by-index", &["by-index-2"]),
            ("get pods -l job-name=by-index -o jsonpath={.items[*].metadata.finalizers}", &["!job-tracking"]),
            ("wait --for=condition=complete job/few --timeout=180s", &["condition met"]),
            ("describe job few", &["1 Succeeded / 0 Failed", "Completed Indexes:  0"]),
            (
                "get job few -o jsonpath={.status.conditions}",
                &["SuccessCriteriaMet", "\"reason\":\"SuccessPolicy\"", "Matched rules at index 0"],
            ),
            ("wait --for=condition=failed job/strict --timeout=180s", &["condition met"]),
            (
                "get job strict -o jsonpath={.status}",
                &[
                    "\"reason\":\"PodFailurePolicy\"",
                    "Container c for pod default/strict-",
                    "failed with exit code 42 matching FailJob rule at index 0",
                    "\"failed\":2",
                ],
            ),
            ("wait --for=jsonpath={.status.ready}=1 job/patient --timeout=180s", &["condition met"]),
            ("delete pod -l job-name=patient --timeout=180s", &["deleted"]),
            ("wait --for=jsonpath={.status.failed}=1 job/patient --timeout=180s", &["condition met"]),
            ("get job later -o jsonpath={.status}", &["Suspended", "!startTime"]),
            (
                "patch job later --type=json -p '[{\"op\":\"remove\",\"path\":\"/spec/template/spec/nodeSelector\"},{\"op\":\"add\",\"path\":\"/spec/template/spec/containers/0/resources/requests\",\"value\":{\"cpu\":\"10m\"}}]'",
                &["patched"],
            ),
            ("patch job later -p '{\"spec\":{\"suspend\":false}}'", &["patched"]),
            ("wait --for=jsonpath={.status.ready}=1 job/later --timeout=180s", &["condition met"]),
            ("^set image job/later c=busybox:2", &["field is immutable"]),
            ("patch job later -p '{\"spec\":{\"suspend\":true}}'", &["patched"]),
            ("wait --for=delete pod -l job-name=later --timeout=180s", &[]),
            ("describe job later", &["Suspended", "Resumed", "Suspend:", "true", "0 Active", "0 Failed"]),
            ("wait --for=jsonpath={.status.ready}=1 job/elastic --timeout=180s", &["condition met"]),
            ("patch job elastic -p '{\"spec\":{\"completions\":2,\"parallelism\":2}}'", &["patched"]),
            ("wait --for=jsonpath={.status.ready}=2 job/elastic --timeout=180s", &["condition met"]),
            (
                "^patch job elastic -p '{\"spec\":{\"completions\":3}}'",
                &["can only be modified in tandem with spec.parallelism"],
            ),
            ("patch job elastic -p '{\"spec\":{\"completions\":1,\"parallelism\":1}}'", &["patched"]),
            (
                "wait --for=delete pod -l job-name=elastic,batch.kubernetes.io/job-completion-index=1 --timeout=180s",
                &[],
            ),
            ("get job foreign -o jsonpath={.status}", &["!active"]),
            ("delete job elastic --cascade=orphan --timeout=180s", &["deleted"]),
            (
                "get pods -l job-name=elastic -o jsonpath={.items[*].metadata.finalizers}/{.items[*].metadata.ownerReferences}",
                &["!job"],
            ),
            ("delete pods -l job-name=elastic --timeout=180s", &["deleted"]),
            ("delete jobs --all --cascade=foreground --timeout=180s", &["\"patient\" deleted"]),
            ("wait --for=delete pod --all --timeout=180s", &[]),
            ("get pods", &["No resources found"]),
        ],
    );
}

const CRON_JOBS: &str = r#"
apiVersion: batch/v1
kind: CronJob
metadata: {name: ticker}
spec:
  schedule: "@every 1s"
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: c, image: busybox, imagePullPolicy: Never, command: [echo, tick]}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: sleeper}
spec:
  schedule: "@every 1s"
  concurrencyPolicy: Forbid
  jobTemplate:
    spec:
      template:
        spec:
          terminationGracePeriodSeconds: 1
          restartPolicy: Never
          containers: [{name: c, image: busybox, imagePullPolicy: Never, command: [sleep, "1000"]}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: yearly}
spec:
  schedule: "@yearly"
  timeZone: Asia/Tokyo
  successfulJobsHistoryLimit: 0
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: c, image: busybox, imagePullPolicy: Never, command: [echo, once a year]}]
"#;

#[test]
fn cron_jobs_start_jobs_and_keep_the_last_of_them() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    cluster.apply(CRON_JOBS);
    check(
        &cluster,
        &[
            (
                "wait --for=jsonpath={.status.lastSuccessfulTime} cronjob/ticker --timeout=180s",
                &["condition met"],
            ),
            ("get cj", &["SCHEDULE", "TIMEZONE", "LAST SCHEDULE", "@every 1s", "@yearly", "Asia/Tokyo"]),
            (
                "describe cj ticker",
                &["SuccessfulCreate", "Created job ticker-", "SawCompletedJob", "condition: Complete"],
            ),
            (
                "get jobs -o custom-columns=O:.metadata.ownerReferences[0].name,A:.metadata.annotations",
                &["ticker", "batch.kubernetes.io/cronjob-scheduled-timestamp:20"],
            ),
            ("patch cj ticker -p '{\"spec\":{\"suspend\":true}}'", &["patched"]),
            ("get cj ticker", &["True"]),
            (
                "wait --for=jsonpath={.status.active[0].kind}=Job cronjob/sleeper --timeout=180s",
                &["condition met"],
            ),
            ("get pods", &["sleeper-", "Running"]),
            ("delete cj sleeper --timeout=180s", &["\"sleeper\" deleted"]),
            ("create job by-hand --from=cronjob/yearly", &["job.batch/by-hand created"]),
            ("wait --for=delete job/by-hand --timeout=180s", &[]),
            ("describe cj yearly", &["UnexpectedJob", "SuccessfulDelete", "Deleted job by-hand"]),
            ("get cj yearly -o jsonpath={.status}", &["lastSuccessfulTime", "!lastScheduleTime"]),
            ("delete cj --all --timeout=180s", &["\"ticker\" deleted"]),
            ("wait --for=delete pod --all --timeout=180s", &[]),
            ("get jobs", &["No resources found"]),
        ],
    );
}

const CLAIM: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 100Mi}}}
"#;
const WRITER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox
    imagePullPolicy: Never
    command: [sh, -c, "COMMAND; exec sleep 1000"]
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
"#;

#[test]
fn claims_get_a_directory_that_outlives_pods_and_goes_with_them() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    let pod = |name: &str, command: &str| {
        cluster.apply(&WRITER.replace("NAME", name).replace("COMMAND", command));
    };
    cluster.apply(CLAIM);
    check(
        &cluster,
        &[
            ("get pvc data", &["Pending", "local"]),
            ("describe pvc data", &["waiting for first consumer to be created before binding"]),
        ],
    );
    pod("writer", "echo kept > /data/file");
    check(
        &cluster,
        &[
            ("wait --for=condition=Ready pod/writer --timeout=180s", &["condition met"]),
            ("get pvc data", &["Bound", "pvc-", "100Mi", "RWO", "local"]),
            ("get pv", &["pvc-", "100Mi", "RWO", "Delete", "Bound", "default/data", "local"]),
            ("describe pvc data", &["ProvisioningSucceeded", "Used By:       writer"]),
            ("delete pvc data --wait=false", &["deleted"]),
            ("get pvc data", &["Terminating"]),
            ("exec writer -- cat /data/file", &["kept"]),
            ("delete pod writer --timeout=180s", &["deleted"]),
            ("wait --for=delete pvc/data --timeout=180s", &[]),
            ("wait --for=delete pv --all --timeout=180s", &[]),
            ("get pv", &["No resources found"]),
        ],
    );
    let volumes = || std::fs::read_dir(cluster.data.path().join("volumes")).map(Iterator::count).unwrap_or(0);
    cluster.until("the directory goes with the volume", || (volumes() == 0).then_some(()));
    cluster.apply(CLAIM);
    pod("first", "echo again > /data/file");
    check(
        &cluster,
        &[
            ("wait --for=condition=Ready pod/first --timeout=180s", &["condition met"]),
            ("delete pod first --timeout=180s", &["deleted"]),
            (
                "patch pvc data -p '{\"spec\":{\"resources\":{\"requests\":{\"storage\":\"1Gi\"}}}}'",
                &["patched"],
            ),
            (
                "wait --for=jsonpath={.status.capacity.storage}=1Gi pvc/data --timeout=180s",
                &["condition met"],
            ),
        ],
    );
    pod("second", "true");
    check(
        &cluster,
        &[
            ("wait --for=condition=Ready pod/second --timeout=180s", &["condition met"]),
            ("exec second -- cat /data/file", &["again"]),
        ],
    );
    assert_eq!(volumes(), 1);
}

const SHOP: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app.kubernetes.io/name: shop, app.kubernetes.io/component: web}
  annotations: {yado.dev/depends-on: '{"db":"healthy","migrate":"completed"}'}
spec:
  containers: [{name: c, image: busybox, imagePullPolicy: Never, command: [sleep, "1000"]}]
---
apiVersion: v1
kind: Pod
metadata:
  name: db
  labels: {app.kubernetes.io/name: shop, app.kubernetes.io/component: db}
spec:
  containers:
  - name: c
    image: busybox
    imagePullPolicy: Never
    command: [sleep, "1000"]
    readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1}
"#;
const MIGRATE: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: migrate}
spec:
  template:
    metadata: {labels: {app.kubernetes.io/name: shop, app.kubernetes.io/component: migrate}}
    spec:
      restartPolicy: Never
      containers: [{name: c, image: busybox, imagePullPolicy: Never, command: ["true"]}]
"#;

#[test]
fn pods_start_after_what_they_depend_on() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    cluster.apply(SHOP);
    check(
        &cluster,
        &[
            ("wait --for=jsonpath={.status.phase}=Running pod/db --timeout=180s", &["condition met"]),
            ("wait --for=condition=PodScheduled=False pod/web --timeout=180s", &["condition met"]),
            (
                "describe pod web",
                &[
                    "Pending",
                    "waits for db to be healthy and for migrate to complete (there is no Pod of it)",
                ],
            ),
            ("exec db -- touch /tmp/ready", &[]),
            ("wait --for=condition=Ready pod/db --timeout=180s", &["condition met"]),
            ("get pod web", &["Pending"]),
        ],
    );
    cluster.apply(MIGRATE);
    check(&cluster, &[("wait --for=condition=Ready pod/web --timeout=180s", &["condition met"])]);
}
