//! Where passwords of roles are kept.
//!
//! A local solution keeps them in `.pgfleet/secrets.toml`, readable by its owner alone and ignored
//! by git. A solution whose control database is on a real server keeps them there, encrypted, so
//! that everybody who has the key and may read the control database works with the same ones.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pgfleet_postgres::{Address, Connection, Purpose, Type};
use rand::RngExt as _;
use secrecy::{ExposeSecret as _, SecretString};

use crate::error::{Error, ErrorKind};
use crate::place::{Place, write_private};
use crate::roles::{Login, Roles};
use crate::seal::{self, KeyRing, SealKey};

/// A password with the verifier that was set on the server.
#[derive(Clone)]
pub struct Credential {
    /// The password.
    pub password: SecretString,
    /// The SCRAM verifier; a server that shows the same one has this password.
    pub verifier: String,
    /// Since when it is handed out, in milliseconds since 1970; 0 while it is being set. Of the two
    /// roles of a login the one that came into use last is active.
    pub since: i64,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(***)")
    }
}

impl Credential {
    /// Makes a random password of 32 characters.
    pub fn generate() -> Self {
        Self::from_password(random_text(32).into())
    }

    /// Computes the verifier of a password.
    pub fn from_password(password: SecretString) -> Self {
        Self { verifier: pgfleet_postgres::scram_verifier(&password), password, since: now() }
    }
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(1)
}

/// Makes a random text of letters and digits.
pub(crate) fn random_text(length: usize) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";
    let mut random = rand::rng();
    (0..length).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect()
}

/// The passwords of a solution, by server and role.
#[derive(Debug, Default, Clone)]
pub struct Vault {
    credentials: BTreeMap<(String, String), Credential>,
    properties: BTreeMap<String, String>,
    keys: BTreeMap<String, SecretString>,
}

impl Vault {
    /// Returns a role's credential.
    pub fn get(&self, server: &str, role: &str) -> Option<&Credential> {
        self.credentials.get(&(server.to_owned(), role.to_owned()))
    }

    /// Returns the role of a login that is handed out, with its credential.
    pub fn active<'a>(&self, server: &str, roles: &'a Roles, login: Login) -> Option<(&'a str, &Credential)> {
        let known = roles.both(login).into_iter().filter_map(|role| Some((role, self.get(server, role)?)));
        // The first of two that are equal: the one that holds the rights.
        known.reduce(|best, other| if other.1.since > best.1.since { other } else { best })
    }

    /// Returns the other role of a login, when it can still log in: the old password during a rotation.
    pub fn retiring<'a>(&self, server: &str, roles: &'a Roles, login: Login) -> Option<&'a str> {
        let (active, _) = self.active(server, roles, login)?;
        roles.both(login).into_iter().find(|role| *role != active && self.get(server, role).is_some())
    }

    /// Forgets a role's credential.
    fn remove(&mut self, server: &str, role: &str) {
        self.credentials.remove(&(server.to_owned(), role.to_owned()));
    }

    /// Keeps a role's credential, in memory until stored.
    pub fn set(&mut self, server: &str, role: &str, credential: Credential) {
        self.credentials.insert((server.to_owned(), role.to_owned()), credential);
    }

    /// Returns all credentials with their server and role.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &Credential)> {
        self.credentials.iter().map(|((server, role), credential)| (server.as_str(), role.as_str(), credential))
    }
}

/// `.pgfleet/secrets.toml`.
#[derive(Debug, Clone)]
pub struct SecretsFile {
    place: Place,
    path: PathBuf,
}

impl SecretsFile {
    /// Names the secrets file of a solution.
    pub fn new(place: &Place) -> Self {
        Self { place: place.clone(), path: place.folder().join("secrets.toml") }
    }

    /// Reads it; a file that is not there holds nothing.
    pub fn read(&self) -> Result<Vault, Error> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vault::default()),
            Err(error) => {
                return Err(Error::new(ErrorKind::Configuration, format!("cannot read {}", self.path.display()))
                    .cause(error.to_string())
                    .hinted("the state folder .pgfleet beside the manifest must be this user's"));
            }
        };
        // The parser's message would repeat the line, which is a secret.
        let document: toml_edit::DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            Error::new(ErrorKind::Configuration, format!("{}:{line}: not valid TOML", self.path.display()))
                .hinted("restore the file; without it the passwords of the roles are lost and must be reset")
        })?;
        let mut vault = Vault::default();
        if let Some(servers) = document.get("roles").and_then(toml_edit::Item::as_table_like) {
            for (server, roles) in servers.iter() {
                let Some(roles) = roles.as_table_like() else { continue };
                for (role, entry) in roles.iter() {
                    let text = |key: &str| entry.get(key).and_then(toml_edit::Item::as_str).map(str::to_owned);
                    let (Some(password), Some(verifier)) = (text("password"), text("verifier")) else { continue };
                    let since = entry.get("since").and_then(toml_edit::Item::as_integer).unwrap_or(0);
                    vault.set(server, role, Credential { password: password.into(), verifier, since });
                }
            }
        }
        if let Some(keys) = document.get("keys").and_then(toml_edit::Item::as_table_like) {
            for (name, value) in keys.iter() {
                if let Some(value) = value.as_str() {
                    vault.keys.insert(name.to_owned(), value.to_owned().into());
                }
            }
        }
        if let Some(properties) = document.get("properties").and_then(toml_edit::Item::as_table_like) {
            for (name, value) in properties.iter() {
                if let Some(value) = value.as_str() {
                    vault.properties.insert(name.to_owned(), value.to_owned());
                }
            }
        }
        Ok(vault)
    }

    /// Changes it under a lock: reads, lets `change` edit, writes; also the password file that
    /// pasted connection strings point to.
    ///
    /// Two at once see each other's changes; the file is written whole or not at all.
    pub fn update<T>(&self, change: impl FnOnce(&mut Vault) -> T) -> Result<(Vault, T), Error> {
        let _lock = self.place.lock()?;
        let mut vault = self.read()?;
        let result = change(&mut vault);
        let mut document = toml_edit::DocumentMut::new();
        document.decor_mut().set_prefix("# Passwords that pgfleet made. Not for git; not for others.\n");
        for (server, role, credential) in vault.iter() {
            let entry = &mut document["roles"][server][role];
            entry["password"] = toml_edit::value(credential.password.expose_secret());
            entry["verifier"] = toml_edit::value(&credential.verifier);
            entry["since"] = toml_edit::value(credential.since);
        }
        for (name, value) in &vault.keys {
            document["keys"][name] = toml_edit::value(value.expose_secret());
        }
        for (name, value) in &vault.properties {
            document["properties"][name] = toml_edit::value(value);
        }
        write_private(&self.path, &document.to_string())?;
        Ok((vault, result))
    }

    /// Writes the password file: `host:port:*:role:password` lines, one for each address of a server.
    pub fn write_passfile(&self, vault: &Vault, servers: &BTreeMap<String, Vec<(String, u16)>>) -> Result<(), Error> {
        let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
        let mut lines = String::from("# Made by pgfleet for `passfile=`; changes are lost.\n");
        for (server, role, credential) in vault.iter() {
            let password = escape(credential.password.expose_secret());
            for (host, port) in servers.get(server).into_iter().flatten() {
                lines.push_str(&format!("{}:{port}:*:{}:{password}\n", escape(host), escape(role)));
            }
        }
        let path = self.place.passfile();
        if std::fs::read_to_string(&path).is_ok_and(|present| present == lines) {
            return Ok(());
        }
        // Two processes must not write one temporary file.
        let _lock = self.place.lock()?;
        write_private(&path, &lines)
    }
}

/// Returns the keys of a local solution; the present one is made when there is none.
pub(crate) fn local_keys(file: &SecretsFile) -> Result<KeyRing, Error> {
    let mut vault = file.read()?;
    if !vault.keys.contains_key("current") {
        let made = SealKey::generate()?;
        (vault, ()) = file.update(|vault| {
            vault.keys.entry("current".to_owned()).or_insert(made);
        })?;
    }
    let parse = |name: &str| vault.keys.get(name).map(seal::parse_list).transpose();
    let current = parse("current")?.and_then(|keys| keys.into_iter().next());
    let current = current.ok_or_else(|| {
        Error::new(ErrorKind::Configuration, format!("`current` in [keys] of {} holds no key", file.path.display()))
    })?;
    Ok(KeyRing::new(current, parse("old")?.unwrap_or_default()))
}

/// Reads the credentials in the control database.
pub(crate) async fn read_sealed(connection: &Connection, keys: &KeyRing) -> Result<Vault, Error> {
    let rows = connection
        .query(
            "SELECT server, role, key_id, sealed, verifier, (extract(epoch FROM changed_at) * 1000)::bigint \
             FROM control.credentials",
            &[],
        )
        .await
        .map_err(|error| Error::postgres("cannot read the credentials in the control database", &error))?;
    let mut vault = Vault::default();
    for row in rows {
        let (server, role): (String, String) = (row.get(0), row.get(1));
        let password = keys.open(row.get(2), row.get(3), &format!("{server}/{role}"))?;
        vault.set(&server, &role, Credential { password, verifier: row.get(4), since: row.get(5) });
    }
    Ok(vault)
}

/// Stores a new credential in the control database, unless another process was first: whoever
/// reads afterwards works with the one that is there.
pub(crate) async fn store_sealed(
    connection: &Connection,
    keys: &KeyRing,
    server: &str,
    role: &str,
    credential: &Credential,
) -> Result<(), Error> {
    let sealed = keys.seal(&credential.password, &format!("{server}/{role}"))?;
    connection
        .execute(
            "INSERT INTO control.credentials (server, role, key_id, sealed, verifier) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (server, role) DO NOTHING",
            &[
                (&server, Type::TEXT),
                (&role, Type::TEXT),
                (&keys.id(), Type::TEXT),
                (&sealed, Type::BYTEA),
                (&credential.verifier, Type::TEXT),
            ],
        )
        .await
        .map_err(|error| Error::postgres("cannot store a credential in the control database", &error))?;
    Ok(())
}

/// Where the credentials of a solution are kept, for reading them anew and changing them.
#[derive(Debug, Clone)]
pub struct Keeper {
    /// The file beside the manifest; always there, for the passwords of local servers.
    pub(crate) file: SecretsFile,
    /// The control database with its key, when the others are kept there.
    pub(crate) control: Option<(Address, KeyRing)>,
}

impl Keeper {
    /// Reads all credentials.
    ///
    /// # Errors
    ///
    /// The file or the control database cannot be read.
    pub async fn read(&self) -> Result<Vault, Error> {
        let mut vault = self.file.read()?;
        if let Some((_, key)) = &self.control {
            let connection = self.connect().await?;
            let sealed = read_sealed(&connection, key).await;
            connection.close().await;
            for (server, role, credential) in sealed?.iter() {
                vault.set(server, role, credential.clone());
            }
        }
        Ok(vault)
    }

    /// Keeps a new password for a role, not handed out yet; replaces one that is there.
    pub(crate) async fn prepare(&self, server: &str, role: &str, credential: Credential) -> Result<(), Error> {
        let Some((_, key)) = &self.control else {
            let credential = Credential { since: 0, ..credential };
            return self.file.update(|vault| vault.set(server, role, credential)).map(|_| ());
        };
        let sealed = key.seal(&credential.password, &format!("{server}/{role}"))?;
        let connection = self.connect().await?;
        let done = connection
            .execute(
                "INSERT INTO control.credentials (server, role, key_id, sealed, verifier, changed_at) \
             VALUES ($1, $2, $3, $4, $5, to_timestamp(0)) \
             ON CONFLICT (server, role) DO UPDATE SET key_id = excluded.key_id, sealed = excluded.sealed, \
               verifier = excluded.verifier, changed_at = excluded.changed_at",
                &[
                    (&server, Type::TEXT),
                    (&role, Type::TEXT),
                    (&key.id(), Type::TEXT),
                    (&sealed, Type::BYTEA),
                    (&credential.verifier, Type::TEXT),
                ],
            )
            .await;
        changed(connection, done).await
    }

    /// Hands a role's password out from now on, in the place of the other role's of the login.
    pub(crate) async fn activate(&self, server: &str, role: &str) -> Result<(), Error> {
        if self.control.is_none() {
            let change = |vault: &mut Vault| {
                // Later than every other one, whatever the clock says.
                let last = vault.iter().map(|(_, _, credential)| credential.since).max().unwrap_or(0);
                if let Some(credential) = vault.get(server, role).cloned() {
                    vault.set(server, role, Credential { since: now().max(last + 1), ..credential });
                }
            };
            return self.file.update(change).map(|_| ());
        }
        let connection = self.connect().await?;
        let done = connection
            .execute(
                "UPDATE control.credentials SET changed_at = clock_timestamp() WHERE server = $1 AND role = $2",
                &[(&server, Type::TEXT), (&role, Type::TEXT)],
            )
            .await;
        changed(connection, done).await
    }

    /// Forgets a role's password: provisioning then lets it log in no more.
    pub(crate) async fn forget(&self, server: &str, role: &str) -> Result<(), Error> {
        if self.control.is_none() {
            return self.file.update(|vault| vault.remove(server, role)).map(|_| ());
        }
        let connection = self.connect().await?;
        let done = connection
            .execute(
                "DELETE FROM control.credentials WHERE server = $1 AND role = $2",
                &[(&server, Type::TEXT), (&role, Type::TEXT)],
            )
            .await;
        changed(connection, done).await
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let Some((address, _)) = &self.control else {
            return Err(Error::new(ErrorKind::Failed, "the credentials are not in a control database"));
        };
        pgfleet_postgres::connect(address, &Purpose::new("pgfleet control"))
            .await
            .map_err(|error| Error::postgres("cannot open the control database", &error))
    }
}

/// Closes the connection and says what failed.
async fn changed(connection: Connection, done: Result<u64, pgfleet_postgres::Error>) -> Result<(), Error> {
    connection.close().await;
    done.map(|_| ()).map_err(|error| Error::postgres("cannot change a credential in the control database", &error))
}

/// Returns the value of a secret seed property, made once and kept.
pub(crate) fn property_hash(file: &SecretsFile, name: &str, password: Option<&SecretString>) -> Result<String, Error> {
    // Argon2 salts each hash; kept beside its input's digest, so that a seed does not look changed
    // at every run.
    let digest_key = format!("{name}_digest");
    let (_, hash) = file.update(|vault| {
        let password = match password {
            Some(password) => password.expose_secret().to_owned(),
            None => vault.properties.entry(name.to_owned()).or_insert_with(|| random_text(20)).clone(),
        };
        let digest = pgfleet_sql::checksum::raw_hash(password.as_bytes());
        let hash_key = format!("{name}_argon2id");
        match (vault.properties.get(&digest_key), vault.properties.get(&hash_key)) {
            (Some(known), Some(hash)) if *known == digest => Ok(hash.clone()),
            _ => {
                let hash = argon2id(&password)?;
                vault.properties.insert(digest_key.clone(), digest);
                vault.properties.insert(hash_key, hash.clone());
                Ok(hash)
            }
        }
    })?;
    hash
}

/// Hashes a password.
pub(crate) fn argon2id(password: &str) -> Result<String, Error> {
    use argon2::PasswordHasher as _;
    argon2::Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|error| Error::new(ErrorKind::Failed, format!("cannot hash a password: {error}")))
}

/// Returns whether a hash is that of a password.
pub(crate) fn is_argon2id_of(hash: &str, password: &str) -> bool {
    use argon2::PasswordVerifier as _;
    argon2::PasswordHash::new(hash)
        .is_ok_and(|hash| argon2::Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}
