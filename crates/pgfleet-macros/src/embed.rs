//! Folders of files as constants of the program.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::{fs, io};

use pgfleet_sql::layout::{self, Layout, LayoutError, Script};
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::{Ident, LitStr, Token};

/// `"folder"` and perhaps `, layout = "goose"`.
struct Arguments {
    folder: LitStr,
    layout: Option<LitStr>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut arguments = Self { folder: folder(input, "migrations")?, layout: None };
        while !input.is_empty() {
            input.parse::<Token![,]>()?;
            if input.is_empty() {
                break;
            }
            let key: Ident = input.parse()?;
            if key != "layout" {
                return Err(error(key.span(), format!("unknown key `{key}`"), "the only key is `layout`"));
            }
            if arguments.layout.is_some() {
                return Err(error(key.span(), "`layout` is given twice", "keep one of them"));
            }
            input.parse::<Token![=]>()?;
            arguments.layout = Some(input.parse()?);
        }
        Ok(arguments)
    }
}

/// Reads the name of the folder, which every form begins with.
fn folder(input: ParseStream<'_>, name: &str) -> syn::Result<LitStr> {
    input
        .parse()
        .map_err(|other| error(other.span(), "expected the folder, as a string", &format!("write {name}!(\"{name}\")")))
}

pub(crate) fn migrations(input: TokenStream, root: &Path) -> syn::Result<TokenStream> {
    let Arguments { folder: literal, layout } = syn::parse2(input)?;
    let layout = layout.map(|name| parse_layout(&name)).transpose()?;
    let dir = root.join(literal.value());
    if !dir.exists() {
        return Err(missing(&literal, &dir, "migrations"));
    }
    let folder = layout::read_folder(&dir, layout).map_err(|failure| unreadable(&literal, &failure))?;
    let name = folder.layout.name();
    let files = files(&literal, &dir, &folder.files)?;
    Ok(quote!(::pgfleet::embed::Folder::new(#literal, #name, &[#files])))
}

pub(crate) fn seeds(input: TokenStream, root: &Path) -> syn::Result<TokenStream> {
    let literal: LitStr = syn::parse::Parser::parse2(
        |input: ParseStream<'_>| {
            let literal = folder(input, "seeds")?;
            input.parse::<Option<Token![,]>>()?;
            Ok(literal)
        },
        input,
    )?;
    let dir = root.join(literal.value());
    if !dir.exists() {
        return Err(missing(&literal, &dir, "seeds"));
    }
    let paths = seed_paths(&dir).map_err(|failure| {
        let message = format!("{}: the folder of seeds cannot be read\ncaused by: {failure}", dir.display());
        error(literal.span(), message, "check that it is a folder and may be read")
    })?;
    for path in &paths {
        // The compiler would say less about a file that is not UTF-8.
        Script::read(path).map_err(|failure| unreadable(&literal, &failure))?;
    }
    let files = files(&literal, &dir, &paths)?;
    Ok(quote!(::pgfleet::embed::Seeds::new(#literal, &[#files])))
}

pub(crate) fn parse_layout(name: &LitStr) -> syn::Result<Layout> {
    name.value().parse().map_err(|unknown: layout::UnknownLayout| error(name.span(), &unknown, &unknown.hint()))
}

/// The files that are seeds where a service reads the folder itself.
fn seed_paths(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let is_seed = |name: &str| name.strip_suffix(".sql").is_some_and(|stem| !stem.starts_with('.'));
        if path.file_name().and_then(|name| name.to_str()).is_some_and(is_seed) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The elements of the array: the path in the folder, and the text.
fn files(literal: &LitStr, dir: &Path, paths: &[PathBuf]) -> syn::Result<TokenStream> {
    let mut elements = TokenStream::new();
    for path in paths {
        let inner = path.strip_prefix(dir).unwrap_or(path);
        let names: Option<Vec<&str>> = inner.iter().map(|name| name.to_str()).collect();
        let (Some(names), Some(whole)) = (names, path.to_str()) else {
            let message = format!("{}: the path is not UTF-8", path.display());
            return Err(error(literal.span(), message, "rename the file or folder"));
        };
        // One program for all machines: the path in it has the same form wherever it was compiled.
        let relative = names.join("/");
        elements.extend(quote!((#relative, ::core::include_str!(#whole)),));
    }
    Ok(elements)
}

fn missing(literal: &LitStr, dir: &Path, what: &str) -> syn::Error {
    let message = format!("{}: the folder of {what} does not exist", dir.display());
    error(literal.span(), message, "the path is relative to the folder of Cargo.toml")
}

fn unreadable(literal: &LitStr, failure: &LayoutError) -> syn::Error {
    let cause = std::error::Error::source(failure).map(|cause| format!("\ncaused by: {cause}")).unwrap_or_default();
    error(literal.span(), format!("{failure}{cause}"), failure.hint())
}

pub(crate) fn error(span: Span, message: impl Display, hint: &str) -> syn::Error {
    syn::Error::new(span, format!("{message}\nhint: {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn root(files: &[(&str, &[u8])]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        root
    }

    /// What the macro expands to, with `ROOT` for the folder of the crate.
    fn expanded(
        root: &TempDir,
        expand: fn(TokenStream, &Path) -> syn::Result<TokenStream>,
        input: TokenStream,
    ) -> String {
        expand(input, root.path()).unwrap().to_string().replace(root.path().to_str().unwrap(), "ROOT")
    }

    fn fails(
        root: &TempDir,
        expand: fn(TokenStream, &Path) -> syn::Result<TokenStream>,
        input: TokenStream,
    ) -> (String, String) {
        let error = expand(input, root.path()).unwrap_err().to_string();
        let (message, hint) = error
            .replace(root.path().to_str().unwrap(), "ROOT")
            .split_once("\nhint: ")
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        (message, hint)
    }

    #[test]
    fn the_files_of_the_layout_are_put_in() {
        let root = root(&[
            ("db/2_b.up.sql", b"x"),
            ("db/2_b.down.sql", b"y"),
            ("db/0001_a.sql", b"z"),
            ("db/R__v.sql", b"v"),
            ("db/README.md", b"no"),
            ("db/.hidden.sql", b"no"),
            ("db/old/1_a.sql", b"no"),
        ]);
        let expected = quote!(::pgfleet::embed::Folder::new(
            "db",
            "pgfleet",
            &[
                ("0001_a.sql", ::core::include_str!("ROOT/db/0001_a.sql")),
                ("2_b.down.sql", ::core::include_str!("ROOT/db/2_b.down.sql")),
                ("2_b.up.sql", ::core::include_str!("ROOT/db/2_b.up.sql")),
                ("R__v.sql", ::core::include_str!("ROOT/db/R__v.sql")),
            ]
        ));
        assert_eq!(expanded(&root, migrations, quote!("db")), expected.to_string());
        assert_eq!(expanded(&root, migrations, quote!("db",)), expected.to_string());
        assert_eq!(expanded(&root, migrations, quote!("db", layout = "pgfleet",)), expected.to_string());
    }

    #[test]
    fn folders_of_diesel_bring_their_metadata() {
        let root = root(&[
            ("m/1_a/up.sql", b"x"),
            ("m/1_a/down.sql", b"y"),
            ("m/1_a/metadata.toml", b"run_in_transaction = false"),
            ("m/1_a/notes.txt", b"no"),
            ("m/2_b/up.sql", b"z"),
        ]);
        let expected = quote!(::pgfleet::embed::Folder::new(
            "m",
            "diesel",
            &[
                ("1_a/down.sql", ::core::include_str!("ROOT/m/1_a/down.sql")),
                ("1_a/metadata.toml", ::core::include_str!("ROOT/m/1_a/metadata.toml")),
                ("1_a/up.sql", ::core::include_str!("ROOT/m/1_a/up.sql")),
                ("2_b/up.sql", ::core::include_str!("ROOT/m/2_b/up.sql")),
            ]
        ));
        assert_eq!(expanded(&root, migrations, quote!("m")), expected.to_string());
    }

    #[test]
    fn the_layout_is_recognised_or_named() {
        let root =
            root(&[("m/1_a.sql", b"-- +goose Up\n"), ("v/V1__a.sql", b""), ("v/U2__b.sql", b""), ("e/x.txt", b"")]);
        assert!(expanded(&root, migrations, quote!("m")).contains("\"goose\""));
        assert!(
            expanded(&root, migrations, quote!("v", layout = "refinery")).contains("\"refinery\" , & [(\"U2__b.sql\"")
        );
        assert_eq!(
            expanded(&root, migrations, quote!("e")),
            quote!(::pgfleet::embed::Folder::new("e", "pgfleet", &[])).to_string()
        );
    }

    #[test]
    fn settings_and_folders_of_flyway_are_put_in() {
        let root = root(&[
            ("f/V1__a.sql", b"x"),
            ("f/V1__a.sql.conf", b"executeInTransaction=false"),
            ("f/below/V2__b.sql", b"y"),
            ("f/afterMigrate.sql", b"z"),
            ("f/notes.md", b"no"),
        ]);
        let expected = quote!(::pgfleet::embed::Folder::new(
            "f",
            "flyway",
            &[
                ("V1__a.sql", ::core::include_str!("ROOT/f/V1__a.sql")),
                ("V1__a.sql.conf", ::core::include_str!("ROOT/f/V1__a.sql.conf")),
                ("afterMigrate.sql", ::core::include_str!("ROOT/f/afterMigrate.sql")),
                ("below/V2__b.sql", ::core::include_str!("ROOT/f/below/V2__b.sql")),
            ]
        ));
        assert_eq!(expanded(&root, migrations, quote!("f")), expected.to_string());
    }

    #[test]
    fn mistakes_in_the_folder_are_named_with_their_place() {
        let root = root(&[
            ("a/1_a.sql", b"-- x\n-- pgfleet: no_transaction\n"),
            ("b/users.sql", b""),
            ("c/1_a.sql", b"\xff"),
            ("file", b""),
        ]);
        let fails = |input| fails(&root, migrations, input);
        let (message, hint) = fails(quote!("a"));
        assert_eq!(message, "ROOT/a/1_a.sql:2:1: unknown annotation `no_transaction`");
        assert_eq!(hint, "did you mean `no-transaction`?");
        let (message, hint) = fails(quote!("b"));
        assert_eq!(message, "ROOT/b/users.sql: not the name of a migration in the layout of pgfleet");
        assert!(hint.contains("0001_create_users.sql"));
        assert_eq!(fails(quote!("c")).0, "ROOT/c/1_a.sql:1:1: not UTF-8: byte 0 is 0xff");
        assert_eq!(fails(quote!("none")).0, "ROOT/none: the folder of migrations does not exist");
        assert!(fails(quote!("file")).0.starts_with("ROOT/file: this is a file, not a folder of migrations"));
    }

    #[test]
    fn mistakes_in_the_arguments_are_named() {
        let root = root(&[("m/1_a.sql", b"")]);
        let fails = |input| fails(&root, migrations, input);
        assert_eq!(fails(quote!()).0, "expected the folder, as a string");
        assert_eq!(fails(quote!(migrations)).1, "write migrations!(\"migrations\")");
        assert_eq!(fails(quote!("m", layuot = "goose")).0, "unknown key `layuot`");
        assert_eq!(fails(quote!("m", layout = "goose", layout = "goose")).0, "`layout` is given twice");
        let (message, hint) = fails(quote!("m", layout = "liquibase"));
        assert_eq!(message, "unknown layout `liquibase`");
        assert!(hint.contains("golang-migrate"));
        assert!(migrations(quote!("m" "n"), root.path()).is_err());
        assert!(migrations(quote!("m", layout = goose), root.path()).is_err());
    }

    #[test]
    fn seeds_are_the_sql_files_of_their_folder() {
        let root = root(&[
            ("s/10_b.sql", b"x"),
            ("s/2_a.sql", b"y"),
            ("s/.hidden.sql", b"no"),
            ("s/a.txt", b"no"),
            ("latin/1_a.sql", b"\xe4"),
            ("file", b""),
        ]);
        let expected = quote!(::pgfleet::embed::Seeds::new(
            "s",
            &[
                ("10_b.sql", ::core::include_str!("ROOT/s/10_b.sql")),
                ("2_a.sql", ::core::include_str!("ROOT/s/2_a.sql")),
            ]
        ));
        assert_eq!(expanded(&root, seeds, quote!("s")), expected.to_string());
        let fails = |input| fails(&root, seeds, input);
        assert_eq!(fails(quote!("none")).0, "ROOT/none: the folder of seeds does not exist");
        assert!(fails(quote!("file")).0.starts_with("ROOT/file: the folder of seeds cannot be read\ncaused by: "));
        assert_eq!(fails(quote!("latin")).0, "ROOT/latin/1_a.sql:1:1: not UTF-8: byte 0 is 0xe4");
        assert_eq!(fails(quote!(1)).1, "write seeds!(\"seeds\")");
        assert!(seeds(quote!("s", layout = "goose"), root.path()).is_err());
    }
}
