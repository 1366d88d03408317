//! A device in this process, for the demo: it waits to be registered, connects, and reports once.
//!
//! Invariant: it goes through the registry as a device would, writes reported properties only, and never writes what
//! is there already.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::error::Refusal;
use super::handle::HubHandle;
use crate::twin::{DeviceId, Object, Value, merge};

/// Waits until `device` is registered and `delay` longer, connects it, and has it report `reported` unless its twin
/// says so already. Ends early, without a word, when `cancel` is. A device that is deleted while it waits is waited
/// for again.
///
/// # Errors
/// [`Refusal::ArgumentInvalid`] when `reported` breaks a rule of `iot-hub.md` section 4; [`Refusal::Unavailable`] when
/// the hub's store failed or was closed.
pub async fn report_when_registered(
    hub: HubHandle,
    device: DeviceId,
    reported: Object,
    delay: Duration,
    cancel: CancellationToken,
) -> Result<(), Refusal> {
    let life = live(&hub, &device, &reported, delay);
    cancel.run_until_cancelled(life).await.unwrap_or(Ok(()))
}

async fn live(hub: &HubHandle, device: &DeviceId, reported: &Object, delay: Duration) -> Result<(), Refusal> {
    loop {
        wait_until_registered(hub, device).await?;
        tokio::time::sleep(delay).await;
        match report(hub, device, reported).await {
            Err(Refusal::DeviceNotFound(_)) => {}
            result => return result,
        }
    }
}

async fn wait_until_registered(hub: &HubHandle, device: &DeviceId) -> Result<(), Refusal> {
    let mut changes = hub.changes();
    loop {
        // Seen before the look, so that a change during the look wakes the next one.
        changes.borrow_and_update();
        match hub.device(device).await {
            Err(Refusal::DeviceNotFound(_)) => {}
            result => return result.map(|_| ()),
        }
        // The handle holds the sending end.
        changes.changed().await.map_err(|_| Refusal::Unavailable("the hub is gone".to_owned()))?;
    }
}

async fn report(hub: &HubHandle, device: &DeviceId, reported: &Object) -> Result<(), Refusal> {
    hub.look(|_, registry, now| registry.note_activity(device, true, now));
    let live = Value::Object(hub.device(device).await?.twin.reported.values.clone());
    if merge(live.clone(), reported) == live {
        return Ok(());
    }
    hub.write(|registry, _, now| registry.report(device, reported, now)).await?;
    tracing::info!(twin = %device, "the simulated device reported");
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::identity::IdentitySpec;
    use super::super::if_match::IfMatch;
    use super::*;

    fn id() -> DeviceId {
        DeviceId::new("myDevice").unwrap()
    }

    fn hub() -> HubHandle {
        HubHandle::ephemeral(Box::new(|bytes| bytes.fill(9)), || Timestamp::UNIX_EPOCH)
    }

    fn cellular() -> Object {
        Object::from([("connectivity".to_owned(), Value::from("cellular"))])
    }

    async fn create(hub: &HubHandle) {
        let device = id();
        let put = hub.write(|registry, random, now| {
            registry.put_identity(&device, IdentitySpec::default(), &IfMatch::Absent, random, now)
        });
        put.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_its_registration_and_the_delay_then_reports_once() {
        let hub = hub();
        let delay = Duration::from_secs(5);
        let device = report_when_registered(hub.clone(), id(), cellular(), delay, CancellationToken::new());
        let mut device = std::pin::pin!(device);
        let waiting = tokio::time::timeout(Duration::from_secs(3600), &mut device).await;
        assert!(waiting.is_err(), "nobody registered it");
        create(&hub).await;
        assert!(tokio::time::timeout(Duration::from_secs(4), &mut device).await.is_err(), "the delay is not over");
        assert!(hub.device(&id()).await.unwrap().twin.reported.values.is_empty());
        device.await.unwrap();
        let found = hub.device(&id()).await.unwrap();
        assert_eq!((found.twin.reported.values.clone(), found.twin.version), (cellular(), 3));
        assert!(found.identity.connected);
        report_when_registered(hub.clone(), id(), cellular(), delay, CancellationToken::new()).await.unwrap();
        assert_eq!(hub.device(&id()).await.unwrap().twin.version, 3, "nothing is reported twice");
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_is_deleted_meanwhile_is_waited_for_again() {
        let hub = hub();
        create(&hub).await;
        let device =
            report_when_registered(hub.clone(), id(), cellular(), Duration::from_secs(5), CancellationToken::new());
        let mut device = std::pin::pin!(device);
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut device).await.is_err());
        let gone = id();
        hub.write(|registry, _, _| registry.delete_identity(&gone, &IfMatch::Any)).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(60), &mut device).await.is_err());
        create(&hub).await;
        device.await.unwrap();
        assert_eq!(hub.device(&id()).await.unwrap().twin.reported.values, cellular());
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_at_once_when_cancelled() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        assert_eq!(report_when_registered(hub(), id(), cellular(), Duration::ZERO, cancel).await, Ok(()));
    }
}
