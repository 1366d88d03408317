//! Runs scheduled jobs when their time has come (`iot-hub.md` 2.8).
//!
//! Invariant: thin: what a job does next is decided in the registry, a bounded number of devices at a time, so that
//! requests come in between. Under a tier no more devices a second are touched than it allows. Ends when the store does.

use std::time::Duration;

use tokio::task::JoinSet;

use super::error::Refusal;
use super::handle::HubHandle;
use super::mqtt::MethodAnswer;
use super::registry::{JobsNext, MethodStep};
use super::traffic::Traffic;
use super::trial::Trial;
use crate::twin::{DeviceId, TwinRef};

/// The most devices looked at in one step, and the most called at once for one job.
const DEVICES_AT_ONCE: usize = 64;
/// The same under a tier, whose least rate this is in a second.
const DEVICES_AT_ONCE_OF_TIER: usize = 10;
/// The longest sleep before a job's time is looked at again, since the wall clock may be set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Runs each job when its time has come; never ends unless the hub does.
pub async fn run_jobs(hub: HubHandle, trial: Trial) {
    let count = if trial.has_tier() { DEVICES_AT_ONCE_OF_TIER } else { DEVICES_AT_ONCE };
    let mut documents = hub.documents();
    let mut calling = JoinSet::new();
    loop {
        let seen = documents.borrow_and_update().jobs;
        let next = match hub.write(|registry, _, now| Ok(registry.step_jobs(count, now))).await {
            Ok(next) => next,
            Err(error) => {
                tracing::debug!(%error, "embedded hub runs no more jobs");
                return;
            }
        };
        let wait = match next {
            JobsNext::Step { twins, bytes } => {
                pace(&hub, &trial, twins, bytes).await;
                continue;
            }
            JobsNext::Call(step) => {
                calling.spawn(call_devices(hub.clone(), trial.clone(), *step));
                continue;
            }
            JobsNext::At(start) => {
                Duration::try_from(start.duration_since(hub.now())).unwrap_or_default().min(LOOK_AGAIN)
            }
            JobsNext::Nothing => LOOK_AGAIN,
        };
        tokio::select! {
            // Its job goes on, or the store has failed, which the next step finds.
            Some(_) = calling.join_next() => {}
            changed = tokio::time::timeout(wait, documents.wait_for(|documents| documents.jobs != seen)) => {
                if let Ok(Err(_)) = changed {
                    return;
                }
            }
        }
    }
}

/// Lets others have their turn, and waits as long as a tier asks for after so many writes.
async fn pace(hub: &HubHandle, trial: &Trial, twins: u32, bytes: usize) {
    if trial.has_tier() && twins > 0 {
        for _ in 0..twins {
            trial.charge(Traffic::JobStep, bytes, hub.now());
        }
        // A job whose messages are used up goes on all the same; what a hub does then is unproven.
        trial.admit_patiently(Traffic::JobStep, twins, || hub.now()).await.ok();
    }
    tokio::task::yield_now().await;
}

/// Calls the devices of a step at once, and hands what they answered to the registry.
async fn call_devices(hub: HubHandle, trial: Trial, step: MethodStep) {
    let mut calls = JoinSet::new();
    for device in &step.devices {
        calls.spawn(call_device(hub.clone(), trial.clone(), step.clone(), device.clone()));
    }
    let mut answers = calls.join_all().await;
    answers.sort_by(|(one, _), (other, _)| one.cmp(other));
    let finished = hub.write(|registry, _, now| {
        registry.finish_calls(&step, answers, now);
        Ok(())
    });
    if let Err(error) = finished.await {
        tracing::debug!(%error, "embedded hub lost what the devices of a job answered");
    }
}

async fn call_device(
    hub: HubHandle,
    trial: Trial,
    step: MethodStep,
    device: DeviceId,
) -> (DeviceId, Result<MethodAnswer, Refusal>) {
    let answer = async {
        trial.admit_patiently(Traffic::JobStep, 1, || hub.now()).await?;
        let answer = hub.call_method(&TwinRef::device(device.clone()), &step.call).await;
        trial.charge(Traffic::Method, step.call.payload_bytes(), hub.now());
        if let Ok((_, payload)) = &answer {
            trial.charge(Traffic::Method, payload.len(), hub.now());
        }
        answer
    };
    let time_left = Duration::try_from(step.time_left).unwrap_or_default();
    let answer = tokio::time::timeout(time_left, answer).await.unwrap_or(Err(Refusal::MethodTimeout));
    (device, answer)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::identity::IdentitySpec;
    use super::super::if_match::IfMatch;
    use super::super::job::{JobAction, JobId, JobSpec, JobStatus};
    use super::super::mqtt::{MethodCall, presence::Told};
    use super::super::throttle::Tier;
    use super::super::trial::TrialOptions;
    use super::*;
    use crate::twin::{MergePatch, Object, Value};

    fn device(number: usize) -> DeviceId {
        DeviceId::new(&format!("d{number}")).unwrap()
    }

    fn now() -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "the paused clock of a test")]
        let now = tokio::time::Instant::now();
        static FIRST: std::sync::OnceLock<tokio::time::Instant> = std::sync::OnceLock::new();
        let passed = now.saturating_duration_since(*FIRST.get_or_init(|| now));
        Timestamp::UNIX_EPOCH + passed
    }

    /// A hub with so many devices, whose jobs run.
    async fn hub(count: usize, tier: Option<Tier>) -> (HubHandle, JoinSet<()>) {
        let hub = HubHandle::ephemeral(Box::new(|bytes| bytes.fill(9)), now);
        for number in 0..count {
            let id = device(number);
            let put = hub.write(|registry, random, now| {
                registry.put_identity(&id, IdentitySpec::default(), &IfMatch::Absent, random, now)
            });
            put.await.unwrap();
        }
        let trial = Trial::new(&TrialOptions { tier: tier.map(|tier| (tier, 1)), ..TrialOptions::default() });
        let mut loops = JoinSet::new();
        loops.spawn(run_jobs(hub.clone(), trial));
        (hub, loops)
    }

    async fn put(hub: &HubHandle, action: JobAction, seconds_max: i64) -> JobId {
        let spec = JobSpec {
            document: Object::new(),
            action,
            condition: "IS_DEFINED(deviceId)".to_owned(),
            start: None,
            seconds_max: Some(seconds_max),
        };
        let id = JobId::new("j").unwrap();
        hub.write(|registry, _, now| registry.put_job(&id, spec, 1, now)).await.unwrap();
        id
    }

    async fn ended(hub: &HubHandle, id: &JobId) -> (JobStatus, u64, u64) {
        let mut documents = hub.documents();
        loop {
            documents.borrow_and_update();
            let job = hub.read(|registry| Ok(registry.job(id).unwrap())).await.unwrap();
            if !job.status.is_active() {
                return (job.status, job.succeeded, job.failed);
            }
            documents.changed().await.unwrap();
        }
    }

    fn twin_update() -> JobAction {
        let desired = Value::parse_json(r#"{"y":1}"#).unwrap().as_object().cloned();
        JobAction::UpdateTwin(MergePatch { tags: None, desired })
    }

    fn method() -> JobAction {
        JobAction::DeviceMethod(MethodCall::new("reboot".to_owned(), b"7".to_vec(), Some(5), None).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_without_a_time_runs_at_once() {
        let (hub, mut loops) = hub(150, None).await;
        let began = now();
        let id = put(&hub, twin_update(), 60).await;
        assert_eq!(ended(&hub, &id).await, (JobStatus::Completed, 150, 0));
        assert_eq!(now(), began);
        loops.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_tier_lets_a_job_touch_so_many_devices_a_second() {
        let (hub, mut loops) = hub(101, Some(Tier::S1)).await;
        let began = now();
        let id = put(&hub, twin_update(), 60).await;
        assert_eq!(ended(&hub, &id).await, (JobStatus::Completed, 101, 0));
        let seconds = now().duration_since(began).as_secs();
        assert!((9..=10).contains(&seconds), "10 at once and 10 a second: {seconds} s");
        loops.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_of_methods_asks_every_device_and_waits_for_those_that_answer() {
        let (hub, mut loops) = hub(3, None).await;
        let mut devices = JoinSet::new();
        for number in 0..2 {
            let generation = hub.device(&device(number)).await.unwrap().identity.generation;
            let mut attached = hub.attach(&TwinRef::device(device(number)), generation, true).await.unwrap();
            let mut filters = super::super::mqtt::topics::Filters::default();
            filters.subscribe("$iothub/methods/POST/#", 0, &attached.who);
            hub.subscribe(&attached, &filters).await.unwrap();
            let hub = hub.clone();
            devices.spawn(async move {
                while let Some(notice) = attached.notices.recv().await {
                    // The second one never answers.
                    if let (Told::Method { request, payload, .. }, 0) = (notice.told, number) {
                        assert_eq!(payload, b"7");
                        let answer = (200, b"\"done\"".to_vec());
                        hub.look(|presence, _, _| presence.answer(&attached.who, &request.to_string(), answer));
                    }
                }
            });
        }
        let id = put(&hub, method(), 60).await;
        assert_eq!(ended(&hub, &id).await, (JobStatus::Completed, 1, 2));
        let page = hub.query("SELECT * FROM devices.jobs", None, None).await.unwrap();
        let super::super::query::Rows::Jobs(rows) = page.rows else { panic!("no rows of jobs") };
        let errors: Vec<Option<&Value>> =
            rows.iter().map(|row| row.get("error").and_then(|error| error.get(["code"]))).collect();
        let code = |text: &str| Value::from(text);
        assert_eq!(errors, [None, Some(&code("GatewayTimeout")), Some(&code("DeviceNotOnline"))]);
        let response = rows[0]["outcome"].get(["deviceMethodResponse"]).unwrap().to_string();
        assert_eq!(response, r#"{"payload":"done","status":200}"#);
        loops.shutdown().await;
        devices.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_of_methods_waits_no_longer_than_it_may() {
        let (hub, mut loops) = hub(1, None).await;
        let generation = hub.device(&device(0)).await.unwrap().identity.generation;
        let attached = hub.attach(&TwinRef::device(device(0)), generation, true).await.unwrap();
        let mut filters = super::super::mqtt::topics::Filters::default();
        filters.subscribe("$iothub/methods/POST/#", 0, &attached.who);
        hub.subscribe(&attached, &filters).await.unwrap();
        let began = now();
        let id = put(&hub, method(), 2).await;
        let (_, succeeded, failed) = ended(&hub, &id).await;
        assert_eq!((succeeded, failed), (0, 1));
        assert!(now().duration_since(began).as_secs() <= 3);
        loops.shutdown().await;
    }
}
