//! The bytes of an exposition: plain, or as one gzip member.
//!
//! Invariant: what the queries gave is neither copied nor compressed for a scrape. It is shared, and compressed once
//! for as long as it stays; only our own instruments, a few KB, are written anew each time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::Bytes;
use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use http_body::{Body, Frame, SizeHint};

use crate::exporter::Exposition;
use crate::series::Piece;

/// The fastest level; the next ones cost many times that and save a third (`metrics.md` 1.4).
const LEVEL: u32 = 1;
/// A gzip member with deflate inside, no name, no time, system unknown (RFC 1952 2.3).
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// A body of chunks that somebody else may hold as well.
#[derive(Debug, Default)]
pub(super) struct Chunks(VecDeque<Bytes>);

/// The compressed end of a body, kept while the exposition it was made of is the newest.
#[derive(Debug, Default)]
pub(super) struct Compressed(Mutex<Option<(Arc<Exposition>, Arc<Deflated>)>>);

/// A text as the last deflate blocks of a stream.
#[derive(Debug)]
struct Deflated {
    blocks: Bytes,
    crc: Crc,
}

/// `own`, then the exposition.
pub(super) fn plain(own: String, exposition: &Exposition) -> Chunks {
    let shared = exposition.pieces.iter().map(|piece| match piece {
        Piece::Head(text) => Bytes::from(text.clone()),
        Piece::Lines(lines) => Bytes::from_owner(Lines(Arc::clone(lines))),
    });
    Chunks(std::iter::once(Bytes::from(own)).chain(shared).collect())
}

impl Compressed {
    /// `own`, then the exposition, as one gzip member. Takes a while when the exposition is new.
    pub(super) fn gzip(&self, own: &str, exposition: &Arc<Exposition>) -> Chunks {
        let rest = self.rest(exposition);
        let mut head = GZIP_HEAD.to_vec();
        let mut encoder = DeflateEncoder::new(&mut head, Compression::new(LEVEL));
        // A flush ends the blocks on a whole byte without ending the stream, so that others can follow.
        write(&mut encoder, own);
        encoder.flush().expect("a Vec takes every byte");
        let mut crc = Crc::new();
        crc.update(own.as_bytes());
        crc.combine(&rest.crc);
        let length = encoder.get_ref().len();
        // Dropping the encoder would end the stream here.
        drop(encoder);
        head.truncate(length);
        let end = [crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].concat();
        Chunks([Bytes::from(head), rest.blocks.clone(), Bytes::from(end)].into())
    }

    fn rest(&self, exposition: &Arc<Exposition>) -> Arc<Deflated> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, deflated)) = &*kept
            && Arc::ptr_eq(of, exposition)
        {
            return Arc::clone(deflated);
        }
        let deflated = Arc::new(deflate(exposition));
        *kept = Some((Arc::clone(exposition), Arc::clone(&deflated)));
        deflated
    }
}

fn deflate(exposition: &Exposition) -> Deflated {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(LEVEL));
    let mut crc = Crc::new();
    for piece in &exposition.pieces {
        write(&mut encoder, piece.as_str());
        crc.update(piece.as_str().as_bytes());
    }
    Deflated { blocks: Bytes::from(encoder.finish().expect("a Vec takes every byte")), crc }
}

fn write<W: std::io::Write>(encoder: &mut DeflateEncoder<W>, text: &str) {
    encoder.write_all(text.as_bytes()).expect("a Vec takes every byte");
}

/// Sample lines as bytes with an owner.
struct Lines(Arc<str>);

impl AsRef<[u8]> for Lines {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Poll::Ready(self.0.pop_front().map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|chunk| chunk.len() as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    fn bytes(chunks: Chunks) -> Vec<u8> {
        chunks.0.into_iter().flat_map(|chunk| chunk.to_vec()).collect()
    }

    proptest! {
        #[test]
        fn both_bodies_hold_the_same_text(own in "(?s).{0,300}", rest in prop::collection::vec("(?s).{0,2000}", 0..4)) {
            let pieces: Vec<Piece> = rest.iter().map(|text| Piece::Lines(Arc::from(text.as_str()))).collect();
            let exposition = Arc::new(Exposition { pieces, series: 0, bytes: rest.concat().len() });
            let wanted = own.clone() + &rest.concat();
            prop_assert_eq!(bytes(plain(own.clone(), &exposition)), wanted.as_bytes());
            let compressed = Compressed::default();
            for _ in 0..2 {
                // This decoder stops after the first member and checks its end.
                let (mut text, gzip) = (String::new(), bytes(compressed.gzip(&own, &exposition)));
                let mut decoder = flate2::bufread::GzDecoder::new(gzip.as_slice());
                decoder.read_to_string(&mut text).unwrap();
                prop_assert_eq!(&text, &wanted);
                prop_assert!(decoder.into_inner().is_empty(), "nothing follows the member");
            }
        }
    }

    #[test]
    fn what_did_not_change_is_not_compressed_again() {
        let compressed = Compressed::default();
        let one = Arc::new(Exposition { pieces: vec![Piece::Head("a\n".to_owned())], series: 0, bytes: 2 });
        let before = compressed.rest(&one);
        assert!(Arc::ptr_eq(&before, &compressed.rest(&one)));
        let other = Arc::new(Exposition { pieces: vec![Piece::Head("b\n".to_owned())], series: 0, bytes: 2 });
        assert!(!Arc::ptr_eq(&before, &compressed.rest(&other)));
    }
}
