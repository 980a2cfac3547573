//! The table: what is asked, and where we want to answer otherwise than etcd.

use prost::Message as _;
use rafthttp::{
    MemberId,
    wire::raftpb::{ConfState, Message, MessageType, Snapshot, SnapshotMetadata},
};

use crate::{ask::Pace, pair::Names};

/// One request, and what of its answers may differ.
pub struct Case {
    pub name: String,
    pub request: Vec<u8>,
    pub pace: Pace,
    /// Whether it opens a stream, and would end another's.
    pub alone: bool,
    pub wanted: Vec<Difference>,
}

/// Parts of an answer that we want to be others than etcd's.
pub struct Difference {
    pub when: When,
    pub parts: &'static [&'static str],
    /// Why.
    pub reason: &'static str,
}

/// The versions of etcd that differ.
#[derive(Clone, Copy, Debug)]
pub enum When {
    Always,
    /// These, by minor version.
    Etcd(&'static [u64]),
    /// Built with a Go older than 1.x.
    GoBefore(u32),
    /// Built with Go 1.x or newer.
    GoSince(u32),
}

impl Difference {
    /// Both refuse it; ours without saying why.
    fn silent(when: When) -> Self {
        let reason = "hyper refuses a head that it cannot read without a word";
        Self { when, parts: &["body", "content-type"], reason }
    }

    /// Ours refuses what etcd takes.
    fn stricter(when: When) -> Self {
        let parts = &["status", "body", "connection", "content-type", "x-etcd-cluster-id"];
        Self { when, parts, reason: "no member sends it, and servers disagree about what it means: refused" }
    }
}

impl When {
    pub fn holds(self, names: &Names) -> bool {
        match self {
            Self::Always => true,
            Self::Etcd(minors) => minors.contains(&names.version.minor),
            Self::GoBefore(minor) => names.go < minor,
            Self::GoSince(minor) => names.go >= minor,
        }
    }
}

/// The headers of a request that passes every check.
const LEGAL: &str = "X-Server-From: {peer}\r\nX-Server-Version: {version}\r\nX-Min-Cluster-Version: 3.0.0\r\n\
                     X-Etcd-Cluster-ID: {cluster}\r\nX-Raft-To: {local}\r\n";

/// What differs where ours refuses and etcd says nothing at all.
const ANSWERED: [&str; 6] =
    ["status", "body", "connection", "content-type", "x-etcd-cluster-id", "x-content-type-options"];
/// The same under `/raft/stream/`.
const ANSWERED_BY_A_STREAM: [&str; 7] =
    ["status", "body", "connection", "content-type", "x-etcd-cluster-id", "x-content-type-options", "x-server-version"];

/// A member that nobody knows.
const STRANGER: MemberId = MemberId(0x57a2);

/// Builds the table.
pub struct Table<'a> {
    names: &'a Names,
    cases: Vec<Case>,
}

/// Every case.
pub fn all(names: &Names) -> Vec<Case> {
    let mut table = Table { names, cases: Vec::new() };
    table.methods();
    table.paths();
    table.redirects();
    table.versions();
    table.clusters();
    table.streams();
    table.messages();
    table.snapshots();
    table.questions();
    table.strangers();
    table.connections();
    table.slow();
    table.cases
}

impl Table<'_> {
    fn methods(&mut self) {
        let unversioned = || Difference {
            when: When::Always,
            parts: &["x-server-version"],
            reason: "every answer under /raft/stream/ tells our version: who reads it first, as etcd does, finds it",
        };
        for method in ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "BREW"] {
            self.case(format!("{method} /raft"), self.request(method, "/raft", LEGAL));
            self.case(format!("{method} /raft/snapshot"), self.request(method, "/raft/snapshot", LEGAL));
        }
        for method in ["POST", "PUT", "HEAD", "OPTIONS"] {
            for path in ["/raft/stream/message/{peer}", "/raft/stream/nonsense/{peer}", "/raft/stream/"] {
                self.case(format!("{method} {path}"), self.request(method, path, LEGAL)).wants(unversioned());
            }
            self.case(format!("{method} /version"), self.request(method, "/version", ""));
            self.case(format!("{method} /members"), self.request(method, "/members", ""));
        }
        for method in ["GET", "POST", "DELETE", "HEAD"] {
            self.case(format!("{method} /raft/probing"), self.request(method, "/raft/probing", ""));
        }
        self.case("a bare method", self.request("GET", "/raft", ""));
    }

    fn paths(&mut self) {
        for path in [
            "/",
            "/nonsense",
            "/raft/",
            "/raft/nonsense",
            "/raft/snapshot/",
            "/raft/probing/",
            "/version/",
            "/health",
            "/metrics",
            "/v2/keys",
        ] {
            self.case(format!("GET {path}"), self.request("GET", path, LEGAL));
        }
        self.case("POST to nowhere", self.post("/nonsense", LEGAL, b"body"));
        self.case("HEAD of nowhere", self.request("HEAD", "/nonsense", LEGAL));
        self.case("an escaped letter", self.request("GET", "/%76ersion", ""))
            .wants(Difference {
                when: When::Always,
                parts: &["status", "body", "content-type", "x-content-type-options"],
                reason: "no member escapes a letter that needs it not; Go's ServeMux undoes it, ours reads paths as they come",
            });
        self.case("an absolute URI", self.request("GET", "http://member/members", ""));
    }

    fn redirects(&mut self) {
        let permanent = || Difference {
            when: When::GoBefore(26),
            parts: &["status", "body"],
            reason: "Go redirects by 307 since 1.26, and so do we; no member is ever redirected",
        };
        for path in [
            "//raft",
            "/raft/stream",
            "/raft/stream?a=b&c",
            "/raft//stream/message/{peer}",
            "/raft/./probing",
            "/raft/../version",
            "/members//",
            "/../x",
        ] {
            self.case(format!("GET {path}"), self.request("GET", path, LEGAL)).wants(permanent());
        }
        let bare = || Difference { parts: &["status"], ..permanent() };
        self.case("POST /raft/stream", self.request("POST", "/raft/stream", LEGAL)).wants(bare());
        for path in ["/raft/stream//message/{peer}", "/raft/stream/message/../{peer}"] {
            self.case(format!("GET {path}"), self.request("GET", path, LEGAL)).wants(permanent()).wants(Difference {
                when: When::Always,
                parts: &["x-server-version"],
                reason: "every answer under /raft/stream/ tells our version",
            });
        }
    }

    fn versions(&mut self) {
        for (path, post) in [("/raft/stream/message/{peer}", false), ("/raft", true), ("/raft/snapshot", true)] {
            let ask = |table: &Self, headers: &str| {
                if post { table.post(path, headers, b"") } else { table.request("GET", path, headers) }
            };
            let named = |what: &str| format!("{what}: {path}");
            self.case(named("no header at all"), ask(self, ""));
            self.case(named("no server version"), ask(self, &without("X-Server-Version", "")));
            for version in ["2.9.9", "1.0.0", "0.0.0"] {
                let headers = without("X-Server-Version", &format!("X-Server-Version: {version}\r\n"));
                self.case(named(&format!("server version {version}")), ask(self, &headers));
            }
            for version in ["3.99.0", "4.0.0"] {
                let headers = without("X-Min", &format!("X-Min-Cluster-Version: {version}\r\n"));
                self.case(named(&format!("minimum cluster version {version}")), ask(self, &headers));
            }
            for version in ["garbage", "3.6", "3.6.1.1", "v3.6.0"] {
                let headers = without("X-Server-Version", &format!("X-Server-Version: {version}\r\n"));
                self.case(named(&format!("server version {version}")), ask(self, &headers)).wants(Difference {
                    when: When::Always,
                    parts: if post { &ANSWERED } else { &ANSWERED_BY_A_STREAM },
                    reason: "etcd's handler panics and the connection is cut without an answer; ours says why",
                });
            }
        }
        self.case(
            "no minimum cluster version",
            self.request("GET", "/raft/stream/message/{peer}", &without("X-Min", "")),
        )
        .alone();
        self.case(
            "a newer server",
            self.request(
                "GET",
                "/raft/stream/msgapp/{peer}",
                &without("X-Server-Version", "X-Server-Version: 9.9.9\r\n"),
            ),
        )
        .alone();
    }

    fn clusters(&mut self) {
        for (what, header) in [
            ("no cluster", ""),
            ("another cluster", "X-Etcd-Cluster-ID: 1234\r\n"),
            ("a padded cluster", "X-Etcd-Cluster-ID: 0{cluster}\r\n"),
            ("an empty cluster", "X-Etcd-Cluster-ID: \r\n"),
        ] {
            let headers = without("X-Etcd", header);
            self.case(format!("{what}, a stream"), self.request("GET", "/raft/stream/message/{peer}", &headers));
            self.case(
                format!("{what}, a path that is none"),
                self.request("GET", "/raft/stream/nonsense/{peer}", &headers),
            );
            self.case(format!("{what}, a message"), self.post("/raft", &headers, b""));
            self.case(format!("{what}, a snapshot"), self.post("/raft/snapshot", &headers, b""));
        }
    }

    fn streams(&mut self) {
        for path in [
            "",
            "message",
            "nonsense/{peer}",
            "nonsense/zz",
            "message/{peer}/",
            "message/{peer}/3",
            "message/",
            "msgapp/",
            "message/zz",
            "message/+2",
            "message/-2",
            "message/0x2",
            "message/10000000000000000",
            "message/0",
            "msgappv2/{peer}",
            "Message/{peer}",
        ] {
            self.case(format!("GET /raft/stream/{path}"), self.request("GET", &format!("/raft/stream/{path}"), LEGAL));
        }
        for path in ["message/{peer}", "msgapp/{peer}", "message/00{peer}", "message/{PEER}"] {
            self.case(format!("an open stream: {path}"), self.request("GET", &format!("/raft/stream/{path}"), LEGAL))
                .alone();
        }
        for (what, to) in [
            ("for another member", "X-Raft-To: 3\r\n"),
            ("for a padded member", "X-Raft-To: 0{local}\r\n"),
            ("for nobody", ""),
            ("for an empty member", "X-Raft-To: \r\n"),
        ] {
            let headers = without("X-Raft-To", to);
            self.case(format!("{what}, of a peer"), self.request("GET", "/raft/stream/message/{peer}", &headers));
            self.case(
                format!("{what}, of a removed member"),
                self.request("GET", "/raft/stream/message/{removed}", &headers),
            );
            self.case(
                format!("{what}, of a stranger"),
                self.request("GET", "/raft/stream/message/{stranger}", &headers),
            );
        }
        self.case("a removed member", self.request("GET", "/raft/stream/msgapp/{removed}", LEGAL));
        self.case("itself", self.request("GET", "/raft/stream/msgapp/{local}", LEGAL));
        self.case("a body with a stream", self.ask("GET", "/raft/stream/message/{stranger}", LEGAL, b"body"));
    }

    fn messages(&mut self) {
        let stale = self.message(self.names.peer, self.names.local);
        self.case("a stale message", self.post("/raft", LEGAL, &stale.encode_to_vec()));
        self.case("from nobody", self.post("/raft", &without("X-Server-From", ""), &stale.encode_to_vec()));
        self.case(
            "from what is no ID",
            self.post("/raft", &without("X-Server-From", "X-Server-From: zz\r\n"), &stale.encode_to_vec()),
        );
        let mut unknown = stale.encode_to_vec();
        unknown.extend_from_slice(&[0xfa, 0x01, 3, b'n', b'e', b'w']);
        self.case("a field that nobody knows", self.post("/raft", LEGAL, &unknown));
        self.case(
            "a message for another",
            self.post("/raft", LEGAL, &self.message(self.names.peer, STRANGER).encode_to_vec()),
        );
        self.case("an empty body", self.post("/raft", LEGAL, b""));
        let removed = without("X-Server-From", "X-Server-From: {removed}\r\n");
        self.case(
            "from a removed member",
            self.post("/raft", &removed, &self.message(self.names.removed, self.names.local).encode_to_vec()),
        );
        for (what, garbage) in [
            ("bytes", &b"\xff\xff\xff"[..]),
            ("text", b"hello, raft"),
            ("a field that is cut off", b"\x08\x09\x10"),
            ("field 0", b"\x00\x01"),
        ] {
            self.case(format!("garbage: {what}"), self.post("/raft", LEGAL, garbage));
        }
        let mut wrong = vec![0x0a, 0x01, b'x'];
        wrong.extend(&stale.encode_to_vec()[2..]);
        self.case("a type that is text", self.post("/raft", LEGAL, &wrong)).wants(Difference {
            when: When::Etcd(&[7]),
            parts: &["status", "body", "content-type", "x-content-type-options"],
            reason: "3.7 passes over a known field of a wrong type; to us it is no message, as up to 3.6",
        });
    }

    fn snapshots(&mut self) {
        let post = |table: &Self, body: &[u8]| table.post("/raft/snapshot", LEGAL, body);
        let stale = self.snapshot(self.names.local).encode_to_vec();
        self.case("a stale snapshot", post(self, &framed(&stale, b"not read by anyone, its term is past")));
        self.case("a snapshot for another", post(self, &framed(&self.snapshot(STRANGER).encode_to_vec(), b"")));
        self.case("no envelope", post(self, b""));
        self.case("half a length", post(self, &[0, 0, 0]));
        self.case("half an envelope", post(self, &framed(&stale, b"")[..12]));
        self.case("an envelope of garbage", post(self, &framed(b"\xff\xff\xff", b"")));
        self.case("an envelope of 2^60 bytes", post(self, &[0x10, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3])).wants(Difference {
            when: When::Etcd(&[4]),
            parts: &ANSWERED,
            reason: "3.4 believes the length, and its handler panics; the connection is cut without an answer",
        });
        self.case(
            "not a snapshot",
            post(self, &framed(&self.message(self.names.peer, self.names.local).encode_to_vec(), b"")),
        );
        self.case("an empty envelope", post(self, &framed(b"", b"")));
    }

    fn questions(&mut self) {
        self.case("the version", self.request("GET", "/version", "")).wants(Difference {
            when: When::Etcd(&[6, 7]),
            parts: &["body"],
            reason: "the version of the data's layout on disk is etcd's store's; to us it is unknown, as to an etcd without one",
        });
        self.case("the version, with a query", self.request("GET", "/version?a=b", "")).wants(Difference {
            when: When::Etcd(&[6, 7]),
            parts: &["body"],
            reason: "the version of the data's layout on disk is etcd's store's",
        });
        self.case("the members", self.request("GET", "/members", ""));
        self.case("the members, to another cluster", self.request("GET", "/members", "X-Etcd-Cluster-ID: 1234\r\n"));
        for (method, path, parts) in [
            ("GET", "/leases", &["status", "body"][..]),
            ("GET", "/leases/internal", &["status", "body"]),
            ("GET", "/members/promote/1", &["status", "body", "allow"]),
            ("POST", "/members/hashkv", &["status", "body", "allow"]),
        ] {
            self.case(format!("{method} {path}"), self.request(method, path, "")).wants(Difference {
                when: When::Always,
                parts,
                reason: "what only etcd's store can answer is not there",
            });
        }
    }

    fn strangers(&mut self) {
        let stream = "/raft/stream/message/{stranger}";
        let headers = without("X-Server-From", "X-Server-From: {stranger}\r\n");
        let told = |urls: &str| format!("{headers}X-PeerURLs: {urls}\r\n");
        let stale = self.message(STRANGER, self.names.local).encode_to_vec();
        self.case("a stranger", self.request("GET", stream, &headers));
        self.case("a stranger's message", self.post("/raft", &headers, &stale));
        // Before the others: etcd looks at the URLs of a sender only if it does not know it yet, and panics at bad ones.
        self.case("a stranger and its URL", self.request("GET", stream, &told("http://127.0.0.1:1"))).alone();
        self.case("a stranger's message and its URL", self.post("/raft", &told("http://127.0.0.1:1"), &stale));
        for urls in ["127.0.0.1:1", "http://127.0.0.1", "http://127.0.0.1:1/path", "ftp://127.0.0.1:1", ","] {
            self.case(format!("a stranger and {urls}"), self.request("GET", stream, &told(urls)));
        }
        let other = without("X-Server-From", "X-Server-From: 57a3\r\n") + "X-PeerURLs: nonsense\r\n";
        self.case("another stranger's message and a URL that is none", self.post("/raft", &other, &stale)).wants(
            Difference {
                when: When::Always,
                parts: &["status", "connection", "x-etcd-cluster-id"],
                reason: "etcd's handler panics and the connection is cut without an answer; ours passes over the URL",
            },
        );
    }

    fn connections(&mut self) {
        let stale = self.message(self.names.peer, self.names.local).encode_to_vec();
        let mut chunked = self.request("POST", "/raft", &format!("{LEGAL}Transfer-Encoding: chunked\r\n"));
        chunked.extend(stale.iter().flat_map(|byte| [b'1', b'\r', b'\n', *byte, b'\r', b'\n']));
        chunked.extend(b"0\r\n\r\n");
        self.case("in chunks", chunked);
        let mut expecting = self.request(
            "POST",
            "/raft",
            &format!("{LEGAL}Expect: 100-continue\r\nContent-Length: {}\r\n", stale.len()),
        );
        expecting.extend(&stale);
        self.case("expecting 100", expecting);
        self.case("asked to close", self.request("GET", "/members", "Connection: close\r\n"));
        self.case("of HTTP/1.0", self.filled("GET /members HTTP/1.0\r\n\r\n"));
        self.case(
            "header names in capitals",
            self.request("GET", "/raft/stream/message/{removed}", &LEGAL.replace("X-Raft-To", "X-RAFT-TO")),
        );
        self.case(
            "a header of 100 KiB",
            self.request("GET", "/members", &format!("X-Long: {}\r\n", "x".repeat(100 << 10))),
        )
        .wants(Difference {
            when: When::Always,
            parts: &["status", "body", "connection", "content-type", "x-etcd-cluster-id"],
            reason: "a head has a bound of 64 KiB; etcd takes a megabyte",
        });
        self.heads(&stale);
        let long = format!("{LEGAL}Content-Length: 600000000\r\n");
        self.case("a body of 600 MB that does not come", self.request("POST", "/raft", &long))
            .paced(Pace::Ending(0))
            .wants(Difference {
                when: When::Always,
                parts: &["status", "body"],
                reason: "a message has a bound of 512 MiB, and one that says it is longer is not read",
            });
    }

    /// Heads that one server takes and another does not.
    fn heads(&mut self, stale: &[u8]) {
        for (what, request) in [
            ("no host", "GET /members HTTP/1.1\r\n\r\n"),
            ("no host, and an absolute URI", "GET http://member/members HTTP/1.1\r\n\r\n"),
            ("an empty host", "GET /members HTTP/1.1\r\nHost:\r\n\r\n"),
            ("two hosts", "GET /members HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
            ("a host twice", "GET /members HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
            ("a host with a space", "GET /members HTTP/1.1\r\nHost: a b\r\n\r\n"),
            ("a host with a slash", "GET /members HTTP/1.1\r\nHost: a/b\r\n\r\n"),
            ("an escape that is none", "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("half an escape", "GET /members% HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("another expectation", "GET /members HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n"),
            ("a method in lower case", "get /members HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("lines that end in a line feed", "GET /members HTTP/1.1\nHost: a\n\n"),
        ] {
            self.case(what, self.filled(request));
        }
        for (what, request) in [
            ("a space before a colon", "GET /members HTTP/1.1\r\nHost : a\r\n\r\n"),
            ("a header without a colon", "GET /members HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n"),
            ("two spaces", "GET  /members HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("HTTP/0.9", "GET /members\r\n\r\n"),
        ] {
            self.case(what, self.filled(request)).wants(Difference::silent(When::Always));
        }
        self.case("HTTP/2.0", self.filled("GET /members HTTP/2.0\r\nHost: a\r\n\r\n"))
            .wants(Difference { parts: &["status", "body", "content-type"], ..Difference::silent(When::Always) });
        self.case("a header without a name", self.filled("GET /members HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"))
            .wants(Difference::silent(When::Etcd(&[5, 6, 7])))
            .wants(Difference::stricter(When::Etcd(&[4])));
        for (what, request) in [
            ("HTTP/1.2", "GET /members HTTP/1.2\r\nHost: a\r\n\r\n"),
            ("a header that is folded", "GET /members HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n"),
        ] {
            self.case(what, self.filled(request)).wants(Difference::stricter(When::Always));
        }
        self.case("a fragment", self.filled("GET /members#a HTTP/1.1\r\nHost: a\r\n\r\n")).wants(Difference {
            when: When::Always,
            parts: &["status", "body", "content-type", "x-content-type-options", "x-etcd-cluster-id"],
            reason: "hyper drops a fragment, which no client sends, and what is left of the path says what is asked; \
                     to Go it is part of the path",
        });
        self.lengths(stale);
    }

    fn lengths(&mut self, stale: &[u8]) {
        let length = stale.len();
        let post = |headers: &str| {
            let mut request = self.request("POST", "/raft", &format!("{LEGAL}{headers}"));
            request.extend_from_slice(stale);
            request
        };
        let twice = post(&format!("Content-Length: {length}\r\nContent-Length: {length}\r\n"));
        let codings = [
            ("two codings", post("Transfer-Encoding: gzip, chunked\r\n")),
            ("chunks twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")),
        ];
        let unknown = post("Transfer-Encoding: gzip\r\n");
        let silent = [
            ("two lengths", post(&format!("Content-Length: {length}\r\nContent-Length: 1\r\n"))),
            ("a list of lengths", post(&format!("Content-Length: {length}, {length}\r\n"))),
            ("a length with a sign", post(&format!("Content-Length: +{length}\r\n"))),
            ("a length that is none", post("Content-Length: ten\r\n")),
            ("a negative length", post("Content-Length: -1\r\n")),
        ];
        self.case("a length twice", twice);
        for (what, request) in codings {
            self.case(what, request);
        }
        self.case("a coding that nobody knows", unknown)
            .wants(Difference { parts: &["status", "body", "content-type"], ..Difference::silent(When::Always) });
        for (what, request) in silent {
            self.case(what, request).wants(Difference::silent(When::Always));
        }
        self.chunks();
    }

    fn chunks(&mut self) {
        let chunks = |body: &str, headers: &str| {
            let head = self.request("POST", "/raft", &format!("{LEGAL}Transfer-Encoding: chunked\r\n{headers}"));
            [&head, body.as_bytes()].concat()
        };
        let and_a_length = chunks("0\r\n\r\n", "Content-Length: 5\r\n");
        let of_no_size = chunks("\r\n\r\n", "");
        let same = [
            ("a chunk of a size that is none", chunks("zz\r\n\r\n", "")),
            ("a chunk without its end", chunks("1\r\nab\r\n0\r\n\r\n", "")),
            ("a chunk with an extension", chunks("0;a=b\r\n\r\n", "")),
            ("trailers", chunks("0\r\nX-A: b\r\n\r\n", "Trailer: X-A\r\n")),
            ("a size of 2^64", chunks("10000000000000000\r\n\r\n", "")),
        ];
        self.case("chunks and a length", and_a_length).wants(Difference {
            when: When::Etcd(&[4]),
            parts: &["connection"],
            reason: "who says both may be about to smuggle: the connection ends, as a newer Go does",
        });
        self.case("a chunk of no size", of_no_size).wants(Difference {
            when: When::Etcd(&[4]),
            parts: &["status", "body", "connection", "content-type", "x-content-type-options"],
            reason: "an older Go takes no size for 0",
        });
        for (what, request) in same {
            self.case(what, request);
        }
    }

    fn slow(&mut self) {
        let stale = self.message(self.names.peer, self.names.local).encode_to_vec();
        let snapshot = framed(&self.snapshot(self.names.local).encode_to_vec(), b"a body");
        let (message, snapshot) = (self.post("/raft", LEGAL, &stale), self.post("/raft/snapshot", LEGAL, &snapshot));
        let stream = self.request("GET", "/raft/stream/message/{peer}", LEGAL);
        self.case("a message that drips", message.clone()).paced(Pace::Dripping);
        self.case("a snapshot that drips", snapshot.clone()).paced(Pace::Dripping);
        self.case("a head that drips", stream.clone()).paced(Pace::Dripping).alone();
        self.case("a message that ends early", message.clone()).paced(Pace::Ending(3));
        self.case("an envelope that ends early", snapshot.clone()).paced(Pace::Ending(12));
        self.case("a head that ends early", stream.clone()).paced(Pace::Ending(3)).wants(Difference {
            when: When::Always,
            parts: &["status", "body", "connection", "content-type"],
            reason: "half a head is no request: Go says so to who has closed, ours closes too",
        });
        self.case("a message that stalls", message).paced(Pace::Stalling(3));
        self.case("an envelope that stalls", snapshot).paced(Pace::Stalling(12));
        self.case("a head that stalls", stream).paced(Pace::Stalling(3)).wants(Difference {
            when: When::GoSince(20),
            parts: &["status", "body", "connection", "content-type"],
            reason: "half a head is no request: ours closes after 10 s, as an older Go after 5 s; a newer one says so first",
        });
    }

    fn case(&mut self, name: impl Into<String>, request: Vec<u8>) -> &mut Case {
        self.cases.push(Case { name: name.into(), request, pace: Pace::AtOnce, alone: false, wanted: Vec::new() });
        self.cases.last_mut().expect("just pushed")
    }

    fn request(&self, method: &str, path: &str, headers: &str) -> Vec<u8> {
        self.filled(&format!("{method} {path} HTTP/1.1\r\nHost: member\r\n{headers}\r\n"))
    }

    fn post(&self, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        self.ask("POST", path, headers, body)
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        let mut request = self.request(method, path, &format!("{headers}Content-Length: {}\r\n", body.len()));
        request.extend_from_slice(body);
        request
    }

    fn filled(&self, text: &str) -> Vec<u8> {
        let Names { local, cluster, peer, removed, version, .. } = self.names;
        let text = text.replace("{local}", &local.to_string()).replace("{cluster}", cluster);
        let text = text.replace("{peer}", &peer.to_string()).replace("{PEER}", &peer.to_string().to_uppercase());
        let text = text.replace("{removed}", &removed.to_string()).replace("{version}", &version.to_string());
        text.replace("{stranger}", &STRANGER.to_string()).into_bytes()
    }

    /// A message of an old term: raft ignores it.
    fn message(&self, from: MemberId, to: MemberId) -> Message {
        Message { r#type: MessageType::MsgHeartbeatResp as i32, from: from.0, to: to.0, term: 1, ..Message::default() }
    }

    /// Likewise.
    fn snapshot(&self, to: MemberId) -> Message {
        let conf_state = Some(ConfState { voters: vec![self.names.local.0], ..ConfState::default() });
        let metadata = Some(SnapshotMetadata { conf_state, index: 1, term: 1 });
        let snapshot = Some(Snapshot { metadata, ..Snapshot::default() }.into());
        Message { r#type: MessageType::MsgSnap as i32, snapshot, ..self.message(self.names.peer, to) }
    }
}

impl Case {
    fn wants(&mut self, difference: Difference) -> &mut Self {
        self.wanted.push(difference);
        self
    }

    fn alone(&mut self) -> &mut Self {
        self.alone = true;
        self
    }

    fn paced(&mut self, pace: Pace) -> &mut Self {
        self.pace = pace;
        self
    }
}

/// [`LEGAL`] without the header that begins so, and with others.
fn without(name: &str, with: &str) -> String {
    let kept = LEGAL.split_inclusive("\r\n").filter(|line| !line.starts_with(name));
    kept.collect::<String>() + with
}

/// A message as a frame, and what follows it.
fn framed(message: &[u8], rest: &[u8]) -> Vec<u8> {
    [&(message.len() as u64).to_be_bytes(), message, rest].concat()
}
