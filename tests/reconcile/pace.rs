//! The reconcile loop at the pace of its budget, on a hub that throttles as its tier does, on a paused clock.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use geminid::controller::{Ended, Options, run};
use geminid::emulator::throttle;
use geminid::hub::{BudgetOptions, Budgeted, HubBudget, HubError, Lane, Paced as _, ReadTwins as _, Tier};
use geminid::metrics::Metrics;
use geminid::plan::DeclaredState;
use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::fleet::{daemon, declared, twin, value};
use super::throttled::{Call, Throttled};

/// A budget, and the registry of its metrics.
fn budget(tier: Option<(Tier, u32)>, quota_share: f64) -> (HubBudget, Metrics, Registry) {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry, &["sim"]).unwrap();
    let options = BudgetOptions { tier, share: 0.5, quota_share, wall_clock: || SystemTime::UNIX_EPOCH };
    (HubBudget::new("sim", options, metrics.budget.hub("sim")), metrics, registry)
}

async fn pass(hub: Budgeted<Throttled>, metrics: &Metrics, state: &Arc<DeclaredState>) -> Ended {
    let (_sender, receiver) = watch::channel(Arc::clone(state));
    let rng = fastrand::Rng::with_seed(7);
    let options = Options { single_pass: true, ..daemon(600, 86_400) };
    run(options, hub, receiver, metrics.controller.hub("sim"), CancellationToken::new(), rng).await
}

#[tokio::test(start_paused = true)]
async fn a_tier_s_writes_are_used_to_the_allowed_share_without_a_refusal() {
    for (tier, throttles, count, per_second) in
        [(Tier::S1, throttle::Tier::S1, 4500, 25.0), (Tier::S3, throttle::Tier::S3, 22_500, 125.0)]
    {
        let hub = Throttled::new(Some((throttles, 1)));
        (0..count).for_each(|number| hub.create(&twin(number)));
        let (budget, metrics, registry) = budget(Some((tier, 1)), 1.0);
        let ended = pass(Budgeted::new(hub.clone(), budget), &metrics, &declared(count, 1)).await;
        assert_eq!(ended.error, None);
        assert_eq!(hub.refused(), 0, "no 429");
        let writes = hub.times(Call::Patch);
        assert_eq!(writes.len(), count);
        let end = *writes.last().unwrap();
        let mut start = Duration::from_secs(60);
        while start + Duration::from_secs(60) <= end {
            let inside = writes.iter().filter(|at| (start..start + Duration::from_secs(60)).contains(*at)).count();
            let ratio = f64::from(u32::try_from(inside).unwrap()) / (60.0 * per_second);
            assert!((0.97..=1.0 + 1.0 / 60.0).contains(&ratio), "{tier:?}: {ratio} from {start:?}");
            start += Duration::from_secs(7);
        }
        assert!(start > Duration::from_secs(100), "some minutes were looked at");
        let waits = value(&registry, r#"geminid_hub_ratelimit_wait_seconds_count{hub="sim",operation="patch"}"#);
        assert!(waits > f64::from(u32::try_from(count).unwrap()) - 0.5, "{waits}");
        let messages = value(&registry, r#"geminid_quota_messages_estimated{hub="sim"}"#);
        let exact = hub.messages();
        assert!((messages - exact).abs() <= exact * 0.02, "estimated {messages}, the hub counts {exact}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_budget_serves_all_lanes_and_a_dropped_request_gives_its_turn_back() {
    let hub = Throttled::new(None);
    (0..10).for_each(|number| hub.create(&twin(number)));
    let (budget, ..) = budget(Some((Tier::S1, 1)), 1.0);
    let git = Budgeted::new(hub.clone(), budget);
    let mut readers = JoinSet::new();
    for lane in Lane::ALL {
        for _ in 0..10 {
            let hub = git.in_lane(lane);
            readers.spawn(async move {
                loop {
                    hub.get_twin(&twin(1)).await.unwrap();
                }
            });
        }
    }
    // A caller that gives up at once, again and again, takes no turn from the others.
    let impatient = git.in_lane(Lane::Git);
    readers.spawn(async move {
        loop {
            let wanted = twin(1);
            let read = impatient.get_twin(&wanted);
            let _ = tokio::time::timeout(Duration::from_millis(3), read).await;
        }
    });
    tokio::time::sleep(Duration::from_secs(60)).await;
    let reads = hub.times(Call::Read).len();
    assert!((2950..=3051).contains(&reads), "{reads} reads in a minute of 50 a second");
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_refuses_is_asked_less_until_it_is_calm_again() {
    // The hub is smaller than the settings say.
    let hub = Throttled::new(Some((throttle::Tier::S1, 1)));
    (0..10).for_each(|number| hub.create(&twin(number)));
    let (budget, ..) = budget(Some((Tier::S3, 1)), 1.0);
    let paced = Budgeted::new(hub.clone(), budget.clone());
    let mut readers = JoinSet::new();
    for _ in 0..1500 {
        let hub = paced.clone();
        readers.spawn(async move {
            loop {
                match hub.get_twin(&twin(1)).await {
                    Ok(_) | Err(HubError::Throttled { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    let full = budget.allowance().reads_per_second.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let lowered = budget.allowance().reads_per_second.unwrap();
    assert!(lowered < full * 0.6, "{lowered} of {full}");
    let refused = hub.refused();
    let answered = hub.times(Call::Read).len();
    assert!(answered > 50_000, "{answered} of at most 60,000 were answered");
    assert!(refused * 20 < answered, "{refused} refused of {answered}");
    readers.shutdown().await;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        paced.get_twin(&twin(1)).await.unwrap();
    }
    assert_eq!(budget.allowance().reads_per_second, Some(full));
}

#[tokio::test(start_paused = true)]
async fn our_share_of_the_day_s_messages_is_never_exceeded() {
    let hub = Throttled::new(None);
    (0..10).for_each(|number| hub.create(&twin(number)));
    // 8,000 messages of half a KB, of which one percent is ours; a twin is two of them.
    let (budget, ..) = budget(Some((Tier::F1, 1)), 0.01);
    let git = Budgeted::new(hub.clone(), budget.clone());
    let mut lanes = Vec::new();
    for lane in [Lane::Query, Lane::Sweep, Lane::Drift, Lane::Git] {
        while git.in_lane(lane).get_twin(&twin(1)).await.is_ok() {}
        assert_eq!(git.in_lane(lane).get_twin(&twin(1)).await, Err(HubError::QuotaShare));
        lanes.push(budget.messages_used());
    }
    assert_eq!(lanes, [64, 72, 80, 80], "the last part is left to drift and to Git");
    assert_eq!(hub.times(Call::Read).len(), 40);
}

/// A fleet of sealed twins in sync, and its state.
async fn sealed_fleet(count: usize) -> (Throttled, Arc<DeclaredState>) {
    let hub = Throttled::new(None);
    (0..count).for_each(|number| hub.create(&twin(number)));
    let state = declared(count, 1);
    let (budget, metrics, _) = budget(None, 1.0);
    let ended = pass(Budgeted::new(hub.clone(), budget), &metrics, &state).await;
    assert_eq!(ended.error, None);
    hub.forget_calls();
    (hub, state)
}

/// Runs a daemon's loop for `time`.
async fn run_for<H>(hub: H, options: Options, state: &Arc<DeclaredState>, metrics: &Metrics, time: Duration)
where
    H: geminid::hub::WriteTwins + geminid::hub::Paced + 'static,
{
    let (_sender, receiver) = watch::channel(Arc::clone(state));
    let cancel = CancellationToken::new();
    let mut task = JoinSet::new();
    let (handle, rng) = (metrics.controller.hub("sim"), fastrand::Rng::with_seed(7));
    task.spawn(run(options, hub, receiver, handle, cancel.clone(), rng));
    tokio::time::sleep(time).await;
    cancel.cancel();
    while let Some(ended) = task.join_next().await {
        assert_eq!(ended.unwrap().error, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sweep_over_untouched_twins_reads_none_and_asks_for_their_pages_alone() {
    for (count, pages) in [(1, 1), (99, 1), (100, 1), (101, 2), (250, 3), (300, 3)] {
        let (hub, state) = sealed_fleet(count).await;
        // Another life, which knows nothing: the first sweep looks for modules too, later ones do not.
        let (_, metrics, registry) = budget(None, 1.0);
        run_for(hub.clone(), daemon(600, 86_400), &state, &metrics, Duration::from_secs(1)).await;
        let first = hub.times(Call::Query).len();
        assert_eq!(first, pages + 1 + 1, "{count} twins: their pages, modules, the count");
        assert_eq!((hub.times(Call::Read).len(), hub.times(Call::Patch).len()), (0, 0), "{count} twins");
        assert_eq!(value(&registry, r#"geminid_undeclared_twins{hub="sim"}"#), 0.0);
        assert_eq!(value(&registry, r#"geminid_sweep_remaining{hub="sim"}"#), 0.0);
        hub.forget_calls();
        run_for(hub.clone(), daemon(600, 86_400), &state, &metrics, Duration::from_secs(601)).await;
        assert_eq!(hub.times(Call::Query).len() - first, pages + 1, "{count} twins: the second sweep");
    }
}

#[tokio::test(start_paused = true)]
async fn devices_that_nobody_declares_are_counted_and_left_alone() {
    let (hub, _) = sealed_fleet(3).await;
    (3..10).for_each(|number| hub.create(&twin(number)));
    // Twin 3 is declared now, twin 20 is declared and does not exist.
    let mut state = DeclaredState::clone(&declared(4, 1));
    let absent = state.twins.get(&twin(0)).unwrap().clone();
    state.twins.insert(twin(20), absent);
    let (_, metrics, registry) = budget(None, 1.0);
    run_for(hub.clone(), daemon(600, 86_400), &Arc::new(state), &metrics, Duration::from_secs(700)).await;
    assert_eq!(value(&registry, r#"geminid_undeclared_twins{hub="sim"}"#), 6.0);
    assert_eq!(hub.times(Call::Patch).len(), 1, "only the new one was written");
}

#[tokio::test(start_paused = true)]
async fn reading_untouched_twins_again_is_spread_over_its_period() {
    let (hub, state) = sealed_fleet(300).await;
    let (_, metrics, _) = budget(None, 1.0);
    run_for(hub.clone(), daemon(100, 1000), &state, &metrics, Duration::from_secs(3050)).await;
    let reads = hub.times(Call::Read);
    let start = *hub.times(Call::Query).first().unwrap();
    assert!((850..=950).contains(&reads.len()), "three periods of 300 twins: {}", reads.len());
    for sweep in 1..=30 {
        let from = start + Duration::from_secs(100 * sweep - 50);
        let inside = reads.iter().filter(|at| (from..from + Duration::from_secs(100)).contains(*at)).count();
        assert!((10..=60).contains(&inside), "{inside} reads in sweep {sweep}");
    }
}

#[tokio::test(start_paused = true)]
async fn sweeps_come_as_often_as_rate_and_messages_allow() {
    let (hub, state) = sealed_fleet(250).await;
    let (budget, metrics, registry) = budget(Some((Tier::S1, 1)), 0.1);
    run_for(Budgeted::new(hub.clone(), budget), daemon(1, 86_400), &state, &metrics, Duration::from_secs(3600)).await;
    // Three pages and the count at ten a minute, twice as long between two: 48 s. Messages: 16 of 20,000 a day: 70 s.
    let interval = value(&registry, r#"geminid_sweep_interval_effective_seconds{hub="sim"}"#);
    assert_eq!(interval, 70.0);
    assert_eq!(value(&registry, r#"geminid_sweep_cost{hub="sim",mode="query"}"#), 24.0);
    assert_eq!(value(&registry, r#"geminid_sweep_cost_messages{hub="sim",mode="read"}"#), 250.0);
    let queries = hub.times(Call::Query).len();
    assert!((140..=215).contains(&queries), "{queries} pages in an hour");
    assert!(hub.times(Call::Read).len() < 25, "an hour's part of a day's verification");
}

#[tokio::test(start_paused = true)]
async fn a_tiny_fleet_on_a_slow_tier_is_read_rather_than_asked_for_by_pages() {
    let (hub, state) = sealed_fleet(1).await;
    let (budget, metrics, registry) = budget(Some((Tier::S1, 1)), 0.1);
    run_for(Budgeted::new(hub.clone(), budget), daemon(600, 86_400), &state, &metrics, Duration::from_secs(13_300))
        .await;
    assert_eq!(value(&registry, r#"geminid_sweep_cost_messages{hub="sim",mode="read"}"#), 1.0);
    assert_eq!(hub.times(Call::Read).len(), 20, "ten of eleven sweeps read");
    let by_hand = twin(0);
    hub.edit(&by_hand, 2);
    let (other, metrics, _) = self::budget(Some((Tier::S1, 1)), 0.1);
    run_for(Budgeted::new(hub.clone(), other), daemon(600, 86_400), &state, &metrics, Duration::from_secs(1300)).await;
    assert_eq!(hub.times(Call::Patch).len(), 1, "drift is found by reading, too");
}

#[tokio::test(start_paused = true)]
async fn without_messages_the_hub_is_left_alone_until_the_day_ends() {
    for call in [Call::Query, Call::Read] {
        let (hub, state) = sealed_fleet(50).await;
        if call == Call::Read {
            (0..50).for_each(|number| hub.edit(&twin(number), 2));
        }
        hub.refuse_for_quota(call, true);
        let (_, metrics, registry) = budget(None, 1.0);
        // The day ends in an hour.
        let options =
            Options { wall_clock: || SystemTime::UNIX_EPOCH + Duration::from_secs(23 * 3600), ..daemon(60, 86_400) };
        let (day, calls) = (hub.clone(), Arc::new(std::sync::Mutex::new(0)));
        let seen = Arc::clone(&calls);
        let mut around = JoinSet::new();
        around.spawn(async move {
            tokio::time::sleep(Duration::from_secs(3590)).await;
            *seen.lock().unwrap() = day.asked();
            day.refuse_for_quota(call, false);
        });
        run_for(hub.clone(), options, &state, &metrics, Duration::from_secs(7200)).await;
        while around.join_next().await.is_some() {}
        let before = *calls.lock().unwrap();
        // Those that were under way together, and the first sweep's pages.
        assert!(before <= 40, "{call:?}: asked {before} times on the day without messages");
        assert!(hub.asked() > before, "{call:?}: the next day it goes on");
        if call == Call::Read {
            assert_eq!(hub.times(Call::Patch).len(), 50);
        }
        assert_eq!(value(&registry, r#"geminid_twins{hub="sim",state="in_sync"}"#), 50.0);
    }
}

/// The last write of 200 drifted twins on a hub that shares the process with `others`.
async fn last_write(others: &[&Throttled]) -> Duration {
    let hub = Throttled::new(Some((throttle::Tier::S1, 1)));
    (0..200).for_each(|number| hub.create(&twin(number)));
    let state = declared(200, 1);
    let cancel = CancellationToken::new();
    let mut loops = JoinSet::new();
    let mut kept = Vec::new();
    for hub in others.iter().copied().chain([&hub]) {
        let (budget, metrics, registry) = budget(Some((Tier::S1, 1)), 1.0);
        let (sender, receiver) = watch::channel(Arc::clone(&state));
        let (handle, rng) = (metrics.controller.hub("sim"), fastrand::Rng::with_seed(7));
        let paced = Budgeted::new(hub.clone(), budget);
        loops.spawn(run(daemon(600, 86_400), paced, receiver, handle, cancel.clone(), rng));
        kept.push((sender, registry));
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    let writes = hub.times(Call::Patch);
    assert_eq!(writes.len(), 200);
    cancel.cancel();
    while loops.join_next().await.is_some() {}
    *writes.last().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_hangs_and_one_that_throttles_delay_no_other() {
    let alone = last_write(&[]).await;
    let hanging = Throttled::new(None);
    hanging.hang();
    // A hub that has a fiftieth of what the settings say refuses nearly everything.
    let throttled = Throttled::new(Some((throttle::Tier::S1, 1)));
    throttled.weigh(50);
    (0..200).for_each(|number| throttled.create(&twin(number)));
    let together = last_write(&[&hanging, &throttled]).await;
    assert_eq!(together, alone);
    assert!(hanging.asked() > 0 && throttled.refused() > 0, "both were what they are for");
}
