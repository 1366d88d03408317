//! How a fleet of devices stands, in numbers.
//!
//! Invariant: reasons are counted, not kept a device: how many texts there are has a bound.

use std::collections::BTreeMap;

use super::run::DeviceEvent;

/// The most different texts that are counted apart.
const TEXTS_MAX: usize = 16;
/// What the rest is counted as.
const OTHERS: &str = "other reasons";
/// The longest text, in characters.
const TEXT_CHARS_MAX: usize = 160;

/// How a fleet stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    devices: Vec<Standing>,
    totals: Totals,
    refusals: BTreeMap<String, u64>,
}

/// Sums since the start, but for `connected`, which is of now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Devices that are connected.
    pub connected: usize,
    /// Reports that the hub kept.
    pub reports: u64,
    /// Desired patches that arrived.
    pub patches: u64,
    /// Direct methods that were answered.
    pub methods: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// Its turn has not come yet.
    Waiting,
    Connected,
    Away(String),
}

impl Tally {
    /// Of `count` devices that wait for their turn.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let devices = vec![Standing::Waiting; count];
        Self { devices, totals: Totals::default(), refusals: BTreeMap::new() }
    }

    /// Counts what happened to the device at `index`.
    pub fn hear(&mut self, index: usize, event: &DeviceEvent) {
        match event {
            DeviceEvent::Connected => self.stand(index, Standing::Connected),
            DeviceEvent::Disconnected { reason, .. } => self.stand(index, Standing::Away(shortened(reason))),
            DeviceEvent::Twin { .. } => {}
            DeviceEvent::Desired(_) => self.totals.patches += 1,
            DeviceEvent::Reported => self.totals.reports += 1,
            DeviceEvent::Refused(status, words) => {
                count_in(&mut self.refusals, shortened(&format!("{status}: {words}")));
            }
            DeviceEvent::Method { .. } => self.totals.methods += 1,
        }
    }

    fn stand(&mut self, index: usize, standing: Standing) {
        let Some(device) = self.devices.get_mut(index) else { return };
        let before = usize::from(*device == Standing::Connected);
        self.totals.connected = self.totals.connected + usize::from(standing == Standing::Connected) - before;
        *device = standing;
    }

    /// The numbers.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// How many devices there are.
    #[must_use]
    pub fn devices(&self) -> usize {
        self.devices.len()
    }

    /// Why devices are not connected: `3: connection refused; 1: ...`, the most frequent first. `None` when none is.
    #[must_use]
    pub fn away(&self) -> Option<String> {
        let mut reasons = BTreeMap::new();
        for device in &self.devices {
            if let Standing::Away(reason) = device {
                count_in(&mut reasons, reason.clone());
            }
        }
        listed(&reasons)
    }

    /// What the hub refused, in the same form.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        listed(&self.refusals)
    }
}

fn count_in(texts: &mut BTreeMap<String, u64>, text: String) {
    let text = if texts.len() < TEXTS_MAX || texts.contains_key(&text) { text } else { OTHERS.to_owned() };
    *texts.entry(text).or_default() += 1;
}

fn shortened(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

fn listed(texts: &BTreeMap<String, u64>) -> Option<String> {
    let mut counted: Vec<(&String, &u64)> = texts.iter().collect();
    counted.sort_by(|(_, a), (_, b)| b.cmp(a));
    let lines: Vec<String> = counted.into_iter().map(|(text, count)| format!("{count}: {text}")).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::twin::Object;

    fn away(reason: &str) -> DeviceEvent {
        DeviceEvent::Disconnected { reason: reason.to_owned(), again_in: Duration::ZERO }
    }

    #[test]
    fn a_fleet_is_counted_and_reasons_are_counted_by_their_text() {
        let mut tally = Tally::new(4);
        assert_eq!((tally.totals(), tally.away()), (Totals::default(), None), "who waits for a turn has no reason");
        for (index, event) in [
            (0, DeviceEvent::Connected),
            (1, DeviceEvent::Connected),
            (0, DeviceEvent::Reported),
            (0, DeviceEvent::Desired(Object::new())),
            (1, DeviceEvent::Method { name: "m".to_owned(), payload: String::new() }),
            (1, DeviceEvent::Refused(400, "no".to_owned())),
            (1, away("closed")),
            (2, away("unknown")),
            (3, away("closed")),
            (9, DeviceEvent::Connected),
        ] {
            tally.hear(index, &event);
        }
        assert_eq!(tally.totals(), Totals { connected: 1, reports: 1, patches: 1, methods: 1 });
        assert_eq!(tally.away().as_deref(), Some("2: closed; 1: unknown"));
        assert_eq!(tally.refused().as_deref(), Some("1: 400: no"));
        tally.hear(1, &DeviceEvent::Connected);
        assert_eq!((tally.totals().connected, tally.away().as_deref()), (2, Some("1: closed; 1: unknown")));
    }

    #[test]
    fn however_many_texts_there_are_few_are_kept() {
        let mut tally = Tally::new(100);
        for index in 0..100 {
            tally.hear(index, &away(&format!("reason {index} {}", "x".repeat(1000))));
            tally.hear(index, &DeviceEvent::Refused(400, index.to_string()));
        }
        let (away, refused) = (tally.away().unwrap(), tally.refused().unwrap());
        assert!(
            away.starts_with("84: other reasons; 1: reason 0") && refused.starts_with("84: other reasons"),
            "{away}"
        );
        assert!(away.len() < 17 * (TEXT_CHARS_MAX + 10), "{}", away.len());
    }
}
