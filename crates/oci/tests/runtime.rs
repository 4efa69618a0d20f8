//! Containers as they really run. The test program is its own shim; see `rig`.
#![allow(unsafe_code)] // the shim's entry before `main`, and signals

#[path = "runtime/rig.rs"]
mod rig;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rig::{Rig, exit, with_rig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use yado_oci::runtime::{Error, FdStream, Refusal, Runtime};
use yado_oci::spec::*;

type Change = Box<dyn Fn(&Rig, &mut ContainerSpec)>;

/// One row: what is changed in a shell container, how it ends, what its log says.
struct Row {
    name: &'static str,
    script: String,
    change: Change,
    code: i32,
    log: String,
}

const SAME: fn(&Rig, &mut ContainerSpec) = |_, _| {};

fn check(rows: Vec<Row>) {
    with_rig(|rig| async move {
        let sandbox = rig.sandbox("rows").await;
        for (number, row) in rows.into_iter().enumerate() {
            let mut spec = rig.shell(&format!("row-{number}"), &row.script);
            (row.change)(&rig, &mut spec);
            let (code, _, message) = rig.run(&sandbox, spec).await;
            let log = rig.log(&format!("row-{number}"));
            assert_eq!(
                (code, log.as_str(), message.as_str()),
                (row.code, row.log.as_str(), ""),
                "{}",
                row.name
            );
        }
    });
}

fn row(
    name: &'static str,
    script: impl Into<String>,
    change: impl Fn(&Rig, &mut ContainerSpec) + 'static,
    code: i32,
    log: impl Into<String>,
) -> Row {
    Row { name, script: script.into(), change: Box::new(change), code, log: log.into() }
}

#[test]
fn processes() {
    check(vec![
        row("success", "true", SAME, 0, ""),
        row("exit code", "exit 7", SAME, 7, ""),
        row(
            "a signal",
            "kill -9 $$; sh -c 'kill -TERM $$; sleep 9'; exit $?",
            SAME,
            143,
            "stderr F Terminated\n",
        ),
        row("both streams", "echo out; echo err >&2", SAME, 0, "stdout F out\nstderr F err\n"),
        row("no newline at the end", "printf a", SAME, 0, "stdout F a\n"),
        row(
            "its own processes",
            "echo $$; set -- /proc/[0-9]*; echo $*",
            SAME,
            0,
            "stdout F 1\nstdout F /proc/1\n",
        ),
        row("the sandbox's host name", "hostname", SAME, 0, "stdout F host-rows\n"),
        row("no standard input", "cat; echo $?", SAME, 0, "stdout F 0\n"),
        row(
            "environment: defaults, order, the last wins",
            "echo $HOME $PATH $A",
            |_, spec| spec.env = ["A=1", "A=2", "PATH=/bin"].map(Into::into).to_vec(),
            0,
            "stdout F /root /bin 2\n",
        ),
        row("working directory, made", "pwd", |_, spec| spec.cwd = "/a/b".into(), 0, "stdout F /a/b\n"),
        row(
            "user by name",
            "id -u; id -g; id -G; echo $HOME",
            |_, spec| spec.user = "app".into(),
            0,
            "stdout F 1000\nstdout F 1001\nstdout F 1001 50\nstdout F /home/app\n",
        ),
        row(
            "user by number, further groups",
            "id -u; id -g; id -G",
            |_, spec| {
                spec.user = "1234:5".into();
                spec.groups = vec![77];
            },
            0,
            "stdout F 1234\nstdout F 5\nstdout F 5 77\n",
        ),
        row("nothing inherited", "ls /proc/self/fd | wc -l", SAME, 0, "stdout F 4\n"),
        row("score", "cat /proc/self/oom_score_adj", |_, spec| spec.oom_score_adj = 999, 0, "stdout F 999\n"),
        row(
            "signals as new",
            "",
            |_, spec| {
                spec.args = ["grep", "-E", "SigBlk|SigIgn", "/proc/self/status"].map(str::to_owned).to_vec()
            },
            0,
            "stdout F SigBlk:\t0000000000000000\nstdout F SigIgn:\t0000000000000000\n",
        ),
    ]);
}

#[test]
fn file_systems() {
    check(vec![
        row("a writable root", "echo x > /new && cat /new", SAME, 0, "stdout F x\n"),
        row(
            "a read-only root",
            "echo x > /new; echo $?; touch /dev/shm/ok && echo ok",
            |_, spec| spec.read_only_root = true,
            0,
            "stdout F 1\nstdout F ok\nstderr F sh: can't create /new: Read-only file system\n",
        ),
        row("layers are not written", "rm /data/link /bin/ls; test ! -e /data/link", SAME, 0, ""),
        row(
            "and so come back",
            "readlink /data/link; ls -d /usr/up/bin",
            SAME,
            0,
            "stdout F /etc/passwd\nstdout F /usr/up/bin\n",
        ),
        row(
            "a directory and a file, mounted at new places, and through the image's links only inside",
            "cat /new/dir/f /usr/up/one; echo y > /new/dir/g; grep -c . /data/link",
            |rig, spec| {
                let volume = rig.dir.join("volume");
                fs::create_dir_all(&volume).unwrap();
                fs::write(volume.join("f"), "f\n").unwrap();
                let bind = |source: PathBuf, target: &str| BindMount {
                    source,
                    target: target.into(),
                    read_only: false,
                };
                spec.mounts = vec![
                    bind(volume.clone(), "/new/dir"),
                    bind(volume.join("f"), "/usr/up/one"),
                    bind(volume.join("f"), "/data/link"),
                ];
            },
            0,
            "stdout F f\nstdout F f\nstdout F 1\n",
        ),
        row(
            "what it wrote is there, and read-only holds",
            "cat /v/g; touch /v/h || touch /v/sub/h",
            |rig, spec| {
                let volume = rig.dir.join("volume");
                spec.mounts = vec![BindMount { source: volume, target: "/v".into(), read_only: true }];
            },
            1,
            "stdout F y\nstderr F touch: /v/h: Read-only file system\nstderr F touch: /v/sub/h: No such file or directory\n",
        ),
        row(
            "a file where the image has a link that leads nowhere yet",
            "cat /etc/resolv.conf; ls /run",
            |rig, spec| {
                let layer = rig.dir.join("links");
                fs::create_dir_all(layer.join("etc")).unwrap();
                std::os::unix::fs::symlink("../run/made/for/it", layer.join("etc/resolv.conf")).unwrap();
                spec.layers.insert(0, layer);
                let source = rig.dir.join("volume/f");
                spec.mounts = vec![BindMount { source, target: "/etc/resolv.conf".into(), read_only: false }];
            },
            1,
            "stdout F f\nstderr F ls: /run: No such file or directory\n",
        ),
        row(
            "devices",
            "ls /dev | tr '\\n' ' '; echo; head -c 2 /dev/zero | wc -c; echo x > /dev/null",
            SAME,
            0,
            "stdout F fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero \nstdout F 2\n",
        ),
        row(
            "no other device",
            "mknod /disk b 254 0 && head -c 1 /disk",
            SAME,
            1,
            "stderr F head: /disk: Operation not permitted\n",
        ),
        row(
            "hidden and read-only kernel files",
            "wc -c < /proc/keys; echo 1 > /proc/sys/vm/overcommit_memory; ls /sys/firmware | wc -l; touch /sys/x",
            SAME,
            1,
            "stdout F 0\nstdout F 0\n\
             stderr F sh: can't create /proc/sys/vm/overcommit_memory: Read-only file system\n\
             stderr F touch: /sys/x: Read-only file system\n",
        ),
        row(
            "its limits are seen where programs look",
            "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true",
            |_, spec| spec.resources.memory_limit = Some(64 << 20),
            0,
            "stdout F 67108864\n",
        ),
    ]);
}

#[test]
fn the_machines_own_root() {
    let host = |hidden: &[&str]| Some(HostRoot { hidden: hidden.iter().map(PathBuf::from).collect() });
    let name = fs::read_to_string("/etc/passwd").unwrap().lines().next().unwrap().to_owned();
    let kept = tempfile::Builder::new().prefix("yado-host-").tempdir_in("/var").unwrap();
    fs::write(kept.path().join("secret"), "secret").unwrap();
    let hidden = kept.path().to_string_lossy().into_owned();
    let script = format!(
        "head -n 1 /etc/passwd; ls -A /tmp /run | tr '\\n' ' '; ls -A {hidden}; cat {hidden}/secret 2>&1 | grep -c 'No such'; \
         echo mine > /etc/of-the-container && cat /etc/of-the-container; touch {hidden}/x 2>/dev/null || echo closed"
    );
    check(vec![
        row(
            "programs and files of the machine, written to without a trace, and nothing hidden",
            script,
            move |_, spec| spec.host = host(&[hidden.as_str(), "/nowhere"]),
            0,
            format!("stdout F {name}\nstdout F /run:  /tmp: 1\nstdout F mine\nstdout F closed\n"),
        ),
        row(
            "a user that the machine knows",
            "id -un; touch /etc/x",
            |_, spec| {
                spec.host = Some(HostRoot::default());
                spec.user = "daemon".into();
            },
            1,
            "stdout F daemon\nstderr F touch: cannot touch '/etc/x': Permission denied\n",
        ),
    ]);
    assert!(!Path::new("/etc/of-the-container").exists());
}

#[test]
fn rights() {
    check(vec![
        row(
            "limits of its processes",
            "ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -Hl",
            |_, spec| {
                let limit = |soft, hard| Limit { soft, hard };
                spec.limits =
                    [("nofile", limit(100, 2000)), ("core", limit(0, 0)), ("memlock", limit(0, 1024))]
                        .map(|(name, limit)| (name.to_owned(), limit))
                        .into();
                spec.user = "app".into();
            },
            0,
            "stdout F 100\nstdout F 2000\nstdout F 0\nstdout F 1\n",
        ),
        row(
            "the default filter refuses",
            "unshare -U true",
            SAME,
            1,
            "stderr F unshare: unshare(0x10000000): Operation not permitted\n",
        ),
        row("no filter does not", "unshare -U true", |_, spec| spec.seccomp = Seccomp::Unconfined, 0, ""),
        row(
            "with no_new_privs, and for a user",
            "unshare -U true; grep -E 'NoNewPrivs|Seccomp:' /proc/self/status",
            |_, spec| {
                spec.no_new_privileges = true;
                spec.user = "app".into();
            },
            0,
            "stdout F NoNewPrivs:\t1\nstdout F Seccomp:\t2\n\
             stderr F unshare: unshare(0x10000000): Operation not permitted\n",
        ),
        row(
            "a profile",
            "mkdir /x",
            |rig, spec| {
                let path = rig.dir.join("profile.json");
                let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
                    {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}"#;
                fs::write(&path, text).unwrap();
                spec.seccomp = Seccomp::Profile(path);
            },
            1,
            "stderr F mkdir: can't create directory '/x': No space left on device\n",
        ),
        row(
            "capabilities",
            "grep -E 'Cap(Prm|Eff|Bnd|Amb)' /proc/self/status",
            |_, spec| spec.capabilities = vec!["CAP_CHOWN".into(), "KILL".into()],
            0,
            "stdout F CapPrm:\t0000000000000021\nstdout F CapEff:\t0000000000000021\n\
             stdout F CapBnd:\t0000000000000021\nstdout F CapAmb:\t0000000000000000\n",
        ),
        row(
            "none for a user",
            "grep CapEff /proc/self/status",
            |_, spec| spec.user = "app".into(),
            0,
            "stdout F CapEff:\t0000000000000000\n",
        ),
        row(
            "privileged",
            "mount -t tmpfs t /tmp && ls /dev/vda /dev/kmsg >/dev/null 2>&1; unshare -m true && echo ok",
            |_, spec| spec.privileged = true,
            0,
            "stdout F ok\n",
        ),
        row(
            "processes are limited",
            "for i in 1 2 3 4 5 6 7 8; do sleep 9 & done 2>/dev/null; true",
            |_, spec| spec.resources.pids_limit = Some(4),
            2,
            "",
        ),
    ]);
}

#[test]
fn memory_limit_is_reported() {
    with_rig(|rig| async move {
        let sandbox = rig.sandbox("oom").await;
        let mut spec = rig.shell("eater", "x=aaaaaaaa; while :; do x=$x$x; done");
        spec.resources.memory_limit = Some(16 << 20);
        assert_eq!(rig.run(&sandbox, spec).await, (137, true, String::new()));
        let modest = rig.shell("modest", "true");
        assert_eq!(rig.run(&sandbox, modest).await, (0, false, String::new()));
    });
}

#[test]
fn programs_that_cannot_run() {
    with_rig(|rig| async move {
        let sandbox = rig.sandbox("missing").await;
        fs::write(rig.dir.join("layer/bin/plain"), "x").unwrap();
        fs::write(rig.dir.join("layer/bin/script"), "#!/no/such\n").unwrap();
        fs::set_permissions(rig.dir.join("layer/bin/script"), fs::Permissions::from_mode(0o755)).unwrap();
        // A process of a container is not its own program yet when it looks for that.
        fs::write(rig.dir.join("layer/bin/engine"), "#!/proc/self/exe\n").unwrap();
        fs::set_permissions(rig.dir.join("layer/bin/engine"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("/proc/self/exe", rig.dir.join("layer/bin/itself")).unwrap();
        let rows: [(&[&str], &str, &str); 16] = [
            (&["/proc/self/exe"], "", r#"exec: "/proc/self/exe": permission denied"#),
            (&["/proc/1/exe"], "", r#"exec: "/proc/1/exe": permission denied"#),
            (&["/proc/thread-self/exe", "--help"], "", r#"exec: "/proc/thread-self/exe": permission denied"#),
            (&["engine"], "", r#"exec: "engine": permission denied"#),
            (&["itself"], "", r#"exec: "itself": permission denied"#),
            (
                &["sh"],
                "toor",
                r#"the container must not run as root (runAsNonRoot), and its user "toor" is root"#,
            ),
            (&["sh"], "4294967295", "the user id 4294967295 is not between 0 and 2147483647"),
            (&["sh"], "1:2147483648", "the group id 2147483648 is not between 0 and 2147483647"),
            (
                &["sh"],
                "most",
                "the user most has the id 4294967295 in the image, which is not between 0 and 2147483647",
            ),
            (&["foo"], "", r#"exec: "foo": executable file not found in $PATH"#),
            (&["/foo"], "", r#"exec: "/foo": stat /foo: no such file or directory"#),
            (&["plain"], "", r#"exec: "plain": permission denied"#),
            (&["/bin"], "", r#"exec: "/bin": is a directory"#),
            (
                &["script"],
                "",
                r#"exec: "script": no such file or directory (is its interpreter or loader in the image?)"#,
            ),
            (&["sh"], "ghost", "unable to find user ghost: no matching entries in passwd file"),
            (&[], "", "the container has no command: neither the image nor the specification names one"),
        ];
        let users = "root:x:0:0::/root:/bin/sh\nmost:x:4294967295:0::/:/bin/sh\ntoor:x:0:0::/:/bin/sh\n";
        fs::write(rig.dir.join("layer/etc/passwd"), users).unwrap();
        for (number, (args, user, expect)) in rows.into_iter().enumerate() {
            let id = format!("c{number}");
            let mut spec = rig.shell(&id, "");
            spec.args = args.iter().map(|word| (*word).to_owned()).collect();
            spec.user = user.to_owned();
            spec.run_as_non_root = user == "toor";
            let created = sandbox.create(spec).await;
            let started = if created.is_ok() { sandbox.start(&id).await.map(|_| ()) } else { created };
            match started {
                Err(Error::Refused { kind: Refusal::CannotStart, message }) => assert_eq!(message, expect),
                other => panic!("{args:?}: {other:?}"),
            }
            // One that failed to be created is not there; one that failed to start has exited and says why.
            let status = sandbox.status(&id).map(|status| status.state);
            match status {
                None => assert!(!user.is_empty() || args.is_empty()),
                Some(ContainerState::Exited { code: 128, message, started_at: None, .. }) => {
                    assert_eq!(message, expect)
                }
                Some(other) => panic!("{other:?}"),
            }
            sandbox.remove(&id).await.unwrap();
        }
    });
}

async fn read_until(stream: &mut FdStream, end: &str) -> String {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(end) {
        let mut buffer = [0; 1024];
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "ended after {:?}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

async fn read_all(stream: &mut FdStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

fn exec_spec(args: &[&str], terminal: bool, stdin: bool) -> ExecSpec {
    ExecSpec { args: args.iter().map(|word| (*word).to_owned()).collect(), env: vec![], terminal, stdin }
}

#[test]
fn exec() {
    with_rig(|rig| async move {
        let sandbox = rig.sandbox("exec").await;
        let mut spec = rig.shell("main", "sleep 1000");
        spec.user = "app".into();
        spec.env = vec!["FROM=container".into()];
        spec.cwd = "/tmp".into();
        sandbox.create(spec).await.unwrap();
        let before = sandbox.exec("main", exec_spec(&["true"], false, false)).await;
        assert!(matches!(before, Err(Error::Refused { kind: Refusal::WrongState, .. })), "{before:?}");
        sandbox.start("main").await.unwrap();

        let script = "id -u; echo $FROM $EXTRA $HOME; pwd; cat; echo bad >&2; exit 3";
        let mut request = exec_spec(&["sh", "-c", script], false, true);
        request.env = vec!["EXTRA=1".into()];
        let mut session = sandbox.exec("main", request).await.unwrap();
        let mut stdin = session.stdin.take().unwrap();
        stdin.write_all(b"typed\n").await.unwrap();
        drop(stdin);
        let (mut out, mut err) = (session.stdout.take().unwrap(), session.stderr.take().unwrap());
        assert_eq!(read_all(&mut out).await, "1000\ncontainer 1 /home/app\n/tmp\ntyped\n");
        assert_eq!(read_all(&mut err).await, "bad\n");
        assert_eq!(session.wait().await.unwrap(), 3);

        let missing = sandbox.exec("main", exec_spec(&["foo"], false, false)).await.unwrap_err();
        assert_eq!(missing.to_string(), r#"exec: "foo": executable file not found in $PATH"#);

        let engine = sandbox.exec("main", exec_spec(&["/proc/self/exe"], false, false)).await.unwrap_err();
        assert_eq!(engine.to_string(), r#"exec: "/proc/self/exe": permission denied"#);

        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let second = Duration::from_secs(120);
        let output =
            sandbox.exec_sync("main", words(&["sh", "-c", "yes | head -c 9000; exit 4"]), second, 100).await;
        let output = output.unwrap();
        assert_eq!((output.code, output.stdout.len(), output.stderr.len()), (4, 100, 0));
        // What stays in the background, with its streams open, is not waited for.
        let leaves = words(&["sh", "-c", "sleep 999 & echo there; exit 5"]);
        let output = sandbox.exec_sync("main", leaves, second, 100).await.unwrap();
        assert_eq!((output.code, output.stdout), (5, b"there\n".to_vec()));
        let slow = words(&["sh", "-c", "sleep 1000 & sh -c 'sleep 1000; true'; true"]);
        let slow = sandbox.exec_sync("main", slow, Duration::from_millis(500), 100).await;
        assert!(matches!(slow, Err(Error::ExecTimeout(_))), "{slow:?}");
        // It was killed with all it had started: only the main process and this one are left.
        loop {
            let ps = sandbox.exec_sync("main", words(&["ps", "-o", "args"]), second, 1000).await.unwrap();
            let text = String::from_utf8(ps.stdout).unwrap();
            if text.matches("sleep 1000").count() == 1 {
                break;
            }
        }
        sandbox.signal("main", libc::SIGKILL).await.unwrap();
        assert_eq!(exit(&sandbox, "main").await.0, 137);
        sandbox.signal("main", libc::SIGKILL).await.unwrap();
    });
}

#[test]
fn exec_with_a_terminal() {
    with_rig(|rig| async move {
        let sandbox = rig.sandbox("tty").await;
        sandbox.create(rig.shell("main", "sleep 1000")).await.unwrap();
        sandbox.start("main").await.unwrap();
        let mut session = sandbox.exec("main", exec_spec(&["sh"], true, true)).await.unwrap();
        session.resize(101, 33).unwrap();
        let (mut stdin, mut out) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
        stdin.write_all(b"tty; stty size; echo first=$?\n").await.unwrap();
        let text = read_until(&mut out, "first=0").await;
        assert!(text.contains("/dev/pts/0\r\n33 101\r\n"), "{text:?}");
        // The terminal controls: Ctrl-C interrupts what runs, and the shell goes on.
        stdin.write_all(b"sleep 1000\n").await.unwrap();
        read_until(&mut out, "sleep 1000").await;
        loop {
            let ps =
                sandbox.exec_sync("main", vec!["ps".into()], Duration::from_secs(120), 4000).await.unwrap();
            if String::from_utf8_lossy(&ps.stdout).matches("sleep 1000").count() == 2 {
                break;
            }
        }
        stdin.write_all(b"\x03").await.unwrap();
        stdin.write_all(b"echo code=$?\n").await.unwrap();
        read_until(&mut out, "code=130").await;
        stdin.write_all(b"exit 5\n").await.unwrap();
        read_all(&mut out).await;
        assert_eq!(session.wait().await.unwrap(), 5);
    });
}

#[test]
fn attach() {
    with_rig(|rig| async move {
        let sandbox = rig.sandbox("attach").await;
        let mut spec = rig.shell("cat", "echo ready; cat; echo ended");
        spec.stdin = true;
        sandbox.create(spec).await.unwrap();
        let mut session = sandbox.attach("cat").await.unwrap();
        sandbox.start("cat").await.unwrap();
        session.stdin.as_mut().unwrap().write_all(b"typed\n").await.unwrap();
        assert_eq!(read_until(&mut session.stdout, "typed\n").await, "ready\ntyped\n");
        session.stdin = None;
        sandbox.close_stdin("cat").await.unwrap();
        assert_eq!(read_all(&mut session.stdout).await, "ended\n");
        assert_eq!(exit(&sandbox, "cat").await.0, 0);
        assert_eq!(rig.log("cat"), "stdout F ready\nstdout F typed\nstdout F ended\n");

        let mut spec = rig.shell("shell", "stty size; tty; read x; echo got $x; stty size");
        (spec.stdin, spec.terminal) = (true, true);
        sandbox.create(spec).await.unwrap();
        let mut session = sandbox.attach("shell").await.unwrap();
        session.resize(90, 20).unwrap();
        sandbox.start("shell").await.unwrap();
        read_until(&mut session.stdout, "20 90\r\n/dev/pts/0").await;
        session.resize(91, 21).unwrap();
        session.stdin.as_mut().unwrap().write_all(b"hello\n").await.unwrap();
        read_until(&mut session.stdout, "got hello\r\n21 91").await;
        assert_eq!(exit(&sandbox, "shell").await.0, 0);
    });
}

#[test]
fn logs_are_rotated_and_output_never_waits() {
    with_rig(|rig| async move {
        let sandbox = rig.sandbox("logs").await;
        let mut spec = rig.shell("talker", "for i in $(seq 1 2000); do echo line $i; done");
        spec.log.max_bytes = 10_000;
        assert_eq!(rig.run(&sandbox, spec).await.0, 0);
        let log = rig.log_path("talker");
        let files: Vec<String> = ["", ".1", ".2", ".3"]
            .iter()
            .filter_map(|end| fs::read_to_string(format!("{}{end}", log.display())).ok())
            .collect();
        assert_eq!(files.len(), 3);
        assert!(files.iter().all(|text| text.len() <= 10_000));
        assert!(files[0].ends_with(" stdout F line 2000\n"));

        // The log cannot be written at all, and the container ends all the same.
        let mut spec = rig.shell("muted", "yes | head -c 300000; exit 9");
        spec.log.path = rig.dir.join("no/such/dir/log");
        assert_eq!(rig.run(&sandbox, spec).await.0, 9);
    });
}

#[test]
fn containers_of_a_sandbox_share() {
    with_rig(|rig| async move {
        let words = |text: &str| vec!["sh".to_owned(), "-c".to_owned(), text.to_owned()];
        let limit = Duration::from_secs(120);
        let mut spec = rig.sandbox_spec("shared");
        spec.share_pid = true;
        spec.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
        let sandbox = rig.runtime.create_sandbox(spec).await.unwrap();
        for id in ["one", "two"] {
            sandbox.create(rig.shell(id, "sleep 1000 & wait")).await.unwrap();
            sandbox.start(id).await.unwrap();
        }
        let say = async |id: &str, text: &str| {
            let output = sandbox.exec_sync(id, words(text), limit, 1000).await.unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        // Process 1 is seen by all, and its root is not the machine's. Only a container that may trace it sees as much.
        let mut tracer = rig.shell("tracer", "sleep 2000");
        tracer.capabilities.push("CAP_SYS_PTRACE".into());
        sandbox.create(tracer).await.unwrap();
        sandbox.start("tracer").await.unwrap();
        assert_eq!(
            say("tracer", "cat /proc/1/comm; ls -A /proc/1/root/; ls -A /proc/1/cwd/").await,
            "pause\n"
        );
        say("one", "echo x > /dev/shm/f").await;
        assert_eq!(say("two", "cat /dev/shm/f").await, "x\n");
        assert_eq!(say("two", "cat /proc/sys/kernel/shm_rmid_forced").await, "1\n");
        assert_eq!(
            say("one", "readlink /proc/self/ns/ipc").await,
            say("two", "readlink /proc/self/ns/ipc").await
        );
        // Each shell takes its moment to start it.
        let asleep = "ps -o args | grep -c '[s]leep 1000$'";
        while say("one", asleep).await != "2\n" {}
        // What a container leaves in the shared namespace goes with it, and not the other's.
        sandbox.signal("one", libc::SIGKILL).await.unwrap();
        assert_eq!(exit(&sandbox, "one").await.0, 137);
        while say("two", asleep).await != "1\n" {}
        let usage = rig.runtime.usage("shared", None).unwrap();
        assert!(usage.cpu_ns > 0 && usage.page_faults > 0, "{usage:?}");
        assert!(usage.memory >= usage.working_set && usage.working_set > 0, "{usage:?}");
        let two = rig.runtime.usage("shared", Some("two")).unwrap();
        assert!(two.cpu_ns > 0 && two.page_faults > 0 && two.anonymous <= usage.memory, "{two:?}");
        assert!(!rig.runtime.processes("shared", "two").is_empty());
        assert_eq!(rig.runtime.usage("shared", Some("three")), None);
        assert_eq!(rig.runtime.usage("other", None), None);
        assert_eq!(rig.runtime.usage("../shared", None), None);

        let mut spec = rig.sandbox_spec("bad");
        spec.sysctls.insert("vm.overcommit_memory".into(), "1".into());
        let error = rig.runtime.create_sandbox(spec).await.err().unwrap().to_string();
        assert!(error.contains("would change the host"), "{error}");
    });
}

#[test]
fn network_namespace() {
    with_rig(|rig| async move {
        let mut holder = std::process::Command::new("unshare").args(["-n", "sleep", "1000"]).spawn().unwrap();
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let path = PathBuf::from(format!("/proc/{}/ns/net", holder.id()));
        while fs::read_link(&path).unwrap() == own {
            tokio::task::yield_now().await;
        }
        let mut spec = rig.sandbox_spec("net");
        spec.netns = Some(path.clone());
        spec.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
        let sandbox = rig.runtime.create_sandbox(spec).await.unwrap();
        let script = "ls /sys/class/net; cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
        assert_eq!(rig.run(&sandbox, rig.shell("c", script)).await.0, 0);
        assert_eq!(rig.log("c"), "stdout F lo\nstdout F 0\n");
        holder.kill().unwrap();
        holder.wait().unwrap();
    });
}

#[test]
fn twenty_at_once() {
    with_rig(|rig| async move {
        let runs = (0..20).map(|number| {
            let rig = rig.clone();
            async move {
                let sandbox = rig.sandbox(&format!("many-{number}")).await;
                let spec = rig.shell(&format!("c-{number}"), &format!("echo {number}; exit {number}"));
                assert_eq!(rig.run(&sandbox, spec).await.0, number);
                assert_eq!(rig.log(&format!("c-{number}")), format!("stdout F {number}\n"));
                rig.runtime.destroy(&format!("many-{number}")).await.unwrap();
            }
        });
        futures::future::join_all(runs).await;
        rig.assert_no_traces();
    });
}

#[test]
fn ids_and_states() {
    with_rig(|rig| async move {
        let sandbox = rig.sandbox("ids").await;
        for id in ["", "A", "a/b", "..", "a b", &"x".repeat(64)] {
            let result = rig.runtime.create_sandbox(rig.sandbox_spec(id)).await;
            assert!(matches!(result, Err(Error::InvalidId { .. })), "{id:?}");
        }
        let again = rig.runtime.create_sandbox(rig.sandbox_spec("ids")).await;
        assert!(matches!(again, Err(Error::SandboxExists { .. })));
        assert!(matches!(rig.runtime.adopt("other").await, Err(Error::NoSuchSandbox { .. })));
        rig.runtime.destroy("other").await.unwrap();

        let kind = |result: Result<(), Error>| match result {
            Err(Error::Refused { kind, .. }) => kind,
            other => panic!("{other:?}"),
        };
        sandbox.create(rig.shell("c", "sleep 1000")).await.unwrap();
        assert_eq!(kind(sandbox.create(rig.shell("c", "true")).await), Refusal::ContainerExists);
        assert_eq!(kind(sandbox.start("d").await.map(|_| ())), Refusal::NoSuchContainer);
        sandbox.start("c").await.unwrap();
        assert_eq!(kind(sandbox.start("c").await.map(|_| ())), Refusal::WrongState);
        assert_eq!(kind(sandbox.remove("c").await), Refusal::WrongState);
        sandbox.kill_all().await.unwrap();
        assert_eq!(exit(&sandbox, "c").await.0, 137);
        sandbox.remove("c").await.unwrap();
        sandbox.remove("c").await.unwrap();
        assert_eq!(sandbox.statuses(), []);
        // The name is free again, and a container that never ran can be removed too.
        sandbox.create(rig.shell("c", "true")).await.unwrap();
        sandbox.remove("c").await.unwrap();
    });
}

/// Runs only as a part of the next test: a daemon that starts two containers and is killed.
#[test]
#[ignore = "a part of another test"]
fn as_doomed_daemon() {
    let (Some(dir), Some(cgroup)) = (std::env::var_os("DAEMON_DIR"), std::env::var("DAEMON_CGROUP").ok())
    else {
        return;
    };
    let dir = PathBuf::from(dir);
    let config = yado_oci::runtime::Config {
        state_dir: dir.join("state"),
        shim_exe: "/proc/self/exe".into(),
        cgroup_root: cgroup,
    };
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    executor.block_on(async {
        let rig = Rig { runtime: Runtime::new(config.clone()).unwrap(), config, dir };
        let sandbox = rig.sandbox("doomed").await;
        for (id, script) in [("waits", "read x < /fifo/f; exit 41"), ("stays", "sleep 1000")] {
            let mut spec = rig.shell(id, script);
            spec.mounts =
                vec![BindMount { source: rig.dir.clone(), target: "/fifo".into(), read_only: false }];
            sandbox.create(spec).await.unwrap();
            sandbox.start(id).await.unwrap();
        }
        fs::write(rig.dir.join("started"), "").unwrap();
        std::future::pending::<()>().await;
    });
}

#[test]
fn containers_outlive_the_daemon_and_are_adopted() {
    with_rig(|rig| async move {
        let fifo = rig.dir.join("f");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut daemon = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "as_doomed_daemon"])
            .env("DAEMON_DIR", &rig.dir)
            .env("DAEMON_CGROUP", &rig.config.cgroup_root)
            .stdout(std::process::Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let pid = daemon.id().unwrap() as i32;
        while !rig.dir.join("started").exists() {
            assert!(daemon.try_wait().unwrap().is_none(), "the daemon ended");
            tokio::task::yield_now().await;
        }
        // The whole process group, as a terminal's Ctrl-C or a supervisor would.
        // SAFETY: a system call without pointers, on a group that this test made.
        unsafe { libc::kill(-pid, libc::SIGKILL) };
        daemon.wait().await.unwrap();
        // One ends while nobody is there.
        fs::write(&fifo, "go\n").unwrap();

        let found = rig.runtime.sandboxes().await.unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].alive);
        assert_eq!(found[0].spec, rig.sandbox_spec("doomed"));
        let sandbox = rig.runtime.adopt("doomed").await.unwrap();
        assert_eq!(exit(&sandbox, "waits").await, (41, false, String::new()));
        assert!(matches!(sandbox.status("stays").unwrap().state, ContainerState::Running { .. }));
        let words = vec!["echo".to_owned(), "here".to_owned()];
        let output = sandbox.exec_sync("stays", words, Duration::from_secs(120), 100).await.unwrap();
        assert_eq!(output.stdout, b"here\n");
    });
}

/// Waits for a killed process to be gone, or a zombie at least: it leaves its cgroup a moment before.
async fn dead(pid: i32) {
    while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        tokio::task::yield_now().await;
    }
}

/// The shim of a container's first process, which is its child.
fn shim_of(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap().parse().unwrap()
}

#[test]
fn a_dead_shim_takes_its_containers_along() {
    with_rig(|rig| async move {
        let sandbox = rig.sandbox("fragile").await;
        let mut state = sandbox.subscribe();
        sandbox.create(rig.shell("ended", "exit 3")).await.unwrap();
        sandbox.start("ended").await.unwrap();
        assert_eq!(exit(&sandbox, "ended").await.0, 3);
        let mut user = rig.shell("c", "sleep 1000 & sleep 1000");
        user.user = "app".into();
        sandbox.create(user).await.unwrap();
        let pid = sandbox.start("c").await.unwrap();
        let shim = shim_of(pid);
        // SAFETY: a system call without pointers; the process is the parent of this test's container.
        unsafe { libc::kill(shim, libc::SIGKILL) };
        let state = state.wait_for(|state| !state.alive).await.unwrap().clone();
        let code = |id: &str| match &state.containers[id].state {
            ContainerState::Exited { code, message, .. } => (*code, message.clone()),
            other => panic!("{other:?}"),
        };
        assert_eq!(code("ended"), (3, String::new()));
        assert_eq!(code("c"), (137, "the shim of sandbox fragile ended unexpectedly".to_owned()));
        dead(pid).await;
        assert!(matches!(sandbox.create(rig.shell("d", "true")).await, Err(Error::ShimGone { .. })));
        sandbox.signal("c", libc::SIGTERM).await.unwrap();
        let fresh = Runtime::new(rig.config.clone()).unwrap();
        assert!(!fresh.sandboxes().await.unwrap()[0].alive);
        assert!(matches!(fresh.adopt("fragile").await, Err(Error::ShimGone { .. })));
        fresh.destroy("fragile").await.unwrap();
        rig.assert_no_traces();
    });
}

#[test]
fn a_shim_whose_directory_was_deleted_is_found_and_ended() {
    with_rig(|rig| async move {
        let socket_only = |dir: &std::path::Path| fs::remove_file(dir.join("shim.sock")).unwrap();
        let everything = |dir: &std::path::Path| fs::remove_dir_all(dir).unwrap();
        for (id, spoil, found_again) in
            [("socket", &socket_only as &dyn Fn(&std::path::Path), true), ("everything", &everything, false)]
        {
            let sandbox = rig.sandbox(id).await;
            sandbox.create(rig.shell("c", "sleep 1000 & sleep 1000")).await.unwrap();
            let pid = sandbox.start("c").await.unwrap();
            // It is moved to its cgroup a moment after it answers.
            while !fs::read_to_string(format!("/proc/{}/cgroup", shim_of(pid))).unwrap().contains("/.shims") {
                tokio::task::yield_now().await;
            }
            let fresh = Runtime::new(rig.config.clone()).unwrap();
            spoil(&rig.config.state_dir.join(id));
            // The one that is connected to it leaves it alone.
            rig.runtime.sandboxes().await.unwrap();
            assert!(matches!(sandbox.status("c").unwrap().state, ContainerState::Running { .. }));
            let found = fresh.sandboxes().await.unwrap();
            assert_eq!(
                found.iter().map(|found| (found.spec.id.as_str(), found.alive)).collect::<Vec<_>>(),
                match found_again {
                    true => vec![(id, false)],
                    false => vec![],
                }
            );
            fresh.destroy(id).await.unwrap();
            dead(pid).await;
            rig.assert_no_traces();
        }
    });
}

#[test]
fn many_layers_with_long_names() {
    with_rig(|rig| async move {
        let sandbox = rig.sandbox("layers").await;
        let mut spec = rig.shell("c", "cat /top; ls / | grep -c '^n'");
        let mut layers = Vec::new();
        for number in 0..100 {
            let layer = rig.dir.join(format!("{number:0>100}:,\\"));
            fs::create_dir(&layer).unwrap();
            fs::write(layer.join(format!("n{number}")), "").unwrap();
            fs::write(layer.join("top"), format!("{number}\n")).unwrap();
            layers.push(layer);
        }
        layers.append(&mut spec.layers);
        spec.layers = layers;
        assert_eq!(rig.run(&sandbox, spec).await.0, 0);
        assert_eq!(rig.log("c"), "stdout F 0\nstdout F 100\n");
    });
}

/// Not a test of a limit, only its report: `cargo test --test runtime -- --ignored --no-capture timings`.
#[test]
#[ignore = "prints timings"]
fn timings() {
    with_rig(|rig| async move {
        let mut rows: Vec<[f64; 4]> = Vec::new();
        let mut private = 0;
        for number in 0..100 {
            let id = format!("t-{number}");
            let begin = std::time::Instant::now();
            let sandbox = rig.sandbox(&id).await;
            let made = begin.elapsed();
            let mut spec = rig.shell(&id, "");
            spec.args = vec!["true".into()];
            sandbox.create(spec).await.unwrap();
            let created = begin.elapsed();
            let pid = sandbox.start(&id).await.unwrap();
            let started = begin.elapsed();
            if let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
                let shim = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap();
                let smaps = fs::read_to_string(format!("/proc/{shim}/smaps_rollup")).unwrap_or_default();
                let field =
                    |name| smaps.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
                let size = |name| field(name).map_or(0, |text| text.parse::<u64>().unwrap());
                private = private.max(size("Private_Dirty:") + size("Private_Clean:"));
            }
            exit(&sandbox, &id).await;
            rig.runtime.destroy(&id).await.unwrap();
            rows.push([made, created, started, begin.elapsed()].map(|time| time.as_secs_f64() * 1e3));
        }
        for (column, name) in ["sandbox", "created", "started", "destroyed"].iter().enumerate() {
            let mut times: Vec<f64> = rows.iter().map(|row| row[column]).collect();
            times.sort_by(f64::total_cmp);
            eprintln!("{name}: p50 {:.2} ms, p99 {:.2} ms after the start", times[50], times[98]);
        }
        eprintln!("a shim's private memory: {private} KiB");
    });
}
