//! Joins a client's upgraded connection with a node's. Each direction has its own end: one that is over takes nothing
//! from the other.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};

/// How long input that nobody reads any more is taken from a client that has got all its output. A connection that is
/// closed while input is on its way is reset by the kernel, and the reset destroys output that the client has not
/// read yet.
const LINGER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes are moved in pieces of this size.
const PIECE: usize = 16 << 10;

/// How one direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Its source has no more, and its destination knows.
    Source,
    /// Its destination takes no more.
    Destination,
}

/// Moves bytes both ways until both directions have ended, the client is gone, or it does not end its side within
/// [`LINGER_TIMEOUT`] after the node has ended its own.
pub(crate) async fn join(
    client: impl AsyncRead + AsyncWrite + Unpin,
    node: impl AsyncRead + AsyncWrite + Unpin,
) {
    let (from_client, mut to_client) = split(client);
    let (from_node, mut to_node) = split(node);
    let (mut from_client, mut from_node) = (from_client, from_node);
    let up = async {
        if carry(&mut from_client, &mut to_node).await == End::Destination {
            // The node has said all that it will, or is about to: what still comes is dropped.
            carry(&mut from_client, &mut tokio::io::sink()).await;
        }
    };
    let down = carry(&mut from_node, &mut to_client);
    tokio::pin!(up, down);
    tokio::select! {
        end = &mut down => {
            if end == End::Source {
                let _ = tokio::time::timeout(LINGER_TIMEOUT, up).await;
            }
        }
        () = &mut up => {
            down.await;
        }
    }
}

async fn carry(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> End {
    let mut buffer = vec![0; PIECE];
    // A source that fails has no more.
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..count]).await.is_err() || to.flush().await.is_err() {
            return End::Destination;
        }
    }
    // Fails only where the destination is gone, and then nothing is lost.
    let _ = to.shutdown().await;
    End::Source
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    #[tokio::test]
    async fn output_survives_input_that_nobody_reads() {
        let (mut client, outer) = duplex(1 << 10);
        let (inner, node) = duplex(1 << 10);
        let joined = tokio::spawn(join(outer, inner));
        // The node answers and goes while the client still sends more than any buffer holds.
        let (reader, mut writer) = split(node);
        writer.write_all(b"result").await.expect("written");
        drop((reader, writer));
        for _ in 0..100 {
            client.write_all(&[b'y'; 1 << 10]).await.expect("taken");
        }
        let mut output = String::new();
        client.read_to_string(&mut output).await.expect("read");
        assert_eq!(output, "result");
        drop(client);
        joined.await.expect("joined");
    }

    #[tokio::test]
    async fn an_answer_survives_the_end_of_the_question() {
        let (mut client, outer) = duplex(1 << 10);
        let (inner, mut node) = duplex(1 << 10);
        let joined = tokio::spawn(join(outer, inner));
        client.write_all(b"question").await.expect("written");
        client.shutdown().await.expect("ended");
        let mut asked = String::new();
        node.read_to_string(&mut asked).await.expect("read");
        node.write_all(b"answer").await.expect("written");
        drop(node);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("read");
        assert_eq!((asked.as_str(), answer.as_str()), ("question", "answer"));
        joined.await.expect("joined");
    }

    #[tokio::test]
    async fn a_client_that_is_gone_ends_the_tunnel() {
        let (client, outer) = duplex(1 << 10);
        let (inner, mut node) = duplex(1 << 10);
        let joined = tokio::spawn(join(outer, inner));
        drop(client);
        let mut rest = Vec::new();
        node.read_to_end(&mut rest).await.expect("the end");
        // Output for nobody is not waited with.
        while node.write_all(&[0; 1 << 10]).await.is_ok() {}
        joined.await.expect("joined");
    }
}
