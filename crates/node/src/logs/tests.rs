use std::fs;
use std::io::Write;

use tokio::sync::oneshot;

use super::*;

fn record(n: usize) -> String {
    format!("2026-01-01T00:00:{:02}Z stdout F line {n}\n", n % 60)
}

fn records(range: std::ops::Range<usize>) -> String {
    range.map(record).collect()
}

async fn collect(mut pieces: mpsc::Receiver<io::Result<Bytes>>) -> String {
    let mut all = Vec::new();
    while let Some(piece) = pieces.recv().await {
        all.extend_from_slice(&piece.expect("readable"));
    }
    String::from_utf8(all).expect("text")
}

fn lines(range: std::ops::Range<usize>) -> String {
    range.map(|n| format!("line {n}\n")).collect()
}

async fn check(options: Options, expect: String) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("0.log");
    fs::write(dir.path().join("0.log.2"), records(0..10)).expect("written");
    fs::write(dir.path().join("0.log.1"), records(10..20)).expect("written");
    fs::write(&path, records(20..25)).expect("written");
    let (sink, pieces) = mpsc::channel(1);
    let ((), said) = tokio::join!(stream(path, options.clone(), async {}, sink), collect(pieces));
    assert_eq!(said, expect, "{options:?}");
}

#[tokio::test]
async fn logs_are_read_across_rotation() {
    let tail = |n| Options { tail_lines: Some(n), ..Default::default() };
    check(Options::default(), lines(0..25)).await;
    check(tail(0), String::new()).await;
    check(tail(3), lines(22..25)).await;
    check(tail(5), lines(20..25)).await;
    check(tail(6), lines(19..25)).await;
    check(tail(100), lines(0..25)).await;
    check(Options { limit_bytes: Some(9), ..tail(7) }, "line 18\nl".into()).await;
    check(Options { since: "2026-01-01T00:00:23Z".parse().ok(), ..Default::default() }, lines(23..25)).await;
    check(Options { follow: true, ..tail(1) }, lines(24..25)).await;
}

#[tokio::test]
async fn following_sees_growth_rotation_and_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("0.log");
    fs::write(&path, records(0..1)).expect("written");
    let (sink, mut pieces) = mpsc::channel(1);
    let (end, ended) = oneshot::channel::<()>();
    let options = Options { follow: true, ..Default::default() };
    let reading = tokio::spawn(stream(path.clone(), options, async { drop(ended.await) }, sink));
    let mut next = async || {
        String::from_utf8(pieces.recv().await.expect("more").expect("readable").to_vec()).expect("text")
    };
    assert_eq!(next().await, "line 0\n");
    let append = |text: &str| {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(&path).expect("opened");
        file.write_all(text.as_bytes()).expect("written");
    };
    // Half a record is no line yet.
    let (start, rest) = (record(1)[..10].to_owned(), record(1)[10..].to_owned());
    append(&start);
    append(&rest);
    assert_eq!(next().await, "line 1\n");
    append(&record(2));
    fs::rename(&path, dir.path().join("0.log.1")).expect("rotated");
    append(&record(3));
    fs::rename(dir.path().join("0.log.1"), dir.path().join("0.log.2")).expect("rotated");
    fs::rename(&path, dir.path().join("0.log.1")).expect("rotated");
    append(&record(4));
    let mut said = String::new();
    while !said.ends_with("line 4\n") {
        said.push_str(&next().await);
    }
    assert_eq!(said, lines(2..5));
    append(&record(5));
    end.send(()).expect("it still reads");
    assert_eq!(next().await, "line 5\n");
    reading.await.expect("it ends");
    assert!(pieces.recv().await.is_none());
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_the_stream() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("0.log");
    fs::write(&path, records(0..1)).expect("written");
    let (sink, pieces) = mpsc::channel(1);
    let options = Options { follow: true, ..Default::default() };
    let reading = tokio::spawn(stream(path, options, std::future::pending(), sink));
    drop(pieces);
    reading.await.expect("it ends");
}

#[test]
fn the_last_lines_stand_in_for_a_message() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("0.log");
    fs::write(&path, records(0..100)).expect("written");
    assert_eq!(last_lines(&path, 2, 1000), lines(98..100));
    assert_eq!(last_lines(&path, 80, 12), " 98\nline 99\n");
    assert_eq!(last_lines(&dir.path().join("none"), 2, 10), "");
}
