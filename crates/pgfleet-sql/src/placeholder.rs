//! Values put into a text where it names them.
//!
//! The mapping from the rendered text back to the file is kept, so that an error of the server still points into what
//! somebody wrote.

use crate::lexer::{self, TokenKind};
use std::borrow::Cow;
use thiserror::Error;

/// How placeholders are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Style {
    /// `:'name'` for a quoted value and `:"name"` for a quoted identifier, outside of quotes and comments.
    Psql,
    /// `${name}` for the value as it is, anywhere.
    Flyway,
}

/// A text with its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered<'a> {
    /// The text to send.
    pub text: Cow<'a, str>,
    replacements: Vec<Replacement>,
}

/// Two ranges that correspond: the placeholder and what stands in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Replacement {
    source: (usize, usize),
    rendered: (usize, usize),
}

impl Rendered<'_> {
    /// Returns the byte of the source that a byte of the rendered text comes from; of a value, its placeholder's first.
    pub fn source_offset(&self, rendered_offset: usize) -> usize {
        let index = self.replacements.partition_point(|r| r.rendered.0 <= rendered_offset);
        match index.checked_sub(1).map(|i| &self.replacements[i]) {
            None => rendered_offset,
            Some(r) if rendered_offset < r.rendered.1 => r.source.0,
            Some(r) => r.source.1 + (rendered_offset - r.rendered.1),
        }
    }
}

/// A placeholder without a usable value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", match .kind {
    Kind::Unknown => format!("no value for the placeholder `{}`", .name),
    Kind::Nul => format!("the value of the placeholder `{}` holds a NUL character", .name),
    Kind::Empty => format!("the value of the placeholder `{}` is empty, which no identifier can be", .name),
})]
pub struct PlaceholderError {
    /// The name in the placeholder.
    pub name: String,
    /// The byte of the text where the placeholder begins.
    pub offset: usize,
    kind: Kind,
}

impl PlaceholderError {
    /// Whether nothing is known under the name, rather than something unusable.
    pub fn is_unknown(&self) -> bool {
        self.kind == Kind::Unknown
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unknown,
    Nul,
    Empty,
}

/// A placeholder found in a text.
struct Placeholder<'a> {
    name: &'a str,
    start: usize,
    end: usize,
    form: Form,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Literal {
        /// Whether the server would take the value for the next part of a string before it in which a backslash counts.
        goes_on: bool,
    },
    Identifier,
    Raw,
}

/// Puts values in place of the placeholders of a text; without any, the text is borrowed.
///
/// # Errors
///
/// If `lookup` has no value for a name, or one that cannot be written there.
pub fn render<'a>(
    text: &'a str,
    style: Style,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Rendered<'a>, PlaceholderError> {
    let placeholders = find(text, style);
    if placeholders.is_empty() {
        return Ok(Rendered { text: Cow::Borrowed(text), replacements: Vec::new() });
    }
    let mut rendered = String::with_capacity(text.len());
    let mut replacements = Vec::with_capacity(placeholders.len());
    let mut done = 0;
    for Placeholder { name, start, end, form } in placeholders {
        let fail = |kind| PlaceholderError { name: name.to_owned(), offset: start, kind };
        let value = lookup(name).ok_or_else(|| fail(Kind::Unknown))?;
        if value.contains('\0') {
            return Err(fail(Kind::Nul));
        }
        if value.is_empty() && form == Form::Identifier {
            return Err(fail(Kind::Empty));
        }
        rendered.push_str(&text[done..start]);
        let rendered_start = rendered.len();
        match form {
            Form::Literal { goes_on } => {
                // A block comment is what keeps the server from taking two strings for one.
                rendered.push_str(if goes_on { "/**/" } else { "" });
                quote(&mut rendered, &value, '\'');
            }
            Form::Identifier => quote(&mut rendered, &value, '"'),
            Form::Raw => rendered.push_str(&value),
        }
        replacements.push(Replacement { source: (start, end), rendered: (rendered_start, rendered.len()) });
        done = end;
    }
    rendered.push_str(&text[done..]);
    Ok(Rendered { text: Cow::Owned(rendered), replacements })
}

/// Returns the names of the placeholders in a text, each once, in the order of the text.
pub fn names(text: &str, style: Style) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for placeholder in find(text, style) {
        if !names.iter().any(|name| name == placeholder.name) {
            names.push(placeholder.name.to_owned());
        }
    }
    names
}

fn find(text: &str, style: Style) -> Vec<Placeholder<'_>> {
    match style {
        Style::Psql if text.contains(":'") || text.contains(":\"") => find_psql(text),
        Style::Flyway if text.contains("${") => find_flyway(text),
        Style::Psql | Style::Flyway => Vec::new(),
    }
}

fn find_psql(text: &str) -> Vec<Placeholder<'_>> {
    let mut found = Vec::new();
    let mut colon = None;
    // The string before, if nothing is between but white space: whether it is plain in all of its parts. `E'a'`, a line
    // end and `'b'` are one escape string, and a value in place of `'b'` could get out of it by a backslash.
    let mut string = None;
    let mut string_before_colon = None;
    for token in lexer::tokens(text) {
        let form = match token.kind {
            TokenKind::String if text[token.start..].starts_with('\'') => {
                Some(Form::Literal { goes_on: string_before_colon == Some(false) })
            }
            TokenKind::QuotedIdentifier if text[token.start..].starts_with('"') => Some(Form::Identifier),
            _ => None,
        };
        if let (Some(start), Some(form)) = (colon, form) {
            let name = &text[token.start + 1..token.end - 1];
            if is_psql_name(name) {
                found.push(Placeholder { name, start, end: token.end, form });
            }
        }
        string_before_colon = string;
        string = match token.kind {
            TokenKind::Whitespace | TokenKind::LineComment => string,
            TokenKind::String => Some(string.unwrap_or(true) && text[token.start..].starts_with('\'')),
            TokenKind::EscapeString => Some(false),
            _ => None,
        };
        // The lexer takes `::` and `:=` as one, so a lone colon is one that psql looks at.
        colon = (token.kind == TokenKind::Punctuation && token.text(text) == ":").then_some(token.start);
    }
    found
}

fn find_flyway(text: &str) -> Vec<Placeholder<'_>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(start) = text[from..].find("${").map(|position| from + position) {
        from = start + 2;
        // What is not a name is left alone: `$${"a": 1}$$` is a dollar-quoted string.
        let length = text[from..].bytes().take_while(|b| is_flyway_name(*b)).count();
        if length > 0 && text.as_bytes().get(from + length) == Some(&b'}') {
            found.push(Placeholder {
                name: &text[from..from + length],
                start,
                end: from + length + 1,
                form: Form::Raw,
            });
            from += length + 1;
        }
    }
    found
}

fn is_psql_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80)
}

fn is_flyway_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b':') || byte >= 0x80
}

/// Writes a value in quotes. Doubling the quote is enough with `standard_conforming_strings`, which the runner sets; this
/// crate does not use the connection's own quoting, because it knows no connection.
fn quote(rendered: &mut String, value: &str, quote: char) {
    separate(rendered);
    rendered.push(quote);
    for character in value.chars() {
        rendered.extend(std::iter::repeat_n(character, 1 + usize::from(character == quote)));
    }
    rendered.push(quote);
}

/// Puts a space where what is written next would become part of the token before: `e:'name'` is no escape string, and
/// two strings in a row are not one with a quote in it.
fn separate(rendered: &mut String) {
    let joins = |byte: &u8| lexer::is_identifier_part(*byte) || matches!(byte, b'\'' | b'"' | b'&');
    if rendered.as_bytes().last().is_some_and(joins) {
        rendered.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lexer::tests::tricky_text;
    use proptest::prelude::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "name" => Some("O'Neil\\".to_owned()),
            "table" => Some("a\"b".to_owned()),
            "empty" => Some(String::new()),
            "nul" => Some("\0".to_owned()),
            "ä" => Some("umlaut".to_owned()),
            "flyway:user" => Some("me".to_owned()),
            _ => None,
        }
    }

    fn psql(text: &str) -> String {
        render(text, Style::Psql, &lookup).unwrap().text.into_owned()
    }

    fn flyway(text: &str) -> String {
        render(text, Style::Flyway, &lookup).unwrap().text.into_owned()
    }

    #[test]
    fn values_and_names_are_quoted() {
        assert_eq!(
            psql("insert into :\"table\" values (:'name', :'empty', :'ä')"),
            "insert into \"a\"\"b\" values ('O''Neil\\', '', 'umlaut')"
        );
    }

    #[test]
    fn quotes_comments_and_casts_hold_no_placeholders() {
        for text in [
            "':''name'''",
            "\":'name'\"",
            "$$:'name'$$",
            "-- :'name'\n",
            "/* :'name' */",
            "a::'name'",
            "a:='name'",
            ": 'name'",
            ":E'name'",
            ":'two words'",
            ":''",
            ":name",
            "a[1:2]",
            "select ':' 'name'",
            "E'\\':'name'",
        ] {
            let rendered = render(text, Style::Psql, &lookup).unwrap();
            assert!(matches!(rendered.text, Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn a_value_is_a_token_of_its_own() {
        assert_eq!(
            psql("select date:'ä', e:'name', u&:'name', 1:'ä'"),
            "select date 'umlaut', e 'O''Neil\\', u& 'O''Neil\\', 1 'umlaut'"
        );
        assert_eq!(psql("'a':'ä':'ä' :\"table\":\"ä\""), "'a' 'umlaut' 'umlaut' \"a\"\"b\" \"umlaut\"");
        assert_eq!(psql("(:'ä'),:'ä'::text-:'ä'"), "('umlaut'),'umlaut'::text-'umlaut'");
    }

    #[test]
    fn no_value_goes_on_from_a_string_in_which_a_backslash_counts() {
        let value = |_: &str| Some("\\'; drop table t; --".to_owned());
        for before in ["E'a'\n", "e'a'\n'b' -- c\n\t", "U&'a'\n", "u&'a'\n'b'\r\n"] {
            let text = format!("select {before}:'x'; select 2");
            let rendered = render(&text, Style::Psql, &value).unwrap();
            assert_eq!(rendered.text, format!("select {before}/**/'\\''; drop table t; --'; select 2"));
            assert_eq!(crate::statement::split(&rendered.text).unwrap().len(), 2, "{text}");
            assert_eq!(rendered.source_offset(rendered.text.find("select 2").unwrap()), text.find("select 2").unwrap());
        }
        // One plain string after another is one string, as in psql.
        assert_eq!(
            psql("select 'a'\n:'name'\n:'ä', E'b' || :'ä'"),
            "select 'a'\n'O''Neil\\'\n'umlaut', E'b' || 'umlaut'"
        );
        assert_eq!(psql("E'a'\n:'ä'\n:'ä'"), "E'a'\n/**/'umlaut'\n'umlaut'");
    }

    #[test]
    fn flyway_replaces_anywhere_and_as_is() {
        assert_eq!(
            flyway("-- ${table}\nselect '${name}', $$${ä}$$, ${flyway:user}"),
            "-- a\"b\nselect 'O'Neil\\', $$umlaut$$, me"
        );
        for text in ["$${\"a\": 1}$$", "${", "${}", "$ {name}", "${a b}", "${a ${name"] {
            assert_eq!(flyway(text), text);
        }
        assert_eq!(flyway("${a ${name}"), "${a O'Neil\\");
    }

    /// Quadratic time would not end here.
    #[test]
    fn many_that_are_no_placeholders_take_no_longer_for_each() {
        for piece in ["${", "${a", "${ ", ":'", ":", ":\""] {
            let text = format!("{}}}", piece.repeat(300_000));
            for style in [Style::Psql, Style::Flyway] {
                assert!(names(&text, style).len() <= 1, "{piece}");
            }
        }
    }

    #[test]
    fn a_placeholder_without_a_usable_value_is_an_error() {
        let fails = |text, style| {
            let error = render(text, style, &lookup).unwrap_err();
            (error.to_string(), error.offset, error.is_unknown())
        };
        assert_eq!(fails("select :'nothing'", Style::Psql), ("no value for the placeholder `nothing`".into(), 7, true));
        assert_eq!(
            fails("select ${nothing}", Style::Flyway),
            ("no value for the placeholder `nothing`".into(), 7, true)
        );
        assert!(fails(":'nul'", Style::Psql).0.contains("NUL"));
        assert!(!fails(":\"empty\"", Style::Psql).2);
    }

    #[test]
    fn names_come_once_and_in_order() {
        assert_eq!(names(":'b' :\"a\" :'b' ':''c'''", Style::Psql), ["b", "a"]);
        assert_eq!(names("${b} '${a}' ${b}", Style::Flyway), ["b", "a"]);
        assert!(names("select 1", Style::Psql).is_empty());
    }

    #[test]
    fn places_behind_a_value_map_back_to_the_file() {
        let text = "a :'name' b :\"table\" c";
        let rendered = render(text, Style::Psql, &lookup).unwrap();
        assert_eq!(rendered.text, "a 'O''Neil\\' b \"a\"\"b\" c");
        let places = ["a ", "'O", "Neil", " b", "\"a", " c"]
            .map(|part| rendered.source_offset(rendered.text.find(part).unwrap()));
        assert_eq!(places, [0, 2, 2, 9, 12, 20]);
        assert_eq!(rendered.source_offset(rendered.text.len()), text.len());
    }

    /// Placeholders beside everything that could run into them.
    fn text_with_placeholders() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            ":'x'", ":'x'", ":\"x\"", "'a'", "E'a'", "e'\\''", "U&'a'", "\"a\"", "U&\"a\"", "b'1'", "$$a$$", "$a", "a",
            "e", "u&", "1", "\n", "\n", " ", "-- c\n", "/* c */", ":", "::", ",", "'", "\\", "-",
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn what_is_not_a_placeholder_maps_back_to_itself(
            pieces in prop::collection::vec((" [a-z ä]{0,6}", prop::sample::select(vec![":'name'", ":\"table\"", ":'empty'"])), 0..6),
        ) {
            let text: String = pieces.iter().flat_map(|(plain, placeholder)| [plain.as_str(), " ", placeholder]).collect();
            let rendered = render(&text, Style::Psql, &lookup).unwrap();
            let mut source = 0;
            let mut target = 0;
            for (plain, placeholder) in &pieces {
                for (i, byte) in plain.bytes().enumerate() {
                    prop_assert_eq!(rendered.text.as_bytes()[target + i], byte);
                    prop_assert_eq!(rendered.source_offset(target + i), source + i);
                }
                source += plain.len() + 1;
                target += plain.len() + 1;
                prop_assert_eq!(rendered.source_offset(target), source);
                source += placeholder.len();
                target += match *placeholder { ":'name'" => "'O''Neil\\'".len(), ":'empty'" => 2, _ => "\"a\"\"b\"".len() };
            }
            prop_assert_eq!(target, rendered.text.len());
        }

        #[test]
        fn values_are_tokens_and_nothing_else_changes(
            text in prop_oneof![tricky_text(), text_with_placeholders()],
            value in tricky_text(),
        ) {
            // No identifier is empty, and nothing holds a NUL.
            let value = format!("{}v", value.replace('\0', ""));
            let Ok(rendered) = render(&text, Style::Psql, &|_| Some(value.clone())) else {
                return Err(TestCaseError::fail("every name has a value"));
            };
            let mut tokens = lexer::significant(&rendered.text).peekable();
            let mut taken = 0;
            for (index, replacement) in rendered.replacements.iter().enumerate() {
                // What is between two placeholders, token by token.
                while let Some(token) = tokens.next_if(|token| token.end <= replacement.rendered.0) {
                    let source = rendered.source_offset(token.start);
                    prop_assert_eq!(&text[source..source + (token.end - token.start)], token.text(&rendered.text));
                    taken += 1;
                }
                let Some(token) = tokens.next() else { return Err(TestCaseError::fail("a value is lost")) };
                prop_assert_eq!(token.end, replacement.rendered.1, "value {} of {:?}", index, rendered.text);
                let plain = token.text(&rendered.text);
                prop_assert!(token.start == replacement.rendered.1 - plain.len() && plain.ends_with(['\'', '"']));
                taken += 2;
            }
            prop_assert_eq!(taken + tokens.count(), lexer::significant(&text).count());
        }

        #[test]
        fn any_text_renders_or_names_what_is_missing(text in tricky_text(), style in prop::sample::select(vec![Style::Psql, Style::Flyway])) {
            let value = |name: &str| (!name.contains('x')).then(|| name.to_owned());
            match render(&text, style, &value) {
                Ok(rendered) => prop_assert_eq!(rendered.source_offset(rendered.text.len()), text.len()),
                Err(error) => prop_assert!(text[error.offset..].contains(&error.name)),
            }
        }
    }
}
