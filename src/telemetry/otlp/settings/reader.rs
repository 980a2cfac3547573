//! Reads the standard variables once, checks them, and says in words what is wrong with them.
//!
//! A number, a switch or a name that cannot be parsed is ignored with a warning, as OpenTelemetry's specification asks.
//! A value that makes the export impossible (a bad address, a file without a certificate) is an error.

use std::{path::PathBuf, str::FromStr, time::Duration};

use url::Url;

use super::{
    BadVariable, CollectorTls, ExportSettings, NamedFile, Protocol,
    queue::{BATCH_SPANS, EXPORT_TIMEOUT, MOST_QUEUE_SPANS, QUEUE_SPANS, SCHEDULE_DELAY, SpanQueue},
};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

const DEFAULT_HTTP: &str = "http://localhost:4318";
const DEFAULT_GRPC: &str = "http://localhost:4317";
const TRACES_PATH: &str = "v1/traces";

/// Reads the variables, and collects warnings about those that are ignored.
pub(in crate::telemetry::otlp) struct VariableReader<F> {
    variable: F,
    pub(in crate::telemetry::otlp) warnings: Vec<String>,
}

impl<F: Fn(&str) -> Option<String>> VariableReader<F> {
    /// A reader of these variables. An empty variable counts as not set.
    pub(in crate::telemetry::otlp) fn new(variable: F) -> Self {
        Self { variable, warnings: Vec::new() }
    }

    /// The settings of the export. `None` if nothing is to be exported.
    pub(in crate::telemetry::otlp) fn read(&mut self) -> Result<Option<ExportSettings>, BadVariable> {
        let named = self.first(["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]);
        let asked = self.is_asked_for();
        if self.is_true(["OTEL_SDK_DISABLED"]) || !asked.unwrap_or(named.is_some()) {
            return Ok(None);
        }
        if self.get("OTEL_TRACES_SAMPLER").is_some() {
            self.warnings.push("OTEL_TRACES_SAMPLER is ignored: --trace-ratio says what is traced".to_owned());
        }
        let protocol = self.protocol();
        let (endpoint_variable, endpoint) = self.endpoint(named, protocol)?;
        self.check_headers();
        Ok(Some(ExportSettings {
            endpoint,
            endpoint_variable,
            protocol,
            gzip: self.gzip(),
            timeout: self.millis(["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"], REQUEST_TIMEOUT),
            files: self.files()?,
            queue: self.queue(),
        }))
    }

    fn get(&self, name: &str) -> Option<String> {
        (self.variable)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn first<const N: usize>(&self, names: [&'static str; N]) -> Option<(&'static str, String)> {
        names.into_iter().find_map(|name| Some((name, self.get(name)?)))
    }

    fn pass_over(&mut self, name: &str, value: &str, expected: &str) {
        self.warnings.push(format!("{name}={value:?} is ignored: expected {expected}"));
    }

    /// Whether `OTEL_TRACES_EXPORTER` asks for an export or forbids it. `None` if it leaves that to the endpoint.
    fn is_asked_for(&mut self) -> Option<bool> {
        let name = "OTEL_TRACES_EXPORTER";
        let value = self.get(name)?;
        match value.as_str() {
            "none" => Some(false),
            list if list.split(',').any(|one| one.trim() == "otlp") => Some(true),
            _ => {
                self.pass_over(name, &value, "otlp or none");
                None
            }
        }
    }

    fn is_true<const N: usize>(&mut self, names: [&'static str; N]) -> bool {
        let Some((name, value)) = self.first(names) else { return false };
        let truth = value.eq_ignore_ascii_case("true");
        if !truth && !value.eq_ignore_ascii_case("false") {
            self.pass_over(name, &value, "true or false");
        }
        truth
    }

    fn protocol(&mut self) -> Protocol {
        let named = self.first(["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]);
        match named.as_ref().map(|(name, value)| (name, value.as_str())) {
            Some((_, "grpc")) => Protocol::Grpc,
            None | Some((_, "http/protobuf")) => Protocol::Http,
            Some((name, value)) => {
                self.pass_over(name, value, "grpc or http/protobuf");
                Protocol::Http
            }
        }
    }

    fn endpoint(
        &mut self,
        named: Option<(&'static str, String)>,
        protocol: Protocol,
    ) -> Result<(&'static str, Url), BadVariable> {
        let insecure = self.is_true(["OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"]);
        let default = if protocol == Protocol::Grpc { DEFAULT_GRPC } else { DEFAULT_HTTP };
        let (variable, value) = named.unwrap_or(("OTEL_EXPORTER_OTLP_ENDPOINT", default.to_owned()));
        let bad = || BadVariable {
            variable: variable.to_owned(),
            value: value.clone(),
            expected: "expected http://HOST:PORT or https://HOST:PORT".to_owned(),
        };
        // gRPC's own form of an address has no scheme.
        let text = match (value.contains("://"), protocol) {
            (true, _) => value.clone(),
            (false, Protocol::Grpc) => format!("{}://{value}", if insecure { "http" } else { "https" }),
            (false, Protocol::Http) => return Err(bad()),
        };
        let mut url = Url::parse(&text).map_err(|_| bad())?;
        if !["http", "https"].contains(&url.scheme()) || url.host_str().is_none_or(str::is_empty) {
            return Err(bad());
        }
        if protocol == Protocol::Http && variable == "OTEL_EXPORTER_OTLP_ENDPOINT" {
            let path = format!("{}/{TRACES_PATH}", url.path().trim_end_matches('/'));
            url.set_path(&path);
        }
        Ok((variable, url))
    }

    /// Checks the headers, which the exporter reads itself, and warns of those that it would ignore silently. A warning
    /// never contains a value, because the values are secrets.
    fn check_headers(&mut self) {
        let named = self.first(["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"]);
        let Some((name, value)) = named else { return };
        for (place, pair) in value.split(',').map(str::trim).enumerate().filter(|(_, pair)| !pair.is_empty()) {
            let key = pair.split_once('=').map(|(key, _)| key.trim());
            if key.is_none_or(|key| http::HeaderName::from_str(key).is_err()) {
                self.warnings.push(format!("{name}: entry {} is ignored: expected KEY=VALUE", place + 1));
            }
        }
    }

    fn gzip(&mut self) -> bool {
        let named = self.first(["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"]);
        let Some((name, value)) = named else { return false };
        let gzip = value.eq_ignore_ascii_case("gzip");
        if !gzip && !value.eq_ignore_ascii_case("none") {
            self.pass_over(name, &value, "gzip or none");
        }
        gzip
    }

    fn files(&self) -> Result<CollectorTls, BadVariable> {
        let file = |names| self.first(names).map(|(variable, path)| NamedFile { variable, path: PathBuf::from(path) });
        let authority = file(["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"]);
        let certificate =
            file(["OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"]);
        let key = file(["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"]);
        let client = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(alone), None) | (None, Some(alone)) => {
                return Err(alone.bad("a client's certificate and its key go together"));
            }
        };
        Ok(CollectorTls { authority, client })
    }

    fn queue(&mut self) -> SpanQueue {
        let spans = self.count("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_SPANS, MOST_QUEUE_SPANS);
        SpanQueue {
            spans,
            batch: self.count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_SPANS.min(spans), spans),
            delay: self.millis(["OTEL_BSP_SCHEDULE_DELAY"], SCHEDULE_DELAY),
            timeout: self.millis(["OTEL_BSP_EXPORT_TIMEOUT"], EXPORT_TIMEOUT),
        }
    }

    fn count(&mut self, name: &str, default: usize, most: usize) -> usize {
        let Some(value) = self.get(name) else { return default };
        match value.parse() {
            Ok(count) if (1..=most).contains(&count) => count,
            _ => {
                self.pass_over(name, &value, &format!("a number from 1 to {most}"));
                default
            }
        }
    }

    fn millis<const N: usize>(&mut self, names: [&'static str; N], default: Duration) -> Duration {
        let Some((name, value)) = self.first(names) else { return default };
        match value.parse::<u32>() {
            Ok(millis) if millis > 0 => Duration::from_millis(millis.into()),
            _ => {
                self.pass_over(name, &value, "a number of milliseconds above 0");
                default
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result of reading variables given as `NAME=VALUE NAME=VALUE`, and the warnings.
    fn read(variables: &str) -> (Result<Option<ExportSettings>, BadVariable>, Vec<String>) {
        let set: Vec<(String, String)> = variables
            .split(' ')
            .filter_map(|variable| variable.split_once('='))
            .map(|(name, value)| (format!("OTEL_{name}"), value.to_owned()))
            .collect();
        let mut reader = VariableReader::new(|name: &str| {
            set.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        });
        let settings = reader.read();
        (settings, reader.warnings)
    }

    fn settings(variables: &str) -> ExportSettings {
        let (settings, warnings) = read(variables);
        assert_eq!(warnings, Vec::<String>::new(), "{variables}");
        settings.expect(variables).expect(variables)
    }

    #[test]
    fn without_an_endpoint_nothing_is_exported_unless_it_is_asked_for() {
        for off in [
            "",
            "EXPORTER_OTLP_PROTOCOL=grpc",
            "EXPORTER_OTLP_ENDPOINT=",
            "EXPORTER_OTLP_ENDPOINT=http://c:1 SDK_DISABLED=true",
            "EXPORTER_OTLP_ENDPOINT=http://c:1 SDK_DISABLED=TRUE",
            "EXPORTER_OTLP_ENDPOINT=http://c:1 TRACES_EXPORTER=none",
        ] {
            assert_eq!(read(off), (Ok(None), vec![]), "{off}");
        }
        assert_eq!(settings("TRACES_EXPORTER=otlp").endpoint.as_str(), "http://localhost:4318/v1/traces");
        assert_eq!(
            settings("TRACES_EXPORTER=otlp EXPORTER_OTLP_PROTOCOL=grpc").endpoint.as_str(),
            "http://localhost:4317/"
        );
    }

    #[test]
    fn the_endpoint_of_all_signals_gets_a_path_and_that_of_traces_is_taken_as_it_is() {
        for (variables, endpoint) in [
            ("EXPORTER_OTLP_ENDPOINT=http://c:1", "http://c:1/v1/traces"),
            ("EXPORTER_OTLP_ENDPOINT=https://c:1/", "https://c:1/v1/traces"),
            ("EXPORTER_OTLP_ENDPOINT=http://c:1/sub/", "http://c:1/sub/v1/traces"),
            ("EXPORTER_OTLP_TRACES_ENDPOINT=http://c:1/x EXPORTER_OTLP_ENDPOINT=http://d:1", "http://c:1/x"),
            ("EXPORTER_OTLP_ENDPOINT=http://c:1 EXPORTER_OTLP_PROTOCOL=grpc", "http://c:1/"),
            ("EXPORTER_OTLP_ENDPOINT=c:1 EXPORTER_OTLP_PROTOCOL=grpc", "https://c:1/"),
            ("EXPORTER_OTLP_ENDPOINT=c:1 EXPORTER_OTLP_PROTOCOL=grpc EXPORTER_OTLP_INSECURE=true", "http://c:1/"),
        ] {
            assert_eq!(settings(variables).endpoint.as_str(), endpoint, "{variables}");
        }
    }

    #[test]
    fn the_variables_of_traces_come_before_those_of_all_signals() {
        let found = settings(
            "EXPORTER_OTLP_ENDPOINT=http://c:1 EXPORTER_OTLP_PROTOCOL=grpc EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf \
             EXPORTER_OTLP_COMPRESSION=none EXPORTER_OTLP_TRACES_COMPRESSION=gzip EXPORTER_OTLP_TIMEOUT=1 \
             EXPORTER_OTLP_TRACES_TIMEOUT=1500 EXPORTER_OTLP_CERTIFICATE=a EXPORTER_OTLP_TRACES_CERTIFICATE=b \
             EXPORTER_OTLP_CLIENT_CERTIFICATE=c EXPORTER_OTLP_CLIENT_KEY=k BSP_MAX_QUEUE_SIZE=100 \
             BSP_MAX_EXPORT_BATCH_SIZE=10 BSP_SCHEDULE_DELAY=200 BSP_EXPORT_TIMEOUT=3000",
        );
        assert_eq!((found.protocol, found.gzip, found.timeout), (Protocol::Http, true, Duration::from_millis(1500)));
        let path = |file: &NamedFile| file.path.display().to_string();
        let (certificate, key) = found.files.client.expect("both are named");
        assert_eq!(
            [path(&found.files.authority.expect("it is named")), path(&certificate), path(&key)],
            ["b", "c", "k"]
        );
        let (delay, timeout) = (Duration::from_millis(200), Duration::from_secs(3));
        assert_eq!(found.queue, SpanQueue { spans: 100, batch: 10, delay, timeout });
    }

    #[test]
    fn what_cannot_be_read_is_passed_over_in_one_line_that_names_it() {
        for (variable, words) in [
            ("SDK_DISABLED=perhaps", "true or false"),
            ("TRACES_EXPORTER=zipkin", "otlp or none"),
            ("TRACES_SAMPLER=always_on", "--trace-ratio"),
            ("EXPORTER_OTLP_PROTOCOL=http/json", "grpc or http/protobuf"),
            ("EXPORTER_OTLP_TIMEOUT=soon", "milliseconds"),
            ("EXPORTER_OTLP_TIMEOUT=0", "milliseconds"),
            ("EXPORTER_OTLP_COMPRESSION=zstd", "gzip or none"),
            ("BSP_MAX_QUEUE_SIZE=0", "from 1 to 131072"),
            ("BSP_MAX_QUEUE_SIZE=1000000", "from 1 to 131072"),
            ("BSP_MAX_EXPORT_BATCH_SIZE=40000", "from 1 to 32768"),
            ("BSP_SCHEDULE_DELAY=0", "milliseconds"),
            ("BSP_EXPORT_TIMEOUT=-1", "milliseconds"),
            ("EXPORTER_OTLP_HEADERS=a=secret,secret", "entry 2"),
        ] {
            let (found, warnings) = read(&format!("EXPORTER_OTLP_ENDPOINT=http://c:1 {variable}"));
            let defaults = settings("EXPORTER_OTLP_ENDPOINT=http://c:1");
            assert_eq!(found, Ok(Some(defaults)), "{variable}");
            let [warning] = &warnings[..] else { panic!("one line, not {warnings:?}") };
            let name = variable.split('=').next().unwrap_or_default();
            assert!(warning.contains(name) && warning.contains(words), "{warning}");
            assert!(!warning.contains("secret"), "{warning}");
        }
    }

    #[test]
    fn what_leaves_nothing_to_go_on_is_an_error_that_names_variable_and_value() {
        for (variables, words) in [
            ("EXPORTER_OTLP_ENDPOINT=collector:4318", "'collector:4318' for OTEL_EXPORTER_OTLP_ENDPOINT"),
            ("EXPORTER_OTLP_TRACES_ENDPOINT=ftp://c:1", "'ftp://c:1' for OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
            ("EXPORTER_OTLP_ENDPOINT=http://", "expected http://HOST:PORT"),
            ("EXPORTER_OTLP_ENDPOINT=http://c:1 EXPORTER_OTLP_CLIENT_KEY=k", "'k' for OTEL_EXPORTER_OTLP_CLIENT_KEY"),
        ] {
            let error = read(variables).0.expect_err(variables).to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
