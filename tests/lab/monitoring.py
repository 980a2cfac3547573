"""Prometheus, Alertmanager, and a webhook that notes what it is told."""

import http.server
import json
import threading
import time
import urllib.parse
import urllib.request

from .processes import tool, until


def targets_of(job, targets, interval="1s", labels=None):
    """A scrape configuration."""
    return {
        "job_name": job, "scrape_interval": interval, "scrape_timeout": interval,
        "static_configs": [{"targets": list(targets), "labels": dict(labels or {})}],
    }


class Prometheus:
    """A Prometheus that scrapes each second. `scrapes` are targets (job `rafthttp`), or configurations by `targets_of`."""

    def __init__(self, lab, scrapes, rules=(), alertmanager=None, interval="1s", name="prometheus", flags=()):
        self.url = f"http://127.0.0.1:{lab.port()}"
        if all(isinstance(scrape, str) for scrape in scrapes):
            scrapes = [targets_of("rafthttp", scrapes, interval)]
        configuration = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": [str(rule) for rule in rules],
            "scrape_configs": scrapes,
        }
        if alertmanager:
            configuration["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager.address]}]}]}
        path = lab.path(f"{name}.yml")
        path.write_text(json.dumps(configuration))  # JSON is YAML
        program, _ = tool("prometheus")
        self._process = lab.process(name, [
            program, f"--config.file={path}", f"--storage.tsdb.path={lab.path(name)}",
            f"--web.listen-address={self.url.removeprefix('http://')}", "--storage.tsdb.retention.time=1d", *flags,
        ])

    def start(self):
        self._process.start().until_ready(lambda: self._get("/-/ready") is not None)
        return self

    def query(self, expression):
        """The samples of an instant query: labels and value of each."""
        answer = self._json("/api/v1/query", query=expression)
        if answer["resultType"] == "scalar":
            return [({}, float(answer["result"][1]))]
        return [(sample["metric"], float(sample["value"][1])) for sample in answer["result"]]

    def alerts(self, **labels):
        """The alerts that are pending or firing and carry these labels."""
        return [alert for alert in self._json("/api/v1/alerts")["alerts"] if labels.items() <= alert["labels"].items()]

    def firing(self, **labels):
        return [alert for alert in self.alerts(**labels) if alert["state"] == "firing"]

    def rules(self):
        """Every rule with its health and last error."""
        return [rule for group in self._json("/api/v1/rules")["groups"] for rule in group["rules"]]

    def up(self, targets, seconds=30):
        """Waits until so many targets are scraped."""
        until(f"{targets} targets are scraped", lambda: len(self.query("up == 1")) >= targets, seconds)
        return self

    def _json(self, path, **query):
        answer = json.loads(self._get(path, **query))
        assert answer["status"] == "success", answer
        return answer["data"]

    def _get(self, path, **query):
        url = f"{self.url}{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.read()
        except urllib.error.HTTPError as refused:
            if refused.code == 503:
                raise
            raise AssertionError(f"{url}: {refused.read().decode()}") from refused


class Alertmanager:
    """An Alertmanager that tells `webhook` at once of every alert, by itself, and of its end."""

    def __init__(self, lab, webhook, name="alertmanager"):
        self.url = f"http://127.0.0.1:{lab.port()}"
        self.address = self.url.removeprefix("http://")
        path = lab.path(f"{name}.yml")
        path.write_text(json.dumps({
            "route": {
                "receiver": "webhook", "group_by": ["..."],
                "group_wait": "1s", "group_interval": "1s", "repeat_interval": "1h",
            },
            "receivers": [{"name": "webhook", "webhook_configs": [{"url": webhook.url, "send_resolved": True}]}],
        }))
        program, _ = tool("alertmanager")
        self._process = lab.process(name, [
            program, f"--config.file={path}", f"--storage.path={lab.path(name)}",
            f"--web.listen-address={self.address}", "--cluster.listen-address=",
        ])

    def start(self):
        self._process.start().until_ready(lambda: urllib.request.urlopen(f"{self.url}/-/ready", timeout=5).status == 200)
        return self


class Webhook:
    """Takes what Alertmanager delivers. Each delivery has `time`, `status`, `labels`, `annotations`."""

    def __init__(self, lab):
        self._lock, self._delivered = threading.Lock(), []
        webhook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with webhook._lock:
                    webhook._delivered += [{**alert, "time": time.time()} for alert in body["alerts"]]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        lab.owns(self)

    def delivered(self, status=None, **labels):
        with self._lock:
            delivered = list(self._delivered)
        return [alert for alert in delivered
                if status in (None, alert["status"]) and labels.items() <= alert["labels"].items()]

    def close(self):
        self._server.shutdown()
        self._server.server_close()
