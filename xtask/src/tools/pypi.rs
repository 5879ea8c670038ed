//! The Python package index, by its JSON "simple" API (PEP 691, with the fields of PEP 700).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::web::{Answer, Web};

const JSON: &str = "application/vnd.pypi.simple.v1+json";

/// A file of a project.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct File {
    pub filename: String,
    pub url: String,
    hashes: BTreeMap<String, String>,
    upload_time: Option<String>,
    /// `false`, or a reason.
    #[serde(default)]
    yanked: serde_json::Value,
}

impl File {
    /// SHA-256 in hexadecimal; empty where the index has none.
    pub fn sha256(&self) -> &str {
        self.hashes.get("sha256").map_or("", String::as_str)
    }

    pub fn uploaded(&self) -> Option<Timestamp> {
        self.upload_time.as_ref()?.parse().ok()
    }

    /// Why its authors withdrew the file (PEP 592), if they did.
    pub fn withdrawn(&self) -> Option<String> {
        match &self.yanked {
            serde_json::Value::Bool(false) | serde_json::Value::Null => None,
            serde_json::Value::String(why) if !why.is_empty() => Some(why.clone()),
            _ => Some("no reason given".to_owned()),
        }
    }

    /// The version in a wheel's name (PEP 427), unless the file is a source archive or withdrawn.
    pub fn wheel_version(&self) -> Option<&str> {
        let good = self.filename.ends_with(".whl") && self.withdrawn().is_none();
        self.filename.split('-').nth(1).filter(|_| good)
    }
}

/// All files of a project.
pub fn files(web: &Web, index: &str, project: &str) -> Answer<Vec<File>> {
    #[derive(Deserialize)]
    struct Page {
        files: Vec<File>,
    }
    // Names are compared in one spelling (PEP 503).
    let name = project.to_lowercase().replace(['_', '.'], "-");
    let page = format!("{index}/{name}/");
    web.json(&page, JSON).map(|Page { mut files }| {
        for file in &mut files {
            file.url = absolute(&page, &file.url);
        }
        files
    })
}

/// Mirrors give addresses relative to the page or to the host.
fn absolute(page: &str, url: &str) -> String {
    let host = page.split('/').take(3).collect::<Vec<_>>().join("/");
    match url {
        url if url.contains("://") => url.to_owned(),
        url if url.starts_with('/') => format!("{host}{url}"),
        url => format!("{page}{url}"),
    }
}
