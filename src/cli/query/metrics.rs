//! `query --metrics`: what a manifest's queries would give, tried once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::bail;

use crate::app::{hub_file, try_queries};
use crate::cli::args::OneHubArgs;
use crate::cli::output::{Output, counted};
use crate::exporter::Trial;
use crate::manifest::{LastGood, Rules, lower, parse_file_within};
use crate::series::{FamilyText, QuerySpec, first_duplicate, join};

/// Prints the exposition; what each run cost goes to standard error. 1 when a query gives nothing.
pub(super) async fn show_metrics(file: &Path, one: &OneHubArgs) -> anyhow::Result<u8> {
    let parts = one.open_to_read()?.parts;
    let specs = specs(file, &parts.rules)?;
    let mut err = Output::stderr();
    let (mut families, mut failed): (Vec<FamilyText>, bool) = (Vec::new(), false);
    for (name, trial) in try_queries(parts, &specs).await? {
        err.line(&summary(&name, &trial));
        match trial.result {
            Ok(result) => families.extend(result.families),
            Err(_) => failed = true,
        }
    }
    if let Some(series) = first_duplicate(&families) {
        bail!("two queries give the series {series}; add a constant label that tells them apart");
    }
    let text = join(&families);
    if !text.is_empty() {
        Output::stdout().line(text.trim_end());
    }
    Ok(u8::from(failed))
}

/// The queries of a file whose every document is good.
fn specs(file: &Path, rules: &Rules) -> anyhow::Result<Vec<QuerySpec>> {
    let text = hub_file(file)?;
    let name = file.display().to_string();
    let parsed = Arc::new(parse_file_within(&name, &text, rules));
    let lowered = lower(&BTreeMap::from([(Arc::from(name.as_str()), parsed)]), &LastGood::default());
    let mut err = Output::stderr();
    lowered.diagnostics.iter().for_each(|found| err.line(&found.to_string()));
    let errors = lowered.diagnostics.iter().filter(|found| found.is_error()).count();
    if errors > 0 {
        bail!("{name} has {}; nothing was asked", counted(errors, "error"));
    }
    let specs: Vec<QuerySpec> = lowered.queries.into_iter().map(|query| query.spec).collect();
    if specs.is_empty() {
        bail!("{name} declares no TwinQuery");
    }
    Ok(specs)
}

fn summary(name: &str, trial: &Trial) -> String {
    let cost = format!("{} in {}", counted(trial.rows, "row"), counted(trial.pages, "page"));
    match &trial.result {
        Ok(result) => {
            let series: usize = result.families.iter().map(FamilyText::series).sum();
            let dropped = result.dropped.iter().filter(|(_, rows)| **rows > 0);
            let dropped: String =
                dropped.map(|(reason, rows)| format!(", {rows} left out ({})", reason.as_str())).collect();
            format!("{name}: {cost}, {series} series{dropped}")
        }
        Err((reason, words)) => format!("{name}: failed ({reason}) after {cost}: {words}"),
    }
}
