//! PHP: composer installs into `/opt/vendor`, and `/app/vendor` leads there.
//!
//! Where a directory of sources is laid over `/app`, so that changes are seen at once, `vendor` must lead there again:
//! the label [`crate::build::LIVE_LABEL`] says so to who does that.

use serde_json::Value;

use super::wrong;
use crate::build::LIVE_LABEL;
use crate::build::plan::{Plan, Sources, Step, Wanted, web, words};
use crate::image::Result;

/// Debian packages of extensions that are not part of `php-cli`, by the extension's name where they differ.
const RENAMED: &[(&str, &str)] = &[
    ("dom", "php-xml"),
    ("simplexml", "php-xml"),
    ("xmlreader", "php-xml"),
    ("xmlwriter", "php-xml"),
    ("xsl", "php-xml"),
    ("pdo_mysql", "php-mysql"),
    ("mysqli", "php-mysql"),
    ("mysqlnd", "php-mysql"),
    ("pdo_pgsql", "php-pgsql"),
    ("pdo_sqlite", "php-sqlite3"),
    ("pdo_odbc", "php-odbc"),
    ("mongodb", "php-mongodb"),
];
/// Part of `php-cli` itself.
const BUILT_IN: &[&str] = &[
    "calendar",
    "core",
    "ctype",
    "date",
    "exif",
    "ffi",
    "fileinfo",
    "filter",
    "ftp",
    "gettext",
    "hash",
    "iconv",
    "json",
    "libxml",
    "openssl",
    "pcntl",
    "pcre",
    "pdo",
    "phar",
    "posix",
    "random",
    "readline",
    "reflection",
    "session",
    "shmop",
    "sockets",
    "sodium",
    "spl",
    "standard",
    "sysvmsg",
    "sysvsem",
    "sysvshm",
    "tokenizer",
    "zlib",
    "zend-opcache",
];
/// What nearly every application uses.
const COMMON: &[&str] =
    &["php-curl", "php-mbstring", "php-mysql", "php-pgsql", "php-sqlite3", "php-xml", "php-zip"];
/// Heroku's names for its web servers, which a Procfile may use: `web: heroku-php-apache2 public/`. PHP's own server
/// stands for them.
const SERVER: &str = "#!/bin/sh
# Serves a directory with PHP's own server, in as many processes as WEB_CONCURRENCY says.
root=.
while [ $# -gt 0 ]; do
  case $1 in
    -C|-F|-i|-l|-p) shift ;;
    -*) ;;
    *) root=$1 ;;
  esac
  shift
done
export PHP_CLI_SERVER_WORKERS=${WEB_CONCURRENCY:-4}
# Files are looked at for each request: an edit counts at once.
exec php -d opcache.revalidate_freq=0 -S 0.0.0.0:${PORT:-8080} -t \"$root\"
";

pub(super) fn plan(sources: &Sources) -> Result<Plan> {
    let mut plan = Plan { runtime: words(&["php-cli"]), path: vec!["/opt/php/bin"], ..Plan::default() };
    plan.runtime.extend(words(COMMON));
    let root = ["public", "web", "html", "htdocs", "www"]
        .into_iter()
        .find(|dir| sources.has(&format!("{dir}/index.php")));
    plan.processes = web(format!("heroku-php-apache2 {}", root.unwrap_or(".")));
    let names = ["heroku-php-apache2", "heroku-php-nginx", "heroku-hhvm-apache2", "heroku-hhvm-nginx"];
    plan.before.push(Step {
        name: "server",
        doing: "adding the web server",
        dir: "/opt/php/bin",
        files: vec![("/opt/php/bin/heroku-php-apache2".to_owned(), SERVER.as_bytes().to_vec())],
        script: names[1..].iter().fold("chmod 755 heroku-php-apache2\n".to_owned(), |script, name| {
            script + "ln -s heroku-php-apache2 " + name + "\n"
        }),
        outputs: vec!["opt/php/"],
        ..Step::default()
    });
    let Some(text) = sources.text("composer.json")? else { return Ok(plan) };
    let json: Value = serde_json::from_str(&text)
        .map_err(|e| wrong(sources, "composer.json", format!("it is not valid JSON ({e})")))?;
    let lock: Value = serde_json::from_str(&sources.text_or_empty("composer.lock")?).unwrap_or_default();
    add_extensions(&json, &lock, &mut plan);
    if let Some(version) = json["require"]["php"].as_str() {
        let (file, version) = ("composer.json", version.to_owned());
        plan.wanted = Some(Wanted { file, what: "PHP", version, package: "php-cli" });
    }
    add_composer(sources, &json, &mut plan)?;
    Ok(plan)
}

fn add_extensions(json: &Value, lock: &Value, plan: &mut Plan) {
    let packages = lock["packages"].as_array().into_iter().flatten();
    let requires = packages.chain([json]).filter_map(|package| package["require"].as_object());
    for name in requires.flat_map(|require| require.keys()).filter_map(|name| name.strip_prefix("ext-")) {
        let name = name.to_ascii_lowercase();
        if BUILT_IN.contains(&name.as_str()) {
            continue;
        }
        let renamed = RENAMED
            .iter()
            .find(|(extension, _)| *extension == name)
            .map(|(_, package)| (*package).to_owned());
        let package = renamed.unwrap_or_else(|| format!("php-{name}"));
        if !plan.runtime.contains(&package) {
            plan.runtime.push(package);
        }
    }
}

fn add_composer(sources: &Sources, json: &Value, plan: &mut Plan) -> Result<()> {
    plan.tools = words(&["composer", "git", "unzip"]);
    plan.path.push("/opt/vendor/bin");
    plan.env.push(("COMPOSER_VENDOR_DIR", "/opt/vendor".to_owned()));
    plan.ignored.push("vendor");
    plan.labels.push((LIVE_LABEL, "vendor=/opt/vendor".to_owned()));
    let local = json["repositories"].to_string().contains("\"path\"");
    let install = Step {
        name: "dependencies",
        doing: "installing the PHP packages",
        dir: "/app",
        // Where classes are found depends on the sources, which come later.
        script: "composer install --no-dev --no-scripts --no-autoloader --prefer-dist --no-interaction --no-progress\n"
            .to_owned(),
        outputs: vec!["opt/vendor/"],
        env: environment(),
        ..Step::default()
    };
    if local {
        plan.after.push(install);
    } else {
        let files = sources.files(&["composer.json", "composer.lock", "auth.json"], "/app")?;
        plan.before.push(Step { files, ..install });
    }
    plan.after.push(Step {
        name: "compile",
        doing: "writing the autoloader",
        dir: "/app",
        links: vec![("/app/vendor", "/opt/vendor")],
        script: "composer dump-autoload --no-dev --optimize --no-interaction\n\
                 if [ -f artisan ]; then php artisan package:discover || true; fi\n"
            .to_owned(),
        outputs: vec![
            "opt/vendor/",
            "app/vendor",
            "app/bootstrap/cache/packages.php",
            "app/bootstrap/cache/services.php",
        ],
        env: environment(),
        ..Step::default()
    });
    Ok(())
}

fn environment() -> Vec<(&'static str, String)> {
    vec![
        ("COMPOSER_CACHE_DIR", "/var/tmp/composer".to_owned()),
        // The version of the root package, which composer else asks git for.
        ("COMPOSER_ROOT_VERSION", "1.0.0".to_owned()),
        ("COMPOSER_NO_AUDIT", "1".to_owned()),
    ]
}
