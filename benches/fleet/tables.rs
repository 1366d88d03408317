//! The tables of the page.

use std::collections::BTreeMap;

use super::contender::Contender;
use super::figures::{grouped, median, megabytes, range, ratio, seconds, short};
use super::process::Cost;
use super::quiet::{Quiet, Scenario, drifted};
use super::race::Race;
use super::tiers::UnderTier;
use super::wire::Counts;

/// One figure of every round.
pub(crate) fn each(costs: &[Cost], figure: impl Fn(&Cost) -> f64) -> Vec<f64> {
    costs.iter().map(figure).collect()
}

impl Race {
    /// How often longer, or costlier, a contender is than geminid; the middle of the rounds that both have.
    pub(crate) fn times_geminid(&self, contender: Contender, figure: impl Fn(&Cost) -> f64) -> f64 {
        ratio(&each(&self.costs[&contender], &figure), &each(&self.costs[&Contender::Geminid], &figure))
    }

    pub(crate) fn median(&self, contender: Contender, figure: impl Fn(&Cost) -> f64) -> f64 {
        median(each(&self.costs[&contender], figure))
    }

    /// A row a contender.
    pub(crate) fn table(&self) -> String {
        let mut table =
            "| | rounds | wall | twins a second | x geminid's wall | client CPU a twin | x geminid's CPU | hub \
                         CPU a twin | peak memory | start-up |\n|---|---|---|---|---|---|---|---|---|---|\n"
                .to_owned();
        for (contender, costs) in &self.costs {
            let a_twin = |cpu_s: f64| format!("{} us", short(cpu_s * 1e6 / self.count as f64));
            let wall = self.median(*contender, |cost| cost.wall_s);
            let start = self.median(*contender, |cost| cost.start_s);
            table.push_str(&format!(
                "| {} | {} | {}{} | {} | {} | {} | {} | {} | {} | {} |\n",
                contender.name(),
                costs.len(),
                seconds(wall),
                range(&each(costs, |cost| cost.wall_s)),
                grouped(self.count as f64 / wall),
                short(self.times_geminid(*contender, |cost| cost.wall_s)),
                a_twin(self.median(*contender, |cost| cost.cpu_s)),
                short(self.times_geminid(*contender, |cost| cost.cpu_s)),
                a_twin(self.median(*contender, |cost| cost.hub_cpu_s)),
                megabytes(self.median(*contender, |cost| cost.peak_bytes)),
                if start > 0.0 { seconds(start) } else { "-".to_owned() },
            ));
        }
        table
    }
}

/// What contenders ask of the hub, a twin.
pub(crate) fn of_wire(counts: &BTreeMap<Contender, Counts>, twins: usize) -> String {
    let mut table = "| | GET | PATCH | queries | all requests | connections | bytes to the hub a twin | bytes from it \
                     a twin |\n|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (contender, counts) in counts {
        let a_twin = |bytes: u64| grouped(bytes as f64 / twins as f64);
        table.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |\n",
            contender.name(),
            grouped(counts.gets as f64),
            grouped(counts.patches as f64),
            grouped(counts.queries as f64),
            grouped(counts.requests() as f64),
            grouped(counts.seen.connections as f64),
            a_twin(counts.seen.bytes_up),
            a_twin(counts.seen.bytes_down)
        ));
    }
    table
}

/// A row a scenario.
pub(crate) fn of_quiet(quiet: &[Quiet]) -> String {
    let mut table =
        "| | wall | CPU | peak memory | queries | GET | PATCH | bytes both ways |\n|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for Quiet { twins, scenario, costs, counts } in quiet {
        let walls = each(costs, |cost| cost.wall_s);
        let what = match scenario {
            Scenario::Drift => format!("{} ({} twins)", scenario.name(), drifted(*twins)),
            Scenario::Nothing | Scenario::Ready | Scenario::FirstSweep => scenario.name().to_owned(),
        };
        table.push_str(&format!(
            "| {what} | {}{} | {} | {} | {} | {} | {} | {} |\n",
            seconds(median(walls.clone())),
            range(&walls),
            seconds(median(each(costs, |cost| cost.cpu_s))),
            megabytes(median(each(costs, |cost| cost.peak_bytes))),
            counts.queries,
            counts.gets,
            counts.patches,
            megabytes((counts.seen.bytes_up + counts.seen.bytes_down) as f64),
        ));
    }
    table
}

/// A row a tier.
pub(crate) fn of_tiers(tiers: &[UnderTier]) -> String {
    let mut table =
        "| tier, one unit | twins | our share | shortest possible | taken | rate / share | slowest and fastest window \
                     | 429 | requests | client CPU | peak memory |\n|---|---|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for tier in tiers {
        table.push_str(&format!(
            "| {} | {} | {} writes/s | {} | {} | {:.3} | {:.3}, {:.3} | {} | {} | {} | {} |\n",
            tier.tier,
            grouped(tier.twins as f64),
            short(tier.share),
            seconds(tier.shortest_s),
            seconds(tier.cost.wall_s),
            tier.whole,
            tier.windows[0],
            tier.windows[1],
            tier.refused,
            grouped(tier.requests as f64),
            seconds(tier.cost.cpu_s),
            megabytes(tier.cost.peak_bytes)
        ));
    }
    table
}
