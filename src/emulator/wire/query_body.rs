//! The body of a query (`iot-hub.md` 2.7).

use serde::Deserialize;

use super::super::error::Refusal;
use super::json::typed;

#[derive(Deserialize)]
struct QueryRequest {
    query: Option<String>,
}

/// Reads the body of a query (`iot-hub.md` 2.7).
///
/// # Errors
/// [`Refusal::Deserialization`] for a body of another shape, [`Refusal::ArgumentNull`] when the query is missing.
pub fn query(body: &[u8]) -> Result<String, Refusal> {
    let request: QueryRequest = typed(body)?;
    request.query.ok_or_else(|| Refusal::ArgumentNull("BadRequest".to_owned()))
}
