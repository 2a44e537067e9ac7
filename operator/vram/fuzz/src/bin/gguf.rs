//! The first bytes of a GGUF file.

#![no_main]

use berth_vram::read;
use berth_vram_fuzz::use_facts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match read::gguf::header(data, None) {
        Ok(header) => {
            // No memory beyond what the bytes can fill.
            assert!(header.tensors.len() * 24 <= data.len());
            let part = header.part;
            let mut headers = vec![header];
            if part.count == 2 {
                let mut other = headers[0].clone();
                other.part.number = 1 - part.number;
                headers.push(other);
            }
            if let Ok(facts) = read::with_gguf(&headers) {
                use_facts(&facts);
            }
            let _ = read::gguf::header(data, Some(data.len() as u64 * 2));
        }
        Err(read::ReadError::NeedMore { needed }) => assert!(needed > data.len() as u64),
        Err(_) => {}
    }
});
