//! TLS and logins, against a server that shows good and bad certificates.

use std::os::unix::fs::PermissionsExt as _;

use pgfleet_local::testing::{Shown, TestServer, TlsServer};
use pgfleet_postgres::{Address, Connection, Error, ErrorKind, Purpose, connect};

use crate::support::told;

const PASSWORD: &str = "pw";

async fn server() -> TlsServer {
    let server = TlsServer::start().await;
    let admin = connect(&Address::parse(&server.superuser_url("postgres")).unwrap(), &Purpose::new("test")).await;
    let mut sql = String::new();
    for role in ["by_certificate", "by_tls", "by_plain", "by_clear", "anyhow"] {
        sql.push_str(&format!("CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}';"));
    }
    sql.push_str(&format!("SET password_encryption = md5; CREATE ROLE by_md5 LOGIN PASSWORD '{PASSWORD}'"));
    admin.unwrap().execute_all(&sql).await.unwrap();
    server
}

async fn open(server: &TlsServer, role: &str, parameters: &str) -> Result<Connection, Error> {
    let address = Address::parse(&server.url(role, PASSWORD, parameters))?;
    connect(&address, &Purpose::new("tls")).await
}

/// Whether a connection is by TLS, as the server sees it.
async fn is_by_tls(connection: &Connection) -> bool {
    let rows = connection.simple("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await.unwrap();
    rows[0].get(0) == Some("t")
}

/// What becomes of a try.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Plain,
    Tls,
    Refused(&'static str),
}
use End::{Plain, Refused, Tls};

#[tokio::test]
async fn each_mode_takes_the_servers_that_it_should() {
    let server = server().await;
    let (root, other) = (server.root().display().to_string(), server.other_root().display().to_string());
    let modes: Vec<(String, &str)> = ["disable", "allow", "prefer", "require"]
        .map(|mode| (format!("sslmode={mode}"), mode))
        .into_iter()
        .chain([
            (format!("sslmode=prefer&sslrootcert={other}"), "prefer"),
            // As in libpq: where authorities are named, `require` asks them.
            (format!("sslmode=require&sslrootcert={root}"), "verify-ca"),
            (format!("sslmode=verify-ca&sslrootcert={root}"), "verify-ca"),
            (format!("sslmode=verify-full&sslrootcert={root}"), "verify-full"),
            (format!("sslmode=require&sslrootcert={other}"), "other"),
            (format!("sslmode=verify-ca&sslrootcert={other}"), "other"),
            (format!("sslmode=verify-full&sslrootcert={other}"), "other"),
            ("sslrootcert=system".to_owned(), "other"),
            ("sslmode=verify-full".to_owned(), "other"),
        ])
        .collect();
    let (not_signed, wrong_name) = ("sslrootcert=PATH names the one to trust", "connect by a name that is in it");
    let (expired, no_tls) = ("the server needs a new certificate", "turn TLS on at the server");
    for shown in [Shown::Right, Shown::WrongName, Shown::OtherAuthority, Shown::Expired, Shown::NoTls] {
        server.show(shown).await;
        for (parameters, mode) in &modes {
            let expected = match (*mode, shown) {
                ("disable", _) | ("allow" | "prefer", Shown::NoTls) => Plain,
                (_, Shown::NoTls) => Refused(no_tls),
                ("allow" | "prefer" | "require", _)
                | ("verify-ca" | "verify-full", Shown::Right)
                | ("verify-ca", Shown::WrongName) => Tls,
                ("verify-full", Shown::WrongName) => Refused(wrong_name),
                ("verify-ca" | "verify-full", Shown::Expired) => Refused(expired),
                ("other", Shown::OtherAuthority) if parameters.contains(&other) => Tls,
                ("other", Shown::Expired) => Refused(""),
                _ => Refused(not_signed),
            };
            let end = match open(&server, "anyhow", parameters).await {
                Ok(connection) if is_by_tls(&connection).await => Tls,
                Ok(_) => Plain,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unreachable, "{}", told(&error));
                    let Refused(words) = expected else { panic!("{parameters} {shown:?}: {}", told(&error)) };
                    assert!(told(&error).contains(words), "{parameters} {shown:?}: {}", told(&error));
                    Refused(words)
                }
            };
            assert_eq!(end, expected, "{parameters} {shown:?}");
        }
    }
}

#[tokio::test]
async fn what_prefers_tls_goes_on_without_where_the_server_wants_none() {
    let server = server().await;
    assert!(!is_by_tls(&open(&server, "by_plain", "sslmode=prefer").await.unwrap()).await);
    assert!(is_by_tls(&open(&server, "by_tls", "sslmode=prefer").await.unwrap()).await);
    for (role, mode) in [("by_plain", "require"), ("by_tls", "disable")] {
        let error = open(&server, role, &format!("sslmode={mode}")).await.unwrap_err();
        assert_eq!((error.kind(), error.sql_state()), (ErrorKind::Denied, Some("28000")), "{}", told(&error));
    }
    // Cancelling goes by TLS, too.
    let connection = open(&server, "by_tls", "sslmode=require").await.unwrap();
    let limit = std::time::Duration::from_millis(100);
    let error = connection.within(limit, connection.simple("SELECT pg_sleep(60)")).await.unwrap_err();
    assert_eq!(error.sql_state(), Some("57014"), "{}", told(&error));
}

#[tokio::test]
async fn a_role_logs_in_by_its_certificate_and_not_without() {
    let server = server().await;
    let root = server.root().display().to_string();
    let with = |role: &str, trusted: bool| {
        let files = server.client(role, trusted);
        format!(
            "sslmode=verify-full&sslrootcert={root}&sslcert={}&sslkey={}",
            files.certificate.display(),
            files.key.display()
        )
    };
    let connection = open(&server, "by_certificate", &with("by_certificate", true)).await.unwrap();
    assert!(is_by_tls(&connection).await);
    // By pairs to another process of ours, and by the URL to psql.
    let address = Address::parse(&server.url("by_certificate", "", &with("by_certificate", true))).unwrap();
    for text in [address.expose_pairs(), address.expose_url()] {
        let again = Address::parse(secrecy::ExposeSecret::expose_secret(&text)).unwrap();
        connect(&again, &Purpose::new("tls")).await.unwrap();
    }

    let error = open(&server, "by_certificate", "sslmode=require").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", told(&error));
    assert!(told(&error).contains("sslcert=PATH sslkey=PATH"), "{}", told(&error));
    // Somebody else's certificate, and one that the server does not trust.
    let error = open(&server, "by_certificate", &with("somebody", true)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", told(&error));
    let error = open(&server, "by_certificate", &with("by_certificate", false)).await.unwrap_err();
    assert!(told(&error).contains("authority") || told(&error).contains("UnknownCA"), "{}", told(&error));
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let server = server().await;
    let files = server.client("by_certificate", true);
    let (certificate, key) = (files.certificate.display().to_string(), files.key.display().to_string());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode: u32| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let text = std::fs::read_to_string(&files.key).unwrap();
    let open_key = file("open.key", &text, 0o644);
    let encrypted = file("encrypted.key", &text.replace("PRIVATE", "ENCRYPTED PRIVATE"), 0o600);
    let old = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n";
    let old = file("old.key", old, 0o600);
    let empty = file("empty.key", "", 0o600);
    for (parameters, words) in [
        (format!("sslcert={certificate}"), "sslcert needs sslkey=PATH".to_owned()),
        (format!("sslkey={key}"), "sslkey needs sslcert=PATH".to_owned()),
        (format!("sslcert={certificate}&sslkey={open_key}"), format!("others can read sslkey {open_key}")),
        (format!("sslcert={certificate}&sslkey={encrypted}"), format!("sslkey {encrypted} is encrypted")),
        (format!("sslcert={certificate}&sslkey={old}"), format!("sslkey {old} is encrypted")),
        (format!("sslcert={certificate}&sslkey={empty}"), format!("no private key in sslkey {empty}")),
        (format!("sslcert={empty}&sslkey={key}"), format!("no certificate in sslcert {empty}")),
        ("sslcert=/none&sslkey=/none".to_owned(), "cannot read sslcert /none".to_owned()),
        ("sslrootcert=/none".to_owned(), "cannot read sslrootcert /none".to_owned()),
    ] {
        let error = open(&server, "by_certificate", &format!("sslmode=require&{parameters}")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Address, "{parameters}: {}", told(&error));
        assert!(told(&error).contains(&words), "{parameters}: {}", told(&error));
    }
}

#[tokio::test]
async fn passwords_are_sent_in_each_way_and_bound_to_the_channel() {
    let server = server().await;
    for role in ["anyhow", "by_md5", "by_clear"] {
        for mode in ["disable", "require"] {
            open(&server, role, &format!("sslmode={mode}")).await.unwrap();
        }
    }
    open(&server, "anyhow", "sslmode=require&channel_binding=require").await.unwrap();
    open(&server, "anyhow", "sslmode=require&channel_binding=disable").await.unwrap();
    for (role, mode) in [("anyhow", "disable"), ("by_md5", "require"), ("by_clear", "require")] {
        let error = open(&server, role, &format!("sslmode={mode}&channel_binding=require")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{role} {mode}: {}", told(&error));
        assert!(told(&error).contains("channel_binding=require needs TLS"), "{role} {mode}: {}", told(&error));
    }
    // A server that does not speak TLS.
    let url = TestServer::shared().await.superuser_url("postgres");
    let address = Address::parse(&format!("{url}?channel_binding=require")).unwrap();
    let error = connect(&address, &Purpose::new("tls")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", told(&error));
}
