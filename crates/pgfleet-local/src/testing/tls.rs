//! A server with TLS, and certificates for it that are good, bad and expired.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

use super::own::OwnServer;
use super::server::user_url;
use crate::cluster::HOST;
use crate::files;
use crate::user::ServerUser;

/// How long it may take until the server uses another certificate.
const RELOAD_LIMIT: Duration = Duration::from_secs(20);

/// What a server shows who it is with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// A certificate for `localhost`, signed by the authority of [`TlsServer::root`].
    Right,
    /// One for another name, signed by the same.
    WrongName,
    /// One for `localhost`, signed by somebody else.
    OtherAuthority,
    /// One for `localhost` whose time is over.
    Expired,
    /// Nothing: it speaks no TLS.
    NoTls,
}

impl Shown {
    const ALL: [Self; 4] = [Self::Right, Self::WrongName, Self::OtherAuthority, Self::Expired];

    fn file(self) -> &'static str {
        match self {
            Self::Right | Self::NoTls => "right",
            Self::WrongName => "wrong-name",
            Self::OtherAuthority => "other-authority",
            Self::Expired => "expired",
        }
    }
}

/// A certificate of a client and its key, as files.
#[derive(Debug, Clone)]
pub struct ClientFiles {
    /// The certificate, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM (PKCS#8), readable for its owner only.
    pub key: PathBuf,
}

/// A server of a test's own that speaks TLS.
///
/// Any role logs in with its password, by TLS or not; but role `by_certificate` only with a client
/// certificate that bears its name, `by_tls` only by TLS, `by_plain` only without, `by_md5` and
/// `by_clear` by those ways to send a password. The roles are the test's to make.
pub struct TlsServer {
    server: OwnServer,
    folder: PathBuf,
    authority: Issuer<'static, KeyPair>,
    stranger: Issuer<'static, KeyPair>,
}

impl TlsServer {
    /// Starts a server that shows the right certificate.
    ///
    /// # Panics
    /// When there is no server on this machine that was built with TLS, or it does not start.
    pub async fn start() -> Self {
        let (authority, root) = authority("authority");
        let (stranger, other_root) = authority_of_others();
        let mut folder = PathBuf::new();
        let server = OwnServer::start(|options| {
            folder = options.state_dir.join("tls");
            make(&folder, &authority, &stranger);
            write(&folder.join("root.crt"), &root, None);
            write(&folder.join("other-root.crt"), &other_root, None);
            // The build that can be fetched has no TLS.
            options.allow_fetch = false;
            let path = |name: &str| folder.join(name).display().to_string();
            for (name, value) in [
                ("ssl", "on".to_owned()),
                ("ssl_cert_file", path("right.crt")),
                ("ssl_key_file", path("right.key")),
                ("ssl_ca_file", path("root.crt")),
            ] {
                options.settings.push((name.to_owned(), value));
            }
            for (kind, role, how) in [
                ("hostssl", "by_certificate", "cert"),
                ("hostssl", "by_tls", "scram-sha-256"),
                ("hostnossl", "by_tls", "reject"),
                ("hostnossl", "by_plain", "scram-sha-256"),
                ("hostssl", "by_plain", "reject"),
                ("host", "by_md5", "md5"),
                ("host", "by_clear", "password"),
            ] {
                options.hba.push(format!("{kind} all {role} {HOST}/32 {how}"));
            }
        })
        .await
        .unwrap_or_else(|error| panic!("no server with TLS: {}", crate::error::describe(&error)));
        Self { server, folder, authority, stranger }
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// The superuser's URL of a database, with the password.
    pub fn superuser_url(&self, database: &str) -> String {
        self.server.superuser_url(database)
    }

    /// The URL of a role, by the name that the right certificate is for, with more parameters.
    pub fn url(&self, role: &str, password: &str, parameters: &str) -> String {
        let url = user_url(role, password, self.port(), "postgres");
        // The name may stand for other addresses, too, where nobody listens.
        let url = url.replace(&format!("@{HOST}:"), "@localhost:");
        format!("{url}?hostaddr={HOST}&{parameters}")
    }

    /// The file of the authority that signed its certificates.
    pub fn root(&self) -> PathBuf {
        self.folder.join("root.crt")
    }

    /// The file of an authority that has not.
    pub fn other_root(&self) -> PathBuf {
        self.folder.join("other-root.crt")
    }

    /// A client certificate for a role, signed by the authority that the server trusts, or not.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn client(&self, role: &str, trusted: bool) -> ClientFiles {
        let name = format!("{role}-{trusted}");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, role);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let issuer = if trusted { &self.authority } else { &self.stranger };
        let (certificate, key) = signed(&params, issuer);
        let files = ClientFiles {
            certificate: self.folder.join(format!("{name}.crt")),
            key: self.folder.join(format!("{name}.key")),
        };
        write(&files.certificate, &certificate, None);
        write(&files.key, &key, None);
        files
    }

    /// Changes what it shows to connections from now on.
    ///
    /// # Panics
    /// When the server does not take it.
    pub async fn show(&self, shown: Shown) {
        let client = self.superuser().await;
        let before: String = time(&client).await;
        let path = |ending: &str| self.folder.join(format!("{}.{ending}", shown.file())).display().to_string();
        for (name, value) in [
            ("ssl", if shown == Shown::NoTls { "off".to_owned() } else { "on".to_owned() }),
            ("ssl_cert_file", path("crt")),
            ("ssl_key_file", path("key")),
        ] {
            // Above the file of settings that the server was started with.
            let sql = format!("ALTER SYSTEM SET {name} = '{value}'");
            client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap_or_else(|error| panic!("reload: {error}"));
        let began = Instant::now();
        // What a new session was born with.
        while time(&self.superuser().await).await == before {
            assert!(began.elapsed() < RELOAD_LIMIT, "the server did not read its settings again");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn superuser(&self) -> tokio_postgres::Client {
        let url = self.superuser_url("postgres");
        let (client, connection) =
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap_or_else(|error| panic!("{error}"));
        tokio::spawn(connection);
        client
    }
}

async fn time(client: &tokio_postgres::Client) -> String {
    let sql = "SELECT pg_conf_load_time()::text";
    let rows = client.query(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    rows[0].get(0)
}

/// Makes an authority; returns it and its certificate.
fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("pgfleet test {name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap_or_else(|error| panic!("no key: {error}"));
    let certificate = params.self_signed(&key).unwrap_or_else(|error| panic!("no certificate: {error}"));
    (Issuer::new(params, key), certificate.pem())
}

fn authority_of_others() -> (Issuer<'static, KeyPair>, String) {
    authority("stranger")
}

/// Makes a certificate and its key.
fn signed(params: &CertificateParams, issuer: &Issuer<'static, KeyPair>) -> (String, String) {
    let key = KeyPair::generate().unwrap_or_else(|error| panic!("no key: {error}"));
    let certificate = params.clone().signed_by(&key, issuer).unwrap_or_else(|error| panic!("no certificate: {error}"));
    (certificate.pem(), key.serialize_pem())
}

/// Makes the server's certificates, in a folder that its user can read.
fn make(folder: &Path, authority: &Issuer<'static, KeyPair>, stranger: &Issuer<'static, KeyPair>) {
    let user = ServerUser::choose(None).unwrap_or_else(|error| panic!("no user: {error}"));
    files::make_dir(folder).unwrap_or_else(|error| panic!("{error}"));
    files::chmod(folder, 0o755).unwrap_or_else(|error| panic!("{error}"));
    for shown in Shown::ALL {
        let name = if shown == Shown::WrongName { "db.example.com" } else { "localhost" };
        let mut params =
            CertificateParams::new([name.to_owned()]).unwrap_or_else(|error| panic!("no certificate: {error}"));
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if shown == Shown::Expired {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        }
        let issuer = if shown == Shown::OtherAuthority { stranger } else { authority };
        let (certificate, key) = signed(&params, issuer);
        write(&folder.join(format!("{}.crt", shown.file())), &certificate, Some(&user));
        write(&folder.join(format!("{}.key", shown.file())), &key, Some(&user));
    }
}

/// Writes a file: what is no key may be read by all.
fn write(path: &Path, text: &str, user: Option<&ServerUser>) {
    let mode = if path.extension().is_some_and(|ending| ending == "key") { 0o600 } else { 0o644 };
    files::replace(path, text.as_bytes(), mode, user).unwrap_or_else(|error| panic!("{error}"));
    debug_assert!(fs::metadata(path).is_ok());
}
