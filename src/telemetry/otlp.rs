//! Export of spans by OTLP. The only file that names OpenTelemetry.
//!
//! The spans of the library carry their place as fields: `trace_id`, `span_id`, `parent_id`, `link` (another span, as
//! `traceparent` writes it), `start_unix_nano`. The tracer here takes them off and builds the OpenTelemetry span exactly
//! there. Only our own two targets are exported, so the exporter's own connections are not. What waits for the collector
//! is bounded; what it does not take is counted and given up, so a slow or dead collector costs nothing else.

use std::{
    cell::Cell,
    env,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hyper_rustls::{ConfigBuilderExt, HttpsConnectorBuilder};
use opentelemetry::{
    Context, KeyValue, Value,
    trace::{
        Link, SpanBuilder, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
        TracerProvider,
    },
};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{
    Compression, ExporterBuildError, WithExportConfig, WithHttpConfig, WithTonicConfig,
    tonic_types::transport::{Certificate, ClientTlsConfig, Identity},
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    runtime,
    trace::{
        BatchConfigBuilder, IdGenerator, Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter,
        SpanProcessor, span_processor_with_async_runtime::BatchSpanProcessor,
    },
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{sync::oneshot, time::timeout};
use tracing::Subscriber;
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

use super::{EVENT_TARGET, MESSAGE_TARGET};
use crate::ledger::TraceExportStatus;

mod account;
mod settings;
#[cfg(test)]
mod tests;

use account::Account;
pub use settings::BadVariable;
use settings::{File, Files, Protocol, Queue, Reader, Settings};

/// Room in the processor's own queue for its messages that are no spans.
const QUEUE_SPARE: usize = 16;
/// How long the end waits for a collector that takes nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A variable that cannot be used.
    #[error(transparent)]
    Variable(#[from] BadVariable),
    /// The variables do not make an exporter.
    #[error(transparent)]
    Exporter(#[from] ExporterBuildError),
}

/// An exporter of spans, from its start to its [`shutdown`](Self::shutdown).
#[derive(Debug)]
pub struct Export {
    provider: SdkTracerProvider,
    account: Arc<Account>,
    to: Option<(String, &'static str)>,
}

impl Export {
    /// An exporter as the standard variables say (`OTEL_EXPORTER_OTLP_*`, `OTEL_BSP_*`, `OTEL_SERVICE_NAME`,
    /// `OTEL_RESOURCE_ATTRIBUTES`). None where no endpoint is named and `OTEL_TRACES_EXPORTER` does not ask for one, or
    /// where that says `none`, or `OTEL_SDK_DISABLED` says `true`. What is passed over is added to `warnings`, to be
    /// logged once there is a log. Needs a tokio runtime.
    pub fn from_env(warnings: &mut Vec<String>) -> Result<Option<Self>, ExportError> {
        let mut reader = Reader::new(|name: &str| env::var(name).ok());
        let settings = reader.read();
        warnings.append(&mut reader.warnings);
        settings?.map(|settings| Self::of(&settings)).transpose()
    }

    fn of(settings: &Settings) -> Result<Self, ExportError> {
        // As it is shown to others: without credentials.
        let (scheme, path) = (settings.endpoint.scheme(), settings.endpoint.path());
        let host = &settings.endpoint[url::Position::BeforeHost..url::Position::AfterPort];
        let to = Some((format!("{scheme}://{host}{path}"), settings.protocol.label()));
        Ok(Self { to, ..Self::new(exporter(settings)?, settings.queue) })
    }

    fn new(exporter: impl SpanExporter + 'static, queue: Queue) -> Self {
        let account = Arc::new(Account::new(queue.spans));
        let exporter = CountedExporter { exporter, account: account.clone() };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(queue.spans.saturating_add(QUEUE_SPARE))
            .with_max_export_batch_size(queue.batch)
            .with_scheduled_delay(queue.delay)
            .with_max_export_timeout(queue.timeout)
            .build();
        let batches = BatchSpanProcessor::builder(exporter, runtime::Tokio).with_batch_config(config).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BoundedProcessor { batches, account: account.clone() })
            .with_id_generator(PlacedIds)
            // Whether a message is traced was decided before its span was made.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource())
            .build();
        Self { provider, account, to: None }
    }

    /// Says in the log where spans go.
    pub(super) fn announce(&self) {
        if let Some((endpoint, protocol)) = &self.to {
            tracing::info!(endpoint, protocol, "spans are exported");
        }
    }

    /// The layer that turns our spans, and only ours, into OpenTelemetry's.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        // Location, threads and inactivity would double what a span costs.
        tracing_opentelemetry::layer()
            .with_tracer(PlacedTracer(self.provider.tracer("rafthttp")))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_filter(
                Targets::new()
                    .with_targets([(MESSAGE_TARGET, tracing::Level::TRACE), (EVENT_TARGET, tracing::Level::TRACE)]),
            )
    }

    /// Reads what became of the spans; to be given to [`trace_collector`](crate::metrics::trace_collector).
    pub fn status(&self) -> impl Fn() -> TraceExportStatus + Send + Sync + 'static + use<> {
        let account = self.account.clone();
        move || account.status()
    }

    /// Exports what waits: for as long as the collector takes it, two seconds beyond the last batch that it took, and at
    /// most half of the time that is left to the process.
    pub async fn shutdown(self, left: Duration) {
        let (done, ended) = oneshot::channel();
        let Self { provider, account, .. } = self;
        // It blocks until the collector has answered. A thread of its own, since the runtime would wait for its own
        // blocking threads at the end, and nobody waits for this one.
        let flush = std::thread::Builder::new().name("trace-flush".into()).spawn(move || {
            drop(provider.shutdown());
            let _ = done.send(());
        });
        let end = Instant::now() + left / 2;
        let mut ended = pin!(ended);
        while flush.is_ok() {
            let before = account.status().exported;
            let patience = PATIENCE.min(end.saturating_duration_since(Instant::now()));
            let over = timeout(patience, &mut ended).await.is_ok();
            if over || account.status().exported == before || Instant::now() >= end {
                break;
            }
        }
        let spans = account.close();
        if spans > 0 {
            tracing::warn!(spans, "the last spans could not be exported");
        }
    }
}

/// An exporter that speaks as the settings say.
fn exporter(settings: &Settings) -> Result<opentelemetry_otlp::SpanExporter, ExportError> {
    let builder = opentelemetry_otlp::SpanExporter::builder();
    let (endpoint, secure) = (settings.endpoint.to_string(), settings.endpoint.scheme() == "https");
    Ok(match settings.protocol {
        Protocol::Grpc => {
            let mut builder = builder.with_tonic().with_endpoint(endpoint).with_timeout(settings.timeout);
            if settings.gzip {
                builder = builder.with_compression(Compression::Gzip);
            }
            if secure {
                // Read once more here, for an error that names the file.
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

/// TLS to a collector: the CAs that are named, else the system's; our certificate, if one is named.
fn tls(settings: &Settings) -> Result<ClientConfig, BadVariable> {
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
            unusable(format!("no CA to verify it by: the system has none ({error}), nor is one named"))
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

fn certificates(file: &File) -> Result<Vec<CertificateDer<'static>>, BadVariable> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&file.read()?).collect();
    match found.map_err(|error| file.bad(error))? {
        none if none.is_empty() => Err(file.bad("there is no certificate in it")),
        found => Ok(found),
    }
}

/// The same, as tonic wants it.
fn tls_of_grpc(files: &Files) -> Result<ClientTlsConfig, BadVariable> {
    let tls = match &files.authority {
        Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(file.read()?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    Ok(match &files.client {
        Some((certificate, key)) => tls.identity(Identity::from_pem(certificate.read()?, key.read()?)),
        None => tls,
    })
}

fn resource() -> Resource {
    let named = env::var_os("OTEL_SERVICE_NAME").is_some_and(|name| !name.is_empty())
        || env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|attributes| attributes.contains("service.name="));
    let builder = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if named { builder.build() } else { builder.with_service_name("rafthttp").build() }
}

/// A batch processor that never holds more than the account has room for, and counts what it turns away.
#[derive(Debug)]
struct BoundedProcessor {
    batches: BatchSpanProcessor<runtime::Tokio>,
    account: Arc<Account>,
}

impl SpanProcessor for BoundedProcessor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.account.admit() {
            self.batches.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// An exporter whose batches are counted.
#[derive(Debug)]
struct CountedExporter<E> {
    exporter: E,
    account: Arc<Account>,
}

impl<E: SpanExporter> SpanExporter for CountedExporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let mut pending = Pending { spans: batch.len() as u64, account: &self.account };
        let result = self.exporter.export(batch).await;
        let spans = std::mem::take(&mut pending.spans);
        match &result {
            Ok(()) => self.account.exported(spans),
            Err(error) => self.account.failed(spans, error),
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// A batch on its way. The processor drops an export that takes too long; that is a failure too.
struct Pending<'a> {
    spans: u64,
    account: &'a Account,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if self.spans > 0 {
            self.account.failed(self.spans, &"no answer in time");
        }
    }
}

/// A tracer that builds spans at the place that their fields name.
#[derive(Clone, Debug)]
struct PlacedTracer(SdkTracer);

impl Tracer for PlacedTracer {
    type Span = Span;

    fn build_with_context(&self, mut builder: SpanBuilder, context: &Context) -> Span {
        let place = Place::take(&mut builder);
        if place.start.is_some() {
            builder.start_time = place.start;
        }
        builder.links = place.link.map(|link| vec![Link::with_context(link)]);
        let (Some(trace), Some(span)) = (place.trace, place.span) else {
            return self.0.build_with_context(builder, context);
        };
        let context = place
            .parent
            .map_or_else(Context::new, |parent| Context::new().with_remote_span_context(elsewhere(trace, parent)));
        NEXT_IDS.set(Some((trace, span)));
        let span = self.0.build_with_context(builder, &context);
        NEXT_IDS.set(None);
        span
    }
}

/// Where a span is to be.
#[derive(Default)]
struct Place {
    trace: Option<TraceId>,
    span: Option<SpanId>,
    parent: Option<SpanId>,
    link: Option<SpanContext>,
    start: Option<SystemTime>,
}

/// A span of another process, or one that is not built here.
fn elsewhere(trace: TraceId, span: SpanId) -> SpanContext {
    SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default())
}

impl Place {
    /// Takes the fields that say it off the span's attributes.
    fn take(builder: &mut SpanBuilder) -> Self {
        let mut place = Self::default();
        if let Some(attributes) = &mut builder.attributes {
            attributes.retain(|attribute| !place.set(attribute));
        }
        place
    }

    /// Whether the attribute says where the span is to be.
    fn set(&mut self, KeyValue { key, value, .. }: &KeyValue) -> bool {
        match (key.as_str(), value) {
            ("trace_id", Value::String(text)) => self.trace = TraceId::from_hex(text.as_str()).ok(),
            ("span_id", Value::String(text)) => self.span = SpanId::from_hex(text.as_str()).ok(),
            ("parent_id", Value::String(text)) => self.parent = SpanId::from_hex(text.as_str()).ok(),
            ("link", Value::String(text)) => self.link = linked(text.as_str()),
            ("start_unix_nano", Value::I64(nanos)) => {
                let since = u64::try_from(*nanos).map(Duration::from_nanos);
                self.start = since.ok().map(|since| UNIX_EPOCH + since);
            }
            _ => return false,
        }
        true
    }
}

/// Reads a place as `TraceContext` prints it.
fn linked(text: &str) -> Option<SpanContext> {
    let (trace, span) = text.split_once('-')?;
    Some(elsewhere(TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?))
}

thread_local! {
    /// The IDs of the span that this thread is building. The SDK takes IDs from its generator only.
    static NEXT_IDS: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// Gives a span the IDs that its fields name, or random ones.
#[derive(Debug)]
struct PlacedIds;

impl IdGenerator for PlacedIds {
    fn new_trace_id(&self) -> TraceId {
        NEXT_IDS.get().map_or_else(|| TraceId::from(rand::random::<u128>()), |(trace, _)| trace)
    }

    fn new_span_id(&self) -> SpanId {
        NEXT_IDS.get().map_or_else(|| SpanId::from(rand::random::<u64>()), |(_, span)| span)
    }
}
