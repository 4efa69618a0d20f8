//! `yado dev`: compile, build, start, show; keep what runs in step with the files; and remove it all at the end.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use kube::Client;
use serde_json::Value;
use yado_cli::args::{DevStart, Global};
use yado_cli::describe::{Described, Telling, describe};
use yado_cli::local::{DevApp, Running, addresses};
use yado_cli::logs::{Printer, Selection, follow_exits, print_followed};
use yado_cli::progress::{Progress, use_colour};
use yado_cli::{apply, deploy, down, ready};

use crate::answers;
use crate::build::{build_all, keep};
use crate::control::Images;
use crate::data_dir::{DataDir, require_root};
use crate::engine::Engine;
use crate::signals::Stop;
use crate::storage::open_images;

mod live;
mod ports;
mod verbs;

pub use verbs::run as run_command;

/// How long an address may stay silent before that is said; the processes are ready by then.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Where the objects go of a description that has no namespace of its own.
const NAMESPACE: &str = "default";

/// Runs the app of a description until it is told to stop, and leaves only the images behind.
pub async fn run(global: &Global, args: &DevStart) -> Result<()> {
    let progress = Progress::stderr(global.color);
    if let Some(running) = Running::find(&args.data_dir) {
        return verbs::already(&running, args, &progress);
    }
    if args.detach && !args.attached {
        return verbs::detach(args, &progress).await;
    }
    let mut stop = Stop::listen()?;
    require_root()?;
    let mut app = App::compile(global, args, &progress).await?;
    let data = DataDir::claim(&args.data_dir)?;
    let (ports, settings) = ports::take(global, args, &app.described.compiled).await?;
    let store = open_images(&data).await?;
    let images = Images::Here(store.clone());
    tokio::select! {
        built = app.build(&images) => built?,
        () = stop.wanted() => return Ok(()),
    }
    let engine = Engine::start(data, store, &settings, ports).await?;
    let ran = tokio::select! {
        ran = app.run(&engine, &images) => ran,
        () = stop.wanted() => Ok(()),
    };
    Running::remove(&args.data_dir);
    let removed = remove(engine, &mut stop, &progress).await;
    live::clear(&app.described.compiled);
    ran.and(removed)
}

async fn remove(engine: Engine, stop: &mut Stop, progress: &Progress) -> Result<()> {
    let step = progress.step("stop", "everything of this run");
    // A second Ctrl-C ends at once; the next start finds and removes what is left.
    let removed = tokio::select! {
        removed = engine.remove() => removed,
        () = stop.insisted() => Err(anyhow::anyhow!("stopped before everything was removed; `yado dev` removes the rest")),
    };
    match &removed {
        Ok(()) => step.done("nothing is left but the images"),
        Err(_) => step.fail(),
    }
    removed
}

/// The app as it is now.
struct App<'a> {
    global: &'a Global,
    args: &'a DevStart,
    progress: &'a Progress,
    described: Described,
    /// The objects as they are to run: with images by their content and sources in their containers.
    objects: Vec<Value>,
}

impl<'a> App<'a> {
    async fn compile(global: &'a Global, args: &'a DevStart, progress: &'a Progress) -> Result<Self> {
        let step = progress.step("compile", args.source.path.display().to_string());
        let described = match describe(&args.source, Telling::Fetching, progress).await {
            Ok(described) => described,
            Err(mistakes) => {
                step.fail();
                return Err(mistakes);
            }
        };
        let compiled = &described.compiled;
        step.done(format!("{}, {} objects", compiled.app, compiled.objects.len()));
        if !compiled.has_workloads() {
            bail!(
                "{} describes nothing that runs; a Procfile next to the Appfile says how to start it",
                described.shown
            );
        }
        keep(&described)?;
        Ok(Self { global, args, progress, described, objects: Vec::new() })
    }

    /// Builds the images, and makes the objects ask for them.
    async fn build(&mut self, images: &Images) -> Result<()> {
        let compiled = &mut self.described.compiled;
        if !self.args.no_live {
            live::mount_sources(compiled)?;
        }
        let built = build_all(compiled, images, None, self.progress).await?;
        if !self.args.no_live {
            live::put_back(compiled, &built)?;
        }
        self.objects = compiled.objects.iter().map(|o| o.value.clone()).collect();
        Ok(())
    }

    fn namespace(&self) -> &str {
        self.described.compiled.namespace.as_deref().unwrap_or(NAMESPACE)
    }

    /// Starts it, says where it is, and follows its logs and its files for ever. Of every process that ends it is said
    /// how, and what happens next.
    async fn run(&self, engine: &Engine, images: &Images) -> Result<()> {
        engine.ready().await?;
        let client = engine.admin();
        let labels = Selection::of(&self.described.compiled).labels;
        let exits = follow_exits(&client, self.namespace(), &labels, |line| self.progress.warn(line));
        tokio::select! {
            ran = self.serve(engine, &client, images) => ran,
            () = exits => bail!("the API of this run has ended"),
        }
    }

    async fn serve(&self, engine: &Engine, client: &Client, images: &Images) -> Result<()> {
        self.start(client).await?;
        let addresses = self.addresses(engine, client).await;
        // Its logs say why, and the next edit may mend it.
        if let Err(silent) =
            answers::wait(&addresses, Some(engine.http().port()), ANSWER_TIMEOUT, self.progress).await
        {
            self.progress.warn(format!("{silent}"));
        }
        self.tell(engine, &addresses)?;
        self.say(&addresses)?;
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        let colour = use_colour(self.global.color, terminal);
        let selection = Selection::of(&self.described.compiled);
        let namespaces = [self.namespace().to_owned()];
        let printer = Printer::new(stdout, colour, true).harmless(terminal && !self.args.raw);
        let logs = async {
            // In the background nobody reads them here, and a file of them would grow without end: `yado dev logs`.
            if self.args.attached {
                return std::future::pending().await;
            }
            print_followed(client, &namespaces, &selection, printer).await
        };
        tokio::select! {
            printed = logs => Ok(printed?),
            followed = self.follow_files(client, images), if !self.args.no_live => followed,
        }
    }

    async fn start(&self, client: &Client) -> Result<()> {
        let objects: Vec<&Value> = self.objects.iter().collect();
        deploy::check_external(client, self.namespace(), &objects).await?;
        let how = apply::How::deploying();
        apply::apply_objects(client, self.namespace(), &self.objects, how, "", self.progress).await?;
        // Whoever develops wants to see it, and is told of each process that ends.
        let wait = ready::Wait { settle: Duration::ZERO, ..ready::Wait::default() };
        ready::wait_ready(client, self.namespace(), &self.objects, wait, self.progress).await
    }

    async fn addresses(&self, engine: &Engine, client: &Client) -> Vec<String> {
        let compiled = &self.described.compiled;
        let published = deploy::reached(client, self.namespace(), &compiled.published).await;
        addresses(compiled.host.as_deref(), &published, Some(engine.http().port()))
    }

    /// Leaves word for `yado dev ssh` and the like.
    fn tell(&self, engine: &Engine, addresses: &[String]) -> Result<()> {
        let path = self.args.source.files.first().unwrap_or(&self.args.source.path);
        engine.tell(Some(DevApp {
            name: self.described.compiled.app.clone(),
            path: path.canonicalize().unwrap_or_else(|_| path.clone()),
            namespace: self.namespace().to_owned(),
            addresses: addresses.to_vec(),
        }))
    }

    /// What Otto ended with: where it is, and what to do with it.
    fn say(&self, addresses: &[String]) -> Result<()> {
        let mut out = std::io::stdout().lock();
        for address in addresses {
            writeln!(out, "{address}")?;
        }
        let live = if self.args.no_live { "" } else { live::edit_notice(&self.described.compiled) };
        self.progress.say(format!("{live}A shell inside: yado dev ssh. The end: Ctrl-C."));
        Ok(())
    }

    /// Builds and starts anew what has changed, again and again. What goes wrong is said, and mended by the next change.
    async fn follow_files(&self, client: &Client, images: &Images) -> Result<()> {
        let mut files = live::Files::of(&self.described);
        let mut before = self.objects.clone();
        loop {
            files.changed().await;
            match self.again(client, images, &before).await {
                Ok((objects, watched)) => (before, files) = (objects, watched),
                Err(error) => self.progress.warn(format!("not started anew: {}", crate::sentence(&error))),
            }
        }
    }

    async fn again(
        &self,
        client: &Client,
        images: &Images,
        before: &[Value],
    ) -> Result<(Vec<Value>, live::Files)> {
        let mut app = App::compile(self.global, self.args, self.progress).await?;
        app.build(images).await?;
        let files = live::Files::of(&app.described);
        let gone: Vec<Value> =
            before.iter().filter(|old| app.objects.iter().all(|new| !same(old, new))).cloned().collect();
        if app.objects != before {
            down::delete_objects(client, self.namespace(), &gone).await?;
            app.start(client).await?;
        }
        Ok((app.objects, files))
    }
}

/// Whether two states are of one object.
fn same(a: &Value, b: &Value) -> bool {
    let key =
        |v: &Value| [v["kind"].clone(), v["metadata"]["namespace"].clone(), v["metadata"]["name"].clone()];
    key(a) == key(b)
}

/// Whether two paths are one description.
fn same_path(a: &Path, b: &Path) -> bool {
    let resolved = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.into());
    resolved(a) == resolved(b)
}
