//! How `yado image` reaches an engine that runs: a socket in the data directory, a request a line, an answer a line.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as Blocking;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use yado_node::Node;
use yado_oci::image::{Image, ImageStore, Progress};
use yado_reconcile::Tasks;

/// The socket's name in a data directory.
const SOCKET: &str = "control.sock";
/// A request is a path and a few words.
const LONGEST_REQUEST: u64 = 16 * 1024;

/// What can be asked of an engine.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Import the images of an archive.
    Import(PathBuf),
    /// List all images.
    List,
}

type Answer = std::result::Result<Vec<Image>, String>;

/// Answers requests until the tasks are stopped.
pub fn serve(data: &Path, images: ImageStore, node: Node, tasks: &Tasks) -> Result<()> {
    let path = data.join(SOCKET);
    // A socket that an earlier run left; the data directory's lock says that nobody listens on it.
    let _ = std::fs::remove_file(&path);
    let bind = || {
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        std::io::Result::Ok(listener)
    };
    let listener = bind().with_context(|| format!("{} cannot be listened on", path.display()))?;
    let owner = tasks.clone();
    tasks.spawn("control", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (images, node) = (images.clone(), node.clone());
            // A client that goes away is no matter of ours.
            owner.spawn("control request", async move { drop(answer(stream, images, &node).await) });
        }
    });
    Ok(())
}

async fn answer(mut stream: UnixStream, images: ImageStore, node: &Node) -> Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    tokio::io::BufReader::new(read.take(LONGEST_REQUEST)).read_line(&mut line).await?;
    let request: Request = serde_json::from_str(&line)?;
    let importing = matches!(request, Request::Import(_));
    let answer: Answer = tokio::task::spawn_blocking(move || carry_out(&request, &images)).await?;
    if importing {
        node.images_changed();
    }
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    Ok(write.write_all(&text).await?)
}

/// Carries a request out on a store.
pub fn carry_out(request: &Request, images: &ImageStore) -> Answer {
    let done = match request {
        Request::Import(path) => images.import(path, &Progress::none()),
        Request::List => images.list(),
    };
    done.map_err(|error| error.to_string())
}

/// Asks the engine of a data directory; `None` where none runs.
pub fn ask(data: &Path, request: &Request) -> Result<Option<Vec<Image>>> {
    let Ok(mut stream) = Blocking::connect(data.join(SOCKET)) else { return Ok(None) };
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    stream.write_all(&text).context("the running engine cannot be asked")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).context("the running engine gave no answer")?;
    match serde_json::from_str::<Answer>(&line).context("the running engine gave no answer")? {
        Ok(images) => Ok(Some(images)),
        Err(reason) => bail!("{reason}"),
    }
}
