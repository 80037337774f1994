//! The verbs: moving, going back, taking a move back, listing.

use std::sync::Arc;

use pgfleet_migrate::Observer;
use pgfleet_migrate::event::Silent;

use super::copy::oid_of;
use super::fence;
use super::hands::shut;
use super::record::{Move, MoveState};
use super::run::Mover;
use super::{Moved, Order};
use crate::error::{Error, ErrorKind};
use crate::solution::Solution;

impl Solution {
    /// Moves a tenant's databases to another server, one after the other; goes on with a move there that
    /// was not finished.
    ///
    /// Services refuse the tenant, as one that is not ready, while a database is being moved.
    ///
    /// # Errors
    ///
    /// The tenant, the service or the server is not there; the server is older or lacks roles or
    /// extensions; the copy is not the same. The tenant stays where it was then.
    ///
    /// # Cancel safety
    ///
    /// Calling it again goes on; until then the tenant may be refused by services.
    pub async fn move_tenant(&self, tenant: &str, order: &Order, observer: &Arc<dyn Observer>) -> Result<Moved, Error> {
        let catalogue = self.tenant_catalogue().await?;
        let mover = Mover { solution: self, catalogue: &catalogue, observer: &**observer };
        let result = Box::pin(mover.move_all(tenant, order)).await;
        catalogue.close().await;
        result
    }

    /// Takes the last move of a tenant's databases back: to the old database where its content is still
    /// that of the present one, else with the data to the old server.
    ///
    /// # Errors
    ///
    /// There is no such move; and as [`move_tenant`](Self::move_tenant).
    ///
    /// # Cancel safety
    ///
    /// Calling it again goes on; until then the tenant may be refused by services.
    pub async fn move_tenant_back(
        &self,
        tenant: &str,
        order: &Order,
        observer: &Arc<dyn Observer>,
    ) -> Result<Moved, Error> {
        let catalogue = self.tenant_catalogue().await?;
        let mover = Mover { solution: self, catalogue: &catalogue, observer: &**observer };
        let result = Box::pin(mover.move_all_back(tenant, order)).await;
        catalogue.close().await;
        result
    }

    /// Takes a move back that has not led anybody to the new database yet: the copy is dropped, and the
    /// tenant is served where it was.
    ///
    /// # Errors
    ///
    /// There is none, or it is too late; a server cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Calling it again goes on.
    pub async fn cancel_move(&self, tenant: &str) -> Result<Moved, Error> {
        let catalogue = self.tenant_catalogue().await?;
        let mover = Mover { solution: self, catalogue: &catalogue, observer: &Silent };
        let result = Box::pin(mover.cancel(tenant)).await;
        catalogue.close().await;
        result
    }

    /// Lists the databases that a move would leave behind and that pgfleet did not make.
    ///
    /// # Errors
    ///
    /// As [`move_tenant`](Self::move_tenant).
    pub async fn given_databases(&self, tenant: &str, order: &Order) -> Result<Vec<String>, Error> {
        let catalogue = self.tenant_catalogue().await?;
        let mover = Mover { solution: self, catalogue: &catalogue, observer: &Silent };
        let sources = match catalogue.unfinished_move(tenant).await? {
            // Who asked for it was asked.
            Some(_) => Vec::new(),
            None => Box::pin(mover.sources(tenant, order.service.as_deref())).await?,
        };
        catalogue.close().await;
        let given = sources.iter().filter(|source| !source.own && source.server != order.server);
        Ok(given.map(|source| format!("{}/{}", source.server, source.database)).collect())
    }

    /// Lists the moves of a tenant, the oldest first; of all tenants when none is named.
    ///
    /// # Errors
    ///
    /// There is no such tenant, or the control database cannot be read.
    pub async fn tenant_moves(&self, tenant: Option<&str>) -> Result<Vec<Move>, Error> {
        if let Some(tenant) = tenant {
            self.tenant(tenant).await?;
        }
        let catalogue = self.tenant_catalogue().await?;
        let moves = catalogue.moves(tenant).await;
        catalogue.close().await;
        moves
    }
}

impl Mover<'_> {
    async fn move_all(&self, tenant: &str, order: &Order) -> Result<Moved, Error> {
        let mut moved = Moved { moves: Vec::new(), notes: Vec::new() };
        self.check_destination(&order.server, true)?;
        self.solution.tenant(tenant).await?;
        if let Some(work) = self.catalogue.unfinished_move(tenant).await? {
            if work.to_server != order.server {
                return Err(unfinished(&work));
            }
            Box::pin(self.go_on_with(work, &mut moved)).await?;
        }
        let sources = self.sources(tenant, order.service.as_deref()).await?;
        for source in sources.iter().filter(|source| source.server != order.server) {
            Box::pin(self.begin_and_carry(tenant, source, order, None, &mut moved)).await?;
        }
        Ok(moved)
    }

    async fn move_all_back(&self, tenant: &str, order: &Order) -> Result<Moved, Error> {
        let mut moved = Moved { moves: Vec::new(), notes: Vec::new() };
        self.solution.tenant(tenant).await?;
        let all = self.catalogue.moves(Some(tenant)).await?;
        let before = |server: &str, database: &str| {
            all.iter()
                .rev()
                .find(|done| done.state == MoveState::Done && done.to_server == server && done.to_database == database)
        };
        if let Some(work) = self.catalogue.unfinished_move(tenant).await? {
            let back = before(&work.from_server, &work.from_database);
            if back.is_none_or(|back| back.from_server != work.to_server) {
                return Err(unfinished(&work));
            }
            Box::pin(self.go_on_with(work, &mut moved)).await?;
            return Ok(moved);
        }
        let sources = self.sources(tenant, order.service.as_deref()).await?;
        let mut any = false;
        for source in &sources {
            let Some(back) = before(&source.server, &source.database) else { continue };
            // Another database that has the name now was never moved.
            if back.to_oid != Some(source.physical.oid) {
                continue;
            }
            any = true;
            self.check_destination(&back.from_server, false)?;
            let order = Order { server: back.from_server.clone(), ..order.clone() };
            let session = self.session(&back.from_server, None).await?;
            let there = oid_of(&session, &back.from_database).await;
            session.close().await;
            let there = there.map_err(|error| Error::postgres("cannot look for the old database", &error))?;
            let kept = (there == Some(back.from_oid)).then_some(back);
            Box::pin(self.begin_and_carry(tenant, source, &order, kept, &mut moved)).await?;
        }
        if !any {
            return Err(Error::new(ErrorKind::Failed, format!("tenant {tenant} was not moved: there is no way back"))
                .hinted(format!("to move it: pgfleet tenant move {tenant} --server SERVER")));
        }
        Ok(moved)
    }

    async fn cancel(&self, tenant: &str) -> Result<Moved, Error> {
        self.solution.tenant(tenant).await?;
        let Some(mut work) = self.catalogue.unfinished_move(tenant).await? else {
            return Err(Error::new(ErrorKind::Failed, format!("no move of tenant {tenant} is unfinished")));
        };
        if work.state == MoveState::Switched {
            return Err(Error::new(ErrorKind::Failed, format!("tenant {tenant} is served from {} already", work.to()))
                .hinted(format!("to have it back: pgfleet tenant move {tenant} --back")));
        }
        let hands = self.take_hands(&work).await?;
        let result = async {
            self.take_up(&mut work, MoveState::Failed).await?;
            if work.fenced.is_some() {
                hands.old(&work).open(&fence::read(work.fenced.as_ref())).await?;
            }
            match work.kept {
                Some(_) => shut(&hands, &work).await?,
                None => self.drop_destination(&work, &hands.to).await?,
            }
            self.catalogue.begin().await?;
            let steps = async {
                self.catalogue.lock_move(&work).await?;
                self.give_up_destination(&work).await?;
                self.return_targets(&work, &work.from_server, &work.from_database).await?;
                self.set_moving(tenant, false).await?;
                work.fenced = None;
                work.state = MoveState::Cancelled;
                self.catalogue.advance_move(&mut work).await?;
                let detail = serde_json::json!({ "move": work.id, "from": work.from(), "to": work.to() });
                self.catalogue.audit("tenant move cancelled", tenant, &detail, self.solution.options()).await
            };
            let result = steps.await;
            self.catalogue.end(result).await
        };
        let result = Box::pin(result).await;
        hands.close().await;
        result?;
        Ok(Moved { moves: vec![self.catalogue.one_move(work.id).await?], notes: Vec::new() })
    }
}

fn unfinished(work: &Move) -> Error {
    let (tenant, server) = (&work.tenant, &work.to_server);
    Error::new(ErrorKind::Failed, format!("tenant {tenant} is being moved from {} to {}", work.from(), work.to()))
        .cause(format!("that move is {}", work.state.word()))
        .hinted(format!(
            "go on with it: pgfleet tenant move {tenant} --server {server}; or take it back: pgfleet tenant move \
             {tenant} --cancel"
        ))
}
