//! TLS for connections, by libpq's modes, on rustls with ring.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::address::TlsMode;
use crate::{Address, Error, ErrorKind};

/// The name of PostgreSQL's protocol in a TLS handshake; a server wants it when TLS comes first.
const ALPN: &[u8] = b"postgresql";

/// Builds the TLS connector for an address.
///
/// The provider is named explicitly, so that a program that has another one in its tree cannot
/// make this panic.
pub(crate) fn connector(address: &Address) -> Result<tokio_postgres_rustls::MakeRustlsConnect, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::with_source(ErrorKind::Address, "TLS set-up failed", error))?;
    let roots_named = address.root_certificates().is_some();
    let verifier: Arc<dyn ServerCertVerifier> = match address.tls_mode() {
        TlsMode::VerifyCa | TlsMode::VerifyFull => verified(address, provider)?,
        // As in libpq: whoever has named authorities wants them to be asked.
        TlsMode::Require if roots_named => verified(address, provider)?,
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => Arc::new(Unverified(provider)),
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match address.client_certificate() {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let chain = certificates("sslcert", certificate)?;
            builder.with_client_auth_cert(chain, private_key(key)?).map_err(|error| {
                let message = format!("cannot use sslcert {} with sslkey {}", certificate.display(), key.display());
                Error::with_source(ErrorKind::Address, message, error)
            })?
        }
        (Some(_), None) => return Err(Error::address("sslcert needs sslkey=PATH, the certificate's key")),
        (None, Some(_)) => return Err(Error::address("sslkey needs sslcert=PATH, the key's certificate")),
    };
    if address.is_direct() {
        config.alpn_protocols.push(ALPN.to_vec());
    }
    Ok(tokio_postgres_rustls::MakeRustlsConnect::new(config))
}

fn verified(address: &Address, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let roots = roots(address.root_certificates())?;
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| Error::with_source(ErrorKind::Address, "trusted certificates not usable", error))?;
    Ok(Arc::new(Verified { inner, check_name: address.tls_mode() == TlsMode::VerifyFull }))
}

/// Reads the certificates of a file.
fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let unreadable =
        |error| Error::with_source(ErrorKind::Address, format!("cannot read {what} {}", path.display()), error);
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(unreadable)?.collect::<Result<_, _>>().map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(Error::address(format!("there is no certificate in {what} {}", path.display())));
    }
    Ok(certificates)
}

/// Reads a private key: PKCS#8, PKCS#1 or SEC1, in PEM, not encrypted.
///
/// As libpq does, a key that others can read is refused; one of root's may be readable for its group.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    use std::os::unix::fs::MetadataExt as _;
    let unreadable = |error: std::io::Error| {
        Error::with_source(ErrorKind::Address, format!("cannot read sslkey {}", path.display()), error)
    };
    let about = std::fs::metadata(path).map_err(unreadable)?;
    let forbidden = if about.uid() == 0 { 0o037 } else { 0o077 };
    if about.is_file() && about.mode() & forbidden != 0 {
        return Err(Error::address(format!("others can read sslkey {}: chmod 0600", path.display())));
    }
    let text = std::fs::read(path).map_err(unreadable)?;
    let says = |words: &[u8]| text.windows(words.len()).any(|window| window == words);
    if says(b"BEGIN ENCRYPTED PRIVATE KEY") || says(b"Proc-Type: 4,ENCRYPTED") {
        return Err(Error::address(format!(
            "sslkey {} is encrypted, which is not supported: openssl pkey -in KEY -out KEY.plain writes it in clear",
            path.display()
        )));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        Error::with_source(ErrorKind::Address, format!("there is no private key in sslkey {}", path.display()), error)
    })
}

/// Reads trusted certificates from a file, or the system's when none (or `system`) is named.
fn roots(path: Option<&Path>) -> Result<RootCertStore, Error> {
    /// The system's: hundreds of files, the same for the whole life of a process.
    static SYSTEM: OnceLock<RootCertStore> = OnceLock::new();
    let store = if let Some(path) = path.filter(|path| *path != Path::new("system")) {
        let mut store = RootCertStore::empty();
        for certificate in certificates("sslrootcert", path)? {
            store.add(certificate).map_err(|error| {
                Error::with_source(ErrorKind::Address, format!("bad certificate in {}", path.display()), error)
            })?;
        }
        store
    } else {
        let read = || {
            let mut store = RootCertStore::empty();
            // One unreadable certificate among them must not stop the others.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            store
        };
        SYSTEM.get_or_init(read).clone()
    };
    if store.is_empty() {
        return Err(Error::address("no trusted certificates found: give sslrootcert=PATH"));
    }
    Ok(store)
}

/// Whether an error of the network is about the server's certificate: what is wrong with it.
pub(crate) fn distrust(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let error = error.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(why) = error else { return None };
    Some(match why {
        CertificateError::UnknownIssuer => {
            "the certificate is not signed by a trusted authority; sslrootcert=PATH names the one to trust"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the certificate is for another host: connect by a name that is in it"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the server needs a new certificate",
        _ => "the server's certificate cannot be trusted",
    })
}

/// Accepts any certificate: what `prefer` and `require` mean in libpq.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks the chain; for `verify-ca` a certificate for another name is fine.
#[derive(Debug)]
struct Verified {
    inner: Arc<WebPkiServerVerifier>,
    check_name: bool,
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.inner.verify_server_cert(certificate, chain, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.check_name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
