//! Asking a server to stop a statement.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_postgres::CancelToken;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::line::{Endpoint, Line, TcpOptions};

/// How long asking may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The way that a connection took, for another one to the very same server.
pub(crate) struct Way {
    pub(crate) to: Endpoint,
    pub(crate) tcp: TcpOptions,
    /// The name that the server's certificate is checked against.
    pub(crate) name: String,
    /// None without TLS.
    pub(crate) tls: Option<MakeRustlsConnect>,
    /// Told when the server notifies (`LISTEN`).
    pub(crate) news: Notify,
}

impl Way {
    /// Makes what shakes hands on one line; none without TLS.
    pub(crate) fn tls(&self) -> Option<<MakeRustlsConnect as MakeTlsConnect<Line>>::TlsConnect> {
        let mut maker = self.tls.clone()?;
        let Ok(tls) = MakeTlsConnect::<Line>::make_tls_connect(&mut maker, &self.name);
        Some(tls)
    }
}

/// Asks the server to stop what a connection runs; outlives the connection.
///
/// Made by [`Connection::canceller`](crate::Connection::canceller). A request names a session, not a
/// statement: one that comes late stops the next statement of that session, or none.
#[derive(Clone)]
pub struct Canceller {
    pub(crate) token: CancelToken,
    pub(crate) way: Arc<Way>,
}

impl std::fmt::Debug for Canceller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Canceller").field("to", &self.way.to).finish_non_exhaustive()
    }
}

impl Canceller {
    /// Asks, and waits until the server has passed the request on, at most five seconds.
    ///
    /// Failing to ask is no error, since the statement may have ended by itself; it is traced.
    ///
    /// # Cancel safety
    ///
    /// Whether the server was asked is not known when the future was dropped.
    pub async fn cancel(&self) {
        match tokio::time::timeout(LIMIT, self.ask()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "cancel request failed"),
            Err(_) => tracing::debug!("cancel request was not taken within {} s", LIMIT.as_secs()),
        }
    }

    async fn ask(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let (line, gone) = Line::open(&self.way.to, &self.way.tcp, None).await?;
        match self.way.tls() {
            Some(tls) => self.token.cancel_query_raw(line, tls).await?,
            None => self.token.cancel_query_raw(line, tokio_postgres::NoTls).await?,
        }
        // The server closes its end when it has sent the signal.
        let _closed = gone.await;
        Ok(())
    }
}
