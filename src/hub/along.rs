//! What a sweep has read of each twin, for somebody who reads along.
//!
//! Invariant: reading along asks the hub nothing. The columns travel with the pages they came in, so whoever takes them
//! knows what each row can say; pages that nobody has taken yet are bounded.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::PageError;
use crate::twin::Value;

/// Pages that wait for who reads along; a sweep waits with the next one for room.
const WAITING_MAX: usize = 8;

/// The columns that somebody wants of each row, beside those a sweep needs itself, as texts for SELECT. They come back
/// as [`column_name`] says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlongColumns {
    /// Of devices; `None` where nobody wants their rows.
    pub devices: Option<Vec<String>>,
    /// Of modules; `None` where nobody wants their rows.
    pub modules: Option<Vec<String>>,
}

impl AlongColumns {
    /// Whether nobody wants anything.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.devices.is_none() && self.modules.is_none()
    }

    /// The most columns that a row has more.
    #[must_use]
    pub fn most(&self) -> usize {
        self.devices.as_ref().map_or(0, Vec::len).max(self.modules.as_ref().map_or(0, Vec::len))
    }
}

/// How the column at `index` of [`AlongColumns`] is called in a row.
#[must_use]
pub fn column_name(index: usize) -> String {
    format!("c{index}")
}

/// What happens to a sweep, for who reads along.
#[derive(Debug, Clone, PartialEq)]
pub enum SweepNews {
    /// A sweep begins. One that had not ended gave nothing.
    Began {
        /// What its rows have more.
        columns: Arc<AlongColumns>,
        /// The time from one sweep to the next.
        interval: Duration,
    },
    /// One page of twins that carry our seal.
    Page {
        /// Whether they are modules.
        modules: bool,
        /// The rows, in the hub's order.
        rows: Vec<Value>,
    },
    /// The last page has arrived.
    Complete,
    /// The sweep ended before its last page.
    Failed(PageError),
}

/// The sweep's end of the line to somebody who reads along.
#[derive(Debug)]
pub struct SweepAlong {
    wanted: watch::Receiver<Arc<AlongColumns>>,
    news: mpsc::Sender<SweepNews>,
}

impl SweepAlong {
    /// A line from the sweeps of one hub: `wanted` says what their rows are to have.
    #[must_use]
    pub fn line(wanted: watch::Receiver<Arc<AlongColumns>>) -> (Self, mpsc::Receiver<SweepNews>) {
        let (news, receiver) = mpsc::channel(WAITING_MAX);
        (Self { wanted, news }, receiver)
    }

    /// What is wanted now; nothing once nobody listens.
    #[must_use]
    pub fn wanted(&self) -> Arc<AlongColumns> {
        if self.news.is_closed() { Arc::default() } else { Arc::clone(&self.wanted.borrow()) }
    }

    /// Tells who reads along, waiting for room. Nothing happens when nobody listens.
    pub async fn tell(&self, news: SweepNews) {
        // Who has stopped listening is not told.
        drop(self.news.send(news).await);
    }
}
