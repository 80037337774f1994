//! A value in place of a placeholder is one token, whatever it holds and wherever it stands, and nothing else changes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgfleet_fuzz::tokens;
use pgfleet_sql::lexer::{Token, TokenKind};
use pgfleet_sql::placeholder::{Style, names, render};

fuzz_target!(|input: (&str, &str)| {
    let (text, value) = input;
    let lookup = |_: &str| Some(value.to_owned());
    for style in [Style::Psql, Style::Flyway] {
        let found = names(text, style);
        assert!(found.iter().all(|name| text.contains(name)));
        assert!(found.is_empty() || render(text, style, &|_| None).is_err());
        match render(text, style, &lookup) {
            Ok(rendered) => assert_eq!(rendered.source_offset(rendered.text.len()), text.len()),
            Err(error) => assert!(!error.is_unknown() && (value.is_empty() || value.contains('\0'))),
        }
    }
    if let Ok(rendered) = render(text, Style::Psql, &lookup) {
        let significant =
            |text: &str| -> Vec<Token> { tokens(text).into_iter().filter(|token| !token.kind.is_trivia()).collect() };
        let mut source = significant(text).into_iter().peekable();
        for token in significant(&rendered.text) {
            let offset = rendered.source_offset(token.start);
            let original = source.next().expect("no token of the text before");
            if original.start == offset && original.text(text) == token.text(&rendered.text) {
                continue;
            }
            // The colon of a placeholder; its name comes next, and the value stands for both.
            assert_eq!(original.text(text), ":");
            assert_eq!(original.start, offset);
            let name = source.next().expect("a placeholder has a name");
            let name = name.text(text);
            assert!(name.starts_with(['\'', '"']));
            let quote = &name[..1];
            let doubled = value.replace(quote, &quote.repeat(2));
            assert_eq!(token.text(&rendered.text), format!("{quote}{doubled}{quote}"));
            assert!(matches!(token.kind, TokenKind::String | TokenKind::QuotedIdentifier));
        }
        assert_eq!(source.next(), None);
    }
});
