//! Carrying a move out.

use std::time::Instant;

use futures_util::future::try_join;
use pgfleet_migrate::{Event, Observer};
use pgfleet_postgres::identity::system_identifier;
use pgfleet_postgres::quote_ident;

use super::contents::Contents;
use super::fence;
use super::hands::{Hands, shut};
use super::record::{Move, MoveState};
use super::source::Source;
use super::{Moved, Order, programs};
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind};
use crate::physical::Physical;
use crate::solution::Solution;

/// Who moves.
pub(super) struct Mover<'a> {
    pub(super) solution: &'a Solution,
    pub(super) catalogue: &'a Catalogue,
    pub(super) observer: &'a dyn Observer,
}

impl Mover<'_> {
    pub(super) async fn begin_and_carry(
        &self,
        tenant: &str,
        source: &Source,
        order: &Order,
        kept: Option<&Move>,
        moved: &mut Moved,
    ) -> Result<(), Error> {
        let hands = self.hands(&source.server, &source.database, &order.server).await?;
        let begun = async {
            if kept.is_none() {
                let sessions = (&hands.source, &hands.to);
                let servers = (source.server.as_str(), order.server.as_str());
                self.check_copy(tenant, &source.services, sessions, servers).await?;
            }
            self.begin_move(tenant, source, order, kept, &hands.to).await
        };
        match Box::pin(begun).await {
            Ok(work) => Box::pin(self.carry_out(work, hands, moved)).await,
            Err(error) => {
                hands.close().await;
                Err(error)
            }
        }
    }

    pub(super) async fn go_on_with(&self, mut work: Move, moved: &mut Moved) -> Result<(), Error> {
        if work.state == MoveState::Switched {
            let from = self.session(&work.from_server, None).await?;
            let left = self.leave(&mut work, &from).await;
            from.close().await;
            left?;
            return self.report(&work, moved).await;
        }
        let hands = self.take_hands(&work).await?;
        match Box::pin(self.take_up(&mut work, MoveState::Fencing)).await {
            Ok(()) => Box::pin(self.carry_out(work, hands, moved)).await,
            Err(error) => {
                hands.close().await;
                Err(error)
            }
        }
    }

    /// Carries a move out that was taken up, and takes the fence away when that fails.
    async fn carry_out(&self, mut work: Move, hands: Hands, moved: &mut Moved) -> Result<(), Error> {
        let carried = Box::pin(self.carry(&mut work, &hands, moved)).await;
        let result = match carried {
            Ok(()) => self.leave(&mut work, &hands.from).await,
            Err(error) => Err(Box::pin(self.fail(&mut work, &hands, error)).await),
        };
        hands.close().await;
        result?;
        self.report(&work, moved).await
    }

    async fn report(&self, work: &Move, moved: &mut Moved) -> Result<(), Error> {
        let done = self.catalogue.one_move(work.id).await?;
        if !done.from_own {
            moved.notes.push(format!(
                "pgfleet did not make {}: it stays there, closed to everybody but the administrator; drop it when you \
                 need it no more",
                done.from()
            ));
        }
        moved.moves.push(done);
        Ok(())
    }

    async fn carry(&self, work: &mut Move, hands: &Hands, moved: &mut Moved) -> Result<(), Error> {
        if work.fenced.is_none() {
            // Written down before anything is taken away.
            work.fenced = serde_json::to_value(hands.old(work).grantees().await?).ok();
            self.catalogue.advance_move(work).await?;
        }
        let began = self.starts(work, "fence")?;
        hands.old(work).close().await?;
        self.ends(work, "fence", began);
        if work.state == MoveState::Fencing {
            work.state = MoveState::Copying;
            self.catalogue.advance_move(work).await?;
        }
        let contents = loop {
            if work.state == MoveState::Copying {
                self.fill_destination(work, hands, moved).await?;
                work.state = MoveState::Comparing;
                self.catalogue.advance_move(work).await?;
            }
            let began = self.starts(work, "compare")?;
            let (contents, differences) = self.compare(work, hands).await?;
            self.ends(work, "compare", began);
            if differences.is_empty() {
                break contents;
            }
            if work.kept.is_none() {
                let message =
                    format!("the copy of database {} on {} is not the same", work.from_database, work.to_server);
                let error = Error::new(ErrorKind::Failed, message).hinted(format!(
                    "does somebody write to one of them, or does a trigger? The same command copies it anew; \
                     pgfleet tenant move {} --cancel drops the copy",
                    work.tenant
                ));
                return Err(differences.into_iter().fold(error, Error::cause));
            }
            let changed =
                format!("{} has changed since it was moved ({}): its data is copied", work.from(), differences[0]);
            self.observer.event(&work.tenant, &Event::Note(changed));
            self.leave_kept(work, hands).await?;
        };
        work.contents = serde_json::to_value(&contents).ok();
        self.catalogue.advance_move(work).await?;
        if !hands.old(work).holds().await? {
            return Err(Error::new(
                ErrorKind::Failed,
                format!("somebody was let in to {} while it was moved", work.from()),
            )
            .hinted("run it again"));
        }
        // Whoever holds the lock knows that nobody migrates.
        hands
            .source
            .simple("SELECT 1")
            .await
            .map_err(|error| Error::postgres(format!("the lock on {} was lost", work.from()), &error))?;
        match work.kept {
            Some(kept) => {
                let before = self.catalogue.one_move(kept).await?.fenced;
                hands.at_new(work).open(&fence::read(before.as_ref())).await?;
            }
            None => self.open_destination(work, &hands.to).await?,
        }
        let failed = |error: &pgfleet_postgres::Error| Error::postgres("cannot look at the new server", error);
        let physical = Physical {
            system_identifier: system_identifier(&hands.to).await.map_err(|error| failed(&error))?,
            database: work.to_database.clone(),
            oid: work.to_oid.unwrap_or_default(),
            server_version: hands.to.server_version(),
        };
        self.switch(work, &physical).await
    }

    /// Fills the new database, or opens the one that was kept to the administrator.
    async fn fill_destination(&self, work: &mut Move, hands: &Hands, moved: &mut Moved) -> Result<(), Error> {
        if work.kept.is_some() {
            let sql = format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", quote_ident(&work.to_database));
            hands.to.execute_all(&sql).await.map_err(|error| {
                Error::postgres(
                    format!("cannot open database {} on server {}", work.to_database, work.to_server),
                    &error,
                )
            })?;
            // Nobody could come in but the administrator, and that is how it stays until the switch.
            return hands.at_new(work).close().await;
        }
        let sessions = (&hands.source, &hands.to);
        let servers = (work.from_server.as_str(), work.to_server.as_str());
        let found = self.check_copy(&work.tenant, &work.services, sessions, servers).await?;
        let began = self.starts(work, "copy")?;
        let mut first: Option<Error> = None;
        for (at, dump) in found.dumps.iter().enumerate() {
            let (oid, notes) = self.make_destination(work, &hands.from, &hands.to).await?;
            work.to_oid = Some(oid);
            self.catalogue.advance_move(work).await?;
            let inside = self.session(&work.to_server, Some(&work.to_database)).await?;
            self.lend_schemas(work, &inside).await?;
            inside.close().await;
            let from = self.solution.server(&work.from_server).admin.with_database(&work.from_database);
            let to = self.solution.server(&work.to_server).admin.with_database(&work.to_database);
            let copied = tokio::select! {
                copied = programs::copy(dump, &found.restore, &from, &to) => copied,
                () = self.solution.options().stop.asked() => return Err(stopped(work)),
            };
            match copied {
                Ok(_) => {
                    moved.notes.extend(notes);
                    break;
                }
                Err(error) => {
                    let first = first.get_or_insert(error);
                    if at + 1 == found.dumps.len() {
                        return Err(std::mem::replace(first, stopped(work)));
                    }
                    let why = format!("copying failed, trying newer programs: {}", first.causes().join(": "));
                    self.observer.event(&work.tenant, &Event::Note(why));
                }
            }
        }
        let inside = self.session(&work.to_server, Some(&work.to_database)).await?;
        let ready = async {
            self.return_schemas(work, &hands.source, &inside).await?;
            // Without it the first queries there are planned blindly.
            inside
                .execute_all("ANALYZE")
                .await
                .map_err(|error| Error::postgres(format!("cannot analyze database {}", work.to_database), &error))
        };
        let result = ready.await;
        inside.close().await;
        result?;
        self.ends(work, "copy", began);
        Ok(())
    }

    async fn compare(&self, work: &Move, hands: &Hands) -> Result<(Contents, Vec<String>), Error> {
        let exact = hands.from.server_version() / 10_000 == hands.to.server_version() / 10_000;
        let (from, to) = (&self.solution.server(&work.from_server).admin, &self.solution.server(&work.to_server).admin);
        let both =
            try_join(Contents::read(from, &work.from_database, exact), Contents::read(to, &work.to_database, exact));
        let (old, new) = tokio::select! {
            both = both => both.map_err(|error| {
                Error::postgres(format!("cannot compare {} and {}", work.from(), work.to()), &error)
            })?,
            () = self.solution.options().stop.asked() => return Err(stopped(work)),
        };
        let differences = old.differences(&new, (&work.from(), &work.to()));
        Ok((old, differences))
    }

    /// Closes a database again that was kept and cannot be gone back to, and has the data copied.
    async fn leave_kept(&self, work: &mut Move, hands: &Hands) -> Result<(), Error> {
        shut(hands, work).await?;
        let left = work.clone();
        self.catalogue.begin().await?;
        let steps = async {
            self.catalogue.lock_move(work).await?;
            self.give_up_destination(&left).await?;
            work.to_database = self.free_name(&hands.to, &work.to_server, &work.from_database).await?;
            (work.kept, work.to_oid, work.state) = (None, None, MoveState::Copying);
            let source = Source::of(work);
            self.own_destination(&work.tenant, &source, &work.to_server, &work.to_database).await?;
            self.catalogue.advance_move(work).await
        };
        let result = steps.await;
        self.catalogue.end(result).await
    }

    /// Has the tenant served where it was, and returns the error with what is worth knowing.
    async fn fail(&self, work: &mut Move, hands: &Hands, error: Error) -> Error {
        let text: Vec<String> = std::iter::once(error.to_string()).chain(error.causes().iter().cloned()).collect();
        // Then it is somebody else's business.
        if self.catalogue.one_move(work.id).await.is_ok_and(|now| now.attempt != work.attempt) {
            return error;
        }
        let undo = async {
            self.catalogue.begin().await?;
            let steps = async {
                let now = self.catalogue.lock_move(work).await?;
                if now.state.is_over() || now.state == MoveState::Switched {
                    return Ok(());
                }
                *work = now;
                hands.old(work).open(&fence::read(work.fenced.as_ref())).await?;
                shut(hands, work).await?;
                self.return_targets(work, &work.from_server, &work.from_database).await?;
                self.set_moving(&work.tenant, false).await?;
                (work.fenced, work.state, work.error) = (None, MoveState::Failed, Some(text.join(": ")));
                self.catalogue.advance_move(work).await?;
                let detail = serde_json::json!({ "move": work.id, "error": work.error });
                self.catalogue.audit("tenant move failed", &work.tenant, &detail, self.solution.options()).await
            };
            let result = steps.await;
            self.catalogue.end(result).await
        };
        match Box::pin(undo).await {
            Ok(()) if error.hint().is_some() => error,
            Ok(()) => error.hinted(format!(
                "the tenant is served where it was; the same command tries again, pgfleet tenant move {} --cancel \
                 gives it up",
                work.tenant
            )),
            Err(other) => error.cause(format!("and the old database could not be opened again: {other}")).hinted(format!(
                "services refuse the tenant until the same command has gone on, or: pgfleet tenant move {} --cancel",
                work.tenant
            )),
        }
    }

    /// Says that a step begins, unless everything is to stop.
    fn starts(&self, work: &Move, label: &str) -> Result<Instant, Error> {
        if self.solution.options().stop.is_asked() {
            return Err(stopped(work));
        }
        self.observer.event(&work.tenant, &Event::Started { label: label.to_owned() });
        Ok(Instant::now())
    }

    fn ends(&self, work: &Move, label: &str, began: Instant) {
        self.observer.event(&work.tenant, &Event::Done { label: label.to_owned(), took: began.elapsed() });
    }
}

fn stopped(work: &Move) -> Error {
    Error::new(ErrorKind::Stopped, format!("stopped moving tenant {}", work.tenant))
}
