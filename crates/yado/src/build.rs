//! Images from sources: for `dev`, `build` and `deploy`, by this process or by the engine that has the images.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::json;
use yado_cli::args::{BuildArgs, Format, Global};
use yado_cli::describe::{Telling, describe};
use yado_cli::progress::{Progress, Step};
use yado_compile::{BuildMethod, BuildRequest, Compiled, output};
use yado_oci::build::LIVE_LABEL;

use crate::builder::{Order, pinned};
use crate::control::{Images, Request, Update};
use crate::data_dir::{DataDir, require_root};
use crate::storage::open_images;

mod artifacts;

pub use artifacts::Artifacts;

/// An image that is there now.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    /// The application.
    pub name: String,
    /// The image's name by its content: `yado.local/guestbook:0123456789ab`.
    pub image: String,
    /// Its id, `sha256:…`.
    pub id: String,
    /// Bytes of its layers.
    pub size: u64,
    /// Whether it was not there before.
    pub new: bool,
    /// What of its sources' directory lies elsewhere in it: [`yado_oci::build::LIVE_LABEL`].
    pub elsewhere: String,
}

/// Makes every image that `compiled` asks for, and makes its objects ask for exactly these, so that a change is a new
/// revision. Dropping the future ends the work.
///
/// # Errors
/// The first image that cannot be built, with the reason.
pub async fn build_all(
    compiled: &mut Compiled,
    images: &Images,
    artifacts: Option<&Artifacts>,
    progress: &Progress,
) -> Result<Vec<Built>> {
    let mut all = Vec::new();
    for request in compiled.builds.clone() {
        let step = Arc::new(progress.step("build", &request.name));
        let made = build_one(&request, images, artifacts, &step, progress).await;
        let step = Arc::into_inner(step);
        match made {
            Ok(built) => {
                compiled.pin_image(&request.image, &built.image);
                let word = if built.new { "" } else { ": is already built" };
                step.into_iter().for_each(|step| step.done(format!("{}{word}", request.name)));
                all.push(built);
            }
            Err(error) => {
                step.into_iter().for_each(Step::fail);
                return Err(error).with_context(|| format!("{} cannot be built", request.name));
            }
        }
    }
    Ok(all)
}

async fn build_one(
    request: &BuildRequest,
    images: &Images,
    artifacts: Option<&Artifacts>,
    step: &Arc<Step>,
    progress: &Progress,
) -> Result<Built> {
    let BuildMethod::Source { language, processes } = &request.method else {
        return imported(request, images, progress).await;
    };
    let known = images.ask(Request::List, |_| ()).await?;
    let context = request.context.canonicalize();
    let context = context.with_context(|| format!("{} cannot be read", request.context.display()))?;
    let (sink, name, screen) = (Arc::downgrade(step), request.name.clone(), progress.clone());
    let say = move |update: Update| match update {
        Update::Doing(what) => {
            sink.upgrade().into_iter().for_each(|step| step.detail(format!("{name}: {what}")))
        }
        Update::Notice(text) => screen.say(format!("            {name}: {text}")),
        Update::Warning(text) => screen.warn(format!("{name}: {text}")),
    };
    let order = Order {
        image: request.image.clone(),
        context,
        language: language.clone(),
        processes: processes.clone(),
        // An engine has another working directory.
        left_out: request.excluded.iter().flat_map(std::path::absolute).collect(),
    };
    let made = match artifacts {
        Some(artifacts) => artifacts.build(order, images, &known, say).await?,
        None => images.ask(Request::Build(order), say).await?.into_iter().next(),
    };
    let made = made.context("the builder made no image")?;
    Ok(Built {
        name: request.name.clone(),
        image: pinned(&request.image, &made.id),
        new: known.iter().all(|image| image.id != made.id),
        size: made.size,
        elsewhere: made.config.labels.get(LIVE_LABEL).cloned().unwrap_or_default(),
        id: made.id,
    })
}

/// Dockerfiles are not built; but an image of that name may have been brought here.
async fn imported(request: &BuildRequest, images: &Images, progress: &Progress) -> Result<Built> {
    let wanted: yado_oci::image::Reference = request.image.parse()?;
    let known = images.ask(Request::List, |_| ()).await?;
    let found = known.into_iter().find(|image| image.names.contains(&wanted.to_string()));
    let BuildMethod::Dockerfile { file, inline, .. } = &request.method else {
        bail!("there is no way to build it")
    };
    let file = request.context.join(file.as_deref().unwrap_or("Dockerfile".as_ref()));
    let by = if inline.is_some() {
        "the Dockerfile in its description".into()
    } else {
        file.display().to_string()
    };
    let Some(found) = found else {
        bail!(
            "it is built by {by}, and Dockerfiles are not built yet: build it elsewhere, save it as {}, and bring it \
             here with `yado image import`; or let a Procfile in {} say how it starts",
            request.image,
            request.context.display()
        );
    };
    progress.say(format!("            {} is used as it was imported; {by} is not built", request.image));
    Ok(Built {
        name: request.name.clone(),
        image: request.image.clone(),
        id: found.id,
        size: found.size,
        new: false,
        elsewhere: String::new(),
    })
}

/// The images of a data directory: the engine's where one runs, otherwise this process's, which holds the directory
/// as long as the second part lives.
///
/// # Errors
/// Somebody other than an engine has it, or it cannot be used.
pub async fn images_of(data_dir: &Path) -> Result<(Images, Option<DataDir>)> {
    require_root()?;
    if let Some(engine) = Images::of_engine(data_dir).await {
        return Ok((engine, None));
    }
    let data = DataDir::claim(data_dir)?;
    let store = open_images(&data).await?;
    Ok((Images::Here(store), Some(data)))
}

/// `yado build`.
pub async fn run(global: &Global, args: &BuildArgs) -> Result<()> {
    let progress = Progress::stderr(global.color);
    let mut described = describe(&args.source, Telling::Fetching, &progress).await?;
    keep(&described)?;
    let compiled = &mut described.compiled;
    if compiled.builds.is_empty() {
        progress.say(format!("{} asks for images as they are: there is nothing to build", compiled.app));
        return Ok(());
    }
    progress.say(format!("==> Building {}...", compiled.app));
    let (images, _held) = images_of(&args.place.data_dir).await?;
    let artifacts = args.place.artifacts.as_deref().map(Artifacts::open).transpose()?;
    let built = build_all(compiled, &images, artifacts.as_ref(), &progress).await?;
    progress.say("==> Build success!");
    print(&built, args.output)
}

/// Writes what `compile` would write, so that it can be read what is built and deployed.
///
/// # Errors
/// A file cannot be written.
pub fn keep(described: &yado_cli::describe::Described) -> Result<()> {
    if let Some(path) = &described.compiled.missing_id {
        output::write_id(path)?;
    }
    output::write(&described.compiled, &described.directory.join(output::DEFAULT_DIRECTORY))?;
    Ok(())
}

fn print(built: &[Built], format: Option<Format>) -> Result<()> {
    let rows: Vec<_> = built
        .iter()
        .map(|b| json!({"name": b.name, "image": b.image, "id": b.id, "size": b.size, "new": b.new}))
        .collect();
    match format {
        Some(format) => print!("{}", yado_cli::formatted(&rows, format)?),
        None => built.iter().for_each(|b| println!("{}  {}  {:.1} MB", b.image, b.id, b.size as f64 / 1e6)),
    }
    Ok(())
}
