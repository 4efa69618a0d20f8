//! From a description to what runs and back to nothing: `infra`, `build`, `deploy`, `status`, `down`, `dev`.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::cluster::{YADO, patiently};
use crate::dev::Dev;

/// A page that says what is in `words.txt`, whether its dependency answers, and a variable.
const WEB: &str = r#"
import os, signal, socket, socketserver, sys
from http.server import BaseHTTPRequestHandler

def ping(host):
    with socket.create_connection((host, 6379), 5) as s:
        s.sendall(b"PING\r\n")
        return s.recv(20).decode().strip()

class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        words = open("words.txt").read().strip()
        body = f"{words} {os.environ.get('WORD')} {ping('cache')} {ping('cache.service.consul')}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

signal.signal(signal.SIGTERM, lambda *_: sys.exit())
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer.daemon_threads = True
socketserver.ThreadingTCPServer(("", int(os.environ["PORT"])), Page).serve_forever()
"#;

/// Two apps that depend on one cache.
pub fn two_apps() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    };
    for app in ["shop", "blog"] {
        let appfile = format!(
            "application {{\n  name = \"{app}\"\n  dependency {{ source = \"../cache\" }}\n}}\n\
             customization \"scale\" {{ web = 1 }}\n"
        );
        write(&format!("{app}/Appfile"), &appfile);
        write(&format!("{app}/Procfile"), "web: python3 web.py\n");
        write(&format!("{app}/Aptfile"), "python3\n");
        write(&format!("{app}/web.py"), WEB);
        write(&format!("{app}/words.txt"), &format!("this is {app}"));
    }
    write("cache/Appfile", "application {\n  name = \"cache\"\n}\ncustomization { port = 6379 }\n");
    write("cache/.ottoid", "8e2f0d0a-5a3f-4c5e-9d2b-0f9a7c1b2d3e\n");
    write("cache/Aptfile", "redis-server\n");
    write(
        "cache/Procfile",
        "redis: redis-server --port $PORT --bind 0.0.0.0 --protected-mode no --save '' --dir /tmp\n",
    );
    folder
}

/// Runs Yado in the namespace.
pub fn yado(dev: &Dev, args: &[&str]) -> Output {
    let mut command = dev.inside(YADO);
    command.args(args).env("YADO_DATA_DIR", dev.data.path()).env("HOME", dev.data.path());
    command.env_remove("KUBECONFIG").stdin(Stdio::null()).output().expect("yado")
}

/// Runs Yado, which must end with `code` and say all of `expect`, but nothing of what begins with `!`.
/// What only shows what there is is asked again, and so are commands in a container, which may just have started.
pub fn check(dev: &Dev, line: &str, code: i32, expect: &[&str]) -> String {
    let row = || {
        let output = yado(dev, &line.split(' ').collect::<Vec<_>>());
        let text = [output.stdout.clone(), output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let met =
            |e: &&&str| e.strip_prefix('!').map_or_else(|| text.contains(**e), |not| !text.contains(not));
        let unmet: Vec<_> = expect.iter().filter(|e| !met(e)).collect();
        if output.status.code() == Some(code) && unmet.is_empty() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!("yado {line}: {}, without {unmet:?}:\n{text}", output.status))
    };
    let shows = ["ps", "logs", "status", "exec", "dev ssh", "dev status"].iter().any(|v| line.starts_with(v));
    let done = if shows { patiently(row) } else { row() };
    done.unwrap_or_else(|wrong| {
        let log = std::fs::read_to_string(dev.data.path().join("engine.log")).unwrap_or_default();
        panic!("{wrong}\n{log}");
    })
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn o24_o25_o28_o29_o32_o33_p14_the_flow_from_nothing_to_nothing() {
    let Some(dev) = Dev::new() else { return };
    let apps = two_apps();
    let dir = apps.path().display().to_string();
    let run = |line: &str, code: i32, expect: &[&str]| check(&dev, &line.replace("DIR", &dir), code, expect);

    // Without an engine: images are built all the same.
    run("deploy DIR/shop", 1, &["yado infra"]);
    run("status", 1, &["yado infra"]);
    run("build DIR/shop", 0, &["yado.local/cache:", "yado.local/shop:", "Build success"]);
    run("build DIR/shop", 0, &["cache: is already built", "shop: is already built"]);

    run("infra", 0, &["the engine runs in the background", "Foundation:", "service.consul"]);
    run("infra", 0, &["already running"]);
    assert_eq!(json(&run("infra status -o json", 0, &[]))["state"], "created");
    run("build DIR/shop", 0, &["shop: is already built"]);
    run("build DIR/blog --artifacts DIR/artifacts", 0, &["yado.local/blog:"]);
    let kept = std::fs::read_dir(apps.path().join("artifacts")).expect("the artifacts").count();
    assert_eq!(kept, 4, "an archive and a record for blog and cache");
    run("build DIR/blog --artifacts DIR/artifacts", 0, &["blog: is already built"]);

    run("deploy DIR/shop --dry-run", 0, &["+ Deployment shop-web", "5 added, 0 changed, 0 destroyed"]);
    run("status", 0, &["nothing is deployed"]);
    run("deploy DIR/shop", 0, &["5 added, 0 changed, 0 destroyed", "url = http://shop.localhost:8080"]);
    let page = |app: &str| {
        dev.page(&format!("http://{app}.localhost:8080"), &format!("this is {app} None +PONG +PONG\n"));
    };
    page("shop");
    run("deploy DIR/shop", 0, &["0 added, 0 changed, 0 destroyed"]);

    let appfile = apps.path().join("shop/Appfile");
    let text = std::fs::read_to_string(&appfile).expect("the Appfile").replace("web = 1", "web = 2");
    std::fs::write(&appfile, text).expect("to write");
    run(
        "deploy DIR/shop",
        0,
        &["~ Deployment shop-web (spec.replicas: 1 -> 2", "0 added, 1 changed, 0 destroyed"],
    );

    run("deploy DIR/blog", 0, &["cache is shared with shop", "3 added, 0 changed, 0 destroyed"]);
    page("blog");
    let status = json(&run("status -o json", 0, &[]));
    let of = |app: &str| status.as_array().expect("rows").iter().find(|r| r["app"] == app).expect("a row");
    assert_eq!(of("cache")["neededBy"], serde_json::json!(["blog", "shop"]));
    assert_eq!(of("shop")["processes"][0]["ready"], 2);
    run("status shop", 0, &["Revision:       v2", "Depends on:     cache", "2/2 ready"]);

    run("down cache", 1, &["cache is needed by blog, shop"]);
    run("infra destroy", 1, &["blog, shop are deployed here"]);
    run(
        "deploy destroy shop",
        0,
        &["- Deployment shop-web", "cache stays: it is needed by blog", "3 destroyed"],
    );
    page("blog");
    run("down", 0, &["- Deployment cache-redis", "5 destroyed", "!stays"]);
    run("ps", 0, &["nothing runs"]);

    run("infra halt", 0, &["has stopped"]);
    run("infra status", 0, &["Infra: NOT CREATED"]);
    run("infra", 0, &["the engine runs"]);
    run("infra destroy", 0, &["nothing is left but the images"]);
    run("infra destroy", 0, &["nothing is left but the images"]);
    assert!(!dev.data.path().join("store").exists() && !dev.data.path().join("engine.json").exists());
}

#[test]
fn o12_o16_o17_o18_sources_are_live_and_a_shell_is_inside() {
    let Some(dev) = Dev::new() else { return };
    let apps = two_apps();
    let shop = apps.path().join("shop");
    let dir = shop.display().to_string();
    let run = |line: &str, code: i32, expect: &[&str]| check(&dev, &line.replace("DIR", &dir), code, expect);
    let page = |words: &str| dev.page("http://shop.localhost:8080", &format!("{words} +PONG +PONG\n"));
    let write = |name: &str, text: &str| std::fs::write(shop.join(name), text).expect("to write");

    run("dev status", 0, &["NOT CREATED"]);
    run("dev ssh", 1, &["no `yado dev` runs here"]);
    run("dev -d DIR", 0, &["http://shop.localhost:8080"]);
    // It is made only where it is not there.
    run("dev DIR", 0, &["shop runs already", "http://shop.localhost:8080"]);
    run("dev DIR/../blog", 1, &["`yado dev` of shop"]);
    run("infra", 1, &["`yado dev` of shop"]);
    assert_eq!(run("dev address", 0, &[]).trim(), "http://shop.localhost:8080");
    run("dev status", 0, &["CREATED", "shop.web.1", "cache.redis.1"]);
    assert_eq!(json(&run("dev status -o json", 0, &[]))["app"]["name"], "shop");

    page("this is shop None");
    write("words.txt", "edited");
    page("edited None");

    assert_eq!(run("dev ssh -- pwd", 0, &[]).trim(), "/app");
    assert_eq!(run("dev ssh web -- cat words.txt", 0, &[]).trim(), "edited");
    run("dev ssh -- touch made-inside", 0, &[]);
    assert!(shop.join("made-inside").exists());
    let dependency = "/otto-deps/cache-8e2f0d0a-5a3f-4c5e-9d2b-0f9a7c1b2d3e/Procfile";
    run(&format!("dev ssh -- cat {dependency}"), 0, &["redis-server"]);

    // What an image is made of is built and started anew by itself.
    write("Procfile", "web: env WORD=new python3 web.py\n");
    page("edited new");

    run("dev destroy", 0, &["nothing is left but the images"]);
    run("dev destroy", 0, &["there is nothing to remove"]);
    run("dev status", 0, &["NOT CREATED"]);
    assert!(!dev.data.path().join("store").exists());
}

#[test]
fn k35_descriptions_come_from_anywhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    // Answers what is asked of it here, and ends with the test.
    let server = std::thread::spawn(move || {
        for stream in listener.incoming().take(2).flatten() {
            let mut stream = stream;
            let mut request = [0; 1024];
            let read = stream.read(&mut request).expect("a request");
            let found = String::from_utf8_lossy(&request[..read]).starts_with("GET /a.yaml");
            let (status, body) = if found { ("200 OK", manifest) } else { ("404 Not Found", "") };
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
            .expect("an answer");
        }
    });
    let compile = |from: &str, input: &str| {
        let mut command = Command::new(YADO);
        command.args(["compile", from, "-o", "json"]).current_dir(folder.path());
        command
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("yado");
        child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("to write");
        child.wait_with_output().expect("its end")
    };
    let of = |output: &Output| {
        json(&String::from_utf8_lossy(&output.stdout))["items"][0]["metadata"]["name"].clone()
    };

    let output = compile(&format!("http://{address}/a.yaml"), "");
    assert_eq!(of(&output), "a", "{output:?}");
    let output = compile(&format!("http://{address}/absent.yaml"), "");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("404") && error.lines().count() == 1, "{error}");
    server.join().expect("the server");

    let output = compile("-", manifest);
    assert_eq!(of(&output), "a", "{output:?}");
    let output = compile("-", "apiVersion: v1\nkind: [\n");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && error.contains("standard input:"), "{error}");
    // What was read lies nowhere; what was made of it is in the working directory.
    let names = |path: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(path).expect("a folder").flatten();
        entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(names(folder.path()), [".yado"]);
}
