//! Asking a program whether it is healthy: a GET over plain HTTP, or a port that takes connections.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(2);

/// How a program's health is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// `http://host:port/path`: an answer from 200 to 299.
    Http {
        /// The host.
        host: String,
        /// The port; 80 when none is named.
        port: u16,
        /// The path with the query.
        path: String,
    },
    /// `tcp:port` or `tcp:host:port`: a connection.
    Tcp {
        /// The host; this machine when none is named.
        host: String,
        /// The port.
        port: u16,
    },
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected http://127.0.0.1:8081/health or tcp:8081".to_owned();
        if let Some(rest) = text.strip_prefix("http://") {
            let at = rest.find(['/', '?']).unwrap_or(rest.len());
            let (place, path) = rest.split_at(at);
            let (host, port) = split(place, Some(80)).ok_or_else(wrong)?;
            if path.chars().any(|c| c.is_control() || c == ' ') || place.contains('@') {
                return Err(wrong());
            }
            let slash = if path.starts_with('/') { "" } else { "/" };
            return Ok(Self::Http { host, port, path: format!("{slash}{path}") });
        }
        if text.starts_with("https://") {
            return Err("plain HTTP on this machine, or tcp:PORT".to_owned());
        }
        let place = text.strip_prefix("tcp:").ok_or_else(wrong)?;
        let place = if place.contains(':') { place.to_owned() } else { format!("127.0.0.1:{place}") };
        let (host, port) = split(&place, None).ok_or_else(wrong)?;
        Ok(Self::Tcp { host, port })
    }
}

/// Splits `host:port` and `[::1]:port`.
fn split(place: &str, otherwise: Option<u16>) -> Option<(String, u16)> {
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok().filter(|port| *port > 0)?),
        _ => (place, otherwise?),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty() && !host.contains(char::is_whitespace)).then(|| (host.to_owned(), port))
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Http { host, port, .. } | Self::Tcp { host, port }) = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        match self {
            Self::Http { path, .. } => write!(f, "http://{host}:{port}{path}"),
            Self::Tcp { .. } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

impl Check {
    /// Asks once.
    ///
    /// # Errors
    ///
    /// Why it is not healthy, for people. Cancel safe.
    pub async fn ask(&self) -> Result<(), String> {
        tokio::time::timeout(LIMIT, self.try_ask())
            .await
            .unwrap_or_else(|_| Err(format!("{self} has not answered within {} s", LIMIT.as_secs())))
    }

    async fn try_ask(&self) -> Result<(), String> {
        let (Self::Http { host, port, .. } | Self::Tcp { host, port }) = self;
        let failed = |error: std::io::Error| format!("{self}: {error}");
        let mut stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
        let Self::Http { path, .. } = self else { return Ok(()) };
        let name = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\nUser-Agent: pgfleet\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.map_err(failed)?;
        // The status line is all that is needed.
        let mut answer = Vec::new();
        let mut buffer = [0; 256];
        while !answer.contains(&b'\n') && answer.len() < 4096 {
            match stream.read(&mut buffer).await.map_err(failed)? {
                0 => break,
                read => answer.extend_from_slice(&buffer[..read]),
            }
        }
        let line = String::from_utf8_lossy(&answer);
        let status =
            line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|text| text.parse::<u16>().ok());
        match status {
            Some(200..=299) => Ok(()),
            Some(status) => Err(format!("{self} answers {status}")),
            None => Err(format!("{self} does not speak HTTP")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_read() {
        for (text, shown) in [
            ("http://127.0.0.1:8081/health", "http://127.0.0.1:8081/health"),
            ("http://localhost", "http://localhost:80/"),
            ("http://[::1]:8081?x=1", "http://[::1]:8081/?x=1"),
            ("tcp:8081", "tcp:127.0.0.1:8081"),
            ("tcp:db.local:8081", "tcp:db.local:8081"),
        ] {
            let check: Check = text.parse().unwrap();
            assert_eq!(check.to_string(), shown);
            assert_eq!(shown.parse::<Check>().unwrap(), check);
        }
        for text in
            ["", "8081", "tcp:", "tcp:x", "tcp:0", "https://x/", "http://", "http://a b/", "http://x:y/", "http://u@x/"]
        {
            text.parse::<Check>().unwrap_err();
        }
    }

    async fn asked(answer: &'static str) -> Result<(), String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let check: Check = format!("http://127.0.0.1:{port}/health").parse().unwrap();
        let result = check.ask().await;
        server.await.unwrap();
        result
    }

    #[tokio::test]
    async fn an_answer_of_the_two_hundreds_is_health() {
        asked("HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        assert!(asked("HTTP/1.1 503 Service Unavailable\r\n\r\n").await.unwrap_err().ends_with("/health answers 503"));
        assert!(asked("SSH-2.0-x\r\n").await.unwrap_err().ends_with("does not speak HTTP"));
    }

    #[tokio::test]
    async fn a_closed_port_is_none() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let check: Check = format!("tcp:{}", listener.local_addr().unwrap().port()).parse().unwrap();
        check.ask().await.unwrap();
        drop(listener);
        assert!(check.ask().await.is_err());
    }
}
