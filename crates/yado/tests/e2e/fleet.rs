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
fn timers_start_units_at_their_times() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    let file = |name: &str, text: &str| std::fs::write(cluster.data.path().join(name), text).expect("a file");
    let run = "ExecStart=/usr/bin/docker run --rm busybox echo it is time";
    file("tick.service", &format!("[Service]\nType=oneshot\n{run}\n"));
    file("tick.timer", "[Timer]\nOnCalendar=minutely\n");
    check(
        &cluster,
        &[
            (
                "submit tick.service tick.timer",
                0,
                &["Unit tick.service inactive", "Unit tick.timer inactive"],
            ),
            ("start tick.timer", 0, &["Unit tick.timer launched, and waits for its times\n"]),
            ("list-units", 0, &["tick.timer\t-", "\tactive\twaiting\n", "!tick.service"]),
            (
                "list-unit-files -fields=unit,state",
                0,
                &["tick.timer\tlaunched\n", "tick.service\tinactive\n"],
            ),
        ],
    );
    // No test waits for a full minute: a Job as the schedule makes it.
    crate::kubectl::check(
        &cluster,
        &[
            ("get cronjob tick", &["* * * * *", "False"]),
            ("create job tick-now --from=cronjob/tick", &["created"]),
            ("wait --for=condition=complete job/tick-now --timeout=180s", &["condition met"]),
        ],
    );
    check(
        &cluster,
        &[
            ("journal tick.service", 0, &["it is time"]),
            ("stop tick.timer", 0, &["tick.timer"]),
            ("journal tick.service", 1, &["Unit tick.service does not appear to be running."]),
            ("destroy tick.timer tick.service", 0, &["Destroyed tick.timer"]),
        ],
    );
    crate::kubectl::check(&cluster, &[("get cronjobs,jobs", &["No resources found"])]);
}

#[test]
fn c07_c09_c10_c13_verbs_of_fleetctl() {
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
                    "Conflicts=other@*.service matches no known unit",
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

/// Instances of one template that each publish a port: it is open as long as its instance is there. What was submitted
/// runs, whatever a file beside it says.
#[test]
fn c05_c09_each_instance_has_its_own_port_and_the_submitted_text() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    let file = |text: &str| {
        let unit = format!(
            "[Service]\nExecStart=/usr/bin/docker run --name nb-%i -p 2219%i:80 busybox sh -c \"echo {text}; exec httpd -f -p 80\"\nExecStop=/usr/bin/docker stop -t 1 nb-%i\n"
        );
        std::fs::write(cluster.data.path().join("nb@.service"), unit).expect("a file");
    };
    let answers = |expect: [bool; 2]| {
        cluster.until("ports are open as long as their instances are there", || {
            let open = ["22191", "22192"].map(|port| {
                let mut ask = cluster.command("curl");
                let url = format!("http://127.0.0.1:{port}/");
                ask.args(["-s", "-o", "/dev/null", "--max-time", "2", &url])
                    .status()
                    .is_ok_and(|s| s.success())
            });
            (open == expect).then_some(())
        });
    };
    file("submitted");
    check(
        &cluster,
        &[("submit nb@.service", 0, &[]), ("start nb@1", 0, &["Unit nb@1.service launched on "])],
    );
    answers([true, false]);
    file("changed");
    check(
        &cluster,
        &[
            ("start nb@2", 0, &["WARNING: Unit nb@.service in registry differs from local unit file"]),
            ("journal nb@2", 0, &["submitted", "!changed"]),
        ],
    );
    answers([true, true]);
    check(&cluster, &[("destroy nb@2", 0, &["Destroyed nb@2.service"])]);
    answers([true, false]);
    check(&cluster, &[("start --replace nb@1", 0, &["Replaced Unit nb@1.service"])]);
    check(&cluster, &[("journal nb@1", 0, &["changed"])]);
    answers([true, false]);
}

/// A unit that runs a program of the machine, with a file of variables there, and one that a container is told by it.
#[test]
fn c04_programs_of_the_machine() {
    let Some(cluster) = Cluster::start_with(&["busybox.tar"], &["--allow-host-image"]) else { return };
    // A program of the machine has a /tmp of its own.
    let own = tempfile::tempdir_in("/var/tmp").expect("a folder");
    std::fs::write(own.path().join("own.env"), "WORD=one -two\nPORT=7777\n").expect("a file");
    let file = |name: &str, text: &str| std::fs::write(cluster.data.path().join(name), text).expect("a file");
    file(
        "ear.service",
        "[Service]\nExecStart=/usr/bin/docker run --name ear -p 7777:7777 busybox sh -c \"trap 'exit 0' TERM; while true; do nc -l -p 7777; done\"\n",
    );
    file(
        "host.service",
        &format!(
            "[Unit]\nDescription=Of the machine\nAfter=ear.service\n[Service]\nEnvironmentFile=-{own}/absent.env\nEnvironmentFile={own}/own.env\n\
             Environment=NAME=host\nExecStartPre=/bin/sh -c \"echo prepared ${{NAME}}\"\n\
             ExecStart=/bin/sh -c \"trap 'exit 0' TERM; echo it is ${{WORD}} of ${{NAME}} %p; while true; do sleep 0.1; done\"\n\
             ExecStop=/bin/sh -c 'echo bye from $WORD | timeout 5 busybox nc 127.0.0.1 $PORT'\n",
            own = own.path().display()
        ),
    );
    // Its command has ended and it has not, so that its end can be told.
    file(
        "stays.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/echo it is set\nExecStop=/bin/sh -c 'echo unset | timeout 5 busybox nc 127.0.0.1 7777'\n",
    );
    check(
        &cluster,
        &[
            ("start ear.service host.service stays.service", 0, &["Unit host.service launched on "]),
            ("list-units -no-legend", 0, &["host.service\t", "stays.service\t", "!dead"]),
            ("status host", 0, &["● host.service - Of the machine", "Active: active (running)"]),
            ("cat host", 0, &["EnvironmentFile="]),
        ],
    );
    let heard = |unit: &str, word: &str| {
        cluster.until(word, || {
            let output = fleet(&cluster, &format!("journal -lines=50 {unit}"));
            String::from_utf8_lossy(&output.stdout).contains(word).then_some(())
        });
    };
    heard("host", "it is one -two of host host");
    heard("stays", "it is set");
    check(&cluster, &[("stop host stays", 0, &["Successfully stopped units [host.service stays.service]."])]);
    heard("ear", "bye from one -two");
    heard("ear", "unset");
    check(&cluster, &[("destroy host stays ear", 0, &["Destroyed host.service"])]);
}

#[test]
fn c04_programs_of_a_machine_that_does_not_allow_it() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    let file = |name: &str, text: &str| std::fs::write(cluster.data.path().join(name), text).expect("a file");
    file("host.service", "[Service]\nExecStart=/bin/sleep infinity\n");
    file("picky.service", &unit("picky", "one", "[X-Fleet]\nMachineMetadata=disk=ssd\n"));
    file("x.timer", "[Timer]\nOnCalendar=daily\n");
    file("x.service", "[Service]\nType=oneshot\nExecStart=/usr/bin/docker run busybox echo it is due\n");
    check(
        &cluster,
        &[
            (
                "start host.service",
                1,
                &[
                    "unit host.service cannot run: it runs a program of the machine itself",
                    "--allow-host-image",
                ],
            ),
            ("list-units -no-legend", 0, &["inactive"]),
            ("destroy host", 0, &["Destroyed host.service"]),
            // C06: what no machine has is waited for, and told.
            (
                "--tunnel 10.0.0.1 start -block-attempts=3 picky.service",
                1,
                &["--tunnel", "Unit picky.service waits: ", "timed out waiting for unit picky.service"],
            ),
            ("destroy picky", 0, &["Destroyed picky.service"]),
            ("load x.service", 0, &["Unit x.service loaded"]),
            ("start x.timer", 0, &["Unit x.timer launched, and waits for its times"]),
            ("start x.service", 0, &["Unit x.service launched on "]),
            ("journal x", 0, &["it is due"]),
        ],
    );
}

/// A link gives a container the other's name, and its address in variables, as Docker did.
#[test]
fn p03_links_between_units() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    let file = |name: &str, text: &str| std::fs::write(cluster.data.path().join(name), text).expect("a file");
    file(
        "db.service",
        "[Service]\nExecStart=/usr/bin/docker run --name db -e USER=mio --expose 3306 busybox sh -c \"trap 'exit 0' TERM; while true; do echo a page | nc -l -p 3306; done\"\n",
    );
    file(
        "web.service",
        "[Unit]\nAfter=db.service\n[Service]\nExecStart=/usr/bin/docker run --name web --link db:mysql busybox sh -c \"trap 'exit 0' TERM; echo $$MYSQL_PORT $$MYSQL_ENV_USER; until nc $$MYSQL_PORT_3306_TCP_ADDR $$MYSQL_PORT_3306_TCP_PORT </dev/null; do sleep 0.1; done; while true; do sleep 0.1; done\"\n",
    );
    check(&cluster, &[("start db.service web.service", 0, &["Unit web.service launched on "])]);
    for word in ["tcp://mysql:3306 mio", "a page"] {
        cluster.until(word, || {
            let output = fleet(&cluster, "journal -lines=50 web");
            String::from_utf8_lossy(&output.stdout).contains(word).then_some(())
        });
    }
}
