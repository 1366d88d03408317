//! A TCP listener with bounds: how many connections, and how long one may be silent.
//!
//! Invariant: a connection beyond the bound waits in the backlog; one that neither reads nor writes a byte for
//! [`IDLE_MAX`] is closed, so that nobody can hold all of them for ever.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

use super::access::Access;
use super::tls::MaybeTls;

/// Connections at one time: some Prometheus servers, probes and people.
const CONNECTIONS_MAX: usize = 64;
/// Longer than a scrape interval of one minute, so that a scraper keeps its connection.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(90);

/// A listener whose connections are bounded.
pub(super) struct BoundedListener {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    access: Access,
}

impl BoundedListener {
    pub(super) fn new(listener: TcpListener, access: Access) -> Self {
        Self { listener, permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)), access }
    }
}

impl axum::serve::Listener for BoundedListener {
    type Io = BoundedStream<MaybeTls<TcpStream>>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
        (BoundedStream::new(MaybeTls::new(stream, self.access.tls()), Some(permit)), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when it is silent for too long.
pub(super) struct BoundedStream<S> {
    stream: S,
    idle: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<S> BoundedStream<S> {
    fn new(stream: S, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self { stream, idle: Box::pin(tokio::time::sleep(IDLE_MAX)), _permit: permit }
    }

    /// Lets progress restart the clock, and a lack of it end the connection.
    fn judge<T>(&mut self, polled: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(result) => {
                self.idle.set(tokio::time::sleep(IDLE_MAX));
                Poll::Ready(result)
            }
            Poll::Pending => self.idle.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BoundedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.judge(polled, context)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BoundedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_ends_and_a_busy_one_does_not() {
        let (near, mut far) = tokio::io::duplex(4);
        let mut near = BoundedStream::new(near, None);
        let mut byte = [0];
        for _ in 0..3 {
            tokio::time::sleep(IDLE_MAX * 2 / 3).await;
            far.write_all(b"x").await.unwrap();
            near.read_exact(&mut byte).await.unwrap();
        }
        assert_eq!(near.read(&mut byte).await.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_ends_the_connection() {
        let (near, _far) = tokio::io::duplex(4);
        let mut near = BoundedStream::new(near, None);
        let written = near.write_all(b"more than four bytes").await;
        assert_eq!(written.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
    }
}
