//! The stream under a connection: how it is opened, and how it ends.
//!
//! A server counts a connection until its process is gone, which is a moment after the client has
//! closed. The process closes its end of the stream as the last thing it does: so who counts
//! connections waits for the end of the stream. What a [`Line`] keeps true: however it is dropped (a
//! connection that was closed, a login that failed, a future that was dropped half-way), its writing
//! half is shut down, what the server still sends is read, and only then its [`Guard`] is dropped.
//! A dead network does not hold that up for longer than [`LINGER`].

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How long the end of a closed stream is waited for.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// Something that is dropped when the server has let go of a connection; shared by the tries of one
/// `connect`, so that it goes with the last of them.
#[derive(Clone)]
pub(crate) struct Guard {
    // Never locked: it makes the value shareable without asking it to be `Sync`.
    _value: Arc<Mutex<dyn Send>>,
}

impl Guard {
    pub(crate) fn new(value: impl Send + 'static) -> Self {
        Self { _value: Arc::new(Mutex::new(value)) }
    }
}

/// Where a stream goes to, exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Tcp(std::net::SocketAddr),
    /// The path of the socket itself, not of its folder.
    Unix(PathBuf),
}

/// What is set on a TCP stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct TcpOptions {
    pub(crate) keepalive: Option<TcpKeepalive>,
    pub(crate) user_timeout: Option<Duration>,
}

/// A stream to a server.
pub(crate) struct Line {
    /// Some until it is dropped.
    wire: Option<Wire>,
    ends: Option<Ends>,
    runtime: Handle,
}

/// What is dropped when the server has closed its end.
struct Ends {
    _gone: oneshot::Sender<()>,
    _guard: Option<Guard>,
}

/// Ends when the server has closed its end of a [`Line`], or the wait for it was given up.
pub(crate) type Gone = oneshot::Receiver<()>;

enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Line {
    /// Opens a stream.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes what was opened.
    pub(crate) async fn open(to: &Endpoint, options: &TcpOptions, guard: Option<Guard>) -> io::Result<(Self, Gone)> {
        let wire = match to {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let socket = SockRef::from(&stream);
                #[cfg(target_os = "linux")]
                socket.set_tcp_user_timeout(options.user_timeout)?;
                if let Some(keepalive) = &options.keepalive {
                    socket.set_tcp_keepalive(keepalive)?;
                }
                Wire::Tcp(stream)
            }
            Endpoint::Unix(path) => Wire::Unix(UnixStream::connect(path).await?),
        };
        let (sender, gone) = oneshot::channel();
        let ends = Some(Ends { _gone: sender, _guard: guard });
        Ok((Self { wire: Some(wire), ends, runtime: Handle::current() }, gone))
    }

    fn wire(&mut self) -> io::Result<&mut Wire> {
        self.wire.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

/// Waits until the server has closed its end, too.
async fn linger(mut wire: Wire) {
    let until_the_end = async {
        if wire.shutdown().await.is_ok() {
            let mut rest = [0; 1024];
            while matches!(wire.read(&mut rest).await, Ok(1..)) {}
        }
    };
    let _given_up = tokio::time::timeout(LINGER, until_the_end).await;
}

impl Drop for Line {
    fn drop(&mut self) {
        let (Some(wire), ends) = (self.wire.take(), self.ends.take()) else { return };
        self.runtime.spawn(async move {
            linger(wire).await;
            drop(ends);
        });
    }
}

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().wire()?).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().wire()?).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().wire()?).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().wire()?).poll_shutdown(cx)
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
