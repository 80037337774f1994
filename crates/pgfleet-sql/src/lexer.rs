//! Cuts SQL text into tokens as PostgreSQL's scanner does.
//!
//! Everything else in this crate (statements, checks, checksums, placeholders) stands on these tokens, so the rules
//! are those of the server's `scan.l` with `standard_conforming_strings = on`: nested block comments, dollar quotes
//! with tags, escape strings and their continuation on the next line, operators cut before `--` and `/*`.
//!
//! The tokens of a text are contiguous: they cover every byte, in order, whatever the text is. What the server would
//! refuse is a token all the same ([`TokenKind::Unknown`] or one of the unterminated kinds); judging it is not done here.
//!
//! The one known difference is of no consequence: to the server `B'1''0'` is two tokens, here it is one. Both end at the
//! same byte, and the server refuses two constants in a row everywhere.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenKind {
    /// Blanks, tabs and line ends.
    Whitespace,
    /// `-- …` up to the end of its line, without the line end.
    LineComment,
    /// `/* … */`, nested ones included.
    BlockComment,
    /// A keyword or an unquoted name.
    Identifier,
    /// `"…"` or `U&"…"`.
    QuotedIdentifier,
    /// `'…'`, also with the prefixes `N`, `B`, `X` and `U&`.
    String,
    /// `E'…'`, or the continuation of one on a later line.
    EscapeString,
    /// `$$…$$` or `$tag$…$tag$`.
    DollarString,
    /// A numeric constant, without its sign.
    Number,
    /// `$1`.
    Parameter,
    /// A run of operator characters.
    Operator,
    /// `,` `[` `]` `.` `..` `:` `::` `:=`.
    Punctuation,
    /// `;`.
    Semicolon,
    /// `(`.
    OpenParen,
    /// `)`.
    CloseParen,
    /// A backslash outside of quotes and the rest of its line: psql's commands, never SQL.
    MetaCommand,
    /// A character that cannot begin a token.
    Unknown,
    /// A block comment that the text ends in.
    UnterminatedComment,
    /// A string that the text ends in.
    UnterminatedString,
    /// A dollar-quoted string that the text ends in.
    UnterminatedDollar,
    /// A quoted identifier that the text ends in.
    UnterminatedIdentifier,
}

impl TokenKind {
    /// Whether the token only separates others: white space and comments.
    pub fn is_trivia(self) -> bool {
        matches!(self, Self::Whitespace | Self::LineComment | Self::BlockComment)
    }
}

/// A piece of the text, given by its byte range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// The byte it begins at.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
}

impl Token {
    /// Returns the token's part of the text it was cut from.
    pub fn text<'a>(&self, text: &'a str) -> &'a str {
        &text[self.start..self.end]
    }

    /// Whether this is the unquoted word `word`, in any case.
    pub fn is_word(&self, text: &str, word: &str) -> bool {
        self.kind == TokenKind::Identifier && self.text(text).eq_ignore_ascii_case(word)
    }
}

/// Returns the tokens of `text`.
pub fn tokens(text: &str) -> Lexer<'_> {
    Lexer { text, bytes: text.as_bytes(), position: 0, escape: Escape::No, signs: 0 }
}

/// Returns the tokens of `text` without white space and comments.
pub fn significant(text: &str) -> impl Iterator<Item = Token> + '_ {
    tokens(text).filter(|token| !token.kind.is_trivia())
}

/// Whether a plain quote would continue an escape string: `E'a'`, a line end, `'\'b'` is one string to the server, and
/// the backslash of its second part counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    No,
    Ended,
    EndedAndNewLine,
}

/// The iterator over the tokens of a text, made by [`tokens`].
#[derive(Clone, Debug)]
pub struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    position: usize,
    escape: Escape,
    /// Up to where only signs follow, each an operator of its own; else a long row of them would be looked through again
    /// for every one.
    signs: usize,
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let start = self.position;
        let first = *self.bytes.get(start)?;
        let (kind, end) = self.token_at(start, first);
        debug_assert!(end > start && self.text.is_char_boundary(end));
        self.position = end;
        self.escape = match (kind, self.escape) {
            (TokenKind::EscapeString, _) => Escape::Ended,
            (TokenKind::Whitespace, Escape::Ended) if self.bytes[start..end].iter().any(|&b| is_line_end(b)) => {
                Escape::EndedAndNewLine
            }
            (TokenKind::Whitespace | TokenKind::LineComment, before) => before,
            _ => Escape::No,
        };
        Some(Token { kind, start, end })
    }
}

impl Lexer<'_> {
    fn token_at(&mut self, start: usize, first: u8) -> (TokenKind, usize) {
        let second = self.at(start + 1);
        match first {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => (
                TokenKind::Whitespace,
                self.run(start + 1, |b| matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)),
            ),
            b'-' if second == Some(b'-') => (TokenKind::LineComment, self.run(start + 2, |b| !is_line_end(b))),
            b'/' if second == Some(b'*') => self.block_comment(start),
            b'\'' if self.escape == Escape::EndedAndNewLine => self.escape_string(start + 1),
            b'\'' => self.plain_string(start + 1),
            b'"' => self.quoted_identifier(start + 1),
            b'e' | b'E' if second == Some(b'\'') => self.escape_string(start + 2),
            b'n' | b'N' | b'b' | b'B' | b'x' | b'X' if second == Some(b'\'') => self.plain_string(start + 2),
            b'u' | b'U' if second == Some(b'&') && self.at(start + 2) == Some(b'\'') => self.plain_string(start + 3),
            b'u' | b'U' if second == Some(b'&') && self.at(start + 2) == Some(b'"') => {
                self.quoted_identifier(start + 3)
            }
            b'$' => self.dollar(start),
            b'0'..=b'9' => (TokenKind::Number, self.number(start)),
            b'.' if second.is_some_and(|b| b.is_ascii_digit()) => (TokenKind::Number, self.number(start)),
            b';' => (TokenKind::Semicolon, start + 1),
            b'(' => (TokenKind::OpenParen, start + 1),
            b')' => (TokenKind::CloseParen, start + 1),
            b'.' if second == Some(b'.') => (TokenKind::Punctuation, start + 2),
            b':' if matches!(second, Some(b':' | b'=')) => (TokenKind::Punctuation, start + 2),
            b',' | b'[' | b']' | b'.' | b':' => (TokenKind::Punctuation, start + 1),
            b'\\' => (TokenKind::MetaCommand, self.run(start + 1, |b| !is_line_end(b))),
            _ if is_identifier_start(first) => (TokenKind::Identifier, self.run(start + 1, is_identifier_part)),
            _ if is_operator(first) => (TokenKind::Operator, self.operator(start)),
            _ => (TokenKind::Unknown, start + 1),
        }
    }

    fn at(&self, position: usize) -> Option<u8> {
        self.bytes.get(position).copied()
    }

    /// Where the bytes from `position` on stop satisfying `part`.
    fn run(&self, position: usize, part: impl Fn(u8) -> bool) -> usize {
        self.bytes[position..].iter().position(|&b| !part(b)).map_or(self.bytes.len(), |length| position + length)
    }

    fn block_comment(&self, start: usize) -> (TokenKind, usize) {
        let mut position = start + 2;
        let mut depth = 1usize;
        while let Some(byte) = self.at(position) {
            match (byte, self.at(position + 1)) {
                (b'*', Some(b'/')) => {
                    depth -= 1;
                    position += 2;
                    if depth == 0 {
                        return (TokenKind::BlockComment, position);
                    }
                }
                (b'/', Some(b'*')) => {
                    depth += 1;
                    position += 2;
                }
                _ => position += 1,
            }
        }
        (TokenKind::UnterminatedComment, self.bytes.len())
    }

    fn plain_string(&self, body: usize) -> (TokenKind, usize) {
        match self.closing(body, b'\'') {
            Some(end) => (TokenKind::String, end),
            None => (TokenKind::UnterminatedString, self.bytes.len()),
        }
    }

    fn quoted_identifier(&self, body: usize) -> (TokenKind, usize) {
        match self.closing(body, b'"') {
            Some(end) => (TokenKind::QuotedIdentifier, end),
            None => (TokenKind::UnterminatedIdentifier, self.bytes.len()),
        }
    }

    /// The end of what `quote` closes; a doubled quote stands for itself.
    fn closing(&self, body: usize, quote: u8) -> Option<usize> {
        let mut position = body;
        loop {
            position += self.bytes[position..].iter().position(|&b| b == quote)? + 1;
            if self.at(position) != Some(quote) {
                return Some(position);
            }
            position += 1;
        }
    }

    fn escape_string(&self, body: usize) -> (TokenKind, usize) {
        let mut position = body;
        while let Some(byte) = self.at(position) {
            match byte {
                // May step into the middle of a character, whose later bytes are neither a quote nor a backslash.
                b'\\' => position += 2,
                b'\'' if self.at(position + 1) == Some(b'\'') => position += 2,
                b'\'' => return (TokenKind::EscapeString, position + 1),
                _ => position += 1,
            }
        }
        (TokenKind::UnterminatedString, self.bytes.len())
    }

    fn dollar(&self, start: usize) -> (TokenKind, usize) {
        if self.at(start + 1).is_some_and(|b| b.is_ascii_digit()) {
            return (TokenKind::Parameter, self.run(start + 1, |b| b.is_ascii_digit()));
        }
        let tag_end = if self.at(start + 1).is_some_and(is_identifier_start) {
            self.run(start + 1, |b| b != b'$' && is_identifier_part(b))
        } else {
            start + 1
        };
        if self.at(tag_end) != Some(b'$') {
            return (TokenKind::Unknown, start + 1);
        }
        let delimiter = &self.text[start..=tag_end];
        match self.text[tag_end + 1..].find(delimiter) {
            Some(length) => (TokenKind::DollarString, tag_end + 1 + length + delimiter.len()),
            None => (TokenKind::UnterminatedDollar, self.bytes.len()),
        }
    }

    fn number(&self, start: usize) -> usize {
        if self.at(start) == Some(b'0') && matches!(self.at(start + 1), Some(b'x' | b'X' | b'o' | b'O' | b'b' | b'B')) {
            let end = self.run(start + 2, |b| b.is_ascii_hexdigit() || b == b'_');
            if end > start + 2 {
                return end;
            }
        }
        let mut end = self.digits(start);
        // `1..10` is a range of PL/pgSQL: the number ends before the dots.
        if self.at(end) == Some(b'.') && self.at(end + 1) != Some(b'.') {
            end = self.digits(end + 1);
        }
        if matches!(self.at(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.at(end + 1), Some(b'+' | b'-')));
            if self.at(end + 1 + sign).is_some_and(|b| b.is_ascii_digit()) {
                end = self.digits(end + 1 + sign);
            }
        }
        end
    }

    /// The end of a run of digits, which single underscores may group.
    fn digits(&self, start: usize) -> usize {
        let mut end = self.run(start, |b| b.is_ascii_digit());
        while end > start && self.at(end) == Some(b'_') && self.at(end + 1).is_some_and(|b| b.is_ascii_digit()) {
            end = self.run(end + 1, |b| b.is_ascii_digit());
        }
        end
    }

    /// The end of an operator: the longest run of operator characters, but never into a comment, and without a sign at
    /// its end unless one of the characters that no SQL operator has is in it (`=-1` is `=` and `-1`, `@-` is one).
    fn operator(&mut self, start: usize) -> usize {
        if start < self.signs {
            return start + 1;
        }
        let mut end = self.run(start + 1, is_operator);
        let run = &self.bytes[start..end];
        if let Some(comment) = run.windows(2).position(|pair| pair == b"--" || pair == b"/*") {
            end = start + comment;
        }
        let run = &self.bytes[start..end];
        if run.len() > 1
            && !run.iter().any(|b| matches!(b, b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%'))
        {
            self.signs = end;
            while end > start + 1 && matches!(self.bytes[end - 1], b'+' | b'-') {
                end -= 1;
            }
        }
        end
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// The bytes of characters outside of ASCII count as letters, as in the server.
fn is_identifier_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

pub(crate) fn is_identifier_part(byte: u8) -> bool {
    is_identifier_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

fn is_operator(byte: u8) -> bool {
    matches!(
        byte,
        b'~' | b'!'
            | b'@'
            | b'#'
            | b'^'
            | b'&'
            | b'|'
            | b'`'
            | b'?'
            | b'+'
            | b'-'
            | b'*'
            | b'/'
            | b'%'
            | b'<'
            | b'>'
            | b'='
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use TokenKind as K;
    use proptest::prelude::*;

    /// The tokens that are not white space.
    fn cut(text: &str) -> Vec<(TokenKind, &str)> {
        tokens(text).filter(|t| t.kind != K::Whitespace).map(|t| (t.kind, t.text(text))).collect()
    }

    #[test]
    fn words_and_quoted_names_are_told_apart() {
        assert_eq!(
            cut("sElect größe$1 \"a\"\"b\" u&\"d\\0061t\" u & e"),
            [
                (K::Identifier, "sElect"),
                (K::Identifier, "größe$1"),
                (K::QuotedIdentifier, "\"a\"\"b\""),
                (K::QuotedIdentifier, "u&\"d\\0061t\""),
                (K::Identifier, "u"),
                (K::Operator, "&"),
                (K::Identifier, "e"),
            ]
        );
    }

    #[test]
    fn backslashes_escape_only_in_escape_strings() {
        assert_eq!(cut(r"'a\' 'b'"), [(K::String, r"'a\'"), (K::String, "'b'")]);
        assert_eq!(
            cut(r"E'a\'' e'''' xe'y\'"),
            [(K::EscapeString, r"E'a\''"), (K::EscapeString, "e''''"), (K::Identifier, "xe"), (K::String, r"'y\'"),]
        );
        assert_eq!(cut(r"E'\ä\\'x"), [(K::EscapeString, r"E'\ä\\'"), (K::Identifier, "x")]);
        for prefix in ["n", "N", "b", "B", "x", "X", "u&", "U&"] {
            let text = format!(r"{prefix}'1\'2");
            assert_eq!(tokens(&text).next().unwrap().kind, K::String);
            assert_eq!(tokens(&text).count(), 2);
        }
    }

    #[test]
    fn an_escape_string_goes_on_after_a_line_end() {
        let continued = |text| cut(text).last().unwrap().0;
        assert_eq!(continued("E'a' \n '\\'b'"), K::EscapeString);
        assert_eq!(continued("E'a' -- c\n '\\'b'"), K::EscapeString);
        assert_eq!(continued("E'a'\n'x'\r'\\'b'"), K::EscapeString);
        assert_eq!(continued("E'a' '\\'b'"), K::UnterminatedString);
        assert_eq!(continued("E'a' /* c */\n '\\'b'"), K::UnterminatedString);
        assert_eq!(continued("E'a',\n '\\'b'"), K::UnterminatedString);
    }

    #[test]
    fn dollar_quotes_end_with_their_own_tag() {
        assert_eq!(
            cut("$$a$b$$ $a$ $$ $A$ $b$a$ $ä_1$;$ä_1$"),
            [(K::DollarString, "$$a$b$$"), (K::DollarString, "$a$ $$ $A$ $b$a$"), (K::DollarString, "$ä_1$;$ä_1$"),]
        );
        assert_eq!(cut("a$b$ c$$"), [(K::Identifier, "a$b$"), (K::Identifier, "c$$")]);
        assert_eq!(cut("$1$2"), [(K::Parameter, "$1"), (K::Parameter, "$2")]);
        assert_eq!(cut("$a b")[0], (K::Unknown, "$"));
        assert_eq!(cut("$a$ $b$"), [(K::UnterminatedDollar, "$a$ $b$")]);
    }

    #[test]
    fn block_comments_nest_and_line_comments_end_at_either_line_end() {
        assert_eq!(cut("/* /* ' */ \" */ x"), [(K::BlockComment, "/* /* ' */ \" */"), (K::Identifier, "x")]);
        assert_eq!(cut("/*/ */"), [(K::BlockComment, "/*/ */")]);
        assert_eq!(cut("/* /* */"), [(K::UnterminatedComment, "/* /* */")]);
        assert_eq!(
            cut("--a\rb--c\r\nd"),
            [(K::LineComment, "--a"), (K::Identifier, "b"), (K::LineComment, "--c"), (K::Identifier, "d"),]
        );
    }

    #[test]
    fn operators_end_before_comments_and_signs() {
        let texts = |text| cut(text).into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(texts("a=-1"), ["a", "=", "-", "1"]);
        assert_eq!(texts("a@-1"), ["a", "@-", "1"]);
        assert_eq!(texts("a<=>--b"), ["a", "<=>", "--b"]);
        assert_eq!(texts("1*/*x*/2"), ["1", "*", "/*x*/", "2"]);
        assert_eq!(
            texts("a->>'b'::c[1:2].d:=e..f"),
            ["a", "->>", "'b'", "::", "c", "[", "1", ":", "2", "]", ".", "d", ":=", "e", "..", "f"]
        );
        assert_eq!(texts("a => +-b"), ["a", "=>", "+", "-", "b"]);
    }

    /// Quadratic time would not end here.
    #[test]
    fn long_rows_of_one_thing_take_no_longer_for_each() {
        let length = 500_000;
        for piece in ["+", "+*", "<+", "$a", "$ ", "''", "(", "/*", "*/", "\\", "1.", "E'", "u&", "a$", "::", "ä", "\r"]
        {
            let text = piece.repeat(length);
            assert!(tokens(&text).map(|token| token.end - token.start).sum::<usize>() == text.len(), "{piece}");
        }
        assert_eq!(tokens(&format!("={}", "+".repeat(length))).count(), length + 1);
        assert_eq!(tokens(&format!("{}@", "+".repeat(length))).count(), 1);
    }

    #[test]
    fn numbers_keep_to_themselves() {
        let texts = |text| cut(text).into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(
            texts("1.5e-3 .5 1. 1..10 0xFf 1_000 1e 12ab"),
            ["1.5e-3", ".5", "1.", "1", "..", "10", "0xFf", "1_000", "1", "e", "12", "ab"]
        );
    }

    #[test]
    fn a_backslash_takes_the_rest_of_its_line() {
        assert_eq!(
            cut("\\echo it's\r\nx '\\d'"),
            [(K::MetaCommand, "\\echo it's"), (K::Identifier, "x"), (K::String, "'\\d'"),]
        );
    }

    /// Texts made of what makes lexing hard.
    pub(crate) fn tricky_text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            prop::sample::select(vec![
                "'",
                "''",
                "\"",
                "$$",
                "$a$",
                "$a",
                "$1",
                "\\",
                "--",
                "\n",
                "\r\n",
                "/*",
                "*/",
                ";",
                "(",
                ")",
                "E'",
                "u&'",
                "U&\"",
                "x",
                "begin",
                " atomic ",
                "end",
                "create function",
                " ",
                "ä",
                "\u{1F600}",
                ":",
                "::",
                ".",
                "1",
                "1e",
                "-",
                "+",
                "@",
                "\0",
            ])
            .prop_map(str::to_owned),
            any::<char>().prop_map(String::from),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn tokens_cover_any_text_without_gaps(text in tricky_text()) {
            let mut end = 0;
            for token in tokens(&text) {
                prop_assert_eq!(token.start, end);
                prop_assert!(token.end > token.start);
                prop_assert!(text.is_char_boundary(token.end));
                end = token.end;
            }
            prop_assert_eq!(end, text.len());
        }
    }
}
