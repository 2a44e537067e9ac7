//! Whole objects, as they are created. After a change that is meant: `INSTA_UPDATE=always cargo
//! test -p berth-render`, and read the difference.

mod common;

use berth_render::{
    budget,
    cache::{self, Folder, Work},
    pod, prefetch, revision, service,
};

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
fn prefetch() {
    for case in common::cases() {
        if ["vllm-hub-cached", "llama-cpp-pvc"].contains(&case.name) {
            let pod = prefetch::prefetch(&case.template, &case.replica, &case.site);
            golden(&format!("prefetch-{}", case.name), &pod);
        }
    }
}

#[test]
fn service_and_budget() {
    let owner = common::owner("llama-8b");
    golden("service", &service(&owner, 80));
    golden("budget", &budget(&owner, 3));
}

#[test]
fn caches() {
    let site = common::cached_site();
    let cache = site.cache.clone().unwrap();
    let folder = Folder::of("gpu-017", "team-a");
    golden("cache-volume", &cache::volume(&folder, &cache, "gpu-017.example.com", cache.size));
    golden("cache-claim", &cache::claim(&folder));
    let work = Work {
        prepare: ["team-a".to_owned()].into(),
        evict: [("team-b".to_owned(), "hf--org--old--bcdfghjklmnpq".to_owned())].into(),
    };
    let keeper = cache::keeper("gpu-017", &work, &site, &cache);
    assert_eq!(Work::of(&keeper), Some(work));
    golden("cache-keeper", &keeper);
}

#[test]
fn controller_revision() {
    let case = common::cases().remove(0);
    let spec = r#"{"model":{"uri":"hf://meta-llama/Llama-3.1-8B-Instruct"}}"#;
    let revision = revision::revision(&case.replica.deployment, &case.template, 3, spec);
    golden("controller-revision", &revision);
}
