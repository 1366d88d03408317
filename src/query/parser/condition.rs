//! Conditions and the values in them.
//!
//! ```text
//! binds loosest   OR
//!                 AND
//!                 NOT                           (its condition is a comparison or stands in parentheses)
//!                 = != <> < <= > >= IN NIN      (their operands are values, so they do not chain)
//!                 + -
//!                 * / %
//! binds tightest  - in front
//! ```
//!
//! Invariant: a parenthesis holds a condition or a value, whichever it turns out to be; where the other one is needed
//! the text is refused.

use super::super::ast::{Call, Comparator, Expr, Literal, Operand, Operator};
use super::super::error::{ParseError, ParseErrorKind, Span, Unsupported, most_alike, quoted};
use super::super::function::Function;
use super::super::lexer::{Symbol, Token};
use super::super::print::is_reserved;
use super::{DEPTH_MAX, Parser, unsupported};
use crate::twin::Number;

const VALUE: &str = "an attribute or a value";

/// What a piece of text turned out to be.
enum Parsed {
    Condition(Expr),
    /// A value, and how deep its tree is.
    Value(Operand, usize),
}

impl Parser<'_> {
    pub(super) fn condition(&mut self) -> Result<Expr, ParseError> {
        let parsed = self.or("a condition")?;
        self.as_condition(parsed)
    }

    fn or(&mut self, expected: &'static str) -> Result<Parsed, ParseError> {
        let first = self.and(expected)?;
        if !self.is_keyword("OR") {
            return Ok(first);
        }
        let mut parts = vec![self.as_condition(first)?];
        while self.take_keyword("OR") {
            let part = self.and("a condition")?;
            parts.push(self.as_condition(part)?);
        }
        Ok(Parsed::Condition(Expr::Or(parts)))
    }

    fn and(&mut self, expected: &'static str) -> Result<Parsed, ParseError> {
        let first = self.not(expected)?;
        if !self.is_keyword("AND") {
            return Ok(first);
        }
        let mut parts = vec![self.as_condition(first)?];
        while self.take_keyword("AND") {
            let part = self.not("a condition")?;
            parts.push(self.as_condition(part)?);
        }
        Ok(Parsed::Condition(Expr::And(parts)))
    }

    fn not(&mut self, expected: &'static str) -> Result<Parsed, ParseError> {
        if !self.take_keyword("NOT") {
            return self.comparison(expected);
        }
        let inner = self.deeper(|parser| {
            // The parenthesis behind a NOT is the NOT's own depth, so that printing one adds none.
            let parsed = if parser.take(Symbol::OpenParenthesis) {
                parser.rest_of_parenthesis()?
            } else {
                parser.not("a condition")?
            };
            parser.as_condition(parsed)
        })?;
        Ok(Parsed::Condition(Expr::Not(Box::new(inner))))
    }

    fn comparison(&mut self, expected: &'static str) -> Result<Parsed, ParseError> {
        let (left, depth) = match self.sum(expected)? {
            Parsed::Value(left, depth) => (left, depth),
            condition @ Parsed::Condition(_) => return Ok(condition),
        };
        if let Some(comparator) = self.comparator() {
            self.advance();
            let (right, _) = self.value(Self::sum)?;
            return Ok(Parsed::Condition(Expr::Compare { left, comparator, right }));
        }
        let negated = self.is_keyword("NIN");
        if negated || self.is_keyword("IN") {
            self.advance();
            self.expect(Symbol::OpenBracket, "an array in [ ]")?;
            let list = self.deeper(Self::array)?;
            return Ok(Parsed::Condition(Expr::In { operand: left, negated, list }));
        }
        Ok(Parsed::Value(left, depth))
    }

    fn sum(&mut self, expected: &'static str) -> Result<Parsed, ParseError> {
        self.chain(expected, Self::product, &[(Symbol::Plus, Operator::Add), (Symbol::Minus, Operator::Subtract)])
    }

    fn product(&mut self, expected: &'static str) -> Result<Parsed, ParseError> {
        let operators = [
            (Symbol::Star, Operator::Multiply),
            (Symbol::Slash, Operator::Divide),
            (Symbol::Percent, Operator::Remainder),
        ];
        self.chain(expected, Self::signed, &operators)
    }

    /// Parts with any of `operators` between them, grouped to the left.
    fn chain(
        &mut self,
        expected: &'static str,
        part: fn(&mut Self, &'static str) -> Result<Parsed, ParseError>,
        operators: &[(Symbol, Operator)],
    ) -> Result<Parsed, ParseError> {
        let (mut left, mut depth) = match part(self, expected)? {
            Parsed::Value(left, depth) => (left, depth),
            condition @ Parsed::Condition(_) => return Ok(condition),
        };
        while let Some((_, operator)) = operators.iter().find(|(symbol, _)| *self.peek() == Token::Symbol(*symbol)) {
            let span = self.span();
            self.advance();
            let (right, right_depth) = self.value(part)?;
            depth = one_deeper(depth.max(right_depth), span)?;
            left = Operand::Arithmetic { left: Box::new(left), operator: *operator, right: Box::new(right) };
        }
        Ok(Parsed::Value(left, depth))
    }

    fn signed(&mut self, expected: &'static str) -> Result<Parsed, ParseError> {
        let span = self.span();
        if !self.take(Symbol::Minus) {
            return self.primary(expected);
        }
        if let Token::Number(number) = self.peek() {
            let literal = Literal::Number(negated(*number));
            self.advance();
            return Ok(Parsed::Value(Operand::Literal(literal), 0));
        }
        let (inner, depth) = self.deeper(|parser| {
            // As behind a NOT, the parenthesis behind a sign is the sign's own depth.
            if parser.peek() == &Token::Symbol(Symbol::OpenParenthesis) {
                parser.value(|parser, _| {
                    parser.advance();
                    parser.rest_of_parenthesis()
                })
            } else {
                parser.value(Self::signed)
            }
        })?;
        Ok(Parsed::Value(Operand::Negate(Box::new(inner)), one_deeper(depth, span)?))
    }

    fn primary(&mut self, expected: &'static str) -> Result<Parsed, ParseError> {
        if self.take(Symbol::OpenParenthesis) {
            return self.deeper(Self::rest_of_parenthesis);
        }
        if let Some(name) = self.function_name() {
            return self.call(&name);
        }
        match self.literal()? {
            Some(literal) => Ok(Parsed::Value(Operand::Literal(literal), 0)),
            None => Ok(Parsed::Value(Operand::Attribute(self.attribute(expected)?), 0)),
        }
    }

    /// What stands in the parenthesis that was just opened.
    fn rest_of_parenthesis(&mut self) -> Result<Parsed, ParseError> {
        let parsed = self.or("a condition")?;
        let expected = match &parsed {
            Parsed::Condition(_) => "AND, OR or `)`",
            Parsed::Value(..) => "an operator or `)`",
        };
        self.expect(Symbol::CloseParenthesis, expected)?;
        Ok(parsed)
    }

    fn call(&mut self, name: &str) -> Result<Parsed, ParseError> {
        let span = self.span();
        let unknown = || {
            let meant = most_alike(name, Function::names(self.dialect));
            unsupported(Unsupported::UnknownFunction { name: quoted(name), meant }, span)
        };
        let function = Function::named(name).ok_or_else(unknown)?;
        if !function.is_in(self.dialect) {
            return Err(unsupported(Unsupported::Function(function), span));
        }
        self.advance();
        self.advance();
        let (arguments, depth) = self.deeper(|parser| parser.arguments(function))?;
        let (fewest, most) = function.arity();
        if !(fewest..=most).contains(&arguments.len()) {
            let given = arguments.len();
            return Err(ParseError { kind: ParseErrorKind::Arguments { function, given }, span });
        }
        Ok(Parsed::Value(Operand::Call(Call { function, arguments }), one_deeper(depth, span)?))
    }

    /// The rest of a call whose `(` was just taken.
    fn arguments(&mut self, function: Function) -> Result<(Vec<Operand>, usize), ParseError> {
        let (mut arguments, mut deepest) = (Vec::new(), 0);
        if self.take(Symbol::CloseParenthesis) {
            return Ok((arguments, deepest));
        }
        loop {
            // What is a value always is defined, so that only an attribute makes sense there.
            let (argument, depth) = if function == Function::IsDefined {
                (Operand::Attribute(self.attribute("an attribute")?), 0)
            } else {
                self.value(Self::sum)?
            };
            arguments.push(argument);
            deepest = deepest.max(depth);
            if !self.take(Symbol::Comma) {
                break;
            }
        }
        self.expect(Symbol::CloseParenthesis, "`,` or `)`")?;
        Ok((arguments, deepest))
    }

    fn value(
        &mut self,
        part: fn(&mut Self, &'static str) -> Result<Parsed, ParseError>,
    ) -> Result<(Operand, usize), ParseError> {
        let span = self.span();
        match part(self, VALUE)? {
            Parsed::Value(operand, depth) => Ok((operand, depth)),
            Parsed::Condition(_) => {
                let kind = ParseErrorKind::Unexpected { found: "a condition".to_owned(), expected: VALUE, meant: None };
                Err(ParseError { kind, span })
            }
        }
    }

    /// `parsed` where a condition is needed: a function may be one, any other value is not.
    fn as_condition(&self, parsed: Parsed) -> Result<Expr, ParseError> {
        match parsed {
            Parsed::Condition(expr) => Ok(expr),
            Parsed::Value(Operand::Call(call), _) => Ok(Expr::Call(call)),
            Parsed::Value(..) => Err(self.unexpected("a comparison (=, !=, <>, <, <=, >, >=, IN or NIN)")),
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
            items.push(self.element()?);
            if !self.take(Symbol::Comma) {
                break;
            }
        }
        self.expect(Symbol::CloseBracket, "`,` or `]`")?;
        Ok(items)
    }

    fn element(&mut self) -> Result<Literal, ParseError> {
        if self.take(Symbol::Minus) {
            let Token::Number(number) = self.peek() else { return Err(self.unexpected("a number")) };
            let literal = Literal::Number(negated(*number));
            self.advance();
            return Ok(literal);
        }
        self.literal()?.ok_or_else(|| self.unexpected("a value"))
    }

    /// The word here, when a `(` follows that makes it a function.
    pub(super) fn function_name(&self) -> Option<String> {
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

    /// Runs `inner` one level deeper.
    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, ParseError>) -> Result<T, ParseError> {
        if self.depth == DEPTH_MAX {
            return Err(ParseError { kind: ParseErrorKind::TooDeep, span: self.span() });
        }
        self.depth += 1;
        let result = inner(self)?;
        self.depth -= 1;
        Ok(result)
    }
}

fn one_deeper(depth: usize, span: Span) -> Result<usize, ParseError> {
    if depth == DEPTH_MAX { Err(ParseError { kind: ParseErrorKind::TooDeep, span }) } else { Ok(depth + 1) }
}

fn negated(number: Number) -> Number {
    match number {
        // Digits give no negative number, so there is always an opposite.
        Number::Integer(value) => Number::Integer(-value),
        Number::Float(value) => Number::Float(-value),
    }
}
