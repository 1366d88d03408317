//! The flags of the embedded hub for trials: filling it, throttles, lag, faults, configurations, bearer tokens.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::emulator::ServiceOptions;
use crate::emulator::faults::FaultPlan;
use crate::emulator::fill::FillOptions;
use crate::emulator::identity::SharedKey;
use crate::emulator::throttle::Tier;
use crate::emulator::trial::TrialOptions;
use crate::settings;

/// What to try the embedded hub with.
#[derive(Debug, Clone, Args)]
pub(super) struct TrialArgs {
    /// Keep the throttles and the daily quota of this tier: F1, S1, S2 or S3 [default: none]
    #[arg(long, value_name = "TIER")]
    tier: Option<String>,
    /// How many units the hub has [default: 1]
    #[arg(long, value_name = "COUNT")]
    units: Option<u32>,
    /// How far queries lag behind writes, such as 5s; deleted devices stay ten times longer [default: 0s]
    #[arg(long, value_name = "DURATION")]
    query_lag: Option<String>,
    /// Let faults be set, at /_geminid/faults with the owner's policy
    #[arg(long)]
    hub_faults: bool,
    /// What faults are drawn from [default: 0]
    #[arg(long, value_name = "NUMBER")]
    fault_seed: Option<u64>,
    /// Faults to begin with: a JSON file, in the form that /_geminid/faults takes
    #[arg(long, value_name = "FILE")]
    fault_plan: Option<PathBuf>,
    /// How often configurations are evaluated, beside once after each change of one [default: 5m]
    #[arg(long, value_name = "DURATION")]
    configuration_period: Option<String>,
    /// Take bearer tokens signed (HS256) with the key in this file, base64, in the place of Entra ID's [default: none]
    #[arg(long, value_name = "FILE")]
    bearer_key_file: Option<PathBuf>,
    /// Register this many devices before serving, unless they are there
    #[arg(long, value_name = "COUNT")]
    fill_devices: Option<u64>,
    /// The twin of each of them: a JSON file in which {n} is the device's number
    #[arg(long, value_name = "FILE")]
    fill_template: Option<PathBuf>,
}

impl TrialArgs {
    pub(super) fn service(&self) -> anyhow::Result<ServiceOptions> {
        let mut service = ServiceOptions { trials: self.options()?, ..ServiceOptions::default() };
        if let Some(text) = &self.configuration_period {
            service.configuration_period = settings::parse_duration("--configuration-period", text)?;
            if service.configuration_period.is_zero() {
                bail!("--configuration-period is longer than nothing; write 1s or more");
            }
        }
        if let Some(file) = &self.bearer_key_file {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            let key = SharedKey::new(text.trim()).with_context(|| format!("--bearer-key-file {}", file.display()))?;
            service.bearer_issuer = Some(key);
        }
        Ok(service)
    }

    fn options(&self) -> anyhow::Result<TrialOptions> {
        let query_lag = self.query_lag.as_deref().map(|text| settings::parse_duration("--query-lag", text));
        Ok(TrialOptions {
            fill: self.fill()?,
            tier: self.tier()?,
            query_lag: query_lag.transpose()?.unwrap_or(Duration::ZERO),
            faults: self.faults()?,
        })
    }

    fn tier(&self) -> anyhow::Result<Option<(Tier, u32)>> {
        let Some(name) = &self.tier else {
            if self.units.is_some() {
                bail!("--units needs --tier");
            }
            return Ok(None);
        };
        let tier = Tier::named(name).with_context(|| format!("--tier {name:?} is none of F1, S1, S2 and S3"))?;
        let units = self.units.unwrap_or(1);
        if !(1..=tier.units_max()).contains(&units) {
            bail!("--units {units}: a hub of tier {name} has 1 to {} units", tier.units_max());
        }
        Ok(Some((tier, units)))
    }

    fn faults(&self) -> anyhow::Result<Option<FaultPlan>> {
        if !self.hub_faults {
            if self.fault_seed.is_some() || self.fault_plan.is_some() {
                bail!("--fault-seed and --fault-plan need --hub-faults");
            }
            return Ok(None);
        }
        let quiet = FaultPlan::quiet(self.fault_seed.unwrap_or_default());
        let Some(file) = &self.fault_plan else { return Ok(Some(quiet)) };
        let json = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        quiet.replaced(&json).with_context(|| format!("{} is no fault plan", file.display())).map(Some)
    }

    fn fill(&self) -> anyhow::Result<Option<FillOptions>> {
        let (devices, file) = match (self.fill_devices, &self.fill_template) {
            (None, None) => return Ok(None),
            (Some(devices), Some(file)) => (devices, file),
            (Some(_), None) => bail!("--fill-devices needs --fill-template FILE"),
            (None, Some(_)) => bail!("--fill-template needs --fill-devices COUNT"),
        };
        let template = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Some(FillOptions { devices, template }))
    }

    /// The first of these flags that was given.
    pub(super) fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("--tier", self.tier.is_some()),
            ("--units", self.units.is_some()),
            ("--query-lag", self.query_lag.is_some()),
            ("--hub-faults", self.hub_faults),
            ("--fault-seed", self.fault_seed.is_some()),
            ("--fault-plan", self.fault_plan.is_some()),
            ("--configuration-period", self.configuration_period.is_some()),
            ("--bearer-key-file", self.bearer_key_file.is_some()),
            ("--fill-devices", self.fill_devices.is_some()),
            ("--fill-template", self.fill_template.is_some()),
        ];
        given.into_iter().find_map(|(flag, given)| given.then_some(flag))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        trials: TrialArgs,
    }

    fn options(flags: &str) -> anyhow::Result<TrialOptions> {
        Ok(service(flags)?.trials)
    }

    fn service(flags: &str) -> anyhow::Result<ServiceOptions> {
        Command::try_parse_from(format!("x {flags}").split_whitespace())?.trials.service()
    }

    #[test]
    fn the_period_of_configurations_and_the_key_of_bearer_tokens_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        fs::write(&file, "MDEyMzQ1Njc4OWFiY2RlZg==\n").unwrap();
        let set = service(&format!("--configuration-period 2s --bearer-key-file {}", file.display())).unwrap();
        assert_eq!(set.configuration_period, Duration::from_secs(2));
        assert_eq!(set.bearer_issuer.unwrap().expose(), "MDEyMzQ1Njc4OWFiY2RlZg==");
        let nothing = service("").unwrap();
        assert_eq!((nothing.configuration_period, nothing.bearer_issuer.is_none()), (Duration::from_secs(300), true));
    }

    #[test]
    fn flags_that_belong_together_are_asked_for_together() {
        for (flags, message) in [
            ("--units 2", "--units needs --tier"),
            ("--tier B1", "--tier \"B1\" is none of"),
            ("--tier F1 --units 2", "--units 2: a hub of tier F1 has 1 to 1 units"),
            ("--tier S3 --units 0", "has 1 to 10 units"),
            ("--query-lag soon", "--query-lag"),
            ("--fault-seed 3", "need --hub-faults"),
            ("--hub-faults --fault-plan /nowhere/x.json", "cannot read /nowhere/x.json"),
            ("--configuration-period soon", "--configuration-period"),
            ("--configuration-period 0s", "longer than nothing"),
            ("--bearer-key-file /nowhere/key", "cannot read /nowhere/key"),
            ("--bearer-key-file Cargo.toml", "a symmetric key is the base64 of"),
            ("--fill-devices 3", "--fill-devices needs --fill-template"),
            ("--fill-template x", "--fill-template needs --fill-devices"),
        ] {
            let error = format!("{:#}", options(flags).unwrap_err());
            assert!(error.contains(message), "{flags}: {error}");
        }
        let set = options("--tier s2 --units 200 --query-lag 5s --hub-faults --fault-seed 3").unwrap();
        assert_eq!((set.tier, set.query_lag), (Some((Tier::S2, 200)), Duration::from_secs(5)));
        assert_eq!(set.faults.unwrap().to_json(), br#"{"seed":3,"rules":[]}"#);
        let nothing = options("").unwrap();
        assert!(nothing.fill.is_none() && nothing.tier.is_none() && nothing.faults.is_none());
    }
}
