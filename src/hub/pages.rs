//! Reading a whole query, page by page.
//!
//! Invariant: it ends. After at most the given number of pages there is an end or an error, and a hub that sends one
//! continuation twice is not asked a third time. Who stops early has a part, and [`Pages::is_complete`] says so.

use std::collections::BTreeSet;

use super::{Continuation, HubError, PAGE_SIZE_MAX, ReadTwins};
use crate::twin::Value;

/// Why a query ended before its last page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The hub failed, or sent a continuation it had sent before.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// There are more pages than the caller wants to read.
    #[error("the query has more than {0} pages; narrow it or raise the limit")]
    TooMany(usize),
}

/// The pages of one query, one request each, in the hub's order.
#[derive(Debug)]
pub struct Pages<'a, H> {
    hub: &'a H,
    query: &'a str,
    page_size: usize,
    pages_max: usize,
    pages_read: usize,
    seen: BTreeSet<String>,
    position: Position,
}

#[derive(Debug)]
enum Position {
    Start,
    At(Continuation),
    /// The last page was read.
    Complete,
    /// An error was given.
    Broken,
}

impl<'a, H: ReadTwins> Pages<'a, H> {
    /// The pages of `query`: at most `page_size` rows each (1 to [`PAGE_SIZE_MAX`]), at most `pages_max` pages.
    #[must_use]
    pub fn new(hub: &'a H, query: &'a str, page_size: usize, pages_max: usize) -> Self {
        let page_size = page_size.clamp(1, PAGE_SIZE_MAX);
        Self { hub, query, page_size, pages_max, pages_read: 0, seen: BTreeSet::new(), position: Position::Start }
    }

    /// The rows of the next page, which may be none; `None` after the last page and after an error.
    ///
    /// # Errors
    /// [`PageError`]; the rows given before are a part of the answer then, and no more will come.
    pub async fn next(&mut self) -> Option<Result<Vec<Value>, PageError>> {
        let from = match std::mem::replace(&mut self.position, Position::Broken) {
            Position::Start => None,
            Position::At(continuation) => Some(continuation),
            ended @ (Position::Complete | Position::Broken) => {
                self.position = ended;
                return None;
            }
        };
        Some(self.read(from).await)
    }

    async fn read(&mut self, from: Option<Continuation>) -> Result<Vec<Value>, PageError> {
        if self.pages_read == self.pages_max {
            return Err(PageError::TooMany(self.pages_max));
        }
        let page = self.hub.query_page(self.query, self.page_size, from.as_ref()).await?;
        self.pages_read += 1;
        self.position = match page.next {
            None => Position::Complete,
            Some(next) if self.seen.insert(next.0.clone()) => Position::At(next),
            Some(_) => {
                let message = "it sent the same continuation of a query twice".to_owned();
                return Err(HubError::Server { status: None, message }.into());
            }
        };
        Ok(page.rows)
    }

    /// Whether the last page was read: only then the rows are the whole answer.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.position, Position::Complete)
    }

    /// How many pages the hub has answered.
    #[must_use]
    pub fn pages_read(&self) -> usize {
        self.pages_read
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::QueryPage;
    use super::*;
    use crate::twin::{Twin, TwinRef};

    /// A hub whose page after continuation `n` is row `n`, continued by what `next` says.
    struct Book {
        next: fn(usize) -> Option<&'static str>,
        sizes: Mutex<Vec<usize>>,
    }

    impl ReadTwins for Book {
        async fn get_twin(&self, twin: &TwinRef) -> Result<Twin, HubError> {
            Err(HubError::NotFound(twin.clone()))
        }

        async fn query_page(
            &self,
            query: &str,
            page_size: usize,
            from: Option<&Continuation>,
        ) -> Result<QueryPage, HubError> {
            self.sizes.lock().unwrap().push(page_size);
            if query == "bad" {
                return Err(HubError::Quota);
            }
            let index: usize = from.map_or(0, |from| from.0.parse().unwrap());
            let next = (self.next)(index).map(|next| Continuation(next.to_owned()));
            Ok(QueryPage { rows: vec![Value::from(i64::try_from(index).unwrap())], next })
        }
    }

    fn book(next: fn(usize) -> Option<&'static str>) -> Book {
        Book { next, sizes: Mutex::new(Vec::new()) }
    }

    async fn read_all(pages: &mut Pages<'_, Book>) -> (Vec<String>, Option<PageError>) {
        let mut rows = Vec::new();
        while let Some(page) = pages.next().await {
            match page {
                Ok(page) => rows.extend(page.iter().map(ToString::to_string)),
                Err(error) => {
                    assert!(pages.next().await.is_none(), "nothing comes after an error");
                    return (rows, Some(error));
                }
            }
        }
        (rows, None)
    }

    #[tokio::test]
    async fn pages_follow_one_another_to_the_last() {
        let hub = book(|index| ["1", "2"].get(index).copied());
        let mut pages = Pages::new(&hub, "q", 1000, 3);
        assert_eq!(read_all(&mut pages).await, (vec!["0".to_owned(), "1".to_owned(), "2".to_owned()], None));
        assert!(pages.is_complete() && pages.next().await.is_none() && pages.is_complete());
        assert_eq!(pages.pages_read(), 3);
        assert_eq!(*hub.sizes.lock().unwrap(), [100, 100, 100]);
    }

    #[tokio::test]
    async fn a_part_is_never_taken_for_the_whole() {
        let hub = book(|index| ["1", "2"].get(index).copied());
        let mut pages = Pages::new(&hub, "q", 0, 2);
        let (rows, error) = read_all(&mut pages).await;
        assert_eq!((rows.len(), error, pages.is_complete()), (2, Some(PageError::TooMany(2)), false));
        assert_eq!(*hub.sizes.lock().unwrap(), [1, 1]);

        let mut pages = Pages::new(&hub, "bad", 1, 2);
        let (rows, error) = read_all(&mut pages).await;
        assert_eq!((rows.len(), error, pages.is_complete()), (0, Some(PageError::Hub(HubError::Quota)), false));
    }

    #[tokio::test]
    async fn a_circle_of_continuations_is_an_error() {
        let hub = book(|index| ["1", "2", "1"].get(index).copied());
        let mut pages = Pages::new(&hub, "q", 1, 100);
        let (rows, error) = read_all(&mut pages).await;
        assert_eq!((rows.len(), pages.is_complete()), (2, false));
        let text = "the hub failed: it sent the same continuation of a query twice";
        assert_eq!(error.unwrap().to_string(), text);
    }
}
