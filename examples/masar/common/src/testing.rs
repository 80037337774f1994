//! A running service and a client of it, for tests.

use std::net::SocketAddr;

use axum::Router;
use pgfleet::{Builder, Service};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// What a service answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The status line and the headers.
    pub head: String,
    /// The body; `null` when it is no JSON.
    pub json: Value,
    /// The body as it came.
    pub text: String,
}

impl Answer {
    /// Returns a text of the body's top level.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn text(&self, member: &str) -> &str {
        self.json[member].as_str().unwrap_or_else(|| panic!("no text {member} in {self:?}"))
    }

    /// Checks the status.
    ///
    /// # Panics
    ///
    /// When it is another one.
    #[must_use]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

/// Where a service listens.
#[derive(Debug, Clone, Copy)]
pub struct Client(pub SocketAddr);

impl Client {
    /// Sends a request and reads the answer.
    ///
    /// # Panics
    ///
    /// When there is no answer.
    pub async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.try_send(method, path, body).await.expect("the service answers")
    }

    /// Sends a request and reads the answer; none when the service ended meanwhile, or does not listen.
    pub async fn try_send(&self, method: &str, path: &str, body: Option<Value>) -> Option<Answer> {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.0,
            body.len(),
        );
        let mut stream = TcpStream::connect(self.0).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, text) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok())?;
        // What is no JSON is `null`: see the field.
        let json = serde_json::from_str(text).unwrap_or_default();
        Some(Answer { status, head: head.to_lowercase(), json, text: text.to_owned() })
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None).await
    }

    /// POST.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, Some(body)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, None).await
    }
}

/// A service that runs in the test, on a port that was free.
#[derive(Debug)]
pub struct Running {
    /// A client of it.
    pub client: Client,
    end: oneshot::Sender<()>,
    task: JoinHandle<Result<(), String>>,
}

impl Running {
    /// Begins to serve; the service may still be starting.
    ///
    /// # Panics
    ///
    /// When no port is free.
    pub async fn begin(builder: Builder, routes: fn(Service) -> Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let client = Client(listener.local_addr().expect("an address"));
        let (end, ended) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let ended = async {
                let _dropped = ended.await;
            };
            crate::serve(listener, builder, routes, ended).await.map_err(|error| format!("{error:#}"))
        });
        Self { client, end, task }
    }

    /// Starts a service, and returns when it is ready.
    ///
    /// # Panics
    ///
    /// When it cannot start.
    pub async fn start(builder: Builder, routes: fn(Service) -> Router) -> Self {
        let mut readiness = builder.readiness();
        let this = Self::begin(builder, routes).await;
        assert!(readiness.ready().await, "the service starts");
        while this.client.get("/health").await.status != 200 {}
        this
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Panics
    ///
    /// When it failed.
    pub async fn end(self) {
        drop(self.end);
        self.task.await.expect("the service did not panic").expect("the service ended well");
    }
}
