//! What a tenant's seeds are given: stored sealed, passwords as their hashes only.

use std::collections::BTreeMap;

use pgfleet_postgres::{Connection, Type};
use secrecy::{ExposeSecret as _, SecretString};

use super::property_context;
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind};
use crate::seal::KeyRing;
use crate::solution::Solution;
use crate::vault;

/// Whether a property is a password, of which only the hash is kept.
fn is_password(name: &str) -> bool {
    name.ends_with("password")
}

/// Refuses properties that cannot be a tenant's own.
///
/// # Errors
///
/// `tenant`, which every run binds by itself.
pub(super) fn check(properties: &BTreeMap<String, SecretString>) -> Result<(), Error> {
    if properties.contains_key(pgfleet_migrate::seed::TENANT) {
        return Err(Error::new(ErrorKind::Configuration, "the property `tenant` cannot be given")
            .cause("in the seeds of a tenant it is the tenant's name"));
    }
    Ok(())
}

/// A tenant's properties, ready to be stored.
pub(super) struct Sealed<'a> {
    names: Vec<&'a str>,
    texts: Vec<Vec<u8>>,
    /// As its seeds are given them.
    pub(super) values: BTreeMap<String, String>,
}

/// Seals a tenant's properties. Hashing a password takes its time, so this is done before a transaction.
pub(super) fn seal<'a>(
    keys: &KeyRing,
    tenant: &str,
    properties: &'a BTreeMap<String, SecretString>,
) -> Result<Sealed<'a>, Error> {
    let mut sealed = Sealed { names: Vec::new(), texts: Vec::new(), values: BTreeMap::new() };
    for (name, value) in properties {
        let value =
            if is_password(name) { SecretString::from(vault::argon2id(value.expose_secret())?) } else { value.clone() };
        sealed.texts.push(keys.seal(&value, &property_context(tenant, name))?);
        sealed.values.insert(name.clone(), value.expose_secret().to_owned());
        sealed.names.push(name.as_str());
    }
    Ok(sealed)
}

/// Stores a tenant's properties; the transaction is the caller's.
pub(super) async fn store(
    connection: &Connection,
    keys: &KeyRing,
    tenant: &str,
    sealed: &Sealed<'_>,
) -> Result<(), Error> {
    if sealed.names.is_empty() {
        return Ok(());
    }
    connection
        .execute(
            "INSERT INTO control.tenant_properties (tenant, name, key_id, sealed) \
             SELECT $1, g.name, $2, g.sealed FROM unnest($3::text[], $4::bytea[]) AS g (name, sealed) \
             ON CONFLICT (tenant, name) DO UPDATE SET key_id = excluded.key_id, sealed = excluded.sealed",
            &[
                (&tenant, Type::TEXT),
                (&keys.id(), Type::TEXT),
                (&sealed.names, Type::TEXT_ARRAY),
                (&sealed.texts, Type::BYTEA_ARRAY),
            ],
        )
        .await
        .map_err(|error| Error::postgres("cannot store the tenant's properties", &error))?;
    Ok(())
}

/// Reads a tenant's properties, as its seeds are given them.
pub(crate) async fn read(
    connection: &Connection,
    keys: &KeyRing,
    tenant: &str,
) -> Result<BTreeMap<String, String>, Error> {
    let rows = connection
        .query("SELECT name, key_id, sealed FROM control.tenant_properties WHERE tenant = $1", &[(&tenant, Type::TEXT)])
        .await
        .map_err(|error| Error::postgres("cannot read the tenant's properties", &error))?;
    let mut values = BTreeMap::new();
    for row in rows {
        let name: String = row.get(0);
        let value = keys.open(row.get(1), row.get(2), &property_context(tenant, &name))?;
        values.insert(name, value.expose_secret().to_owned());
    }
    Ok(values)
}

/// Reads the properties of several tenants.
pub(crate) async fn read_all(
    connection: &Connection,
    keys: &KeyRing,
    tenants: &[&str],
) -> Result<BTreeMap<String, BTreeMap<String, String>>, Error> {
    let rows = connection
        .query(
            "SELECT tenant, name, key_id, sealed FROM control.tenant_properties WHERE tenant = ANY ($1)",
            &[(&tenants, Type::TEXT_ARRAY)],
        )
        .await
        .map_err(|error| Error::postgres("cannot read the tenants' properties", &error))?;
    let mut values: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for row in rows {
        let (tenant, name): (String, String) = (row.get(0), row.get(1));
        let value = keys.open(row.get(2), row.get(3), &property_context(&tenant, &name))?;
        values.entry(tenant).or_default().insert(name, value.expose_secret().to_owned());
    }
    Ok(values)
}

impl Solution {
    /// Returns what a tenant's seeds are given; nothing for a host.
    ///
    /// # Errors
    ///
    /// The control database cannot be read, or a key is missing.
    pub(crate) async fn seed_values(
        &self,
        catalogue: &Catalogue,
        tenant: &str,
    ) -> Result<BTreeMap<String, String>, Error> {
        if tenant.is_empty() {
            return Ok(BTreeMap::new());
        }
        read(catalogue.connection(), &self.keys()?, tenant).await
    }
}

/// Returns the first property that is given and is not what is stored.
pub(super) fn difference<'a>(
    given: &'a BTreeMap<String, SecretString>,
    stored: &BTreeMap<String, String>,
) -> Option<&'a str> {
    let same = |name: &str, value: &SecretString| {
        stored.get(name).is_some_and(|stored| {
            if is_password(name) {
                vault::is_argon2id_of(stored, value.expose_secret())
            } else {
                stored == value.expose_secret()
            }
        })
    };
    given.iter().find(|(name, value)| !same(name, value)).map(|(name, _)| name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_again_is_known_also_by_its_hash() {
        let given = |pairs: &[(&str, &str)]| -> BTreeMap<String, SecretString> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned().into())).collect()
        };
        let stored = BTreeMap::from([
            ("admin_email".to_owned(), "a@acme.example".to_owned()),
            ("admin_password".to_owned(), vault::argon2id("s3cret").unwrap()),
        ]);
        assert_eq!(difference(&given(&[]), &stored), None);
        assert_eq!(
            difference(&given(&[("admin_email", "a@acme.example"), ("admin_password", "s3cret")]), &stored),
            None
        );
        assert_eq!(difference(&given(&[("admin_password", "S3cret")]), &stored), Some("admin_password"));
        assert_eq!(difference(&given(&[("region", "eu")]), &stored), Some("region"));
        assert!(check(&given(&[("tenant", "x")])).is_err());
    }
}
