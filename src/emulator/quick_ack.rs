//! A socket that acknowledges at once what it read.
//!
//! Invariant: nothing but the timing of acknowledgements differs from the socket inside. Device SDKs wait for one
//! before they send their next small packet; the system would hold it back for 40 ms. The option does not last (see
//! tcp(7)), so it is set again whenever something was read and nothing was written since, which would have carried the
//! acknowledgement along. Of a request that is whole its client sends nothing more, so that one waits for the answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A TCP connection with quick acknowledgements.
#[derive(Debug)]
pub struct QuickAck {
    stream: TcpStream,
    due: Due,
    whole: WholeRequest,
}

/// Tells a connection whether all of the request in hand was read.
#[derive(Debug, Clone, Default)]
pub struct WholeRequest(Arc<AtomicBool>);

impl WholeRequest {
    /// Tells it. It counts until something is read again.
    pub fn tell(&self, is_whole: bool) {
        self.0.store(is_whole, Ordering::Relaxed);
    }

    fn is_told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is owed for what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// Nothing: what was written since carried the acknowledgement.
    Nothing,
    /// An acknowledgement, unless an answer comes at once.
    Unless,
    /// The same, and the reader asked to be looked at once more: by then an answer at once was written.
    Now,
}

impl QuickAck {
    /// Wraps `stream` and switches Nagle's delay off.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, due: Due::Nothing, whole: WholeRequest::default() })
    }

    /// Who knows of a request that it is whole tells this.
    #[must_use]
    pub fn whole(&self) -> WholeRequest {
        self.whole.clone()
    }
}

impl AsyncRead for QuickAck {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        match (&read, self.due) {
            (Poll::Ready(_), _) if buffer.filled().len() > before => {
                self.due = Due::Unless;
                self.whole.tell(false);
            }
            (Poll::Ready(_), _) | (Poll::Pending, Due::Nothing) => {}
            (Poll::Pending, _) if self.whole.is_told() => self.due = Due::Nothing,
            (Poll::Pending, Due::Unless) => {
                // Servers look for more before they write the answer to what they have.
                self.due = Due::Now;
                context.waker().wake_by_ref();
            }
            (Poll::Pending, Due::Now) => {
                self.due = Due::Nothing;
                // Without it all works, only slower.
                self.stream.set_quickack(true).ok();
            }
        }
        read
    }
}

impl AsyncWrite for QuickAck {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_ready() {
            self.due = Due::Nothing;
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        if written.is_ready() {
            self.due = Due::Nothing;
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads with nothing to read; what is due then, and how often the reader was woken at once.
    fn look(socket: &mut QuickAck) -> (Due, usize) {
        let woken = Arc::new(Woken::default());
        let waker = Arc::clone(&woken).into();
        let mut bytes = [0; 8];
        let read = Pin::new(&mut *socket).poll_read(&mut Context::from_waker(&waker), &mut ReadBuf::new(&mut bytes));
        assert!(read.is_pending());
        (socket.due, woken.0.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn what_is_answered_at_once_is_acknowledged_by_the_answer_and_all_else_by_itself() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut socket = QuickAck::new(listener.accept().await.unwrap().0).unwrap();
        let mut bytes = [0; 2];
        client.write_all(b"ab").await.unwrap();
        socket.read_exact(&mut bytes).await.unwrap();
        assert_eq!(look(&mut socket), (Due::Now, 1), "the reader is to look once more");
        assert_eq!(look(&mut socket), (Due::Nothing, 0), "and still nothing was written");
        assert_eq!(look(&mut socket), (Due::Nothing, 0));
        client.write_all(b"ab").await.unwrap();
        socket.read_exact(&mut bytes).await.unwrap();
        assert_eq!(look(&mut socket), (Due::Now, 1));
        socket.write_all(b"answer").await.unwrap();
        assert_eq!((look(&mut socket), bytes), ((Due::Nothing, 0), *b"ab"));
    }

    #[tokio::test]
    async fn a_whole_request_is_acknowledged_by_its_answer_however_late_and_the_next_one_counts_anew() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut socket = QuickAck::new(listener.accept().await.unwrap().0).unwrap();
        let mut bytes = [0; 2];
        for told_late in [false, true] {
            client.write_all(b"ab").await.unwrap();
            socket.read_exact(&mut bytes).await.unwrap();
            if told_late {
                assert_eq!(look(&mut socket), (Due::Now, 1), "what came before was of another request");
            }
            socket.whole().tell(true);
            assert_eq!(look(&mut socket), (Due::Nothing, 0));
        }
        client.write_all(b"ab").await.unwrap();
        socket.read_exact(&mut bytes).await.unwrap();
        assert_eq!((look(&mut socket), bytes), ((Due::Now, 1), *b"ab"));
    }
}
