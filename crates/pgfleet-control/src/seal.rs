//! Encrypting what is stored in the control database.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom as _, SystemRandom};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, ErrorKind};

/// The key of a solution or of a service: 32 bytes, written in base64.
#[derive(Clone)]
pub struct SealKey {
    key: std::sync::Arc<LessSafeKey>,
    bytes: std::sync::Arc<SecretBox<[u8; 32]>>,
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
        Self::of_bytes(bytes.try_into().map_err(|_| bad())?)
    }

    fn of_bytes(bytes: [u8; 32]) -> Result<Self, Error> {
        let key = UnboundKey::new(&AES_256_GCM, &bytes)
            .map_err(|_| Error::new(ErrorKind::Failed, "the encryption key cannot be used"))?;
        // Names the key without giving it away, so that rotation knows which one sealed a row.
        let digest = Sha256::new().chain_update(b"pgfleet key id").chain_update(bytes).finalize();
        let id = format!("{:016x}", u64::from_be_bytes(digest[..8].try_into().unwrap_or_default()));
        let bytes = std::sync::Arc::new(SecretBox::new(Box::new(bytes)));
        Ok(Self { key: std::sync::Arc::new(LessSafeKey::new(key)), bytes, id })
    }

    /// Returns the key of one service, which opens what was sealed for that service and nothing
    /// else: HKDF-SHA256 of this key with `service/<name>`.
    ///
    /// Always the same for the same key and service, so that nobody has to keep it.
    ///
    /// # Errors
    ///
    /// None that can be caused from outside.
    pub fn of_service(&self, service: &str) -> Result<Self, Error> {
        let failed = |_| Error::new(ErrorKind::Failed, format!("cannot make the key of service {service}"));
        let info = format!("service/{service}");
        let mut bytes = [0u8; 32];
        Salt::new(HKDF_SHA256, &[])
            .extract(self.bytes.expose_secret())
            .expand(&[info.as_bytes()], HKDF_SHA256)
            .and_then(|key| key.fill(&mut bytes))
            .map_err(failed)?;
        Self::of_bytes(bytes)
    }

    /// Returns the key as text, for handing it to a program.
    pub fn expose_text(&self) -> SecretString {
        BASE64_STANDARD.encode(self.bytes.expose_secret()).into()
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

/// The keys at hand while one takes the place of another: seals with the present one, opens with
/// the one that a row names.
#[derive(Debug, Clone)]
pub struct KeyRing {
    current: SealKey,
    old: Vec<SealKey>,
    /// Where a key that is missing would be given.
    giver: String,
}

impl KeyRing {
    /// Makes a ring of a solution's key and those that it replaced.
    pub fn new(current: SealKey, old: Vec<SealKey>) -> Self {
        let giver = "give the key that sealed it beside the present one, in PGFLEET_KEY_OLD".to_owned();
        Self { current, old, giver }
    }

    /// Reads keys separated by commas, the present one first, as a service's variable holds them.
    ///
    /// `variable` is the name of that variable, for the error about a key that it lacks.
    ///
    /// # Errors
    ///
    /// No key, or one that is not 32 bytes in base64.
    pub fn parse(text: &SecretString, variable: &str) -> Result<Self, Error> {
        let mut keys = parse_list(text)?;
        if keys.is_empty() {
            return Err(Error::new(ErrorKind::Configuration, format!("{variable} holds no key")));
        }
        let current = keys.remove(0);
        let giver = format!("{variable} may hold several keys, separated by commas: add the one that is missing");
        Ok(Self { current, old: keys, giver })
    }

    /// Returns the name of the present key.
    pub fn id(&self) -> &str {
        self.current.id()
    }

    /// Returns the keys of one service, in the same order.
    ///
    /// # Errors
    ///
    /// As [`SealKey::of_service`].
    pub fn of_service(&self, service: &str) -> Result<Self, Error> {
        let old = self.old.iter().map(|key| key.of_service(service)).collect::<Result<_, _>>()?;
        Ok(Self { current: self.current.of_service(service)?, old, giver: self.giver.clone() })
    }

    /// Returns all keys as text, separated by commas, for handing them to a program.
    pub fn expose_text(&self) -> SecretString {
        let texts: Vec<_> = self.all().map(|key| key.expose_text().expose_secret().to_owned()).collect();
        texts.join(",").into()
    }

    /// Seals with the present key; see [`SealKey::seal`].
    ///
    /// # Errors
    ///
    /// The system gives no random numbers.
    pub fn seal(&self, secret: &SecretString, context: &str) -> Result<Vec<u8>, Error> {
        self.current.seal(secret, context)
    }

    /// Opens what the key of that name sealed.
    ///
    /// # Errors
    ///
    /// That key is not here, another context, a damaged text.
    pub fn open(&self, key_id: &str, sealed: &[u8], context: &str) -> Result<SecretString, Error> {
        let Some(key) = self.all().find(|key| key.id() == key_id) else {
            let here: Vec<&str> = self.all().map(SealKey::id).collect();
            let message = format!("cannot decrypt {context}: key {key_id}, which sealed it, is missing");
            return Err(Error::new(ErrorKind::Configuration, message)
                .cause(format!("at hand: key {}", here.join(", ")))
                .hinted(&self.giver));
        };
        key.open(sealed, context)
    }

    fn all(&self) -> impl Iterator<Item = &SealKey> {
        std::iter::once(&self.current).chain(&self.old)
    }
}

/// Reads keys separated by commas or white space.
pub(crate) fn parse_list(text: &SecretString) -> Result<Vec<SealKey>, Error> {
    let keys = text.expose_secret().split([',', ' ', '\n']).map(str::trim).filter(|key| !key.is_empty());
    keys.map(|key| SealKey::parse(&key.to_owned().into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SealKey {
        SealKey::parse(&SealKey::generate().unwrap()).unwrap()
    }

    #[test]
    fn a_services_key_is_its_own_and_always_the_same() {
        let text: SecretString = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned().into();
        let solution = SealKey::parse(&text).unwrap();
        let trip = solution.of_service("trip").unwrap();
        // A golden value: services keep what was sealed for them over versions of this program.
        assert_eq!(trip.expose_text().expose_secret(), "eCY/CqMGbbCaPfMYkEWmh5hLgEKInKqX5FJMWLAczT4=");
        assert_ne!(trip.id(), solution.of_service("user").unwrap().id());
        let sealed = trip.seal(&"s".to_owned().into(), "tenant/acme/").unwrap();
        assert!(solution.open(&sealed, "tenant/acme/").is_err());
        assert!(solution.of_service("user").unwrap().open(&sealed, "tenant/acme/").is_err());
        assert!(SealKey::parse(&trip.expose_text()).unwrap().open(&sealed, "tenant/acme/").is_ok());
    }

    #[test]
    fn a_ring_opens_with_the_key_that_a_row_names() {
        let (old, new) = (key(), key());
        let sealed = old.seal(&"s".to_owned().into(), "x").unwrap();
        let both = KeyRing::new(new.clone(), vec![old.clone()]);
        assert_eq!(both.id(), new.id());
        assert_eq!(both.open(old.id(), &sealed, "x").unwrap().expose_secret(), "s");
        let alone = KeyRing::new(new.clone(), Vec::new()).open(old.id(), &sealed, "x").unwrap_err();
        assert!(alone.to_string().contains(old.id()), "{alone}");
        assert!(alone.causes()[0].contains(new.id()), "{:?}", alone.causes());
        let given = KeyRing::parse(&both.expose_text(), "PGFLEET_TRIP_KEY").unwrap();
        assert_eq!(given.open(old.id(), &sealed, "x").unwrap().expose_secret(), "s");
        let error = KeyRing::parse(&new.expose_text(), "PGFLEET_TRIP_KEY").unwrap().open(old.id(), &sealed, "x");
        assert!(error.unwrap_err().hint().unwrap().contains("PGFLEET_TRIP_KEY"));
        assert!(KeyRing::parse(&" , ".to_owned().into(), "PGFLEET_TRIP_KEY").is_err());
    }

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
