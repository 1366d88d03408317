//! Faults on purpose: what goes wrong with which requests, how often (`/_geminid/faults`, `--fault-seed`).
//!
//! ```text
//! {"seed": 7, "rules": [
//!   {"operations": ["twinWrite"], "rate": 0.1, "status": 503, "code": "ServiceUnavailable"},
//!   {"operations": ["query"], "rate": 0.5, "latencyMs": 250},
//!   {"operations": ["twinWrite"], "rate": 0.01, "times": 3, "dropAnswer": true},
//!   {"rate": 0.01, "truncateBody": true},
//!   {"operations": ["twinWrite"], "rate": 0.2, "concurrentWrite": {"tags": {"rival": 1}}}]}
//! ```
//!
//! Invariant: pure: one plan and one order of requests give one order of faults. A rule has one effect; of one
//! request each effect is met at most once.

use serde::{Deserialize, Serialize};

use super::error::Refusal;
use super::traffic::Traffic;
use super::wire;
use crate::twin::MergePatch;

/// The most rules of a plan.
const RULES_MAX: usize = 64;
/// The longest delay.
const LATENCY_MS_MAX: u64 = 600_000;
/// The code of an answer that a rule gives without one.
const CODE: &str = "ServerError";

/// A plan as it is written.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PlanText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(default)]
    rules: Vec<RuleText>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleText {
    /// Empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    operations: Vec<String>,
    /// From 0 to 1.
    rate: f64,
    /// How often at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    times: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    latency_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    drop_answer: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    truncate_body: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    concurrent_write: Option<serde_json::Value>,
}

/// What goes wrong with one request, in the order in which it does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults {
    /// It begins so much later, in milliseconds.
    pub latency_ms: u64,
    /// It is answered so and not carried out.
    pub status: Option<(u16, String)>,
    /// Somebody else writes this into its twin just before.
    pub concurrent_write: Option<MergePatch>,
    /// It is carried out, and the connection ends without an answer.
    pub drop_answer: bool,
    /// It is carried out, and the connection ends within the answer.
    pub truncate_body: bool,
}

/// The faults of a hub.
#[derive(Debug)]
pub struct FaultPlan {
    text: PlanText,
    rules: Vec<Rule>,
    rng: fastrand::Rng,
}

#[derive(Debug)]
struct Rule {
    kinds: Vec<Traffic>,
    rate: f64,
    left: u64,
    effect: Effect,
}

#[derive(Debug)]
enum Effect {
    Status(u16, String),
    Latency(u64),
    DropAnswer,
    TruncateBody,
    ConcurrentWrite(MergePatch),
}

impl FaultPlan {
    /// A plan in which nothing goes wrong; what is put later draws from `seed`.
    #[must_use]
    pub fn quiet(seed: u64) -> Self {
        let text = PlanText { seed: Some(seed), rules: Vec::new() };
        Self { text, rules: Vec::new(), rng: fastrand::Rng::with_seed(seed) }
    }

    /// The plan of a JSON text. Without a seed of its own it begins again with the one of the plan before.
    ///
    /// # Errors
    /// [`Refusal::Deserialization`] or [`Refusal::ArgumentInvalid`], which says what is wrong with which rule.
    pub fn replaced(&self, json: &[u8]) -> Result<Self, Refusal> {
        let mut text: PlanText = serde_json::from_slice(json)
            .map_err(|error| Refusal::Deserialization(format!("the faults are not the expected JSON: {error}")))?;
        if text.rules.len() > RULES_MAX {
            return Err(Refusal::ArgumentInvalid(format!("there are at most {RULES_MAX} rules")));
        }
        let seed = *text.seed.get_or_insert(self.text.seed.unwrap_or_default());
        let rule = |(index, rule): (usize, &RuleText)| {
            Rule::of(rule).map_err(|what| Refusal::ArgumentInvalid(format!("rule {}: {what}", index + 1)))
        };
        let rules = text.rules.iter().enumerate().map(rule).collect::<Result<_, _>>()?;
        Ok(Self { text, rules, rng: fastrand::Rng::with_seed(seed) })
    }

    /// The plan as JSON text, as it was put.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        wire::json(&self.text)
    }

    /// What goes wrong with the next request, which is of `kind`.
    pub fn draw(&mut self, kind: Traffic) -> Faults {
        let mut faults = Faults::default();
        for rule in &mut self.rules {
            if rule.left == 0 || !rule.kinds.contains(&kind) || self.rng.f64() >= rule.rate {
                continue;
            }
            rule.left -= 1;
            match &rule.effect {
                Effect::Status(status, code) => faults.status = Some((*status, code.clone())),
                Effect::Latency(milliseconds) => faults.latency_ms = *milliseconds,
                Effect::DropAnswer => faults.drop_answer = true,
                Effect::TruncateBody => faults.truncate_body = true,
                Effect::ConcurrentWrite(patch) => faults.concurrent_write = Some(patch.clone()),
            }
        }
        faults
    }
}

impl Rule {
    fn of(text: &RuleText) -> Result<Self, String> {
        if !(0.0..=1.0).contains(&text.rate) {
            return Err("rate goes from 0 to 1".to_owned());
        }
        let kind = |name: &String| Traffic::named(name).ok_or_else(|| unknown_operation(name));
        let mut kinds: Vec<Traffic> = text.operations.iter().map(kind).collect::<Result<_, _>>()?;
        if kinds.is_empty() {
            kinds = Traffic::ALL.to_vec();
        }
        let effect = effect(text)?;
        if matches!(effect, Effect::ConcurrentWrite(_)) && kinds != [Traffic::TwinWrite] {
            return Err("concurrentWrite goes with the operation twinWrite alone".to_owned());
        }
        Ok(Self { kinds, rate: text.rate, left: text.times.unwrap_or(u64::MAX), effect })
    }
}

fn unknown_operation(name: &str) -> String {
    let name: String = name.chars().take(40).collect();
    let known: Vec<&str> = Traffic::ALL.iter().map(|kind| kind.as_str()).collect();
    format!("{name:?} is no operation; there are {}", known.join(", "))
}

fn effect(text: &RuleText) -> Result<Effect, String> {
    let mut effects = Vec::new();
    if let Some(status) = text.status {
        if !(400..=599).contains(&status) {
            return Err("status goes from 400 to 599".to_owned());
        }
        let code = text.code.clone().unwrap_or_else(|| CODE.to_owned());
        if code.is_empty() || code.len() > 64 || !code.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err("code has 1 to 64 letters and digits".to_owned());
        }
        effects.push(Effect::Status(status, code));
    } else if text.code.is_some() {
        return Err("code goes with status".to_owned());
    }
    if let Some(milliseconds) = text.latency_ms {
        if milliseconds > LATENCY_MS_MAX {
            return Err(format!("latencyMs goes to {LATENCY_MS_MAX}"));
        }
        effects.push(Effect::Latency(milliseconds));
    }
    if text.drop_answer {
        effects.push(Effect::DropAnswer);
    }
    if text.truncate_body {
        effects.push(Effect::TruncateBody);
    }
    if let Some(write) = &text.concurrent_write {
        let patch = wire::twin_write(&wire::json(write)).map_err(|refusal| format!("concurrentWrite: {refusal}"))?;
        effects.push(Effect::ConcurrentWrite(patch));
    }
    match (effects.pop(), effects.is_empty()) {
        (Some(effect), true) => Ok(effect),
        (Some(_), false) => Err("a rule has one effect; write a second rule".to_owned()),
        (None, _) => Err("a rule needs status, latencyMs, dropAnswer, truncateBody or concurrentWrite".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<FaultPlan, Refusal> {
        FaultPlan::quiet(7).replaced(json.as_bytes())
    }

    #[test]
    fn one_seed_gives_one_order_of_faults_near_the_rate() {
        let json = r#"{"rules":[{"operations":["twinRead"],"rate":0.25,"status":503},{"rate":0.5,"latencyMs":9}]}"#;
        let drawn = |plan: &mut FaultPlan| (0..400).map(|_| plan.draw(Traffic::TwinRead)).collect::<Vec<_>>();
        let first = drawn(&mut plan(json).unwrap());
        assert_eq!(drawn(&mut plan(json).unwrap()), first);
        let other_seed = json.replacen('{', r#"{"seed":8,"#, 1);
        assert_ne!(drawn(&mut plan(&other_seed).unwrap()), first);
        let refused = first.iter().filter(|faults| faults.status == Some((503, CODE.to_owned()))).count();
        let late = first.iter().filter(|faults| faults.latency_ms == 9).count();
        assert!((70..130).contains(&refused) && (160..240).contains(&late), "{refused} {late}");
        let mut plan = plan(json).unwrap();
        assert!((0..100).all(|_| plan.draw(Traffic::TwinWrite).status.is_none()), "other operations meet none");
    }

    #[test]
    fn a_rule_ends_after_its_times_and_every_effect_is_drawn() {
        let mut plan = plan(
            r#"{"rules":[{"rate":1,"times":2,"dropAnswer":true},{"rate":1,"truncateBody":true},
            {"operations":["twinWrite"],"rate":1,"concurrentWrite":{"tags":{"a":1}}},
            {"rate":0,"status":500},{"rate":1,"times":1,"status":429,"code":"ThrottlingException"}]}"#,
        )
        .unwrap();
        let faults = plan.draw(Traffic::TwinWrite);
        assert!(faults.drop_answer && faults.truncate_body && faults.concurrent_write.is_some());
        assert_eq!(faults.status, Some((429, "ThrottlingException".to_owned())));
        assert!(plan.draw(Traffic::Query).drop_answer);
        let last = plan.draw(Traffic::Query);
        assert_eq!(last, Faults { truncate_body: true, ..Faults::default() });
        let put = String::from_utf8(plan.to_json()).unwrap();
        assert!(put.starts_with(r#"{"seed":7,"rules":[{"rate":1.0,"times":2,"dropAnswer":true}"#), "{put}");
        assert_eq!(FaultPlan::quiet(0).replaced(put.as_bytes()).unwrap().to_json(), put.into_bytes());
    }

    #[test]
    fn a_rule_that_makes_no_sense_is_named() {
        for (rule, what) in [
            (r#"{"rate":2,"status":500}"#, "rule 1: rate goes from 0 to 1"),
            (r#"{"rate":1}"#, "rule 1: a rule needs"),
            (r#"{"rate":1,"status":500,"latencyMs":1}"#, "rule 1: a rule has one effect"),
            (r#"{"rate":1,"status":200}"#, "rule 1: status goes from"),
            (r#"{"rate":1,"status":500,"code":"a b"}"#, "rule 1: code has"),
            (r#"{"rate":1,"code":"X","dropAnswer":true}"#, "rule 1: code goes with status"),
            (r#"{"rate":1,"latencyMs":600001}"#, "rule 1: latencyMs goes to"),
            (r#"{"rate":1,"operations":["x"],"status":500}"#, "rule 1: \"x\" is no operation; there are registryRead"),
            (r#"{"rate":1,"concurrentWrite":{}}"#, "rule 1: concurrentWrite goes with"),
            (r#"{"rate":1,"operations":["twinWrite"],"concurrentWrite":[]}"#, "rule 1: concurrentWrite: the body"),
            (r#"{"rate":1,"color":1}"#, "unknown field"),
        ] {
            let refusal = plan(&format!(r#"{{"rules":[{rule}]}}"#)).unwrap_err().to_string();
            assert!(refusal.contains(what), "{rule}: {refusal}");
        }
        let many = vec![r#"{"rate":1,"status":500}"#; RULES_MAX + 1].join(",");
        assert!(plan(&format!(r#"{{"rules":[{many}]}}"#)).is_err());
    }
}
