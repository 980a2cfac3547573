"""The parts of a dashboard: queries, panels, variables, and the dashboard that lays them out.

In an expression, [[M]] stands for the matchers that choose members, [[C]] for those that choose a cluster whatever
members are chosen, and [[P]] for [[M]] and the peer. What Grafana itself replaces keeps its `$`.
"""

CLUSTER = 'job=~"$job", cluster=~"$cluster"'
MEMBER = CLUSTER + ', instance=~"$instance"'
PEER = MEMBER + ', peer=~"$peer"'

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

# What a panel's colour says, everywhere the same.
GOOD, WARN, BAD, IDLE = "green", "orange", "red", "text"


def expand(expression):
    """An expression with its matchers, on one line."""
    for token, matchers in (("[[C]]", CLUSTER), ("[[M]]", MEMBER), ("[[P]]", PEER)):
        expression = expression.replace(token, matchers)
    return " ".join(expression.split())


def appeared(metric, matchers, window="$__rate_interval", since="rafthttp_build_info"):
    """The rate of a counter whose series appear on first use.

    rate() cannot see the step from "no series" to the first value, so the first drops of all, often the only ones, would
    be missing. Here a series that was not there a window ago, on a member that was, counts with all that it has.
    """
    series = "%s{%s}" % (metric, matchers)
    guard = "max by (job, cluster, instance) (timestamp(%s{[[M]]}))" % since
    before = "max by (job, cluster, instance) (timestamp(%s{[[M]]} offset %s))" % (since, window)
    return (
        f"((({series} unless {series} offset {window}) / on (job, cluster, instance) group_left () ({guard} - {before}))"
        f" or rate({series}[{window}]))"
    )


def quantile(q, metric, matchers, by):
    """A quantile of a histogram over the rate interval."""
    return f"histogram_quantile({q}, sum by ({by}, le) (rate({metric}_bucket{{{matchers}}}[$__rate_interval])))"


def names():
    """1 for every member and peer, labelled with its name, or with its ID if no member knows its name."""
    named_by_others = "max by (job, cluster, peer, name) (rafthttp_peer_info{[[C]]})"
    by_id = 'max by (job, cluster, peer) (clamp_min(rafthttp_peer_active{[[C]]}, 1) or label_replace(rafthttp_member_info{[[C]]}, "peer", "$1", "member", "(.*)"))'
    one_each = f"topk by (job, cluster, peer) (1, {named_by_others} or on (job, cluster, peer) {by_id})"
    return (
        f'max by (job, cluster, peer, name) (label_replace(label_join({one_each}, "both", "/", "name", "peer"),'
        ' "name", "$1", "both", "/(.*)"))'
    )


def named(expression):
    """A value per peer, labelled with the peer's name."""
    return f"({expression}) * on (job, cluster, peer) group_left (name) {names()}"


def query(expression, legend="", **options):
    """One target. The legend as Grafana writes it, with {{label}}."""
    target = {"expr": expand(expression), "legendFormat": legend, "range": True, "editorMode": "code"}
    target.update(options)
    return target


def traced(expression, legend=""):
    """One target that also shows the exemplars of its histogram: traced messages that link to their traces."""
    return query(expression, legend, exemplar=True)


def now(expression, legend="", **options):
    """One target that asks only for the current value."""
    return query(expression, legend, **{"range": False, "instant": True, **options})


def thresholds(*steps):
    """thresholds((None, "green"), (1, "red")): from 1 on red."""
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in steps]}


def mapping(states):
    """{0: ("cut", "red"), …} as value mappings."""
    options = {
        str(value): {"text": text, "color": color, "index": index}
        for index, (value, (text, color)) in enumerate(states.items())
    }
    return [{"type": "value", "options": options}]


def panel(kind, number, title, about, unit, targets, *, empty, size, defaults=None, custom=None, overrides=(), **rest):
    """The parts that every panel has: a number that never changes, a description, a unit, and a text for *no data*."""
    field = {"unit": unit, "noValue": empty, **(defaults or {})}
    if custom:
        field["custom"] = custom
    for target, ref in zip(targets, "ABCDEFGH"):
        target.update(refId=ref, datasource=DATASOURCE)
    width, height = size
    return {
        "id": number,
        "type": kind,
        "title": title,
        "description": " ".join(about.split()),
        "datasource": DATASOURCE,
        "gridPos": {"w": width, "h": height},
        "targets": targets,
        "fieldConfig": {"defaults": field, "overrides": list(overrides)},
        **rest,
    }


def stat(number, title, about, unit, targets, *, empty, steps=((None, IDLE),), size=(4, 4), text="auto", links=()):
    """One number, coloured by what it means."""
    defaults = {"color": {"mode": "thresholds"}, "thresholds": thresholds(*steps), "links": list(links)}
    if unit in ("none", "short"):
        defaults["decimals"] = 0  # increase() extrapolates: 2.0001 of what can only be counted
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": text,
    }
    return panel("stat", number, title, about, unit, targets, empty=empty, size=size, defaults=defaults, options=options)


def lines(number, title, about, unit, targets, *, empty, size=(12, 8), stack=False, limits=None, low=0, log=False,
          links=(), points="never"):
    """Values over time."""
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 25 if stack else 5,
        "showPoints": points,
        "spanNulls": False,
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if limits else "off"},
        "scaleDistribution": {"type": "log", "log": 10} if log else {"type": "linear"},
    }
    defaults = {"color": {"mode": "palette-classic"}, "links": list(links)}
    if low is not None and not log:
        defaults["min"] = low
    if limits:
        defaults["thresholds"] = thresholds((None, "transparent"), *limits)
    options = {
        "legend": {"displayMode": "table", "placement": "right", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel("timeseries", number, title, about, unit, targets, empty=empty, size=size, defaults=defaults,
                 custom=custom, options=options)


def timeline(number, title, about, targets, states, *, empty, size=(12, 8), links=()):
    """States over time, a row for each series."""
    defaults = {
        "color": {"mode": "thresholds"},
        "thresholds": thresholds((None, IDLE)),
        "mappings": mapping(states),
        "links": list(links),
    }
    options = {
        "mergeValues": True,
        "showValue": "auto",
        "alignValue": "left",
        "rowHeight": 0.85,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return panel("state-timeline", number, title, about, "none", targets, empty=empty, size=size, defaults=defaults,
                 custom={"fillOpacity": 75, "lineWidth": 0}, options=options)


def table(number, title, about, unit, targets, *, empty, size=(12, 8), defaults=None, cell=None, overrides=(),
          transformations=(), sort=()):
    """A table of current values."""
    for target in targets:
        target["format"] = "table"
    custom = {"align": "auto", "cellOptions": {"type": cell, "mode": "basic"} if cell else {"type": "auto"}, "filterable": False}
    options = {"showHeader": True, "cellHeight": "sm", "sortBy": [{"displayName": name, "desc": False} for name in sort]}
    return panel("table", number, title, about, unit, targets, empty=empty, size=size, defaults=defaults, custom=custom,
                 overrides=overrides, options=options, transformations=list(transformations))


def heatmap(number, title, about, unit, targets, *, empty, size=(12, 8)):
    """How a histogram's buckets fill over time."""
    for target in targets:
        target.update(format="heatmap", legendFormat="{{le}}")
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "reverse": False, "exponent": 0.5, "fill": "dark-orange"},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
        "rowsFrame": {"layout": "auto"},
        "legend": {"show": True},
        "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
    }
    return panel("heatmap", number, title, about, unit, targets, empty=empty, size=size, options=options)


def only(*columns, **titles):
    """A transformation that shows these columns in this order, under these titles."""
    return {
        "id": "organize",
        "options": {
            "indexByName": {name: place for place, name in enumerate(columns)},
            "excludeByName": {"Time": True, "Value": True},
            "includeByName": {name: True for name in columns},
            "renameByName": titles,
        },
    }


def variable(name, label, asks, *, about, multi=True, everything=".*", regex=""):
    """A variable that a query fills. `everything` is what "All" stands for; None: one must be chosen."""
    values = {
        "type": "query",
        "name": name,
        "label": label,
        "description": about,
        "datasource": DATASOURCE,
        "query": {"qryType": 3 if asks.startswith("query_result") else 1, "query": asks, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "regex": regex,
        "refresh": 2,
        "sort": 1,
        "multi": multi,
        "includeAll": everything is not None,
        "hide": 0,
        "options": [],
        "skipUrlSync": False,
        "current": {},
    }
    if everything is not None:
        values["allValue"] = everything
        chosen = {"text": "All", "value": "$__all"}
        values["current"] = {"selected": True, **({key: [value] for key, value in chosen.items()} if multi else chosen)}
    return values


def datasource():
    """The variable that every query uses as its data source."""
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "description": "The Prometheus that scrapes the members.",
        "query": "prometheus",
        "regex": "",
        "refresh": 1,
        "multi": False,
        "includeAll": False,
        "hide": 0,
        "options": [],
        "skipUrlSync": False,
        "current": {},
    }


def members(metric):
    """The variables that choose members, by a metric that each of them has."""
    return [
        datasource(),
        variable("job", "Job", f"label_values({metric}, job)", about="The scrape job of the members."),
        variable("cluster", "Cluster", f'label_values({metric}{{job=~"$job"}}, cluster)', multi=False,
                 about="The label `cluster`, if the scrape configuration sets one; All if it does not."),
        variable("instance", "Member", f"label_values({metric}{{{CLUSTER}}}, instance)", about="The members whose metrics are shown."),
    ]


class Dashboard:
    """A dashboard, laid out from left to right and then down."""

    def __init__(self, uid, title, about, variables, *, tags, since):
        self.uid, self.title, self.about, self.variables, self.tags = uid, title, about, variables, tags
        self.since = since
        self.panels, self.x, self.y, self.height = [], 0, 0, 0

    def row(self, number, title):
        """A heading for the panels that follow."""
        self.y, self.x, self.height = self.y + self.height, 0, 0
        place = {"x": 0, "y": self.y, "w": 24, "h": 1}
        self.panels.append({"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []})
        self.y += 1

    def add(self, *panels):
        """Panels in rows, as many beside each other as fit."""
        for each in panels:
            place = each["gridPos"]
            if self.x + place["w"] > 24:
                self.y, self.x, self.height = self.y + self.height, 0, 0
            each["gridPos"] = {"x": self.x, "y": self.y, **place}
            self.x += place["w"]
            self.height = max(self.height, place["h"])
            self.panels.append(each)

    def json(self):
        """As Grafana imports it."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": " ".join(self.about.split()),
            "tags": self.tags,
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "10s",
            "time": {"from": "now-1h", "to": "now"},
            "timepicker": {},
            "timezone": "browser",
            "fiscalYearStartMonth": 0,
            "weekStart": "",
            "liveNow": False,
            "annotations": {"list": self.annotations()},
            "links": [
                {
                    "type": "dashboards",
                    "title": "Raft network",
                    "tags": ["raft-network"],
                    "asDropdown": False,
                    "includeVars": True,
                    "keepTime": True,
                    "targetBlank": False,
                    "icon": "external link",
                    "tooltip": "",
                    "url": "",
                }
            ],
            "templating": {"list": self.variables},
            "panels": self.panels,
        }

    def annotations(self):
        """The starts of members: data before a start come from another process."""
        return [
            {
                "name": "Starts",
                "datasource": DATASOURCE,
                "enable": True,
                "hide": False,
                "iconColor": "blue",
                "expr": expand(f"process_start_time_seconds{{[[M]]}} * 1000 and on (job, cluster, instance) {self.since}{{[[M]]}}"),
                "useValueForTime": True,
                "titleFormat": "{{instance}} started",
                "step": "15s",
            }
        ]
