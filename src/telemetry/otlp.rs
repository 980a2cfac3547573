//! Export of spans by OTLP. The only file that names OpenTelemetry.
//!
//! The spans of the library carry their place as fields: `trace_id`, `span_id`, `parent_id`, `link` (another span, as
//! `traceparent` writes it), `start_unix_nano`. The tracer here takes them off and builds the OpenTelemetry span exactly
//! there. Only our own two targets are exported,
//! so the exporter's own connections are not. What waits for the collector is bounded; what it does not take is
//! counted and given up, so a slow or dead collector costs nothing else.

use std::{
    cell::Cell,
    env, fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use opentelemetry::{
    Context, KeyValue, Value,
    trace::{
        Link, SpanBuilder, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
        TracerProvider,
    },
};
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    runtime,
    trace::{
        BatchConfigBuilder, IdGenerator, Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter,
        SpanProcessor, span_processor_with_async_runtime::BatchSpanProcessor,
    },
};
use tokio::{sync::oneshot, time::timeout};
use tracing::Subscriber;
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

use super::{EVENT_TARGET, MESSAGE_TARGET};
use crate::metrics::TraceExportStatus;

#[cfg(test)]
mod tests;

/// Spans that wait for their export, at most: the default of `OTEL_BSP_MAX_QUEUE_SIZE`.
const QUEUE_SPANS: usize = 2048;
/// What `OTEL_BSP_MAX_QUEUE_SIZE` may be at most; a span takes about a kilobyte.
const MOST_QUEUE_SPANS: usize = 1 << 17;
/// Room in the processor's own queue for its messages that are no spans.
const QUEUE_SPARE: usize = 16;
/// How long the last spans may take to leave at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two log lines about exports that fail.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// An exporter of spans, from its start to its [`shutdown`](Self::shutdown).
#[derive(Debug)]
pub struct Export {
    provider: SdkTracerProvider,
    account: Arc<Account>,
}

impl Export {
    /// An exporter as the standard variables say (`OTEL_EXPORTER_OTLP_*`, `OTEL_BSP_*`, `OTEL_SERVICE_NAME`,
    /// `OTEL_RESOURCE_ATTRIBUTES`). None where no endpoint is named, or where `OTEL_SDK_DISABLED=true` or
    /// `OTEL_TRACES_EXPORTER=none` say so. Needs a tokio runtime.
    pub fn from_env() -> Result<Option<Self>, ExporterBuildError> {
        let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let endpoint = set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| set("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let elsewhere = set("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        if endpoint.is_none() || disabled || elsewhere {
            return Ok(None);
        }
        let queue = set("OTEL_BSP_MAX_QUEUE_SIZE").and_then(|value| value.parse().ok()).unwrap_or(QUEUE_SPANS);
        let queue = usize::min(queue, MOST_QUEUE_SPANS);
        let exporter = opentelemetry_otlp::SpanExporter::builder().build()?;
        Ok(Some(Self::new(exporter, queue)))
    }

    fn new(exporter: impl SpanExporter + 'static, queue: usize) -> Self {
        let account = Arc::new(Account { room: queue, ..Account::default() });
        let exporter = CountedExporter { exporter, account: account.clone() };
        let config = BatchConfigBuilder::default().with_max_queue_size(queue.saturating_add(QUEUE_SPARE)).build();
        let batches = BatchSpanProcessor::builder(exporter, runtime::Tokio).with_batch_config(config).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BoundedProcessor { batches, account: account.clone() })
            .with_id_generator(PlacedIds)
            // Whether a message is traced was decided before its span was made.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource())
            .build();
        Self { provider, account }
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

    /// Exports what waits, for two seconds at most.
    pub async fn shutdown(self) {
        let (done, ended) = oneshot::channel();
        let Self { provider, account } = self;
        // It blocks until the collector has answered. A thread of its own, since the runtime would wait for its own
        // blocking threads at the end, and nobody waits for this one.
        let flush = std::thread::Builder::new().name("trace-flush".into()).spawn(move || {
            let result = provider.shutdown();
            drop(done.send(result));
        });
        let flushed = flush.is_ok() && matches!(timeout(FLUSH_TIMEOUT, ended).await, Ok(Ok(Ok(()))));
        let waiting = account.waiting.load(Relaxed);
        if !flushed {
            tracing::warn!(waiting, "the last spans could not be exported");
        }
    }
}

fn resource() -> Resource {
    let named = env::var_os("OTEL_SERVICE_NAME").is_some_and(|name| !name.is_empty())
        || env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|attributes| attributes.contains("service.name="));
    let builder = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if named { builder.build() } else { builder.with_service_name("rafthttp").build() }
}

/// What became of the spans.
#[derive(Debug, Default)]
struct Account {
    room: usize,
    waiting: AtomicUsize,
    exported: AtomicU64,
    dropped: AtomicU64,
    failures: AtomicU64,
    logged: Mutex<Option<Instant>>,
}

impl Account {
    fn status(&self) -> TraceExportStatus {
        TraceExportStatus {
            exported: self.exported.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            failures: self.failures.load(Relaxed),
        }
    }

    /// Counts a batch that was given up, and says so at most once a minute.
    fn failed(&self, spans: usize, error: &dyn fmt::Display) {
        self.dropped.fetch_add(spans as u64, Relaxed);
        let failures = 1 + self.failures.fetch_add(1, Relaxed);
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) {
            *logged = Some(Instant::now());
            tracing::warn!(%error, failures, "spans cannot be exported");
        }
    }
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
        if self.account.waiting.fetch_add(1, Relaxed) < self.account.room {
            self.batches.on_end(span);
        } else {
            self.account.waiting.fetch_sub(1, Relaxed);
            self.account.dropped.fetch_add(1, Relaxed);
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
        self.account.waiting.fetch_sub(batch.len(), Relaxed);
        let mut pending = Pending { spans: batch.len(), account: &self.account };
        let result = self.exporter.export(batch).await;
        let spans = std::mem::take(&mut pending.spans);
        match &result {
            Ok(()) => {
                self.account.exported.fetch_add(spans as u64, Relaxed);
            }
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
    spans: usize,
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
