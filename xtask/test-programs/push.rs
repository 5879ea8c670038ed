//! Pushes images as docker does: blobs that a repository does not have, then manifests, then indexes. Failures are
//! printed in docker's words.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use ureq::Agent;
use xtask::model::oci::Digest;

use crate::variable;

const OCI: &str = "application/vnd.oci.image";

/// The image of one platform; each layer is its text.
pub struct Image {
    pub arch: &'static str,
    pub layers: Vec<String>,
    pub name: String,
}

/// Requests that wait, all to one repository.
#[derive(Default)]
pub struct Push {
    host: String,
    path: String,
    blobs: Vec<String>,
    waiting: BTreeSet<String>,
    /// Media type, reference and text of each manifest.
    manifests: Vec<(String, String, String)>,
}

impl Push {
    /// Adds an index of images under a tag.
    pub fn add(&mut self, host: &str, path: &str, tag: &str, images: [Image; 2], inputs: &str) {
        // The real docker logs in by itself; this one gets an address that asks for no account, or the account.
        self.host = variable("FAKE_PUSH_HOST").unwrap_or_else(|| host.to_owned());
        self.path = path.to_owned();
        let mut entries = Vec::new();
        for image in images {
            let text = self.image(&image);
            let mut entry = descriptor("manifest.v1+json", &text);
            entry["platform"] = json!({ "os": "linux", "architecture": image.arch });
            entries.push(entry);
            self.manifests.push((format!("{OCI}.manifest.v1+json"), digest(&text), text));
        }
        let index = json!({ "schemaVersion": 2, "mediaType": format!("{OCI}.index.v1+json"), "manifests": entries,
            "annotations": { "opencode-devbox.inputs": inputs } });
        self.manifests.push((format!("{OCI}.index.v1+json"), tag.to_owned(), index.to_string()));
    }

    /// The manifest of an image; its blobs are sent with it.
    fn image(&mut self, image: &Image) -> String {
        let config = json!({ "architecture": image.arch, "os": "linux" }).to_string();
        self.blob(&config);
        let layers: Vec<Value> = image.layers.iter().map(|layer| descriptor("layer.v1.tar", layer)).collect();
        for layer in &image.layers {
            self.blob(layer);
        }
        json!({ "schemaVersion": 2, "mediaType": format!("{OCI}.manifest.v1+json"),
            "config": descriptor("config.v1+json", &config), "layers": layers, "annotations": { "name": image.name } })
        .to_string()
    }

    /// Has a blob sent, unless this repository is known to have it.
    fn blob(&mut self, text: &str) {
        let is_there = fs::exists(format!("{}/{}", self.marks(), digest(text))).unwrap_or(false);
        if self.waiting.insert(digest(text)) && !is_there {
            self.blobs.push(text.to_owned());
        }
    }

    /// A folder with one file for each blob that the repository has.
    fn marks(&self) -> String {
        format!("{}.blobs/{}", variable("FAKE_LOG").unwrap_or_default(), self.path)
    }

    pub fn send(self) -> Result<(), String> {
        let agent: Agent = Agent::config_builder().http_status_as_error(false).build().into();
        let base = format!("http://{}/v2/{}", self.host, self.path);
        let mut uploads = Vec::new();
        for _ in &self.blobs {
            let answer = send(&agent, "POST", &format!("{base}/blobs/uploads/"), "", "")?;
            let location =
                answer.headers().get("location").and_then(|value| value.to_str().ok()).unwrap_or_default();
            uploads.push(match location.starts_with('/') {
                true => format!("http://{}{location}", self.host),
                false => location.to_owned(),
            });
        }
        for (blob, upload) in self.blobs.iter().zip(uploads) {
            let joint = if upload.contains('?') { '&' } else { '?' };
            let url = format!("{upload}{joint}digest={}", digest(blob));
            send(&agent, "PUT", &url, "application/octet-stream", blob)?;
        }
        fs::create_dir_all(self.marks()).map_err(|error| error.to_string())?;
        for blob in &self.blobs {
            fs::write(format!("{}/{}", self.marks(), digest(blob)), "").map_err(|error| error.to_string())?;
        }
        for (media_type, reference, text) in &self.manifests {
            send(&agent, "PUT", &format!("{base}/manifests/{reference}"), media_type, text)?;
        }
        Ok(())
    }
}

/// Sends a request; an error has the words in which containerd's pusher, which docker uses, reports it.
fn send(
    agent: &Agent,
    method: &str,
    url: &str,
    media_type: &str,
    body: &str,
) -> Result<ureq::http::Response<ureq::Body>, String> {
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    if !media_type.is_empty() {
        request = request.header("Content-Type", media_type);
    }
    if let Some(account) = variable("FAKE_ACCOUNT") {
        use base64::Engine as _;
        let account = base64::engine::general_purpose::STANDARD.encode(account);
        request = request.header("Authorization", format!("Basic {account}"));
    }
    let request = request.body(body.to_owned()).map_err(|error| error.to_string())?;
    let verb = if method == "PUT" { "Put" } else { "Post" };
    let mut answer = agent.run(request).map_err(|error| match error {
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
            format!("ERROR: failed to do request: {verb} \"{url}\": read: connection reset by peer")
        }
        error => format!("ERROR: failed to do request: {verb} \"{url}\": EOF ({error})"),
    })?;
    let status = answer.status();
    if !status.is_success() {
        return Err(format!("ERROR: unexpected status from {method} request to {url}: {status}"));
    }
    // A connection is used again once its answer was read.
    let _ = answer.body_mut().read_to_vec();
    Ok(answer)
}

fn digest(text: &str) -> String {
    Digest::of(text.as_bytes()).to_string()
}

fn descriptor(kind: &str, text: &str) -> Value {
    json!({ "mediaType": format!("{OCI}.{kind}"), "digest": digest(text), "size": text.len() })
}
