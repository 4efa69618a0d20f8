//! `cargo xtask demo-images`: the images that well-known example manifests ask for, made of Debian packages, as
//! archives in `target/images/`. They bear the very names the manifests use, since no registry is at hand.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use yado_compile::BuildMethod;
use yado_oci::build::{Base, BuildSpec, Language, Packages, Recipe, build, packages};
use yado_oci::image::{ImageConfig, ImageStore, Progress};

use crate::root;

struct Demo {
    archive: &'static str,
    /// Whether only `demo-images all` makes it, as it is large and the tests that need it run on demand.
    on_demand: bool,
    names: &'static [&'static str],
    base: Base,
    packages: &'static [&'static str],
    overlay: Option<&'static str>,
    run: &'static [&'static [&'static str]],
    entrypoint: &'static [&'static str],
    cmd: &'static [&'static str],
    /// What it listens on, as `80/tcp`: links are told of it.
    ports: &'static [&'static str],
}

const COMMON: Demo = Demo {
    archive: "",
    on_demand: false,
    names: &[],
    base: Base::Debian,
    packages: &[],
    overlay: None,
    run: &[],
    entrypoint: &[],
    cmd: &[],
    ports: &[],
};

const DEMOS: &[Demo] = &[
    Demo {
        archive: "busybox.tar",
        names: &["busybox:latest"],
        base: Base::Scratch,
        packages: &["busybox-static"],
        run: &[&["/bin/busybox", "--install", "-s", "/bin"]],
        cmd: &["sh"],
        ..COMMON
    },
    Demo {
        archive: "redis.tar",
        names: &["registry.k8s.io/redis:e2e", "gcr.io/google_containers/redis:e2e", "redis:latest"],
        packages: &["redis-server"],
        entrypoint: &["redis-server", "--protected-mode", "no", "--save", ""],
        ..COMMON
    },
    Demo {
        archive: "gb-redisslave.tar",
        names: &["gcr.io/google_samples/gb-redisslave:v1"],
        packages: &["redis-server"],
        overlay: Some("follower"),
        entrypoint: &["follow"],
        ..COMMON
    },
    Demo {
        archive: "gb-frontend.tar",
        names: &["gcr.io/google-samples/gb-frontend:v4", "gcr.io/google_samples/gb-frontend:v3"],
        packages: &["python3", "python3-redis"],
        overlay: Some("frontend"),
        entrypoint: &["python3", "/srv/guestbook.py"],
        ..COMMON
    },
    // Three tiers of containers that docker's links join.
    Demo {
        archive: "board-web.tar",
        names: &["example/web:ver1.0"],
        packages: &["nginx"],
        overlay: Some("board-web"),
        ports: &["80/tcp"],
        cmd: &["nginx"],
        ..COMMON
    },
    Demo {
        archive: "board-app.tar",
        names: &["example/app:ver1.0"],
        packages: &["python3", "python3-pymysql"],
        overlay: Some("board-app"),
        ports: &["5555/tcp"],
        cmd: &["python3", "/srv/board.py"],
        ..COMMON
    },
    Demo {
        archive: "mysql.tar",
        names: &[
            "example/dbs:ver1.0",
            "mysql:latest",
            "mysql:8.0",
            "mysql:5.7",
            "mysql:5.6",
            "mariadb:latest",
            "mariadb:10.6.4-focal",
            "mariadb:10-focal",
        ],
        packages: &["mariadb-server-core", "mariadb-client-core"],
        overlay: Some("mysql"),
        ports: &["3306/tcp"],
        run: &[&[
            "/bin/sh",
            "-c",
            "echo mysql:x:999:999::/var/lib/mysql:/usr/sbin/nologin >>/etc/passwd; echo mysql:x:999: >>/etc/group",
        ]],
        entrypoint: &["docker-entrypoint.sh"],
        cmd: &["mariadbd"],
        ..COMMON
    },
    Demo {
        archive: "nginx.tar",
        on_demand: true,
        names: &["nginx:latest"],
        packages: &["nginx"],
        overlay: Some("nginx"),
        ports: &["80/tcp"],
        cmd: &["nginx"],
        ..COMMON
    },
    Demo {
        archive: "wordpress.tar",
        on_demand: true,
        names: &["wordpress:latest", "wordpress:6.2.1-apache", "wordpress:4.8-apache"],
        packages: &[
            "wordpress",
            "wordpress-theme-twentytwentythree",
            "apache2",
            "libapache2-mod-php",
            "php-mysql",
        ],
        overlay: Some("wordpress"),
        ports: &["80/tcp"],
        run: &[&[
            "/bin/sh",
            "-c",
            "rm /var/www/html/*; ln -sf /dev/stderr /var/log/apache2/error.log; ln -sf /dev/stdout \
             /var/log/apache2/access.log; a2enmod -q rewrite",
        ]],
        entrypoint: &["docker-entrypoint.sh"],
        cmd: &["apache2-foreground"],
        ..COMMON
    },
];

/// Apps that the end-to-end tests build, in network namespaces without a way to Debian's packages: what they and their
/// dependencies need of those is made here, into the same store.
const EXAMPLES: &[&str] = &["examples/hello", "examples/guestbook", "examples/compose"];

/// Builds what is missing; what has not changed is found in the store at once.
pub fn run(all: bool) -> Result<()> {
    let images = root().join("target/images");
    fs::create_dir_all(&images).with_context(|| format!("{} cannot be made", images.display()))?;
    let store = ImageStore::open(root().join("target/image-store"))?;
    DEMOS.iter().filter(|demo| all || !demo.on_demand).try_for_each(|demo| make(demo, &store, &images))?;
    for example in EXAMPLES {
        let compiled = yado_compile::compile(&root().join(example), &yado_compile::Options::default())?;
        for request in compiled.builds {
            let BuildMethod::Source { language, processes } = request.method else {
                bail!("{example} has a Dockerfile, which is not built here");
            };
            let language: Option<Language> = language.as_deref().map(str::parse).transpose()?;
            let recipe = Recipe::Source {
                context: request.context,
                language,
                processes,
                left_out: request.excluded.to_vec(),
            };
            build(&BuildSpec { name: request.image, recipe }, &store, &Progress::none())?;
            println!("{example}: {}", request.name);
        }
    }
    Ok(())
}

fn make(demo: &Demo, store: &ImageStore, images: &Path) -> Result<()> {
    let words = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    let recipe = Packages {
        base: demo.base,
        packages: words(demo.packages),
        overlay: demo.overlay.map(|folder| root().join("xtask/demo-images").join(folder)),
        run: demo.run.iter().map(|command| words(command)).collect(),
        config: ImageConfig {
            entrypoint: words(demo.entrypoint),
            cmd: words(demo.cmd),
            exposed_ports: words(demo.ports),
            env: words(&[
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LANG=C.UTF-8",
            ]),
            ..ImageConfig::default()
        },
    };
    let image = packages(demo.names[0], &recipe, store, &Progress::none())?;
    demo.names[1..].iter().try_for_each(|name| store.tag(demo.names[0], name).map(drop))?;
    let archive = images.join(demo.archive);
    let stamp = PathBuf::from(format!("{}.id", archive.display()));
    if !archive.exists() || fs::read_to_string(&stamp).ok().as_deref() != Some(image.id.as_str()) {
        let file =
            File::create(&archive).with_context(|| format!("{} cannot be written", archive.display()))?;
        store.save(demo.names, BufWriter::new(file), &Progress::none())?;
        fs::write(&stamp, &image.id)?;
    }
    println!("{}  {}", archive.display(), demo.names.join(" "));
    Ok(())
}
