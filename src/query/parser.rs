//! Tokens to syntax tree, by the grammar of `iot-hub.md` 5.1.
//!
//! ```text
//! binds loosest   OR
//!                 AND
//!                 NOT
//! binds tightest  = != <> < <= > >= IN NIN      (their operands are values, so they do not chain)
//! ```
//!
//! Invariant: recursion goes one step deeper only with a parenthesis, a NOT or an array, at most [`DEPTH_MAX`] times.

mod cursor;

use super::ast::{Attribute, Comparator, Expr, Item, Literal, Operand, Query, Select, Source, is_reserved};
use super::error::{ParseError, ParseErrorKind, Span, Unsupported, quoted};
use super::lexer::{Symbol, Token, tokenise};
use crate::twin::Number;

/// The longest query a hub takes, in characters (`iot-hub.md` 2.7).
pub const LENGTH_MAX: usize = 8192;
/// How deep parentheses, NOTs and arrays may nest in all.
pub const DEPTH_MAX: usize = 64;

const AGGREGATES: [&str; 4] = ["AVG", "SUM", "MIN", "MAX"];

/// The query that `text` is.
///
/// # Errors
/// [`ParseError`] with the place of the first thing that is no part of the language, or not yet.
pub fn parse(text: &str) -> Result<Query, ParseError> {
    let length = text.chars().count();
    if length > LENGTH_MAX {
        return Err(ParseError { kind: ParseErrorKind::TooLong(length), span: Span { start: 0, end: text.len() } });
    }
    let mut parser = Parser { text, tokens: tokenise(text)?, at: 0, depth: 0, collections: Vec::new() };
    parser.query()
}

struct Parser<'a> {
    text: &'a str,
    /// Ends with [`Token::End`].
    tokens: Vec<(Token, Span)>,
    /// The next token; never past the end.
    at: usize,
    depth: usize,
    /// The collections written in front of attributes, to be compared with FROM once that is known.
    collections: Vec<(Source, Span)>,
}

/// What a SELECT list turned out to hold.
enum Column {
    Item(Item),
    Count(Option<String>),
}

impl Parser<'_> {
    fn query(&mut self) -> Result<Query, ParseError> {
        self.expect_keyword("SELECT", "SELECT")?;
        let top_span = self.span();
        let top = self.take_keyword("TOP").then(|| self.top()).transpose()?;
        let select_span = self.span();
        let select = self.select()?;
        self.expect_keyword("FROM", "`,` or FROM")?;
        let source = self.source()?;
        let filter = self.take_keyword("WHERE").then(|| self.or()).transpose()?;
        self.refuse_unsupported()?;
        if *self.peek() != Token::End {
            let expected =
                if filter.is_some() { "AND, OR or the end of the query" } else { "WHERE or the end of the query" };
            return Err(self.unexpected(expected));
        }
        self.check_source(source, &select, select_span)?;
        if top.is_some() && source == Source::Jobs {
            return Err(not_in_source("TOP", source, top_span));
        }
        Ok(Query { select, top, source, filter })
    }

    fn top(&mut self) -> Result<u64, ParseError> {
        let Token::Number(Number::Integer(number)) = self.peek() else { return Err(self.unexpected("a row count")) };
        let Ok(number) = u64::try_from(*number) else { return Err(self.unexpected("a row count")) };
        self.advance();
        Ok(number)
    }

    fn select(&mut self) -> Result<Select, ParseError> {
        if self.take(Symbol::Star) {
            return Ok(Select::All);
        }
        let span = self.span();
        let mut items = Vec::new();
        let mut counts = Vec::new();
        loop {
            match self.column()? {
                Column::Item(item) => items.push(item),
                Column::Count(alias) => counts.push(alias),
            }
            if !self.take(Symbol::Comma) {
                break;
            }
        }
        match (counts.pop(), items.is_empty() && counts.is_empty()) {
            (None, _) => Ok(Select::Items(items)),
            (Some(alias), true) => Ok(Select::Count { alias }),
            (Some(_), false) => Err(unsupported(Unsupported::CountAndColumns, span)),
        }
    }

    fn column(&mut self) -> Result<Column, ParseError> {
        if let Some(function) = self.function_name() {
            if AGGREGATES.iter().any(|name| name.eq_ignore_ascii_case(&function)) {
                return Err(unsupported(Unsupported::Aggregate(quoted(&function)), self.span()));
            }
            if !function.eq_ignore_ascii_case("COUNT") {
                return Err(unsupported(Unsupported::Function(quoted(&function)), self.span()));
            }
            self.advance();
            self.advance();
            self.expect(Symbol::CloseParenthesis, "`)`: COUNT() takes nothing")?;
            return Ok(Column::Count(self.alias()?));
        }
        let attribute = self.attribute("`*`, an attribute or COUNT()")?;
        Ok(Column::Item(Item { attribute, alias: self.alias()? }))
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

    /// What a collection does not have (`iot-hub.md` 5.3).
    fn check_source(&self, source: Source, select: &Select, select_span: Span) -> Result<(), ParseError> {
        match (source, select) {
            (Source::Jobs, Select::Items(_)) => return Err(not_in_source("columns", source, select_span)),
            (Source::Jobs | Source::Modules, Select::Count { .. }) => {
                return Err(not_in_source("COUNT()", source, select_span));
            }
            (Source::Devices | Source::Modules, Select::All | Select::Items(_))
            | (Source::Jobs, Select::All)
            | (Source::Devices, Select::Count { .. }) => {}
        }
        match self.collections.iter().find(|(collection, _)| ![Source::Devices, source].contains(collection)) {
            None => Ok(()),
            Some((_, span)) => Err(not_in_source("an attribute of another collection", source, *span)),
        }
    }

    fn or(&mut self) -> Result<Expr, ParseError> {
        let first = self.and()?;
        let mut parts = vec![first];
        while self.take_keyword("OR") {
            parts.push(self.and()?);
        }
        Ok(one_or_all(parts, Expr::Or))
    }

    fn and(&mut self) -> Result<Expr, ParseError> {
        let first = self.not()?;
        let mut parts = vec![first];
        while self.take_keyword("AND") {
            parts.push(self.not()?);
        }
        Ok(one_or_all(parts, Expr::And))
    }

    fn not(&mut self) -> Result<Expr, ParseError> {
        if self.take_keyword("NOT") {
            return self.deeper(Self::not).map(|inner| Expr::Not(Box::new(inner)));
        }
        if self.take(Symbol::OpenParenthesis) {
            let inner = self.deeper(Self::or)?;
            self.refuse_unsupported()?;
            self.expect(Symbol::CloseParenthesis, "AND, OR or `)`")?;
            return Ok(inner);
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expr, ParseError> {
        let left = self.operand("a condition")?;
        if let Some(comparator) = self.comparator() {
            self.advance();
            let right = self.operand("an attribute or a value")?;
            return Ok(Expr::Compare { left, comparator, right });
        }
        let negated = self.is_keyword("NIN");
        if negated || self.is_keyword("IN") {
            self.advance();
            self.expect(Symbol::OpenBracket, "an array in [ ]")?;
            let list = self.deeper(Self::array)?;
            return Ok(Expr::In { operand: left, negated, list });
        }
        match left {
            Operand::IsDefined(attribute) => Ok(Expr::IsDefined(attribute)),
            Operand::Attribute(_) | Operand::Literal(_) => {
                Err(self.unexpected("a comparison (=, !=, <>, <, <=, >, >=, IN or NIN)"))
            }
        }
    }

    fn comparator(&self) -> Option<Comparator> {
        let Token::Symbol(symbol) = self.peek() else { return None };
        match symbol {
            Symbol::Equal => Some(Comparator::Equal),
            Symbol::NotEqual => Some(Comparator::NotEqual),
            Symbol::Less => Some(Comparator::Less),
            Symbol::LessOrEqual => Some(Comparator::LessOrEqual),
            Symbol::Greater => Some(Comparator::Greater),
            Symbol::GreaterOrEqual => Some(Comparator::GreaterOrEqual),
            Symbol::Comma
            | Symbol::Dot
            | Symbol::OpenParenthesis
            | Symbol::CloseParenthesis
            | Symbol::OpenBracket
            | Symbol::CloseBracket
            | Symbol::Star
            | Symbol::Plus
            | Symbol::Minus
            | Symbol::Slash
            | Symbol::Percent => None,
        }
    }

    fn operand(&mut self, expected: &'static str) -> Result<Operand, ParseError> {
        let operand = if let Some(function) = self.function_name() {
            if !function.eq_ignore_ascii_case("IS_DEFINED") {
                return Err(unsupported(Unsupported::Function(quoted(&function)), self.span()));
            }
            self.advance();
            self.advance();
            let attribute = self.attribute("an attribute")?;
            self.expect(Symbol::CloseParenthesis, "`)`")?;
            Operand::IsDefined(attribute)
        } else if let Some(literal) = self.literal()? {
            Operand::Literal(literal)
        } else {
            Operand::Attribute(self.attribute(expected)?)
        };
        self.refuse_unsupported()?;
        Ok(operand)
    }

    /// The literal that begins here, if one does.
    fn literal(&mut self) -> Result<Option<Literal>, ParseError> {
        let literal = match self.peek() {
            Token::Number(number) => Literal::Number(*number),
            Token::String(text) => Literal::String(text.clone()),
            Token::Word(word) => match word.to_ascii_lowercase().as_str() {
                "undefined" => Literal::Undefined,
                "null" => Literal::Null,
                "true" => Literal::Bool(true),
                "false" => Literal::Bool(false),
                _ => return Ok(None),
            },
            Token::Symbol(Symbol::Minus) => match self.tokens.get(self.at + 1) {
                Some((Token::Number(number), _)) => {
                    let negative = Literal::Number(negated(*number));
                    self.advance();
                    negative
                }
                Some(_) | None => return Err(unsupported(Unsupported::Arithmetic('-'), self.span())),
            },
            Token::Symbol(Symbol::OpenBracket) => {
                self.advance();
                return self.deeper(Self::array).map(|items| Some(Literal::Array(items)));
            }
            Token::Symbol(_) | Token::Bracketed(_) | Token::End => return Ok(None),
        };
        self.advance();
        Ok(Some(literal))
    }

    /// The rest of an array whose `[` was just taken.
    fn array(&mut self) -> Result<Vec<Literal>, ParseError> {
        let mut items = Vec::new();
        if self.take(Symbol::CloseBracket) {
            return Ok(items);
        }
        loop {
            items.push(self.literal()?.ok_or_else(|| self.unexpected("a value"))?);
            if !self.take(Symbol::Comma) {
                break;
            }
        }
        self.expect(Symbol::CloseBracket, "`,` or `]`")?;
        Ok(items)
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
        self.collections.push((collection, span));
        let names = names.split_off(prefix);
        // Only a name such as `[[a]]]` could not be written, and the lexer ends it at the first `]]`.
        Attribute::new(names).ok_or(ParseError { kind: ParseErrorKind::OpenName, span })
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

    /// The word here, when a `(` follows that makes it a function.
    fn function_name(&self) -> Option<String> {
        let follows = self.tokens.get(self.at + 1).map(|(token, _)| token);
        match self.peek() {
            Token::Word(word) if follows == Some(&Token::Symbol(Symbol::OpenParenthesis)) && !is_reserved(word) => {
                Some(word.clone())
            }
            Token::Word(_)
            | Token::Bracketed(_)
            | Token::Number(_)
            | Token::String(_)
            | Token::Symbol(_)
            | Token::End => None,
        }
    }

    /// Says so when what follows a value or a condition is a part of the language that is not there yet.
    fn refuse_unsupported(&self) -> Result<(), ParseError> {
        let what = match self.peek() {
            Token::Symbol(Symbol::Plus) => Unsupported::Arithmetic('+'),
            Token::Symbol(Symbol::Minus) => Unsupported::Arithmetic('-'),
            Token::Symbol(Symbol::Star) => Unsupported::Arithmetic('*'),
            Token::Symbol(Symbol::Slash) => Unsupported::Arithmetic('/'),
            Token::Symbol(Symbol::Percent) => Unsupported::Arithmetic('%'),
            Token::Word(word) if word.eq_ignore_ascii_case("GROUP") => Unsupported::GroupBy,
            Token::Symbol(_)
            | Token::Word(_)
            | Token::Bracketed(_)
            | Token::Number(_)
            | Token::String(_)
            | Token::End => return Ok(()),
        };
        Err(unsupported(what, self.span()))
    }

    /// Runs `inner` one level deeper.
    fn deeper<T>(&mut self, inner: fn(&mut Self) -> Result<T, ParseError>) -> Result<T, ParseError> {
        if self.depth == DEPTH_MAX {
            return Err(ParseError { kind: ParseErrorKind::TooDeep, span: self.span() });
        }
        self.depth += 1;
        let result = inner(self)?;
        self.depth -= 1;
        Ok(result)
    }
}

fn one_or_all(mut parts: Vec<Expr>, all: fn(Vec<Expr>) -> Expr) -> Expr {
    match parts.len() {
        1 => parts.remove(0),
        _ => all(parts),
    }
}

fn negated(number: Number) -> Number {
    match number {
        // Digits give no negative number, so there is always an opposite.
        Number::Integer(value) => Number::Integer(-value),
        Number::Float(value) => Number::Float(-value),
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
