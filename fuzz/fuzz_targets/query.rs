//! Any text as a query and as a condition: parsing never panics, what parses prints to what parses to the same, and
//! evaluating it ends.

#![no_main]

use geminid::query::{Dialect, ParseError, eval, parse, parse_as, parse_condition};
use geminid::twin::Value;
use libfuzzer_sys::fuzz_target;

const ROW: &str = r#"{"deviceId":"d","version":3,"tags":{"a":1,"b":"x","c":{"d":[1,"y"],"e":null},"f":2.5,"g":true}}"#;

fn check(text: &str, error: &ParseError) {
    let span = error.span;
    assert!(span.start <= span.end && text.is_char_boundary(span.start) && text.is_char_boundary(span.end));
    assert!(!error.to_string().contains('\n') && error.position(text).0 > 0);
}

fuzz_target!(|text: &str| {
    let row = Value::parse_json(ROW).expect("the row is JSON");
    for dialect in [Dialect::Hub, Dialect::Permissive] {
        match parse_as(text, dialect) {
            Err(error) => check(text, &error),
            Ok(query) => {
                let printed = query.to_string();
                // Printing may write a text longer than a query may be: `<>` becomes `!=`, but `a.b` stays.
                match parse_as(&printed, dialect) {
                    Ok(again) => assert_eq!(again, query, "{printed}"),
                    Err(_) => assert!(printed.chars().count() > geminid::query::LENGTH_MAX, "{printed}"),
                }
                if let Some(filter) = &query.filter {
                    let _truth = eval(filter, &row);
                }
            }
        }
    }
    if parse(text).is_ok() {
        assert!(parse_as(text, Dialect::Permissive).is_ok());
    }
    match parse_condition(text) {
        Err(error) => check(text, &error),
        Ok(condition) => {
            let _truth = eval(&condition, &row);
            assert!(condition.attributes().len() <= text.len());
        }
    }
});
