//! Any condition or query over any row, the two divided by a zero byte: evaluating ends, says the same of the printed
//! text, and keeps to the three-valued logic; groups and projections never panic.

#![no_main]

use geminid::query::{Dialect, Expr, Groups, Select, Tri, eval, parse_as, project};
use geminid::twin::Value;
use libfuzzer_sys::fuzz_target;

/// The groups that one run may make.
const GROUPED_TIMES: usize = 3;

fn not(truth: Tri) -> Tri {
    match truth {
        Tri::True => Tri::False,
        Tri::False => Tri::True,
        Tri::Undefined => Tri::Undefined,
    }
}

fn check_logic(condition: &Expr, row: &Value) {
    let truth = eval(condition, row);
    assert_eq!(eval(&Expr::Not(Box::new(condition.clone())), row), not(truth));
    let twice = vec![condition.clone(), condition.clone()];
    assert_eq!(eval(&Expr::And(twice.clone()), row), truth);
    assert_eq!(eval(&Expr::Or(twice), row), truth);
    if let Expr::And(parts) | Expr::Or(parts) = condition {
        parts.iter().for_each(|part| check_logic(part, row));
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(data) = std::str::from_utf8(data) else { return };
    let Some((text, row)) = data.split_once('\0') else { return };
    let Ok(row) = Value::parse_json(row) else { return };
    let Ok(query) = parse_as(text, Dialect::Permissive) else { return };
    if let Some(condition) = &query.filter {
        check_logic(condition, &row);
        if let Ok(again) = parse_as(&query.to_string(), Dialect::Permissive) {
            assert_eq!(again.filter.map(|again| eval(&again, &row)), Some(eval(condition, &row)));
        }
    }
    match &query.select {
        Select::All => {}
        Select::Items(items) => assert!(project(items, &row).len() <= items.len()),
        Select::Groups(_) => {
            let mut groups = Groups::of(&query).expect("the query has groups");
            for _ in 0..GROUPED_TIMES {
                groups.add(&row).expect("one row makes one group");
            }
            assert_eq!(groups.rows().len(), 1);
        }
    }
});
