//! Profiles of a source: duplicates, conditions that would follow their own writes, and contradictions.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Claim, Lowering};
use crate::plan::{DeclaredState, FileSpan, Leaf, LiveCondition, Profile, Tie, find_ties};

impl<'a> Lowering<'a> {
    /// The profiles, highest priority first. A broken one stays as it was last good; one that never was holds every
    /// twin, unless it is known to be new.
    pub(super) fn resolve_profiles(
        &mut self,
        claims: &BTreeMap<&'a str, Vec<Claim<'a, Profile>>>,
    ) -> Vec<Arc<Profile>> {
        let mut profiles = BTreeMap::new();
        for (name, claims) in claims {
            self.refuse_duplicates(&format!("the profile {name}"), claims.iter().map(Claim::places));
            let Some(first) = claims.first() else { continue };
            let span = first.span();
            match (first.good.as_ref().filter(|_| claims.len() == 1), self.last_profiles.get(name)) {
                (Some(good), _) => {
                    profiles.insert((*name).to_owned(), (Arc::clone(good), Arc::clone(&span.file)));
                }
                (None, Some(last)) => {
                    profiles.insert((*name).to_owned(), (Arc::clone(last), Arc::clone(&span.file)));
                    self.frozen.kept_profiles.insert((*name).to_owned(), span.clone());
                }
                (None, None) if self.last.whole => {}
                (None, None) => {
                    self.frozen.unknown.insert(span.clone());
                }
            }
        }
        for (file, span) in self.incomplete.clone() {
            for (name, profile) in self.remembered_for(file).into_iter().flat_map(|file| &file.profiles) {
                if !claims.contains_key(name.as_str()) && !profiles.contains_key(name) {
                    profiles.insert(name.clone(), (Arc::clone(profile), file.clone()));
                    self.frozen.kept_profiles.insert(name.clone(), span.clone());
                }
            }
        }
        while self.refuse_one_oscillation(&mut profiles, claims) {}
        for (name, (profile, file)) in &profiles {
            self.next.entry(file.clone()).or_default().profiles.insert(name.clone(), Arc::clone(profile));
        }
        let mut profiles: Vec<Arc<Profile>> = profiles.into_values().map(|(profile, _)| profile).collect();
        profiles.sort_by(|one, other| (other.priority, &one.name).cmp(&(one.priority, &other.name)));
        profiles
    }

    /// Finds a condition that reads what a profile with a condition sets, reports it, and freezes its profile, or else the
    /// one that sets it, at its last good state. Each round takes a good profile or a profile away, so repeating it
    /// ends.
    fn refuse_one_oscillation(
        &mut self,
        profiles: &mut BTreeMap<String, (Arc<Profile>, Arc<str>)>,
        claims: &BTreeMap<&'a str, Vec<Claim<'a, Profile>>>,
    ) -> bool {
        let Some((reader, writer, attribute, place)) = find_oscillation(profiles) else { return false };
        let is_good = |name: &String| {
            let good = claims.get(name.as_str()).and_then(|claims| claims.first()?.good.as_ref());
            good.is_some_and(|good| profiles.get(name).is_some_and(|(profile, _)| Arc::ptr_eq(good, profile)))
        };
        let victim = [&reader, &writer].into_iter().find(|name| is_good(name)).unwrap_or(&reader).clone();
        let Some((profile, file)) = profiles.remove(&victim) else { return false };
        if let Some(condition) = &profile.selector.condition {
            let message = if victim == reader {
                format!(
                    "{attribute} is set by profile {writer} at {place}, which has a condition too; read what no condition sets"
                )
            } else {
                format!(
                    "this profile sets {attribute}, which the condition of profile {reader} reads; set another path"
                )
            };
            let span = condition.place.clone();
            self.report(&span, "spec.selector.where".to_owned(), "where-oscillates", message);
        }
        self.frozen.broken.insert(profile.source.clone());
        match self.last_profiles.get(victim.as_str()).filter(|last| !Arc::ptr_eq(last, &profile)) {
            Some(last) => {
                self.frozen.kept_profiles.insert(victim.clone(), profile.source.clone());
                profiles.insert(victim, (Arc::clone(last), file));
            }
            None if self.last.whole => {}
            None => {
                self.frozen.unknown.insert(profile.source.clone());
            }
        }
        true
    }

    /// Reports profiles that contradict one another whatever the live twins are; the twins concerned are held.
    pub(super) fn report_ties(&mut self, state: &mut DeclaredState) {
        for (tie, twin, count) in find_ties(state) {
            let Tie { priority, one, other } = tie;
            let more = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
            for ((name, leaf, place), (rival, rival_leaf, rival_place)) in [(&one, &other), (&other, &one)] {
                let message = format!(
                    "profile {rival} at {rival_place} sets {rival_leaf} with the same priority, {priority}, and another \
                     value, for {twin}{more}; give {name} or {rival} another priority"
                );
                self.report(place, format!("spec.{leaf}"), "profile-tie", message);
                let source = state.profiles.iter().find(|profile| profile.name == *name).map(|p| p.source.clone());
                state.frozen.broken.extend(source);
            }
        }
    }
}

/// A condition that reads a path which a profile with a condition sets, equal, above or below: the reader's name, the
/// writer's, what is read, and where it is set.
fn find_oscillation(
    profiles: &BTreeMap<String, (Arc<Profile>, Arc<str>)>,
) -> Option<(String, String, String, FileSpan)> {
    let conditional = || profiles.values().map(|(profile, _)| profile).filter(|p| p.selector.condition.is_some());
    for reader in conditional() {
        for (read, attribute) in reader.selector.condition.iter().flat_map(LiveCondition::reads) {
            for writer in conditional() {
                let related = |leaf: &Leaf| {
                    let above_or_below = leaf.path.covers(&read.path) || read.path.covers(&leaf.path);
                    leaf.section == read.section && above_or_below
                };
                if let Some((_, _, place)) = writer.wanted.leaves(&writer.source).find(|(leaf, ..)| related(leaf)) {
                    return Some((reader.name.clone(), writer.name.clone(), attribute, place));
                }
            }
        }
    }
    None
}
