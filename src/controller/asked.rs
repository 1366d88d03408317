//! Requests to reconcile, until they were acted on.
//!
//! Invariant: a request is acted on by a reconcile, or a sweep, that began after it was made. The requests remembered
//! are bounded; a forgotten one is unknown, never acted on.

use std::collections::VecDeque;

use crate::twin::TwinRef;

/// Requests remembered a hub.
const REQUESTS_MAX: usize = 1024;

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestState {
    /// It waits for a worker.
    Waiting,
    /// The reconcile, or the sweep, is under way.
    Running,
    /// It was acted on.
    Done,
}

impl RequestState {
    /// The word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
        }
    }
}

/// A request to reconcile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What its asker knows it by.
    pub token: String,
    /// The twin; `None` for all, by a sweep.
    pub twin: Option<TwinRef>,
    /// Where it stands.
    pub state: RequestState,
}

/// The requests of one hub.
#[derive(Debug, Default)]
pub(super) struct Asked(VecDeque<Request>);

impl Asked {
    pub(super) fn add(&mut self, token: String, twin: Option<TwinRef>) {
        if self.0.len() == REQUESTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Request { token, twin, state: RequestState::Waiting });
    }

    pub(super) fn get(&self, token: &str) -> Option<&Request> {
        self.0.iter().find(|request| request.token == token)
    }

    /// The last request for `twin` (`None`: for all) that was acted on.
    pub(super) fn last_done(&self, twin: Option<&TwinRef>) -> Option<&Request> {
        self.0.iter().rev().find(|request| request.twin.as_ref() == twin && request.state == RequestState::Done)
    }

    /// A reconcile of `twin`, or a sweep, begins.
    pub(super) fn began(&mut self, twin: Option<&TwinRef>) {
        self.advance(twin, RequestState::Waiting, RequestState::Running);
    }

    /// It ended. With `again` it failed and is tried again: the requests wait on.
    pub(super) fn ended(&mut self, twin: Option<&TwinRef>, again: bool) {
        self.advance(twin, RequestState::Running, if again { RequestState::Waiting } else { RequestState::Done });
    }

    fn advance(&mut self, twin: Option<&TwinRef>, from: RequestState, to: RequestState) {
        for request in &mut self.0 {
            if request.state == from && request.twin.as_ref() == twin {
                request.state = to;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::DeviceId;

    #[test]
    fn a_request_is_done_by_what_began_after_it() {
        let twin = TwinRef::device(DeviceId::new("a").unwrap());
        let mut asked = Asked::default();
        let state = |asked: &Asked, token: &str| asked.get(token).map(|request| request.state);
        asked.began(Some(&twin));
        asked.add("1".to_owned(), Some(twin.clone()));
        asked.add("2".to_owned(), None);
        asked.ended(Some(&twin), false);
        assert_eq!(state(&asked, "1"), Some(RequestState::Waiting), "that reconcile had begun before");
        asked.began(Some(&twin));
        asked.ended(Some(&twin), false);
        assert_eq!((state(&asked, "1"), state(&asked, "2")), (Some(RequestState::Done), Some(RequestState::Waiting)));
        assert_eq!(asked.last_done(Some(&twin)).map(|request| request.token.as_str()), Some("1"));
        asked.began(None);
        asked.ended(None, true);
        assert_eq!((state(&asked, "2"), asked.last_done(None)), (Some(RequestState::Waiting), None));
        for number in 0..REQUESTS_MAX {
            asked.add(format!("more {number}"), None);
        }
        assert_eq!((state(&asked, "1"), state(&asked, "more 0")), (None, Some(RequestState::Waiting)));
    }
}
