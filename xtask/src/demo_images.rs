//! `cargo xtask demo-images`: the images that well-known example manifests ask for, made of Debian packages, as
//! archives in `target/images/`. They bear the very names the manifests use, since no registry is at hand.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use yado_compile::BuildHow;
use yado_oci::build::{Base, BuildSpec, Language, Packages, Recipe, build, packages};
use yado_oci::image::{ImageConfig, ImageStore, Progress};

use crate::root;

struct Demo {
    archive: &'static str,
    names: &'static [&'static str],
    base: Base,
    packages: &'static [&'static str],
    overlay: Option<&'static str>,
    run: &'static [&'static [&'static str]],
    entrypoint: &'static [&'static str],
    cmd: &'static [&'static str],
}

const DEMOS: &[Demo] = &[
    Demo {
        archive: "busybox.tar",
        names: &["busybox:latest"],
        base: Base::Scratch,
        packages: &["busybox-static"],
        overlay: None,
        run: &[&["/bin/busybox", "--install", "-s", "/bin"]],
        entrypoint: &[],
        cmd: &["sh"],
    },
    Demo {
        archive: "redis.tar",
        names: &["registry.k8s.io/redis:e2e", "gcr.io/google_containers/redis:e2e", "redis:latest"],
        base: Base::Debian,
        packages: &["redis-server"],
        overlay: None,
        run: &[],
        entrypoint: &["redis-server", "--protected-mode", "no", "--save", ""],
        cmd: &[],
    },
    Demo {
        archive: "gb-redisslave.tar",
        names: &["gcr.io/google_samples/gb-redisslave:v1"],
        base: Base::Debian,
        packages: &["redis-server"],
        overlay: Some("follower"),
        run: &[],
        entrypoint: &["follow"],
        cmd: &[],
    },
    Demo {
        archive: "gb-frontend.tar",
        names: &["gcr.io/google-samples/gb-frontend:v4", "gcr.io/google_samples/gb-frontend:v3"],
        base: Base::Debian,
        packages: &["python3", "python3-redis"],
        overlay: Some("frontend"),
        run: &[],
        entrypoint: &["python3", "/srv/guestbook.py"],
        cmd: &[],
    },
];

/// Apps that the end-to-end tests build, in network namespaces without a way to Debian's packages: what they and their
/// dependencies need of those is made here, into the same store.
const EXAMPLES: &[&str] = &["examples/hello", "examples/guestbook", "examples/compose"];

/// Builds what is missing; what has not changed is found in the store at once.
pub fn run() -> Result<()> {
    let images = root().join("target/images");
    fs::create_dir_all(&images).with_context(|| format!("{} cannot be made", images.display()))?;
    let store = ImageStore::open(root().join("target/image-store"))?;
    DEMOS.iter().try_for_each(|demo| make(demo, &store, &images))?;
    for example in EXAMPLES {
        let compiled = yado_compile::compile(&root().join(example), &yado_compile::Options::default())?;
        for request in compiled.builds {
            let BuildHow::Source { language, processes } = request.how else {
                bail!("{example} has a Dockerfile, which is not built here");
            };
            let language: Option<Language> = language.as_deref().map(str::parse).transpose()?;
            let recipe = Recipe::Source { context: request.context, language, processes };
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
