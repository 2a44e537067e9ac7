//! What is saved and sent reads back the same.

use berth_planner::{Occupant, Placement, Refusal, Request, place};

use crate::fixtures::{caching, fleet, name, need, request, using};

#[test]
fn requests_and_answers_survive_json() {
    let mut request = request(4, 40);
    request.avoid.insert(name("gpu-9"), "why".to_owned());
    request.siblings.insert(name("gpu-1"), 1);
    request.cache = Some(need("llm", 15));
    let json = serde_json::to_string(&request).unwrap();
    assert!(json.contains(r#""avoid":{"gpu-9":"why"}"#), "{json}");
    assert!(
        json.contains(r#""cache":{"key":"default/llm","bytes":16106127360,"offline":false}"#),
        "{json}"
    );
    assert_eq!(serde_json::from_str::<Request>(&json).unwrap(), request);

    let fleet = fleet([caching("gpu-1", 20)]);
    let placed = place(&fleet, &request).unwrap();
    let json = serde_json::to_string(&placed).unwrap();
    assert_eq!(serde_json::from_str::<Placement>(&json).unwrap(), placed);

    request.gpus = 9;
    let refusal = place(&fleet, &request).unwrap_err();
    let json = serde_json::to_string(&refusal).unwrap();
    assert_eq!(serde_json::from_str::<Refusal>(&json).unwrap(), refusal);

    let pod = using("a", "gpu-1", "llm", 15);
    let json = serde_json::to_string(&pod).unwrap();
    assert_eq!(serde_json::from_str::<Occupant>(&json).unwrap(), pod);
}
