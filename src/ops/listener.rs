//! The door of our own port: how many connections there are, and how long one may be silent.
//!
//! Invariant: there are at most [`CONNECTIONS_MAX`] connections; one more takes the place of the one that was answered
//! longest ago, so that nobody keeps others out by holding connections, however slowly bytes trickle in. One that
//! neither reads nor writes a byte for [`IDLE_MAX`] is closed.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::access::Access;
use super::tls::MaybeTls;

/// Connections at one time: some Prometheus servers, probes and people.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// Longer than a scrape interval of one minute, so that a scraper keeps its connection.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(90);

/// Gives each connection a place and its bounds. Clones share the places.
#[derive(Clone)]
pub(super) struct Door {
    seats: Seats,
    access: Access,
    /// Whether the last connection could not be accepted, so that a lack that lasts is said once.
    is_failing: Arc<AtomicBool>,
}

impl Door {
    pub(super) fn new(access: Access) -> Self {
        Self { seats: Seats::default(), access, is_failing: Arc::default() }
    }

    /// A connection could not be accepted.
    pub(super) fn failed(&self, error: &io::Error) {
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "failed to accept a connection on our own port, and goes on trying");
        }
    }
}

impl<S> Accept<TcpStream, S> for Door {
    type Stream = BoundedStream<MaybeTls<TcpStream>>;
    type Service = S;
    type Future = std::future::Ready<io::Result<(Self::Stream, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        self.is_failing.store(false, Ordering::Relaxed);
        let stream = BoundedStream::new(MaybeTls::new(stream, self.access.tls()), self.seats.take());
        std::future::ready(Ok((stream, service)))
    }
}

/// The places of all connections.
#[derive(Clone, Default)]
struct Seats(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    /// By the number of the last answer, or of the arrival before the first: the longest ago is the first.
    by_answer: BTreeMap<u64, CancellationToken>,
    last: u64,
}

impl Seats {
    /// A place, if need be that of the connection that was answered longest ago.
    fn take(&self) -> Seat {
        let leave = CancellationToken::new();
        let number = self.change(|taken| {
            if taken.by_answer.len() >= CONNECTIONS_MAX
                && let Some((_, stalest)) = taken.by_answer.pop_first()
            {
                stalest.cancel();
            }
            taken.insert(leave.clone())
        });
        Seat { seats: self.clone(), number, leave: Box::pin(leave.cancelled_owned()) }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Taken) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Taken {
    fn insert(&mut self, leave: CancellationToken) -> u64 {
        self.last += 1;
        self.by_answer.insert(self.last, leave);
        self.last
    }
}

/// The place of one connection, free again when dropped.
struct Seat {
    seats: Seats,
    number: u64,
    leave: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Seat {
    fn answered(&mut self) {
        let number = self.number;
        // Whoever lost its place meanwhile gets none back by an answer.
        let renewed = self.seats.change(|taken| taken.by_answer.remove(&number).map(|leave| taken.insert(leave)));
        self.number = renewed.unwrap_or(number);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.change(|taken| taken.by_answer.remove(&self.number));
    }
}

/// A connection that ends when it is silent for too long, or another one needs its place.
pub(super) struct BoundedStream<S> {
    stream: S,
    idle: Pin<Box<Sleep>>,
    seat: Seat,
}

impl<S> BoundedStream<S> {
    fn new(stream: S, seat: Seat) -> Self {
        Self { stream, idle: Box::pin(tokio::time::sleep(IDLE_MAX)), seat }
    }

    /// Lets progress restart the clock, and a lack of it end the connection.
    fn judge<T>(&mut self, polled: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(result) => {
                self.idle.set(tokio::time::sleep(IDLE_MAX));
                Poll::Ready(result)
            }
            Poll::Pending if self.seat.leave.as_mut().poll(context).is_ready() => {
                Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
            }
            Poll::Pending => self.idle.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into())),
        }
    }

    /// The same for bytes of an answer.
    fn judge_answer<T>(&mut self, polled: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.seat.answered();
        }
        self.judge(polled, context)
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
        self.judge_answer(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge_answer(polled, context)
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
        let mut near = BoundedStream::new(near, Seats::default().take());
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
        let mut near = BoundedStream::new(near, Seats::default().take());
        let written = near.write_all(b"more than four bytes").await;
        assert_eq!(written.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
    }

    #[tokio::test]
    async fn one_connection_too_many_takes_the_place_of_the_one_answered_longest_ago() {
        let seats = Seats::default();
        let mut streams: Vec<_> = (0..CONNECTIONS_MAX)
            .map(|_| {
                let (near, far) = tokio::io::duplex(64);
                (BoundedStream::new(near, seats.take()), far)
            })
            .collect();
        // The first one is answered, the second one only asks.
        streams[0].0.write_all(b"answer").await.unwrap();
        streams[1].1.write_all(b"q").await.unwrap();
        let mut byte = [0];
        streams[1].0.read_exact(&mut byte).await.unwrap();

        let _one_more = seats.take();
        let thrown_out = streams[1].0.read(&mut byte).await.map_err(|error| error.kind());
        assert_eq!(thrown_out, Err(io::ErrorKind::ConnectionAborted));
        for (index, (stream, far)) in streams.iter_mut().enumerate() {
            if index != 1 {
                far.write_all(b"x").await.unwrap();
                stream.read_exact(&mut byte).await.unwrap();
            }
        }
        streams.clear();
        assert_eq!(seats.change(|taken| taken.by_answer.len()), 1, "places are given back");
    }
}
