//! Any text as a manifest: loading never panics, gives the same twice, and names places that exist.
//!
//! The first byte cuts the rest into up to three files, so that rules across files are met too.

#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use geminid::manifest::{LastGood, ParsedFile, amend, lower, parse_file};
use libfuzzer_sys::fuzz_target;

/// Parses `text`, and checks that each problem lies in it.
fn parse(name: &str, text: &str) -> ParsedFile {
    let file = parse_file(name, text);
    assert_eq!(file, parse_file(name, text), "parsing twice gives the same");
    let lines: Vec<&str> = text.strip_prefix('\u{FEFF}').unwrap_or(text).split('\n').collect();
    for diagnostic in file.diagnostics() {
        assert_eq!(&*diagnostic.file, name);
        assert!((1..=lines.len()).contains(&diagnostic.line), "{diagnostic}");
        let width = lines[diagnostic.line - 1].chars().count();
        assert!((1..=width + 1).contains(&diagnostic.column), "{diagnostic}");
        assert!(!diagnostic.message.is_empty() && !diagnostic.rule.is_empty());
    }
    file
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let texts: Vec<&str> = match cut {
        0..128 => vec![text],
        128.. => text.splitn(3, '\u{1}').collect(),
    };
    let mut files = BTreeMap::new();
    let mut last_good = LastGood::default();
    let mut last = None;
    for (index, text) in texts.iter().enumerate() {
        let name: Arc<str> = format!("{index}.yaml").into();
        files.insert(Arc::clone(&name), Arc::new(parse(&name, text)));
        let lowered = lower(&files, &last_good);
        assert_eq!(lowered, lower(&files, &last_good), "lowering twice gives the same");
        last_good = lowered.last_good.clone();
        last = Some(lowered);
    }
    // The last text in the first one's place: the short way and the long one agree.
    if let (Some(lowered), [_, .., text]) = (last, &texts[..]) {
        let name: Arc<str> = "0.yaml".into();
        let after = Arc::new(parse(&name, text));
        let before = files.insert(name, Arc::clone(&after)).expect("it was lowered");
        let mut amended_good = last_good.clone();
        if let Some(state) = amend(&[(&before, &after)], &lowered.state, &mut amended_good) {
            let expected = lower(&files, &last_good);
            assert_eq!((state, amended_good), (expected.state, expected.last_good));
        }
    }
});
