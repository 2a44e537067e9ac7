//! Whole objects, as they are created. After a change that is meant: `INSTA_UPDATE=always cargo
//! test -p berth-render`, and read the difference.

mod common;

use berth_render::{budget, pod, revision, service};

fn golden(name: &str, object: &impl serde::Serialize) {
    insta::with_settings!({
        snapshot_path => "golden",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_yaml_snapshot!(name, object);
    });
}

#[test]
fn pods() {
    for case in common::cases() {
        golden(&format!("pod-{}", case.name), &pod(&case.template, &case.replica, &case.site));
    }
}

#[test]
fn service_and_budget() {
    let owner = common::owner("llama-8b");
    golden("service", &service(&owner, 80));
    golden("budget", &budget(&owner, 3));
}

#[test]
fn controller_revision() {
    let case = common::cases().remove(0);
    let spec = r#"{"model":{"uri":"hf://meta-llama/Llama-3.1-8B-Instruct"}}"#;
    let revision = revision::revision(&case.replica.deployment, &case.template, 3, spec);
    golden("controller-revision", &revision);
}
