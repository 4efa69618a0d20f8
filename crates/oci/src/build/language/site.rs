//! Static sites: nginx on `$PORT`, with the types of files, without listings, and without what is no part of the site.

use super::node;
use crate::build::plan::{Plan, Sources, Step, web, words};
use crate::image::Result;

/// Where a site's pages are, the first that is there; else at the top.
const FOLDERS: &[&str] = &["public", "dist", "_site", "build", "site", "www", "htdocs"];

/// Stands for the first of those that the build has made.
const BUILT: &str = "-";

/// `PORT` and the folder are put in when it is started: both are known only then.
const CONFIG: &str = r#"daemon off;
pid /tmp/nginx.pid;
error_log stderr;
worker_processes 2;
events { worker_connections 1024; }
http {
  include /etc/nginx/mime.types;
  default_type application/octet-stream;
  charset utf-8;
  sendfile on;
  server_tokens off;
  absolute_redirect off;
  gzip on;
  gzip_types text/css application/javascript application/json image/svg+xml;
  access_log /tmp/access.log;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  server {
    listen @PORT@ default_server;
    root @ROOT@;
    index index.html index.htm;
    location / { try_files $uri $uri/ $uri.html =404; }
    location ~ /\.(?!well-known) { return 404; }
    location ~ ^/(Appfile|Procfile|Aptfile|app\.json|runtime\.txt)$ { return 404; }
  }
}
"#;

const START: &str = r#"#!/bin/sh
# Serves a folder of the application on $PORT.
cd /app || exit 1
folder=${1:-.}
if [ "$folder" = - ]; then
  for folder in dist build out _site public .; do [ -f "$folder/index.html" ] && break; done
fi
root=$(realpath "$folder") || exit 1
sed -e "s|@PORT@|${PORT:-8080}|" -e "s|@ROOT@|$root|" /opt/site/nginx.conf > /tmp/nginx.conf
# A program may not open the standard output that another user made, but it may write what another one reads.
rm -f /tmp/access.log
mkfifo /tmp/access.log || exit 1
cat /tmp/access.log &
exec /usr/sbin/nginx -c /tmp/nginx.conf -e stderr
"#;

pub(super) fn plan(sources: &Sources) -> Result<Plan> {
    let has_pages =
        |dir: &&&str| sources.has(&format!("{dir}/index.html")) || sources.has(&format!("{dir}/index.htm"));
    let top = sources.first(&["index.html", "index.htm"]).is_some();
    let folder = named(sources)?
        .or_else(|| FOLDERS.iter().find(|dir| !top && has_pages(dir)).map(|dir| (*dir).to_owned()));
    let built = sources.text_or_empty("package.json")?.contains("\"build\"");
    let folder = match folder {
        // What is there before the build is what it is made of: `index.html` at the top for Vite, `public` for others.
        _ if built => named(sources)?.unwrap_or_else(|| BUILT.to_owned()),
        folder => folder.unwrap_or_else(|| ".".to_owned()),
    };
    let mut plan = Plan {
        runtime: words(&["nginx-light|nginx"]),
        path: vec!["/opt/site/bin"],
        processes: web(format!("serve-site {folder}")),
        before: vec![Step {
            name: "server",
            doing: "adding the web server",
            dir: "/opt/site",
            files: vec![
                ("/opt/site/nginx.conf".to_owned(), CONFIG.as_bytes().to_vec()),
                ("/opt/site/bin/serve-site".to_owned(), START.as_bytes().to_vec()),
            ],
            script: "chmod 755 bin/serve-site\n".to_owned(),
            outputs: vec!["opt/site/"],
            ..Step::default()
        }],
        ..Plan::default()
    };
    if built {
        plan.tools = words(&["nodejs", "npm"]);
        node::add(sources, &mut plan)?;
        // Pages need no packages when they are served.
        plan.before.retain(|step| step.staged || step.name == "server");
    }
    Ok(plan)
}

/// Heroku's `static.json`: `{"root": "dist/"}`.
fn named(sources: &Sources) -> Result<Option<String>> {
    let json: serde_json::Value =
        serde_json::from_str(&sources.text_or_empty("static.json")?).unwrap_or_default();
    let root = json["root"].as_str().map(|root| root.trim_matches('/').to_owned());
    Ok(root
        .filter(|root| !root.is_empty() && root.chars().all(|c| c.is_alphanumeric() || "-_./".contains(c))))
}
