//! `geminid schema`: of manifests, and of the status API.

use anyhow::Context as _;
use clap::Args;

use super::output::Output;
use crate::manifest::{json_schema, kind_names};
use crate::ops::api::openapi_json;

/// Arguments of `schema`.
#[derive(Debug, Args)]
pub(super) struct SchemaArgs {
    /// The kind, such as `TwinProfile` [default: all of them in one]
    kind: Option<String>,
    /// The OpenAPI document of /api/v1 instead
    #[arg(long, conflicts_with = "kind")]
    openapi: bool,
}

/// Prints the JSON Schema of manifests, for editors.
pub(super) fn run(args: &SchemaArgs) -> anyhow::Result<u8> {
    match args.openapi {
        true => Output::stdout().line(openapi_json().trim_end()),
        false => Output::stdout().line(&text(args.kind.as_deref())?),
    }
    Ok(0)
}

fn text(kind: Option<&str>) -> anyhow::Result<String> {
    let kinds = || kind_names().collect::<Vec<_>>().join(", ");
    let schema = json_schema(kind).with_context(|| format!("no such kind; kinds are {}", kinds()))?;
    serde_json::to_string_pretty(&schema.to_json()).context("cannot print the schema")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_in_the_repository_is_the_one_printed() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/geminid.schema.json");
        let stored = std::fs::read_to_string(file).unwrap_or_default();
        let printed = text(None).unwrap() + "\n";
        assert_eq!(stored, printed, "write it anew: geminid schema > schemas/geminid.schema.json");
    }

    #[test]
    fn the_openapi_document_in_the_repository_is_the_one_served() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
        let stored = std::fs::read_to_string(file).unwrap_or_default();
        assert_eq!(stored, openapi_json(), "write it anew: geminid schema --openapi > docs/openapi.json");
    }

    #[test]
    fn an_unknown_kind_is_an_error_that_names_the_kinds() {
        let error = text(Some("Secret")).unwrap_err().to_string();
        assert_eq!(error, "no such kind; kinds are DeviceTwin, ModuleTwin, TwinProfile, TwinQuery");
    }
}
