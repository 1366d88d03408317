//! Text to tokens.
//!
//! Invariant: tokens come in the order of the text, their spans do not overlap, and the last one is [`Token::End`].

use super::error::{ParseError, ParseErrorKind, Span, quoted};
use super::print::{begins_name, continues_name};
use crate::twin::Number;

/// A word of the language. Keywords are plain [`Token::Word`]s; the parser knows where they count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// An unquoted name or keyword, a leading `$` included.
    Word(String),
    /// `[[name]]`.
    Bracketed(String),
    /// A number; a sign is a symbol of its own.
    Number(Number),
    /// A string, unescaped.
    String(String),
    /// Punctuation or an operator.
    Symbol(Symbol),
    /// The end of the text.
    End,
}

/// Punctuation and operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Symbol {
    Comma,
    Dot,
    OpenParenthesis,
    CloseParenthesis,
    OpenBracket,
    CloseBracket,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Star,
    Plus,
    Minus,
    Slash,
    Percent,
}

/// Longer symbols first, so that `<=` is not `<`.
const SYMBOLS: [(&str, Symbol); 18] = [
    ("!=", Symbol::NotEqual),
    ("<>", Symbol::NotEqual),
    ("<=", Symbol::LessOrEqual),
    (">=", Symbol::GreaterOrEqual),
    ("=", Symbol::Equal),
    ("<", Symbol::Less),
    (">", Symbol::Greater),
    (",", Symbol::Comma),
    (".", Symbol::Dot),
    ("(", Symbol::OpenParenthesis),
    (")", Symbol::CloseParenthesis),
    ("[", Symbol::OpenBracket),
    ("]", Symbol::CloseBracket),
    ("*", Symbol::Star),
    ("+", Symbol::Plus),
    ("-", Symbol::Minus),
    ("/", Symbol::Slash),
    ("%", Symbol::Percent),
];

/// The tokens of `text` with their places.
pub(super) fn tokenise(text: &str) -> Result<Vec<(Token, Span)>, ParseError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip(|character| matches!(character, ' ' | '\t' | '\r' | '\n'));
        let start = lexer.at;
        let token = lexer.token().map_err(|kind| ParseError { kind, span: lexer.problem_span(start) })?;
        let done = token == Token::End;
        tokens.push((token, Span { start, end: lexer.at }));
        if done {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    /// The next byte; always on a character border.
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.at += character.len_utf8();
        Some(character)
    }

    fn skip(&mut self, wanted: impl Fn(char) -> bool) {
        self.at += self.rest().len() - self.rest().trim_start_matches(wanted).len();
    }

    /// From `start` to where the lexer stopped, at least one character where there is one.
    fn problem_span(&self, start: usize) -> Span {
        let first = self.text[start..].chars().next().map_or(0, char::len_utf8);
        Span { start, end: self.at.max(start + first) }
    }

    fn token(&mut self) -> Result<Token, ParseErrorKind> {
        let Some(first) = self.peek() else { return Ok(Token::End) };
        if let Some(name) = self.rest().strip_prefix("[[") {
            let length = name.find("]]").ok_or(ParseErrorKind::OpenName)?;
            self.at += "[[".len() + length + "]]".len();
            return Ok(Token::Bracketed(name[..length].to_owned()));
        }
        let starts_name = begins_name(first) || first == '$' && self.rest()[1..].starts_with(begins_name);
        if starts_name {
            let start = self.at;
            self.next();
            self.skip(continues_name);
            return Ok(Token::Word(self.text[start..self.at].to_owned()));
        }
        if first.is_ascii_digit() {
            return self.number();
        }
        if matches!(first, '\'' | '"') {
            self.next();
            return self.string(first);
        }
        let found = SYMBOLS.iter().find(|(text, _)| self.rest().starts_with(text));
        let (text, symbol) = found.ok_or(ParseErrorKind::Character(first))?;
        self.at += text.len();
        Ok(Token::Symbol(*symbol))
    }

    fn number(&mut self) -> Result<Token, ParseErrorKind> {
        let start = self.at;
        let hex = self.rest().starts_with("0x") || self.rest().starts_with("0X");
        // All that could belong to a number or be glued to it, so that `1x` is one wrong number and not two tokens.
        self.skip(|character| continues_name(character) || character == '.');
        if !hex && self.text[start..self.at].ends_with(['e', 'E']) && self.rest().starts_with(['+', '-']) {
            self.next();
            self.skip(continues_name);
        }
        let text = &self.text[start..self.at];
        let number = if hex { hexadecimal(&text[2..]) } else { decimal(text) };
        number.map(Token::Number).ok_or_else(|| ParseErrorKind::Number(quoted(text)))
    }

    /// The string whose opening `quote` was just taken.
    fn string(&mut self, quote: char) -> Result<Token, ParseErrorKind> {
        let mut value = String::new();
        loop {
            match self.next().ok_or(ParseErrorKind::OpenString(quote))? {
                end if end == quote => return Ok(Token::String(value)),
                '\\' => value.push(self.escaped()?),
                plain => value.push(plain),
            }
        }
    }

    /// The character behind a backslash.
    fn escaped(&mut self) -> Result<char, ParseErrorKind> {
        match self.next().ok_or(ParseErrorKind::Escape)? {
            plain @ ('\'' | '"' | '\\') => Ok(plain),
            'u' => {
                let mut units = vec![self.code_unit()?];
                if (0xD800..0xDC00).contains(&units[0]) && self.rest().starts_with("\\u") {
                    self.at += "\\u".len();
                    units.push(self.code_unit()?);
                }
                match String::from_utf16(&units).map(|text| text.chars().collect::<Vec<_>>()).as_deref() {
                    Ok([character]) => Ok(*character),
                    Ok(_) | Err(_) => Err(ParseErrorKind::Escape),
                }
            }
            _ => Err(ParseErrorKind::Escape),
        }
    }

    fn code_unit(&mut self) -> Result<u16, ParseErrorKind> {
        let digits = self.rest().get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()).ok_or(ParseErrorKind::Escape)?;
        self.at += 4;
        Ok(unit)
    }
}

fn hexadecimal(digits: &str) -> Option<Number> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| i64::from_str_radix(digits, 16).ok()).flatten().map(Number::Integer)
}

fn decimal(text: &str) -> Option<Number> {
    if let Ok(integer) = text.parse() {
        return Some(Number::Integer(integer));
    }
    // Rust's float syntax is the one meant here, except that it knows words such as `inf`, and a bare point at the end.
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    let complete = text.ends_with(|last: char| last.is_ascii_digit());
    (plain && complete).then(|| text.parse().ok()).flatten().and_then(Number::from_f64)
}
