//! Paths that are not clean, answered as by Go's `ServeMux`.

use axum::{
    extract::Request,
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

/// The content type of a redirect, whose body is for people only.
const TEXT_HTML: &str = "text/html; charset=utf-8";

/// The answer to a path that is not clean: a redirect to the clean one. `None` if the path is clean.
pub(super) fn redirect(request: &Request) -> Option<Response> {
    let path = request.uri().path();
    // `OPTIONS *` and `CONNECT host:port` have no path.
    if !path.starts_with('/') {
        return None;
    }
    let clean = clean(path);
    (clean != path).then(|| redirect_to(&clean, request.method(), request.uri()))
}

/// The answer to the root of a subtree without its slash: a redirect to the path with the slash.
pub(super) async fn add_slash(request: Request) -> Response {
    let path = format!("{}/", request.uri().path());
    redirect_to(&path, request.method(), request.uri())
}

/// As Go's `http.Redirect`, with 307 since Go 1.26. The path begins with a single slash, so the client stays on this
/// host.
fn redirect_to(path: &str, method: &Method, uri: &Uri) -> Response {
    let location = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let status = StatusCode::TEMPORARY_REDIRECT;
    let body = format!("<a href=\"{}\">Temporary Redirect</a>.\n\n", escape_html(&location));
    let mut response = match *method {
        Method::GET | Method::HEAD => (status, [(header::CONTENT_TYPE, TEXT_HTML)], body).into_response(),
        _ => status.into_response(),
    };
    if let Ok(value) = location.try_into() {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

/// As Go's `cleanPath`: removes empty, `.` and `..` elements, and keeps a trailing slash.
fn clean(path: &str) -> String {
    let mut elements: Vec<&str> = Vec::new();
    for element in path.split('/') {
        match element {
            "" | "." => {}
            ".." => drop(elements.pop()),
            _ => elements.push(element),
        }
    }
    let slash = if path.ends_with('/') && !elements.is_empty() { "/" } else { "" };
    format!("/{}{slash}", elements.join("/"))
}

/// Go's `htmlReplacer`.
fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, expected) in [
            ("/", "/"),
            ("//", "/"),
            ("//raft", "/raft"),
            ("/raft/", "/raft/"),
            ("/raft//stream/", "/raft/stream/"),
            ("/raft/./stream/x/../y", "/raft/stream/y"),
            ("/../../x", "/x"),
            ("/raft/stream/..", "/raft"),
            ("/raft/stream/../", "/raft/"),
            ("/..", "/"),
            ("/.../x", "/.../x"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }

    #[test]
    fn a_redirect_never_leaves_the_host() {
        assert_eq!(clean("//evil.example/x"), "/evil.example/x");
        assert_eq!(clean("///evil.example"), "/evil.example");
    }

    #[test]
    fn the_link_in_a_redirect_is_escaped() {
        assert_eq!(escape_html(r#"/a?<b>&"c'"#), "/a?&lt;b&gt;&amp;&#34;c&#39;");
    }
}
