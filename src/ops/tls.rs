//! A connection that may be encrypted.
//!
//! Invariant: the handshake is driven by whoever reads first, so that a slow client keeps nobody else waiting; the
//! bounds of a connection hold for its handshake as well.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

/// A connection, plain or encrypted.
pub(super) enum MaybeTls<S> {
    Plain(S),
    Handshake(Box<Accept<S>>),
    Encrypted(Box<TlsStream<S>>),
    /// The handshake failed, which was said once; whoever asks again gets no answer.
    Failed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> MaybeTls<S> {
    pub(super) fn new(stream: S, tls: Option<Arc<ServerConfig>>) -> Self {
        match tls {
            None => Self::Plain(stream),
            Some(config) => Self::Handshake(Box::new(TlsAcceptor::from(config).accept(stream))),
        }
    }

    fn poll_shaken(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Self::Handshake(accept) = self {
            match ready!(Pin::new(&mut **accept).poll(context)) {
                Ok(stream) => *self = Self::Encrypted(Box::new(stream)),
                Err(error) => {
                    *self = Self::Failed;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Does `$does` to the stream, whichever it is, once there is one.
macro_rules! with_stream {
    ($self:ident, $context:ident, $stream:ident => $does:expr) => {{
        let this = $self.get_mut();
        ready!(this.poll_shaken($context))?;
        match this {
            Self::Plain(stream) => {
                let $stream = Pin::new(stream);
                $does
            }
            Self::Encrypted(stream) => {
                let $stream = Pin::new(&mut **stream);
                $does
            }
            Self::Handshake(_) => Poll::Pending,
            Self::Failed => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }};
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for MaybeTls<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        with_stream!(self, context, stream => stream.poll_read(context, buffer))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MaybeTls<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        with_stream!(self, context, stream => stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        with_stream!(self, context, stream => stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Encrypted(stream) => stream.is_write_vectored(),
            Self::Handshake(_) | Self::Failed => true,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_stream!(self, context, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Whoever goes before the handshake ends has nothing to close but the socket, which dropping does.
        if matches!(*self, Self::Handshake(_) | Self::Failed) {
            return Poll::Ready(Ok(()));
        }
        with_stream!(self, context, stream => stream.poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;

    use super::*;

    #[tokio::test]
    async fn whoever_speaks_no_tls_is_refused_as_often_as_asked() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = config.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let (near, mut far) = tokio::io::duplex(1024);
        let mut near = MaybeTls::new(near, Some(Arc::new(config)));
        far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        for _ in 0..2 {
            near.read_u8().await.unwrap_err();
            near.write_u8(0).await.unwrap_err();
            near.flush().await.unwrap_err();
        }
        near.shutdown().await.unwrap();
    }
}
