//! Every reason to refuse a node, its message, and the message for many nodes.

use berth_planner::{
    Effect, Fleet, Node, Operator, RefusalReason, Request, Resources, Taint, Toleration, Vendor,
    could_ever, place,
};
use berth_units::{Bytes, MilliCpu};

use crate::fixtures::{
    cached_request, caching, fleet, foreign, lying, name, need, node, ours, request, using,
};

fn taint(key: &str, value: &str, effect: Effect) -> Taint {
    Taint { key: key.to_owned(), value: value.to_owned(), effect }
}

/// A node and a request that fit, after `change`: the line, and the nearest miss.
fn refused(change: impl FnOnce(&mut Node, &mut Request)) -> (String, String) {
    let (mut node, mut request) = (node("gpu-1", 8, 80), request(4, 40));
    change(&mut node, &mut request);
    texts(&fleet([node]), &request)
}

fn texts(fleet: &Fleet, request: &Request) -> (String, String) {
    let refusal = place(fleet, request).unwrap_err();
    (refusal.to_string(), refusal.nearest.map(|miss| miss.to_string()).unwrap_or_default())
}

fn pair(line: &str, nearest: &str) -> (String, String) {
    (line.to_owned(), nearest.to_owned())
}

#[test]
fn what_only_a_change_can_mend() {
    assert_eq!(refused(|node, _| node.gpus = None), pair("1 node: no GPUs", ""));
    assert_eq!(
        refused(|node, _| node.gpus.as_mut().unwrap().count = 0),
        pair("1 node: no GPUs", "")
    );
    assert_eq!(
        refused(|_, request| request.vendor = Some(Vendor::Amd)),
        pair("1 node: GPUs of another vendor (NVIDIA)", "")
    );
    assert_eq!(
        refused(|_, request| request.products = vec!["Other".to_owned()]),
        pair("1 node: product not asked for (Test-GPU)", "")
    );
    assert_eq!(
        refused(|node, request| {
            node.labels.insert("disk".to_owned(), "hdd".to_owned());
            request.node_selector.insert("disk".to_owned(), "ssd".to_owned());
        }),
        pair("1 node: label missing (disk=ssd)", "")
    );
    assert_eq!(
        refused(|node, _| node.taints = vec![taint("team", "a", Effect::NoSchedule)]),
        pair("1 node: taint not tolerated (team=a:NoSchedule)", "")
    );
    assert_eq!(
        refused(|node, _| node.gpus.as_mut().unwrap().unusable = Some("time-slicing".into())),
        pair("1 node: GPUs not usable (time-slicing)", "")
    );
    assert_eq!(
        refused(|node, _| node.gpus.as_mut().unwrap().vram = None),
        pair("1 node: VRAM unknown", "")
    );
    assert_eq!(
        refused(|_, request| request.vram_per_gpu = Bytes::gib(77)),
        pair(
            "1 node: GPU too small (76.0 GiB usable)",
            "needs 4 GPUs with 77.0 GiB free each on one node; the largest GPU allowed is on gpu-1 \
             with 76.0 GiB usable"
        )
    );
    assert_eq!(
        refused(|_, request| request.gpus = 9),
        pair(
            "1 node: too few GPUs (8)",
            "needs 9 GPUs with 40.0 GiB free each on one node; the largest such node is gpu-1 with \
             8 in all"
        )
    );
}

#[test]
fn what_the_state_of_the_node_has_against_it() {
    let near = "needs 4 GPUs with 40.0 GiB free each on one node; the GPUs are on gpu-1: ";
    let state = |line: &str| pair(&format!("1 node: {line}"), &format!("{near}{line}"));
    assert_eq!(refused(|node, _| node.ready = false), state("not ready"));
    assert_eq!(refused(|node, _| node.cordoned = true), state("cordoned"));
    assert_eq!(
        refused(|_, request| {
            request.avoid.insert(name("gpu-1"), "the kubelet refused it".to_owned());
        }),
        state("avoided (the kubelet refused it)")
    );
    let everything = Toleration { operator: Operator::Exists, ..Toleration::default() };
    assert_eq!(
        refused(|node, request| {
            node.cordoned = true;
            request.tolerations = vec![everything.clone()];
        }),
        state("cordoned"),
        "tolerating everything does not reach a cordoned node"
    );
    for (key, line) in [
        ("node.kubernetes.io/not-ready", "not ready"),
        ("node.kubernetes.io/unreachable", "not ready"),
        ("node.kubernetes.io/unschedulable", "cordoned"),
    ] {
        let taints = || vec![taint(key, "", Effect::NoSchedule)];
        assert_eq!(refused(|node, _| node.taints = taints()), state(line));
        let mut tainted = node("gpu-1", 8, 80);
        tainted.taints = taints();
        let fleet = fleet([tainted]);
        could_ever(&fleet, &request(4, 40)).unwrap();
        let tolerating = Request { tolerations: vec![everything.clone()], ..request(4, 40) };
        place(&fleet, &tolerating).unwrap();
    }
    assert_eq!(
        refused(|node, _| {
            node.taints = vec![taint("node.kubernetes.io/disk-pressure", "", Effect::NoSchedule)];
        })
        .0,
        "1 node: taint not tolerated (node.kubernetes.io/disk-pressure:NoSchedule)"
    );
}

#[test]
fn what_is_taken() {
    let mut taken = fleet([node("gpu-1", 8, 80)]);
    taken.upsert_occupant(ours("a", "gpu-1", 4));
    taken.upsert_occupant(foreign("b", "gpu-1", 1));
    assert_eq!(
        texts(&taken, &request(4, 40)),
        pair(
            "1 node: GPUs taken (4 by LLMDeployments, 1 by other pods, 3 free)",
            "needs 4 GPUs with 40.0 GiB free each on one node; best is gpu-1 with 3"
        )
    );
    taken.upsert_occupant(foreign("c", "gpu-1", 3));
    assert_eq!(
        texts(&taken, &request(1, 40)),
        pair(
            "1 node: GPUs taken (4 by LLMDeployments, 4 by other pods)",
            "needs 1 GPU with 40.0 GiB free; every GPU that could hold it is taken"
        )
    );
    let lacking = |resources| refused(move |_, request| request.resources = resources);
    let near = "needs 4 GPUs with 40.0 GiB free each on one node; the GPUs are on gpu-1, where";
    assert_eq!(
        lacking(Resources { cpu: MilliCpu::cores(65), ..Resources::default() }),
        pair(
            "1 node: too little CPU (64 free)",
            &format!("{near} 64 CPU is free of the 65 needed")
        )
    );
    assert_eq!(
        lacking(Resources { memory: Bytes::gib(513), ..Resources::default() }),
        pair(
            "1 node: too little memory (512.0 GiB free)",
            &format!("{near} 512.0 GiB of memory is free of the 513.0 GiB needed")
        )
    );
    assert_eq!(
        lacking(Resources { ephemeral_storage: Bytes::gib(1001), ..Resources::default() }),
        pair(
            "1 node: too little ephemeral storage (1000.0 GiB free)",
            &format!("{near} 1000.0 GiB of ephemeral storage is free of the 1001.0 GiB needed")
        )
    );
    assert_eq!(refused(|node, _| node.allocatable.pods = 0).0, "1 node: no room for another pod");
}

#[test]
fn what_the_cache_has_against_it() {
    let near = "needs 4 GPUs with 40.0 GiB free each on one node; the GPUs are on gpu-1";
    assert_eq!(
        refused(|_, request| request.cache = Some(need("llm", 15))),
        pair("1 node: no model cache", &format!("{near}: no model cache"))
    );
    assert_eq!(
        refused(|node, request| {
            node.cache = Bytes::gib(14);
            request.cache = Some(need("llm", 15));
        }),
        pair(
            "1 node: model cache too small (14.0 GiB)",
            &format!("{near}: model cache too small (14.0 GiB)")
        )
    );
    let mut used = fleet([caching("gpu-1", 20), caching("gpu-2", 16), node("gpu-3", 8, 80)]);
    used.upsert_occupant(using("a", "gpu-1", "other", 17));
    used.upsert_occupant(using("b", "gpu-2", "other", 17));
    let near = "needs 1 GPU with 40.0 GiB free; the GPUs are on gpu-1";
    assert_eq!(
        texts(&used, &cached_request("llm", 15)),
        pair(
            "2 nodes: too little model cache (up to 3.0 GiB can be freed); 1 node: no model cache",
            &format!("{near}, where 3.0 GiB of model cache can be freed of the 15.0 GiB needed")
        )
    );
    let mut leaving = lying([("llm", 15, 0)]);
    for cached in leaving.values_mut() {
        cached.leaving = true;
    }
    used.set_cached(&name("gpu-1"), leaving);
    let refusal = place(&used, &cached_request("llm", 15)).unwrap_err();
    assert_eq!(refusal.reasons[0].reason.label(), "CacheLeaving");
    assert_eq!(
        texts(&used, &cached_request("llm", 15)),
        pair(
            "1 node: its copy of the model is being removed; 1 node: too little model cache (0 B \
             can be freed); 1 node: no model cache",
            &format!("{near}: its copy of the model is being removed")
        )
    );
}

#[test]
fn preferences_and_tolerated_taints_refuse_nobody() {
    let mut tainted = node("gpu-1", 8, 80);
    tainted.taints = vec![
        taint("soft", "", Effect::PreferNoSchedule),
        taint("nvidia.com/gpu", "present", Effect::NoSchedule),
    ];
    let tolerated = Toleration {
        key: "nvidia.com/gpu".to_owned(),
        operator: Operator::Exists,
        ..Toleration::default()
    };
    let request = Request { tolerations: vec![tolerated], ..request(4, 40) };
    place(&fleet([tainted]), &request).unwrap();
}

#[test]
fn products_match_in_either_case() {
    let request = Request { products: vec!["test-gpu".to_owned()], ..request(4, 40) };
    place(&fleet([node("gpu-1", 8, 80)]), &request).unwrap();
}

#[test]
fn could_ever_looks_past_whatever_may_pass() {
    let mut away = node("gpu-1", 8, 80);
    away.ready = false;
    away.cordoned = true;
    let mut fleet = fleet([away]);
    fleet.upsert_occupant(foreign("a", "gpu-1", 8));
    let mut request = request(8, 76);
    request.avoid.insert(name("gpu-1"), "for now".to_owned());
    could_ever(&fleet, &request).unwrap();
    request.gpus = 9;
    assert_eq!(could_ever(&fleet, &request).unwrap_err().to_string(), "1 node: too few GPUs (8)");
    request.gpus = 8;
    request.resources.cpu = MilliCpu::cores(65);
    let refusal = could_ever(&fleet, &request).unwrap_err();
    assert_eq!(refusal.to_string(), "1 node: too little CPU (64 free)");
}

#[test]
fn an_empty_cluster_says_so() {
    assert_eq!(texts(&fleet([]), &request(1, 1)), pair("there are no nodes", ""));
}

#[test]
fn nodes_are_grouped_and_the_nearest_come_first() {
    let mut cluster = Vec::new();
    for index in 0..500 {
        let mut cpu_only = node(&format!("cpu-{index}"), 0, 0);
        cpu_only.gpus = None;
        cluster.push(cpu_only);
    }
    cluster.extend((0..12).map(|index| node(&format!("h100-{index}"), 8, 80)));
    cluster.extend((0..2).map(|index| node(&format!("l4-{index}"), 1, 24)));
    cluster.push(node("t4-0", 1, 16));
    let mut away = node("h100-99", 8, 80);
    away.cordoned = true;
    cluster.push(away);
    let mut fleet = fleet(cluster);
    for index in 0..12 {
        let node = format!("h100-{index}");
        fleet.upsert_occupant(ours(&format!("ours-{index}"), &node, 4));
        fleet.upsert_occupant(foreign(&format!("other-{index}"), &node, 1 + index / 11));
    }
    let refusal = place(&fleet, &request(4, 40)).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "12 nodes: GPUs taken (48 by LLMDeployments, 13 by other pods, up to 3 free); 1 node: \
         cordoned; 3 nodes: GPU too small (up to 22.8 GiB usable); 500 nodes: no GPUs"
    );
    assert_eq!(
        refusal.nearest.as_ref().unwrap().to_string(),
        "needs 4 GPUs with 40.0 GiB free each on one node; best is h100-0 with 3"
    );
    let taken = &refusal.reasons[0];
    assert_eq!(taken.examples, [name("h100-0"), name("h100-1"), name("h100-2")]);
    assert_eq!(taken.reason, RefusalReason::GpusTaken { free: 3, ours: 48, foreign: 13 });
    assert_eq!(taken.reason.label(), "GpusTaken");
}

#[test]
fn a_node_that_only_waits_for_an_uncordon_is_nearer_than_full_ones() {
    let mut away = node("gpu-2", 8, 80);
    away.cordoned = true;
    let mut fleet = fleet([node("gpu-1", 8, 80), away]);
    fleet.upsert_occupant(foreign("a", "gpu-1", 8));
    assert_eq!(
        texts(&fleet, &request(1, 40)).1,
        "needs 1 GPU with 40.0 GiB free; the GPUs are on gpu-2: cordoned"
    );
}

#[test]
fn the_line_stays_short_whatever_the_cluster_says() {
    let fleet = fleet((0..10_000).map(|index| {
        let mut node = node(&format!("gpu-{index}"), 8, 80);
        let text = format!("{index}-{}\n", "long".repeat(100));
        match index % 3 {
            0 => node.taints = vec![taint(&text, "", Effect::NoSchedule)],
            1 => node.gpus.as_mut().unwrap().unusable = Some(text),
            _ => node.gpus.as_mut().unwrap().vendor = Vendor::Amd,
        }
        node
    }));
    let refusal =
        place(&fleet, &Request { vendor: Some(Vendor::Nvidia), ..request(1, 1) }).unwrap_err();
    assert!(refusal.reasons.len() <= 17, "{}", refusal.reasons.len());
    let nodes: u32 = refusal.reasons.iter().map(|group| group.nodes).sum();
    assert_eq!(nodes, 10_000);
    let line = refusal.to_string();
    assert!(line.len() <= 600, "{} {line}", line.len());
    assert!(line.starts_with("3326 nodes: GPUs not usable (22-longlong"), "{line}");
    assert!(line.contains("… and others); "), "{line}");
    assert!(line.ends_with(" more nodes"), "{line}");
    assert!(!line.contains('\n'));
}
