//! `pgfleet config show`: every value and where it comes from.

use pgfleet_control::manifest::Origin;

use crate::args::ConfigVerb;
use crate::context::Context;
use crate::error::{CommandError, Exit, relative};
use crate::talk::Talk;

pub(crate) fn run(context: &Context, verb: &ConfigVerb) -> Result<Exit, CommandError> {
    let ConfigVerb::Show { origin, prefix } = verb;
    let loaded = context.load()?;
    let rows: Vec<_> = loaded
        .settings
        .rows()
        .iter()
        .filter(|row| prefix.as_ref().is_none_or(|prefix| row.path.starts_with(prefix.as_str())))
        .collect();
    if context.talk.json {
        let list: Vec<_> = rows
            .iter()
            .map(
                |row| serde_json::json!({ "path": row.path, "value": row.value.clone(), "origin": place(&row.origin) }),
            )
            .collect();
        context.talk.json(&list)?;
        return Ok(Exit::Done);
    }
    let mut table = if *origin { Talk::table(&["key", "value", "origin"]) } else { Talk::table(&["key", "value"]) };
    for row in rows {
        let mut cells = vec![row.path.clone(), row.value.clone()];
        if *origin {
            cells.push(place(&row.origin));
        }
        table.add_row(cells);
    }
    context.talk.print_table(&table);
    Ok(Exit::Done)
}

fn place(origin: &Origin) -> String {
    match origin {
        Origin::File { path, line } => format!("{}:{line}", relative(path).display()),
        other => other.to_string(),
    }
}
