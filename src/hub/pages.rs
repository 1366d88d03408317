//! Reading a whole query, page by page.
//!
//! Invariant: it ends. After at most the given number of pages there is an end or an error, and a hub that sends one
//! continuation twice is not asked a third time. Who stops early has a part, and [`Pages::is_complete`] says so. A page
//! that the hub throttled may be asked for again, by the caller and in the caller's time; nothing is retried in here.

use std::collections::BTreeSet;

use super::{Continuation, HubError, PAGE_SIZE_MAX, ReadTwins, TextRows};
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

    /// The rows of the next page, which may be none; `None` after the last page and after an error. After
    /// [`HubError::Throttled`] the next call asks for the same page once more.
    ///
    /// # Errors
    /// [`PageError`]; the rows given before are a part of the answer then, and no more will come.
    pub async fn next(&mut self) -> Option<Result<Vec<Value>, PageError>> {
        let from = match self.ask()? {
            Ok(from) => from,
            Err(error) => return Some(Err(error)),
        };
        let answer = self.hub.query_page(self.query, self.page_size, from.as_ref()).await;
        Some(self.take(from, answer.map(|page| (page.rows, page.next))))
    }

    /// The same with rows of these columns, which are texts.
    ///
    /// # Errors
    /// As for [`next`](Self::next).
    pub async fn next_texts(&mut self, columns: &[&str]) -> Option<Result<TextRows, PageError>> {
        let from = match self.ask()? {
            Ok(from) => from,
            Err(error) => return Some(Err(error)),
        };
        let answer = self.hub.text_page(self.query, columns, self.page_size, from.as_ref()).await;
        Some(self.take(from, answer.map(|page| (page.rows, page.next))))
    }

    /// Where the next page begins; `None` when there is none.
    fn ask(&mut self) -> Option<Result<Option<Continuation>, PageError>> {
        let from = match std::mem::replace(&mut self.position, Position::Broken) {
            Position::Start => None,
            Position::At(continuation) => Some(continuation),
            ended @ (Position::Complete | Position::Broken) => {
                self.position = ended;
                return None;
            }
        };
        Some(if self.pages_read == self.pages_max { Err(PageError::TooMany(self.pages_max)) } else { Ok(from) })
    }

    /// Takes the answer to the page that begins at `from`.
    fn take<R>(
        &mut self,
        from: Option<Continuation>,
        answer: Result<(R, Option<Continuation>), HubError>,
    ) -> Result<R, PageError> {
        let (rows, next) = match answer {
            Ok(page) => page,
            Err(error) => {
                if matches!(error, HubError::Throttled { .. }) {
                    self.position = from.map_or(Position::Start, Position::At);
                }
                return Err(error.into());
            }
        };
        self.pages_read += 1;
        self.position = match next {
            None => Position::Complete,
            Some(next) if self.seen.insert(next.0.clone()) => Position::At(next),
            Some(_) => {
                let message = "it sent the same continuation of a query twice".to_owned();
                return Err(HubError::Server { status: None, message }.into());
            }
        };
        Ok(rows)
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
    use std::time::Duration;

    use super::super::fake::{Answer, FakeHub};
    use super::*;

    /// A hub whose query `q` has these continuations, page by page; row `n` stands on page `n`.
    fn book(next: &[Option<&'static str>]) -> FakeHub {
        let hub = FakeHub::default();
        let mut from = None;
        for (row, next) in ["0", "1", "2", "3"].into_iter().zip(next) {
            hub.answer("q", from, Answer::Page(vec![row], *next));
            from = *next;
        }
        hub
    }

    async fn read_all(pages: &mut Pages<'_, FakeHub>) -> (Vec<String>, Option<PageError>) {
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
        let hub = book(&[Some("1"), Some("2"), None]);
        let mut pages = Pages::new(&hub, "q", 1000, 3);
        assert_eq!(read_all(&mut pages).await, (vec!["0".to_owned(), "1".to_owned(), "2".to_owned()], None));
        assert!(pages.is_complete() && pages.next().await.is_none() && pages.is_complete());
        assert_eq!(pages.pages_read(), 3);
        assert_eq!(hub.page_sizes("q"), [100, 100, 100]);
    }

    #[tokio::test]
    async fn a_part_is_never_taken_for_the_whole() {
        let hub = book(&[Some("1"), Some("2"), None]);
        let mut pages = Pages::new(&hub, "q", 0, 2);
        let (rows, error) = read_all(&mut pages).await;
        assert_eq!((rows.len(), error, pages.is_complete()), (2, Some(PageError::TooMany(2)), false));
        assert_eq!(hub.page_sizes("q"), [1, 1]);

        hub.answer("bad", None, Answer::Error(HubError::Quota));
        let mut pages = Pages::new(&hub, "bad", 1, 2);
        let (rows, error) = read_all(&mut pages).await;
        assert_eq!((rows.len(), error, pages.is_complete()), (0, Some(PageError::Hub(HubError::Quota)), false));
    }

    #[tokio::test]
    async fn a_throttled_page_can_be_asked_for_again_and_no_other_one() {
        let hub = book(&[Some("1"), None]);
        let mut pages = Pages::new(&hub, "q", 1, 2);
        assert!(pages.next().await.unwrap().is_ok());
        for again_in in [None, Some(Duration::from_secs(1))] {
            hub.answer("q", Some("1"), Answer::throttled(again_in));
            assert!(matches!(pages.next().await, Some(Err(PageError::Hub(HubError::Throttled { .. })))));
        }
        hub.answer("q", Some("1"), Answer::Page(vec!["1"], None));
        assert_eq!(read_all(&mut pages).await, (vec!["1".to_owned()], None));
        assert_eq!((pages.pages_read(), hub.asked("q")), (2, 4));
    }

    #[tokio::test]
    async fn a_circle_of_continuations_is_an_error() {
        let hub = book(&[Some("1"), Some("2")]);
        hub.answer("q", Some("2"), Answer::Page(vec!["2"], Some("1")));
        let mut pages = Pages::new(&hub, "q", 1, 100);
        let (rows, error) = read_all(&mut pages).await;
        assert_eq!((rows.len(), pages.is_complete()), (2, false));
        let text = "the hub failed: it sent the same continuation of a query twice";
        assert_eq!(error.unwrap().to_string(), text);
    }
}
