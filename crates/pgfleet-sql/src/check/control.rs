//! Files that say themselves where transactions begin and end.

use super::alone::needs_no_transaction;
use super::finding::Words;
use crate::layout::Layout;
use crate::lexer::{self, TokenKind};
use crate::statement::{self, Statement};

/// The transaction control of a file, by the indexes of its statements.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Control {
    /// A `BEGIN` with the `COMMIT` that ends it, in order.
    pub(super) blocks: Vec<(usize, usize)>,
    /// A `COMMIT` without a `BEGIN`, and a `BEGIN` inside of a block: the server does nothing but warn.
    pub(super) loose: Vec<usize>,
}

impl Control {
    /// Finds what belongs together. A `BEGIN` that nothing ends is left out, and so refused like any other statement
    /// that a migration must not hold.
    pub(super) fn of(text: &str, statements: &[Statement]) -> Self {
        let mut control = Self::default();
        let mut open = None;
        for (index, statement) in statements.iter().enumerate() {
            // The keyword is at hand, and cutting the words of every statement is not free.
            if !matches!(statement.keyword(), "BEGIN" | "START" | "COMMIT" | "END") {
                continue;
            }
            let words = Words::of(statement.text(text));
            match open {
                Some(_) if words.begins_transaction() => control.loose.push(index),
                None if words.begins_transaction() => open = Some(index),
                Some(begin) if words.commits() => {
                    control.blocks.push((begin, index));
                    open = None;
                }
                None if words.commits() => control.loose.push(index),
                _ => {}
            }
        }
        // A file of nothing else is a mistake.
        if control.loose.len() == statements.len() {
            control.loose.clear();
        }
        control
    }

    /// Whether a statement is one of these.
    pub(super) fn holds(&self, index: usize) -> bool {
        let ends_of_it = |(begin, end)| index == begin || index == end;
        self.loose.binary_search(&index).is_ok() || self.block_of(index).is_some_and(ends_of_it)
    }

    /// Whether a statement is inside of a block, or begins or ends one.
    pub(super) fn encloses(&self, index: usize) -> bool {
        self.block_of(index).is_some()
    }

    /// The block that a statement is in, its first and last included. Blocks are in order and apart, and files with
    /// hundreds of thousands of them exist.
    fn block_of(&self, index: usize) -> Option<(usize, usize)> {
        let after = self.blocks.partition_point(|&(begin, _)| begin <= index);
        self.blocks[..after].last().copied().filter(|&(_, end)| index <= end)
    }

    /// The first `COMMIT` that other statements follow: what stands before it is to stay whatever becomes of those.
    pub(super) fn commit_before_more(&self, statements: &[Statement]) -> Option<usize> {
        let last = (0..statements.len()).rev().find(|&index| !self.holds(index))?;
        let ends = self.blocks.iter().map(|&(_, end)| end);
        let loose = self.loose.iter().copied().filter(|&index| !self.encloses(index));
        ends.chain(loose).filter(|&index| index < last).min()
    }
}

/// Whether a file cannot run in one transaction by what it says itself.
///
/// That is so when a `BEGIN … COMMIT` comes before its last statement, and when its statements work only outside of a
/// transaction. A file that mixes these with others outside of a `BEGIN … COMMIT` does not say what it wants.
///
/// A `COMMIT` alone in the middle counts in a file of another tool, which has run like that. In one written for us it is
/// more likely a mistake. A lone `CALL` counts where the tool begins no transaction: the procedure may commit.
pub(crate) fn implies_no_transaction(text: &str, layout: Layout) -> bool {
    let Ok(statements) = statement::split(text) else {
        return false;
    };
    let control = Control::of(text, &statements);
    if let Some(commit) = control.commit_before_more(&statements) {
        return layout != Layout::Pgfleet
            || control.loose.iter().all(|&index| control.encloses(index) || index > commit);
    }
    let alone = |statement: &Statement| {
        let text = statement.text(text);
        needs_no_transaction(text).is_some()
            || commits_inside(statement, text)
            || (layout == Layout::GolangMigrate && statement.keyword() == "CALL")
    };
    let mut outside = statements
        .iter()
        .enumerate()
        .filter(|&(index, _)| !control.holds(index) && !control.encloses(index))
        .map(|(_, statement)| alone(statement))
        .peekable();
    outside.peek().is_some() && outside.all(|alone| alone)
}

/// Whether a `DO` holds a `COMMIT` or `ROLLBACK`, which the server refuses inside of a transaction.
fn commits_inside(statement: &Statement, text: &str) -> bool {
    statement.keyword() == "DO"
        && super::finding::codes(text).any(|code| {
            let mut begins = true;
            lexer::significant(code).any(|token| {
                let is = |word| token.is_word(code, word);
                let commits = begins && (is("commit") || is("rollback"));
                begins = token.kind == TokenKind::Semicolon || ["begin", "then", "else", "loop"].into_iter().any(is);
                commits
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lexer::tests::tricky_text;
    use proptest::prelude::*;

    fn control(text: &str) -> Control {
        Control::of(text, &statement::split(text).unwrap())
    }

    #[test]
    fn blocks_are_paired_and_the_rest_is_loose() {
        let found =
            control("select 1; begin; begin work; select 2; end; commit; start transaction; commit and no chain");
        assert_eq!(found, Control { blocks: vec![(1, 4), (6, 7)], loose: vec![2, 5] });
        assert_eq!(control("begin; select 1"), Control::default());
        assert_eq!(control("begin; select 1; commit and chain; rollback").blocks, []);
        assert_eq!(control("commit; end"), Control::default());
        assert_eq!(control("do $$ begin commit; end $$; select 1 as begin").loose, []);
    }

    #[test]
    fn files_that_commit_before_their_end_run_in_parts() {
        for text in [
            "begin; select 1; commit; begin; select 2; commit",
            "begin; select 1; commit; select 2",
            "begin; begin; select 1; commit; select 2; commit",
        ] {
            assert!(Layout::ALL.into_iter().all(|layout| implies_no_transaction(text, layout)), "{text}");
        }
        for text in ["alter type t add value 'a'; commit; select 'a'::t", "select 1; end; select 2; commit"] {
            for layout in Layout::ALL {
                assert_eq!(implies_no_transaction(text, layout), layout != Layout::Pgfleet, "{text}");
            }
        }
        for text in [
            "",
            "commit",
            "select 1",
            "select 1; commit;",
            "begin; select 1; commit",
            "select 1; begin; select 2; commit; commit; -- end\n",
            "begin; begin; select 1; commit",
            "begin; select 1",
            "select case when a then b end; select 1",
            "select 'commit; select 1",
        ] {
            assert!(!implies_no_transaction(text, Layout::Goose), "{text}");
        }
    }

    #[test]
    fn files_of_statements_that_are_alone_run_without_a_transaction() {
        for text in [
            "create index concurrently i on t (a)",
            "drop index concurrently if exists a;\ncreate unique index concurrently a on t (b); vacuum t",
            "create index concurrently i on t (a); begin; select 1; commit",
            "do $$ begin update t set a = 1; commit; end $$;",
            "do language plpgsql 'begin loop rollback and chain; end loop; end'",
        ] {
            assert!(implies_no_transaction(text, Layout::Goose), "{text}");
        }
        for text in [
            "create table t (a int); create index concurrently i on t (a)",
            "begin; create index concurrently i on t (a); commit",
            "create index i on t (a)",
            "do $$ begin raise notice 'commit'; -- commit\n update t set commit = 1; end $$",
            "create procedure p() language plpgsql as $$ begin commit; end $$",
            "do $$ begin commit; end $$; select 1",
            "call p()",
        ] {
            assert!(!implies_no_transaction(text, Layout::Goose), "{text}");
        }
    }

    #[test]
    fn a_lone_call_may_commit_where_the_tool_begins_no_transaction() {
        for layout in Layout::ALL {
            assert_eq!(implies_no_transaction("call p(1);", layout), layout == Layout::GolangMigrate);
        }
        assert!(!implies_no_transaction("call p(); select 1", Layout::GolangMigrate));
    }

    proptest! {
        #[test]
        fn any_text_can_be_asked_about(text in tricky_text()) {
            let _ = implies_no_transaction(&text, Layout::Pgfleet);
            let _ = implies_no_transaction(&format!("begin;{text};commit;{text}"), Layout::GolangMigrate);
        }
    }
}
