//! Where the parser stands among the tokens.
//!
//! Invariant: there is always a token to look at; at the end the parser stays on [`Token::End`].

use super::super::error::{ParseError, ParseErrorKind, Span, most_alike, quoted};
use super::super::lexer::{Symbol, Token};
use super::Parser;

/// Shorter words are like every other; none of them is taken for another one.
const ALIKE_LENGTH_MIN: usize = 3;

impl Parser<'_> {
    pub(super) fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    pub(super) fn span(&self) -> Span {
        self.tokens[self.at].1
    }

    pub(super) fn advance(&mut self) {
        // The last token is the end, and there the parser stays.
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    pub(super) fn take(&mut self, symbol: Symbol) -> bool {
        let found = *self.peek() == Token::Symbol(symbol);
        if found {
            self.advance();
        }
        found
    }

    pub(super) fn expect(&mut self, symbol: Symbol, expected: &'static str) -> Result<(), ParseError> {
        if self.take(symbol) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    pub(super) fn is_keyword(&self, keyword: &str) -> bool {
        matches!(self.peek(), Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    pub(super) fn take_keyword(&mut self, keyword: &str) -> bool {
        let found = self.is_keyword(keyword);
        if found {
            self.advance();
        }
        found
    }

    pub(super) fn expect_keyword(&mut self, keyword: &str, expected: &'static str) -> Result<(), ParseError> {
        if self.take_keyword(keyword) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    pub(super) fn unexpected(&self, expected: &'static str) -> ParseError {
        let span = self.span();
        let found = match self.peek() {
            Token::End => "the end of the query".to_owned(),
            Token::Word(_) | Token::Bracketed(_) | Token::Number(_) | Token::String(_) | Token::Symbol(_) => {
                quoted(&self.text[span.start..span.end])
            }
        };
        let meant = match self.peek() {
            Token::Word(word) if word.len() >= ALIKE_LENGTH_MIN => most_alike(word, words_of(expected)),
            Token::Word(_)
            | Token::Bracketed(_)
            | Token::Number(_)
            | Token::String(_)
            | Token::Symbol(_)
            | Token::End => None,
        };
        ParseError { kind: ParseErrorKind::Unexpected { found, expected, meant }, span }
    }
}

/// The words of the language in what was expected: keywords stand there in upper case, collections as FROM has them.
fn words_of(expected: &'static str) -> impl Iterator<Item = &'static str> {
    let is_word = |word: &&str| {
        word.len() > 1
            && (word.bytes().all(|byte| byte.is_ascii_uppercase()) || ["devices", "modules", "jobs"].contains(word))
    };
    expected.split(|character: char| !character.is_ascii_alphabetic()).filter(is_word)
}
