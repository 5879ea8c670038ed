//! Which checks an image passed, as in-toto's test result (attestation framework, "Predicate type: Test Result" v0.1). Refuses
//! nothing: a variant is tested only with every check passed.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::image::tree::Tree;
use crate::image::verdict::{self, TestedVariant};
use crate::model::key::Inputs;

pub const KIND: &str = "https://in-toto.io/attestation/test-result/v0.1";

/// The checks of a variant on every platform, with the files of the suite that they come from.
pub fn of(tree: &Tree, tested: &TestedVariant<'_>) -> Value {
    let suite = Inputs::new(&tree.entries(&verdict::inputs()), BTreeMap::new(), BTreeMap::new());
    let files = suite.files.iter();
    let files = files.map(|(path, file)| json!({ "name": path, "digest": { "sha256": file.sha256 } }));
    let configuration: Vec<Value> = files.collect();
    let (mut passed, mut failed) = (Vec::new(), Vec::new());
    for (platform, verdict) in &tested.verdicts {
        for check in &verdict.checks {
            let names = if check.passed { &mut passed } else { &mut failed };
            names.push(format!("{platform}: {}", check.name));
        }
    }
    let result = if failed.is_empty() { "PASSED" } else { "FAILED" };
    json!({ "result": result, "configuration": configuration, "passedTests": passed, "warnedTests": [],
        "failedTests": failed })
}
