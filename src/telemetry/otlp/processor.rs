//! The stage before the exporter: it limits how many spans wait, and counts what becomes of them.

use std::{sync::Arc, time::Duration};

use opentelemetry::Context;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    runtime,
    trace::{Span, SpanData, SpanExporter, SpanProcessor, span_processor_with_async_runtime::BatchSpanProcessor},
};

use super::account::Account;

/// A batch processor that never holds more spans than the account has room for, and counts the spans that it turns
/// away.
#[derive(Debug)]
pub(super) struct BoundedProcessor {
    pub(super) batches: BatchSpanProcessor<runtime::Tokio>,
    pub(super) account: Arc<Account>,
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
pub(super) struct CountedExporter<E> {
    pub(super) exporter: E,
    pub(super) account: Arc<Account>,
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

/// A batch on its way. The processor drops an export that takes too long; `Drop` counts that as a failure too.
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
