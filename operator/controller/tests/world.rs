//! Pods as the ledger sees them: what holds what, whatever order the news comes in.

mod common;

use berth_crds::llm_deployment::Vendor;
use berth_operator::world::{World, pod};
use berth_planner::{NodeName, OccupantId, Owner as Holder};
use berth_render::{Claim, Owner, Replica, Site, Template, revision::hash, vendor::GpuResources};
use berth_units::Bytes;
use common::{defaults, deployment, node};
use futures::channel::mpsc;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::ResourceExt;
use serde_json::json;

const VRAM: Bytes = Bytes::mib(81_559);

fn template() -> Template {
    let spec = json!({"model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"}});
    let wish =
        berth_operator::reconcile::resolve::resolve(&deployment(spec), &defaults(), None).unwrap();
    wish.template(wish.contexts[0], 1, wish.vendors[0]).unwrap()
}

/// A pod as Berth renders it, as it comes back from the API server.
fn rendered(attempt: u32) -> Pod {
    rendered_at(attempt, &common::site())
}

fn rendered_at(attempt: u32, site: &Site) -> Pod {
    let template = template();
    let mut pod = berth_render::pod(
        &template,
        &Replica {
            deployment: Owner {
                namespace: "team".to_owned(),
                name: "llm".to_owned(),
                uid: "owner".to_owned(),
            },
            revision: hash(&template),
            replica: 0,
            rank: 0,
            attempt,
            node: "gpu-1".to_owned(),
            claim: Claim {
                gpus: 1,
                bytes_per_gpu: VRAM,
                total_per_gpu: Bytes::ZERO,
                product: "H100".to_owned(),
                cache: None,
            },
        },
        site,
    );
    pod.metadata.uid = Some(format!("uid-{attempt}"));
    pod
}

fn foreign(uid: &str, gpus: &str, node: Option<&str>) -> Pod {
    holding("nvidia.com/gpu", uid, gpus, node)
}

fn holding(resource: &str, uid: &str, gpus: &str, node: Option<&str>) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": uid, "namespace": "other", "uid": uid},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "c", "resources": {
                "limits": {resource: gpus}, "requests": {"cpu": "2"}}}],
        },
        "status": {"phase": "Running"},
    }))
    .unwrap()
}

fn world() -> World {
    let (triggers, _) = mpsc::unbounded();
    let world = World::new(triggers);
    world.lock().fleet.upsert_node(node("gpu-1", "H100", 8, VRAM));
    world
}

fn free(world: &World) -> u32 {
    world.lock().fleet.free(&NodeName::from("gpu-1")).gpus
}

#[test]
fn what_berth_renders_is_read_back_as_it_was_meant() {
    let pod = rendered(3);
    let replica = pod::replica(&pod).unwrap();
    assert_eq!((replica.replica, replica.attempt), (0, 3));
    assert_eq!(replica.node, NodeName::from("gpu-1"), "pinned, though not bound yet");
    assert_eq!(replica.claim.bytes_per_gpu, VRAM);
    assert!(matches!(replica.progress, pod::Progress::Unbound { .. }));
    let occupant = pod::occupant(&pod, &GpuResources::default()).unwrap();
    assert_eq!(occupant.gpus, 1);
    assert_eq!(occupant.resources.cpu, template().resources.cpu);
    assert_eq!(occupant.resources.memory, template().resources.memory);
}

#[test]
fn a_forged_claim_counts_for_nothing_and_the_requests_count_all_the_same() {
    // Somebody's own pod that bears our labels and claim, but not the name that they spell.
    let mut renamed = rendered(0);
    renamed.metadata.name = Some("llm-forged".to_owned());
    // One without an owner.
    let mut orphan = rendered(0);
    orphan.metadata.owner_references = None;
    // One whose claim says less than its requests.
    let mut shrunk = rendered(0);
    let small = Claim {
        gpus: 0,
        bytes_per_gpu: Bytes::ZERO,
        total_per_gpu: Bytes::ZERO,
        product: String::new(),
        cache: None,
    };
    let small = serde_json::to_string(&small).unwrap();
    shrunk.annotations_mut().insert("berth.dev/claim".to_owned(), small);
    // One whose claim was removed.
    let mut removed = rendered(0);
    removed.annotations_mut().remove("berth.dev/claim");

    for (forged, ours) in [(renamed, false), (orphan, false), (shrunk, true), (removed, false)] {
        let world = world();
        let mut forged = forged;
        forged.spec.as_mut().unwrap().node_name = Some("gpu-1".to_owned());
        world.saw_pod(&forged);
        assert_eq!(free(&world), 7, "{}", forged.name_any());
        let state = world.lock();
        let occupant = state.fleet.occupant(&OccupantId::from("uid-0")).unwrap();
        assert_eq!(matches!(occupant.owner, Holder::Ours(_)), ours, "{}", forged.name_any());
    }
}

#[test]
fn pods_of_others_hold_their_gpus_from_binding_to_end() {
    let world = world();
    world.saw_pod(&foreign("a", "2", None));
    assert_eq!(free(&world), 8, "not bound");
    world.saw_pod(&foreign("a", "2", Some("gpu-1")));
    assert_eq!(free(&world), 6);
    let mut ended = foreign("a", "2", Some("gpu-1"));
    ended.status = Some(PodStatus { phase: Some("Succeeded".to_owned()), ..PodStatus::default() });
    world.saw_pod(&ended);
    assert_eq!(free(&world), 8);
}

#[test]
fn gpus_are_held_under_the_name_that_the_cluster_gives_them() {
    let given = (Vendor::NVIDIA, "example.com/gpu".parse().unwrap());
    let gpu_resources = GpuResources::new([given]).unwrap();
    let world = world().with_gpu_resources(gpu_resources.clone());
    let pod = rendered_at(0, &Site { gpu_resources, ..common::site() });
    world.saw_pod(&pod);
    assert_eq!(free(&world), 7, "as it was rendered");
    world.saw_pod(&holding("example.com/gpu", "a", "2", Some("gpu-1")));
    assert_eq!(free(&world), 5, "somebody else's");
    world.saw_pod(&foreign("b", "2", Some("gpu-1")));
    assert_eq!(free(&world), 5, "something else");
    world.saw_pod(&rendered(1));
    assert_eq!(free(&world), 4, "ours from before the name was another");
}

#[test]
fn a_terminating_pod_holds_its_gpus_until_it_is_gone() {
    let world = world();
    let mut pod = rendered(0);
    pod.metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    world.saw_pod(&pod);
    assert_eq!(free(&world), 7);
    world.lost_pod(&pod);
    assert_eq!(free(&world), 8);
}

#[test]
fn the_same_name_is_not_the_same_pod() {
    let world = world();
    world.saw_pod(&rendered(0));
    let mut again = rendered(0);
    again.metadata.uid = Some("another".to_owned());
    world.saw_pod(&again);
    assert_eq!(free(&world), 7, "the first one is gone, though nobody said so");
    world.lost_pod(&rendered(0));
    assert_eq!(free(&world), 7, "news of the first one does not end the second");
    assert_eq!(world.lock().replicas_of("owner").len(), 1);
}

#[test]
fn a_late_answer_does_not_bring_a_pod_back() {
    let world = world();
    world.saw_pod(&rendered(0));
    world.lost_pod(&rendered(0));
    // The answer to the create arrives after the watch told of the pod's end.
    world.wrote_pod(&rendered(0));
    assert_eq!(free(&world), 8);
    assert!(world.lock().replicas_of("owner").is_empty());
}

#[test]
fn a_pair_that_hands_over_in_place_is_counted_once_in_every_order() {
    let old = rendered(0);
    let mut heir = rendered(1);
    heir.annotations_mut().insert("berth.dev/replaces".to_owned(), "uid-0".to_owned());
    for order in [[&old, &heir], [&heir, &old]] {
        let world = world();
        for pod in order {
            world.saw_pod(pod);
        }
        assert_eq!(free(&world), 7);
        world.lost_pod(&old);
        assert_eq!(free(&world), 7, "the heir holds the GPU now");
        world.lost_pod(&heir);
        assert_eq!(free(&world), 8);

        let world = self::world();
        for pod in order {
            world.saw_pod(pod);
        }
        world.lost_pod(&heir);
        assert_eq!(free(&world), 7, "the old one still holds it");
        world.lost_pod(&old);
        assert_eq!(free(&world), 8);
    }
}

#[test]
fn what_we_delete_counts_as_going_before_the_watch_says_so() {
    let world = world();
    world.saw_pod(&rendered(0));
    let replica = world.lock().replicas_of("owner").remove(0);
    world.update(|state| state.deleting(&replica));
    // An older event about the pod arrives.
    world.saw_pod(&rendered(0));
    assert!(!world.lock().replicas_of("owner")[0].is_live());
}
