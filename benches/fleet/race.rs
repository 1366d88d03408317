//! The race: each contender brings the same drifted fleet of the same hub in sync, in turn.

use std::collections::BTreeMap;
use std::path::Path;

use super::arguments::Arguments;
use super::contender::{Contender, Files};
use super::hub::{Hub, Setting, host, well_known};
use super::process::Cost;
use super::twins;
use super::wire::{self, Counts, Proxy};

/// Turns of a race that may go wrong, so that one lost connection does not cost all that was measured.
const REPEATED_MAX: usize = 3;

/// The costs of each contender's rounds on one fleet.
pub(crate) struct Race {
    pub(crate) count: usize,
    pub(crate) costs: BTreeMap<Contender, Vec<Cost>>,
    /// Whose turns did not end well and were done again.
    pub(crate) repeated: Vec<String>,
}

/// All rounds on a fleet of `count` twins.
pub(crate) async fn race(folder: &Path, arguments: &Arguments, count: usize) -> Race {
    let folder = folder.join(format!("race-{count}"));
    let files = Files::write(&folder, count);
    let host = host(0);
    let https = well_known(&host).unwrap_or_else(|trouble| panic!("{trouble}"));
    let setting = Setting { name: "hub", devices: count, host, https, more: &[] };
    let hub = Hub::start(&folder, &setting).await;
    let (mut costs, mut turn, mut repeated) = (BTreeMap::<Contender, Vec<Cost>>::new(), 0, Vec::new());
    for round in 0..arguments.rounds {
        let mut order = Contender::ALL;
        // Nobody is always first.
        order.rotate_left(round % Contender::ALL.len());
        for contender in order {
            if count >= Arguments::LARGE && contender.is_slow() && round >= arguments.rounds_of_slow {
                continue;
            }
            let cost = loop {
                turn += 1;
                hub.let_drift(0..count, turn, &twins::drift(turn)).await;
                match contender.try_to_run(&hub, &files, count).await {
                    Ok(cost) => break cost,
                    Err(trouble) if repeated.len() < REPEATED_MAX => {
                        super::say(&format!("{count} twins, {}, once more: {trouble}", contender.name()));
                        repeated.push(contender.name());
                    }
                    Err(trouble) => panic!("{}: {trouble}", contender.name()),
                }
            };
            hub.verify(count).await;
            super::say(&format!("{count} twins, round {}: {:<36}{:8.2} s", round + 1, contender.name(), cost.wall_s));
            costs.entry(contender).or_default().push(cost);
        }
    }
    hub.stop().await;
    Race { count, costs, repeated }
}

/// What each contender asks of the hub, on a fleet of its own; not timed.
pub(crate) async fn count(folder: &Path, count: usize) -> BTreeMap<Contender, Counts> {
    let folder = folder.join("counted");
    let files = Files::write(&folder, count);
    let host = host(1);
    let front = well_known(&host).unwrap_or_else(|trouble| panic!("{trouble}"));
    let https = format!("{host}:0");
    let setting = Setting { name: "hub", devices: count, host: host.clone(), https, more: &wire::LOGGING };
    let mut hub = Hub::start(&folder, &setting).await;
    let proxy = Proxy::start(&front, &hub.address).await;
    hub.behind(&host);
    let mut counts = BTreeMap::new();
    for (turn, contender) in Contender::ALL.into_iter().enumerate() {
        // That goes past the proxy.
        hub.let_drift(0..count, turn, &twins::drift(turn)).await;
        if matches!(contender, Contender::Ceiling(_)) {
            continue;
        }
        let (logged, before) = (hub.log().len(), proxy.seen());
        contender.run(&hub, &files, count).await;
        let (log, seen) = (hub.log(), proxy.seen().since(before));
        counts.insert(contender, Counts::of(&wire::answered(&log[logged..]), seen));
        hub.verify(count).await;
    }
    hub.stop().await;
    counts
}
