//! How many manifests a source has, of each kind, and how they are.
//!
//! Invariant: pure; a twin or profile counts once: as broken while its last good manifest stands in for a broken one.

use std::collections::BTreeSet;

use super::lower::DeclaredQuery;
use crate::plan::{DeclaredState, FileSpan};
use crate::twin::TwinRef;

/// The manifests of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Those that are used.
    pub valid: usize,
    /// Those that are broken.
    pub invalid: usize,
    /// Those that ask to be left alone, if only until a time that may be over.
    pub suspended: usize,
}

/// All manifests of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ManifestCounts {
    /// Of devices; with those of which it cannot be told what they are about, as most are.
    pub devices: Counted,
    /// Of modules.
    pub modules: Counted,
    /// Profiles.
    pub profiles: Counted,
    /// Queries.
    pub queries: Counted,
}

impl ManifestCounts {
    /// Counts what `state` and `queries` came from.
    #[must_use]
    pub fn of(state: &DeclaredState, queries: &[DeclaredQuery]) -> Self {
        let (mut counts, frozen) = (Self::default(), &state.frozen);
        for (twin, manifest) in state.twins.iter() {
            let counted = counts.of_twin(twin);
            match (frozen.kept.contains_key(twin), &manifest.suspend) {
                (true, _) => counted.invalid += 1,
                (false, Some(_)) => counted.suspended += 1,
                (false, None) => counted.valid += 1,
            }
        }
        frozen.held.keys().for_each(|twin| counts.of_twin(twin).invalid += 1);
        counts.devices.invalid += frozen.unknown.len();
        counts.profiles.invalid = frozen.kept_profiles.len();
        counts.profiles.valid = state.profiles.len().saturating_sub(counts.profiles.invalid);
        counts.queries.suspended = queries.iter().filter(|query| query.spec.suspend).count();
        counts.queries.valid = queries.len() - counts.queries.suspended;
        // What is broken and about nothing else is about a query.
        let known = frozen.kept.values().chain(frozen.held.values()).chain(frozen.kept_profiles.values());
        let others: BTreeSet<&FileSpan> = known.chain(&frozen.unknown).collect();
        counts.queries.invalid = frozen.broken.iter().filter(|place| !others.contains(place)).count();
        counts
    }

    const fn of_twin(&mut self, twin: &TwinRef) -> &mut Counted {
        if twin.module.is_some() { &mut self.modules } else { &mut self.devices }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::manifest::{LastGood, lower, parse_file};

    const DEVICE: &str =
        "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {name: d1}\nspec: {tags: {a: 1}}\n";
    const SUSPENDED: &str = "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {name: d1, annotations: \
                             {geminid.dev/suspend: why}}\nspec: {tags: {a: 1}}\n";
    const MODULE: &str = "apiVersion: geminid.dev/v1alpha1\nkind: ModuleTwin\nmetadata: {name: m1}\nspec: {device: d1, \
                          tags: {a: 1}}\n";
    const PROFILE: &str = "apiVersion: geminid.dev/v1alpha1\nkind: TwinProfile\nmetadata: {name: p1}\nspec: {target: \
                           devices, selector: {devices: ['*']}, tags: {a: 1}}\n";
    const QUERY: &str = "apiVersion: geminid.dev/v1alpha1\nkind: TwinQuery\nmetadata: {name: q1}\nspec:\n  query: \
                         SELECT * FROM devices\n  interval: 60s\n  metrics:\n  - {name: twinquery_devices, help: Devices., \
                         value: {count: true}}\n";

    #[test]
    fn each_manifest_counts_under_its_kind_and_state() {
        let broken = |text: &str| format!("{text}unknown: 1\n");
        let suspended_query = QUERY.replace("spec:\n", "spec:\n  suspend: true\n");
        // What the file says at first and then, and what is counted then: valid, invalid, suspended of each kind.
        for (first, then, expected) in [
            ("", String::new(), "000 000 000 000"),
            ("", DEVICE.to_owned(), "100 000 000 000"),
            (DEVICE, SUSPENDED.to_owned(), "001 000 000 000"),
            ("", format!("{DEVICE}---\n{MODULE}"), "100 100 000 000"),
            (DEVICE, broken(DEVICE), "010 000 000 000"),
            ("", broken(DEVICE), "010 000 000 000"),
            (SUSPENDED, broken(SUSPENDED), "010 000 000 000"),
            (MODULE, broken(MODULE), "000 010 000 000"),
            ("", broken(MODULE), "000 010 000 000"),
            ("", PROFILE.to_owned(), "000 000 100 000"),
            (PROFILE, broken(PROFILE), "000 000 010 000"),
            ("", QUERY.to_owned(), "000 000 000 100"),
            (QUERY, suspended_query, "000 000 000 001"),
        ] {
            let parse = |text: &str| {
                let name: Arc<str> = "a.yaml".into();
                BTreeMap::from([(Arc::clone(&name), Arc::new(parse_file(&name, text)))])
            };
            let before = lower(&parse(first), &LastGood::default());
            assert!(before.state.frozen.broken.is_empty(), "{:?}", before.diagnostics);
            let after = lower(&parse(&then), &before.last_good);
            let ManifestCounts { devices, modules, profiles, queries } =
                ManifestCounts::of(&after.state, &after.queries);
            let shown = [devices, modules, profiles, queries]
                .map(|counted| format!("{}{}{}", counted.valid, counted.invalid, counted.suspended));
            assert_eq!(shown.join(" "), expected, "{then}: {:?}", after.diagnostics);
        }
    }
}
