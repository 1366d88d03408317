//! What a hub does by itself: evaluating configurations (`iot-hub.md` 10).
//!
//! Invariant: thin: what is done is decided in the registry, a bounded number of twins at a time, so that requests
//! come in between. The loop ends when the store does.

use std::time::Duration;

use super::error::Refusal;
use super::handle::HubHandle;

/// The most twins looked at before others get the registry.
const TWINS_AT_ONCE: usize = 64;

/// Evaluates the configurations soon after each change of one, and every `period`; never ends unless the hub does.
pub async fn evaluate_configurations(hub: HubHandle, period: Duration) {
    let mut documents = hub.documents();
    loop {
        let seen = documents.borrow_and_update().configurations;
        match evaluate(&hub).await {
            Ok(0) => {}
            Ok(twins) => tracing::debug!(twins, "embedded hub evaluated its configurations"),
            Err(error) => {
                tracing::debug!(%error, "embedded hub evaluates no more configurations");
                return;
            }
        }
        let changed = documents.wait_for(|documents| documents.configurations != seen);
        // Either is a reason to evaluate; only the end of the hub is none.
        if let Ok(Err(_)) = tokio::time::timeout(period, changed).await {
            return;
        }
    }
}

/// One evaluation of all twins; how many chunks it took. Without configurations there is nothing to look at, but what
/// a deleted one left in the twins.
async fn evaluate(hub: &HubHandle) -> Result<usize, Refusal> {
    let Some(mut evaluation) = hub.write(|registry, _, _| Ok(registry.due_evaluation())).await? else { return Ok(0) };
    let mut chunks = 0;
    loop {
        chunks += 1;
        let finished = hub.write(|registry, _, now| Ok(registry.evaluate(&mut evaluation, TWINS_AT_ONCE, now))).await?;
        if finished {
            return Ok(chunks);
        }
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use tokio::task::JoinSet;

    use super::super::configuration::{ConfigurationId, ConfigurationSpec, Content};
    use super::super::identity::IdentitySpec;
    use super::super::if_match::IfMatch;
    use super::super::registry::CONFIGURATIONS_MAX;
    use super::*;
    use crate::twin::{DeviceId, MergePatch, Object, TwinRef, Value};

    fn object(json: &str) -> Object {
        Value::parse_json(json).unwrap().as_object().unwrap().clone()
    }

    /// A hub with `d`, whose loop runs.
    async fn hub() -> (HubHandle, JoinSet<()>) {
        let hub = HubHandle::ephemeral(Box::new(|bytes| bytes.fill(9)), || Timestamp::UNIX_EPOCH);
        let device = DeviceId::new("d").unwrap();
        let create =
            |registry: &mut super::super::registry::Registry, random: super::super::identity::Random<'_>, now| {
                registry.put_identity(&device, IdentitySpec::default(), &IfMatch::Absent, random, now)
            };
        hub.write(create).await.unwrap();
        let mut loops = JoinSet::new();
        loops.spawn(evaluate_configurations(hub.clone(), Duration::from_secs(300)));
        (hub, loops)
    }

    /// Waits until the desired properties of `d` are these, at most an hour.
    async fn wait_for(hub: &HubHandle, desired: &str) {
        let twin = TwinRef::device(DeviceId::new("d").unwrap());
        let mut changes = hub.changes();
        let reached = async {
            loop {
                changes.borrow_and_update();
                if hub.record(&twin).await.unwrap().twin.desired.values == object(desired) {
                    return;
                }
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(3600), reached).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_configuration_is_applied_at_once_and_a_manual_edit_is_corrected_in_the_next_period() {
        let (hub, mut loops) = hub().await;
        let spec = ConfigurationSpec {
            schema_version: None,
            labels: BTreeMap::new(),
            content: Content::new(object(r#"{"deviceContent":{"properties.desired.x":1}}"#)).unwrap(),
            target_condition: "*".to_owned(),
            priority: 1,
            metrics: BTreeMap::new(),
        };
        let id = ConfigurationId::new("c").unwrap();
        let began = hub_time();
        hub.write(|registry, _, now| registry.put_configuration(&id, spec, &IfMatch::Absent, CONFIGURATIONS_MAX, now))
            .await
            .unwrap();
        wait_for(&hub, r#"{"x":1}"#).await;
        assert_eq!(hub_time() - began, Duration::ZERO, "no period passed");
        let edit = MergePatch { tags: None, desired: Some(object(r#"{"x":2}"#)) };
        let twin = TwinRef::device(DeviceId::new("d").unwrap());
        hub.write(|registry, _, now| registry.patch_twin(&twin, &edit, &IfMatch::Any, now)).await.unwrap();
        wait_for(&hub, r#"{"x":1}"#).await;
        assert!(hub_time() - began >= Duration::from_secs(299), "a period passed");
        loops.shutdown().await;
    }

    #[expect(clippy::disallowed_methods, reason = "the paused clock of a test")]
    fn hub_time() -> tokio::time::Instant {
        tokio::time::Instant::now()
    }
}
