//! The documents: their links lead somewhere, and the README stays short.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Component, Path, PathBuf},
};

/// What a reader takes in before he decides: more belongs under `docs/`.
const README_BYTES: usize = 12 << 10;

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// Every Markdown file of the project, by its path from the root.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(root().join(&directory)).expect("a directory") {
            let entry = entry.expect("an entry");
            let path = directory.join(entry.file_name());
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().expect("a type").is_dir() {
                // Built, fetched or somebody's own.
                if !name.starts_with('.') && name != "target" && name != "node_modules" {
                    directories.push(path);
                }
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A document without its blocks of code and spans of code, in which nothing is a link.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    });
    let mut prose = String::new();
    for line in lines {
        // An odd number of spans is one that goes on in the next line: none does here.
        prose.extend(line.split('`').step_by(2));
        prose.push('\n');
    }
    prose
}

/// The anchors of a document's headings, as GitHub derives them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: HashMap<String, u32> = HashMap::new();
    let mut fenced = false;
    let mut anchors = BTreeSet::new();
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let Some(heading) = line.strip_prefix('#').filter(|_| !fenced) else { continue };
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let before = seen.entry(anchor.clone()).or_default();
        anchors.insert(if *before == 0 { anchor } else { format!("{anchor}-{before}") });
        *before += 1;
    }
    anchors
}

/// Where the links and pictures of a document lead.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let links = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let pictures = prose.split("src=\"").skip(1).filter_map(|rest| rest.split_once('"')).map(|(target, _)| target);
    links.chain(pictures).map(str::to_owned).collect()
}

/// A path without `.` and `..`; none if it leaves the project.
fn resolved(path: &Path) -> Option<PathBuf> {
    let mut resolved = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                resolved.pop().then_some(())?;
            }
            other => resolved.push(other),
        }
    }
    Some(resolved)
}

/// What is wrong with a link in a document, if anything is.
fn broken(document: &Path, link: &str) -> Option<&'static str> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let directory = document.parent().unwrap_or(Path::new(""));
    let target = if file.is_empty() { Some(document.to_owned()) } else { resolved(&directory.join(file)) };
    let Some(target) = target.map(|target| root().join(target)).filter(|target| target.exists()) else {
        return Some("no such file");
    };
    let anchor = anchor.filter(|_| target.extension().is_some_and(|extension| extension == "md"))?;
    let text = fs::read_to_string(target).expect("a document");
    (!anchors(&text).contains(anchor)).then_some("no such heading")
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    let mut looked_at = 0;
    for document in documents() {
        let text = fs::read_to_string(root().join(&document)).expect("a document");
        for link in links(&text) {
            looked_at += 1;
            if let Some(why) = broken(&document, &link) {
                wrong.push(format!("{}: {link}: {why}", document.display()));
            }
        }
    }
    assert!(looked_at > 100, "only {looked_at} links were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_readme_is_short_and_leads_to_every_page() {
    let readme = fs::read_to_string(root().join("README.md")).expect("the README");
    assert!(readme.len() <= README_BYTES, "{} bytes, {README_BYTES} at most", readme.len());
    let links = links(&readme);
    let pages = documents().into_iter().filter(|path| path.parent().is_some_and(|parent| parent == Path::new("docs")));
    let missing: Vec<PathBuf> =
        pages.filter(|page| !links.iter().any(|link| link.split('#').next() == page.to_str())).collect();
    assert!(missing.is_empty(), "the README has no link to {missing:?}");
}

#[test]
fn links_that_lead_nowhere_are_found() {
    let document = Path::new("docs/limits.md");
    for link in ["nowhere.md", "../README.md#nowhere", "#nowhere", "../../outside.md"] {
        assert!(broken(document, link).is_some(), "{link}");
    }
    for link in ["../README.md#the-library", "#limits", "../src/lib.rs", "https://example.com/nowhere"] {
        assert_eq!(broken(document, link), None, "{link}");
    }
    assert_eq!(links("[a](b.md) `[c](d.md)`\n```\n[e](f.md)\n```\n<img src=\"g.png\">"), ["b.md", "g.png"]);
}
