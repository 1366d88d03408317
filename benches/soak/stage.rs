//! Who is on the stage, and what they do while the time runs.
//!
//! Invariant: a process is lent to nobody across an await, so that it may die at any moment.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use geminid::hub::{ConnectionString, ReadTwins as _, RestHub, RestOptions, WriteTwins as _};
use geminid::twin::{DeviceId, MergePatch, TwinRef, Value};
use jiff::Timestamp;

use crate::Wish;
use crate::account::Account;
use crate::devices::{self, Met};
use crate::fleet::{Edit, Fleet, ForeignWrite};
use crate::lives::{AUDIT_LOG, Addresses, footprint, machine_load, said, series, sum};
use crate::record::{Latency, Record, Said, Sample};
use crate::support::{Process, World, device_ref, eventually};
use crate::troubles::{Bag, Trouble};
use crate::verdict::{self, Verdict};

/// Parts of the time at the beginning and at the end in which nothing goes wrong.
const QUIET_PART: u32 = 6;
/// The part of the troubled time in which lives of the daemon may end; the last life is to be a long one.
const DEATHS_PART: f64 = 0.6;
/// Within the troubled time each trouble has about so many turns, as far as the bounds of a turn allow.
const TURNS: f64 = 4.0;
/// How long one trouble and the calm after it may take together, in seconds.
const TURN_S: std::ops::RangeInclusive<f64> = 4.0..=40.0;
/// The part of a turn that is trouble.
const TROUBLE_PART: f64 = 0.4;
/// Looks at the processes, over the whole time, as far as the bounds of a pause allow.
const LOOKS: f64 = 900.0;
const LOOK_PAUSE_S: std::ops::RangeInclusive<f64> = 0.5..=10.0;
/// From one edit to the next, and from one write of somebody else to the next, in milliseconds.
const EDIT_MS: std::ops::Range<u64> = 100..1500;
const FOREIGN_MS: std::ops::Range<u64> = 100..2500;
/// How long somebody else waits for an answer.
const FOREIGN_TIME_MAX: Duration = Duration::from_secs(5);
/// How long the daemon may take to have everything in sync, at first and in the end.
pub(crate) const SYNC_TIME_MAX: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

/// The stage: processes, manifests, clocks and notes.
pub(crate) struct Stage {
    pub(crate) wish: Wish,
    pub(crate) world: World,
    pub(crate) addresses: Addresses,
    pub(crate) hub: RefCell<Option<Process>>,
    pub(crate) daemon: RefCell<Option<Process>>,
    pub(crate) fleet: RefCell<Fleet>,
    pub(crate) account: RefCell<Account>,
    pub(crate) record: RefCell<Record>,
    /// What was wrong on the way.
    pub(crate) wrong: RefCell<Vec<String>>,
    pub(crate) client: RestHub,
    met: Arc<Met>,
    begun: Instant,
    /// Levels saved and not yet seen at the hub: level, when by both clocks, and whether in trouble.
    pending: RefCell<BTreeMap<String, (u64, f64, Timestamp, bool)>>,
    /// Until when what is saved is not saved in calm.
    troubled_until: Cell<f64>,
    /// The last counters of the daemon's life, for their growth.
    counters: RefCell<BTreeMap<String, f64>>,
}

impl Stage {
    /// Hub, manifests and daemon, started.
    pub(crate) async fn set_up(wish: Wish) -> Self {
        let (world, addresses) = (World::new(), Addresses::new());
        let hub = addresses.start_hub(&world);
        hub.wait_for("the hub's announcement", || hub.stdout().contains("stop")).await;
        addresses.write_settings(&world);
        let fleet = Fleet::new(&world, wish.twins);
        let json = world.hub_json("state");
        let connection = ConnectionString::parse(json["ownerConnectionString"].as_str().unwrap()).unwrap();
        let mut options = RestOptions::new(geminid::app::wall_clock);
        options.extra_ca_pem = Some(std::fs::read(json["caFile"].as_str().unwrap()).unwrap());
        options.timeout = FOREIGN_TIME_MAX;
        let client = RestHub::new(connection, &options).unwrap();
        let daemon = addresses.start_daemon(&world);
        let account = Account::new(world.path(AUDIT_LOG));
        Self {
            wish,
            world,
            addresses,
            hub: RefCell::new(Some(hub)),
            daemon: RefCell::new(Some(daemon)),
            fleet: RefCell::new(fleet),
            account: RefCell::new(account),
            record: RefCell::default(),
            wrong: RefCell::default(),
            client,
            met: Arc::default(),
            begun: Instant::now(),
            pending: RefCell::default(),
            troubled_until: Cell::new(0.0),
            counters: RefCell::default(),
        }
    }

    /// Lets the time run, and makes the account.
    pub(crate) async fn play(self) -> (Record, Verdict) {
        let time = self.wish.time;
        let quiet = [time / QUIET_PART, time - time / QUIET_PART];
        self.record.borrow_mut().quiet = quiet.map(|at| at.as_secs_f64());
        let acted = async {
            self.await_sync().await;
            println!("{:7.1} s  all {} twins in sync", self.now(), self.wish.twins);
            let names = self.fleet.borrow().names().take(devices::DEVICES).collect();
            let devices = devices::start(&self.world, names, self.wish.seed, &self.met).await;
            self.record.borrow_mut().device_count = devices.len();
            // Edits end before the time does, so that memory is measured at rest too.
            let edits_end = time - time / QUIET_PART / 2;
            tokio::join!(self.edit(edits_end), self.write_as_others(edits_end), self.trouble(quiet));
            let verdict = verdict::pass(&self).await;
            self.sleep_until(time.as_secs_f64()).await;
            (verdict, devices)
        };
        let (mut verdict, devices) = tokio::select! {
            done = acted => done,
            () = self.look() => unreachable!("it looks for ever"),
        };
        drop(devices);
        verdict::end(&self, &mut verdict).await;
        let mut record = self.record.take();
        record.edits = self.fleet.borrow().edits;
        record.foreign = self.fleet.borrow().others().map(|others| others.acknowledged).sum();
        record.untold = self.pending.borrow().len();
        record.devices = [&self.met.connected, &self.met.desired].map(|count| count.load(Ordering::Relaxed));
        record.audit_lines = self.account.borrow().lines;
        (record, verdict)
    }

    /// Seconds of the run.
    pub(crate) fn now(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    async fn sleep_until(&self, at: f64) {
        tokio::time::sleep(Duration::from_secs_f64((at - self.now()).max(0.0))).await;
    }

    /// Waits until the daemon knows every declared twin to be in sync.
    async fn await_sync(&self) {
        let begun = self.now();
        while self.record.borrow().samples.last().is_none_or(|sample| sample.behind != Some(0.0)) {
            assert!(self.now() - begun < SYNC_TIME_MAX.as_secs_f64(), "not in sync: {}", self.daemon_said());
            tokio::time::sleep(POLL).await;
        }
    }

    fn daemon_said(&self) -> String {
        self.daemon.borrow().as_ref().map_or_else(String::new, Process::stderr)
    }

    /// Somebody who works with Git.
    async fn edit(&self, end: Duration) {
        let mut rng = fastrand::Rng::with_seed(self.wish.seed);
        while self.begun.elapsed() < end {
            let edit = self.fleet.borrow_mut().edit(&self.world, &mut rng);
            if let Edit::Level(name, level) = edit {
                let saved = (level, self.now(), Timestamp::now(), self.now() < self.troubled_until.get());
                if self.pending.borrow_mut().insert(name, saved).is_some() {
                    self.record.borrow_mut().untold += 1;
                }
            }
            tokio::time::sleep(Duration::from_millis(rng.u64(EDIT_MS))).await;
        }
    }

    /// Somebody who writes twins by another tool, guarded as geminid does.
    async fn write_as_others(&self, end: Duration) {
        let mut rng = fastrand::Rng::with_seed(self.wish.seed + 1);
        while self.begun.elapsed() < end {
            let write = self.fleet.borrow_mut().foreign_write(&mut rng, self.now());
            if self.carry_out(&write).await.is_some() {
                self.fleet.borrow_mut().acknowledged(&write);
            }
            tokio::time::sleep(Duration::from_millis(rng.u64(FOREIGN_MS))).await;
        }
    }

    async fn carry_out(&self, write: &ForeignWrite) -> Option<()> {
        let live = self.client.get_twin(&device_ref(&write.name)).await.ok()?;
        let mut patch = MergePatch::default();
        for (section, key, value) in &write.leaves {
            patch.set(*section, &[(*key).to_owned()], Value::parse_json(&value.to_string()).unwrap());
        }
        self.client.patch_twin(&live.twin_ref, &patch, &live.etag).await.ok().map(drop)
    }

    /// Trouble after trouble, between the quiet at the beginning and that at the end.
    async fn trouble(&self, quiet: [Duration; 2]) {
        let [from, to] = quiet.map(|at| at.as_secs_f64());
        let mut rng = fastrand::Rng::with_seed(self.wish.seed + 2);
        let turn = (to - from) / (Trouble::ALL.len() as f64 * TURNS);
        let turn = turn.clamp(*TURN_S.start(), *TURN_S.end());
        let mut bag = Bag::new();
        self.sleep_until(from).await;
        while self.now() + turn < to {
            let begun = self.now();
            let daemon_lives = begun > from + (to - from) * DEATHS_PART;
            let trouble = bag.draw(&mut rng, daemon_lives);
            println!("{begun:7.1} s  {}", trouble.words());
            self.troubled_until.set(f64::INFINITY);
            self.meet(trouble, turn * TROUBLE_PART, rng.u64(..)).await;
            self.record.borrow_mut().troubles.push((begun, self.now(), trouble));
            self.troubled_until.set(self.now() + turn * (1.0 - TROUBLE_PART) / 2.0);
            self.sleep_until(begun + turn).await;
        }
    }

    async fn meet(&self, trouble: Trouble, seconds: f64, seed: u64) {
        let until = self.now() + seconds;
        match trouble {
            Trouble::Throttled | Trouble::Failing | Trouble::Slow | Trouble::LostAnswers | Trouble::Devices => {
                self.addresses.set_faults(&self.world, &trouble.plan(seed).unwrap()).await;
                self.sleep_until(until).await;
                self.addresses.set_faults(&self.world, &serde_json::json!({ "rules": [] })).await;
            }
            Trouble::HubHangs => {
                self.hub.borrow().as_ref().unwrap().signal("STOP");
                self.sleep_until(until).await;
                self.hub.borrow().as_ref().unwrap().signal("CONT");
            }
            Trouble::HubKilled | Trouble::HubRestarted => {
                let hub = self.hub.borrow_mut().take().unwrap();
                self.end_life(1, hub, trouble == Trouble::HubKilled).await;
                *self.hub.borrow_mut() = Some(self.addresses.start_hub(&self.world));
                let is_ready = || self.hub.borrow().as_ref().unwrap().stdout().contains("stop");
                let ready = eventually(async || is_ready().then_some(())).await;
                assert!(ready.is_some(), "the hub starts again");
            }
            Trouble::DaemonKilled | Trouble::DaemonRestarted => {
                let daemon = self.daemon.borrow_mut().take().unwrap();
                self.end_life(0, daemon, trouble == Trouble::DaemonKilled).await;
                *self.daemon.borrow_mut() = Some(self.addresses.start_daemon(&self.world));
            }
            Trouble::Broken => {
                self.fleet.borrow().break_one(&self.world);
                self.sleep_until(until).await;
                self.fleet.borrow().mend(&self.world);
            }
        }
    }

    /// Ends a life of the daemon (0) or of the hub (1) and notes what it said.
    pub(crate) async fn end_life(&self, which: usize, mut process: Process, killed: bool) {
        if killed {
            process.kill();
            self.record.borrow_mut().killed[which] += 1;
        } else {
            process.signal("TERM");
            let code = process.exit_code().await;
            if code != 0 {
                let name = ["daemon", "hub"][which];
                self.wrong.borrow_mut().push(format!("the {name} ended with {code} on SIGTERM: {}", process.stderr()));
            }
        }
        let Said { lines, complaints } = said(&process);
        let total = &mut self.record.borrow_mut().said[which];
        total.lines += lines;
        total.complaints += complaints;
    }

    /// Looks at both processes again and again.
    async fn look(&self) {
        let pause = (self.wish.time.as_secs_f64() / LOOKS).clamp(*LOOK_PAUSE_S.start(), *LOOK_PAUSE_S.end());
        let mut interval = tokio::time::interval(Duration::from_secs_f64(pause));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.read_account();
            let metrics = self.addresses.metrics().await;
            let id = |process: &RefCell<Option<Process>>| process.borrow().as_ref().map(Process::id);
            let [daemon, hub] = [&self.daemon, &self.hub].map(|process| id(process).map(footprint).unwrap_or_default());
            let mut sample = Sample {
                at: self.now(),
                resident_mb: [daemon[0], hub[0]],
                descriptors: [daemon[1], hub[1]],
                machine_load: machine_load(),
                ..Sample::default()
            };
            if let Some(metrics) = metrics {
                sample.queue = Some(sum(&metrics, "geminid_workqueue_depth", ""));
                let in_sync = sum(&metrics, "geminid_twins", r#"state="in_sync""#);
                sample.behind = Some((self.fleet.borrow().declared() as f64 - in_sync).max(0.0));
                self.count_requests(&metrics);
            }
            self.record.borrow_mut().samples.push(sample);
        }
    }

    /// Reads what the audit log says anew, and finds what it tells of saved levels.
    pub(crate) fn read_account(&self) {
        let landed = self.account.borrow_mut().read();
        let (mut pending, mut record) = (self.pending.borrow_mut(), self.record.borrow_mut());
        for landed in landed {
            let Some((level, at, saved, troubled)) = pending.get(&landed.name).copied() else { continue };
            if level == landed.level {
                pending.remove(&landed.name);
                let seconds = landed.at.duration_since(saved).as_secs_f64().max(0.0);
                record.latencies.push(Latency { at, seconds, troubled });
            }
        }
    }

    /// What grew since the last look; a life that began anew began at nothing.
    fn count_requests(&self, metrics: &str) {
        let (mut counters, mut record) = (self.counters.borrow_mut(), self.record.borrow_mut());
        for (labels, value) in series(metrics, "geminid_hub_requests_total") {
            let label = |name: &str| labels.split(',').find_map(|label| label.strip_prefix(name)?.strip_prefix("=\""));
            let [operation, code] = ["operation", "code"].map(|name| label(name).unwrap().trim_end_matches('"'));
            let key = format!("{operation} {code}");
            let before = counters.insert(key.clone(), value).unwrap_or_default();
            *record.requests.entry(key).or_default() += if value < before { value } else { value - before };
        }
    }

    /// The twin of this device, by the hub's word.
    pub(crate) async fn twin(&self, name: &str) -> Option<geminid::twin::Twin> {
        let twin = TwinRef::device(DeviceId::new(name).unwrap());
        self.client.get_twin(&twin).await.ok()
    }
}
