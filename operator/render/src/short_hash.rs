//! Short names for long things.

/// A hash of a text in so many letters (at most 13), that neither spell words nor look like each
/// other: the ones that Kubernetes itself takes for such names.
///
/// FNV-1a: the same on every machine, in every version. It only tells apart what belongs to one
/// owner; it is no protection against somebody who looks for a collision.
pub(crate) fn short_hash(text: &str, letters: usize) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut state = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut hash = String::with_capacity(letters);
    for _ in 0..letters {
        let letter = usize::try_from(state % 27).unwrap_or(0);
        hash.push(char::from(ALPHABET[letter]));
        state /= 27;
    }
    hash
}
