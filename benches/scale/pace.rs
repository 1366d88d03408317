//! Achieved over allowed rate of writes under a tier's throttle, on a hub that throttles as that tier does and on a
//! paused clock: minutes of a real hub in seconds, and the same in every run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use geminid::controller::run;
use geminid::emulator::throttle;
use geminid::hub::{BudgetOptions, Budgeted, HubBudget, Tier};
use geminid::metrics::Metrics;
use geminid::plan::{DeclaredState, FileSpan, TwinManifest, Wanted};
use geminid::twin::Value;
use prometheus::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::fleet;
use super::throttled::{Call, Throttled};

/// What is looked at: any window of this length after the first.
const WINDOW: Duration = Duration::from_secs(60);
/// How far a window lies from the one before.
const STEP: Duration = Duration::from_secs(1);
/// Our share of the hub.
const SHARE: f64 = 0.5;
/// DESIGN section 7: the least, and the most with a second of burst.
const RATIO_MIN: f64 = 0.97;
const RATIO_MAX: f64 = 1.0 + 1.0 / 60.0;
/// How long the fleet's first sync shall take at least.
const MINUTES: f64 = 5.0;

/// Prints the shares of S1 and S3.
pub(crate) fn shares() {
    println!(
        "\nwrites under a tier's throttle, first sync of a drifted fleet, share {SHARE}, any {WINDOW:?} after the first"
    );
    for (tier, throttle, allowed) in
        [(Tier::S1, throttle::Tier::S1, 50.0 * SHARE), (Tier::S3, throttle::Tier::S3, 250.0 * SHARE)]
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(share(tier, throttle, allowed));
    }
}

async fn share(tier: Tier, throttle: throttle::Tier, allowed: f64) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some thousand twins")]
    let count = (allowed * 60.0 * MINUTES) as usize;
    let hub = Throttled::new(Some((throttle, 1)));
    (0..count).for_each(|index| hub.create(&fleet::twin(index)));
    let metrics = Metrics::register(&Registry::new(), &[fleet::HUB]).unwrap();
    let budget =
        BudgetOptions { tier: Some((tier, 1)), share: SHARE, quota_share: 1.0, wall_clock: || SystemTime::UNIX_EPOCH };
    let paced = Budgeted::new(hub.clone(), HubBudget::new(fleet::HUB, budget, metrics.budget.hub(fleet::HUB)));
    let (_sender, receiver) = watch::channel(drifted(count));
    let mut options = fleet::options(fleet::HUB, Duration::from_secs(600));
    options.single_pass = true;
    let (handle, rng) = (metrics.controller.hub(fleet::HUB), fastrand::Rng::with_seed(7));
    let ended = run(options, paced, receiver, handle, CancellationToken::new(), rng).await;
    assert_eq!(ended.error, None);
    let writes = hub.times(Call::Patch);
    assert_eq!(writes.len(), count);
    let (first, last) = (writes[0], writes[count - 1]);
    let mut ratios = Vec::new();
    let mut start = first + WINDOW;
    while start + WINDOW <= last {
        let inside = writes.partition_point(|at| *at < start + WINDOW) - writes.partition_point(|at| *at < start);
        ratios.push(inside as f64 / (WINDOW.as_secs_f64() * allowed));
        start += STEP;
    }
    ratios.sort_by(f64::total_cmp);
    let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
    let verdict = if least >= RATIO_MIN && most <= RATIO_MAX && hub.refused() == 0 { "met" } else { "MISSED" };
    println!(
        "  {tier:?}: achieved/allowed {least:.3} to {most:.3} over {} windows (target {RATIO_MIN} to {RATIO_MAX:.3}), \
         429s {}   {verdict}",
        ratios.len(),
        hub.refused()
    );
    let shortest = count as f64 / allowed;
    println!("      {count} writes in {:.1} s, the shortest time at this rate is {shortest:.1} s", last.as_secs_f64());
}

fn drifted(count: usize) -> Arc<DeclaredState> {
    let desired: BTreeMap<String, Value> = BTreeMap::from([("power".to_owned(), Value::from(1))]);
    let manifest = Arc::new(TwinManifest {
        wanted: Wanted { desired, ..Wanted::default() }.into(),
        ..TwinManifest::empty(FileSpan { file: "fleet.yaml".into(), line: 1, column: 1 })
    });
    let twins = (0..count).map(|index| (fleet::twin(index), Arc::clone(&manifest))).collect();
    Arc::new(DeclaredState { revision: "drifted".to_owned(), twins, ..DeclaredState::default() })
}
