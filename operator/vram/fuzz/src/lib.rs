//! What all fuzz targets do with what a reader gives them.

use berth_vram::{
    Engine, ModelFacts, Parallelism, Workload, estimate, parameters, tensor_degrees, weights,
};

/// Takes facts where a reader's are taken, and checks what must always hold. Panics are findings.
pub fn use_facts(facts: &ModelFacts) {
    assert_eq!(facts.validate(), Ok(()), "a reader gives valid facts");
    let tensors = facts.tensors.as_ref().expect("a reader gives tensors");
    assert_eq!(tensors.layer_count(), facts.layers);
    let half = facts.layers / 2;
    let halves = [0..half, half..facts.layers].map(|half| tensors.layer_bytes(half).total());
    let whole = tensors.layer_bytes(0..facts.layers).total();
    assert_eq!(halves[0] + halves[1], whole, "stages add up");
    let json = serde_json::to_string(facts).expect("facts are JSON");
    assert_eq!(serde_json::from_str::<ModelFacts>(&json).ok().as_ref(), Some(facts));
    let _ = (weights(facts), parameters(facts), tensor_degrees(facts, 8));
    for engine in [Engine::Vllm, Engine::LlamaCpp] {
        let workload = Workload::new(engine, facts.max_context.min(8192), 4);
        let _ = estimate(facts, &workload, Parallelism::tensor(2));
    }
}
