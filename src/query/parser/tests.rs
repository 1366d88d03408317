use proptest::prelude::*;

use super::*;
use crate::query::{Call, Comparator, Function, Literal, Operand, Operator};

/// The tree of `text`, printed with every parenthesis.
fn grouped(expr: &Expr) -> String {
    match expr {
        Expr::Or(parts) => format!("({})", parts.iter().map(grouped).collect::<Vec<_>>().join(" OR ")),
        Expr::And(parts) => format!("({})", parts.iter().map(grouped).collect::<Vec<_>>().join(" AND ")),
        Expr::Not(inner) => format!("NOT({})", grouped(inner)),
        Expr::Compare { left, comparator, right } => {
            format!("{} {} {}", value(left), comparator.as_str(), value(right))
        }
        Expr::In { .. } | Expr::Call(_) => expr.to_string(),
    }
}

fn value(operand: &Operand) -> String {
    match operand {
        Operand::Negate(inner) => format!("-({})", value(inner)),
        Operand::Arithmetic { left, operator, right } => {
            format!("({} {} {})", value(left), operator.as_str(), value(right))
        }
        Operand::Attribute(_) | Operand::Literal(_) | Operand::Call(_) => operand.to_string(),
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
        ("a+b*c-d = 1", "((a + (b * c)) - d) = 1"),
        ("(a+b)*c = d%e/f", "((a + b) * c) = ((d % e) / f)"),
        ("a-(b-c) = a-b-c", "(a - (b - c)) = ((a - b) - c)"),
        ("-a*b = - -a", "(-(a) * b) = -(-(a))"),
        ("-(a*b) = -5", "-((a * b)) = -5"),
        ("-(5) = a - -5", "-(5) = (a - -5)"),
        ("NOT a + 1 < 2 AND b = 1", "(NOT((a + 1) < 2) AND b = 1)"),
        ("((a)) = (1)", "a = 1"),
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
        ("SELECT count() FROM devices", "SELECT COUNT() FROM devices"),
        (
            "SELECT tags.a x, count() as n,Avg(tags.n) AS m FROM devices WHERE b=1 group by tags.a,tags.b",
            "SELECT tags.a AS x, COUNT() AS n, AVG(tags.n) AS m FROM devices WHERE b = 1 GROUP BY tags.a, tags.b",
        ),
        ("SELECT tags.a FROM devices GROUP BY tags.a", "SELECT tags.a FROM devices GROUP BY tags.a"),
        (
            "SELECT * FROM devices WHERE not a=1 and NOT NOT (is_defined(b)) AND -(5)+(a*-2)-(b-c)=-(x+1)",
            "SELECT * FROM devices WHERE NOT (a = 1) AND NOT NOT IS_DEFINED(b) AND -(5) + a * -2 - (b - c) = -(x + 1)",
        ),
        (
            "SELECT * FROM devices WHERE array_contains(PARENTSCOPES, 'x') OR startswith(deviceid,'a')=true",
            "SELECT * FROM devices WHERE ARRAY_CONTAINS(parentScopes, 'x') OR STARTSWITH(deviceId, 'a') = true",
        ),
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
fn a_misspelt_word_of_the_language_is_told_which_one_it_may_be() {
    for (text, words, column) in [
        (
            "SELECT * FROM devicez",
            "found `devicez`, expected devices, devices.modules or devices.jobs; did you mean devices?",
            15,
        ),
        (
            "SELECT * FROM devices.module",
            "found `module`, expected devices, devices.modules or devices.jobs; did you mean modules?",
            23,
        ),
        (
            "SELECT * FROM devices WHER a = 1",
            "found `WHER`, expected WHERE, GROUP BY or the end of the query; did you mean WHERE?",
            23,
        ),
        ("SELET * FROM devices", "found `SELET`, expected SELECT", 1),
        (
            "SELECT * FROM devices WHERE STARTWITH(a, 'b')",
            "`STARTWITH` is no function of the query language; did you mean STARTSWITH?",
            29,
        ),
        ("SELECT * FROM devices WHERE a = 1 b", "found `b`, expected AND, OR, GROUP BY or the end of the query", 35),
    ] {
        assert_eq!(refusal(text), (words.to_owned(), column), "{text}");
    }
}

#[test]
fn what_is_no_query_is_named_with_its_place() {
    for (text, message, column) in [
        ("", "found the end of the query, expected SELECT", 1),
        ("UPDATE devices", "found `UPDATE`, expected SELECT", 1),
        ("SELECT FROM devices", "found the reserved word FROM, expected a name; as a key it is written [[FROM]]", 8),
        ("SELECT , FROM devices", "found `,`, expected `*`, an attribute or an aggregate", 8),
        ("SELECT *", "found the end of the query, expected `,` or FROM", 9),
        ("SELECT TOP -1 * FROM devices", "found `-`, expected a row count", 12),
        ("SELECT TOP 1.5 * FROM devices", "found `1.5`, expected a row count", 12),
        ("SELECT * FROM twins", "found `twins`, expected devices, devices.modules or devices.jobs", 15),
        ("SELECT * FROM devices.x", "found `x`, expected devices, devices.modules or devices.jobs", 23),
        ("SELECT * FROM devices x", "found `x`, expected WHERE, GROUP BY or the end of the query", 23),
        ("SELECT * FROM devices ORDER BY a", "found `ORDER`, expected WHERE, GROUP BY or the end of the query", 23),
        ("SELECT * FROM devices WHERE", "found the end of the query, expected a condition", 28),
        (
            "SELECT * FROM devices WHERE a",
            "found the end of the query, expected a comparison (=, !=, <>, <, <=, >, >=, IN or NIN)",
            30,
        ),
        ("SELECT * FROM devices WHERE a = ", "found the end of the query, expected an attribute or a value", 33),
        ("SELECT * FROM devices WHERE a = 1 b", "found `b`, expected AND, OR, GROUP BY or the end of the query", 35),
        ("SELECT * FROM devices WHERE (a = 1", "found the end of the query, expected AND, OR or `)`", 35),
        ("SELECT * FROM devices WHERE a = 1)", "found `)`, expected AND, OR, GROUP BY or the end of the query", 34),
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
        ("SELECT COUNT() AS n FROM devices.modules", "found an aggregate, which devices.modules does not have", 8),
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
fn groups_arithmetic_and_functions_out_of_place_are_named_with_theirs() {
    for (text, message, column) in [
        ("SELECT COUNT() n FROM devices", "found `n`, expected `,` or FROM", 16),
        (
            "SELECT tags.a FROM devices.modules GROUP BY tags.a",
            "found GROUP BY, which devices.modules does not have",
            36,
        ),
        ("SELECT a FROM devices GROUP a", "found `a`, expected BY", 29),
        ("SELECT a FROM devices GROUP BY", "found the end of the query, expected an attribute", 31),
        ("SELECT a FROM devices GROUP BY a b", "found `b`, expected `,` or the end of the query", 34),
        ("SELECT * FROM devices GROUP BY a", "SELECT * does not go with GROUP BY; name the columns", 8),
        (
            "SELECT COUNT() AS n, tags.b FROM devices GROUP BY tags.a",
            "the column `tags.b` must stand in GROUP BY, since the query has groups",
            22,
        ),
        (
            "SELECT tags.a, COUNT() AS n FROM devices",
            "the column `tags.a` must stand in GROUP BY, since the query has groups",
            8,
        ),
        (
            "SELECT UPPER(a) FROM devices",
            "found `UPPER` among the columns, where only COUNT, AVG, SUM, MIN and MAX may be called",
            8,
        ),
        ("SELECT AVG() FROM devices", "found `)`, expected an attribute", 12),
        ("SELECT a + 1 FROM devices", "found `+`, expected `,` or FROM", 10),
        ("SELECT * FROM devices WHERE SIN(a) = 1", "`SIN` is no function of the query language", 29),
        ("SELECT * FROM devices WHERE STARTSWITH(a)", "STARTSWITH takes 2 arguments, found 1", 29),
        ("SELECT * FROM devices WHERE STARTSWITH(a, 'b' = 'c')", "found `=`, expected `,` or `)`", 47),
        (
            "SELECT * FROM devices WHERE STARTSWITH(a, (b = c))",
            "found a condition, expected an attribute or a value",
            43,
        ),
        (
            "SELECT * FROM devices WHERE (a = 1) + 1 = 2",
            "found `+`, expected AND, OR, GROUP BY or the end of the query",
            37,
        ),
        ("SELECT * FROM devices WHERE 1 + (a = 1) = 2", "found a condition, expected an attribute or a value", 33),
        ("SELECT * FROM devices WHERE a = (b = c)", "found a condition, expected an attribute or a value", 33),
        ("SELECT * FROM devices WHERE a < b < c", "found `<`, expected AND, OR, GROUP BY or the end of the query", 35),
        (
            "SELECT * FROM devices WHERE (a) AND b = 1",
            "found `AND`, expected a comparison (=, !=, <>, <, <=, >, >=, IN or NIN)",
            33,
        ),
        ("SELECT * FROM devices /* all */", "found `/`, expected WHERE, GROUP BY or the end of the query", 23),
        ("SELECT * FROM devices WHERE a /* x */ = 1", "found `*`, expected an attribute or a value", 32),
        ("SELECT * FROM devices WHERE a IN [-b]", "found `b`, expected a number", 36),
        ("SELECT * FROM devices WHERE a = +1", "found `+`, expected an attribute or a value", 33),
        (
            "SELECT * FROM devices.jobs WHERE tags.a = 1",
            "found an attribute that is no column of a job, which devices.jobs does not have",
            34,
        ),
    ] {
        assert_eq!(refusal(text), (message.to_owned(), column), "{text}");
    }
}

#[test]
fn functions_of_other_queries_are_refused_by_name_and_a_switch_lets_them_in() {
    for function in Function::all() {
        let name = function.as_str();
        let (fewest, _) = function.arity();
        let arguments = ["tags.a", "'b'", "1"][..fewest].join(", ");
        let text = format!("SELECT * FROM devices WHERE {name}({arguments}) = 1");
        let known = matches!(function, Function::IsDefined | Function::StartsWith | Function::ArrayContains);
        let expected = "is not known to work in twin queries, only IS_DEFINED, STARTSWITH and ARRAY_CONTAINS are";
        if known {
            assert!(parse(&text).is_ok(), "{text}");
        } else {
            assert_eq!(refusal(&text), (format!("the function {name} {expected}"), 29));
        }
        let query = parse_as(&text, Dialect::Permissive).unwrap();
        assert_eq!(query.to_string(), text);
    }
}

#[test]
fn a_condition_stands_alone_and_names_what_it_reads() {
    let text =
        "devices.tags.a = 1 AND (NOT IS_DEFINED(devices.modules.tags.b) OR DEVICEID IN ['x'] OR -tags.c + 1 < tags.a)";
    let condition = parse_condition(text).unwrap();
    let names: Vec<String> = condition.attributes().into_iter().map(ToString::to_string).collect();
    assert_eq!(names, ["tags.a", "tags.b", "deviceId", "tags.c", "tags.a"]);
    assert_eq!(parse_condition(&condition.to_string()), Ok(condition));
    for (text, message, column) in [
        ("", "found the end of the query, expected a condition", 1),
        ("tags.a", "found the end of the query, expected a comparison (=, !=, <>, <, <=, >, >=, IN or NIN)", 7),
        ("tags.a = 1 GROUP BY tags.a", "found `GROUP`, expected AND, OR or the end of the condition", 12),
        ("devices.jobs.jobId = 'x'", "found an attribute of another collection, which devices does not have", 1),
    ] {
        let error = parse_condition(text).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.position(text).1), (message, column), "{text}");
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
        let query = condition(open, close, DEPTH_MAX).unwrap_or_else(|error| panic!("{open}: {error}"));
        assert_eq!(parse(&query.to_string()), Ok(query));
        let error = condition(open, close, DEPTH_MAX + 1).unwrap_err();
        assert_eq!(error.kind, ParseErrorKind::TooDeep, "{open}");
    }
    for (open, close) in [("-", ""), ("-(", ")"), ("1 + ", ""), ("STARTSWITH(", ", 'x')"), ("(", " * 2)")] {
        let operand = |depth: usize| {
            parse(&format!("SELECT * FROM devices WHERE {}a{} = 1", open.repeat(depth), close.repeat(depth)))
        };
        let query = operand(DEPTH_MAX).unwrap_or_else(|error| panic!("{open}: {error}"));
        assert_eq!(parse(&query.to_string()), Ok(query));
        assert_eq!(operand(DEPTH_MAX + 1).unwrap_err().kind, ParseErrorKind::TooDeep, "{open}");
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

fn call(argument: impl Strategy<Value = Operand> + Clone + 'static) -> impl Strategy<Value = Call> {
    let others: Vec<Function> = Function::all().filter(|function| *function != Function::IsDefined).collect();
    let other =
        (prop::sample::select(others), prop::collection::vec(argument, 16)).prop_map(|(function, arguments)| {
            let (fewest, _) = function.arity();
            Call { function, arguments: arguments.into_iter().take(fewest).collect() }
        });
    let defined = attribute()
        .prop_map(|attribute| Call { function: Function::IsDefined, arguments: vec![Operand::Attribute(attribute)] });
    prop_oneof![defined, other]
}

fn operand() -> impl Strategy<Value = Operand> + Clone + 'static {
    let leaf = prop_oneof![attribute().prop_map(Operand::Attribute), literal().prop_map(Operand::Literal)].boxed();
    let operators = [Operator::Add, Operator::Subtract, Operator::Multiply, Operator::Divide, Operator::Remainder];
    leaf.prop_recursive(3, 8, 2, move |inner| {
        prop_oneof![
            // A number and its sign are one literal, so nothing else negates one that has none.
            inner.clone().prop_map(|inner| Operand::Negate(Box::new(inner))),
            (inner.clone(), prop::sample::select(operators.to_vec()), inner.clone()).prop_map(
                |(left, operator, right)| Operand::Arithmetic {
                    left: Box::new(left),
                    operator,
                    right: Box::new(right)
                }
            ),
            call(inner).prop_map(Operand::Call),
        ]
        .boxed()
    })
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
        call(operand()).prop_map(Expr::Call),
    ];
    leaf.prop_recursive(5, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::Or),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::And),
            inner.prop_map(|inner| Expr::Not(Box::new(inner))),
        ]
    })
}

fn item() -> impl Strategy<Value = Item> {
    (attribute(), prop::option::of(name())).prop_map(|(attribute, alias)| Item { attribute, alias })
}

fn column() -> impl Strategy<Value = Column> {
    let aggregate = prop_oneof![
        Just(Aggregate::Count),
        attribute().prop_map(Aggregate::Average),
        attribute().prop_map(Aggregate::Sum),
        attribute().prop_map(Aggregate::Minimum),
        attribute().prop_map(Aggregate::Maximum),
    ];
    let aggregate =
        (aggregate, prop::option::of(name())).prop_map(|(aggregate, alias)| Column::Aggregate { aggregate, alias });
    prop_oneof![item().prop_map(Column::Item), aggregate]
}

/// Columns with all that GROUP BY must name, and whether it names anything.
fn groups() -> impl Strategy<Value = (Select, Source, Vec<Attribute>)> {
    (prop::collection::vec(column(), 1..4), prop::collection::vec(attribute(), 1..3)).prop_map(
        |(columns, mut group_by)| {
            group_by.extend(columns.iter().filter_map(|column| match column {
                Column::Item(item) => Some(item.attribute.clone()),
                Column::Aggregate { .. } => None,
            }));
            (Select::Groups(columns), Source::Devices, group_by)
        },
    )
}

fn query() -> impl Strategy<Value = Query> {
    let alone = prop::option::of(name())
        .prop_map(|alias| Select::Groups(vec![Column::Aggregate { aggregate: Aggregate::Count, alias }]));
    let select = prop_oneof![
        Just((Select::All, Source::Modules, Vec::new())),
        prop::collection::vec(item(), 1..4).prop_map(|items| (Select::Items(items), Source::Modules, Vec::new())),
        alone.prop_map(|select| (select, Source::Devices, Vec::new())),
        groups(),
    ];
    let top = prop::option::of(0..=i64::MAX.unsigned_abs());
    (select, top, prop::option::of(expr())).prop_map(|((select, source, group_by), top, filter)| Query {
        select,
        top,
        source,
        filter,
        group_by,
    })
}

proptest! {
    #[test]
    fn what_is_printed_parses_back(query in query()) {
        let printed = query.to_string();
        prop_assume!(printed.chars().count() <= LENGTH_MAX);
        prop_assert_eq!(parse_as(&printed, Dialect::Permissive), Ok(query), "{}", printed);
    }

    #[test]
    fn no_text_panics_and_every_place_lies_in_it(text in ".{0,60}|SELECT \\* FROM devices WHERE [-a-d0-9.'\"\\\\u\\[\\]()=<>!$ ,+*/%]{0,30}") {
        match parse(&text) {
            Ok(query) => prop_assert_eq!(parse(&query.to_string()), Ok(query)),
            Err(error) => {
                prop_assert!(text.is_char_boundary(error.span.start) && text.is_char_boundary(error.span.end));
                prop_assert!(!error.to_string().contains('\n') && error.to_string().len() < 400);
            }
        }
    }
}
