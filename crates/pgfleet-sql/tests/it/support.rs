//! What several of the modules need.

use pgfleet_local::testing::{TestDatabase, TestServer};
use pgfleet_sql::lexer::{self, TokenKind};
use pgfleet_sql::statement;
use squawk_syntax::ast::{AstNode as _, SourceFile};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// The statements of a text.
pub(crate) fn texts(text: &str) -> Vec<&str> {
    let statements = statement::split(text).unwrap_or_else(|error| panic!("{error} at byte {}: {text}", error.offset));
    statements.iter().map(|statement| statement.text(text)).collect()
}

/// The statements that an independent parser sees, without semicolons and surrounding trivia.
pub(crate) fn squawk(text: &str) -> Vec<&str> {
    let file = SourceFile::parse(text).tree();
    let ranges = file.stmts().map(|stmt| {
        let range = stmt.syntax().text_range();
        &text[usize::from(range.start())..usize::from(range.end())]
    });
    ranges.map(bare).filter(|statement| !statement.is_empty()).collect()
}

/// A statement from its first token to its last, without semicolons around it.
pub(crate) fn bare(statement: &str) -> &str {
    let tokens: Vec<_> = lexer::significant(statement).filter(|token| token.kind != TokenKind::Semicolon).collect();
    match tokens.as_slice() {
        [] => "",
        [first, ..] => &statement[first.start..tokens[tokens.len() - 1].end],
    }
}

/// A database on each of the two servers that everything must be right for, and a session in it.
pub(crate) struct Servers {
    runtime: Runtime,
    sessions: Vec<(Client, TestDatabase)>,
}

impl Servers {
    /// The oldest version that is supported, and the newest.
    pub(crate) fn connect() -> Self {
        let runtime = Runtime::new().unwrap();
        let sessions = runtime.block_on(async {
            let mut sessions = Vec::new();
            for server in [TestServer::shared().await, TestServer::shared_version(18).await] {
                let database = server.database().await;
                let (client, connection) = tokio_postgres::connect(&database.url(), NoTls).await.unwrap();
                tokio::spawn(connection);
                sessions.push((client, database));
            }
            sessions
        });
        Self { runtime, sessions }
    }

    /// Runs the text in both, as one message each.
    pub(crate) fn run(&self, text: &str) {
        for (client, _) in &self.sessions {
            self.runtime.block_on(client.batch_execute(text)).unwrap();
        }
    }

    /// How many statements each server completes when the text comes in one message.
    ///
    /// An error of a server becomes a text of itself, so that a script at random can be made smaller.
    pub(crate) fn completed(&self, text: &str) -> Result<Vec<usize>, String> {
        let count = async |client: &Client| {
            let answer = client.simple_query(text).await.map_err(|error| format!("{:?}", error.as_db_error()))?;
            Ok(answer.iter().filter(|message| matches!(message, SimpleQueryMessage::CommandComplete(_))).count())
        };
        self.sessions.iter().map(|(client, _)| self.runtime.block_on(count(client))).collect()
    }

    /// How many statements each server's grammar sees in the text: none, one or several; nothing of it is run.
    pub(crate) fn parsed(&self, text: &str) -> Vec<Parsed> {
        let parse = async |client: &Client| {
            let Err(error) = client.prepare(text).await else { return Parsed::AtMostOne };
            let error = error.as_db_error().unwrap_or_else(|| panic!("no answer: {text}"));
            match error.message() {
                "cannot insert multiple commands into a prepared statement" => Parsed::Several,
                message if is_of_the_grammar(message) => Parsed::No(message.to_owned()),
                // Tables that do not exist and the like: noticed only when the grammar is done.
                _ => Parsed::AtMostOne,
            }
        };
        self.sessions.iter().map(|(client, _)| self.runtime.block_on(parse(client))).collect()
    }
}

/// What the grammar says to a text.
#[derive(Debug, PartialEq)]
pub(crate) enum Parsed {
    AtMostOne,
    Several,
    No(String),
}

fn is_of_the_grammar(message: &str) -> bool {
    message.starts_with("syntax error")
        || message.starts_with("unterminated")
        || message.starts_with("trailing junk")
        || message.starts_with("invalid Unicode escape")
}
