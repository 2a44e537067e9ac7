//! The catalogue beside copies of `config.json`, where they are at hand (`BERTH_SHARED`, else
//! `../shared` beside the repository); "skipped: no data" where they are not. What engines print is
//! compared by `operator/bench`.

mod data;

use data::Data;

#[test]
fn the_catalogue_agrees_with_copies_of_config_json() {
    let Some(data) = Data::read() else { return };
    let mut compared = 0;
    for (name, config) in data.configs() {
        let Some(entry) = berth_vram::catalogue().find(&name, None) else { continue };
        let facts = &entry.facts;
        for (field, ours) in [
            ("num_hidden_layers", facts.layers),
            ("hidden_size", facts.hidden_size),
            ("num_attention_heads", facts.attention_heads),
            ("num_key_value_heads", facts.kv_heads),
            ("vocab_size", facts.vocab_size),
            ("max_position_embeddings", facts.max_context),
        ] {
            if let Some(theirs) = config[field].as_u64() {
                assert_eq!(u64::from(ours), theirs, "{name}: {field}");
                compared += 1;
            }
        }
    }
    println!("{compared} facts agree with copies of config.json");
    assert!(compared >= 100);
}
