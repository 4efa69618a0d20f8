//! How commands reach the images of an engine that runs: a socket in the data directory, a request a line, and lines
//! back: what is being done, and at last what became of it. A client that goes away ends what it asked for.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use yado_cli::local::{SOCKET, SocketPath};
use yado_oci::image::{Bounds, Event, Freed, Image, ImageStore, Keep, Progress, StepState};
use yado_reconcile::Tasks;

use crate::builder::{self, Order};
use crate::collect::Keeper;

/// A request is a path and a few words; a build's process types and the files that it leaves out are the longest.
const LONGEST_REQUEST: u64 = 1024 * 1024;
/// Words on their way to a client. One that does not read them misses some, and holds nobody up.
const WORDS: usize = 16;

/// What can be asked of an engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Import the images of an archive.
    Import(PathBuf),
    /// List all images.
    List,
    /// Build an image and name it by its content as well.
    Build(Order),
    /// Write an image as an archive to a file.
    Save {
        /// The image.
        image: String,
        /// The file, absolute.
        file: PathBuf,
    },
    /// Remove what nothing uses.
    Prune {
        /// Images with a name too.
        all: bool,
    },
}

impl Request {
    /// Whether there may be images afterwards that Pods wait for.
    fn brings_images(&self) -> bool {
        matches!(self, Request::Import(_) | Request::Build(_))
    }
}

/// What is said of a request while it is carried out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Update {
    /// What is being done; the next one takes its place.
    Doing(String),
    /// What the user should know.
    Notice(String),
    /// What is not as it was asked for.
    Warning(String),
}

/// What an engine says to a request.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// What is said meanwhile.
    Meanwhile(Update),
    /// What came of it; the last line.
    Done(Vec<Image>),
    /// What was removed; the last line.
    Freed(Freed),
    /// Why nothing came of it; the last line.
    Failed(String),
}

/// Answers requests until the tasks are stopped.
pub fn serve(data: &Path, keeper: Keeper, tasks: &Tasks) -> Result<()> {
    let path = data.join(SOCKET);
    // A socket that an earlier run left; the data directory's lock says that nobody listens on it.
    let _ = std::fs::remove_file(&path);
    let bind = || {
        let listener = UnixListener::bind(SocketPath::of(data)?.path())?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        std::io::Result::Ok(listener)
    };
    let listener = bind().with_context(|| format!("{} cannot be listened on", path.display()))?;
    let owner = tasks.clone();
    tasks.spawn("control", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let keeper = keeper.clone();
            // A client that goes away is no matter of ours.
            owner.spawn("control request", async move { drop(answer(stream, &keeper).await) });
        }
    });
    Ok(())
}

async fn answer(mut stream: UnixStream, keeper: &Keeper) -> Result<()> {
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read.take(LONGEST_REQUEST));
    let mut line = String::new();
    read.read_line(&mut line).await?;
    let request: Request = serde_json::from_str(&line)?;
    if let Request::Prune { all } = request {
        let pruned = keeper.tidy(Bounds::prune(all)).await;
        let answer = pruned.map_or_else(|error| Answer::Failed(crate::sentence(&error)), Answer::Freed);
        return send(&mut write, &answer).await;
    }
    let images = keeper.images().clone();
    let brings_images = request.brings_images();
    let (say, mut said) = mpsc::channel(WORDS);
    let progress = updates(move |update| match update {
        // The next one says more.
        Update::Doing(_) => drop(say.try_send(update)),
        // The work is on a thread of its own; a client that has gone hears nothing.
        lasting => drop(say.blocking_send(lasting)),
    });
    // Also when this task is ended: the work is on another thread.
    let cancel = CancelOnDrop(progress.clone());
    let mut work = tokio::task::spawn_blocking(move || carry_out(&request, &images, &progress));
    let done = loop {
        tokio::select! {
            done = &mut work => break done?,
            Some(update) = said.recv() => send(&mut write, &Answer::Meanwhile(update)).await?,
            // Nothing more is ever sent: that the client has gone is all that can be read.
            _ = read.fill_buf(), if !cancel.0.is_cancelled() => cancel.0.cancel(),
        }
    };
    if brings_images {
        keeper.node().images_changed();
    }
    while let Ok(update) = said.try_recv() {
        send(&mut write, &Answer::Meanwhile(update)).await?;
    }
    send(&mut write, &done.map_or_else(Answer::Failed, Answer::Done)).await
}

async fn send(write: &mut (impl AsyncWriteExt + Unpin), answer: &Answer) -> Result<()> {
    let mut text = serde_json::to_vec(answer)?;
    text.push(b'\n');
    Ok(write.write_all(&text).await?)
}

/// A progress that says what a build is at.
fn updates(say: impl Fn(Update) + Send + Sync + 'static) -> Progress {
    Progress::new(move |event| match event {
        Event::Step { step, state: StepState::Running(what) } => {
            say(Update::Doing(format!("{step}: {what}")))
        }
        Event::Notice { text } => say(Update::Notice(text)),
        Event::Warning { text } => {
            tracing::warn!("{text}");
            say(Update::Warning(text));
        }
        _ => {}
    })
}

struct CancelOnDrop(Progress);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn carry_out(
    request: &Request,
    images: &ImageStore,
    progress: &Progress,
) -> std::result::Result<Vec<Image>, String> {
    let done = match request {
        Request::Import(path) => images.import(path, progress).map_err(anyhow::Error::from),
        Request::List => images.list().map_err(anyhow::Error::from),
        Request::Build(order) => builder::carry_out(order, images, progress).map(|image| vec![image]),
        Request::Save { image, file } => builder::save(image, file, images, progress).map(|()| Vec::new()),
        Request::Prune { all } => prune_here(images, *all).map(|_| Vec::new()),
    };
    done.map_err(|error| crate::sentence(&error))
}

/// Where no engine runs, and no container either: the caller sees to that.
fn prune_here(images: &ImageStore, all: bool) -> Result<Freed> {
    Ok(images.tidy(&Keep::default(), &Bounds::prune(all))?)
}

/// Who has the images of a data directory.
#[derive(Clone)]
pub enum Images {
    /// The engine that runs on it.
    Engine(PathBuf),
    /// This process.
    Here(ImageStore),
}

impl Images {
    /// The engine where one runs on the data directory; `None` otherwise.
    pub async fn of_engine(data: &Path) -> Option<Self> {
        connect(data).await.ok().map(|_| Images::Engine(data.into()))
    }

    /// Carries a request out; `say` is told what is being done. Dropping the future ends the work.
    ///
    /// # Errors
    /// The reason, in one sentence.
    pub async fn ask(
        &self,
        request: Request,
        say: impl Fn(Update) + Send + Sync + 'static,
    ) -> Result<Vec<Image>> {
        let store = match self {
            Images::Engine(data) => match ask_engine(data, &request, say).await? {
                Answer::Done(images) => return Ok(images),
                _ => return Ok(Vec::new()),
            },
            Images::Here(store) => store.clone(),
        };
        let progress = updates(say);
        let _cancel = CancelOnDrop(progress.clone());
        let say = Arc::new(progress);
        let done = tokio::task::spawn_blocking(move || carry_out(&request, &store, &say));
        done.await.context("it ended early")?.map_err(anyhow::Error::msg)
    }
}

impl Images {
    /// Removes what nothing uses; images with a name only where `all` is set.
    ///
    /// # Errors
    /// The reason, in one sentence.
    pub async fn prune(&self, all: bool) -> Result<Freed> {
        match self {
            Images::Engine(data) => match ask_engine(data, &Request::Prune { all }, |_| ()).await? {
                Answer::Freed(freed) => Ok(freed),
                _ => bail!("the running engine gave no answer"),
            },
            Images::Here(store) => {
                let store = store.clone();
                let pruned = tokio::task::spawn_blocking(move || prune_here(&store, all));
                pruned.await.context("it ended early")?
            }
        }
    }
}

async fn connect(data: &Path) -> std::io::Result<UnixStream> {
    UnixStream::connect(SocketPath::of(data)?.path()).await
}

async fn ask_engine(data: &Path, request: &Request, say: impl Fn(Update)) -> Result<Answer> {
    let no_answer = "the running engine gave no answer";
    let mut stream = connect(data).await.context("the running engine cannot be asked")?;
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    stream.write_all(&text).await.context("the running engine cannot be asked")?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await.context(no_answer)? {
        match serde_json::from_str(&line).context(no_answer)? {
            Answer::Meanwhile(update) => say(update),
            Answer::Failed(reason) => bail!("{reason}"),
            done => return Ok(done),
        }
    }
    bail!("{no_answer}")
}
