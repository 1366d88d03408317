//! Many simulated devices in one process: their names, and how they come and stay.
//!
//! Invariant: a device that cannot connect, whatever the reason, tries again with growing pauses until all are told to
//! stop; and together they never connect faster than their rate.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::credentials::DeviceConnection;
use super::pace::{Pauses, Turns};
use super::run::{DeviceError, DeviceEvent, DeviceOptions, run_device};
use super::tls::Connector;
use crate::twin::{DeviceId, IdError, Object, Value};

/// The most devices of one fleet: all that the embedded hub has places for, with some to spare.
pub const COUNT_MAX: u32 = 10_000;
/// What stands for the number of a device, from 0; as in the template that a hub is filled from.
pub const PLACEHOLDER: &str = "{n}";

/// A device of a fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its id.
    pub id: DeviceId,
    /// What it reports.
    pub report: Option<Object>,
}

/// Why there can be no such fleet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// None, or too many.
    #[error("a fleet has 1 to {COUNT_MAX} devices, not {0}")]
    Count(u64),
    /// All devices would be one.
    #[error("the id {0:?} has no place for the device's number; write {PLACEHOLDER} where it goes, as in device-{{n}}")]
    NoNumber(String),
    /// No id that a hub takes.
    #[error("device {number} of the fleet: {error}")]
    Id {
        /// The number of the device.
        number: u32,
        /// What is wrong with it.
        error: IdError,
    },
    /// No object.
    #[error(
        "device {number} of the fleet reports {reason}; expected a JSON object, such as {{\"connectivity\":\"cellular\"}}"
    )]
    Report {
        /// The number of the device.
        number: u32,
        /// What is wrong with it.
        reason: String,
    },
}

/// The `count` devices whose ids are `id`, and whose reports are `report`, with the number of each for `{n}`.
///
/// # Errors
/// [`FleetError`]: none or too many, no place for the number, a text that is no id or no JSON object.
pub fn members(count: u64, id: &str, report: Option<&str>) -> Result<Vec<Member>, FleetError> {
    let devices = u32::try_from(count).ok().filter(|count| (1..=COUNT_MAX).contains(count));
    let devices = devices.ok_or(FleetError::Count(count))?;
    if !id.contains(PLACEHOLDER) {
        return Err(FleetError::NoNumber(id.to_owned()));
    }
    let member = |number: u32| {
        let filled = |text: &str| text.replace(PLACEHOLDER, &number.to_string());
        let id = DeviceId::new(&filled(id)).map_err(|error| FleetError::Id { number, error })?;
        let report = report.map(|text| reported(&filled(text))).transpose();
        Ok(Member { id, report: report.map_err(|reason| FleetError::Report { number, reason })? })
    };
    (0..devices).map(member).collect()
}

fn reported(text: &str) -> Result<Object, String> {
    match Value::parse_json(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Err("something else than an object".to_owned())
        }
        Err(error) => Err(format!("no JSON ({error})")),
    }
}

/// How a fleet connects.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// Connections a second, the first ones and those after a loss alike; not 0.
    pub rate: u32,
    /// Where to connect instead of the connections' host, whose name the certificate must still have.
    pub address: Option<SocketAddr>,
    /// What connects, and whom it trusts.
    pub connector: Connector,
    /// The clock of tokens.
    pub now: fn() -> Timestamp,
    /// Of all jitter.
    pub seed: u64,
}

/// Runs all `members` until `stop` is cancelled. `connection_of` finds the connection of each when its turn comes, and
/// again when the hub does not admit it; `tell` hears what happens to which member, by its index.
///
/// # Panics
/// When `tell` or `connection_of` does.
pub async fn run_fleet<F>(
    members: Vec<Member>,
    options: FleetOptions,
    connection_of: impl Fn(DeviceId) -> F + Send + Sync + 'static,
    tell: impl Fn(usize, DeviceEvent) + Send + Sync + 'static,
    stop: &CancellationToken,
) where
    F: Future<Output = Result<DeviceConnection, String>> + Send + 'static,
{
    let mut random = fastrand::Rng::with_seed(options.seed);
    let turns = Turns::new(options.rate);
    let common = Arc::new(Common { options, turns, connection_of, tell, stop: stop.clone() });
    let mut devices = JoinSet::new();
    for (index, member) in members.into_iter().enumerate() {
        let random = random.fork();
        devices.spawn(Box::pin(live(Arc::clone(&common), index, member, random)));
    }
    while let Some(ended) = devices.join_next().await {
        if let Err(error) = ended {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// What all devices of a fleet share.
struct Common<C, T> {
    options: FleetOptions,
    turns: Turns,
    connection_of: C,
    tell: T,
    stop: CancellationToken,
}

/// The life of one device.
async fn live<C, F, T>(common: Arc<Common<C, T>>, index: usize, member: Member, mut random: fastrand::Rng)
where
    C: Fn(DeviceId) -> F,
    F: Future<Output = Result<DeviceConnection, String>>,
    T: Fn(usize, DeviceEvent),
{
    let options = &common.options;
    let position = u32::try_from(index).unwrap_or(u32::MAX);
    let mut wait = Duration::from_secs(1) / options.rate * position;
    let seed = random.u64(..);
    let mut pauses = Pauses::new(random);
    loop {
        if common.stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
        let reason = match common.stop.run_until_cancelled((common.connection_of)(member.id.clone())).await {
            None => return,
            Some(Err(reason)) => reason,
            Some(Ok(connection)) => {
                let device = DeviceOptions {
                    connection,
                    address: options.address,
                    connector: options.connector.clone(),
                    turns: Some(common.turns.clone()),
                    report: member.report.clone(),
                    report_after: Duration::ZERO,
                    refusal_ends: true,
                    now: options.now,
                    seed,
                };
                let mut was_connected = false;
                let heard = |event| {
                    was_connected |= event == DeviceEvent::Connected;
                    (common.tell)(index, event);
                };
                let ended = run_device(&device, heard, &common.stop).await;
                if was_connected {
                    pauses.begin_anew();
                }
                match ended {
                    Ok(()) => return,
                    // Without its name, so that many which fail alike are one line.
                    Err(DeviceError::NotAdmitted(_)) => NOT_ADMITTED.to_owned(),
                    Err(error @ DeviceError::Server) => error.to_string(),
                }
            }
        };
        wait = pauses.next();
        (common.tell)(index, DeviceEvent::Disconnected { reason, again_in: wait });
    }
}

const NOT_ADMITTED: &str = "the hub does not admit the device: wrong key or disabled device";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_has_its_number_in_id_and_report() {
        let fleet = members(2, "pump-{n}", Some(r#"{"connectivity":"cellular","serial":"S{n}","n":{n}}"#)).unwrap();
        let shown = |member: &Member| format!("{} {}", member.id, Value::Object(member.report.clone().unwrap()));
        assert_eq!(
            fleet.iter().map(shown).collect::<Vec<_>>(),
            [
                r#"pump-0 {"connectivity":"cellular","n":0,"serial":"S0"}"#,
                r#"pump-1 {"connectivity":"cellular","n":1,"serial":"S1"}"#,
            ]
        );
        assert_eq!(members(COUNT_MAX.into(), "{n}", None).unwrap().len(), COUNT_MAX as usize);
    }

    #[test]
    fn a_fleet_that_cannot_be_says_why() {
        for (count, id, report, says) in [
            (0, "d{n}", None, "a fleet has 1 to 10000 devices, not 0"),
            (10_001, "d{n}", None, "a fleet has 1 to 10000 devices, not 10001"),
            (u64::MAX, "d{n}", None, "not 18446744073709551615"),
            (1, "device", None, "\"device\" has no place for the device's number; write {n}"),
            (1, "a b{n}", None, "device 0 of the fleet: an id may not hold ' '"),
            (1, "d{n}", Some("[{n}]"), "device 0 of the fleet reports something else than an object"),
            (1, "d{n}", Some("{"), "device 0 of the fleet reports no JSON"),
            // Good for some numbers and not for others.
            (15, "d{n}", Some(r#"{"a":"\ud{n}00"}"#), "device 8 of the fleet reports no JSON"),
        ] {
            let error = members(count, id, report).unwrap_err().to_string();
            assert!(error.contains(says), "{count} {id} {report:?}: {error}");
        }
    }
}
