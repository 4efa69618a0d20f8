use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use expect_test::{Expect, expect};
use tar::{Builder, Header};

use super::*;

/// One entry: type, path, and content, link target or a device's number.
type Entry<'a> = (EntryType, &'a str, &'a str);

const DIR: EntryType = EntryType::Directory;
const FILE: EntryType = EntryType::Regular;
const SYM: EntryType = EntryType::Symlink;
const HARD: EntryType = EntryType::Link;

fn raw(header: &mut Header, path: &str) {
    // The builder refuses what an attacker would write; the header does not.
    let name = &mut header.as_old_mut().name;
    name.fill(0);
    name[..path.len()].copy_from_slice(path.as_bytes());
}

fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, path, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(if *kind == DIR { 0o755 } else { 0o4755 });
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000_000_000);
        let link = matches!(*kind, SYM | HARD);
        let number = matches!(*kind, EntryType::Char).then(|| content.split_once(':')).flatten();
        let data = if link || number.is_some() { "" } else { *content };
        header.set_size(data.len() as u64);
        if let Some((major, minor)) = number {
            header.set_device_major(major.parse().unwrap()).unwrap();
            header.set_device_minor(minor.parse().unwrap()).unwrap();
        }
        if link {
            let name = &mut header.as_old_mut().linkname;
            name[..content.len()].copy_from_slice(content.as_bytes());
        }
        raw(&mut header, path);
        header.set_cksum();
        builder.append(&header, data.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// All that is in a directory, as lines.
fn listing(dir: &Path, at: &str, lines: &mut Vec<String>) {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap()).collect();
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names {
        let path = format!("{at}{}", entry.file_name().to_string_lossy());
        let meta = entry.metadata().unwrap();
        let kind = meta.file_type();
        let detail = if kind.is_symlink() {
            format!(" -> {}", fs::read_link(entry.path()).unwrap().display())
        } else if kind.is_char_device() && meta.rdev() == 0 {
            " whiteout".to_owned()
        } else if kind.is_char_device() || kind.is_fifo() {
            format!(" {:o} {}:{}", meta.mode(), libc::major(meta.rdev()), libc::minor(meta.rdev()))
        } else if kind.is_dir() {
            match xattr::get(entry.path(), "trusted.overlay.opaque").unwrap() {
                Some(_) => "/ opaque".to_owned(),
                None => "/".to_owned(),
            }
        } else {
            format!(
                " {:?} {:o} {}:{}",
                fs::read_to_string(entry.path()).unwrap(),
                meta.mode(),
                meta.uid(),
                meta.gid()
            )
        };
        lines.push(format!("{path}{detail}"));
        if kind.is_dir() {
            listing(&entry.path(), &format!("{path}/"), lines);
        }
    }
}

fn check(entries: &[Entry<'_>], expect: Expect) {
    if !nix::unistd::geteuid().is_root() {
        yado_testkit::skip!("unpacking layers needs root");
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("victim"), "untouched").unwrap();
    let dir = outside.path().join("layer");
    fs::create_dir(&dir).unwrap();
    let result = unpack(&archive(entries)[..], &dir, &Limits::default(), &Progress::none());
    let mut lines = Vec::new();
    listing(&dir, "", &mut lines);
    if let Err(UnpackError::Entry(entry, reason)) = &result {
        lines.push(format!("refused {entry}: {reason}"));
    } else {
        result.unwrap();
    }
    // Whatever the archive holds, nothing beside the layer changes.
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);
    assert_eq!(fs::read_to_string(outside.path().join("victim")).unwrap(), "untouched");
    expect.assert_eq(&lines.join("\n"));
}

#[test]
fn files_links_and_owners() {
    check(
        &[(DIR, "a/", ""), (FILE, "a/f", "x"), (HARD, "a/g", "a/f"), (SYM, "a/s", "/etc/passwd")],
        expect![[r#"
        a/
        a/f "x" 104755 7:8
        a/g "x" 104755 7:8
        a/s -> /etc/passwd"#]],
    );
    check(
        &[(FILE, "/abs/f", "x"), (FILE, "./dot", "y")],
        expect![[r#"
        abs/
        abs/f "x" 104755 7:8
        dot "y" 104755 7:8"#]],
    );
}

#[test]
fn devices_and_pipes() {
    // The pipe's number is left out, as some writers do.
    check(
        &[(EntryType::Char, "null", "1:3"), (EntryType::Fifo, "pipe", "")],
        expect![[r#"
        null 24755 1:3
        pipe 14755 0:0"#]],
    );
}

#[test]
fn later_entries_replace_earlier_ones() {
    check(
        &[(FILE, "a", "1"), (FILE, "a", "2"), (DIR, "b", ""), (FILE, "b/c", "x"), (FILE, "b", "3")],
        expect![[r#"
        a "2" 104755 7:8
        b "3" 104755 7:8"#]],
    );
    check(
        &[(SYM, "d", "elsewhere"), (DIR, "d", ""), (FILE, "d/f", "x")],
        expect![[r#"
        d/
        d/f "x" 104755 7:8"#]],
    );
}

#[test]
fn whiteouts_become_what_overlay_understands() {
    check(
        &[(FILE, "a/.wh.gone", ""), (DIR, "o", ""), (FILE, "o/.wh..wh..opq", ""), (FILE, "o/new", "x")],
        expect![[r#"
        a/
        a/gone whiteout
        o/ opaque
        o/new "x" 104755 7:8"#]],
    );
    check(
        &[(FILE, ".wh.d", ""), (DIR, "d", ""), (DIR, "e", ""), (FILE, ".wh.e", "")],
        expect![[r#"
        d/ opaque
        e/ opaque"#]],
    );
    check(
        &[(FILE, ".wh..wh.plnk", ""), (FILE, "f", "x"), (FILE, ".wh.f", "")],
        expect![[r#"f "x" 104755 7:8"#]],
    );
    check(&[(FILE, ".wh...", "")], expect![[r#"refused .wh...: it is a whiteout of nothing"#]]);
}

#[test]
fn nothing_leads_out_of_the_layer() {
    check(&[(FILE, "../victim", "x")], expect!["refused ../victim: its path leads out of the layer"]);
    check(
        &[(FILE, "a/../../victim", "x")],
        expect!["refused a/../../victim: its path leads out of the layer"],
    );
    check(&[(HARD, "h", "../victim")], expect!["refused h: its path leads out of the layer"]);
    // Links are followed inside the root only: `..` stops there, and `/` is the layer's.
    check(
        &[(SYM, "up", "../.."), (FILE, "up/victim", "x")],
        expect![[r#"
        up -> ../..
        victim "x" 104755 7:8"#]],
    );
    check(
        &[(SYM, "l", "/sub/dir"), (FILE, "l/f", "x")],
        expect![[r#"
        l/
        l/f "x" 104755 7:8"#]],
    );
    check(
        &[(DIR, "sub", ""), (SYM, "l", "/sub"), (FILE, "l/f", "x")],
        expect![[r#"
        l -> /sub
        sub/
        sub/f "x" 104755 7:8"#]],
    );
    check(&[(SYM, "s", "../victim"), (FILE, "s", "x")], expect![[r#"s "x" 104755 7:8"#]]);
    check(
        &[(SYM, "s", "../victim"), (HARD, "h", "s"), (FILE, "h", "x")],
        expect![[r#"
        h "x" 104755 7:8
        s -> ../victim"#]],
    );
    check(
        &[(SYM, "p", "/proc/self/root"), (FILE, "p/victim", "x")],
        expect![[r#"
        p/
        p/victim "x" 104755 7:8"#]],
    );
    check(
        &[(SYM, "loop", "loop"), (FILE, "loop/f", "x")],
        expect![[r#"
        loop -> loop
        refused loop/f: Too many levels of symbolic links (os error 40)"#]],
    );
}

#[test]
fn what_makes_no_sense_is_refused() {
    check(
        &[(HARD, "h", "missing")],
        expect!["refused h: it is a hard link to `missing`, which is not in the layer"],
    );
    check(&[(EntryType::Char, "null", "")], expect!["refused null: it is a device without a number"]);
    check(
        &[(EntryType::Char, "null", "0:0")],
        expect!["refused null: it is a device 0:0, which would hide a file of a lower layer"],
    );
    check(&[(EntryType::new(b'Z'), "z", "")], expect!["refused z: it is of the unknown type 'Z'"]);
}

#[test]
fn times_and_holes() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let zeros = "\0".repeat(3 << 20);
    let bytes = archive(&[(DIR, "d", ""), (FILE, "d/zeros", &zeros), (FILE, "tail", &format!("{zeros}x"))]);
    let written = unpack(&bytes[..], dir.path(), &Limits::default(), &Progress::none()).unwrap();
    assert_eq!(written, Written { bytes: 2 * (3 << 20) + 1, entries: 3 });
    let zeros = fs::metadata(dir.path().join("d/zeros")).unwrap();
    assert_eq!((zeros.len(), zeros.blocks(), zeros.mtime()), (3 << 20, 0, 1_000_000_000));
    let tail = fs::read(dir.path().join("tail")).unwrap();
    assert!(tail.len() == (3 << 20) + 1 && tail.last() == Some(&b'x'));
    assert_eq!(fs::metadata(dir.path().join("d")).unwrap().mtime(), 1_000_000_000);
}

#[test]
fn bounds() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let check = |bytes: &[u8], limits: Limits, expect: Expect| {
        let dir = tempfile::tempdir().unwrap();
        expect.assert_eq(&format!("{:?}", unpack(bytes, dir.path(), &limits, &Progress::none())));
    };
    let two = archive(&[(FILE, "a", "12345"), (FILE, "b", "12345")]);
    let limits = Limits::default();
    check(&two, Limits { layer_bytes: 9, ..limits }, expect!["Err(TooLarge(9))"]);
    check(&two, Limits { layer_entries: 1, ..limits }, expect!["Err(TooLarge(1))"]);
    check(
        &two,
        Limits { layer_bytes: 10, layer_entries: 2, ..limits },
        expect!["Ok(Written { bytes: 10, entries: 2 })"],
    );
    // Nothing before the record makes the watch lose its place: neither a size in another record, of which the first
    // counts, nor a global header, nor the further blocks of a sparse file's map.
    let record = (EntryType::GNULongName, "././@LongLink", &*"n".repeat(2 << 20));
    let sizes = (EntryType::XHeader, "x", "10 size=3\n13 size=9999\n");
    let global = (EntryType::XGlobalHeader, "g", "");
    for before in [&[sizes, (FILE, "a", "123")][..], &[sizes, global, (FILE, "a", "1234")], &[sizes, record]]
    {
        let bytes = archive(&[before, &[record, (FILE, "b", "")]].concat());
        check(
            &bytes,
            limits,
            expect![[
                r#"Err(Read(Custom { kind: InvalidData, error: "a record of 2097152 bytes before an entry, more than 1048576" }))"#
            ]],
        );
    }
    let mut sparse = Header::new_gnu();
    sparse.set_entry_type(EntryType::GNUSparse);
    sparse.set_size(512);
    sparse.set_mode(0o644);
    sparse.set_uid(0);
    sparse.set_gid(0);
    let gnu = sparse.as_gnu_mut().unwrap();
    gnu.set_is_extended(true);
    gnu.realsize.copy_from_slice(b"00000001000\0");
    raw(&mut sparse, "sparse");
    sparse.set_cksum();
    let mut further = tar::GnuExtSparseHeader::new();
    further.sparse[0].offset.copy_from_slice(b"00000000000\0");
    further.sparse[0].numbytes.copy_from_slice(b"00000001000\0");
    let mut bytes = sparse.as_bytes().to_vec();
    further.isextended[0] = 1;
    bytes.extend_from_slice(further.as_bytes());
    bytes.extend_from_slice(tar::GnuExtSparseHeader::new().as_bytes());
    // Content that would be a large file's header.
    let mut content = Header::new_gnu();
    content.set_size(1 << 40);
    bytes.extend_from_slice(content.as_bytes());
    bytes.extend_from_slice(&archive(&[record, (FILE, "b", "")]));
    check(
        &bytes,
        limits,
        expect![[
            r#"Err(Read(Custom { kind: InvalidData, error: "a record of 2097152 bytes before an entry, more than 1048576" }))"#
        ]],
    );
    let long = archive(&[(EntryType::GNULongName, "././@LongLink", &"n".repeat(2 << 20)), (FILE, "a", "")]);
    check(
        &long,
        limits,
        expect![[
            r#"Err(Read(Custom { kind: InvalidData, error: "a record of 2097152 bytes before an entry, more than 1048576" }))"#
        ]],
    );
}
