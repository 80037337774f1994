//! The settings that Flyway keeps beside a file, in `V1__x.sql.conf`.

use super::LayoutError;
use super::error::quoted;
use super::listing::File;
use super::read::utf8;
use crate::position::LineColumn;

/// Reads whether a file runs without a transaction; what else is set is noted.
pub(super) fn runs_without_transaction(conf: &File, notes: &mut Vec<String>) -> Result<bool, LayoutError> {
    let mut without = false;
    for (line, number) in utf8(&conf.path, &conf.bytes)?.lines().zip(1u32..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let (key, value) = line.split_once(['=', ':']).unwrap_or((line, ""));
        let (key, value) = (key.trim(), value.trim());
        match key.strip_prefix("flyway.").unwrap_or(key) {
            "executeInTransaction" => {
                without = match value.to_ascii_lowercase().as_str() {
                    "false" => true,
                    "true" => false,
                    _ => {
                        return Err(LayoutError::new(
                            &conf.path,
                            "`executeInTransaction` is neither true nor false",
                            "write `executeInTransaction=false`",
                        )
                        .at(LineColumn { line: number, column: 1 }));
                    }
                };
            }
            "encoding" if value.eq_ignore_ascii_case("UTF-8") => {}
            _ => notes.push(format!("`{key}` in {} is not read", quoted(&conf.path))),
        }
    }
    Ok(without)
}
