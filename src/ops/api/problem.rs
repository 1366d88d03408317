//! Errors of the API: a status and one sentence with the remedy.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::BODY_SIZE_MAX;
use super::wire::{FORMAT_VERSION, ProblemView};
use crate::controller::{LoopEnded, Refused};

/// Why a request is not answered as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    status: StatusCode,
    reason: &'static str,
    message: String,
}

impl Problem {
    /// The request itself makes no sense.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, reason: "Invalid", message: message.into() }
    }

    /// There is no such thing.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, reason: "NotFound", message: message.into() }
    }

    /// It will be there soon.
    pub(super) fn not_yet(message: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, reason: "NotYet", message: message.into() }
    }

    /// The token is missing or another one.
    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, reason: "Unauthorized", message: message.into() }
    }

    /// Nobody may do this.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, reason: "Forbidden", message: message.into() }
    }

    /// The request is meant for another host.
    pub(super) fn misdirected(message: impl Into<String>) -> Self {
        Self { status: StatusCode::MISDIRECTED_REQUEST, reason: "Misdirected", message: message.into() }
    }

    /// It took too long.
    pub(super) fn slow(limit: Duration) -> Self {
        let message = format!("the request took longer than {} s; try again", limit.as_secs());
        Self { status: StatusCode::REQUEST_TIMEOUT, reason: "Timeout", message }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        Self { status: StatusCode::CONFLICT, reason: "Refused", message: refused.0 }
    }
}

impl From<LoopEnded> for Problem {
    fn from(ended: LoopEnded) -> Self {
        Self::not_yet(format!("{ended}; the daemon is stopping"))
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        // The library's own words end at the first colon; then come the parameter and what is wrong with it.
        let text = rejection.body_text();
        let problem = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
        Self {
            status: rejection.status(),
            ..Self::invalid(format!("the query of the address does not fit: {problem}"))
        }
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let message = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => format!("the body is larger than {BODY_SIZE_MAX} bytes"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                "the body is said to be no JSON; send Content-Type: application/json".to_owned()
            }
            _ => rejection.body_text(),
        };
        Self { status: rejection.status(), ..Self::invalid(message) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, reason, message } = self;
        let view = ProblemView { format_version: FORMAT_VERSION, reason: reason.to_owned(), message };
        let mut response = (status, Json(view)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
