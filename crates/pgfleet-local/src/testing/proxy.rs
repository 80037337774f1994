//! A network that can be made worse while it is used.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::cluster::HOST;

/// What a [`Proxy`] does with what it is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Weather {
    /// Hands everything on.
    #[default]
    Fair,
    /// Takes connections and what is sent, and hands nothing on, in neither direction: a cable that
    /// was pulled out behind a switch that still answers.
    Stalled,
    /// Hands on what clients send, and keeps the server's answers to itself.
    AnswersStalled,
    /// Hands each piece on after this time.
    Slow(Duration),
    /// Resets the connections that there are, and each new one.
    Cut,
}

/// A TCP proxy in front of a server, for one test; it ends when this value is dropped.
///
/// What it does can be changed at any time ([`Proxy::set`]), for connections that are open, too.
/// What was kept while it was stalled is handed on when it is fair again.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    weather: watch::Sender<Weather>,
    accepted: Arc<Mutex<usize>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy in front of a port of this machine.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind((HOST, 0)).await.unwrap_or_else(|error| panic!("no proxy: {error}"));
        let port = listener.local_addr().unwrap_or_else(|error| panic!("no proxy: {error}")).port();
        let (weather, seen) = watch::channel(Weather::Fair);
        let accepted = Arc::new(Mutex::new(0));
        let count = accepted.clone();
        let accepting = tokio::spawn(async move {
            // Dropped with this task, and with it all that it carries.
            let mut carried = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                *count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                carried.spawn(carry(client, SocketAddr::from(([127, 0, 0, 1], server_port)), seen.clone()));
                while carried.try_join_next().is_some() {}
            }
        });
        Self { port, weather, accepted, accepting }
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what it does, from now on.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// How many connections it has taken so far.
    pub fn accepted(&self) -> usize {
        *self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same URL by way of the proxy.
    ///
    /// # Panics
    /// When the URL does not name a port of 127.0.0.1.
    pub fn url(&self, url: &str) -> String {
        super::other_port(url, self.port)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Carries one connection until either side ends it or it is cut.
async fn carry(mut client: TcpStream, server: SocketAddr, weather: watch::Receiver<Weather>) {
    let mut cut = weather.clone();
    let is_cut = tokio::select! {
        seen = cut.wait_for(|weather| *weather == Weather::Cut) => seen.is_ok(),
        () = carry_on(&mut client, server, weather) => false,
    };
    if is_cut {
        // A reset, not an end: what a machine answers that knows nothing of the connection.
        let _lingers = client.set_zero_linger();
    }
}

async fn carry_on(client: &mut TcpStream, server: SocketAddr, mut weather: watch::Receiver<Weather>) {
    if weather.wait_for(|now| *now != Weather::Stalled).await.is_err() {
        return;
    }
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let _quick = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::join!(
        pump(from_client, to_server, weather.clone(), false),
        pump(from_server, to_client, weather.clone(), true)
    );
}

/// Hands on one direction.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut weather: watch::Receiver<Weather>,
    answers: bool,
) {
    let stalled = |now: &Weather| *now == Weather::Stalled || (answers && *now == Weather::AnswersStalled);
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let Ok(now) = weather.wait_for(|now| !stalled(now)).await.map(|now| *now) else { return };
        if let Weather::Slow(delay) = now {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    if weather.wait_for(|now| !stalled(now)).await.is_ok() {
        let _ended = to.shutdown().await;
    }
}
