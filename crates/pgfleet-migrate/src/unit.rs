//! One file made ready for the server: placeholders filled, refused statements found, record
//! statement attached.

use std::collections::BTreeMap;
use std::time::Duration;

use pgfleet_sql::check::{self, Checked};
use pgfleet_sql::layout::Script;
use pgfleet_sql::placeholder::{self, Rendered, Style};
use pgfleet_sql::statement::{self, Statement};

use crate::code::Code;
use crate::error::{Error, ErrorKind};
use crate::history::HistoryTable;
use crate::set::{Set, place};

/// What a unit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Apply,
    Revert,
    Seed,
}

impl Action {
    /// The word in `pgfleet.attempts`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Revert => "revert",
            Self::Seed => "seed",
        }
    }

    /// The words of the error sentence: `cannot apply X to T`.
    pub(crate) fn sentence(self, label: &str, target: &str) -> String {
        match self {
            Self::Apply => format!("cannot apply {label} to {target}"),
            Self::Revert => format!("cannot revert {label} in {target}"),
            Self::Seed => format!("cannot seed {target} with {label}"),
        }
    }
}

/// One file ready for the server.
#[derive(Debug)]
pub(crate) struct Unit<'a> {
    pub(crate) action: Action,
    /// The history that records it.
    pub(crate) table: &'a HistoryTable,
    /// The schema that unqualified names go to, where it is not the target's.
    pub(crate) schema: Option<&'a str>,
    pub(crate) label: String,
    pub(crate) version: String,
    pub(crate) description: String,
    pub(crate) script: &'a Script,
    /// What runs instead of the script.
    pub(crate) code: Option<&'a Code>,
    /// Values for placeholders, and for code that asks for them.
    pub(crate) properties: &'a BTreeMap<String, String>,
    /// What is sent: placeholders filled, refused-but-harmless lines blanked.
    pub(crate) sql: String,
    pub(crate) statements: Vec<Statement>,
    rendered: Rendered<'a>,
    /// Statements that record it, in the same transaction.
    pub(crate) record: String,
    /// How many statements these are.
    pub(crate) record_statements: usize,
    /// Zero waits for ever.
    pub(crate) lock_timeout: Duration,
    pub(crate) no_transaction: bool,
}

/// What is needed to make a unit of a script.
pub(crate) struct Draft<'a, 'v> {
    pub(crate) action: Action,
    pub(crate) set: &'a Set,
    pub(crate) label: String,
    pub(crate) version: String,
    pub(crate) description: String,
    pub(crate) script: &'a Script,
    pub(crate) code: Option<&'a Code>,
    pub(crate) style: Style,
    /// Values for placeholders.
    pub(crate) values: &'a BTreeMap<String, String>,
    pub(crate) no_transaction: bool,
    pub(crate) lock_timeout: Duration,
    pub(crate) target: &'v str,
}

impl<'a> Unit<'a> {
    /// Makes a script ready: fills placeholders, splits it, refuses what may not be in it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Files`] with the place: an unknown placeholder, an open quote or comment, a
    /// statement that a migration may not hold.
    pub(crate) fn new(draft: Draft<'a, '_>) -> Result<Self, Error> {
        let Draft { action, set, label, version, description, script, code, style, values, .. } = draft;
        let refuse = |offset: usize, cause: String, hint: Option<String>| {
            let mut error = Error::new(ErrorKind::Files, action.sentence(&label, draft.target))
                .cause(cause)
                .at(place(script, offset));
            if let Some(hint) = hint {
                error = error.hinted(hint);
            }
            error
        };
        if code.is_some_and(Code::is_elsewhere) {
            return Err(Error::new(ErrorKind::Program, action.sentence(&label, draft.target))
                .cause("its code is in the service's program")
                .hinted("name the program in the manifest (`program = \"target/release/…\"`) and build it"));
        }
        let lookup = |name: &str| values.get(name).cloned();
        let rendered = placeholder::render(&script.text, style, &lookup).map_err(|error| {
            let hint = if values.is_empty() {
                "no placeholder has a value: give it in the manifest's placeholders or properties".to_owned()
            } else {
                format!("these have a value: {}", values.keys().cloned().collect::<Vec<_>>().join(", "))
            };
            refuse(error.offset, error.to_string(), Some(hint))
        })?;
        if let Some(at) = rendered.text.find('\0') {
            return Err(refuse(rendered.source_offset(at), "the file holds a NUL byte".to_owned(), None));
        }
        let statements = statement::split(&rendered.text).map_err(|error| {
            // A quote in the data lines after a `COPY … FROM stdin` looks open; the COPY is the cause.
            let before = &rendered.text[..error.offset];
            if let Ok(statements) = statement::split(before)
                && let Err(refusal) = check::check(before, &statements)
            {
                let hint = Some(refusal.hint().to_owned());
                return refuse(rendered.source_offset(refusal.offset), refusal.to_string(), hint);
            }
            refuse(rendered.source_offset(error.offset), error.to_string(), Some(error.hint()))
        })?;
        let checked = if draft.no_transaction {
            check::check_no_transaction(&rendered.text, &statements)
        } else {
            check::check(&rendered.text, &statements)
        };
        let Checked { text, statements, .. } = checked.map_err(|refusal| {
            refuse(rendered.source_offset(refusal.offset), refusal.to_string(), Some(refusal.hint().to_owned()))
        })?;
        Ok(Self {
            sql: text.into_owned(),
            action,
            table: &set.history,
            schema: set.schema.as_deref(),
            code,
            properties: values,
            version,
            description,
            script,
            statements,
            rendered,
            record: String::new(),
            record_statements: 1,
            lock_timeout: draft.lock_timeout,
            no_transaction: draft.no_transaction,
            label,
        })
    }

    /// Maps an offset in what is sent to an offset in the script's text.
    pub(crate) fn source_offset(&self, offset: usize) -> usize {
        self.rendered.source_offset(offset)
    }

    /// Returns the text of a statement as it stands in the file, counted from 0: the values of its
    /// placeholders may be secret.
    pub(crate) fn source_statement(&self, index: usize) -> Option<&str> {
        let statement = self.statements.get(index)?;
        self.script.text.get(self.source_offset(statement.start)..self.source_offset(statement.end))
    }

    /// Returns the text of a statement as it is sent, counted from 0.
    pub(crate) fn statement(&self, index: usize) -> Option<&str> {
        self.statements.get(index).map(|statement| &self.sql[statement.start..statement.end])
    }
}
