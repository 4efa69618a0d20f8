//! What daemon and shim say to each other: frames of a 32-bit little-endian length and JSON, file descriptors
//! beside them as `SCM_RIGHTS`. A shim may be older than the daemon, so fields are only ever added, with defaults.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::Refusal;
use crate::spec::{ContainerSpec, ContainerStatus, ExecSpec};

/// The largest frame. Environments are the bulk of a specification, and the kernel takes no more than 2 MiB of them
/// by default; twice that leaves room for JSON's escapes.
pub const MAX_FRAME: usize = 4 << 20;

/// Descriptors that may come with one frame: an exec has three streams, a terminal three duplicates.
const MAX_FDS: usize = 4;

/// The socket's name in the sandbox's directory.
pub const SOCKET: &str = "shim.sock";
/// The containers' states, written by the shim whenever one changes.
pub const STATE_FILE: &str = "state.json";
/// The sandbox's specification, written by the runtime before the shim starts.
pub const SPEC_FILE: &str = "spec.json";
/// Directory of a sandbox that holds a directory for each container, by its id.
pub const CONTAINERS: &str = "c";
/// Directory of a container with its writable layer.
pub const UPPER: &str = "upper";
/// Where the shim moves the directories of removed containers, for the daemon to delete.
pub const GONE: &str = "gone";
/// Where a shim's last words go.
pub const SHIM_LOG: &str = "shim.log";

/// Daemon to shim.
#[derive(Debug, Serialize, Deserialize)]
pub struct Call {
    /// Repeated in the reply.
    pub seq: u64,
    pub request: Request,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    Create(Box<ContainerSpec>),
    Start {
        id: String,
    },
    Signal {
        id: String,
        signal: i32,
    },
    KillAll,
    Remove {
        id: String,
    },
    Exec {
        id: String,
        spec: ExecSpec,
        /// Kill it when the connection that asked for it ends.
        tied: bool,
    },
    SignalExec {
        exec: u64,
        signal: i32,
    },
    Attach {
        id: String,
    },
    CloseStdin {
        id: String,
    },
    /// Kill everything, then end.
    Shutdown,
}

/// Shim to daemon.
#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    /// The first message of every connection: the whole state.
    Snapshot(Vec<ContainerStatus>),
    /// A container's new state. Sent before the reply to the request that caused it.
    Changed(ContainerStatus),
    /// A container was removed.
    Removed { id: String },
    /// An exec of this connection ended.
    ExecExited { exec: u64, code: i32 },
    /// The answer to one call, with this many descriptors.
    Reply { seq: u64, reply: Reply, fds: usize },
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    Done,
    Started {
        pid: i32,
    },
    /// Descriptors follow in the order standard input, output, error; a terminal gives one for all.
    Streams {
        exec: u64,
        stdin: bool,
        stderr: bool,
        terminal: bool,
    },
    Refused {
        kind: Refusal,
        message: String,
    },
}

/// Turns a message into a frame.
pub fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is larger than 4 MiB"));
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// Collects bytes and descriptors until frames are whole.
#[derive(Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Inbox {
    /// Receives once. `Ok(0)` is the peer's end.
    pub fn receive(&mut self, socket: BorrowedFd) -> io::Result<usize> {
        let mut buffer = [0; 8192];
        let mut iov = [IoSliceMut::new(&mut buffer)];
        let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
        let message =
            recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let count = message.bytes;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = part {
                // SAFETY: the kernel has just made these descriptors for us and nobody else knows them.
                self.fds.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        self.bytes.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    /// One packet of a packet socket; empty is the peer's end. Of a longer one the head is taken.
    pub fn receive_packet(&mut self, socket: BorrowedFd) -> io::Result<Vec<u8>> {
        self.receive(socket)?;
        Ok(std::mem::take(&mut self.bytes))
    }

    /// All descriptors that have come.
    pub fn all_fds(&mut self) -> Vec<OwnedFd> {
        self.fds.drain(..).collect()
    }

    /// The next whole frame, if one is there.
    pub fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some(head) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if length > MAX_FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is larger than 4 MiB"));
        }
        if self.bytes.len() < 4 + length {
            return Ok(None);
        }
        let message = serde_json::from_slice(&self.bytes[4..4 + length])?;
        self.bytes.drain(..4 + length);
        if self.bytes.is_empty() {
            // The shim stays small between requests.
            self.bytes = Vec::new();
        }
        Ok(Some(message))
    }

    /// The descriptors that came with the frame just taken.
    pub fn take_fds(&mut self, count: usize) -> io::Result<Vec<OwnedFd>> {
        if self.fds.len() < count {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a descriptor is missing"));
        }
        Ok(self.fds.drain(..count).collect())
    }
}

/// Sends as much as the socket takes; the descriptors go with the first byte.
pub fn send(socket: BorrowedFd, bytes: &[u8], fds: &[RawFd]) -> io::Result<usize> {
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage] = if fds.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL;
    Ok(sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None)?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn frames_and_descriptors_arrive_in_order() {
        let (left, right) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        for seq in 0..3 {
            let message = Message::Reply { seq, reply: Reply::Done, fds: usize::from(seq == 1) };
            let frame = encode(&message).unwrap();
            let fds = if seq == 1 { vec![file.as_raw_fd()] } else { vec![] };
            assert_eq!(send(left.as_fd(), &frame, &fds).unwrap(), frame.len());
        }
        drop(left);
        let mut inbox = Inbox::default();
        let mut seen = Vec::new();
        while inbox.receive(right.as_fd()).unwrap() > 0 {
            while let Some(message) = inbox.next::<Message>().unwrap() {
                let Message::Reply { seq, fds, .. } = message else { panic!("{message:?}") };
                seen.push((seq, inbox.take_fds(fds).unwrap().len()));
            }
        }
        assert_eq!(seen, [(0, 0), (1, 1), (2, 0)]);
    }

    #[test]
    fn an_oversized_frame_is_refused() {
        let (left, right) = UnixStream::pair().unwrap();
        send(left.as_fd(), &u32::MAX.to_le_bytes(), &[]).unwrap();
        let mut inbox = Inbox::default();
        inbox.receive(right.as_fd()).unwrap();
        assert!(inbox.next::<Message>().is_err());
    }
}
