//! Python's client of Kubernetes, as operators and scripts of the field use it.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use super::cluster::Cluster;

#[test]
fn a_client_in_python_works_over_a_restart() {
    let Some(mut cluster) = Cluster::start(&["busybox.tar"]) else { return };
    // Debian's own interpreter, for which the client is packaged.
    let mut command = cluster.command("/usr/bin/python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/python_client.py"));
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut script = pipes.spawn().expect("python3");
    let mut errors = script.stderr.take().expect("its errors");
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).map(|_| text)
    });
    let mut parts = Vec::new();
    for line in BufReader::new(script.stdout.take().expect("its output")).lines() {
        let line = line.expect("a line");
        if line == "restart" {
            cluster.stop();
            cluster.restart();
            script.stdin.take().expect("its input").write_all(b"go on\n").expect("it reads");
        }
        // The library itself tells of the election.
        if ["typed", "dynamic", "elected", "restart", "informed"].contains(&line.as_str()) {
            parts.push(line);
        }
    }
    let status = script.wait().expect("its end");
    let errors = errors.join().expect("a thread").expect("text");
    assert!(status.success(), "{errors}");
    assert_eq!(parts, ["typed", "dynamic", "elected", "restart", "informed"]);
}
