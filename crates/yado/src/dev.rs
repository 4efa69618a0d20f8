//! `yado dev`: compile, build, start, show; and remove it all at the end.

use std::io::IsTerminal;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use yado_cli::args::{DevArgs, Global};
use yado_cli::logs::{Printer, Selection, print_followed};
use yado_cli::progress::{Progress, use_colour};
use yado_cli::{apply, ready};
use yado_compile::{BuildHow, BuildRequest, Compiled, Options, output};
use yado_oci::build::{self, BuildSpec, Recipe};
use yado_oci::image::{Event, ImageStore, StepState};

use crate::data_dir::{DataDir, require_root};
use crate::engine::{Engine, Ports, Settings, open_images};
use crate::signals::Stop;

const NAMESPACE: &str = "default";

/// Runs the app of a directory until it is told to stop, and leaves only the images behind.
pub async fn run(global: &Global, args: &DevArgs) -> Result<()> {
    let progress = Progress::stderr(global.color);
    let mut stop = Stop::listen()?;
    require_root()?;
    let mut compiled = compile(args, &progress)?;
    let data = DataDir::claim(&args.data_dir)?;
    let settings = Settings {
        api_port: args.api_port,
        http_port: args.http_port,
        node_name: None,
        kubeconfig: global.kubeconfig.clone(),
    };
    let ports = Ports::bind(&settings).await?;
    let images = open_images(&data).await?;
    let building = build_all(&mut compiled, &images, &progress);
    tokio::select! {
        built = building => built?,
        () = stop.wanted() => return Ok(()),
    }
    let engine = Engine::start(data, images, &settings, ports).await?;
    let running = run_app(&engine, &compiled, global, &progress);
    let ran = tokio::select! {
        ran = running => ran,
        () = stop.wanted() => Ok(()),
    };
    let step = progress.step("stop", "everything of this run");
    let removing = engine.remove();
    // A second Ctrl-C ends at once; the next start finds and removes what is left.
    let removed = tokio::select! {
        removed = removing => removed,
        () = stop.insisted() => Err(anyhow::anyhow!("stopped before everything was removed; `yado dev` removes the rest")),
    };
    match &removed {
        Ok(()) => step.done("nothing is left but the images"),
        Err(_) => step.fail(),
    }
    ran.and(removed)
}

fn compile(args: &DevArgs, progress: &Progress) -> Result<Compiled> {
    let step = progress.step("compile", args.path.display().to_string());
    let compiled = match yado_compile::compile(&args.path, &Options::default()) {
        Ok(compiled) => compiled,
        Err(diagnostics) => {
            step.fail();
            return Err(diagnostics.into());
        }
    };
    step.done(format!("{}, {} objects", compiled.app, compiled.objects.len()));
    compiled.warnings.iter().for_each(|warning| progress.warn(warning.to_string()));
    if !compiled.has_workloads() {
        bail!(
            "{} describes nothing that runs; a Procfile next to the Appfile says how to start it",
            args.path.display()
        );
    }
    if let Some(path) = &compiled.missing_id {
        output::write_id(path)?;
    }
    output::write(&compiled, &compiled.directory.join(output::DEFAULT_DIRECTORY))?;
    Ok(compiled)
}

/// Builds every image; the objects then ask for exactly what was built, so that a change is a new revision.
async fn build_all(compiled: &mut Compiled, images: &ImageStore, progress: &Progress) -> Result<()> {
    for request in compiled.builds.clone() {
        let step = std::sync::Arc::new(progress.step("build", &request.name));
        let (sink, name) = (step.clone(), request.name.clone());
        let events = yado_oci::image::Progress::new(move |event| {
            if let Event::Step { step, state: StepState::Running(what) } = event {
                sink.detail(format!("{name}: {step}: {what}"));
            }
        });
        let spec = BuildSpec { name: request.image.clone(), recipe: recipe(&request)? };
        // Dropping the future (at Ctrl-C) must stop the work as well.
        let cancel = CancelOnDrop(events.clone());
        let (store, image_name) = (images.clone(), request.image.clone());
        let built = tokio::task::spawn_blocking(move || {
            let image = build::build(&spec, &store, &events)?;
            let digest: String = image.id.trim_start_matches("sha256:").chars().take(12).collect();
            let repository =
                image_name.rsplit_once(':').map_or(image_name.as_str(), |(repository, _)| repository);
            let pinned = format!("{repository}:{digest}");
            store.tag(&image_name, &pinned)?;
            Ok::<_, yado_oci::image::ImageError>(pinned)
        });
        let built = built.await.context("the build ended early")?;
        drop(cancel);
        let step = std::sync::Arc::into_inner(step);
        match built {
            Ok(pinned) => {
                compiled.pin_image(&request.image, &pinned);
                if let Some(step) = step {
                    step.done(&request.name);
                }
            }
            Err(error) => {
                if let Some(step) = step {
                    step.fail();
                }
                return Err(error).with_context(|| format!("{} cannot be built", request.name));
            }
        }
    }
    Ok(())
}

fn recipe(request: &BuildRequest) -> Result<Recipe> {
    let context = request.context.clone();
    match &request.how {
        BuildHow::Source { language, processes } => {
            let language = language.as_deref().map(str::parse).transpose()?;
            Ok(Recipe::Source { context, language, processes: processes.clone() })
        }
        BuildHow::Dockerfile { file, .. } => bail!(
            "{} is built by {}, and Dockerfiles are not built yet; build it elsewhere and import it as {}",
            request.name,
            context.join(file.as_deref().unwrap_or("Dockerfile".as_ref())).display(),
            request.image
        ),
    }
}

struct CancelOnDrop(yado_oci::image::Progress);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

async fn run_app(engine: &Engine, compiled: &Compiled, global: &Global, progress: &Progress) -> Result<()> {
    engine.ready().await?;
    let client = engine.admin();
    let objects: Vec<Value> = compiled.objects.iter().map(|o| o.value.clone()).collect();
    apply::apply_objects(&client, NAMESPACE, &objects, progress).await?;
    ready::wait_ready(&client, NAMESPACE, &objects, ready::PATIENCE, progress).await?;
    if let Some(host) = &compiled.host {
        println!("http://{host}:{}", engine.http().port());
    }
    let stdout = std::io::stdout();
    let colour = use_colour(global.color, stdout.is_terminal());
    print_followed(&client, NAMESPACE, &Selection::of(compiled), Printer::new(stdout, colour, true)).await?;
    Ok(())
}
