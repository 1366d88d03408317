//! What the run was, in figures: printed, and kept as a page of the documentation.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::Wish;
use crate::record::{Latency, Record, percentile};
use crate::verdict::Verdict;

/// The figures as Markdown tables.
pub(crate) fn figures(wish: &Wish, machine: &str, record: &Record, verdict: &Verdict) -> String {
    let mut text = String::new();
    let minutes = wish.time.as_secs() / 60;
    writeln!(text, "{minutes} minutes, {} declared twins, seed {}, {machine}.\n", wish.twins, wish.seed).unwrap();
    writeln!(text, "| what | |\n|---|---|").unwrap();
    let mut row = |what: &str, value: String| writeln!(text, "| {what} | {value} |").unwrap();
    row("load average of the machine while it ran", machine_load(record));
    row("edits saved", record.edits.to_string());
    row("writes of others, acknowledged", record.foreign.to_string());
    let [connected, heard] = record.devices;
    row(
        "devices over MQTT",
        format!("{}, {connected} connections, {heard} changes of desired heard", record.device_count),
    );
    row("troubles", format!("{}, of which {}", record.troubles.len(), deaths(record)));
    row("service writes of all twins, by their etags", verdict.writes.to_string());
    row("writes that no line of the audit log accounts for", verdict.unaccounted.to_string());
    row("requests of the daemon", requests(record));
    for (name, troubled) in [("saved in calm to patched", Some(false)), ("saved in trouble, or just after", Some(true))]
    {
        row(name, latency(&record.latencies, troubled));
    }
    row("overtaken by the next save, or told by no line", record.untold.to_string());
    row("until all was seen in sync after the last edit", format!("{:.1} s", record.settled_s));
    for (which, name) in ["daemon", "hub"].into_iter().enumerate() {
        let [before, after] = verdict.resident_mb[which];
        let peak = record.samples.iter().filter_map(|sample| sample.resident_mb[which]).fold(0.0, f64::max);
        row(
            &format!("resident memory of the {name}"),
            format!("{before:.1} MB after the warm-up, {after:.1} MB in the end, {peak:.1} MB at the peak"),
        );
        let [before, after] = verdict.descriptors[which];
        row(&format!("descriptors of the {name}"), format!("{before:.0} after the warm-up, {after:.0} in the end"));
        let said = record.said[which];
        row(&format!("lines of the {name}"), format!("{}, {} of them warnings or errors", said.lines, said.complaints));
    }
    row("verdict", if verdict.wrong.is_empty() { "all is as declared".to_owned() } else { verdict.wrong.join("; ") });
    text
}

/// The page of the documentation.
pub(crate) fn page(wish: &Wish, figures: &str) -> String {
    let minutes = wish.time.as_secs() / 60;
    format!(
        "# Soak: ordinary life and trouble\n\n\
         Written by `just soak {minutes} --write` (`benches/soak`). The real daemon and the real hub, each a process of its\n\
         own on one machine; devices that come, report and go over MQTT; somebody who edits manifests about once a second;\n\
         somebody who writes twins behind the daemon's back, each write guarded by its etag, often into the very twin that\n\
         was just edited; and troubles one after the other: 429, 500 and 503, late answers, answers lost or cut after the\n\
         work was done, devices refused, a hub that hangs (SIGSTOP), both processes killed (SIGKILL) and restarted, broken\n\
         manifests.\n\n\
         ![Memory, descriptors, queue and latency over {minutes} minutes of soak](soak.svg)\n\n\
         Grey bands are troubles. A gap in a line is a process that was not there to be asked. The queue has a peak\n\
         wherever a profile was edited, which concerns a third of the fleet at once. The commit is the one that was built\n\
         and run; this page was committed after it.\n\n\
         {figures}\n\
         The run fails, and ends with 1, unless in the end\n\n\
         - every twin holds exactly what is declared, what others wrote into it, and nothing else; a withdrawn one what\n  \
           others wrote alone, and no seal;\n\
         - `geminid plan` finds nothing to do, all twins are `in_sync` by the daemon's metrics, and the twin query counts\n  \
           them right;\n\
         - no line of the audit log tells of a leaf that no manifest declares, and the etags, which count every write of a\n  \
           twin, fit the lines and the writes of others: none was lost, and none happened that nobody tells of, up to the\n  \
           lines that died with a killed process;\n\
         - memory (1.5 times and 48 MB) and descriptors (24) are near where they were after the warm-up;\n\
         - neither process wrote more lines than a bound by edits and troubles, and each ended with 0 when told to.\n\n\
         <!-- not run: it takes as long as it says -->\n\
         ```sh\n\
         just soak 30            # minutes; the picture goes to target/soak/soak.svg\n\
         just soak 30 --write    # keeps this page and its picture\n\
         ```\n"
    )
}

/// What else the machine had to do: times taken on a busy one are no benchmark.
fn machine_load(record: &Record) -> String {
    let loads = || record.samples.iter().filter_map(|sample| sample.machine_load);
    let (least, most) = (loads().fold(f64::INFINITY, f64::min), loads().fold(0.0, f64::max));
    format!("{least:.0} to {most:.0}; above the number of processors the times below are no benchmark")
}

fn deaths(record: &Record) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, _, trouble) in record.troubles.iter().filter(|(_, _, trouble)| trouble.is_death()) {
        *counts.entry(trouble.words()).or_default() += 1;
    }
    let texts: Vec<String> = counts.iter().map(|(words, count)| format!("{count} x {words}")).collect();
    if texts.is_empty() { "none is a death".to_owned() } else { texts.join(", ") }
}

fn requests(record: &Record) -> String {
    let total: f64 = record.requests.values().sum();
    let mut by_code: BTreeMap<&str, f64> = BTreeMap::new();
    for (key, count) in &record.requests {
        *by_code.entry(key.split_once(' ').unwrap().1).or_default() += count;
    }
    let texts: Vec<String> =
        by_code.iter().filter(|(_, n)| **n > 0.0).map(|(code, n)| format!("{code}: {n}")).collect();
    format!("{total} ({})", texts.join(", "))
}

fn latency(all: &[Latency], troubled: Option<bool>) -> String {
    let of = all.iter().filter(|latency| troubled.is_none_or(|troubled| latency.troubled == troubled));
    let mut seconds: Vec<f64> = of.map(|latency| latency.seconds).collect();
    let count = seconds.len();
    let at = |seconds: &mut Vec<f64>, percent| percentile(seconds, percent).unwrap_or_default();
    let [half, most, worst] = [50, 99, 100].map(|percent| at(&mut seconds, percent));
    format!("{count} saves: p50 {half:.2} s, p99 {most:.2} s, worst {worst:.2} s (200 ms of it are the debounce)")
}
