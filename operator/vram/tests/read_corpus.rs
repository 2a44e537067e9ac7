//! What the fuzzers found worth keeping is read without a panic: `make fuzz` adds to it.

use std::{fs, path::Path};

use berth_vram::read::{config, gguf, safetensors, with_gguf, with_safetensors};

fn corpus(reader: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(reader);
    let files = fs::read_dir(&folder);
    let files = files.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let read = |entry: std::io::Result<fs::DirEntry>| fs::read(entry.unwrap().path()).unwrap();
    let files: Vec<_> = files.map(read).collect();
    assert!(files.len() >= 10, "{reader}: {} files", files.len());
    files
}

#[test]
fn configs() {
    let mut read = 0;
    for bytes in corpus("config") {
        let text = String::from_utf8_lossy(&bytes);
        let (text, beside) = match text.split_once('\0') {
            Some((text, beside)) => (text, Some(beside)),
            None => (&*text, None),
        };
        if let Ok(facts) = config(text, beside) {
            assert_eq!(facts.validate(), Ok(()));
            read += 1;
        }
    }
    assert!(read >= 10, "{read}");
}

#[test]
fn ggufs() {
    let mut read = 0;
    for bytes in corpus("gguf") {
        if let Ok(header) = gguf::header(&bytes, None)
            && let Ok(facts) = with_gguf(&[header])
        {
            assert_eq!(facts.validate(), Ok(()));
            read += 1;
        }
    }
    assert!(read >= 3, "{read}");
}

#[test]
fn safetensors_headers() {
    let facts = config(
        r#"{"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 16, "vocab_size": 100,
            "num_attention_heads": 4}"#,
        None,
    );
    let facts = facts.unwrap();
    let mut read = 0;
    for bytes in corpus("safetensors") {
        if let Ok(header) = safetensors::header(&bytes, None) {
            let _ = with_safetensors(&facts, &[header]);
            read += 1;
        }
    }
    assert!(read >= 3, "{read}");
}
