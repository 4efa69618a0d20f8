//! A directory in, an image out.
//!
//! A [`Recipe`] says how. Whatever it is, an image is made of steps, and a step gives one layer. Each step is keyed by
//! the content of all that goes into it and is made only when its key is new; the same inputs give the same digests.
//!
//! ```text
//! base           a minimal Debian: the essential packages of the machine's own sources, and the user `app` (1000)
//! packages       the language's runtime, what the Aptfile names, and what that depends on, set up by its own scripts
//! [tools]        what the next steps need of Debian: compilers, headers, package managers
//! dependencies   by the language's own tool, of its manifest and lock file alone
//! app            the directory as /app, owned by `app`
//! compile        what the language's tool makes of the sources
//! ```
//!
//! The tools are no part of the image, nor is what compiled languages (Go, Rust, Java) need to compile: their images
//! have what was compiled and the runtime. [`language`] says what is done for each language, and where that puts
//! things; dependencies are outside of `/app`, so that sources which are laid over it do not hide them. Tools of
//! languages run as the user `app`, over the machine's network, with the machine's own settings for registries and
//! proxies, of which nothing stays ([`machine`]).
//!
//! **Process types.** The Procfile's `web: python3 app.py` becomes the label `dev.yado.process.web`, whose value is
//! the command as written. A process type is run as [`argv`](yado_types::procfile::argv) says: by `/bin/sh -c "exec …"`, as user `app`
//! in `/app`, so that the program itself is the container's first process and gets its signals. The image sets
//! `PORT` to 8080; who runs it may set another. The image's own command is the process type `web`, or else the first one.
//!
//! **Left out of /app**: env files and secrets that the description names, what `.gitignore`, `.slugignore` and
//! `.dockerignore` name, and always `.git`, every `.env`, and Yado's own files ([`ignore`]). The build says what it left
//! out, and warns of files that look like secrets and were not.

mod app;
mod apt;
mod aptfile;
mod base;
mod chroot;
mod ignore;
mod language;
mod layers;
mod machine;
mod native;
mod plan;
mod source;
mod suspicious;
mod trouble;
mod workshop;

use std::path::PathBuf;

use crate::image::{Event, Image, ImageConfig, ImageError, ImageStore, Progress, Result};

pub use app::files_of;
pub use aptfile::parse_aptfile;
pub use language::{Language, UnknownLanguage};

/// The label of a process type is this and its name; the value is its command.
pub const PROCESS_LABEL: &str = "dev.yado.process.";

/// The label that says what of `/app` lies elsewhere in the image, as `PATH=DIRECTORY` with commas between: who lays
/// the sources themselves over `/app` has to put those directories there again.
pub const LIVE_LABEL: &str = "dev.yado.live";

/// What to build, and what to call it.
#[derive(Clone, Debug, PartialEq)]
pub struct BuildSpec {
    /// The image's name, such as `yado.local/guestbook:latest`.
    pub name: String,
    /// How it is made.
    pub recipe: Recipe,
}

/// How an image is made.
#[derive(Clone, Debug, PartialEq)]
pub enum Recipe {
    /// A directory of sources, without a Dockerfile: perhaps with a `Procfile` and an `Aptfile`.
    Source {
        /// The directory.
        context: PathBuf,
        /// What it is written in, whose runtime and dependencies are installed; `None` where the Procfile and the
        /// Aptfile say all.
        language: Option<Language>,
        /// Process types and their commands where the directory has no Procfile; where this is empty too, the
        /// language's own.
        processes: Vec<(String, String)>,
        /// Files with secrets that the description names, absolute or from the directory: never part of the image.
        left_out: Vec<PathBuf>,
    },
    /// Debian packages and nothing else.
    Packages(Box<Packages>),
}

/// An image made of Debian packages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Packages {
    /// What lies beneath.
    pub base: Base,
    /// Names as `apt-get install` takes them.
    pub packages: Vec<String>,
    /// A directory whose content is laid over the result, owned by root.
    pub overlay: Option<PathBuf>,
    /// Commands run inside, after the packages are set up: program and arguments.
    pub run: Vec<Vec<String>>,
    /// How the image is to be run.
    pub config: ImageConfig,
}

/// What lies beneath the packages.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Base {
    /// The minimal Debian of the `base` step; packages are set up by their scripts.
    #[default]
    Debian,
    /// Nothing: exactly the named packages are unpacked, without what they depend on, and no script runs.
    Scratch,
}

/// Builds an image and names it. Blocks, for some seconds where nothing is made yet; call it where blocking is allowed.
/// Needs root, and for what is not cached the machine's own `apt-get` and `dpkg`.
///
/// # Errors
/// [`crate::image::ImageError::BuildFile`] with file and line where the Procfile or Aptfile is wrong,
/// [`crate::image::ImageError::Build`] where a step fails. Nothing is named in the store then.
pub fn build(spec: &BuildSpec, store: &ImageStore, progress: &Progress) -> Result<Image> {
    progress.report(|| Event::Started { name: spec.name.clone() });
    let build = layers::Build::new(&spec.name, store, progress)?;
    let built = match &spec.recipe {
        Recipe::Source { context, language, processes, left_out } => {
            source::build(build, context, *language, processes, left_out)
        }
        Recipe::Packages(packages) => base::build_packages(build, packages),
    };
    let built = built.map_err(|error| or_full(store, error));
    if matches!(built, Err(ImageError::NoSpace { .. })) {
        let _one_at_a_time = store.inner.building.lock();
        apt::forget_downloads(store);
    }
    built
}

/// The error, or that the disk is full where that is most likely why.
fn or_full(store: &ImageStore, error: ImageError) -> ImageError {
    let told =
        matches!(&error, ImageError::Build { reason, .. } if reason.contains("No space left on device"));
    if told || is_full(store) { full(store, error) } else { error }
}

/// With less than this left, a step that failed most likely failed for it.
const SPACE_OF_A_STEP: u64 = 16 << 20;

fn is_full(store: &ImageStore) -> bool {
    let space = nix::sys::statvfs::statvfs(store.dir());
    space.is_ok_and(|s| s.blocks_available() * s.fragment_size() < SPACE_OF_A_STEP)
}

/// Programs that a step runs (`tar`, `dpkg`) do not say why they failed in a way that could be read.
fn full(store: &ImageStore, error: ImageError) -> ImageError {
    match error {
        ImageError::Build { .. } => ImageError::NoSpace { doing: "build in", path: store.dir().to_owned() },
        other => other,
    }
}

/// [`build`] for [`Recipe::Packages`].
///
/// # Errors
/// As [`build`].
pub fn packages(name: &str, packages: &Packages, store: &ImageStore, progress: &Progress) -> Result<Image> {
    let recipe = Recipe::Packages(Box::new(packages.clone()));
    build(&BuildSpec { name: name.to_owned(), recipe }, store, progress)
}
