//! What a loop may do to its hub, as a type.
//!
//! Invariant: a loop that observes holds a [`ReadOnly`], which has no writer: nothing in it could write, whatever a plan
//! says.

use crate::hub::{Allowance, Continuation, HubError, Lane, Paced, QueryPage, ReadTwins, TextPage, WriteTwins};
use crate::twin::{DeviceId, ETag, MergePatch, Twin, TwinRef};

/// A hub to read, and perhaps to write.
pub(super) trait Access: ReadTwins + Paced + 'static {
    /// Who writes.
    type Writer: WriteTwins;

    /// Who writes; `None` where nobody may.
    fn writer(&self) -> Option<&Self::Writer>;
}

/// A hub that is written.
#[derive(Debug, Clone)]
pub(super) struct ReadWrite<H>(pub(super) H);

/// A hub that is only looked at.
#[derive(Debug, Clone)]
pub(super) struct ReadOnly<H>(pub(super) H);

/// The writer of a hub that is only looked at: there is none.
#[derive(Debug)]
pub(super) enum Nobody {}

impl<H: WriteTwins + Paced + 'static> Access for ReadWrite<H> {
    type Writer = H;

    fn writer(&self) -> Option<&H> {
        Some(&self.0)
    }
}

impl<H: ReadTwins + Paced + 'static> Access for ReadOnly<H> {
    type Writer = Nobody;

    fn writer(&self) -> Option<&Nobody> {
        None
    }
}

macro_rules! reads_through {
    ($name:ident) => {
        impl<H: Paced> Paced for $name<H> {
            fn in_lane(&self, lane: Lane) -> Self {
                Self(self.0.in_lane(lane))
            }

            fn allowance(&self) -> Allowance {
                self.0.allowance()
            }
        }

        impl<H: ReadTwins> ReadTwins for $name<H> {
            async fn get_twin(&self, twin: &TwinRef) -> Result<Twin, HubError> {
                self.0.get_twin(twin).await
            }

            async fn query_page(
                &self,
                query: &str,
                page_size: usize,
                from: Option<&Continuation>,
            ) -> Result<QueryPage, HubError> {
                self.0.query_page(query, page_size, from).await
            }

            async fn text_page(
                &self,
                query: &str,
                columns: &[&str],
                page_size: usize,
                from: Option<&Continuation>,
            ) -> Result<TextPage, HubError> {
                self.0.text_page(query, columns, page_size, from).await
            }
        }
    };
}

reads_through!(ReadWrite);
reads_through!(ReadOnly);

impl ReadTwins for Nobody {
    async fn get_twin(&self, _twin: &TwinRef) -> Result<Twin, HubError> {
        match *self {}
    }

    async fn query_page(&self, _: &str, _: usize, _: Option<&Continuation>) -> Result<QueryPage, HubError> {
        match *self {}
    }
}

impl WriteTwins for Nobody {
    async fn patch_twin(&self, _twin: &TwinRef, _patch: &MergePatch, _etag: &ETag) -> Result<Twin, HubError> {
        match *self {}
    }

    async fn create_device(&self, _device: &DeviceId) -> Result<(), HubError> {
        match *self {}
    }
}
