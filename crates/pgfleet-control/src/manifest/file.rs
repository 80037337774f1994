//! The layers that are files.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml_edit::{Document, Item, TableLike};

use super::diagnostic::{Diagnostic, Place};
use super::layers::{Layers, Setter};
use super::name::{did_you_mean, dotted};
use super::schema;
use super::value::found;

/// The text of one file and where its lines begin.
struct Source {
    file: Arc<Path>,
    text: String,
    line_starts: Vec<usize>,
}

impl Source {
    fn new(file: &Path, text: String) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(index, _)| index + 1)).collect();
        Self { file: file.into(), text, line_starts }
    }

    fn place(&self, span: Option<Range<usize>>) -> Place {
        let offset = self.text.floor_char_boundary(span.map_or(0, |span| span.start));
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts[line - 1];
        let column = self.text[start..offset].chars().filter(|c| *c != '\u{feff}').count() + 1;
        Place { file: self.file.clone(), line, column }
    }
}

/// Reads a file; `None` when it does not exist.
pub(super) fn read(path: &Path) -> Result<Option<String>, Diagnostic> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Diagnostic::new(format!("cannot be read: {error}")).in_file(path)),
    };
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        // Up to the bad byte the text is whole, which is all that the position needs.
        let text = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
        let place = Source::new(path, text).place(Some(good..good));
        Diagnostic::new("is not UTF-8").at(&place).hinted("save the file as UTF-8")
    })
}

/// Lays one file over what was set before. Returns false when its syntax is wrong and nothing could be read.
pub(super) fn add(layers: &mut Layers, path: &Path, text: String, errors: &mut Vec<Diagnostic>) -> bool {
    let source = Source::new(path, text);
    match Document::parse(source.text.as_str()) {
        Ok(document) => {
            let mut walk = Walk { source: &source, layers, errors };
            walk.table(document.as_table(), &mut Vec::new());
            true
        }
        Err(error) => {
            let message = error.message().trim().replace('\n', ", ");
            errors.push(Diagnostic::new(message).at(&source.place(error.span())));
            false
        }
    }
}

struct Walk<'a> {
    source: &'a Source,
    layers: &'a mut Layers,
    errors: &'a mut Vec<Diagnostic>,
}

impl Walk<'_> {
    fn table(&mut self, table: &dyn TableLike, path: &mut Vec<String>) {
        for (name, item) in table.iter() {
            let key_span = table.get_key_value(name).and_then(|(key, _)| key.span());
            let key_place = self.source.place(key_span.or_else(|| item.span()));
            path.push(name.to_owned());
            if let Some(key) = schema::leaf(path) {
                match key.kind.read_item(item) {
                    Ok(value) => self.layers.set(path.clone(), value, Setter::File(key_place)),
                    Err(refusal) => {
                        let place = item.span().map_or(key_place, |span| self.source.place(Some(span)));
                        let message = format!("`{name}` {}", refusal.message);
                        self.errors.push(Diagnostic { hint: refusal.hint, ..Diagnostic::new(message).at(&place) });
                    }
                }
            } else if schema::is_table(path) {
                if let Some(below) = item.as_table_like() {
                    self.layers.open_table(path, key_place);
                    self.table(below, path);
                } else {
                    let message = format!("`{name}` must be a table, found {}", found(item));
                    self.errors.push(Diagnostic::new(message).at(&key_place));
                }
            } else {
                let error = unknown_key(path, item).at(&key_place);
                self.errors.push(error);
            }
            path.pop();
        }
    }
}

fn unknown_key(path: &[String], item: &Item) -> Diagnostic {
    let Some((name, table)) = path.split_last() else { return Diagnostic::new("unknown key") };
    let message = match (table, item) {
        ([], item) if item.is_table() || item.is_array_of_tables() => format!("unknown section [{}]", dotted(path)),
        ([], _) => format!("unknown key `{name}` outside of any section"),
        _ => format!("unknown key `{name}` in [{}]", dotted(table)),
    };
    let hint = did_you_mean(name, schema::children(table)).or_else(|| {
        let mut homes = schema::homes(name).filter(|home| *home != dotted(table));
        homes.next().map(|home| format!("`{name}` belongs in [{}]", home.replace('*', "<name>")))
    });
    Diagnostic { hint, ..Diagnostic::new(message) }
}
