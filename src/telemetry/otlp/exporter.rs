//! The exporter for the settings: its protocol, and its TLS.

use std::sync::Arc;

use hyper_rustls::{ConfigBuilderExt, HttpsConnectorBuilder};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{
    Compression, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
    tonic_types::transport::{Certificate, ClientTlsConfig, Identity},
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{
    ExportError,
    settings::{BadVariable, CollectorTls, ExportSettings, NamedFile, Protocol},
};

/// An exporter for these settings.
pub(super) fn of(settings: &ExportSettings) -> Result<SpanExporter, ExportError> {
    let builder = SpanExporter::builder();
    let (endpoint, secure) = (settings.endpoint.to_string(), settings.endpoint.scheme() == "https");
    Ok(match settings.protocol {
        Protocol::Grpc => {
            let mut builder = builder.with_tonic().with_endpoint(endpoint).with_timeout(settings.timeout);
            if settings.gzip {
                builder = builder.with_compression(Compression::Gzip);
            }
            if secure {
                // The files are read here once more, for an error that names the file.
                tls(settings)?;
                builder = builder.with_tls_config(tls_of_grpc(&settings.files)?);
            }
            builder.build()?
        }
        Protocol::Http => {
            let mut builder = builder.with_http().with_endpoint(endpoint).with_timeout(settings.timeout);
            if settings.gzip {
                builder = builder.with_compression(Compression::Gzip);
            }
            if secure {
                let connector =
                    HttpsConnectorBuilder::new().with_tls_config(tls(settings)?).https_only().enable_http1().build();
                builder = builder.with_http_client(HyperClient::new(connector, settings.timeout, None));
            }
            builder.build()?
        }
    })
}

/// The TLS configuration for a collector: the configured CAs, or else the system's, and a client certificate if one is
/// configured.
fn tls(settings: &ExportSettings) -> Result<ClientConfig, BadVariable> {
    let unusable = |why: String| BadVariable {
        variable: settings.endpoint_variable.to_owned(),
        value: settings.endpoint.to_string(),
        expected: why,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?;
    let builder = match &settings.files.authority {
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| file.bad(error))?;
            }
            builder.with_root_certificates(roots)
        }
        None => builder.with_native_roots().map_err(|error| {
            unusable(format!("there is no CA to verify it: the system has none ({error}), and none is set"))
        })?,
    };
    match &settings.files.client {
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let secret = PrivateKeyDer::from_pem_slice(&key.read()?).map_err(|error| key.bad(error))?;
            builder.with_client_auth_cert(chain, secret).map_err(|error| certificate.bad(error))
        }
        None => Ok(builder.with_no_client_auth()),
    }
}

fn certificates(file: &NamedFile) -> Result<Vec<CertificateDer<'static>>, BadVariable> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&file.read()?).collect();
    match found.map_err(|error| file.bad(error))? {
        none if none.is_empty() => Err(file.bad("there is no certificate in it")),
        found => Ok(found),
    }
}

/// The same configuration for tonic.
fn tls_of_grpc(files: &CollectorTls) -> Result<ClientTlsConfig, BadVariable> {
    let tls = match &files.authority {
        Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(file.read()?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    Ok(match &files.client {
        Some((certificate, key)) => tls.identity(Identity::from_pem(certificate.read()?, key.read()?)),
        None => tls,
    })
}
