//! Tokens to syntax tree, by the grammar of `iot-hub.md` 5.1: the query around its conditions.
//!
//! Invariant: recursion goes one step deeper only with a parenthesis, a sign, a NOT, a function or an array, at most
//! [`DEPTH_MAX`] times, and no tree is deeper than that either.

mod condition;
mod cursor;

use super::ast::{Aggregate, Attribute, Column, Expr, Item, Query, Select, Source};
use super::error::{ParseError, ParseErrorKind, Span, Unsupported, quoted};
use super::function::Dialect;
use super::lexer::{Symbol, Token, tokenise};
use super::print::is_reserved;
use crate::twin::Number;

/// The longest query a hub takes, in characters (`iot-hub.md` 2.7).
pub const LENGTH_MAX: usize = 8192;
/// How deep parentheses, signs, NOTs, functions and arrays may nest in all, and how deep arithmetic may.
pub const DEPTH_MAX: usize = 64;

/// The columns of a job that a condition may read (`iot-hub.md` 5.3).
const JOB_COLUMNS: [&str; 9] = [
    "deviceId",
    "jobId",
    "jobType",
    "status",
    "startTimeUtc",
    "endTimeUtc",
    "createdDateTimeUtc",
    "lastUpdatedDateTimeUtc",
    "outcome",
];

/// The query that `text` is, as a hub takes it.
///
/// # Errors
/// [`ParseError`] with the place of the first thing that is no part of the language.
pub fn parse(text: &str) -> Result<Query, ParseError> {
    parse_as(text, Dialect::Hub)
}

/// The query that `text` is in `dialect`.
///
/// # Errors
/// As [`parse`].
pub fn parse_as(text: &str, dialect: Dialect) -> Result<Query, ParseError> {
    let mut parser = Parser::new(text, dialect)?;
    parser.query()
}

/// The condition that `text` is: what stands behind WHERE, over devices or over modules.
///
/// # Errors
/// As [`parse`]; an attribute of `devices.jobs` is one too.
pub fn parse_condition(text: &str) -> Result<Expr, ParseError> {
    let mut parser = Parser::new(text, Dialect::Hub)?;
    let condition = parser.condition()?;
    if *parser.peek() != Token::End {
        return Err(parser.unexpected("AND, OR or the end of the condition"));
    }
    match parser.collections.iter().find(|(collection, ..)| *collection == Source::Jobs) {
        None => Ok(condition),
        Some((_, _, span)) => Err(not_in_source("an attribute of another collection", Source::Devices, *span)),
    }
}

struct Parser<'a> {
    text: &'a str,
    dialect: Dialect,
    /// Ends with [`Token::End`].
    tokens: Vec<(Token, Span)>,
    /// The next token; never past the end.
    at: usize,
    depth: usize,
    /// The attributes with the collections written in front of them, to be compared with FROM once that is known.
    collections: Vec<(Source, Attribute, Span)>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, dialect: Dialect) -> Result<Self, ParseError> {
        let length = text.chars().count();
        if length > LENGTH_MAX {
            return Err(ParseError { kind: ParseErrorKind::TooLong(length), span: Span { start: 0, end: text.len() } });
        }
        Ok(Self { text, dialect, tokens: tokenise(text)?, at: 0, depth: 0, collections: Vec::new() })
    }

    fn query(&mut self) -> Result<Query, ParseError> {
        self.expect_keyword("SELECT", "SELECT")?;
        let top_span = self.span();
        let top = self.take_keyword("TOP").then(|| self.top()).transpose()?;
        let select_span = self.span();
        let columns = self.columns()?;
        self.expect_keyword("FROM", "`,` or FROM")?;
        let source = self.source()?;
        let filter = self.take_keyword("WHERE").then(|| self.condition()).transpose()?;
        let group_span = self.span();
        let group_by = if self.take_keyword("GROUP") { self.group_by()? } else { Vec::new() };
        if *self.peek() != Token::End {
            return Err(self.unexpected(match (&filter, group_by.is_empty()) {
                (_, false) => "`,` or the end of the query",
                (Some(_), true) => "AND, OR, GROUP BY or the end of the query",
                (None, true) => "WHERE, GROUP BY or the end of the query",
            }));
        }
        let select = grouped(columns, &group_by, select_span)?;
        match (source, &select) {
            (Source::Jobs, Select::Items(_)) => return Err(not_in_source("columns", source, select_span)),
            (Source::Jobs | Source::Modules, Select::Groups(_)) if !group_by.is_empty() => {
                return Err(not_in_source("GROUP BY", source, group_span));
            }
            (Source::Jobs | Source::Modules, Select::Groups(_)) => {
                return Err(not_in_source("an aggregate", source, select_span));
            }
            (Source::Devices | Source::Modules, Select::All | Select::Items(_))
            | (Source::Jobs, Select::All)
            | (Source::Devices, Select::Groups(_)) => {}
        }
        if top.is_some() && source == Source::Jobs {
            return Err(not_in_source("TOP", source, top_span));
        }
        self.check_attributes(source)?;
        Ok(Query { select, top, source, filter, group_by })
    }

    fn top(&mut self) -> Result<u64, ParseError> {
        let Token::Number(Number::Integer(number)) = self.peek() else { return Err(self.unexpected("a row count")) };
        let Ok(number) = u64::try_from(*number) else { return Err(self.unexpected("a row count")) };
        self.advance();
        Ok(number)
    }

    /// The columns with their places; none is `*`.
    fn columns(&mut self) -> Result<Vec<(Column, Span)>, ParseError> {
        let mut columns = Vec::new();
        if self.take(Symbol::Star) {
            return Ok(columns);
        }
        loop {
            let span = self.span();
            columns.push((self.column()?, span));
            if !self.take(Symbol::Comma) {
                return Ok(columns);
            }
        }
    }

    fn column(&mut self) -> Result<Column, ParseError> {
        if let Some(name) = self.function_name() {
            let aggregate = self.aggregate(&name)?;
            // Unlike an attribute's, this name needs its AS.
            let alias = self.take_keyword("AS").then(|| self.name("a name for the column")).transpose()?;
            return Ok(Column::Aggregate { aggregate, alias });
        }
        let attribute = self.attribute("`*`, an attribute or an aggregate")?;
        Ok(Column::Item(Item { attribute, alias: self.alias()? }))
    }

    fn aggregate(&mut self, name: &str) -> Result<Aggregate, ParseError> {
        let of_attribute: fn(Attribute) -> Aggregate = match name.to_ascii_uppercase().as_str() {
            "COUNT" => {
                self.advance();
                self.advance();
                self.expect(Symbol::CloseParenthesis, "`)`: COUNT() takes nothing")?;
                return Ok(Aggregate::Count);
            }
            "AVG" => Aggregate::Average,
            "SUM" => Aggregate::Sum,
            "MIN" => Aggregate::Minimum,
            "MAX" => Aggregate::Maximum,
            _ => return Err(unsupported(Unsupported::FunctionInSelect(quoted(name)), self.span())),
        };
        self.advance();
        self.advance();
        let attribute = self.attribute("an attribute")?;
        self.expect(Symbol::CloseParenthesis, "`)`")?;
        Ok(of_attribute(attribute))
    }

    fn alias(&mut self) -> Result<Option<String>, ParseError> {
        if self.take_keyword("AS") {
            return self.name("a name for the column").map(Some);
        }
        let named = match self.peek() {
            Token::Word(word) => !is_reserved(word),
            Token::Bracketed(_) => true,
            Token::Number(_) | Token::String(_) | Token::Symbol(_) | Token::End => false,
        };
        named.then(|| self.name("a name for the column")).transpose()
    }

    fn source(&mut self) -> Result<Source, ParseError> {
        const SOURCES: &str = "devices, devices.modules or devices.jobs";
        self.expect_keyword("devices", SOURCES)?;
        if !self.take(Symbol::Dot) {
            return Ok(Source::Devices);
        }
        if self.take_keyword("modules") {
            return Ok(Source::Modules);
        }
        self.expect_keyword("jobs", SOURCES)?;
        Ok(Source::Jobs)
    }

    fn group_by(&mut self) -> Result<Vec<Attribute>, ParseError> {
        self.expect_keyword("BY", "BY")?;
        let mut attributes = vec![self.attribute("an attribute")?];
        while self.take(Symbol::Comma) {
            attributes.push(self.attribute("an attribute")?);
        }
        Ok(attributes)
    }

    /// No attribute of another collection; of jobs only the columns they have (`iot-hub.md` 5.3).
    fn check_attributes(&self, source: Source) -> Result<(), ParseError> {
        for (collection, attribute, span) in &self.collections {
            if ![Source::Devices, source].contains(collection) {
                return Err(not_in_source("an attribute of another collection", source, *span));
            }
            let first = attribute.path().first().map_or("", String::as_str);
            if source == Source::Jobs && !JOB_COLUMNS.contains(&first) {
                return Err(not_in_source("an attribute that is no column of a job", source, *span));
            }
        }
        Ok(())
    }

    fn attribute(&mut self, expected: &'static str) -> Result<Attribute, ParseError> {
        let span = self.span();
        let mut plain = vec![matches!(self.peek(), Token::Word(_))];
        let mut names = vec![self.name(expected)?];
        while self.take(Symbol::Dot) {
            plain.push(matches!(self.peek(), Token::Word(_)));
            names.push(self.name("a name after `.`")?);
        }
        let is_word = |index: usize, word: &str| {
            plain.get(index) == Some(&true) && names.get(index).is_some_and(|name| name.eq_ignore_ascii_case(word))
        };
        let prefix = match (names.len(), is_word(0, "devices")) {
            (1, _) | (_, false) => 0,
            (2, true) => 1,
            (_, true) if is_word(1, "modules") || is_word(1, "jobs") => 2,
            (_, true) => 1,
        };
        let collection = match prefix {
            2 if is_word(1, "modules") => Source::Modules,
            2 => Source::Jobs,
            _ => Source::Devices,
        };
        let names = names.split_off(prefix);
        // Only a name such as `[[a]]]` could not be written, and the lexer ends it at the first `]]`.
        let attribute = Attribute::new(names).ok_or(ParseError { kind: ParseErrorKind::OpenName, span })?;
        self.collections.push((collection, attribute.clone(), span));
        Ok(attribute)
    }

    fn name(&mut self, expected: &'static str) -> Result<String, ParseError> {
        let name = match self.peek() {
            Token::Bracketed(name) => name.clone(),
            Token::Word(word) if is_reserved(word) => {
                let kind = ParseErrorKind::Reserved(word.clone());
                return Err(ParseError { kind, span: self.span() });
            }
            Token::Word(word) => word.clone(),
            Token::Number(_) | Token::String(_) | Token::Symbol(_) | Token::End => {
                return Err(self.unexpected(expected));
            }
        };
        self.advance();
        Ok(name)
    }
}

/// What the columns are together: a twin, columns of twins, or columns of groups.
fn grouped(columns: Vec<(Column, Span)>, group_by: &[Attribute], span: Span) -> Result<Select, ParseError> {
    let aggregates = columns.iter().any(|(column, _)| matches!(column, Column::Aggregate { .. }));
    if columns.is_empty() && group_by.is_empty() {
        return Ok(Select::All);
    }
    if columns.is_empty() {
        return Err(unsupported(Unsupported::GroupedStar, span));
    }
    if group_by.is_empty() && !aggregates {
        let item = |(column, _)| match column {
            Column::Item(item) => Some(item),
            Column::Aggregate { .. } => None,
        };
        return Ok(Select::Items(columns.into_iter().filter_map(item).collect()));
    }
    let alone = columns.iter().find_map(|(column, span)| match column {
        Column::Item(item) if !group_by.contains(&item.attribute) => Some((item, *span)),
        Column::Item(_) | Column::Aggregate { .. } => None,
    });
    match alone {
        Some((item, span)) => Err(unsupported(Unsupported::NotGrouped(quoted(&item.attribute.to_string())), span)),
        None => Ok(Select::Groups(columns.into_iter().map(|(column, _)| column).collect())),
    }
}

fn unsupported(what: Unsupported, span: Span) -> ParseError {
    ParseError { kind: ParseErrorKind::Unsupported(what), span }
}

fn not_in_source(what: &'static str, source_collection: Source, span: Span) -> ParseError {
    ParseError { kind: ParseErrorKind::NotInSource { what, source_collection }, span }
}

#[cfg(test)]
mod tests;
