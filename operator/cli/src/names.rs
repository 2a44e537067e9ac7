//! Names that were meant, where one is not known.

/// The names most like `wanted`, the likest first, at most `most` of them.
pub fn nearest<'a>(
    wanted: &str,
    known: impl Iterator<Item = &'a str>,
    most: usize,
) -> Vec<&'a str> {
    let wanted = wanted.to_lowercase();
    let mut scored: Vec<(u64, &str)> =
        known.map(|name| (likeness(&wanted, &name.to_lowercase()), name)).collect();
    // By name where two are as like: the same answer every time.
    scored.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored.dedup_by_key(|scored| scored.1);
    scored.into_iter().filter(|scored| scored.0 >= 350).take(most).map(|scored| scored.1).collect()
}

/// Thousandths of the pairs of letters that two names share (Dice), those after the owner's name
/// counted, so that the owner matters less.
fn likeness(a: &str, b: &str) -> u64 {
    let own = |name: &str| dice(&pairs(name.rsplit('/').next().unwrap_or(name)), a);
    (own(b) * 3 + dice(&pairs(b), a)) / 4
}

fn pairs(name: &str) -> Vec<(char, char)> {
    let letters: Vec<char> = name.chars().filter(|c| c.is_alphanumeric()).collect();
    letters.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

fn dice(known: &[(char, char)], wanted: &str) -> u64 {
    let wanted = pairs(wanted.rsplit('/').next().unwrap_or(wanted));
    let mut left = known.to_vec();
    let shared = wanted.iter().filter(|pair| {
        let place = left.iter().position(|other| other == *pair);
        place.map(|place| left.swap_remove(place)).is_some()
    });
    let shared = shared.count() as u64;
    2000 * shared / (known.len() + wanted.len()).max(1) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_comes_first() {
        let known = ["Qwen/Qwen3-8B", "Qwen/Qwen3-32B", "meta-llama/Llama-3.1-8B-Instruct"];
        let near = |wanted| nearest(wanted, known.into_iter(), 2);
        assert_eq!(near("qwen/qwen3-8").first(), Some(&"Qwen/Qwen3-8B"));
        assert_eq!(near("llama-3.1-8b"), ["meta-llama/Llama-3.1-8B-Instruct"]);
        assert!(near("zzz").is_empty());
        assert!(near("").is_empty());
    }
}
