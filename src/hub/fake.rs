//! A hub made of pages, for tests: each page of each query answers as told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Continuation, HubError, QueryPage, ReadTwins};
use crate::twin::{Twin, TwinRef, Value};

/// What the hub does with a request for a page.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Rows as JSON, and the continuation of the next page.
    Page(Vec<&'static str>, Option<&'static str>),
    Error(HubError),
    /// No rows, after this long.
    Slow(Duration),
    Hang,
    Panic,
}

impl Answer {
    /// The hub throttles.
    pub(crate) fn throttled(retry_after: Option<Duration>) -> Self {
        Self::Error(HubError::Throttled { code: "ThrottlingException".to_owned(), retry_after })
    }

    /// The hub fails.
    pub(crate) fn failed() -> Self {
        Self::Error(HubError::Server { status: Some(500), message: "words".to_owned() })
    }
}

/// Query text and continuation.
type Page = (String, Option<String>);

/// Answers each page as told, and hangs where it was told nothing. Clones share everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeHub {
    answers: Arc<Mutex<BTreeMap<Page, Answer>>>,
    asked: Arc<Mutex<Vec<(String, usize)>>>,
    /// Held by every request that waits for its answer.
    waiting: Arc<()>,
}

impl FakeHub {
    pub(crate) fn answer(&self, query: &str, from: Option<&str>, answer: Answer) {
        self.answers.lock().unwrap().insert((query.to_owned(), from.map(str::to_owned)), answer);
    }

    /// Requests that hang.
    pub(crate) fn waiting(&self) -> usize {
        Arc::weak_count(&self.waiting)
    }

    /// The page sizes asked for, one a request.
    pub(crate) fn page_sizes(&self, query: &str) -> Vec<usize> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(text, _)| text == query).map(|(_, size)| *size).collect()
    }

    /// How many pages of the query were asked for.
    pub(crate) fn asked(&self, query: &str) -> usize {
        self.page_sizes(query).len()
    }
}

impl ReadTwins for FakeHub {
    async fn get_twin(&self, twin: &TwinRef) -> Result<Twin, HubError> {
        Err(HubError::NotFound(twin.clone()))
    }

    async fn query_page(
        &self,
        query: &str,
        page_size: usize,
        from: Option<&Continuation>,
    ) -> Result<QueryPage, HubError> {
        self.asked.lock().unwrap().push((query.to_owned(), page_size));
        let key = (query.to_owned(), from.map(|from| from.0.clone()));
        let answer = self.answers.lock().unwrap().get(&key).cloned().unwrap_or(Answer::Hang);
        match answer {
            Answer::Page(rows, next) => {
                let rows = rows.into_iter().map(|row| Value::parse_json(row).unwrap()).collect();
                Ok(QueryPage { rows, next: next.map(|next| Continuation(next.to_owned())) })
            }
            Answer::Error(error) => Err(error),
            Answer::Slow(time) => {
                tokio::time::sleep(time).await;
                Ok(QueryPage { rows: Vec::new(), next: None })
            }
            Answer::Hang => {
                let _waiting = Arc::downgrade(&self.waiting);
                std::future::pending().await
            }
            Answer::Panic => panic!("the fake hub panics"),
        }
    }
}
