//! The export of spans by OTLP. Only this module names OpenTelemetry's crates.
//!
//! The library's spans carry their place as fields: `trace_id`, `span_id`, `parent_id`, `link` (another span, in the
//! form of `traceparent`), `start_unix_nano`. The tracer here removes these fields and builds the OpenTelemetry span at
//! exactly that place. Only the library's two targets are exported, so the exporter's own connections are not. The
//! queue for the collector is bounded. Spans that the collector does not take are counted and dropped, so a slow or
//! dead collector costs nothing else.

use std::{
    env,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::{
    Resource, runtime,
    trace::{
        BatchConfigBuilder, Sampler, SdkTracerProvider, SpanExporter,
        span_processor_with_async_runtime::BatchSpanProcessor,
    },
};
use tokio::{sync::oneshot, time::timeout};
use tracing::Subscriber;
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

use super::{EVENT_TARGET, MESSAGE_TARGET};
use crate::{ledger::TraceExportStatus, world::World};

mod account;
mod exporter;
mod placed;
mod processor;
mod settings;
#[cfg(test)]
mod tests;

use account::Account;
use placed::{PlacedIds, PlacedTracer};
use processor::{BoundedProcessor, CountedExporter};
pub use settings::BadVariable;
use settings::{ExportSettings, SpanQueue, VariableReader};

/// Extra room in the processor's own queue for its messages that are not spans.
const QUEUE_SPARE: usize = 16;
/// How long the shutdown waits for a collector that takes nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A variable is not usable.
    #[error(transparent)]
    Variable(#[from] BadVariable),
    /// The settings do not make an exporter.
    #[error(transparent)]
    Exporter(#[from] ExporterBuildError),
}

/// An exporter of spans, from its creation to its [`shutdown`](Self::shutdown).
#[derive(Debug)]
pub struct Export {
    provider: SdkTracerProvider,
    account: Arc<Account>,
    to: Option<(String, &'static str)>,
}

impl Export {
    /// An exporter configured by the standard variables (`OTEL_EXPORTER_OTLP_*`, `OTEL_BSP_*`, `OTEL_SERVICE_NAME`,
    /// `OTEL_RESOURCE_ATTRIBUTES`). `None` if no endpoint is named and `OTEL_TRACES_EXPORTER` does not ask for an
    /// export, if that says `none`, or if `OTEL_SDK_DISABLED` is `true`. Ignored values are added to `warnings`, for
    /// the caller to log once logging is set up. Needs a tokio runtime.
    pub fn from_env(warnings: &mut Vec<String>) -> Result<Option<Self>, ExportError> {
        let mut reader = VariableReader::new(|name: &str| env::var(name).ok());
        let settings = reader.read();
        warnings.append(&mut reader.warnings);
        settings?.map(|settings| Self::of(&settings)).transpose()
    }

    fn of(settings: &ExportSettings) -> Result<Self, ExportError> {
        // The endpoint as it is shown to others: without credentials.
        let (scheme, path) = (settings.endpoint.scheme(), settings.endpoint.path());
        let host = &settings.endpoint[url::Position::BeforeHost..url::Position::AfterPort];
        let to = Some((format!("{scheme}://{host}{path}"), settings.protocol.label()));
        Ok(Self { to, ..Self::new(exporter::of(settings)?, settings.queue) })
    }

    fn new(exporter: impl SpanExporter + 'static, queue: SpanQueue) -> Self {
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
            .with_id_generator(PlacedIds(World::default()))
            // Whether a message is traced was decided before its span was made.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource())
            .build();
        Self { provider, account, to: None }
    }

    /// Logs where spans go.
    pub(super) fn announce(&self) {
        if let Some((endpoint, protocol)) = &self.to {
            tracing::info!(endpoint, protocol, "spans are exported");
        }
    }

    /// The layer that turns the library's spans, and no others, into OpenTelemetry's.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        // Location, threads and inactivity would double the cost of a span.
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

    /// A function that reads the counts of spans, for [`trace_collector`](crate::metrics::trace_collector).
    pub fn status(&self) -> impl Fn() -> TraceExportStatus + Send + Sync + 'static + use<> {
        let account = self.account.clone();
        move || account.status()
    }

    /// Exports the waiting spans, for as long as the collector takes them: until two seconds after the last batch that
    /// it took, and for at most half of the time that is left to the process.
    pub async fn shutdown(self, left: Duration) {
        let (done, ended) = oneshot::channel();
        let Self { provider, account, .. } = self;
        // The flush blocks until the collector has answered. It gets a thread of its own: at the end, the runtime would
        // wait for one of its own blocking threads, and nobody waits for this one.
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

fn resource() -> Resource {
    let named = env::var_os("OTEL_SERVICE_NAME").is_some_and(|name| !name.is_empty())
        || env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|attributes| attributes.contains("service.name="));
    let builder = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if named { builder.build() } else { builder.with_service_name("rafthttp").build() }
}
