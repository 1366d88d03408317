use proptest::prelude::*;

use super::*;

/// The tree of `text`, printed with every parenthesis.
fn grouped(expr: &Expr) -> String {
    match expr {
        Expr::Or(parts) => format!("({})", parts.iter().map(grouped).collect::<Vec<_>>().join(" OR ")),
        Expr::And(parts) => format!("({})", parts.iter().map(grouped).collect::<Vec<_>>().join(" AND ")),
        Expr::Not(inner) => format!("NOT({})", grouped(inner)),
        Expr::Compare { .. } | Expr::In { .. } | Expr::IsDefined(_) => expr.to_string(),
    }
}

#[test]
fn operators_bind_in_the_order_of_the_grammar() {
    for (text, tree) in [
        ("a=1 OR b=2 AND c=3", "(a = 1 OR (b = 2 AND c = 3))"),
        ("(a=1 OR b=2) AND c=3", "((a = 1 OR b = 2) AND c = 3)"),
        ("NOT a=1 AND b=2", "(NOT(a = 1) AND b = 2)"),
        ("NOT NOT a=1", "NOT(NOT(a = 1))"),
        ("NOT (a=1 OR b=2)", "NOT((a = 1 OR b = 2))"),
        ("a=1 AND b=2 AND c=3", "(a = 1 AND b = 2 AND c = 3)"),
        ("a=1 AND (b=2 AND c=3)", "(a = 1 AND (b = 2 AND c = 3))"),
    ] {
        let query = parse(&format!("SELECT * FROM devices WHERE {text}")).unwrap();
        assert_eq!(grouped(query.filter.as_ref().unwrap()), tree, "{text}");
    }
}

#[test]
fn queries_print_in_one_form() {
    for (text, printed) in [
        ("select * from DEVICES", "SELECT * FROM devices"),
        (
            "SELECT TOP 5 deviceid , tags.a b,tags.[[group]] FROM devices.modules",
            "SELECT TOP 5 deviceId, tags.a AS b, tags.[[group]] FROM devices.modules",
        ),
        ("SELECT COUNT() n FROM devices", "SELECT COUNT() AS n FROM devices"),
        ("SELECT count() FROM devices", "SELECT COUNT() FROM devices"),
        ("SELECT * FROM devices.jobs WHERE devices.jobs.jobId='x'", "SELECT * FROM devices.jobs WHERE jobId = 'x'"),
        (
            "SELECT * FROM devices WHERE devices.tags.a <> \"it's \\\\ \\u0041\\u000a\"",
            "SELECT * FROM devices WHERE tags.a != 'it\\'s \\\\ A\\u000A'",
        ),
        (
            "SELECT * FROM devices WHERE a IN[1,-2.50,0xFf,TRUE,null,undefined,'\\uD83D\\uDE00',1E3]",
            "SELECT * FROM devices WHERE a IN [1, -2.5, 255, true, null, undefined, '😀', 1000.0]",
        ),
        ("SELECT * FROM devices WHERE a NIN [ [1],[]]", "SELECT * FROM devices WHERE a NIN [ [1], []]"),
        (
            "SELECT tags.[[odd name]], devices, [[devices]].x, count FROM devices",
            "SELECT tags.[[odd name]], devices, [[devices]].x, count FROM devices",
        ),
        (
            "SELECT properties.desired.$version AS $v, [[]] FROM devices",
            "SELECT properties.desired.$version AS $v, [[]] FROM devices",
        ),
        ("SELECT devices.modules FROM devices", "SELECT modules FROM devices"),
    ] {
        let query = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(query.to_string(), printed);
        assert_eq!(parse(printed).as_ref(), Ok(&query));
    }
}

/// The error of `text`: its words and the column where it stands.
fn refusal(text: &str) -> (String, usize) {
    let error = parse(text).expect_err(text);
    let (line, column) = error.position(text);
    assert_eq!(line, 1);
    assert!(error.span.start <= error.span.end && error.span.end <= text.len(), "{text}: {:?}", error.span);
    (error.to_string(), column)
}

#[test]
fn what_is_no_query_is_named_with_its_place() {
    for (text, message, column) in [
        ("", "found the end of the query, expected SELECT", 1),
        ("UPDATE devices", "found `UPDATE`, expected SELECT", 1),
        ("SELECT FROM devices", "found the reserved word FROM, expected a name; as a key it is written [[FROM]]", 8),
        ("SELECT , FROM devices", "found `,`, expected `*`, an attribute or COUNT()", 8),
        ("SELECT *", "found the end of the query, expected `,` or FROM", 9),
        ("SELECT TOP -1 * FROM devices", "found `-`, expected a row count", 12),
        ("SELECT TOP 1.5 * FROM devices", "found `1.5`, expected a row count", 12),
        ("SELECT * FROM twins", "found `twins`, expected devices, devices.modules or devices.jobs", 15),
        ("SELECT * FROM devices.x", "found `x`, expected devices, devices.modules or devices.jobs", 23),
        ("SELECT * FROM devices x", "found `x`, expected WHERE or the end of the query", 23),
        ("SELECT * FROM devices ORDER BY a", "found `ORDER`, expected WHERE or the end of the query", 23),
        ("SELECT * FROM devices WHERE", "found the end of the query, expected a condition", 28),
        (
            "SELECT * FROM devices WHERE a",
            "found the end of the query, expected a comparison (=, !=, <>, <, <=, >, >=, IN or NIN)",
            30,
        ),
        ("SELECT * FROM devices WHERE a = ", "found the end of the query, expected an attribute or a value", 33),
        ("SELECT * FROM devices WHERE a = 1 b", "found `b`, expected AND, OR or the end of the query", 35),
        ("SELECT * FROM devices WHERE (a = 1", "found the end of the query, expected AND, OR or `)`", 35),
        ("SELECT * FROM devices WHERE a = 1)", "found `)`, expected AND, OR or the end of the query", 34),
        ("SELECT * FROM devices WHERE a IN (1)", "found `(`, expected an array in [ ]", 34),
        ("SELECT * FROM devices WHERE a IN [b]", "found `b`, expected a value", 35),
        ("SELECT * FROM devices WHERE a IN [1 2]", "found `2`, expected `,` or `]`", 37),
        ("SELECT * FROM devices WHERE a.b. = 1", "found `=`, expected a name after `.`", 34),
        (
            "SELECT * FROM devices WHERE a.by = 1",
            "found the reserved word by, expected a name; as a key it is written [[by]]",
            31,
        ),
        ("SELECT * FROM devices WHERE a = 'x", "found a string without its end, expected a closing '", 33),
        (
            "SELECT * FROM devices WHERE a = '\\n'",
            "found a backslash that escapes nothing, expected \\', \\\", \\\\ or \\u and four hex digits of a character",
            33,
        ),
        (
            "SELECT * FROM devices WHERE a = '\\uD83D'",
            "found a backslash that escapes nothing, expected \\', \\\", \\\\ or \\u and four hex digits of a character",
            33,
        ),
        ("SELECT * FROM devices WHERE [[a = 1", "found [[ without its end, expected a closing ]]", 29),
        ("SELECT * FROM devices WHERE a = 1x", "found `1x`, expected a number such as 1, -2.5, 1e3 or 0x1F", 33),
        ("SELECT * FROM devices WHERE a = 1e999", "found `1e999`, expected a number such as 1, -2.5, 1e3 or 0x1F", 33),
        ("SELECT * FROM devices WHERE a = 0x", "found `0x`, expected a number such as 1, -2.5, 1e3 or 0x1F", 33),
        (
            "SELECT * FROM devices WHERE ä = 1",
            "found 'ä', expected a name, a number, a string or an operator; a key with odd characters is written [[key]]",
            29,
        ),
        (
            "SELECT * FROM devices WHERE a ! 1",
            "found '!', expected a name, a number, a string or an operator; a key with odd characters is written [[key]]",
            31,
        ),
        ("SELECT COUNT(a) FROM devices", "found `a`, expected `)`: COUNT() takes nothing", 14),
        ("SELECT * FROM devices WHERE IS_DEFINED(1)", "found `1`, expected an attribute", 40),
        ("SELECT deviceId FROM devices.jobs", "found columns, which devices.jobs does not have", 8),
        ("SELECT COUNT() AS n FROM devices.modules", "found COUNT(), which devices.modules does not have", 8),
        ("SELECT TOP 1 * FROM devices.jobs", "found TOP, which devices.jobs does not have", 8),
        (
            "SELECT * FROM devices WHERE devices.jobs.x = 1",
            "found an attribute of another collection, which devices does not have",
            29,
        ),
    ] {
        assert_eq!(refusal(text), (message.to_owned(), column), "{text}");
    }
}

#[test]
fn what_is_not_supported_says_so() {
    for (text, message) in [
        ("SELECT * FROM devices GROUP BY a", "GROUP BY is not supported"),
        ("SELECT * FROM devices WHERE a = 1 GROUP BY a", "GROUP BY is not supported"),
        ("SELECT a, COUNT() AS n FROM devices GROUP BY a", "COUNT() beside other columns is not supported"),
        ("SELECT COUNT() AS n, COUNT() AS m FROM devices", "COUNT() beside other columns is not supported"),
        ("SELECT avg(a) FROM devices", "the aggregate `avg` is not supported, only COUNT() is"),
        ("SELECT f(a) FROM devices", "the function `f` is not supported, only IS_DEFINED is"),
        (
            "SELECT * FROM devices WHERE STARTSWITH(a, 'x')",
            "the function `STARTSWITH` is not supported, only IS_DEFINED is",
        ),
        ("SELECT * FROM devices WHERE a + 1 = 2", "arithmetic (+) is not supported"),
        ("SELECT * FROM devices WHERE 2 = a*2", "arithmetic (*) is not supported"),
        ("SELECT * FROM devices WHERE a = -b", "arithmetic (-) is not supported"),
        ("SELECT * FROM devices WHERE a = 4-1", "arithmetic (-) is not supported"),
    ] {
        assert_eq!(refusal(text).0, message, "{text}");
    }
}

#[test]
fn a_place_is_counted_in_lines_and_characters() {
    let text = "SELECT *\nFROM devices\n  WHERE 'ää' ~ 1";
    let error = parse(text).unwrap_err();
    assert_eq!(error.position(text), (3, 14));
}

#[test]
fn length_and_depth_are_bounded() {
    let condition = |open: &str, close: &str, depth: usize| {
        parse(&format!("SELECT * FROM devices WHERE {}a = 1{}", open.repeat(depth), close.repeat(depth)))
    };
    for (open, close) in [("(", ")"), ("NOT ", ""), ("NOT (", ")")] {
        let each = open.matches('(').count() + open.matches("NOT").count();
        assert!(condition(open, close, DEPTH_MAX / each).is_ok(), "{open}");
        let error = condition(open, close, DEPTH_MAX / each + 1).unwrap_err();
        assert_eq!(error.kind, ParseErrorKind::TooDeep, "{open}");
    }
    let arrays = format!("SELECT * FROM devices WHERE a IN {}1{}", "[ ".repeat(1000), "]".repeat(1000));
    assert_eq!(parse(&arrays).unwrap_err().kind, ParseErrorKind::TooDeep);
    let padded = |length: usize| format!("{: <length$}", "SELECT * FROM devices WHERE a = 'ä'");
    assert!(parse(&padded(LENGTH_MAX)).is_ok());
    assert_eq!(parse(&padded(LENGTH_MAX + 1)).unwrap_err().kind, ParseErrorKind::TooLong(LENGTH_MAX + 1));
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z_$][a-zA-Z0-9_]{0,6}", "select|AS|null|devices|modules|DeviceId|", "[^\\]]{0,6}"]
}

fn attribute() -> impl Strategy<Value = Attribute> {
    prop::collection::vec(name(), 1..4).prop_map(|names| Attribute::new(names).expect("no name holds a bracket"))
}

fn literal() -> impl Strategy<Value = Literal> {
    let leaf = prop_oneof![
        Just(Literal::Undefined),
        Just(Literal::Null),
        any::<bool>().prop_map(Literal::Bool),
        any::<i64>().prop_map(|number| Literal::Number(Number::Integer(number))),
        any::<f64>().prop_filter_map("finite", |number| Number::from_f64(number).map(Literal::Number)),
        any::<String>().prop_map(Literal::String),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| prop::collection::vec(inner, 0..3).prop_map(Literal::Array))
}

fn operand() -> impl Strategy<Value = Operand> {
    prop_oneof![
        attribute().prop_map(Operand::Attribute),
        literal().prop_map(Operand::Literal),
        attribute().prop_map(Operand::IsDefined),
    ]
}

fn comparator() -> impl Strategy<Value = Comparator> {
    prop::sample::select(vec![
        Comparator::Equal,
        Comparator::NotEqual,
        Comparator::Less,
        Comparator::LessOrEqual,
        Comparator::Greater,
        Comparator::GreaterOrEqual,
    ])
}

fn expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        (operand(), comparator(), operand()).prop_map(|(left, comparator, right)| Expr::Compare {
            left,
            comparator,
            right
        }),
        (operand(), any::<bool>(), prop::collection::vec(literal(), 0..3))
            .prop_map(|(operand, negated, list)| Expr::In { operand, negated, list }),
        attribute().prop_map(Expr::IsDefined),
    ];
    leaf.prop_recursive(5, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::Or),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::And),
            inner.prop_map(|inner| Expr::Not(Box::new(inner))),
        ]
    })
}

fn query() -> impl Strategy<Value = Query> {
    let item = (attribute(), prop::option::of(name())).prop_map(|(attribute, alias)| Item { attribute, alias });
    let select = prop_oneof![
        Just((Select::All, Source::Jobs)),
        Just((Select::All, Source::Modules)),
        prop::collection::vec(item, 1..4).prop_map(|items| (Select::Items(items), Source::Modules)),
        prop::option::of(name()).prop_map(|alias| (Select::Count { alias }, Source::Devices)),
    ];
    let top = prop::option::of(0..=i64::MAX.unsigned_abs());
    (select, top, prop::option::of(expr())).prop_map(|((select, source), top, filter)| Query {
        select,
        top: top.filter(|_| source != Source::Jobs),
        source,
        filter,
    })
}

proptest! {
    #[test]
    fn what_is_printed_parses_back(query in query()) {
        let printed = query.to_string();
        prop_assume!(printed.chars().count() <= LENGTH_MAX);
        prop_assert_eq!(parse(&printed), Ok(query), "{}", printed);
    }

    #[test]
    fn no_text_panics_and_every_place_lies_in_it(text in ".{0,60}|SELECT \\* FROM devices WHERE [-a-d0-9.'\"\\\\u\\[\\]()=<>!$ ,+]{0,30}") {
        match parse(&text) {
            Ok(query) => prop_assert_eq!(parse(&query.to_string()), Ok(query)),
            Err(error) => {
                prop_assert!(text.is_char_boundary(error.span.start) && text.is_char_boundary(error.span.end));
                prop_assert!(!error.to_string().contains('\n') && error.to_string().len() < 400);
            }
        }
    }
}
