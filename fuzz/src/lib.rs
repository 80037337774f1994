//! What several targets ask of the tokens and statements of a text.

use pgfleet_sql::lexer::{self, Token, TokenKind};
use pgfleet_sql::statement::Statement;

/// The tokens of a text, which cover it without gaps.
pub fn tokens(text: &str) -> Vec<Token> {
    let tokens: Vec<Token> = lexer::tokens(text).collect();
    let mut end = 0;
    for token in &tokens {
        assert_eq!(token.start, end);
        assert!(token.end > token.start && text.is_char_boundary(token.end));
        end = token.end;
    }
    assert_eq!(end, text.len());
    tokens
}

/// The ranges of statements are in order and apart, and hold every token that means something.
pub fn assert_complete(text: &str, statements: &[Statement]) {
    let mut end = 0;
    for (index, statement) in statements.iter().enumerate() {
        assert!(statement.start >= end && statement.end > statement.start);
        assert!(statement.terminated || index + 1 == statements.len());
        end = statement.end;
    }
    assert!(end <= text.len());
    let mut semicolons = vec![0; statements.len() + 1];
    for token in tokens(text) {
        let before = statements.partition_point(|statement| statement.end <= token.start);
        let next = statements.get(before);
        let inside = next.is_some_and(|s| s.start <= token.start && token.end <= s.end);
        assert!(inside || next.is_none_or(|s| token.end <= s.start), "a statement ends inside of a token");
        if token.kind == TokenKind::Semicolon && !inside {
            semicolons[before] += 1;
        } else if !token.kind.is_trivia() && token.kind != TokenKind::MetaCommand {
            assert!(inside, "{token:?} belongs to no statement");
        }
    }
    for (index, statement) in statements.iter().enumerate() {
        assert_eq!(statement.terminated, semicolons[index + 1] > 0);
    }
}
