//! Tokens cover any text, and what follows a token that is closed does not change those before it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgfleet_fuzz::tokens;
use pgfleet_sql::checksum::checksum;
use pgfleet_sql::lexer::TokenKind;

fuzz_target!(|text: &str| {
    let all = tokens(text);
    assert_eq!(checksum(text).len(), 67);
    // A semicolon belongs to no other token, so the text behind it has the same tokens alone.
    if let Some(semicolon) = all.iter().position(|token| token.kind == TokenKind::Semicolon) {
        let rest = &text[all[semicolon].end..];
        let alone: Vec<_> = tokens(rest).iter().map(|token| (token.kind, token.text(rest))).collect();
        let there: Vec<_> = all[semicolon + 1..].iter().map(|token| (token.kind, token.text(text))).collect();
        assert_eq!(alone, there);
        let before = &text[..all[semicolon].end];
        assert_eq!(tokens(before), &all[..=semicolon]);
    }
});
