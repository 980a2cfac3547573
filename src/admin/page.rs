//! The page at `/`: draws `/api/peers` and `/api/events` live in a browser.
//!
//! It is written by hand and embedded in the binary, and it loads nothing from elsewhere. Its files refer to each other
//! and to the endpoints by relative paths, so that it also works behind a proxy that adds a prefix.

use std::future::ready;

use axum::{
    Router,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use xxhash_rust::xxh3::xxh3_64;

/// A file of the page.
#[derive(Clone, Copy)]
struct PageFile {
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

static FILES: &[PageFile] = &[
    PageFile { path: "/", content_type: HTML, text: include_str!("page/index.html") },
    PageFile { path: "/page/page.css", content_type: CSS, text: include_str!("page/page.css") },
    PageFile { path: "/page/icon.svg", content_type: "image/svg+xml", text: include_str!("page/icon.svg") },
    PageFile { path: "/page/page.js", content_type: JAVASCRIPT, text: include_str!("page/page.js") },
    PageFile { path: "/page/poll.js", content_type: JAVASCRIPT, text: include_str!("page/poll.js") },
    PageFile { path: "/page/model.js", content_type: JAVASCRIPT, text: include_str!("page/model.js") },
    PageFile { path: "/page/peers.js", content_type: JAVASCRIPT, text: include_str!("page/peers.js") },
    PageFile { path: "/page/spark.js", content_type: JAVASCRIPT, text: include_str!("page/spark.js") },
    PageFile { path: "/page/matrix.js", content_type: JAVASCRIPT, text: include_str!("page/matrix.js") },
    PageFile { path: "/page/events.js", content_type: JAVASCRIPT, text: include_str!("page/events.js") },
    PageFile { path: "/page/format.js", content_type: JAVASCRIPT, text: include_str!("page/format.js") },
    PageFile { path: "/page/dom.js", content_type: JAVASCRIPT, text: include_str!("page/dom.js") },
];

/// The page shows names that peers give themselves. Should one of them ever be parsed as HTML, this policy still only
/// lets these files run or be drawn.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    // The browser caches the files but revalidates each time, so that an upgrade shows at the next visit.
    (header::CACHE_CONTROL, "no-cache"),
];

pub(super) fn router() -> Router {
    FILES.iter().fold(Router::new(), |router, file| {
        let tag = format!("\"{:016x}\"", xxh3_64(file.text.as_bytes()));
        router.route(file.path, get(move |headers: HeaderMap| ready(answer(file, &tag, &headers))))
    })
}

fn answer(file: &'static PageFile, tag: &str, headers: &HeaderMap) -> Response {
    let head = (HEADERS, [(header::ETAG, tag)]);
    if knows(headers, tag) {
        (StatusCode::NOT_MODIFIED, head).into_response()
    } else {
        (head, [(header::CONTENT_TYPE, file.content_type)], file.text).into_response()
    }
}

/// Whether the browser has this version. `If-None-Match` is a list, and proxies that compress weaken its tags.
fn knows(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The texts in quotes after `from `, and in `src=` and `href=`.
    fn named(text: &str) -> BTreeSet<&str> {
        let after = |mark: &'static str| text.split(mark).skip(1).filter_map(|rest| rest.split('"').next());
        after("from \"").chain(after("src=\"")).chain(after("href=\"")).collect()
    }

    #[test]
    fn the_files_name_each_other_and_nothing_elsewhere() {
        let served: BTreeSet<&str> = FILES.iter().map(|file| file.path).collect();
        let endpoints = ["metrics", "api/peers", "api/events", "readyz?verbose"];
        let mut used = BTreeSet::from(["/".to_owned()]);
        for file in FILES {
            for name in named(file.text) {
                let path = match name.strip_prefix("./") {
                    Some(module) => format!("/page/{module}"),
                    None => format!("/{name}"),
                };
                let known = served.contains(path.as_str());
                assert!(known || endpoints.contains(&name) || name.starts_with('#'), "{}: {name}", file.path);
                used.insert(path);
            }
            let elsewhere = file.text.matches("://").count() - file.text.matches("http://www.w3.org/").count();
            assert_eq!(elsewhere, 0, "{} names an address", file.path);
        }
        assert!(served.iter().all(|path| used.contains(*path)), "a file is served that nothing uses");
    }

    #[test]
    fn a_policy_that_forbids_inline_code_is_kept_by_the_files() {
        for file in FILES {
            for inline in
                ["style=\"", "<style", "onclick=", "onload=", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval("]
            {
                assert!(!file.text.contains(inline), "{}: {inline}", file.path);
            }
            assert_eq!(file.text.matches("<script").count(), file.text.matches("<script type=\"module\" src=").count());
        }
    }

    #[test]
    fn a_browser_that_has_the_file_is_told_so() {
        let having = |value: &str| {
            let value = value.parse().expect("a header's value");
            knows(&HeaderMap::from_iter([(header::IF_NONE_MATCH, value)]), "\"1f\"")
        };
        assert!(having("\"1f\"") && having("W/\"1f\"") && having("\"2\", \"1f\"") && having("*"));
        assert!(!having("\"1\"") && !having("") && !knows(&HeaderMap::new(), "\"1f\""));
    }
}
