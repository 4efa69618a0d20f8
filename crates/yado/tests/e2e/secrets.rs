//! Invariant 8 as a thief of the disk, or a reader of the log, would test it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cluster::{Cluster, YADO};

/// Every secret of this test begins with it.
const MARK: &str = "zugangswort-";
/// The same in base64, in which it ends with a whole group.
const MARK_BASE64: &str = "enVnYW5nc3dvcnQt";

/// A Secret whose values are `zugangswort-WORD`; kubectl keeps what it was applied with in an annotation, too.
fn secret(word: &str) -> String {
    format!(
        "\
apiVersion: v1
kind: Secret
metadata: {{name: key}}
stringData: {{password: {MARK}{word}}}
data: {{raw: /wCA, bytes: /4Agfg==}}
---
apiVersion: v1
kind: Secret
type: kubernetes.io/dockerconfigjson
metadata: {{name: registry}}
stringData: {{.dockerconfigjson: '{{\"auths\":{{\"127.0.0.1:9\":{{\"username\":\"me\",\"password\":\"{MARK}{word}\"}}}}}}'}}
"
    )
}

/// Pods that use it in every way: as variables, arguments and files; where a container cannot start, and where its
/// image cannot be had.
const PODS: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: user}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: busybox
    imagePullPolicy: Never
    command: [sh, -c, 'while :; do sleep 1; done', '$(PASSWORD)']
    env:
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: key, key: password}}}
    - {name: BYTES, valueFrom: {secretKeyRef: {name: key, key: bytes}}}
    readinessProbe: {exec: {command: [sh, -c, 'test -n \"$PASSWORD\"']}}
    volumeMounts:
    - {name: all, mountPath: /all}
    - {name: some, mountPath: /some}
    - {name: all, mountPath: /one, subPath: password}
  volumes:
  - {name: all, secret: {secretName: key}}
  - {name: some, projected: {sources: [{secret: {name: key, items: [{key: password, path: p}]}}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: refused}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: busybox
    imagePullPolicy: Never
    command: ['true']
    env:
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: key, key: password}}}
    - {name: RAW, valueFrom: {secretKeyRef: {name: key, key: raw}}}
    - {name: BOTH, value: '$(PASSWORD)$(RAW)'}
---
apiVersion: v1
kind: Pod
metadata: {name: imageless}
spec:
  terminationGracePeriodSeconds: 0
  imagePullSecrets: [{name: registry}]
  containers: [{name: c, image: '127.0.0.1:9/none:1'}]
";

/// Files beneath a directory, on its own disk, that hold a secret.
fn telling(directory: &Path) -> String {
    holding(directory, &[MARK, MARK_BASE64])
}

/// Files beneath a directory, on its own disk, that hold one of these words.
fn holding(directory: &Path, words: &[&str]) -> String {
    let words = words.iter().flat_map(|word| ["-e", word]);
    let found = Command::new("find")
        .arg(directory)
        .args(["-xdev", "-type", "f", "-exec", "grep", "-laF"])
        .args(words)
        .args(["{}", "+"])
        .output()
        .expect("find");
    String::from_utf8_lossy(&found.stdout).into_owned()
}

struct Watched {
    cluster: Cluster,
    /// Where manifests are, as they hold what is to be found nowhere else.
    aside: tempfile::TempDir,
}

impl Watched {
    fn apply(&self, manifest: &str) {
        let file = self.aside.path().join("manifest.yaml");
        fs::write(&file, manifest).expect("a file");
        self.cluster.ok(&["apply", "-f", &file.to_string_lossy()]);
    }

    fn exec(&self, script: &str) -> String {
        self.cluster.ok(&["exec", "user", "--", "sh", "-c", script])
    }

    /// Nothing on the disk tells a secret; the log is there, too.
    #[track_caller]
    fn check(&self) {
        assert_eq!(telling(self.cluster.data.path()), "");
        assert_eq!(telling(Path::new("/run/yado")), "");
    }

    fn key(&self) -> PathBuf {
        self.cluster.data.path().join("secrets.key")
    }

    /// What a start says that comes to nothing.
    fn refusal(&self) -> String {
        let data = self.cluster.data.path().to_string_lossy().into_owned();
        let output = self.cluster.command(YADO).args(["up", "--data-dir", &data]).output().expect("yado");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).replace(&data, "DATA")
    }
}

#[test]
fn s11_secrets_are_on_no_disk_and_in_no_log() {
    let Some(cluster) = Cluster::start_talkative(&["busybox.tar"]) else { return };
    let mut it = Watched { cluster, aside: tempfile::tempdir().expect("a folder") };
    it.apply(&secret("eins"));
    it.apply(PODS);
    it.cluster.ok(&["wait", "--for=condition=Ready", "pod/user", "--timeout=60s"]);
    assert_eq!(
        it.exec("echo $PASSWORD; cat /all/password /some/p /one"),
        format!("{MARK}eins\n{MARK}eins{MARK}eins{MARK}eins")
    );
    // As Kubernetes does, a value that is no text is handed on as it is.
    assert_eq!(it.exec("printf %s \"$BYTES\" | od -An -tx1").trim(), "ff 80 20 7e");
    let reason = |pod: &str, word: &str| {
        let path = "jsonpath={.status.containerStatuses[0]['state', 'lastState'].*['reason', 'message']}";
        it.cluster.until(&format!("{pod} is {word}"), || {
            Some(it.cluster.ok(&["get", "pod", pod, "-o", path])).filter(|text| text.contains(word))
        })
    };
    let refused = reason("refused", "NUL");
    assert!(refused.contains("the environment variable \"RAW\" contains a NUL byte"), "{refused}");
    reason("imageless", "ImagePull");
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let ours = it.cluster.data.path().to_string_lossy().into_owned();
    let of_secrets = |line: &&str| {
        line.contains(&ours) && line.contains(" tmpfs ") && !line.contains("/volumes/kube-api-access-")
    };
    assert_eq!(mounts.lines().filter(of_secrets).count(), 2);
    let token = it.exec("cat /var/run/secrets/kubernetes.io/serviceaccount/token");
    assert_eq!(holding(it.cluster.data.path(), &[&token]), "");
    it.check();

    it.apply(&secret("zwei"));
    it.cluster.until("the volume shows the new value", || {
        (it.exec("cat /all/password") == format!("{MARK}zwei")).then_some(())
    });
    it.check();
    it.cluster.crash_and_restart();
    assert_eq!(it.exec("cat /all/password"), format!("{MARK}zwei"));
    let stored = |it: &Watched| it.cluster.ok(&["get", "secret", "key", "-o", "jsonpath={.data.password}"]);
    assert!(stored(&it).starts_with(MARK_BASE64));
    it.check();

    // Rotation: a new key in front, then without the old one; and neither.
    it.cluster.stop();
    let old = fs::read_to_string(it.key()).expect("keys");
    let new = "bmV1ZXIgU2NobHVlc3NlbCwgMzIgQnl0ZXMgbGFuZyE=\n";
    fs::write(it.key(), format!("{new}{old}")).expect("written");
    it.cluster.restart();
    it.cluster.stop();
    fs::write(it.key(), &old).expect("written");
    let text = it.refusal();
    assert!(text.contains("DATA/store/state.redb holds 2 encrypted values whose key "), "{text}");
    fs::remove_file(it.key()).expect("removed");
    assert_eq!(it.refusal().lines().count(), 1);
    assert!(!it.key().exists());
    fs::write(it.key(), new).expect("written");
    assert!(it.refusal().contains("`chmod 600` it"));
    fs::set_permissions(it.key(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("closed");
    it.cluster.restart();
    assert!(stored(&it).starts_with(MARK_BASE64));
    it.check();

    it.cluster.ok(&["delete", "pod,secret", "--all", "--wait"]);
    it.cluster.stop();
    it.check();
}
