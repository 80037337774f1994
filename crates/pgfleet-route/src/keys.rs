//! The keys that open what the control database keeps sealed for a service.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use crate::directory::Opener;

/// The keys of one service; several while keys are changed.
pub struct Keys(Vec<(String, LessSafeKey)>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(id, _)| id)).finish()
    }
}

impl Keys {
    /// Reads keys of 32 bytes in base64, separated by commas.
    ///
    /// # Errors
    ///
    /// What is wrong, without the text.
    pub fn parse(text: &SecretString) -> Result<Self, String> {
        let mut keys = Vec::new();
        for (at, part) in text.expose_secret().split(',').map(str::trim).filter(|part| !part.is_empty()).enumerate() {
            let bad = || format!("key {} is not 32 bytes in base64", at + 1);
            let bytes = BASE64_STANDARD.decode(part).map_err(|_| bad())?;
            let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| bad())?;
            keys.push((key_id(&bytes), LessSafeKey::new(key)));
        }
        if keys.is_empty() { Err("there is no key in it".to_owned()) } else { Ok(Self(keys)) }
    }
}

/// Names a key without giving it away, so that a row can say which one sealed it.
pub fn key_id(bytes: &[u8]) -> String {
    let digest = Sha256::new().chain_update(b"pgfleet key id").chain_update(bytes).finalize();
    format!("{:016x}", u64::from_be_bytes(digest[..8].try_into().unwrap_or_default()))
}

impl Opener for Keys {
    fn open(&self, sealed: &[u8], key_id: &str, context: &str) -> Result<SecretString, String> {
        let Some((_, key)) = self.0.iter().find(|(id, _)| id == key_id) else {
            return Err(format!("it is sealed with key {key_id}, which this service does not have"));
        };
        let failed = || "it does not open with its key".to_owned();
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN).ok_or_else(failed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed())?;
        let mut text = text.to_vec();
        let open = key.open_in_place(nonce, Aad::from(context.as_bytes()), &mut text).map_err(|_| failed())?;
        Ok(String::from_utf8(open.to_vec()).map_err(|_| failed())?.into())
    }
}
