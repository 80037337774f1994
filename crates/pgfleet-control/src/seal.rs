//! Encrypting what is stored in the control database.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, ErrorKind};

/// The key of a solution: 32 bytes, written in base64.
#[derive(Clone)]
pub struct SealKey {
    key: std::sync::Arc<LessSafeKey>,
    id: String,
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealKey({})", self.id)
    }
}

impl SealKey {
    /// Reads a key written in base64.
    ///
    /// # Errors
    ///
    /// Anything that is not 32 bytes in base64.
    pub fn parse(text: &SecretString) -> Result<Self, Error> {
        let bad = || {
            Error::new(ErrorKind::Configuration, "the encryption key is not 32 bytes in base64")
                .hinted("make one: openssl rand -base64 32")
        };
        let bytes = BASE64_STANDARD.decode(text.expose_secret().trim()).map_err(|_| bad())?;
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| bad())?;
        // Names the key without giving it away, so that rotation knows which one sealed a row.
        let digest = Sha256::new().chain_update(b"pgfleet key id").chain_update(&bytes).finalize();
        let id = format!("{:016x}", u64::from_be_bytes(digest[..8].try_into().unwrap_or_default()));
        Ok(Self { key: std::sync::Arc::new(LessSafeKey::new(key)), id })
    }

    /// Makes a new key, as text.
    pub fn generate() -> Result<SecretString, Error> {
        let mut bytes = [0u8; 32];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| Error::new(ErrorKind::Failed, "the system gives no random numbers"))?;
        Ok(BASE64_STANDARD.encode(bytes).into())
    }

    /// Returns a name of the key that does not give it away.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Seals a secret; `context` (server and role) is bound to it, so that rows cannot be swapped.
    pub fn seal(&self, secret: &SecretString, context: &str) -> Result<Vec<u8>, Error> {
        let failed = || Error::new(ErrorKind::Failed, "cannot encrypt");
        let mut nonce = [0u8; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| failed())?;
        let mut sealed = secret.expose_secret().as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context.as_bytes()), &mut sealed)
            .map_err(|_| failed())?;
        let mut all = nonce.to_vec();
        all.extend(sealed);
        Ok(all)
    }

    /// Opens what [`SealKey::seal`] made.
    ///
    /// # Errors
    ///
    /// Another key, another context or a damaged text.
    pub fn open(&self, sealed: &[u8], context: &str) -> Result<SecretString, Error> {
        let failed = || {
            Error::new(ErrorKind::Configuration, format!("cannot decrypt the credentials of {context}"))
                .hinted("is PGFLEET_KEY the key that encrypted them?")
        };
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN).ok_or_else(failed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed())?;
        let mut text = text.to_vec();
        let open = self.key.open_in_place(nonce, Aad::from(context.as_bytes()), &mut text).map_err(|_| failed())?;
        Ok(String::from_utf8(open.to_vec()).map_err(|_| failed())?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_comes_back_only_with_its_key_and_context() {
        let key = SealKey::parse(&SealKey::generate().unwrap()).unwrap();
        let other = SealKey::parse(&SealKey::generate().unwrap()).unwrap();
        let sealed = key.seal(&"s3cret".to_owned().into(), "main/trip_app").unwrap();
        assert_eq!(key.open(&sealed, "main/trip_app").unwrap().expose_secret(), "s3cret");
        assert!(key.open(&sealed, "main/user_app").is_err());
        assert!(other.open(&sealed, "main/trip_app").is_err());
        assert!(key.open(&sealed[..5], "main/trip_app").is_err());
        assert!(SealKey::parse(&"short".to_owned().into()).is_err());
    }
}
