//! The reference of all keys, as a page of the book.

use std::fmt::Write as _;

use super::schema::{KEYS, Key, Preset, Secrecy};
use super::value::Kind;

/// Returns the reference of the manifest in Markdown, generated from the table that also parses it.
pub fn reference_markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    let mut table = String::new();
    for key in KEYS {
        let (section, name) = section(key);
        if section != table {
            let _ = write!(page, "\n## `{section}`\n\n| key | takes | default | meaning |\n|---|---|---|---|\n");
            table = section;
        }
        let _ = writeln!(page, "| `{name}` | {} | {} | {} |", takes(key.kind), default(key), meaning(key));
    }
    page
}

const INTRODUCTION: &str = "\
# The manifest

`pgfleet.toml` stands at the root of a solution. Four layers are laid over its defaults, a later one wins:

1. `pgfleet.toml`
2. `pgfleet.<env>.toml` beside it, where `--env` or `PGFLEET_ENV` names the environment (`dev` when neither does)
3. environment variables `PGFLEET_<SECTION>__<KEY>`: names in upper case, everything but letters and digits as `_`, \
one level parted from the next by `__`. `PGFLEET_SERVICES__ORDER_ITEM__DATABASE` sets `database` of \
`[services.order-item]`. Lists are parted by commas
4. flags

Relative paths belong to the folder of the manifest. Durations are written `500ms`, `30s`, `5m`, `1h`, `1d`. Any \
environment but `dev` refuses `url = \"local\"` and well-known passwords. `pgfleet config show --origin` prints what \
holds and where it comes from.
";

/// Splits the path of a key into the heading it stands under and its name there.
fn section(key: &Key) -> (String, String) {
    let segments: Vec<_> = key.segments().collect();
    // `[services.<name>]` also holds the keys of its small tables, as `pool.max`.
    let depth = if matches!(segments[0], "services" | "servers" | "modules") { 2 } else { 1 };
    let written = |segments: &[&str]| segments.join(".").replace('*', "<name>");
    (format!("[{}]", written(&segments[..depth])), written(&segments[depth..]))
}

fn takes(kind: Kind) -> String {
    match kind {
        Kind::Text => "string".into(),
        Kind::Path => "path".into(),
        Kind::Bool => "boolean".into(),
        Kind::Integer { min, max } => format!("integer, {min} to {max}"),
        Kind::IntegerOrAuto { min, max } => format!("`auto` or integer, {min} to {max}"),
        Kind::Duration | Kind::Period => "duration".into(),
        Kind::Words(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        Kind::List => "list of strings".into(),
    }
}

fn default(key: &Key) -> String {
    match (key.default, key.kind) {
        (Preset::Unset, _) => String::new(),
        (Preset::Is(_), Kind::List) => "`[]`".into(),
        (Preset::Is(text), _) => format!("`{text}`"),
        (Preset::Made(text), _) => text.into(),
    }
}

fn meaning(key: &Key) -> String {
    let mut meaning = format!("{}.", key.doc);
    match key.secrecy {
        Secrecy::Open => {}
        Secrecy::Url => meaning.push_str(" Passwords are never shown."),
        Secrecy::ByName => {
            meaning.push_str(" Not shown when the name contains `password`, `secret`, `token` or `key`.");
        }
    }
    if key.unused {
        meaning.push_str(" *Read, but without effect in this version.*");
    }
    meaning
}
