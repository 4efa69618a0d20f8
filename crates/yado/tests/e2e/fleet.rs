//! `yado fleet` against a running engine, as users of fleetctl type it.

use std::process::{Command, Output};

use crate::cluster::{Cluster, YADO, patiently};

/// What is typed, its exit code, and what output and errors together must hold; `!` before an expectation means it must
/// not be there.
type Row = (&'static str, i32, &'static [&'static str]);

fn fleet(cluster: &Cluster, line: &str) -> Output {
    let mut command: Command = cluster.command(YADO);
    command.current_dir(cluster.data.path()).arg("fleet").args(line.split(' ')).output().expect("yado")
}

/// Whether a verb only shows what there is. A unit is launched before its first word is in the journal, and the last
/// state of a Pod takes its time to the API, so these are asked again.
fn shows(line: &str) -> bool {
    ["journal", "status", "list-"].iter().any(|verb| line.starts_with(verb))
}

fn check(cluster: &Cluster, rows: &[Row]) {
    for (line, code, expect) in rows {
        let row = || {
            let output = fleet(cluster, line);
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            let met =
                |e: &&&str| e.strip_prefix('!').map_or_else(|| text.contains(**e), |not| !text.contains(not));
            let unmet: Vec<_> = expect.iter().filter(|e| !met(e)).collect();
            if output.status.code() == Some(*code) && unmet.is_empty() {
                return Ok(());
            }
            Err(format!("yado fleet {line}: {}, without {unmet:?}:\n{text}", output.status))
        };
        let done = if shows(line) { patiently(row) } else { row() };
        done.unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

/// A unit of the container `NAME` that says a word and serves it.
fn unit(container: &str, word: &str, more: &str) -> String {
    format!(
        "[Unit]\nDescription=Says {word}\n[Service]\nExecStartPre=-/usr/bin/docker kill {container}\n\
         ExecStart=/usr/bin/docker run --rm --name {container} --hostname {container} busybox sh -c \"trap 'exit 0' TERM; echo {word} from $(hostname); while true; do sleep 0.1; done\"\n\
         ExecStop=/usr/bin/docker stop -t 2 {container}\n{more}"
    )
}

#[test]
fn c07_c10_verbs_of_fleetctl() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    let file = |name: &str, text: &str| std::fs::write(cluster.data.path().join(name), text).expect("a file");
    file("hello.service", &unit("hello", "one", ""));
    file("web@.service", &unit("web-%i", "two", "[X-Fleet]\nX-Conflicts=other@*.service\n"));
    file("broken.service", "[Service]\nExecStrt=/bin/true\n");
    check(
        &cluster,
        &[
            ("list-units", 0, &["UNIT\tMACHINE\tACTIVE\tSUB\n"]),
            ("list-machines", 0, &["MACHINE\t\tIP", "...", "\t-\n"]),
            ("submit broken.service", 2, &["broken.service:2:1: the unit has no ExecStart"]),
            ("cat broken.service", 1, &["Unit broken.service not found"]),
            ("submit hello.service", 0, &["Unit hello.service inactive\n"]),
            ("submit hello.service", 0, &["!inactive"]),
            (
                "list-unit-files",
                0,
                &["UNIT\t\tHASH\tDSTATE\t\tSTATE\t\tTARGET\n", "\tinactive\tinactive\t-\n"],
            ),
            ("cat hello", 0, &["Description=Says one\n"]),
            ("stop hello.service", 1, &["Unable to stop unit hello.service in state inactive"]),
            ("load hello.service", 0, &["Unit hello.service loaded on "]),
            ("list-units -no-legend", 0, &["hello.service\t", "\tinactive\tdead\n", "!ACTIVE"]),
            ("start hello.service", 0, &["Unit hello.service launched on ", ".../"]),
            ("start hello.service", 0, &["!launched"]),
            ("list-units --full", 0, &["hello.service\t", "\tactive\trunning\n", "!..."]),
            ("list-unit-files -fields=unit,dstate,state", 0, &["hello.service\tlaunched\tlaunched\n"]),
            (
                "status hello",
                0,
                &[
                    "● hello.service - Says one",
                    "Active: active (running) since",
                    "Main PID: 1",
                    "one from hello",
                ],
            ),
            ("journal -lines=5 hello", 0, &["one from hello", "sh[1]: "]),
            ("ssh hello.service echo it is $HOSTNAME", 0, &["it is hello"]),
            // C24
            (
                "start web@1 web@2.service",
                0,
                &[
                    "Conflicts=other@*.service matches no unit",
                    "Unit web@1.service launched on ",
                    "Unit web@2.service launched on ",
                ],
            ),
            ("journal web@2", 0, &["two from web-2"]),
            (
                "stop web@1 web@2",
                0,
                &[
                    "Unit web@1.service loaded on ",
                    "Successfully stopped units [web@1.service web@2.service].",
                ],
            ),
            ("unload web@1", 0, &["Unit web@1.service inactive\n"]),
            ("list-units", 0, &["!web@1", "web@2.service"]),
            (
                "destroy web@1 web@2 absent",
                0,
                &["Destroyed web@1.service\nDestroyed web@2.service\n", "Unit absent.service not found"],
            ),
            (
                "start absent@1",
                1,
                &["unable to find template Unit(absent@.service) in Registry or on filesystem"],
            ),
            ("start", 0, &["No units given"]),
            ("journal absent", 1, &["Unit absent.service not found"]),
            ("list-units --fields=no", 2, &["Invalid key in output format"]),
        ],
    );
    // C09: a changed unit replaces the one that is there, and what runs of it.
    file("hello.service", &unit("hello", "three", ""));
    check(
        &cluster,
        &[
            ("submit hello.service", 0, &["Replaced Unit hello.service", "Unit hello.service launched on "]),
            // Launched is said of what is new, not of what it replaces.
            ("ssh hello.service cat /proc/1/cmdline", 0, &["three from", "!one from"]),
            ("journal hello", 0, &["three from hello", "!one from"]),
            ("destroy hello", 0, &["Destroyed hello.service"]),
            ("list-unit-files -no-legend", 0, &["!hello"]),
        ],
    );
    // An old ReplicaSet without Pods may go after those that have some.
    cluster.until("all of it is collected", || {
        (!cluster.ok(&["get", "all", "-o", "name"]).contains("hello")).then_some(())
    });
}

#[test]
fn c08_templates_are_kept_in_the_cluster() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    let file = |text: &str| std::fs::write(cluster.data.path().join("w@.service"), text).expect("a file");
    file(&unit("w-%i", "one", ""));
    check(&cluster, &[("submit w@.service", 0, &["Unit w@.service inactive"])]);
    std::fs::remove_file(cluster.data.path().join("w@.service")).expect("the file");
    check(
        &cluster,
        &[
            ("start w@.service", 1, &["is a template"]),
            ("start --no-block w@1", 0, &["Triggered unit w@1.service start"]),
            ("start w@1 w@2", 0, &["Unit w@2.service launched on"]),
        ],
    );
    file(&unit("w-%i", "two", ""));
    check(
        &cluster,
        &[
            (
                "submit w@.service",
                0,
                &["Replaced Unit w@1.service", "Replaced Unit w@2.service", "Unit w@2.service launched"],
            ),
            ("journal w@2", 0, &["two from w-2"]),
            ("destroy w@*", 0, &["Destroyed w@.service", "Destroyed w@1.service", "Destroyed w@2.service"]),
            ("list-unit-files", 0, &["!w@"]),
        ],
    );
}
